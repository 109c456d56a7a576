"""
Photos that are there already: reads <folder>/<label>/<photos> for stage 01. Nothing in the folder is changed.

A folder deserves no more trust than the web: links may lead out of it, and files may be huge or unreadable.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from utils.download.collection import Gathered
from utils.download.fetch import LARGEST_FILE
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import content_id, subfolders, visible_files
from utils.tables import FOLDER, SOURCES_COLUMNS, each_row


def folder_pictures(
    folder: str | Path, labels: Iterable[str], *, limit: int | None = None, complete: bool = True
) -> Iterator[Gathered]:
    """
    Read the files of ``<folder>/<label>/``, sorted by name; hidden files and sub-folders are left out.

    A file that cannot be taken (too large, unreadable, a link that leads out of the folder) comes with its `problem`.
    A sub-folder belongs to a label if their names are equal in Unicode's NFC form. `limit` is the number of different
    contents per label; `folders_table` says how many more there are. Beside other sources the folder need not be
    `complete`: one label is enough. Raises FieldguideError, before anything is read, if a label has no files.
    """
    folder = Path(folder).absolute()
    files = {label: _label_files(folder, label, complete=complete) for label in labels}
    if files and not any(files.values()):
        raise FieldguideError(
            f"There are no photos of any label in {folder}; there is {_names_in(folder)}. "
            "Rename its folders, or correct [labels] or source in the project file."
        )
    for label, paths in files.items():
        contents: set[str] = set()
        for path in paths:
            if limit is not None and len(contents) >= limit:
                break
            data, problem = _file_bytes(path, folder)
            if not problem:
                contents.add(content_id(data))
            yield Gathered(label, path.as_uri(), data, engine=FOLDER, title=path.name, problem=problem)


def _label_files(folder: Path, label: str, *, complete: bool) -> list[Path]:
    """Return the files of one label in a source folder; if there must be some, say what is missing."""
    if not folder.is_dir():
        raise FieldguideError(f"There is no folder {folder}. Correct source in the project file.")
    own = [path for path in subfolders(folder) if normalize("NFC", path.name) == normalize("NFC", label)]
    own = [path for path in own if path.resolve().is_relative_to(folder.resolve())]
    files = [path for subfolder in own for path in visible_files(subfolder)]
    if complete and not own:
        raise FieldguideError(
            f"There is no folder for the label {label!r} in {folder}; there is {_names_in(folder)}. "
            "Rename that folder, or correct [labels] in the project file."
        )
    if complete and not files:
        raise FieldguideError(f"The folder {own[0]} holds no files. Put photos of {label!r} straight into it.")
    return files


def _names_in(folder: Path) -> str:
    """Return the names of the folders in `folder`, as a part of a sentence."""
    return ", ".join(repr(path.name) for path in subfolders(folder)) or "no folder at all"


def folders_table(project: Project) -> pd.DataFrame:
    """Return how many files the source folders hold, and how many of them were taken: one row per label."""
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    taken = {(row["label"], row["url"]) for row in rows if row["engine"] == FOLDER and row["id"]}
    counts = {}
    for label in project.labels if project.folders else ():
        urls = [p.as_uri() for folder in project.folders for p in _label_files(folder, label, complete=False)]
        there = sum((label, url) in taken for url in urls)
        counts[label] = {"files in the folders": len(urls), "taken": there}
    return pd.DataFrame.from_dict(counts, orient="index")


def _file_bytes(path: Path, folder: Path) -> tuple[bytes, str]:
    """Return a file's bytes and "", or b"" and why it is not taken."""
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return b"", "a link that leads out of the source folder"
        if not path.is_file():
            return b"", "not a file, or a link that leads nowhere"
        if path.stat().st_size > LARGEST_FILE:
            return b"", f"larger than {LARGEST_FILE // 1_000_000} MB"
        return path.read_bytes(), ""
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"
