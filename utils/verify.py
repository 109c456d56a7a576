"""
Stage 02: open every picture for real, set aside what is broken or a copy, make the training copy.

Reads raw/, the addresses in sources.csv and the folders of images/ as they are; writes images/, pictures.csv and
rejected.csv. A picture that was accepted once is never brought back: what a person removed or moved since stays as
the person left it. What a person puts into a label folder, or takes back, outranks what the tables say of it.
"""

import os
import re
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from utils.files import (
    FieldguideError,
    Shelf,
    append_rows,
    content_id,
    explained,
    locked,
    read_rows,
    remove_leftovers,
    write_new,
    write_whole,
)
from utils.pictures import (
    LONGEST_SIDE,
    PictureError,
    UnreadableError,
    extension,
    is_training_copy,
    jpeg_bytes,
    open_with_facts,
)
from utils.project import PICTURES_COLUMNS, REJECTED_COLUMNS, SOURCES_COLUMNS, Project
from utils.quality import grey_reduction, label_remarks, perceptual_hash, quality_warnings, served_by_many, useless

ID = re.compile(r"[0-9a-f]{16}")
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
BATCH = 32  # pictures between two writes of the tables
WORKERS = 2  # Pillow decodes outside Python's lock; each may hold a picture of 80 million pixels
UNDER_WAY = BATCH  # pictures judged ahead, while a batch is written; their copies wait in memory
KNOWN = "the same picture "  # how the reasons of copies begin


@dataclass(frozen=True)
class VerifyReport:
    """
    What 02 found: `added` and `set_aside` by this run, `counts` of the training set, `rejected` of all runs.

    counts : DataFrame, a row a label: pictures, set aside
    rejected : DataFrame with the columns of rejected.csv, without what was taken back since
    warned : DataFrame of pictures in the training set with a quality warning: id, label (as it is now), warnings
    dubious : the same by kind of warning → sorted paths in images/
    remarks : sentences on labels with too few pictures, on uneven ones, and on files that were left alone
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
        return self.rejected.reason.map(_kind).value_counts().rename("pictures").to_frame()


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


def verify_images(project: Project) -> VerifyReport:
    """
    Judge every picture that is new in raw/ or dropped into images/, and make the training copies.

    Run again at any time: it does what is missing and nothing twice.

    Raises
    ------
    FieldguideError
        If nothing was gathered, a label ends without a single readable picture, or something can't be written.
    """
    with locked(project.data):
        remove_leftovers(project.data)
        by_hand = take_in_by_hand(project)
        new, unread = judge_new(project)
    added, set_aside = (sum(counts) for counts in zip(by_hand, new, strict=True))
    report = report_of(project, added=added, set_aside=set_aside, unread=unread)
    empty = [label for label in project.labels if not report.counts.loc[label, "pictures"]]
    if empty:
        reasons = report.rejected[report.rejected.label == empty[0]].reason.map(_kind).value_counts().head(3)
        why = "; ".join(f"{n} × {reason}" for reason, n in reasons.items()) or "nothing was gathered for it"
        raise FieldguideError(
            f"Label {empty[0]!r} has no picture to learn from ({why}). Change or add a search, raise images_per_label "
            f"(01 counts what it fetched, also what is set aside here) and run 01 again; or put photos into "
            f"{project.images / empty[0]}, or remove the label from the project file."
        )
    return report


# ---------------------------------------------------------------------------------------------------------------
# What lies there
# ---------------------------------------------------------------------------------------------------------------


class _Tables:
    """What pictures.csv and rejected.csv hold; appends what is new to them."""

    def __init__(self, project: Project):
        self.project = project
        rows = read_rows(project.table("pictures"), PICTURES_COLUMNS)
        self.label_of = {row["id"]: row["label"] for row in rows}
        self.accepted = {(row["id"], row["label"]) for row in rows}
        self.rejected = read_rows(project.table("rejected"), REJECTED_COLUMNS)
        self.settled = {(row["id"], row["label"]) for row in self.rejected}

    def add(self, batch: list[Judged]) -> None:
        """Append a row for each picture that has none yet."""
        good = {judged.id: vars(judged) for judged in batch if not judged.reason and judged.id not in self.label_of}
        append_rows(self.project.table("pictures"), PICTURES_COLUMNS, good.values())
        self.label_of |= {id: row["label"] for id, row in good.items()}
        self.accepted |= {(id, row["label"]) for id, row in good.items()}
        rejected = [judged for judged in batch if judged.reason and (judged.id, judged.label) not in self.settled]
        rows = [vars(judged) | {"stage": "verify"} for judged in rejected]
        append_rows(self.project.table("rejected"), REJECTED_COLUMNS, rows)
        self.rejected += rows
        self.settled |= {(judged.id, judged.label) for judged in rejected}

    def aside(self) -> list[dict[str, str]]:
        """
        Return the rows of rejected.csv that still stand.

        One of this stage stands no more once pictures.csv lists its picture: it was taken back. But where the reason
        is that very picture, accepted earlier under another label, the newcomer stays set aside until it lies there.
        """
        return [row for row in self.rejected if not self._taken_back(row)]

    def _taken_back(self, row: dict[str, str]) -> bool:
        if row["stage"] != "verify" or row["id"] not in self.label_of:
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


def lying(project: Project) -> dict[str, list[Path]]:
    """Return id → where it lies in images/, in whatever folder, also one that is no label any more."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(project.images.iterdir()) if project.images.is_dir() else ():
        for path in sorted(folder.glob("*.jpg")) if folder.is_dir() else ():
            if path.is_file():
                found.setdefault(path.stem, []).append(path)
    return found


def _two_labels(others: Iterable[str]) -> str:
    """Return the reason for a picture of which nobody can tell the label."""
    return f"{KNOWN}came under two labels: also {', '.join(map(repr, others))}"


def _kind(reason: str) -> str:
    """Return a reason without what is of one picture alone."""
    plain = re.sub(r"\b[0-9a-f]{16}\b", "another", reason)
    return re.split(r" \(|: ", plain, maxsplit=1)[0]


# ---------------------------------------------------------------------------------------------------------------
# By hand
# ---------------------------------------------------------------------------------------------------------------


def take_in_by_hand(project: Project) -> tuple[int, int]:
    """
    Give what a person put into images/<label>/ its training copy and row; return how many were added and set aside.

    A photo of any name is moved to raw/ and its training copy made in that label, unless the same picture lies in
    images/ already; junk is set aside. A file named like an id that raw/ knows, but pictures.csv does not, was put
    there to rescue what had been set aside: it stays. A dropped file goes only after its bytes are in raw/ and its
    copy in images/, so a kill leaves at most both.
    """
    tables = _Tables(project)
    rescued, dropped = _by_hand(project, tables)
    added = aside = 0
    for path, original in rescued:
        judged = next(good for good in (judge(file, asked=True) for file in (original, path)) if not good.reason)
        if not is_training_copy(_bytes_of(path)):
            write_whole(path, judged.copy)
        tables.add([replace(judged, id=path.stem, label=path.parent.name)])
        added += 1

    known, mine = {}, {path for paths, _ in dropped.values() for path in paths}
    there = lying(project)
    for id, label in dropped:
        others = [path.parent.name for path in there.get(id, ()) if path not in mine]
        also = [other for same, other in dropped if same == id and other != label]
        if others:
            known[id, label] = f"{KNOWN}is already under {others[0]!r}"
        elif also:
            known[id, label] = _two_labels(also)
    for batch in _batches(_judged([original for _, original in dropped.values()], known), BATCH):
        batch = [judged for judged in batch if not judged.unread]
        for judged in batch:
            target = project.images / judged.label / f"{judged.id}.jpg"
            if not judged.reason:
                write_whole(target, judged.copy)  # nothing lies there, unless it is the dropped file itself
            for path in dropped[judged.id, judged.label][0]:
                if judged.reason or not path.samefile(target):
                    with explained(path):
                        path.unlink()
        tables.add(batch)
        added += sum(not judged.reason for judged in batch)
        aside += sum(bool(judged.reason) for judged in batch)
    return added, aside


def _by_hand(
    project: Project, tables: _Tables
) -> tuple[list[tuple[Path, Path]], dict[tuple[str, str], tuple[list[Path], Path]]]:
    """
    Return what a person put into images/ and pictures.csv does not know.

    Rescued files, each with its original in raw/; and by (id, label) the dropped ones with theirs, whose bytes are
    now in raw/ too.
    """
    gathered: dict[str, list[Path]] = {}
    for path in raw_files(project):
        gathered.setdefault(path.stem, []).append(path)
    rejected = {id for id, _ in tables.settled}
    rescued, dropped = [], {}
    for label in project.labels:
        folder = project.images / label
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            named = path.suffix == ".jpg" and ID.fullmatch(path.stem)
            if not path.is_file() or path.name.startswith(".") or path.name.lower() in SYSTEM_FILES:
                continue
            if named and path.stem in tables.label_of:
                continue
            data, id = _bytes_of(path), path.stem
            if named and id in gathered and is_training_copy(data) and id not in rejected and len(gathered[id]) == 1:
                continue  # what a kill left before its row: judge_new writes that
            if named and id in gathered and (is_training_copy(data) or content_id(data) == id):
                original = gathered[id][0]
                if any(not judge(file, asked=True).reason for file in (original, path)):
                    rescued.append((path, original))
                    continue
            original = project.raw / label / f"{content_id(data)}.{extension(data)}"
            write_new(original, data)
            if original.read_bytes() == data:
                dropped.setdefault((original.stem, label), ([], original))[0].append(path)
    return rescued, dropped


def _bytes_of(path: Path) -> bytes:
    """Return the bytes of a file in images/, or say what to do where it may not be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FieldguideError(
            f"Cannot read {path}: {error.strerror or error}. Give this account permission to read it, or move it "
            "away, and run this cell again."
        ) from error


def take_back(project: Project, ids: str | Iterable[str], *, label: str | None = None) -> VerifyReport:
    """
    Take pictures that were set aside into the training set after all, because a person asks for it.

    Small, narrow, flat, unfinished ones and placeholders come as they are, of an animation the first frame. They
    stand under the label that they were gathered for, and from then on count as any other picture.

    Parameters
    ----------
    ids : an id, or an iterable of ids
    label : str, optional
        One of the project's labels; must be said for a picture that came under several.

    Raises
    ------
    FieldguideError
        If one of them was not set aside, cannot be decoded, or its label is open; then none is taken back.
    """
    ids = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    with locked(project.data):
        remove_leftovers(project.data)
        tables, there = _Tables(project), lying(project)
        originals = _asked_for(project, ids, label, tables)
        _refuse_known_elsewhere(project, originals, label, there)
        for judged in _judged(list(originals.values()), asked=True):
            if judged.reason:
                raise FieldguideError(
                    f"The picture {judged.id} cannot be taken back: {judged.reason}. Leave it out and call this again; "
                    "none of the others was taken back yet."
                )
        added = 0
        for batch in _batches(_judged(list(originals.values()), asked=True), BATCH):
            moved = [replace(judged, label=label or judged.label) for judged in batch]
            moved = [judged for judged in moved if judged.id not in there or judged.id not in tables.label_of]
            added += _keep(project, tables, moved, there)
    return report_of(project, added=added)


def _refuse_known_elsewhere(
    project: Project, originals: dict[str, Path], label: str | None, there: dict[str, list[Path]]
) -> None:
    """Say where a picture is that a person takes back, if it is somewhere already: moving it is theirs to do."""
    deleted = _deleted(project)
    for id, original in originals.items():
        wanted = label or original.parent.name
        if others := [path.parent.name for path in there.get(id, ()) if path.parent.name != wanted]:
            raise FieldguideError(
                f"The picture {id} lies under {others[0]!r} already: move its file from {project.images / others[0]} "
                f"to {project.images / wanted}."
            )
        if id in deleted:
            raise FieldguideError(
                f"The picture {id} was deleted in 06 and lies in {project.trash}: restore it there, with "
                f'Ledger(project).restore(["{id}"]).'
            )


def _deleted(project: Project) -> set[str]:
    """Return the ids that a person took out and that lie in the trash."""
    return {path.stem for path in project.trash.glob("*/*.jpg")}


def _asked_for(project: Project, ids: list[str], label: str | None, tables: _Tables) -> dict[str, Path]:
    """Return id → its file in raw/ for pictures that a person takes back, or say which cannot be."""
    if label is not None and label not in project.labels:
        raise FieldguideError(f"{label!r} is no label of this project. Name one of {', '.join(project.labels)}.")
    files: dict[str, list[Path]] = {}
    for path in raw_files(project):
        files.setdefault(path.stem, []).append(path)
    aside: dict[str, list[str]] = {}
    for row in tables.rejected:
        if row["stage"] == "verify":
            aside.setdefault(row["id"], []).append(row["label"])
    chosen = {}
    for id in ids:
        found = [path for path in files.get(id, ()) if path.parent.name in aside.get(id, ())]
        if not found:
            raise FieldguideError(
                f"No picture {id!r} was set aside by 02. Look up the id in {project.table('rejected')}, and call this "
                "again."
            )
        labels = sorted({path.parent.name for path in found})
        if label is None and len(labels) > 1:
            raise FieldguideError(
                f"The picture {id} came under {' and '.join(map(repr, labels))}. Say which it is, with label=…"
            )
        chosen[id] = next((path for path in found if path.parent.name == label), found[0])
    return chosen


# ---------------------------------------------------------------------------------------------------------------
# What is new in raw/
# ---------------------------------------------------------------------------------------------------------------


def judge_new(project: Project) -> tuple[tuple[int, int], list[Judged]]:
    """
    Judge what the tables don't know yet.

    Return how many were added and how many set aside; and those that could not be read, to be tried again next time.
    """
    tables, there = _Tables(project), lying(project)
    files = raw_files(project)
    labels_of: dict[str, list[str]] = {}
    for path in files:
        labels_of.setdefault(path.stem, []).append(path.parent.name)

    fresh, known, deleted = [], {}, _deleted(project) - tables.label_of.keys()  # whatever became of the table
    for path in files:
        id, label = path.stem, path.parent.name
        if (id, label) in tables.settled or (id, label) in tables.accepted or id in deleted:
            continue
        fresh.append(path)
        if id in tables.label_of:
            now = [path.parent.name for path in there.get(id, ())]
            before = f"{KNOWN}was under {tables.label_of[id]!r} before"
            known[id, label] = f"{KNOWN}is already under {now[0]!r}" if now else before
        elif others := [other for other in dict.fromkeys(labels_of[id]) if other != label]:
            known[id, label] = _two_labels(others)

    served = served_by_many(read_rows(project.table("sources"), SOURCES_COLUMNS)) if fresh else {}
    added, unread, before = 0, [], len(tables.settled)
    for batch in _batches(_judged(fresh, known, served=served), BATCH):
        added += _keep(project, tables, [judged for judged in batch if not judged.unread], there)
        unread += [judged for judged in batch if judged.unread]
    return (added, len(tables.settled) - before), unread


def _keep(project: Project, tables: _Tables, batch: list[Judged], there: dict[str, list[Path]]) -> int:
    """
    Write the training copies of a batch, then its rows; return how many pictures were added.

    Copies first: one without a row is found again, a row without one is not. A copy that lies there already is what
    a killed run left, and a person may have moved it since.
    """
    shelf, images = Shelf(), project.images
    good = {judged.id: judged for judged in batch if not judged.reason}
    for judged in good.values():
        target = images / judged.label / f"{judged.id}.jpg"
        if judged.id not in there and not target.is_file():
            shelf.add(target, judged.copy)
    shelf.settle()
    tables.add(batch)
    return len(good)


def _judged(
    paths: list[Path],
    known: dict[tuple[str, str], str] | None = None,
    *,
    served: dict[str, int] | None = None,
    asked: bool = False,
) -> Iterator[Judged]:
    """
    Judge pictures in the order given, `WORKERS` at a time and at most `UNDER_WAY` ahead of whoever takes them.

    One that is good but known under another label (id, label → reason) is set aside for that.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; we judge by whether the pixels decode
        opening = partial(judge, served=served, asked=asked)
        waiting: deque = deque()
        with tqdm(total=len(paths), desc="opening", unit="picture", disable=not paths) as bar:
            for path in [*paths, *[None] * UNDER_WAY]:
                if path is not None:
                    waiting.append(pool.submit(opening, path))
                if waiting and (path is None or len(waiting) > UNDER_WAY):
                    judged = waiting.popleft().result()
                    reason = judged.reason or (known or {}).get((judged.id, judged.label), "")
                    yield judged if reason == judged.reason else replace(judged, reason=reason)
                    bar.update()


def _batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield the items in lists of `size`."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def judge(path: Path, *, served: dict[str, int] | None = None, asked: bool = False) -> Judged:
    """
    Open a gathered file in full and decide: a training copy, or a reason to set it aside.

    Parameters
    ----------
    path : Path
        raw/<label>/<id>.<ext>
    served : mapping of id to the number of sites, optional
        Pictures that many unrelated sites serve: such a one is set aside if it is a drawing.
    asked : bool
        Whether a person asks for this very picture: then all that can be decoded is good, also an animation.
    """
    id, label = path.stem, path.parent.name
    try:
        opened = open_with_facts(path, longest_side=LONGEST_SIDE, first_frame=asked)
    except (UnreadableError, OSError) as error:
        return Judged(id, label, reason=str(error), unread=True)
    except PictureError as error:
        return Judged(id, label, reason=str(error))
    image, width, height = opened.image, opened.width, opened.height
    grey = grey_reduction(image)
    if not asked and (reason := useless(opened, grey, sites=(served or {}).get(id, 0))):
        return Judged(id, label, reason=reason)
    found = quality_warnings(np.asarray(grey), width, height)
    return Judged(
        id,
        label,
        copy=jpeg_bytes(image),
        hash=perceptual_hash(grey),
        width=width,
        height=height,
        warnings=" ".join([*found, *["unfinished"] * (opened.coarse or opened.missing > 0)]),
    )


# ---------------------------------------------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------------------------------------------


def report_of(project: Project, *, added: int = 0, set_aside: int = 0, unread: Iterable[Judged] = ()) -> VerifyReport:
    """Return the state of the training set as a report, without opening a picture."""
    pictures, tables = project.pictures(), _Tables(project)
    labels = pd.Series([path.parent.name for path in pictures.values()], dtype=object)
    rejected = [row for row in tables.aside() if row["stage"] == "verify"]  # 03 tells of its own
    rejected = pd.DataFrame(rejected, columns=list(REJECTED_COLUMNS))
    index = pd.Index(list(project.labels), name="label")
    counts = pd.DataFrame(
        {
            "pictures": labels.value_counts().reindex(index, fill_value=0),
            "set aside": rejected.label.value_counts().reindex(index, fill_value=0),
        },
        index=index,
    )
    told = {row["id"]: row["warnings"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    found = [(id, path.parent.name, told[id]) for id, path in pictures.items() if told.get(id)]
    warned = pd.DataFrame(found, columns=["id", "label", "warnings"])
    kinds = sorted({kind for _, _, kinds in found for kind in kinds.split()})
    dubious = {kind: [pictures[id] for id, _, kinds in found if kind in kinds.split()] for kind in kinds}
    sides = 1 + sum(fraction > 0 for fraction in (project.valid, project.test))
    remarks = label_remarks(counts.pictures.to_dict(), sides=sides, folder=project.images)
    remarks += _file_remarks(project, list(unread))
    return VerifyReport(added, set_aside, counts, rejected, warned, dubious, remarks)


def _file_remarks(project: Project, unread: list[Judged]) -> list[str]:
    """Return a sentence on the files that could not be read, and one on those in raw/ that are none of 01's."""
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
    return remarks


def rejected_paths(project: Project) -> dict[str, list[Path]]:
    """Return what is set aside now, reason → sorted paths in raw/, the most frequent reason first."""
    files = {(path.stem, path.parent.name): path for path in raw_files(project)}
    rows = [row for row in _Tables(project).aside() if (row["id"], row["label"]) in files and row["stage"] == "verify"]
    sizes = Counter(_kind(row["reason"]) for row in rows)
    groups: dict[str, list[Path]] = {kind: [] for kind in sorted(sizes, key=lambda kind: (-sizes[kind], kind))}
    for row in rows:
        groups[_kind(row["reason"])].append(files[row["id"], row["label"]])
    return {kind: sorted(paths) for kind, paths in groups.items()}
