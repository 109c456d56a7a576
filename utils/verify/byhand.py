"""
What a person puts into images/, or takes back: it outranks what the tables say.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.listing import is_system
from utils.pictures import is_training_copy, known_header
from utils.project import Project
from utils.storage import content_id, explained, file_stamp, locked, remove_leftovers, visible_files, write_whole
from utils.tables import HAND, SOURCES_COLUMNS, append_rows, each_row
from utils.verify.depths import bits_of_set
from utils.verify.opening import in_batches, judge, judged_in_order, keep
from utils.verify.report import VerifyReport, report_of
from utils.verify.verdicts import ID, Judged, Run, Tables, already_under, by_id, lying, raw_files, trashed, two_labels

Dropped = dict[tuple[str, str], tuple[list[Path], Path]]  # (id, label) → the files in images/, and theirs in raw/


def take_in_by_hand(project: Project, tables: Tables, run: Run) -> None:
    """
    Give what a person put into images/<label>/ its training copy and row.

    A photo of any name moves to raw/ and its training copy is made in that label, unless the same picture lies in
    images/ already; a broken one is rejected. sources.csv keeps its name. A file named like an id that raw/ knows, but
    pictures.csv does not, was put there to rescue a rejected picture: it stays. The dropped file is removed last, after
    its bytes are in raw/, its copy in images/ and its name in sources.csv, so a kill loses nothing.
    """
    dropped = _filed(project, tables, run)
    sources = each_row(project.table("sources"), SOURCES_COLUMNS) if dropped else ()
    noted = {(row["id"], row["label"]) for row in sources} & set(dropped)
    originals = [original for _, original in dropped.values()]
    how = {"known": _known_elsewhere(project, dropped), "bits": bits_of_set(tables) if originals else None}
    for batch in in_batches(judged_in_order(originals, **how)):
        batch = [judged for judged in batch if not judged.unread]
        good = [judged for judged in batch if not judged.reason]
        for judged in good:
            target = project.images / judged.label / f"{judged.id}.jpg"
            if target.exists() and not any(map(target.samefile, dropped[judged.id, judged.label][0])):
                run.added -= judged.id in tables.label_of  # dropped once more where it lies already
            else:
                write_whole(target, judged.copy)
        unnamed = [judged for judged in batch if (judged.id, judged.label) not in noted]
        rows = [_source_row(judged, *dropped[judged.id, judged.label], project.license) for judged in unnamed]
        append_rows(project.table("sources"), SOURCES_COLUMNS, rows)
        for judged in batch:
            paths, original = dropped[judged.id, judged.label]
            for path in paths:
                if judged.reason or not path.samefile(project.images / judged.label / f"{judged.id}.jpg"):
                    _remove(path, original, run)
        tables.add(batch)
        run.added += len(good)
        run.rejected += len(batch) - len(good)


def _filed(project: Project, tables: Tables, run: Run) -> Dropped:
    """
    File what a person put into images/ and pictures.csv does not know; return those whose bytes are now in raw/ too.

    Rescued pictures are complete then. A file that is plainly not a picture is left alone, unless its name ends in
    .jpg: then it would count as a picture of the training set, so it is a broken one.
    """
    gathered = by_id(raw_files(project))
    rejected = {id for id, _ in tables.settled}
    folders = [project.images / label for label in project.labels]
    run.odd += [path for folder in folders for path in _no_files(folder)]
    found = [path for folder in folders for path in visible_files(folder) if not is_system(path.name)]
    found = [path for path in found if not (_is_named(path) and path.stem in tables.label_of)]
    dropped: Dropped = {}
    for path in tqdm(found, desc="put there by hand", unit="file", disable=not found):
        stamp, data, id = file_stamp(path), _bytes_of(path), path.stem
        if _is_named(path) and id in gathered:
            ours = is_training_copy(data)
            if ours and id not in rejected and len(gathered[id]) == 1:
                continue  # a killed run left it without a row: judge_new writes that
            bits = bits_of_set(tables, gathered[id])
            both = (file for file in (gathered[id][0], path) if ours or content_id(data) == id)
            tried = (judge(file, asked=True, bits=bits) for file in both)
            if judged := next((judged for judged in tried if not judged.reason), None):
                if file_stamp(path) != stamp:
                    run.changing.append(path)
                    continue
                if not ours:
                    write_whole(path, judged.copy)
                tables.add([replace(judged, id=id, label=path.parent.name)])
                run.added += 1
                continue
        suffix = known_header(data)[0]
        if suffix == "bin" and path.suffix.lower() != ".jpg":
            run.left.append(path)
            continue
        if file_stamp(path) != stamp:
            run.changing.append(path)
            continue
        original = project.raw / path.parent.name / f"{content_id(data)}.{suffix}"
        if not original.exists():
            write_whole(original, data)
        if original.read_bytes() == data:
            dropped.setdefault((original.stem, path.parent.name), ([], original))[0].append(path)
    return dropped


def _no_files(folder: Path) -> list[Path]:
    """Return the entries of a folder that are no files, sorted by name; those that systems make are left out."""
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in there if not is_system(path.name) and not path.is_file()]


def _remove(path: Path, original: Path, run: Run) -> None:
    """Remove a dropped file whose bytes lie in raw/; one that was written to since, as by a slow copy, stays."""
    with explained(path):
        if path.read_bytes() == original.read_bytes():
            path.unlink()
        else:
            run.changing.append(path)


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


def _source_row(judged: Judged, paths: list[Path], original: Path, license: str) -> dict[str, str | int]:
    """Return the row of sources.csv for a photo that a person dropped: its name is all that we know of it."""
    row = {"id": judged.id, "label": judged.label, "engine": HAND, "title": paths[0].name}
    row |= {
        "license": license or "unknown",
        "width": judged.width or "",
        "height": judged.height or "",
        "bytes": original.stat().st_size,
    }
    return row | {"status": "kept", "fetched_at": datetime.now(UTC).isoformat(timespec="seconds")}


def _is_named(path: Path) -> bool:
    """Return whether a file has the name of a training copy."""
    return path.suffix == ".jpg" and bool(ID.fullmatch(path.stem))


def _bytes_of(path: Path) -> bytes:
    """Return the bytes of a file in images/, or say what to do if it may not be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FieldguideError(
            f"Cannot read {path}: {error.strerror or error}. Give this account permission to read it, or move it "
            "away, and run this cell again."
        ) from error


def take_back(project: Project, ids: str | Iterable[str], *, label: str | None = None) -> VerifyReport:
    """
    Take rejected pictures into the training set after all, because a person asks for it.

    Small, narrow, flat and unfinished pictures and placeholders come as they are; of an animation the first frame. They
    go to the label that they were gathered for, and from then on count like any other picture.

    `label` is one of the project's labels, and needed for a picture that came under several. Raises FieldguideError,
    and takes none back, if one was not rejected, lies under another label or in the trash, or cannot be decoded.
    """
    ids = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    with locked(project.data):
        remove_leftovers(project.data)
        tables, there = Tables(project), lying(project)
        deleted = trashed(project, there)
        if label is not None and label not in project.labels:
            raise FieldguideError(f"{label!r} is no label of this project. Name one of {', '.join(project.labels)}.")
        files = by_id(path for path in raw_files(project) if (path.stem, path.parent.name) in tables.settled)
        originals = [_original(project, id, label, files.get(id, []), there, deleted) for id in ids]
        # Their copies wait in memory, 100 kB each: a person names tens.
        how = {"asked": True, "bits": bits_of_set(tables, originals)}
        taken = [replace(judged, label=label or judged.label) for judged in judged_in_order(originals, **how)]
        for judged in taken:
            if judged.reason:
                raise FieldguideError(
                    f"The picture {judged.id} cannot be taken back: {judged.reason}. Leave it out; none of the "
                    "others was taken back yet."
                )
        taken = [judged for judged in taken if judged.id not in there or judged.id not in tables.label_of]
        run = Run(added=sum(keep(tables, batch, there, deleted) for batch in in_batches(taken)))
    return report_of(project, tables, run)


def _original(project: Project, id: str, label: str | None, found: list, there: dict, deleted: dict) -> Path:
    """Return the file in raw/ of a rejected picture, out of those `found`, or say why it cannot be taken back."""
    if not found:
        raise FieldguideError(
            f"02 rejected no picture {id!r}. Look up the id in {project.table('rejected')}, and call this again."
        )
    labels = sorted({path.parent.name for path in found})
    if label is None and len(labels) > 1:
        raise FieldguideError(
            f"The picture {id} came under {' and '.join(map(repr, labels))}. Say which it is, with label=…"
        )
    chosen = next((path for path in found if path.parent.name == label), found[0])
    target = project.images / (label or chosen.parent.name)
    if (places := there.get(id, ())) and target not in [path.parent for path in places]:
        raise FieldguideError(
            f"The picture {id} lies under {places[0].parent.name!r} already: move that file, {places[0]}, to {target} "
            "to have it there."
        )
    if id in deleted:
        raise FieldguideError(
            f"The picture {id} was deleted in 06 and lies in {deleted[id]}: restore it there, with "
            f'Ledger(project).restore(["{id}"]).'
        )
    return chosen
