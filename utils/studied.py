"""
The section [study] of a project file: which settings of training to try, and how often.

Foundation of the project file. A list stands behind each setting; the study tries every combination. The values
themselves are checked as those of the project file are.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from utils.refusals import as_key, in_quotes

# The settings that training reads; those that a head reads, too.
STUDIED = (
    *("train", "arch", "weights", "size", "augment", "schedule", "optimizer", "lr", "batch_size", "epochs"),
    *("freeze_epochs", "class_weights", "patience", "strength", "mask"),
)
READ_BY_A_HEAD = ("size", "class_weights", "strength", "mask")
SEEDS, MINUTES = 3, 30.0  # by default: trainings of each setting, and the time of one call
MOST_SEEDS = 100
HOW = {"seeds": SEEDS, "minutes": MINUTES, "race": True, "augment_search": False}  # the other keys, with their defaults
# What augment_search tries, from next to nothing to three times as much as fastai's own.
LADDER = [
    {"mult": 0.01, "max_zoom": 1.0, "do_flip": False},
    {"mult": 0.5},
    "standard",
    "strong",
    {"mult": 3.0, "max_zoom": 1.5},
]


def as_toml(value) -> str:
    """
    Return a value as TOML writes it.

    >>> as_toml({"mult": 2.0}), as_toml(["a", 1, True])
    ('{ mult = 2.0 }', '["a", 1, true]')
    """
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{as_key(key)} = {as_toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, str):
        return in_quotes(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def checked_study(given: Mapping) -> dict:
    """Return the section [study] with its defaults, or raise ValueError: which key, which value, what to do."""
    study = HOW | dict(given)
    for key, value in given.items():
        if key in HOW:
            continue
        if key not in STUDIED:
            near = get_close_matches(key, [*STUDIED, *HOW], n=1, cutoff=0.7)
            told = f"did you mean {near[0]}?" if near else f"write one of {', '.join(STUDIED)}"
            raise ValueError(f"{key} is not a setting of training; {told}")
        if not isinstance(value, list) or not value:
            raise ValueError(f"write the values of {key} as a list: {key} = [{as_toml(value)}]")
        if len(value) != len({repr(one) for one in value}):
            raise ValueError(f"{key} has a value twice: {as_toml(value)}. Remove one of the two")
    seeds, minutes = study["seeds"], study["minutes"]
    if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"seeds = {seeds!r:.40}. Write a whole number from 1 to {MOST_SEEDS}")
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0:
        raise ValueError(f"minutes = {minutes!r:.40}. Write a number above 0, such as 30")
    for key in ("race", "augment_search"):
        if not isinstance(study[key], bool):
            raise ValueError(f"{key} = {study[key]!r:.40}. Write true or false, without quotes")
    if study["augment_search"] and "augment" in study:
        raise ValueError("augment_search chooses the values of augment. Remove augment, or augment_search")
    if study["augment_search"]:
        study["augment"] = LADDER
    if given and not study.keys() & set(STUDIED):
        raise ValueError("it names no setting to try. Write one with its values, such as size = [128, 224]")
    return study if given else {}


def require_values(study: Mapping, validate: Callable[[str, object], object]) -> None:
    """
    Raise pydantic's ValidationError if [study] lists a value that its setting does not allow.

    `validate` takes a key and a value, and raises if the project file could not say so.
    """
    wrong = []
    for key, place, value in [(k, n, v) for k in study if k not in HOW for n, v in enumerate(study[k])]:
        try:
            validate(key, value)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                details = {name: found[name] for name in ("type", "input", "ctx") if name in found}
                if found["loc"][:1] == (key,):
                    wrong.append(InitErrorDetails(loc=("study", key, place, *found["loc"][1:]), **details))
    if wrong:
        raise ValidationError.from_exception_data("study", wrong)
