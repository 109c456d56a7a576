"""
Stage 02: open every picture for real, set aside what is broken or a copy, make the training copy.

Reads raw/ and the folders of images/ as they are; writes images/, pictures.csv and rejected.csv. A picture that
was accepted once is never brought back: what a person removed or moved since stays as the person left it.
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
from PIL import Image
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
)
from utils.pictures import LONGEST_SIDE, PictureError, extension, jpeg_bytes, open_picture
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
        remove_leftovers(project.images)
        take_in_dropped_files(project)
        added, set_aside = judge_new(project)
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


def take_in_dropped_files(project: Project) -> None:
    """
    Move photos that a person dropped into images/<label>/ to raw/, where they are judged like any other.

    Also a file that is named like an id but that neither pictures.csv nor raw/ knows. The bytes are safe in raw/
    before the dropped file goes, so a kill leaves at most both.
    """
    known = {row["id"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    raw = {path.stem for path in raw_files(project)}
    for label in project.labels:
        folder = project.images / label
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            ours = path.suffix == ".jpg" and ID.fullmatch(path.stem) and path.stem in known | raw
            if ours or not path.is_file() or path.name.startswith(".") or path.name.lower() in SYSTEM_FILES:
                continue
            data = path.read_bytes()
            original = project.raw / label / f"{content_id(data)}.{extension(data)}"
            write_new(original, data)
            if original.read_bytes() == data:
                with explained(path):
                    path.unlink()


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
    known = {row["id"]: row["label"] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    settled = {(row["id"], row["label"]) for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)}
    labels_of: dict[str, list[str]] = {}
    for path in raw_files(project):
        labels_of.setdefault(path.stem, []).append(path.parent.name)

    fresh, copy_of = [], {}
    for path in raw_files(project):
        id, label = path.stem, path.parent.name
        if (id, label) in settled or known.get(id) == label:
            continue
        fresh.append(path)
        if id in known:
            copy_of[id, label] = f"the same picture is already under {known[id]!r}"
        elif len(labels_of[id]) > 1:
            others = ", ".join(repr(other) for other in labels_of[id] if other != label)
            copy_of[id, label] = f"the same picture came under two labels: also {others}"

    added = set_aside = 0
    for batch in _batches(_judged(fresh, copy_of), BATCH):
        _record(project, batch)
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


def _record(project: Project, batch: list[Judged]) -> None:
    """Write training copies first, then the rows: a copy without a row is found again, a row without one is not."""
    for judged in batch:
        if not judged.reason:
            write_new(project.images / judged.label / f"{judged.id}.jpg", judged.copy)
    append_rows(project.table("pictures"), PICTURES_COLUMNS, [vars(j) for j in batch if not j.reason])
    rejected = [vars(judged) | {"stage": "verify"} for judged in batch if judged.reason]
    append_rows(project.table("rejected"), REJECTED_COLUMNS, rejected)


def judge(path: Path) -> Judged:
    """Open a gathered file in full and decide: a training copy, or a reason to set it aside."""
    id, label = path.stem, path.parent.name
    try:
        with Image.open(path) as image:
            width, height = image.size  # before draft mode and turning
        _refuse_shape(width, height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, PictureError):
            return Judged(id, label, reason=str(error))
        width = height = 0  # open_picture finds the reason
    try:
        image = open_picture(path, longest_side=LONGEST_SIDE)
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
