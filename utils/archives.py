"""
ZIP files of photos: looked into without unpacking, and unpacked whole or not at all.

Foundation of the project file and of 01. A ZIP from a stranger may hold names that lead out of the folder, or more than
the disk can take. What its directory announces is judged before anything is unpacked, and no more than that is read.
"""

import errno
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.listing import is_system
from utils.storage import content_id, explained, file_stamp, make_folder, write_whole

ARCHIVE = ".zip"
MOST_FILES = 1_000_000
LARGEST_RATIO, HARMLESS = 200, 10**9  # unpacked size : size of the ZIP, from so many bytes on
SPARE = 10**9  # bytes that stay free on the disk
LOCKED_FLAG = 0x1
DAMAGED = "a damaged file, or one packed in a way unknown here"
TWO = "a second file of one name"
UNFIT_NAMES = {  # what the system says of a name, and what that is here
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), TWO),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ), "a name that this system does not take"),
}


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a ZIP to read from, or say why it cannot be unpacked."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        raise FieldguideError(
            f"{path} is no ZIP, or was cut short ({error}). Download or pack it again; other archives must be unpacked "
            "by hand, and source must name the folder."
        ) from error
    entries, size = archive.infolist(), path.stat().st_size
    for entry in entries:  # Windows packs them so, against the rules
        entry.filename = entry.filename.replace("\\", "/")
    archive.NameToInfo = {entry.filename: entry for entry in entries}
    announced = sum(entry.file_size for entry in entries)
    problem = ""
    if any(entry.flag_bits & LOCKED_FLAG for entry in entries):
        problem = "is locked with a password. Unpack it by hand, and let source name the folder"
    elif len(entries) > MOST_FILES:
        problem = f"holds {len(entries):,} files, more than {MOST_FILES:,}. Cut it into parts"
    elif announced > max(HARMLESS, LARGEST_RATIO * size):
        problem = f"has {size:,} bytes and would unpack to {announced:,}: no photos shrink like that. It stays packed"
    if problem:
        archive.close()
        raise FieldguideError(f"{path} {problem}.")
    return archive


def safe_parts(name: str) -> tuple[str, ...] | None:
    r"""
    Return the parts of a name in a ZIP; None where it would lead out of the folder that it is unpacked to.

    >>> safe_parts("ants/1.jpg"), safe_parts("ants\\2.jpg"), safe_parts("../../etc/passwd"), safe_parts("C:/1.jpg")
    (('ants', '1.jpg'), ('ants', '2.jpg'), None, None)
    """
    name = name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or PureWindowsPath(name).drive:
        return None
    return parts


def unpack_zip(path: Path, folder: Path) -> tuple[Path, list[str]]:
    """
    Unpack a ZIP to a folder of its own in `folder`, if it is not there, and return that and what was left out.

    Links, names that lead out and system files are left out, of two files with one name the second. A damaged file is
    left out and counted. A run that is killed leaves nothing that a later one takes for whole.
    """
    own = f"{path.stem}-{content_id(os.fsencode(path.resolve()))[:8]}"  # of this ZIP, whatever others are called
    target = folder / f"{own}-{content_id(repr(file_stamp(path)).encode())}"
    remarks = target.with_name(f"{target.name}.txt")
    if target.is_dir() and remarks.is_file():
        return target, remarks.read_text(encoding="utf-8").splitlines()
    for old in sorted(make_folder(folder).iterdir()):  # of this ZIP as it was before, and of a run that was killed
        if old.is_dir() and re.fullmatch(rf"{re.escape(own)}-[0-9a-f]{{16}}", old.name):
            shutil.rmtree(old)
    with open_zip(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        needed, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
        if needed + SPARE > free:
            raise FieldguideError(
                f"{path} unpacks to {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free. Free some space, "
                "or set data_dir to a larger disk."
            )
        left: dict[str, list[str]] = {}
        for entry in tqdm(entries, desc=f"unpacking {path.name}"[:40], unit="file"):
            if problem := _unpacked(archive, entry, target):
                left.setdefault(problem, []).append(entry.filename)
    make_folder(target)
    told = [
        f"Left out of {path.name}: {len(names):,} × {why} ({names[0][:80]})." for why, names in sorted(left.items())
    ]
    write_whole(remarks, "\n".join(told))  # last: without it the folder is not taken for whole
    return target, told


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> str:
    """Write one file of a ZIP below `folder`; return why it was left out, or ""."""
    parts = safe_parts(entry.filename)
    if parts is None:
        return "a name that leads out of the folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if any(map(is_system, parts)):
        return ""  # as in a folder, where they are passed over
    place = folder.joinpath(*parts)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file, archive.open(entry) as packed:
            shutil.copyfileobj(packed, file, 2**20)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError):
        place.unlink(missing_ok=True)
        return DAMAGED
    except OSError as error:
        if error.errno is None:  # bzip2's own
            place.unlink(missing_ok=True)
            return DAMAGED
        if error.errno in UNFIT_NAMES:
            return UNFIT_NAMES[error.errno]
        with explained(place):
            raise
    return ""
