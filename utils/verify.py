"""
Stage 02: open every picture for real, set aside what is broken or a copy, make the training copy.

Reads raw/ and the folders of images/ as they are; writes images/, pictures.csv and rejected.csv. A picture that
was accepted once is never brought back: what a person removed or moved since stays as the person left it. What a
person puts into a label folder outranks what the tables say of it.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from utils.files import (
    FieldguideError,
    append_rows,
    content_id,
    explained,
    locked,
    read_rows,
    remove_leftovers,
    write_new,
    write_whole,
)
from utils.pictures import LONGEST_SIDE, PictureError, extension, is_training_copy, jpeg_bytes, open_with_size
from utils.project import PICTURES_COLUMNS, REJECTED_COLUMNS, Project

ID = re.compile(r"[0-9a-f]{16}")
SMALLEST_SIDE = 64  # pixels; below it there is no animal to see
WIDEST_ASPECT = 6  # longer : shorter side; banners and strips lie beyond
FLAT = 4  # grey levels of 0–255: a picture whose colours all lie within it is a placeholder
DARK, BRIGHT = 30, 225  # mean grey level of 0–255
BLURRY = 15  # variance of the Laplacian at 256 px; sharp photos have hundreds
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
BATCH = 32  # pictures between two writes of the tables


@dataclass(frozen=True)
class VerifyReport:
    """
    What 02 found: `added` and `set_aside` by this run, `counts` of the training set, `rejected` of all runs.

    counts : DataFrame, a row a label: pictures, set aside
    rejected : DataFrame with the columns of rejected.csv
    warned : DataFrame of pictures in the training set with a quality warning: id, label, warnings
    """

    added: int
    set_aside: int
    counts: pd.DataFrame
    rejected: pd.DataFrame
    warned: pd.DataFrame

    def reasons(self) -> pd.DataFrame:
        """Return how many pictures were set aside for each reason."""
        plain = self.rejected.reason.str.replace(r"\b[0-9a-f]{16}\b", "another", regex=True)
        return plain.str.split(r" \(|: ", n=1, regex=True).str[0].value_counts().rename("pictures").to_frame()


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


def verify_images(project: Project) -> VerifyReport:
    """
    Judge every picture that is new in raw/ or dropped into images/, and make the training copies.

    Run again at any time: it does what is missing and nothing twice.

    Raises
    ------
    FieldguideError
        If nothing was gathered, or a label ends without a single readable picture.
    """
    with locked(project.data):
        remove_leftovers(project.data)
        changes = [take_in_by_hand(project), judge_new(project)]
    added, set_aside = (sum(counts) for counts in zip(*changes, strict=True))
    report = report_of(project, added=added, set_aside=set_aside)
    empty = [label for label in project.labels if not report.counts.loc[label, "pictures"]]
    if empty:
        reasons = report.rejected[report.rejected.label == empty[0]].reason.value_counts().head(3)
        why = "; ".join(f"{n} × {reason}" for reason, n in reasons.items()) or "nothing was gathered for it"
        raise FieldguideError(
            f"Label {empty[0]!r} has no picture to learn from ({why}). Gather some with 01, put photos into "
            f"{project.images / empty[0]}, or remove the label from the project file."
        )
    return report


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
    for path, judged in rescued:
        if not is_training_copy(_bytes_of(path)):
            write_whole(path, judged.copy)
        tables.add([judged])

    set_aside, mine = {}, {path for paths in dropped.values() for path in paths}
    for id, label in dropped:
        others = [path.parent.name for path in lying(project, id) if path not in mine]
        also = [other for same, other in dropped if same == id and other != label]
        if others:
            set_aside[id, label] = f"the same picture is already under {others[0]!r}"
        elif also:
            set_aside[id, label] = _two_labels(also)
    originals = [_original(project, id, label) for id, label in dropped]
    added, aside = len(rescued), 0
    for batch in _batches(_judged(originals, set_aside), BATCH):
        for judged in batch:
            target = project.images / judged.label / f"{judged.id}.jpg"
            if not judged.reason:
                write_whole(target, judged.copy)  # nothing lies there, unless it is the dropped file itself
            for path in dropped[judged.id, judged.label]:
                if judged.reason or not path.samefile(target):
                    with explained(path):
                        path.unlink()
        tables.add(batch)
        added += sum(not judged.reason for judged in batch)
        aside += sum(bool(judged.reason) for judged in batch)
    return added, aside


class _Tables:
    """What pictures.csv and rejected.csv held at the start; appends what is new to them."""

    def __init__(self, project: Project):
        self.project = project
        self.label_of = {row["id"]: row["label"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
        self.settled = {(row["id"], row["label"]) for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)}

    def add(self, batch: list[Judged]) -> None:
        """Append a row for each picture that has none yet."""
        good = [vars(judged) for judged in batch if not judged.reason and judged.id not in self.label_of]
        append_rows(self.project.table("pictures"), PICTURES_COLUMNS, good)
        rejected = [judged for judged in batch if judged.reason and (judged.id, judged.label) not in self.settled]
        rows = [vars(judged) | {"stage": "verify"} for judged in rejected]
        append_rows(self.project.table("rejected"), REJECTED_COLUMNS, rows)


def _by_hand(project: Project, tables: _Tables) -> tuple[list[tuple[Path, Judged]], dict[tuple[str, str], list[Path]]]:
    """Return the rescued files, judged, and the dropped ones by (id, label), whose bytes are now in raw/ too."""
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
                judged = next((good for good in map(judge, (gathered[id][0], path)) if not good.reason), None)
                if judged:
                    rescued.append((path, replace(judged, label=label)))
                    continue
            original = project.raw / label / f"{content_id(data)}.{extension(data)}"
            write_new(original, data)
            if original.read_bytes() == data:
                dropped.setdefault((original.stem, label), []).append(path)
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


def _original(project: Project, id: str, label: str) -> Path:
    """Return the file of a gathered picture."""
    return next(iter(sorted((project.raw / label).glob(f"{id}.*"))))


def lying(project: Project, id: str) -> list[Path]:
    """Return where a picture lies in images/, in whatever folder, also one that is no label any more."""
    folders = sorted(project.images.iterdir()) if project.images.is_dir() else []
    return [path for folder in folders if (path := folder / f"{id}.jpg").is_file()]


def _two_labels(others: Iterable[str]) -> str:
    """Return the reason for a picture of which nobody can tell the label."""
    return f"the same picture came under two labels: also {', '.join(map(repr, others))}"


def raw_files(project: Project) -> list[Path]:
    """Return the gathered files of the project's labels, sorted by label and name."""
    return [
        path
        for label in project.labels
        for path in sorted((project.raw / label).glob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]


def judge_new(project: Project) -> tuple[int, int]:
    """Judge what the tables don't know yet; return how many were added and how many set aside."""
    tables = _Tables(project)
    labels_of: dict[str, list[str]] = {}
    for path in raw_files(project):
        labels_of.setdefault(path.stem, []).append(path.parent.name)

    fresh, copy_of = [], {}
    for path in raw_files(project):
        id, label = path.stem, path.parent.name
        if (id, label) in tables.settled or tables.label_of.get(id) == label:
            continue
        fresh.append(path)
        if id in tables.label_of:
            now = [there.parent.name for there in lying(project, id)]
            before = f"the same picture was under {tables.label_of[id]!r} before"
            copy_of[id, label] = f"the same picture is already under {now[0]!r}" if now else before
        elif len(labels_of[id]) > 1:
            copy_of[id, label] = _two_labels(other for other in labels_of[id] if other != label)

    added = set_aside = 0
    for batch in _batches(_judged(fresh, copy_of), BATCH):
        for judged in batch:
            # A copy without a row is what a killed run left, and a person may have moved it since.
            if not judged.reason and not lying(project, judged.id):
                write_new(project.images / judged.label / f"{judged.id}.jpg", judged.copy)
        tables.add(batch)  # copies first: one without a row is found again, a row without one is not
        added += sum(not judged.reason for judged in batch)
        set_aside += sum(bool(judged.reason) for judged in batch)
    return added, set_aside


def _judged(paths: list[Path], copy_of: dict[tuple[str, str], str]) -> Iterator[Judged]:
    """
    Judge pictures two at a time (Pillow decodes outside Python's lock), in the order given.

    One that is good but known under another label (id, label → reason) is set aside for that.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; we judge by whether the pixels decode
        for judged in tqdm(pool.map(judge, paths), total=len(paths), desc="opening", unit="picture", disable=not paths):
            copied = "" if judged.reason else copy_of.get((judged.id, judged.label), "")
            yield replace(judged, reason=copied) if copied else judged


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


def judge(path: Path) -> Judged:
    """Open a gathered file in full and decide: a training copy, or a reason to set it aside."""
    id, label = path.stem, path.parent.name
    try:
        image, (width, height) = open_with_size(path, longest_side=LONGEST_SIDE)
        _refuse_shape(width, height)
    except (PictureError, OSError) as error:
        return Judged(id, label, reason=str(error))
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    if max(high - low for low, high in image.getextrema()) <= FLAT:
        return Judged(id, label, reason="one flat colour")
    return Judged(
        id,
        label,
        copy=jpeg_bytes(image),
        hash=str(imagehash.phash(image, hash_size=8)),
        width=width,
        height=height,
        warnings=" ".join(quality_warnings(grey, width, height)),
    )


def _refuse_shape(width: int, height: int) -> None:
    """Refuse what is too small or too narrow to show anything."""
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(f"too small: {width}×{height} pixels, at least {SMALLEST_SIDE} on a side are needed")
    if max(width, height) > WIDEST_ASPECT * min(width, height):
        raise PictureError(f"extreme aspect: {width}×{height} pixels")


def quality_warnings(grey: np.ndarray, width: int, height: int) -> list[str]:
    """
    Return what may be wrong with a picture that opens: "dark", "bright", "blurry", "tiny".

    Parameters
    ----------
    grey : float array (H, W)
        The training copy's grey levels, 0–255.
    width, height : int
        Pixels of the original.
    """
    found = []
    if grey.mean() < DARK:
        found.append("dark")
    if grey.mean() > BRIGHT:
        found.append("bright")
    step = max(1, max(grey.shape) // 256)
    small = grey[::step, ::step]
    laplacian = 4 * small[1:-1, 1:-1] - small[:-2, 1:-1] - small[2:, 1:-1] - small[1:-1, :-2] - small[1:-1, 2:]
    if laplacian.size and laplacian.var() < BLURRY:
        found.append("blurry")
    if max(width, height) < 2 * SMALLEST_SIDE:
        found.append("tiny")
    return found


def report_of(project: Project, *, added: int = 0, set_aside: int = 0) -> VerifyReport:
    """Return the state of the training set as a report, without opening a picture."""
    pictures = project.pictures()
    labels = pd.Series([path.parent.name for path in pictures.values()], dtype=object)
    rejected = pd.DataFrame(read_rows(project.table("rejected"), REJECTED_COLUMNS), columns=list(REJECTED_COLUMNS))
    index = pd.Index(list(project.labels), name="label")
    counts = pd.DataFrame(
        {
            "pictures": labels.value_counts().reindex(index, fill_value=0),
            "set aside": rejected.label.value_counts().reindex(index, fill_value=0),
        },
        index=index,
    )
    rows = [row for row in read_rows(project.table("pictures"), PICTURES_COLUMNS) if row["id"] in pictures]
    warned = pd.DataFrame([row for row in rows if row["warnings"]], columns=["id", "label", "warnings"])
    return VerifyReport(added, set_aside, counts, rejected, warned)
