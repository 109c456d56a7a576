"""
Stage 07: a set of files is put in place whole or not at all, and the set before it is kept.

card.json comes last and names the others' SHA-256. So a set that a kill tore apart is known by its card, and the next
run puts it right.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.inference import GALLERY
from utils.storage import explained, file_hash, make_folder, sync_folder, write_whole

MODEL, ONNX, INT8, _, SOURCES, README, MODEL_CARD, CARD = FILES = (
    "export.pkl",
    "model.onnx",
    "model.int8.onnx",  # where the project file asks for it, and it is not worse
    GALLERY,  # of single animals: individuals = true
    "ATTRIBUTION.csv",
    "README.md",  # MODEL_CARD.md once more, for the Hub shows no other name; a person may add to it
    "MODEL_CARD.md",
    "card.json",
)
STAGED = ".export"  # the folder, in models/<name>, in which a set is made; what a killed run left there is removed
EARLIER = "exports"  # the folder of earlier sets


@contextmanager
def workshop(folder: Path, name: str = STAGED) -> Iterator[Path]:
    """Yield an empty folder inside `folder` to make a set in; it is gone afterwards."""
    staged = folder / name
    with explained(staged):
        if staged.exists():  # a run was killed
            shutil.rmtree(staged)
        staged.mkdir()
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def put_in_place(staged: Path, folder: Path) -> Path | None:
    """
    Move a staged set of files into `folder`, card.json last; return where the earlier, different set is kept.

    Killed at any moment, this leaves the earlier set, or it is in exports/<NNN> already. Files that are the same stay.
    One that the new set lacks goes, for it is of another model. While MODEL_CARD.md is the same, README.md stays too: a
    person may have added to it.
    """
    new = [name for name in FILES if _hash(staged / name) != _hash(folder / name)]
    if README in new and MODEL_CARD not in new and (folder / README).exists():
        new.remove(README)
    backup = _kept_aside(staged, folder, [name for name in new if (folder / name).exists()])
    sync_folder(staged)
    for name in new:
        with explained(folder / name):
            if (staged / name).exists():
                (staged / name).replace(folder / name)
            else:
                (folder / name).unlink()
    sync_folder(folder)
    return backup


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, or "" if there is none."""
    return file_hash(path) if path.exists() else ""


def _kept_aside(staged: Path, folder: Path, lost: Sequence[str]) -> Path | None:
    """Copy the set to the next free number if files would be lost that the last copy lacks; return where they are."""
    if not lost:
        return None
    kept = make_folder(folder / EARLIER)
    numbers = sorted(int(path.name) for path in kept.iterdir() if path.name.isdecimal() and path.is_dir())
    last = kept / f"{numbers[-1]:03}" if numbers else None
    if last and all(_hash(last / name) == _hash(folder / name) for name in lost):
        return last  # by a run that was killed before it had put the whole new set in place
    backup, copies = kept / f"{numbers[-1] + 1 if numbers else 1:03}", staged / EARLIER
    with explained(backup):
        copies.mkdir()
        for name in FILES:
            if (folder / name).exists():
                write_whole(copies / name, (folder / name).read_bytes())
        sync_folder(copies)
        copies.rename(backup)
        sync_folder(kept)
    return backup
