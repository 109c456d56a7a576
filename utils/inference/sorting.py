"""
Stage 08, --sort-into: each photo copied into a folder named after its label. No photo is moved, changed or replaced.
"""

import filecmp
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from .classifier import Prediction
from .outputs import NotWritten, unclobbered

UNSURE = "unknown"  # the answer, and the folder, of a photo without a label
LEFTOVER = f".{'[0-9a-f]' * 16}.part*"  # of `unclobbered`
NO_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # letters that no folder on every system may have
WINDOWS_OWN = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
LONGEST_FOLDER = 120  # bytes of a folder's name, so that its photos' paths stay short enough


class PhotoGone(NotWritten):
    """This photo was judged, but could no longer be read to copy it."""


def folder_names(labels: Sequence[str]) -> dict[str, str]:
    """
    Return a folder's name for each label. Names are safe on every system, all differ, and none is `UNSURE`.

    >>> folder_names(["cat", "a/b", "a:b", "..", "CON"])
    {'cat': 'cat', 'a/b': 'a_b', 'a:b': 'a_b (2)', '..': '_', 'CON': '_CON'}
    """
    names: dict[str, str] = {}
    taken = {UNSURE}
    for label in labels:
        name = NO_NAMES.sub("_", label).encode()[:LONGEST_FOLDER].decode(errors="ignore").strip(". ") or "_"
        name = f"_{name}" if WINDOWS_OWN.match(name) else name
        numbered = (name if n == 1 else f"{name} ({n})" for n in count(1))
        names[label] = next(name for name in numbered if name.casefold() not in taken)
        taken.add(names[label].casefold())
    return names


class Sorter:
    """Copies photos into a folder for each label, and never moves, changes or replaces one."""

    def __init__(self, folder: Path, labels: Sequence[str]):
        self.folder = folder
        self.names = folder_names(labels)
        folder.mkdir(parents=True, exist_ok=True)
        for name in {*self.names.values(), UNSURE}:
            for leftover in sorted((folder / name).glob(LEFTOVER)):  # of a run that was killed
                leftover.unlink(missing_ok=True)

    def copy(self, file: str, prediction: Prediction) -> None:
        """Copy a photo that was read into its label's folder, or into "unknown"."""
        if not prediction.error:
            folder = self.folder / (UNSURE if prediction.label is None else self.names[prediction.label])
            folder.mkdir(exist_ok=True)
            copied(Path(file), folder)


def copied(photo: Path, folder: Path) -> Path:
    """Copy a photo into `folder`, numbered if another has its name, unless it lies there; return where it is."""
    for number in count(1):
        target = folder / (photo.name if number == 1 else f"{photo.stem} ({number}){photo.suffix}")
        try:
            with suppress(FileExistsError):
                if not os.path.lexists(target):
                    return _copy(photo, target)
            if target.is_file() and filecmp.cmp(photo, target, shallow=False):
                return target
        except OSError as error:
            if str(error.filename) != str(photo):
                raise
            raise PhotoGone(f"{photo} was judged but not copied: {error.strerror}.") from error
    raise AssertionError("counting does not end")


def _copy(photo: Path, target: Path) -> Path:
    """Copy a photo's bytes and time to a new file, whole or not at all."""
    with unclobbered(target) as temporary:
        with photo.open("rb") as source, temporary.open("xb") as copy:
            shutil.copyfileobj(source, copy)
            times = os.fstat(source.fileno())
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
    return target
