"""
Photos that are there already: reads those of a source on this computer for stage 01. Nothing there is changed.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import heapify, heappop
from operator import itemgetter
from pathlib import Path
from unicodedata import normalize

from utils.archives import unpack_zip
from utils.dataset import seeded_rank
from utils.download.clips import ClipError, frame_bytes
from utils.download.collection import Gathered
from utils.download.labelled import read_labelled
from utils.download.sources import Photo, Source, read_folder
from utils.errors import FieldguideError
from utils.listing import passed_sentence
from utils.pictures import LARGEST_OWN_FILE
from utils.places import is_archive, is_table, require_place, table_hint, unpacked_source
from utils.project import Project
from utils.storage import content_id, locked
from utils.tables import FOLDER

POINTERS = {  # how a file begins that stands for a photo elsewhere
    b"version https://git-lfs": "a pointer of Git LFS, not the photo: run git lfs pull where it lies",
    b"/annex/objects/": "a pointer of git-annex, not the photo: run git annex get where it lies",
}


def read_source(project: Project, place: Path) -> Source:
    """
    List a source of a project, without reading a photo. A ZIP is unpacked first, once.

    Raises FieldguideError if it is not there, or not what its name says.
    """
    require_place(place)
    apart = (project.data.resolve(), project.models.resolve())
    if not is_archive(place):
        return _read(project, place, apart)
    with locked(project.data):
        unpacked, told = unpack_zip(place, project.data / "cache")
    folder, table = unpacked_source(unpacked)
    source = _read(project, table.path if table else folder, ())
    return replace(source, archive=place, remarks=(*told, *source.remarks))


def _read(project: Project, place: Path, apart: tuple[Path, ...]) -> Source:
    """List a folder or a table of photos."""
    how = {"follow_links": project.follow_links, "apart": apart}
    if is_table(place):
        return read_labelled(place, project.labels, group_by=project.group_by, **how)
    how |= {"use_given_split": project.use_given_split, "clip_seconds": project.clip_seconds}
    return read_folder(place, project.labels, **how)


def source_pictures(
    source: Source,
    *,
    limit: int | None = None,
    seed: int = 42,
    taken: Collection[str] = (),
    complete: bool = True,
    follow_links: bool = False,
    license: str = "",
) -> Iterator[Gathered]:
    """
    Read the photos of a source.

    `limit` is the number of different contents per label; without a label as many are taken as for all together. With
    it, the photos are drawn: in an order that the seed and their names decide, those `taken` before (addresses)
    first. A file that cannot be taken (too large, unreadable, a link that leads out of the folder) comes with its
    `problem`. Beside other sources one need not be `complete`: one label is enough. `license` is that of the photos for
    which the source names none. Raises FieldguideError at once, before anything is read, if a label has no photos.
    """
    _require_photos(source, complete=complete)
    return _pictures_of(source, limit, seed, taken, follow_links=follow_links, license=license)


def _pictures_of(
    source: Source, limit: int | None, seed: int, taken: Collection[str], *, follow_links: bool, license: str
) -> Iterator[Gathered]:
    """Read the photos of a source that has some; see `source_pictures`."""
    for label, photos in [*source.photos.items(), ("", source.unsorted)]:
        most = limit if label or limit is None else limit * len(source.photos)
        contents: set[str] = set()
        for photo in photos if most is None else _drawn(source, photos, seed, taken):
            if most is not None and len(contents) >= most:
                break
            address = source.address(photo)
            if photo.time is not None and address in taken:  # to find a frame again takes a second
                contents.add(address)
                continue
            data, problem = _photo_bytes(photo, source.root, follow_links=follow_links)
            if not problem:
                contents.add(content_id(data))
            said = {"page_url": photo.given.get("page_url", ""), "title": photo.name}
            said["license"] = photo.given.get("license", "") or license or "unknown"
            yield Gathered(label, address, data, engine=FOLDER, problem=problem, **said)


def _drawn(source: Source, photos: Sequence[Photo], seed: int, taken: Collection[str]) -> Iterator[Photo]:
    """Yield the photos in the order in which they are taken, whatever else lies there."""
    order, of_sides = [], len({photo.given.get("side", "") for photo in photos}) > 1
    for n, photo in enumerate(photos):  # macOS spells letters with accents apart; a name may not be UTF-8
        name = source.inside(photo)
        if not name.isascii():
            name = os.fsencode(normalize("NFC", name)).decode("utf-8", "backslashreplace")
        rank = seeded_rank(seed, name if photo.time is None else f"{name} {photo.time:g}")
        order.append((not taken or source.address(photo) not in taken, rank, n))
    if of_sides:  # whatever the limit, each side of a ready split has its share, and one photo at least
        sides: dict[str, list] = {}
        for each in sorted(order, key=itemgetter(1)):
            sides.setdefault(photos[each[2]].given.get("side", ""), []).append(each)
        order = [(new, place / len(own), n) for own in sides.values() for place, (new, _, n) in enumerate(own)]
    heapify(order)  # few of them are taken
    while order:
        yield photos[heappop(order)[-1]]


def _require_photos(source: Source, *, complete: bool) -> None:
    """Refuse a source without photos of a label, or, if it need not be complete, of any."""
    part, parts = ("folder", "folders") if source.folders or source.place.is_dir() else ("row", "labels")
    there = f"Its {parts}: {', '.join(map(repr, source.names)) or 'none'}."
    found = {label: bool(photos or source.links.get(label)) for label, photos in source.photos.items()}
    if source.unsorted:
        return
    if found and not any(found.values()):
        hint = table_hint(source.place) if source.place.is_dir() else ""
        advice = hint or "Rename them, or correct [labels] or source in the project file."
        told = [f"{source.place} holds no photos of any label.", *source.remarks, there, advice]
        raise FieldguideError(" ".join(told))
    for label in (label for label in found if complete and not found[label]):
        if label not in source.names:
            raise FieldguideError(
                f"There is no {part} for the label {label!r} in {source.place}. {there} Rename one, or correct "
                "[labels] in the project file."
            )
        if not source.folders:
            raise FieldguideError(f"No photo of {label!r} was found. {' '.join(source.remarks)}")
        folders = source.folders[label]
        passed = passed_sentence(source.root, [each for each in source.passed if _lies_in(each[1], folders)])
        raise FieldguideError(
            f"The folder {folders[0]} holds no photos. {passed + ' ' if passed else ''}Put photos of {label!r} into it."
        )


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path lies in one of some folders."""
    return any(path.is_relative_to(folder) for folder in folders)


def _photo_bytes(photo: Photo, folder: Path, *, follow_links: bool) -> tuple[bytes, str]:
    """Return the bytes of a photo and "", or b"" and why it is not taken."""
    if photo.time is None:
        return file_bytes(photo.path, folder, follow_links=follow_links)
    try:
        return frame_bytes(photo.path, photo.time), ""
    except (ClipError, OSError) as error:
        return b"", f"a clip that {error}"


def file_bytes(path: Path, folder: Path, *, follow_links: bool) -> tuple[bytes, str]:
    """Return a file's bytes and "", or b"" and why it is not taken."""
    try:
        if not follow_links and not path.resolve().is_relative_to(folder.resolve()):
            return b"", "a link that leads out of the source folder; follow_links = true takes it"
        if not path.is_file():
            return b"", "not a file, or a link that leads nowhere"
        if path.stat().st_size > LARGEST_OWN_FILE:
            return b"", f"larger than {LARGEST_OWN_FILE // 1_000_000} MB"
        data = path.read_bytes()
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"
    problem = next((told for start, told in POINTERS.items() if data.startswith(start)), "")
    return b"" if problem else data, problem
