"""
Sources on this computer, and the labels in each: a folder, a table of photos, or a ZIP of either.

Foundation of the project file and of 01, which takes the photos.
"""

import zipfile
from pathlib import Path

from utils.archives import ARCHIVE, open_zip
from utils.errors import FieldguideError
from utils.listing import is_system, label_folders
from utils.photo_table import TABLE_SUFFIXES, PhotoTable, read_photo_table

MOST_TRIED = 5  # in one folder, that are tried


def is_table(place: Path) -> bool:
    """Return whether a source is a table of photos, by its name."""
    return place.suffix.lower() in TABLE_SUFFIXES


def is_archive(place: Path) -> bool:
    """Return whether a source is a ZIP, by its name."""
    return place.suffix.lower() == ARCHIVE


def require_place(place: Path) -> None:
    """Raise FieldguideError if a source is not there, or neither a folder nor a table nor a ZIP."""
    if place.is_dir() or (place.is_file() and (is_table(place) or is_archive(place))):
        return
    if place.is_file():
        raise FieldguideError(
            f"source = {str(place)!r} is a file that is neither a table (.csv, .tsv) nor a ZIP. Name "
            "the folder that holds <label>/<photos>."
        )
    raise FieldguideError(
        f"source = {str(place)!r} is not there. Name a folder that holds <label>/<photos>, a table of photos (.csv), "
        'or a ZIP; or set source to "duckduckgo" or "sample".'
    )


def labels_in(place: Path) -> list[str]:
    """Return the labels of a source, sorted. Raises FieldguideError if it has none, or is not there."""
    require_place(place)
    if is_table(place):
        return read_photo_table(place).labels
    if is_archive(place):
        with open_zip(place) as archive:
            folder, table = unpacked_source(zipfile.Path(archive))
            return table.labels if table else list(label_folders(folder))
    found = list(label_folders(place))
    if len(found) < 2 and (hint := table_hint(place)):
        raise FieldguideError(f"source = {str(place)!r} holds fewer than two label folders. {hint}")
    return found


def unpacked_source(folder: Path) -> tuple[Path, PhotoTable | None]:
    """Return the folder in a ZIP that holds the photos, and the table of their labels if its folders are no labels."""
    folder = _inmost(folder)
    return folder, only_table(folder) if len(label_folders(folder)) < 2 else None


def _inmost(folder: Path) -> Path:
    """Return the folder that a ZIP was packed from: the first that holds more than one folder alone."""
    while True:
        inside = [path for path in folder.iterdir() if not is_system(path.name)]
        if len(inside) != 1 or not inside[0].is_dir() or not any(path.is_dir() for path in inside[0].iterdir()):
            return folder
        folder = inside[0]


def tables_beside(folder: Path) -> list[Path]:
    """Return the tables that lie straight in a folder, sorted by name."""
    found = [path for path in folder.iterdir() if is_table(Path(path.name)) and not is_system(path.name)]
    return sorted(found, key=lambda path: path.name)


def only_table(folder: Path) -> PhotoTable | None:
    """Return the one table in a folder that names photos and labels; None where there is none, or more than one."""
    read = []
    for path in tables_beside(folder)[:MOST_TRIED]:
        try:
            read.append(read_photo_table(path))
        except FieldguideError:  # another kind of table
            continue
    return read[0] if len(read) == 1 else None


def table_hint(folder: Path) -> str:
    """Return what to write where the labels stand in a table in the folder, or ""."""
    table = only_table(folder)
    return f'The table {table.path.name} names photos and labels: write source = "{table.path}".' if table else ""
