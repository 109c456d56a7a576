"""
What stage 02 tells a person: counts, reasons, pictures worth a look, and what to do about labels and files.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.dataset import read_dataset
from utils.places import is_table
from utils.project import Project
from utils.settling import SEARCH
from utils.tables import REJECTED_COLUMNS
from utils.verify.depths import brightness_remarks
from utils.verify.verdicts import Run, Tables, already_under, kind, lying, raw_files, two_labels, unlabelled
from utils.words import FEWEST_PHOTOS, counted

FEW_PICTURES = 30  # per label; below it the figures of 05 say little
UNEVEN = 3  # largest : smallest label


@dataclass(frozen=True)
class VerifyReport:
    """The state of the training set after stage 02."""

    added: int  # by this run
    rejected: int  # by this run
    counts: pd.DataFrame  # one row per label: pictures, rejected
    rejections: pd.DataFrame  # with the columns of rejected.csv: what 02 rejected and nobody took back
    dubious: dict[str, list[Path]]  # kind of warning → sorted paths in images/
    reasons: pd.DataFrame  # why pictures are rejected, the most frequent first: reason, pictures
    remarks: list[str]  # on labels without a picture, renamed, alike, small or uneven, and on files left alone


def report_of(project: Project, tables: Tables | None = None, run: Run | None = None) -> VerifyReport:
    """Return the state of the training set, and what a run did, without opening a picture."""
    dataset, tables, run = read_dataset(project), tables or Tables(project), run or Run()
    rows = tables.standing()
    there, out = Counter(dataset.labels), Counter(row["label"] for row in rows)
    index = pd.Index(list(project.labels), name="label")
    counts = pd.DataFrame({"pictures": [there[k] for k in index], "rejected": [out[k] for k in index]}, index=index)
    warned = [(name, picture.path) for picture in dataset for name in tables.warnings.get(picture.id, "").split()]
    dubious = {name: [path for other, path in warned if other == name] for name in sorted(dict(warned))}
    sides = 1 + sum(fraction > 0 for fraction in (project.valid, project.test))
    more = _how_to_gather(project, project.images / "<label>")
    remarks = [_empty_remark(project, label, tables, rows) for label in project.labels if not there[label]]
    remarks += _renamed_remarks(project, rows) + _alike_remarks(project, counts, rows)
    filled = {label: there[label] for label in project.labels if there[label]}
    enough = FEWEST_PHOTOS if project.individuals else FEW_PICTURES
    remarks += label_remarks(filled, sides=sides, more=f"Gather more: {more}.", few=enough)
    remarks += brightness_remarks(tables, rows) + _file_remarks(project, run)
    if waiting := len(unlabelled(project)):
        remarks.insert(0, f"{counted(waiting, 'photo')} without a label: give each one its label in the grid below.")
    rejections = pd.DataFrame(rows, columns=list(REJECTED_COLUMNS))
    reasons = sorted(Counter(kind(row["reason"]) for row in rows).items(), key=lambda item: (-item[1], item[0]))
    told = pd.DataFrame(reasons, columns=["reason", "pictures"])
    return VerifyReport(run.added, run.rejected, counts, rejections, dubious, told, remarks)


def _how_to_gather(project: Project, place: Path) -> str:
    """Return what brings a label more pictures. Only running 01 again does not, once it has what was asked for."""
    if SEARCH in project.sources:
        return (
            "raise images_per_label, or change or add a search, in the project file and run 01 again (it counts what "
            f"it fetched, also what was rejected here); or put photos into {place}"
        )
    if project.places:
        source = project.places[0]
        there = f"{source.parent} and to {source.name}" if is_table(source) else source
        return f"add photos to {there} and run 01 again, or put them into {place}"
    return f"put photos into {place}"


def _empty_remark(project: Project, label: str, tables: Tables, rows: list[dict[str, str]]) -> str:
    """Return why a label has no picture, and what to do."""
    accepted = sum(other == label for _, other in tables.accepted)
    reasons = Counter(kind(row["reason"]) for row in rows if row["label"] == label)
    why = [f"{accepted} were accepted and have been removed or moved since"] * (accepted > 0)
    why += [f"{count} × {reason}" for reason, count in reasons.most_common(3)]
    place = project.images / label
    do = _how_to_gather(project, place) if why else f"run 01, or put photos into {place}"
    return (
        f"Label {label!r} has no picture to learn from ({'; '.join(why) or 'nothing was gathered for it'}), and 03 "
        f"refuses that. Do one of these: {do}; or remove the label from the project file."
    )


def label_remarks(counts: Mapping[str, int], *, sides: int, more: str, few: int = FEW_PICTURES) -> list[str]:
    """
    Return a sentence for each label too small for 03, one on the others with few pictures, one if they are uneven.

    `counts` are the pictures of each label, `sides` is how many sets 03 makes, `more` says how to gather more.
    Fewer than `few` pictures are few.
    """
    remarks = [
        f"Label {label!r} has {counted(count)}, and 03 needs {sides}, one for each set. {more}"
        for label, count in counts.items()
        if count < sides
    ]
    if small := [f"{label!r} has {count}" for label, count in counts.items() if sides <= count < few]:
        remarks.append(f"{', '.join(small)} pictures; below {few}, luck decides how well a label does. {more}")
    large, small = (pick(counts, key=counts.__getitem__, default="") for pick in (max, min))
    if counts and counts[large] > UNEVEN * counts[small]:
        remarks.append(
            f"Label {large!r} has {counts[large] / counts[small]:.1f} times as many pictures as {small!r} "
            f"({counts[large]} to {counts[small]}), so guessing {large!r} pays. Gather more of {small!r}, or take "
            f"some of {large!r} out."
        )
    return remarks


def _renamed_remarks(project: Project, rows: list[dict[str, str]]) -> list[str]:
    """Return a sentence for each folder that is not a label any more but holds what was gathered for one."""
    known = [row for row in rows if row["reason"].startswith(already_under("")[:-2])]
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
            f"{old!r} is no label any more, but its folder holds {count} of the pictures gathered for {label!r}. If it "
            f"is the same label under a new name, {move} and run this cell again; if not, they stay rejected."
        )
    return remarks


def _alike_remarks(project: Project, counts: pd.DataFrame, rows: list[dict[str, str]]) -> list[str]:
    """Return a sentence if searches of two labels find the same pictures, or photos lie in two labels' folders."""
    under: dict[str, set[str]] = {}
    for row in rows:
        if row["reason"].startswith(two_labels(())):
            under.setdefault(row["id"], set()).add(row["label"])
    if SEARCH not in project.sources:
        return [
            f"{counted(count, 'photo')} {'lies' if count == 1 else 'lie'} in several folders, "
            f"{' and '.join(map(repr, labels))}, and so {'counts' if count == 1 else 'count'} for none. If one label "
            "is right, choose it in the grid below, in the list of what was set aside. A photo that "
            "shows the things of several labels cannot teach one of them."
            for labels, count in sorted(Counter(tuple(sorted(labels)) for labels in under.values()).items())
        ]
    twice, totals = Counter(label for labels in under.values() for label in labels), counts.sum(axis=1)
    most = [label for label in counts.index if 2 * twice[label] > totals[label]]
    if not most:
        return []
    others = sorted({label for labels in under.values() if labels & set(most) for label in labels})
    told = ", ".join(f"{twice[label]} of {totals[label]} for {label!r}" for label in most)
    return [
        f"Most pictures came under two labels, and so count for none ({told}): the searches of "
        f"{' and '.join(map(repr, others))} find the same pictures. Change one of them in the project file, and run 01 "
        "again."
    ]


def _file_remarks(project: Project, run: Run) -> list[str]:
    """Return a sentence on each kind of files that were left alone: unreadable, not from 01, not pictures."""
    remarks = []
    if unread := run.unread:
        remarks.append(
            f"{counted(len(unread), 'file')} in {project.raw} could not be read, such as "
            f"{unread[0].label}/{unread[0].id} ({unread[0].reason}). Put that right and run 02 again."
        )
    if odd := sorted(raw_files(project, ours=False)):
        remarks.append(
            f"{counted(len(odd), 'entry', 'entries')} in {project.raw} did not come from 01, such as "
            f"{odd[0].relative_to(project.raw)}, and stayed as they are. Put your own photos into "
            f"{project.images / odd[0].parent.name} instead."
        )
    if odd := run.odd:
        remarks.append(
            f"{counted(len(odd), 'entry', 'entries')} in {project.images} {'is' if len(odd) == 1 else 'are'} no file "
            f"but a folder, pipe, socket or broken link, such as {odd[0].relative_to(project.images)}, and stayed "
            f"unopened. Put photos straight into {odd[0].parent}, and take the rest away."
        )
    if changing := run.changing:
        remarks.append(
            f"{counted(len(changing), 'file')} in {project.images} changed while 02 read, such as "
            f"{changing[0].relative_to(project.images)}, and stayed in place. Wait until all are copied, and run 02 "
            "again."
        )
    if left := run.left:
        remarks.append(
            f"{counted(len(left), 'file')} in {project.images} in no picture format that we know, such as "
            f"{left[0].relative_to(project.images)}, stayed in place. Move them elsewhere, or save photos as JPEG."
        )
    return remarks
