"""
What a source on this computer holds for a project, by label; nothing is read of a photo.

A folder deserves no more trust than the web: links may lead out of it, and files may be huge or unreadable.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from utils.download.clips import ClipError, can_read_clips, frame_times
from utils.errors import FieldguideError
from utils.listing import (
    CLIP,
    CLOSED,
    LINKED,
    MOVING_PHOTO,
    UNREADABLE_CLIP,
    Listing,
    label_folders,
    list_photos,
    passed_sentence,
    photos_below,
    renamed_sentence,
    require_one_spelling,
    side_folders,
    subfolders_of,
)
from utils.words import counted

FRAME = "#t="  # before the seconds of a frame, in its address


class Photo(NamedTuple):
    """A file in a source, and what the source says of it beside its label: fields of `utils.photo_table`."""

    file: str
    given: Mapping[str, str]
    time: float | None = None  # seconds, of a frame of a clip

    @property
    def path(self) -> Path:
        """The file's path."""
        return Path(self.file)

    @property
    def key(self) -> str:
        """The file, with the time of a frame: as `Source.file` tells it from an address."""
        return self.file if self.time is None else f"{self.file}{FRAME}{self.time:g}"

    @property
    def name(self) -> str:
        """The file's name, and the time of a frame."""
        return self.path.name if self.time is None else f"{self.path.name} at {self.time:g} s"


@dataclass(frozen=True)
class Source:
    """What a folder, a table of photos or a ZIP holds for the labels of a project."""

    place: Path  # as the project file names it
    root: Path  # the folder that holds the photos, and that no link may leave
    photos: Mapping[str, tuple[Photo, ...]]  # label → its photos, sorted by path
    names: tuple[str, ...]  # labels that are there, chosen or not
    folders: Mapping[str, list[Path]] = field(default_factory=dict)  # label → its folders, where labels are folders
    unsorted: tuple[Photo, ...] = ()  # photos without a label, sorted by path
    links: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)  # label → rows with web addresses
    passed: tuple[tuple[str, Path], ...] = ()  # what is passed over: kind, and the file or folder
    remarks: tuple[str, ...] = ()
    archive: Path | None = None  # the ZIP that the photos were unpacked from

    @cached_property
    def _starts(self) -> tuple[str, str]:
        """How the files of this source begin, and how their addresses do."""
        start = f"{self.archive.as_uri()}#" if self.archive else f"{self.root.as_uri().rstrip('/')}/"
        return os.path.join(self.root, ""), start  # noqa: PTH118 (with a separator at its end)

    def inside(self, photo: Photo) -> str:
        """Return the path of a photo from the root on, with slashes."""
        return photo.file.removeprefix(self._starts[0]).replace(os.sep, "/")

    def address(self, photo: Photo) -> str:
        """Return the address of a photo, as sources.csv notes it: as `Path.as_uri` does, and more quickly."""
        address = self._starts[1] + quote(os.fsencode(self.inside(photo)))
        return address if photo.time is None else f"{address}{FRAME}{photo.time:g}"

    def file(self, address: str) -> str:
        """Return which file of this source an address that `address` gave stands for; "" for any other."""
        root, start = self._starts
        if not address.startswith(start):
            return ""
        file, _, time = address.removeprefix(start).partition(FRAME)
        return root + os.fsdecode(unquote_to_bytes(file)).replace("/", os.sep) + (f"{FRAME}{time}" if time else "")


def read_folder(
    folder: Path,
    labels: Iterable[str],
    *,
    follow_links: bool = False,
    use_given_split: bool = True,
    clip_seconds: float = 2.0,
    apart: Iterable[Path] = (),
) -> Source:
    """
    List a folder that holds <label>/<photos>, or a ready split: <train, valid or test>/<label>/<photos>.

    Where no folder is a label's, the photos straight in it are unsorted: 02 asks for their labels.

    A folder belongs to a label if it has its name, in any Unicode form, or a name that stands for it (see
    `utils.listing.label_folders`). Of a clip, a frame every `clip_seconds` is a photo. `apart` are folders of this
    project, which belong to no label and are not told. Raises FieldguideError where there is no such folder, or a
    label's folder is a link that may not be followed, or has the label's name in another case.
    """
    labels = list(labels)
    if not folder.is_dir():
        raise FieldguideError(f"There is no folder {folder}. Correct source in the project file.")
    sides = side_folders(folder, labels)
    folders = label_folders(folder, labels)
    require_one_spelling(folders, labels)
    own = {label: folders.get(label, []) for label in labels}
    for path in (path for paths in own.values() for path in paths):
        if path.is_symlink() and not follow_links:
            raise FieldguideError(
                f"The folder {path} is a link to {path.resolve()}. To take its photos, write follow_links = true into "
                "the project file. Else move the link out of the source."
            )
    photos, passed, loose = _photos_by_label(folder, own, sides, follow_links, clip_seconds)
    others = [path for label, paths in folders.items() if label not in labels for path in paths]
    others += [path for path in subfolders_of(folder) if sides and path.name not in sides]
    others_told = _others_sentence(folder, others, apart)
    alone = not (sides or any(own.values()) or others_told)  # else a folder may be called differently from its label
    remarks = [renamed_sentence(own), passed_sentence(folder, passed), _clips_sentence(photos, passed, clip_seconds)]
    remarks += [others_told, _loose_sentence(folder, loose, taken=alone)]
    remarks += [_split_sentence(folder, own.values(), use_given_split=use_given_split)] if sides else []
    return Source(
        folder,
        folder,
        photos,
        names=tuple(folders),
        folders=folders,
        unsorted=tuple(Photo(file, {}) for file in loose) if alone else (),
        passed=tuple(passed),
        remarks=tuple(filter(None, remarks)),
    )


def _photos_by_label(
    folder: Path, own: Mapping[str, list[Path]], sides: Mapping[str, str], follow_links: bool, clip_seconds: float
) -> tuple[dict[str, tuple[Photo, ...]], list[tuple[str, Path]], list[str]]:
    """Return label → photos of its `own` folders, what is passed over, and the photos in no label's folder."""
    tops = [list_photos(place, deep=False) for place in (folder, *(folder / name for name in sorted(sides)))]
    passed = [each for top in tops for each in top.passed if each[0] not in (LINKED, CLOSED)]
    photos: dict[str, tuple[Photo, ...]] = {}
    for label, paths in own.items():
        found: list[Photo] = []
        for path in paths:
            listing: Listing = list_photos(path, follow_links=follow_links)
            given = {"side": sides[path.parent.name]} if path.parent != folder else {}
            frames, left = _frames_of(listing, given, clip_seconds)
            found += [Photo(file, given) for file in listing.files]
            passed += left
            if frames:
                found = sorted([*found, *frames], key=lambda photo: (photo.path, photo.time or 0))
        photos[label] = tuple(found)
    return photos, passed, [file for top in tops for file in top.files]


def _frames_of(listing: Listing, given: Mapping[str, str], every: float) -> tuple[list[Photo], list[tuple[str, Path]]]:
    """
    Return the frames of the clips in a listing, each clip a group, and what is still passed over.

    A clip with the name of a photo beside it is that photo, moving: telephones write both.
    """
    frames, left = [], []
    clips = any(kind == CLIP for kind, _ in listing.passed)
    named = {os.path.splitext(file)[0] for file in listing.files} if clips else set()  # noqa: PTH122 (it may be many)
    for kind, path in listing.passed:
        times = []
        if kind == CLIP and str(path.with_suffix("")) in named:
            kind = MOVING_PHOTO
        try:
            times = frame_times(path, every) if kind == CLIP and can_read_clips() else []
        except (ClipError, OSError):
            kind = UNREADABLE_CLIP
        frames += [Photo(str(path), {**given, "group": path.as_uri()}, time) for time in times]
        left += [] if times else [(kind, path)]
    return frames, left


def _clips_sentence(photos: Mapping[str, Iterable[Photo]], passed: Iterable[tuple[str, Path]], every: float) -> str:
    """Return how many clips gave frames, or how to have them read; "" where there are none."""
    clips = {photo.path for own in photos.values() for photo in own if photo.time is not None}
    if clips:
        return f"{counted(len(clips), 'clip')}: a frame every {every:g} s is a photo (clip_seconds)."
    if any(kind == CLIP for kind, _ in passed) and not can_read_clips():
        return f"To take a frame of each clip every {every:g} s (clip_seconds), install PyAV: pip install av"
    return ""


def _loose_sentence(folder: Path, loose: Sequence[str], *, taken: bool) -> str:
    """Return what becomes of photos that lie straight in a source, in no label's folder; "" if there are none."""
    if not loose:
        return ""
    lie, were = ("lies", "was") if len(loose) == 1 else ("lie", "were")
    some = f"{counted(len(loose), 'photo')} in {folder} {lie} in no label's folder"
    if taken:
        return f"{some}. 02 shows those that were taken: give each its label there."
    return f"{some}, and {were} left out, such as {os.path.relpath(loose[0], folder)}. Move them into one."


def _others_sentence(folder: Path, others: Iterable[Path], apart: Iterable[Path]) -> str:
    """Return which of some folders in a source, which belong to no label, hold photos; "" if none does."""
    others = [path for path in others if not any(each.is_relative_to(path.resolve()) for each in apart)]
    photos = {path.name: photos_below(path) for path in others}
    named = ", ".join(
        f"{name} ({count:,}{'' if whole else ' and more'})" for name, (count, whole) in photos.items() if count
    )
    return f"Folders in {folder} that belong to no label, with their photos: {named}." if named else ""


def _split_sentence(folder: Path, own: Iterable[Sequence[Path]], *, use_given_split: bool) -> str:
    """Return what is made of the folders of a ready split; `own` are its label folders."""
    named = ", ".join(sorted({path.parent.name for paths in own for path in paths}))
    if not use_given_split:
        return f"{folder} is split already ({named}). use_given_split = false: 03 draws another split."
    return f"{folder} is split already ({named}). 03 keeps that; use_given_split = false draws another."
