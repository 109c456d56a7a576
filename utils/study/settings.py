"""
Stage 09, what is tried: every combination of the values in [study], each a project of its own.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from pydantic import ValidationError

from utils.errors import FieldguideError
from utils.masks import masker_id
from utils.pictures import size_text
from utils.project import HEAD_SIZE, PACKAGED, Project
from utils.storage import content_id
from utils.studied import HOW, READ_BY_A_HEAD, STUDIED, as_toml
from utils.train import architecture

EXAMPLE = """There is no section [study] in the project file. Write one above [labels], such as:

    [study]
    size = [128, 224]
    epochs = [2, 4]
    seeds = 3        # trainings of each setting, each on sides of its own
    minutes = 30     # that one call of study.run() takes

09 then tries every combination. projects/README.md lists the settings."""


@dataclass(frozen=True)
class Setting:
    """One combination of the values in [study]."""

    id: str  # 16 hex digits of all that its training reads
    values: Mapping[str, object]  # key → value, of the keys with more than one value that its training reads
    project: Project

    @property
    def name(self) -> str:
        """Return what differs from the others, such as "size 256 × 512, augment strong"."""
        return ", ".join(f"{key} {told(value)}" for key, value in self.values.items()) or "the only setting"


def told(value: object) -> str:
    """
    Return a value of a setting in words.

    >>> told([256, 512]), told("strong"), told(True)
    ('256 × 512', 'strong', 'true')
    """
    if isinstance(value, list | tuple):
        return size_text(value)
    return value if isinstance(value, str) else as_toml(value)


def combinations(project: Project) -> int:
    """Return how many combinations of values [study] names."""
    return math.prod(map(len, studied(project).values()))


def studied(project: Project) -> dict[str, list]:
    """Return the settings in [study] with their values; raise FieldguideError where there is no such section."""
    if not project.study:
        raise FieldguideError(EXAMPLE)
    return {key: values for key, values in project.study.items() if key not in HOW}


def settings_of(project: Project) -> list[Setting]:
    """
    Return the settings of a study, in the order of the file, each once.

    Combinations that differ only in what their training does not read are one: a head knows no epochs. Refused are
    keys that no training here reads, networks that are not there, and values that do not fit together.
    """
    keys = studied(project)
    found = {setting.id: setting for setting in _each(project, keys)}
    read = {key for setting in found.values() for key in setting.values}
    if unread := [key for key in keys if key not in read and len(keys[key]) > 1]:
        own = next(iter(found.values())).project
        line = "augment_search" if unread[0] == "augment" and project.study["augment_search"] else unread[0]
        reader = "a head" if own.train == "head" else "training"
        raise FieldguideError(
            f"[study] varies {unread[0]}, which changes nothing here: {reader} "
            f"reads {', '.join(read_by(own))}. Remove the line {line} = …, or set "
            f'train = "{"all" if unread[0] not in READ_BY_A_HEAD else "head"}".'
        )
    return list(found.values())


def _each(project: Project, keys: Mapping[str, list]) -> Iterator[Setting]:
    """Yield a setting per combination."""
    base = project.model_dump() | {"study": {}}
    for values in product(*keys.values()):
        chosen = dict(zip(keys, values, strict=True))
        if (
            (base | chosen)["train"] == "head"
            and (base | chosen)["mask"] == "channel"
            and len(keys.get("mask", ())) > 1
        ):
            continue  # a head has no fourth channel; the others of these values stand
        try:
            own = Project.model_validate(base | chosen)
        except ValidationError as error:
            problem = error.errors()[0]
            what = problem["msg"].removeprefix("Value error, ")
            raise FieldguideError(f"[study] with {as_toml(chosen)}: {what}. Correct that value.") from None
        if own.train == "head":  # in a study a head may look at pictures of any size; by itself it stands on HEAD_SIZE
            own = own.model_copy(update={"size": chosen.get("size", HEAD_SIZE)})
        else:
            architecture(own)  # refuses what cannot be trained, before hours of training
        reads = read_by(own)
        varied = {key: chosen[key] for key in keys if key in reads and len(keys[key]) > 1}
        yield Setting(recipe_id(own), varied, own)


def read_by(project: Project) -> tuple[str, ...]:
    """Return the keys that a training of this project reads."""
    if project.train == "head":
        return ("train", *READ_BY_A_HEAD)
    begins_with_a_head = project.arch == PACKAGED and project.weights == "imagenet"
    return tuple(key for key in STUDIED if key != "strength" or begins_with_a_head)


def recipe_id(project: Project) -> str:
    """
    Return 16 hex digits of what a training reads.

    Defaults are left out: so a key that a later version adds changes nothing.
    """
    asked = {key: getattr(project, key) for key in read_by(project)}
    defaults = {key: Project.model_fields[key].default for key in asked}
    # Heads stand on HEAD_SIZE now, but 128 stays the size that is not named: so older runs keep their ids.
    defaults |= {"size": 128} if project.train == "head" else {}
    told_of = {key: value for key, value in asked.items() if value != defaults[key]}
    if project.mask != "none":
        told_of["masker"] = masker_id(project)
    return content_id(json.dumps(told_of, sort_keys=True).encode())
