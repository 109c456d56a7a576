"""
What stage 02 found of each picture, as its tables and folders have it, and the report on that.

Reads raw/, images/ and trash/ by their names alone, pictures.csv and rejected.csv; appends to the two tables. `verify`
opens the pictures; here none is opened, so that the report costs nothing.
"""

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import pandas as pd

from utils.project import SEARCH, Project
from utils.tables import PICTURES_COLUMNS, REJECTED_COLUMNS, append_rows, each_row, one_line
from utils.verify.quality import label_remarks

ID = re.compile(r"[0-9a-f]{16}")
KNOWN = "the same picture "  # how the reasons of copies begin


@dataclass(frozen=True)
class Judged:
    """One picture after opening: its training copy, or the reason why there is none."""

    id: str
    label: str
    reason: str = ""
    copy: bytes = b""
    hash: str = ""
    width: int = 0
    height: int = 0
    warnings: str = ""
    unread: bool = False  # the system did not hand the file over: no judgement of the picture


@dataclass(frozen=True)
class VerifyReport:
    """
    What 02 found: `added` and `set_aside` by this run, `counts` of the training set, `rejected` of all runs.

    counts : DataFrame, a row a label: pictures, set aside
    rejected : DataFrame with the columns of rejected.csv: what 02 set aside and was not taken back since
    warned : DataFrame of pictures in the training set with a quality warning: id, label (as it is now), warnings
    dubious : the same by kind of warning → sorted paths in images/
    remarks : sentences, first on labels without a picture; then on labels renamed, alike, small or uneven, and on
        files that were left alone
    """

    added: int
    set_aside: int
    counts: pd.DataFrame
    rejected: pd.DataFrame
    warned: pd.DataFrame
    dubious: dict[str, list[Path]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def reasons(self) -> pd.DataFrame:
        """Return how many pictures were set aside for each reason."""
        return self.rejected.reason.map(kind).value_counts().rename("pictures").to_frame()


# ---------------------------------------------------------------------------------------------------------------
# What lies there
# ---------------------------------------------------------------------------------------------------------------


class Tables:
    """What pictures.csv and, of stage 02, rejected.csv hold; appends what is new to them."""

    def __init__(self, project: Project):
        self.project = project
        self.label_of: dict[str, str] = {}
        self.accepted: set[tuple[str, str]] = set()  # (id, label)
        self.warnings: dict[str, str] = {}  # id → what may be wrong with it, "" for nothing
        for row in each_row(project.table("pictures"), PICTURES_COLUMNS):
            self._know(row)
        rejected = each_row(project.table("rejected"), REJECTED_COLUMNS)
        self.rejected = [row for row in rejected if row["stage"] == "verify"]
        self.settled = {(row["id"], row["label"]) for row in self.rejected}

    def _know(self, row: Mapping[str, str]) -> None:
        """Remember what a row of pictures.csv says; of several for one picture, the last counts."""
        self.label_of[row["id"]] = row["label"]
        self.accepted.add((row["id"], row["label"]))
        self.warnings[row["id"]] = row["warnings"]

    def add(self, batch: list[Judged]) -> None:
        """Append a row for each picture that has none yet."""
        good = {judged.id: vars(judged) for judged in batch if not judged.reason and judged.id not in self.label_of}
        append_rows(self.project.table("pictures"), PICTURES_COLUMNS, good.values())
        for row in good.values():
            self._know(row)
        new = [judged for judged in batch if judged.reason and (judged.id, judged.label) not in self.settled]
        rows = [{"id": one.id, "label": one.label, "stage": "verify", "reason": one_line(one.reason)} for one in new]
        append_rows(self.project.table("rejected"), REJECTED_COLUMNS, rows)
        self.rejected += rows
        self.settled |= {(row["id"], row["label"]) for row in rows}

    def aside(self) -> list[dict[str, str]]:
        """
        Return the rows of rejected.csv that still stand.

        One stands no more once pictures.csv lists its picture: it was taken back. But where the reason is that very
        picture, accepted earlier under another label, the newcomer stays set aside until it lies there.
        """
        return [row for row in self.rejected if not self._taken_back(row)]

    def _taken_back(self, row: dict[str, str]) -> bool:
        if row["id"] not in self.label_of:
            return False
        if (row["id"], row["label"]) in self.accepted or not row["reason"].startswith((f"{KNOWN}is", f"{KNOWN}was")):
            return True
        return (self.project.images / row["label"] / f"{row['id']}.jpg").is_file()


def raw_files(project: Project) -> list[Path]:
    """Return the gathered files of the project's labels, sorted by label and name; no links, no odd names."""
    return [path for path, ours in _in_raw(project).items() if ours]


def _in_raw(project: Project) -> dict[Path, bool]:
    """Return whatever lies in raw/<label>/ but is not hidden → whether it is a gathered file, by its name and kind."""
    found = {}
    for folder in (project.raw / label for label in project.labels):
        with os.scandir(folder) if folder.is_dir() else nullcontext(()) as entries:
            for entry in sorted(entries, key=attrgetter("name")):
                if not entry.name.startswith("."):
                    path = folder / entry.name
                    found[path] = bool(ID.fullmatch(path.stem)) and entry.is_file(follow_symlinks=False)
    return found


def by_id(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Return id → the files of that name, in the order given."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def lying(project: Project) -> dict[str, list[Path]]:
    """Return id → where it lies in images/, in whatever folder, also one that is no label any more."""
    return by_id(path for path in sorted(project.images.glob("*/*.jpg")) if path.is_file())


def trashed(project: Project, there: Container[str]) -> dict[str, Path]:
    """Return id → where it lies in trash/ alone: a person took it out, and the next run must not bring it back."""
    return {path.stem: path for path in sorted(project.trash.glob("*/*.jpg")) if path.stem not in there}


def already_under(label: str) -> str:
    """Return the reason for a picture that lies under another label."""
    return f"{KNOWN}is already under {label!r}"


def two_labels(others: Iterable[str]) -> str:
    """Return the reason for a picture of which nobody can tell the label."""
    return f"{KNOWN}came under two labels: also {', '.join(map(repr, others))}"


def kind(reason: str) -> str:
    """Return a reason without what is of one picture alone."""
    plain = re.sub(r"\b[0-9a-f]{16}\b", "another", reason)
    return re.split(r" \(|: ", plain, maxsplit=1)[0]


# ---------------------------------------------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------------------------------------------


def report_of(
    project: Project,
    tables: Tables | None = None,
    *,
    added: int = 0,
    set_aside: int = 0,
    unread: Iterable[Judged] = (),
    left: Iterable[Path] = (),
) -> VerifyReport:
    """
    Return the state of the training set as a report, without opening a picture.

    Parameters
    ----------
    project : Project
    tables : Tables, optional
        Where they were read already.
    added, set_aside : int
        What this run did.
    unread : iterable of Judged
        Files of raw/ that the system did not hand over.
    left : iterable of paths
        Files in images/ that are plainly no pictures.
    """
    pictures, tables = project.pictures(), tables or Tables(project)
    aside = tables.aside()
    rejected = pd.DataFrame(aside, columns=list(REJECTED_COLUMNS))
    counts = _counts(project, pictures, aside)
    told = tables.warnings
    found = [(id, path.parent.name, told[id]) for id, path in pictures.items() if told.get(id)]
    warned = pd.DataFrame(found, columns=["id", "label", "warnings"])
    kinds = sorted({kind for _, _, kinds in found for kind in kinds.split()})
    dubious = {kind: [pictures[id] for id, _, kinds in found if kind in kinds.split()] for kind in kinds}
    sides = 1 + sum(fraction > 0 for fraction in (project.valid, project.test))
    filled = {label: count for label, count in counts.pictures.items() if count}
    more = _how_to_gather(project, project.images / "<label>")
    remarks = [_empty_remark(project, label, tables, aside) for label in counts.index if label not in filled]
    remarks += _renamed_remarks(project, aside) + _alike_remarks(counts, aside)
    remarks += label_remarks(filled, sides=sides, more=f"Gather more: {more}.")
    remarks += _file_remarks(project, list(unread), list(left))
    return VerifyReport(added, set_aside, counts, rejected, warned, dubious, remarks)


def _counts(project: Project, pictures: Mapping[str, Path], aside: list[dict[str, str]]) -> pd.DataFrame:
    """Return how many pictures of each label (row) are in the training set, and how many are set aside."""
    there = Counter(path.parent.name for path in pictures.values())
    out = Counter(row["label"] for row in aside)
    rows = [(there[label], out[label]) for label in project.labels]
    return pd.DataFrame(rows, columns=["pictures", "set aside"], index=pd.Index(list(project.labels), name="label"))


def _how_to_gather(project: Project, place: Path) -> str:
    """Return what brings a label more pictures; running 01 again alone does not, once it has what was asked for."""
    if SEARCH in project.sources:
        return (
            "raise images_per_label, or change or add a search, in the project file and run 01 again (it counts what "
            f"it fetched, also what was set aside here); or put photos into {place}"
        )
    if project.folders:
        return f"add photos to {project.folders[0]} and run 01 again, or put them into {place}"
    return f"put photos into {place}"


def _empty_remark(project: Project, label: str, tables: Tables, aside: list[dict[str, str]]) -> str:
    """Return why a label has no picture, and what to do."""
    accepted = sum(other == label for _, other in tables.accepted)
    reasons = Counter(kind(row["reason"]) for row in aside if row["label"] == label)
    why = [f"{accepted} were accepted and have been removed or moved since"] * (accepted > 0)
    why += [f"{count} × {reason}" for reason, count in reasons.most_common(3)]
    place = project.images / label
    do = _how_to_gather(project, place) if why else f"run 01, or put photos into {place}"
    return (
        f"Label {label!r} has no picture to learn from ({'; '.join(why) or 'nothing was gathered for it'}), and 03 "
        f"refuses that. Do one of these: {do}; or remove the label from the project file."
    )


def _renamed_remarks(project: Project, aside: list[dict[str, str]]) -> list[str]:
    """Return a sentence for each folder that belongs to no label any more but holds what was gathered for one."""
    known = [row for row in aside if row["reason"].startswith(already_under("")[:-2])]
    there = lying(project) if known else {}
    found: Counter[tuple[str, str]] = Counter()
    for row in known:
        folders = [path.parent.name for path in there.get(row["id"], ())]
        if folders and not set(folders) & set(project.labels):
            found[folders[0], row["label"]] += 1
    remarks = []
    for (old, label), count in sorted(found.items()):
        source, target = project.images / old, project.images / label
        move = f"move the files of {source} into {target}" if target.is_dir() else f"rename {source} to {target}"
        remarks.append(
            f"{old!r} is no label any more, but {count} of the pictures gathered for {label!r} lie{'s' * (count == 1)} "
            f"in its folder. If it is the same label under a new name, {move} and run this cell again; if not, they "
            "stay set aside."
        )
    return remarks


def _alike_remarks(counts: pd.DataFrame, aside: list[dict[str, str]]) -> list[str]:
    """Return a sentence if labels lost most of their pictures because these came under two."""
    under: dict[str, set[str]] = {}
    for row in aside:
        if row["reason"].startswith(two_labels(())):
            under.setdefault(row["id"], set()).add(row["label"])
    twice = Counter(label for labels in under.values() for label in labels)
    most = {label: (n, int(counts.loc[label].sum())) for label, n in sorted(twice.items()) if label in counts.index}
    most = {label: (n, of) for label, (n, of) in most.items() if 2 * n > of}
    if not most:
        return []
    others = sorted({label for labels in under.values() if labels & set(most) for label in labels})
    told = ", ".join(f"{n} of {of} for {label!r}" for label, (n, of) in most.items())
    return [
        f"Most pictures came under two labels, and so count for none ({told}): the searches of "
        f"{' and '.join(map(repr, others))} find the same pictures. Change one of them in the project file, and run 01 "
        "again."
    ]


def _file_remarks(project: Project, unread: list[Judged], left: list[Path]) -> list[str]:
    """Return a sentence on each kind of files that were left alone: not read, not of 01, no pictures."""
    remarks = []
    if unread:
        first = unread[0]
        remarks.append(
            f"{len(unread)} file{'s' * (len(unread) > 1)} in {project.raw} could not be read, such as "
            f"{first.label}/{first.id} ({first.reason}). Put that right and run 02 again."
        )
    if odd := sorted(path for path, ours in _in_raw(project).items() if not ours):
        remarks.append(
            f"{len(odd)} of what lies in {project.raw} did not come from 01, such as "
            f"{odd[0].relative_to(project.raw)}, and was left alone. Put own photos into "
            f"{project.images / odd[0].parent.name} instead."
        )
    if left:
        remarks.append(
            f"{len(left)} of the files in {project.images} {'are' if len(left) > 1 else 'is'} in no picture format "
            f"known here, such as {left[0].relative_to(project.images)}, and stayed where it lies. Move it elsewhere, "
            "or save it as JPEG if it is a photo."
        )
    return remarks
