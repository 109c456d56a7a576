"""
Photos that are there already: reads <folder>/<label>/<photos> for stage 01. Nothing in the folder is changed.

A folder deserves no more trust than the web: links may lead out of it, and files may be huge or unreadable.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from utils.dataset import seeded_rank
from utils.download.collection import Gathered
from utils.download.fetch import LARGEST_FILE
from utils.errors import FieldguideError
from utils.listing import (
    Listing,
    label_folders,
    list_photos,
    passed_sentence,
    photos_below,
    renamed_sentence,
    require_one_spelling,
)
from utils.project import Project
from utils.storage import content_id
from utils.tables import FOLDER, SOURCES_COLUMNS, each_row
from utils.words import counted

POINTERS = {  # how a file begins that stands for a photo elsewhere
    b"version https://git-lfs": "a pointer of Git LFS, not the photo: run git lfs pull where it lies",
    b"/annex/objects/": "a pointer of git-annex, not the photo: run git annex get where it lies",
}


@dataclass(frozen=True)
class Source:
    """What a folder holds for a project, by label."""

    folder: Path
    folders: dict[str, list[Path]]  # the name of a label, chosen or not → its folders
    of_labels: dict[str, Listing]

    @property
    def passed(self) -> list[tuple[str, Path]]:
        """What is passed over in the labels' folders: kind, and the file or folder."""
        return [each for listing in self.of_labels.values() for each in listing.passed]


def read_source(folder: str | Path, labels: Iterable[str], *, follow_links: bool = False) -> Source:
    """
    List a source folder, without reading a photo.

    A folder belongs to a label if it has its name, in any Unicode form, or a name that stands for it (see
    `utils.listing.label_folders`). Raises FieldguideError where there is no such folder, or a label's folder is a link
    that may not be followed, or has the label's name in another case.
    """
    folder, labels = Path(folder).absolute(), list(labels)
    if not folder.is_dir():
        raise FieldguideError(f"There is no folder {folder}. Correct source in the project file.")
    folders = label_folders(folder)
    require_one_spelling(folders, labels)
    own = {label: folders.get(label, []) for label in labels}
    for path in (path for paths in own.values() for path in paths):
        if path.is_symlink() and not follow_links:
            raise FieldguideError(
                f"The folder {path} is a link to {path.resolve()}. To take its photos, write follow_links = true into "
                "the project file. Else move the link out of the source."
            )
    listed = {
        label: _together(list_photos(path, follow_links=follow_links) for path in paths) for label, paths in own.items()
    }
    return Source(folder, folders, listed)


def _together(listings: Iterable[Listing]) -> Listing:
    """Return several listings as one."""
    several = list(listings)
    photos, passed = ([each for one in several for each in getattr(one, name)] for name in ("photos", "passed"))
    return Listing(tuple(photos), tuple(passed))


def folder_pictures(
    folder: str | Path,
    labels: Iterable[str],
    *,
    limit: int | None = None,
    seed: int = 42,
    taken: Collection[str] = (),
    complete: bool = True,
    follow_links: bool = False,
) -> Iterator[Gathered]:
    """
    Read the photos in ``<folder>/<label>/`` and in the folders below it.

    `limit` is the number of different contents per label. With it, the photos are drawn: in an order that the seed and
    their names decide, those `taken` before (addresses) first. A file that cannot be taken (too large, unreadable, a
    link that leads out of the folder) comes with its `problem`. What is no photo by its name is passed over. Beside
    other sources the folder need not be `complete`: one label is enough. Raises FieldguideError, before anything is
    read, if a label has no photos.
    """
    source = read_source(folder, labels, follow_links=follow_links)
    _require_photos(source, complete=complete)
    for label, listing in source.of_labels.items():
        contents: set[str] = set()
        for path in listing.photos if limit is None else _drawn(listing.photos, source.folder, seed, taken):
            if limit is not None and len(contents) >= limit:
                break
            data, problem = _file_bytes(path, source.folder, follow_links=follow_links)
            if not problem:
                contents.add(content_id(data))
            yield Gathered(label, path.as_uri(), data, engine=FOLDER, title=path.name, problem=problem)


def _drawn(paths: Iterable[Path], folder: Path, seed: int, taken: Collection[str]) -> list[Path]:
    """Return the paths in the order in which they are taken, whatever else lies there."""
    rank = {}
    for path in paths:  # macOS spells letters with accents apart; a name may not be UTF-8
        name = normalize("NFC", path.relative_to(folder).as_posix())
        rank[path] = seeded_rank(seed, os.fsencode(name).decode("utf-8", "backslashreplace"))
    return sorted(rank, key=lambda path: (path.as_uri() not in taken, rank[path]))


def _require_photos(source: Source, *, complete: bool) -> None:
    """Refuse a source without photos of a label, or, if it need not be complete, of any."""
    there = ", ".join(map(repr, source.folders)) or "none"
    photos = {label: listing.photos for label, listing in source.of_labels.items()}
    if photos and not any(photos.values()):
        raise FieldguideError(
            f"{source.folder} holds no photos of any label. Its folders: {there}. Rename them, or correct [labels] or "
            "source in the project file."
        )
    for label in (label for label in photos if complete and not photos[label]):
        if label not in source.folders:
            raise FieldguideError(
                f"There is no folder for the label {label!r} in {source.folder}. Its folders: {there}. "
                "Rename one, or correct [labels] in the project file."
            )
        passed = passed_sentence(source.folder, source.of_labels[label].passed)
        raise FieldguideError(
            f"The folder {source.folders[label][0]} holds no photos. {passed + ' ' if passed else ''}"
            f"Put photos of {label!r} into it."
        )


def taken_addresses(project: Project) -> set[str]:
    """Return the addresses of the files in folders that were taken."""
    return {url for url, taken in _asked_addresses(project) if taken}


def _asked_addresses(project: Project) -> list[tuple[str, bool]]:
    """Return the address of each file in a folder that has a row, and whether it was taken."""
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    return [(row["url"], bool(row["id"])) for row in rows if row["engine"] == FOLDER]


@dataclass(frozen=True)
class FoldersReport:
    """What became of the photos in the source folders."""

    table: pd.DataFrame  # per label: how many photos lie there, and how many of them were taken
    remarks: list[str]  # folder names that changed, what was left out and why, in sentences


def folders_report(project: Project) -> FoldersReport:
    """Compare what the source folders hold with what was taken of it."""
    rows = _asked_addresses(project)
    taken, asked = {url for url, done in rows if done}, {url for url, _ in rows}
    counts: dict[str, dict[str, int]] = {}
    waiting, remarks = Counter(), []
    for folder in project.folders:
        source = read_source(folder, project.labels, follow_links=project.follow_links)
        for label, listing in source.of_labels.items():
            row = counts.setdefault(label, {"photos in the folders": 0, "taken": 0})
            row["photos in the folders"] += len(listing.photos)
            row["taken"] += sum(path.as_uri() in taken for path in listing.photos)
            waiting[label] += sum(path.as_uri() not in asked for path in listing.photos)
        passed = passed_sentence(source.folder, source.passed)
        renamed = renamed_sentence({label: source.folders.get(label, []) for label in project.labels})
        remarks += filter(None, [renamed, passed, _others_sentence(project, source)])
    for label, more in waiting.items():
        if more and counts[label]["taken"] >= project.images_per_label:
            remarks.append(
                f"{label}: {counted(more, 'more photo')} {'lies' if more == 1 else 'lie'} there. images_per_label = "
                f"{project.images_per_label} takes no more of them; raise it to take them."
            )
    return FoldersReport(pd.DataFrame.from_dict(counts, orient="index"), remarks)


def _others_sentence(project: Project, source: Source) -> str:
    """Return which folders of a source belong to no label, with their photos by name; "" if none has any."""
    own = [path.resolve() for path in (project.data, project.models)]
    others = [path for label, paths in source.folders.items() if label not in source.of_labels for path in paths]
    apart = [path for path in others if not any(each.is_relative_to(path.resolve()) for each in own)]
    photos = {path.name: photos_below(path) for path in apart}
    named = ", ".join(
        f"{name} ({count:,}{'' if whole else ' and more'})" for name, (count, whole) in photos.items() if count
    )
    return f"Folders in {source.folder} that belong to no label, with their photos: {named}." if named else ""


def _file_bytes(path: Path, folder: Path, *, follow_links: bool) -> tuple[bytes, str]:
    """Return a file's bytes and "", or b"" and why it is not taken."""
    try:
        if not follow_links and not path.resolve().is_relative_to(folder.resolve()):
            return b"", "a link that leads out of the source folder; follow_links = true takes it"
        if not path.is_file():
            return b"", "not a file, or a link that leads nowhere"
        if path.stat().st_size > LARGEST_FILE:
            return b"", f"larger than {LARGEST_FILE // 1_000_000} MB"
        data = path.read_bytes()
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"
    problem = next((told for start, told in POINTERS.items() if data.startswith(start)), "")
    return b"" if problem else data, problem
