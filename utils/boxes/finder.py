"""
Which photo a file of boxes is of: by their names, and the folders that they lie in.

``images/train/a.jpg``, ``labels/train/a.txt`` and ``train/images/a.jpg`` belong together: they differ in folders that
only say what kind of file lies there.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

KIND_FOLDERS = {  # names of folders that say what kind of file lies in them, and no more
    *("images", "imgs", "photos", "jpegimages", "labels", "annotations", "annotation", "xml", "xmls", "data"),
    *("obj_train_data", "bboxes", "boxes"),
}


class PhotoIndex:
    """Finds the photo that a file of boxes is of."""

    def __init__(self, folder: Path, photos: Iterable[Path]):
        self.folder, photos = folder, list(photos)
        self._common = Path(os.path.commonpath([path.parent for path in photos] or [folder]))
        self._by_key: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in photos:
            self._by_key[self._key(path)].append(path)
            self._by_name[_same_spelling(path.name)].append(path)
            self._by_stem[_same_spelling(path.stem)].append(path)

    def inside(self, path: Path) -> str:
        """Return a path from the folder on, with slashes."""
        return path.relative_to(self.folder).as_posix()

    def title(self, path: Path) -> str:
        """Return the name of a photo, with the folders in which photos of this place lie apart."""
        return path.relative_to(self._common).as_posix()

    def of_file(self, path: Path) -> tuple[Path | None, str]:
        """Return the photo of the same name in the folder that goes with this one, or None and why there is none."""
        same = self._by_key.get(self._key(path)) or self._by_stem.get(_same_spelling(path.stem), ())
        exact = [photo for photo in same if photo.stem == path.stem]  # a.jpg and A.jpg may lie beside each other
        return _one_photo(exact or same)

    def named(self, name: str, beside: Path) -> tuple[Path | None, str]:
        """Return the photo that a file in the folder `beside` calls by its name, which may have folders before it."""
        parts = tuple(map(_same_spelling, PurePosixPath(name.replace("\\", "/")).parts))
        if not parts or ".." in parts:
            return None, "no photo of that name"
        found = self._by_name.get(parts[-1], ())
        ends = [
            path
            for path in found
            if tuple(map(_same_spelling, path.relative_to(self.folder).parts))[-len(parts) :] == parts
        ]
        near = [path for path in ends or found if self._key(path)[:-1] == self._key(beside / "x")[:-1]]
        likely = near or ends or found
        exact = [path for path in likely if path.name == name.replace("\\", "/").rpartition("/")[2]]
        return _one_photo(exact or likely)

    def _key(self, path: Path) -> tuple[str, ...]:
        """Return the folders and the name of a file without what differs between a photo and its file of boxes."""
        *folders, _ = map(_same_spelling, path.relative_to(self.folder).parts)
        return (*(name for name in folders if name not in KIND_FOLDERS), _same_spelling(path.stem))


def _same_spelling(name: str) -> str:
    """Return a name as systems compare it that make no difference of case and Unicode form."""
    return normalize("NFC", name).casefold()


def _one_photo(found: Sequence[Path]) -> tuple[Path | None, str]:
    """Return the one photo that was found, or None and why there is none."""
    return (found[0], "") if len(found) == 1 else (None, "several such photos" if found else "no photo of that name")
