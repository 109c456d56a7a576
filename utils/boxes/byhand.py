"""
2_photos, what a person did in images/: photos put there are taken in, and copies that were changed are named.

Reads and writes images/, raw/ and sources.csv; writes copies.csv, which knows the bytes of each training copy.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

from utils.dataset import pictures_in
from utils.errors import FieldguideError
from utils.listing import is_system
from utils.pictures import known_header
from utils.project import Project
from utils.storage import content_id, explained, file_stamp, visible_files, write_whole
from utils.tables import COPIES_COLUMNS, HAND, SOURCES_COLUMNS, append_rows, each_row, read_rows
from utils.words import counted


def file_by_hand(project: Project, known: Collection[str]) -> list[str]:
    """
    Move the photos that a person put into images/ to raw/, where they are judged as all others; return their ids.

    `known` are the ids whose training copies are ours. A photo is removed last, after its bytes are in raw/ and its
    name in sources.csv. A file that is plainly not a photo stays where it is.
    """
    found = [path for path in visible_files(project.images) if path.suffix != ".jpg" or path.stem not in known]
    rows = each_row(project.table("sources"), SOURCES_COLUMNS) if found else ()
    ids, noted = [], {row["id"] for row in rows}
    for path in (path for path in found if not is_system(path.name)):
        with explained(path):
            data = path.read_bytes()
        id, suffix = content_id(data), known_header(data)[0]
        if suffix == "bin" and path.suffix.lower() != ".jpg":
            continue
        original = project.raw / f"{id}.{suffix}"
        if not original.exists():
            write_whole(original, data)
        row = {"id": id, "engine": HAND, "title": path.name, "license": project.license or "unknown", "status": "kept"}
        row |= {"bytes": len(data), "fetched_at": datetime.now(UTC).isoformat(timespec="seconds")}
        append_rows(project.table("sources"), SOURCES_COLUMNS, [row] if id not in noted else [])
        noted.add(id)
        with explained(path):
            if path.read_bytes() == data:  # not written to meanwhile
                path.unlink()
        ids.append(id)
    return ids


def note_copies(project: Project, fresh: Iterable[str]) -> None:
    """Write into copies.csv the bytes of the training copies that are `fresh`, and of those that it does not know."""
    noted = {row["id"] for row in each_row(project.table("copies"), COPIES_COLUMNS)} - {*fresh}
    there = (name.removesuffix(".jpg") for name in pictures_in(project.images))
    append_rows(project.table("copies"), COPIES_COLUMNS, [_copy_row(project, id) for id in sorted({*there} - noted)])


def _copy_row(project: Project, id: str) -> dict[str, object]:
    path = project.images / f"{id}.jpg"
    _, size, changed, _ = file_stamp(path)
    return {"id": id, "bytes": size, "changed": changed, "content": content_id(path.read_bytes())}


def require_unchanged(project: Project, ids: Iterable[str]) -> None:
    """Refuse training copies that are no longer the ones that 2_photos made: their boxes may not fit them."""
    noted = {row["id"]: row for row in read_rows(project.table("copies"), COPIES_COLUMNS)}
    changed = [id for id in ids if id in noted and _is_other(project.images / f"{id}.jpg", noted[id])]
    if changed:
        first = f"{changed[0]}.jpg"
        raise FieldguideError(
            f"Changed after 2_photos made them: {counted(len(changed), 'photo')} in {project.images}, such as {first}. "
            f"Its boxes may not fit any more. To use it as it is now, rename it to new_{first} and run 2_photos: it "
            f"comes in as a new photo without boxes. To have it as it was, delete {first} and its line in "
            "pictures.csv, and run 2_photos."
        )


def _is_other(path: Path, noted: dict[str, str]) -> bool:
    """Return whether a file has other bytes than were noted; it is read only where its size or time is another."""
    _, size, changed, _ = file_stamp(path)
    if (str(size), str(changed)) == (noted["bytes"], noted["changed"]):
        return False
    return str(size) != noted["bytes"] or content_id(path.read_bytes()) != noted["content"]
