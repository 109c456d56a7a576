"""
Stage 02: open every picture for real, set aside what is broken or a copy, make the training copy.

Reads raw/, the addresses in sources.csv and the folders of images/ as they are; writes images/, pictures.csv and
rejected.csv, and to sources.csv what dropped photos were called. A picture that was accepted once is never brought
back: what a person removed or moved since stays as the person left it. What a person puts into a label folder, or
takes back, outranks what the tables say of it. What the tables hold, and the report, are in `verdicts`.
"""

import warnings
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.pictures import (
    LONGEST_SIDE,
    PictureError,
    UnreadableError,
    extension,
    is_training_copy,
    jpeg_bytes,
    open_with_facts,
)
from utils.project import Project
from utils.storage import Shelf, content_id, explained, locked, remove_leftovers, visible_files, write_new, write_whole
from utils.tables import HAND, SOURCES_COLUMNS, append_rows, each_row
from utils.verify.quality import grey_reduction, perceptual_hash, quality_warnings, served_by_many, useless
from utils.verify.report import (
    ID,
    KNOWN,
    Judged,
    Tables,
    VerifyReport,
    already_under,
    by_id,
    kind,
    lying,
    raw_files,
    report_of,
    trashed,
    two_labels,
)

SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r"}
BATCH = 32  # pictures between two writes of the tables
WORKERS = 2  # Pillow decodes outside Python's lock; each may hold a picture of 80 million pixels
UNDER_WAY = BATCH  # pictures judged ahead, while a batch is written; their copies wait in memory

Dropped = dict[tuple[str, str], tuple[list[Path], Path]]  # (id, label) → the files in images/, and theirs in raw/


def verify_images(project: Project) -> VerifyReport:
    """
    Judge every picture that is new in raw/ or dropped into images/, and make the training copies.

    Run again at any time: it does what is missing and nothing twice. A label without a picture is the report's first
    remark, so that what was set aside of it can be looked at.

    Raises
    ------
    FieldguideError
        If nothing was gathered yet, or something can't be read or written.
    """
    with locked(project.data):
        remove_leftovers(project.data)
        tables = Tables(project)
        by_hand, left = take_in_by_hand(project, tables)
        new, unread = judge_new(project, tables)
    if not raw_files(project) and not project.pictures():
        raise FieldguideError(
            f"There is no picture in {project.data}: nothing was gathered. Run 01, or put photos into "
            f"{project.images / '<label>'}, and run this cell again."
        )
    added, set_aside = (sum(counts) for counts in zip(by_hand, new, strict=True))
    return report_of(project, tables, added=added, set_aside=set_aside, unread=unread, left=left)


def rejected_paths(project: Project) -> dict[str, list[Path]]:
    """Return what is set aside now, reason → sorted paths in raw/, the most frequent reason first."""
    files = {(path.stem, path.parent.name): path for path in raw_files(project)}
    rows = [row for row in Tables(project).aside() if (row["id"], row["label"]) in files]
    sizes = Counter(kind(row["reason"]) for row in rows)
    groups: dict[str, list[Path]] = {name: [] for name in sorted(sizes, key=lambda name: (-sizes[name], name))}
    for row in rows:
        groups[kind(row["reason"])].append(files[row["id"], row["label"]])
    return {name: sorted(paths) for name, paths in groups.items()}


# ---------------------------------------------------------------------------------------------------------------
# By hand
# ---------------------------------------------------------------------------------------------------------------


def take_in_by_hand(project: Project, tables: Tables) -> tuple[tuple[int, int], list[Path]]:
    """
    Give what a person put into images/<label>/ its training copy and row.

    A photo of any name is moved to raw/ and its training copy made in that label, unless the same picture lies in
    images/ already; what is broken is set aside. Its name stays in sources.csv. A file named like an id that raw/
    knows, but pictures.csv does not, was put there to rescue what had been set aside: it stays. A dropped file goes
    only after its bytes are in raw/, its copy in images/ and its name noted, so a kill leaves at most all of them.

    Return how many were added and how many set aside; and the files that are plainly no pictures, left alone.
    """
    added, dropped, left = _by_hand(project, tables)
    aside = 0
    sources = each_row(project.table("sources"), SOURCES_COLUMNS) if dropped else ()
    noted = {(row["id"], row["label"]) for row in sources} & set(dropped)
    originals = [original for _, original in dropped.values()]
    for batch in _batches(_judged(originals, _known_elsewhere(project, dropped)), BATCH):
        batch = [judged for judged in batch if not judged.unread]
        good = [judged for judged in batch if not judged.reason]
        for judged in good:
            target = project.images / judged.label / f"{judged.id}.jpg"
            if target.exists() and not any(map(target.samefile, dropped[judged.id, judged.label][0])):
                added -= judged.id in tables.label_of  # dropped once more where it lies already
            else:
                write_whole(target, judged.copy)
        unnamed = [judged for judged in batch if (judged.id, judged.label) not in noted]
        rows = [_source_row(judged, *dropped[judged.id, judged.label]) for judged in unnamed]
        append_rows(project.table("sources"), SOURCES_COLUMNS, rows)
        for judged in batch:
            for path in dropped[judged.id, judged.label][0]:
                if judged.reason or not path.samefile(project.images / judged.label / f"{judged.id}.jpg"):
                    with explained(path):
                        path.unlink()
        tables.add(batch)
        added += len(good)
        aside += len(batch) - len(good)
    return (added, aside), left


def _known_elsewhere(project: Project, dropped: Dropped) -> dict[tuple[str, str], str]:
    """Return (id, label) → the reason, for what was dropped into a label and lies, or was dropped, in another too."""
    known, mine = {}, {path for paths, _ in dropped.values() for path in paths}
    there = lying(project) if dropped else {}
    for id, label in dropped:
        places = [path for path in there.get(id, ()) if path not in mine and path.parent.name != label]
        also = [other for same, other in dropped if same == id and other != label]
        if places:
            known[id, label] = already_under(places[0].parent.name)
        elif also:
            known[id, label] = two_labels(also)
    return known


def _source_row(judged: Judged, paths: list[Path], original: Path) -> dict[str, str | int]:
    """Return the row of sources.csv for a photo that a person dropped: its name is all that is known of it."""
    row = dict.fromkeys(SOURCES_COLUMNS, "") | {"id": judged.id, "label": judged.label, "engine": HAND}
    row |= {"title": paths[0].name, "license": "unknown", "status": "kept", "bytes": original.stat().st_size}
    row |= {"width": judged.width or "", "height": judged.height or ""}
    return row | {"fetched_at": datetime.now(UTC).isoformat(timespec="seconds")}


def _by_hand(project: Project, tables: Tables) -> tuple[int, Dropped, list[Path]]:
    """
    File what a person put into images/ and pictures.csv does not know.

    Return how many were rescued, which is done then; the dropped ones, whose bytes are now in raw/ too; and those that
    are plainly no pictures. Only a name in .jpg makes any file a broken picture: it would count as one of the training
    set.
    """
    gathered = by_id(raw_files(project))
    rejected = {id for id, _ in tables.settled}
    found = [path for label in project.labels for path in visible_files(project.images / label) if path.is_file()]
    found = [path for path in found if path.name.lower() not in SYSTEM_FILES]
    found = [path for path in found if not (_is_named(path) and path.stem in tables.label_of)]
    rescued, dropped, left = 0, {}, []
    for path in tqdm(found, desc="put there by hand", unit="file", disable=not found):
        data, id = _bytes_of(path), path.stem
        if _is_named(path) and id in gathered:
            ours = is_training_copy(data)
            if ours and id not in rejected and len(gathered[id]) == 1:
                continue  # what a kill left before its row: judge_new writes that
            if (ours or content_id(data) == id) and (judged := _asked_judgement(gathered[id][0], path)):
                if not ours:
                    write_whole(path, judged.copy)
                tables.add([replace(judged, id=id, label=path.parent.name)])
                rescued += 1
                continue
        suffix = extension(data)
        if suffix == "bin" and path.suffix.lower() != ".jpg":
            left.append(path)
            continue
        original = project.raw / path.parent.name / f"{content_id(data)}.{suffix}"
        write_new(original, data)
        if original.read_bytes() == data:
            dropped.setdefault((original.stem, path.parent.name), ([], original))[0].append(path)
    return rescued, dropped, left


def _is_named(path: Path) -> bool:
    """Return whether a file has the name of a training copy."""
    return path.suffix == ".jpg" and bool(ID.fullmatch(path.stem))


def _asked_judgement(*paths: Path) -> Judged | None:
    """Return the judgement of the first file that can be decoded."""
    return next((good for good in (judge(path, asked=True) for path in paths) if not good.reason), None)


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
        If one of them was not set aside, lies under another label or in the trash, cannot be decoded, or its label is
        open; then none is taken back.
    """
    ids = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    with locked(project.data):
        remove_leftovers(project.data)
        tables, there = Tables(project), lying(project)
        deleted = trashed(project, there)
        originals = _asked_for(project, ids, label, tables, there, deleted)
        # Their copies wait in memory, 100 kB each: a person names tens.
        taken = [replace(judged, label=label or judged.label) for judged in _judged([*originals.values()], asked=True)]
        for judged in taken:
            if judged.reason:
                raise FieldguideError(
                    f"The picture {judged.id} cannot be taken back: {judged.reason}. Leave it out and call this again; "
                    "none of the others was taken back yet."
                )
        taken = [judged for judged in taken if judged.id not in there or judged.id not in tables.label_of]
        added = sum(_keep(tables, batch, there, deleted) for batch in _batches(taken, BATCH))
    return report_of(project, tables, added=added)


def _asked_for(
    project: Project,
    ids: list[str],
    label: str | None,
    tables: Tables,
    there: dict[str, list[Path]],
    deleted: dict[str, Path],
) -> dict[str, Path]:
    """Return id → its file in raw/ for pictures that a person takes back, or say which cannot be."""
    if label is not None and label not in project.labels:
        raise FieldguideError(f"{label!r} is no label of this project. Name one of {', '.join(project.labels)}.")
    files, chosen = by_id(raw_files(project)), {}
    for id in ids:
        found = [path for path in files.get(id, ()) if (id, path.parent.name) in tables.settled]
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
        target = project.images / (label or chosen[id].parent.name)
        if (places := there.get(id, ())) and target not in [path.parent for path in places]:
            raise FieldguideError(
                f"The picture {id} lies under {places[0].parent.name!r} already: move that file, {places[0]}, to "
                f"{target} to have it there."
            )
        if id in deleted:
            raise FieldguideError(
                f"The picture {id} was deleted in 06 and lies in {deleted[id]}: restore it there, with "
                f'Ledger(project).restore(["{id}"]).'
            )
    return chosen


# ---------------------------------------------------------------------------------------------------------------
# What is new in raw/
# ---------------------------------------------------------------------------------------------------------------


def judge_new(project: Project, tables: Tables) -> tuple[tuple[int, int], list[Judged]]:
    """
    Judge what the tables don't know yet.

    Return how many were added and how many set aside; and those that could not be read, to be tried again next time.
    """
    files, there = raw_files(project), lying(project)
    same = by_id(files)
    fresh, known = [], {}
    for path in files:
        id, label = path.stem, path.parent.name
        if (id, label) in tables.settled or (id, label) in tables.accepted:
            continue
        fresh.append(path)
        if id in tables.label_of:
            now = [path.parent.name for path in there.get(id, ())]
            before = f"{KNOWN}was under {tables.label_of[id]!r} before"
            known[id, label] = already_under(now[0]) if now else before
        elif others := [other for other in dict.fromkeys(path.parent.name for path in same[id]) if other != label]:
            known[id, label] = two_labels(others)

    served = served_by_many(each_row(project.table("sources"), SOURCES_COLUMNS)) if fresh else {}
    deleted = trashed(project, there)
    added, unread, before = 0, [], len(tables.settled)
    for batch in _batches(_judged(fresh, known, served=served), BATCH):
        added += _keep(tables, [judged for judged in batch if not judged.unread], there, deleted)
        unread += [judged for judged in batch if judged.unread]
    return (added, len(tables.settled) - before), unread


def _keep(tables: Tables, batch: list[Judged], there: Container[str], deleted: Mapping[str, Path]) -> int:
    """
    Write the training copies of a batch, then its rows; return how many pictures were added.

    Copies first: one without a row is found again, a row without one is not. A copy that lies there already is what
    a killed run left, and a person may have moved it since. One in the trash was taken out by a person, and only its
    row is missing.
    """
    shelf, images = Shelf(), tables.project.images
    good = {judged.id: judged for judged in batch if not judged.reason}
    for judged in good.values():
        target = images / judged.label / f"{judged.id}.jpg"
        if judged.id not in there and judged.id not in deleted and not target.is_file():
            shelf.add(target, judged.copy)
    shelf.settle()
    tables.add(batch)
    return len(good.keys() - deleted.keys())


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
    items = iter(items)
    while batch := list(islice(items, size)):
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
