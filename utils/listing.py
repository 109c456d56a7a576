"""
What lies in a folder of photos: those of each label, and what is passed over, counted by kind.

Foundation of the project file and of 01. Folders that cameras, phones and computers fill hold more than photos: system
files, sidecars, clips. Names tell most of them apart; a file whose name says nothing is opened for its first bytes.
Nothing is changed, and links are followed only if asked to.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from utils.errors import FieldguideError
from utils.names import as_label
from utils.pictures import PHOTO_SUFFIXES, known_header
from utils.words import counted

# Some are hidden on their own system only; names are compared in small letters.
SYSTEM_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SYSTEM_NAMES = SYSTEM_FOLDERS | SYSTEM_FILES
KINDS = {
    "clip": "3gp avi m2ts m4v mkv mov mp4 mpeg mpg mts webm wmv",
    "sidecar": "aae acr cos dop on1 pp3 thm xmp",
    "text or table": "csv doc docx htm html ini json log md ods odt pdf rtf tsv txt xls xlsx xml yaml yml",
    "archive": "7z gz rar tar zip",
    "camera raw file": "3fr arw cr2 cr3 dng erf nef nrw orf pef raf raw rw2 srw x3f",
}
SIDE_NAMES = {  # what a folder or a cell of a table is called → the side of split.csv
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
PLURALS = {"text or table": "texts and tables"}
KIND_OF = {f".{suffix}": kind for kind, suffixes in KINDS.items() for suffix in suffixes.split()}
CLIP, RAW, CLOUD, SYSTEM = "clip", "camera raw file", "photo that lies in iCloud only", "system file"
LINKED, CLOSED, OTHER = "link to a folder", "folder or link that cannot be read", "other file"
PLURALS |= {CLOUD: "photos that lie in iCloud only", LINKED: "links to folders"}
UNREADABLE_CLIP, MOVING_PHOTO = "clip that cannot be read", "clip of a photo beside it"
PLURALS |= {MOVING_PHOTO: "clips of photos beside them"}
PLURALS |= {CLOSED: "folders or links that cannot be read", UNREADABLE_CLIP: "clips that cannot be read"}
MOST_SEEN = 100_000  # files in a folder that belongs to no label: a source may be somebody's home
HEAD = 4096  # bytes that tell a picture's format


@dataclass(frozen=True)
class Listing:
    """What lies in a folder and in the folders below it."""

    files: tuple[str, ...]  # the photos, sorted as paths; as text, which takes a tenth of the time for 50,000
    passed: tuple[tuple[str, Path], ...]  # what is passed over: kind, and the file or folder; sorted

    @cached_property
    def photos(self) -> tuple[Path, ...]:
        """The photos as paths."""
        return tuple(map(Path, self.files))


def list_photos(folder: Path, *, follow_links: bool = False, but: Iterable[Path] = (), deep: bool = True) -> Listing:
    """
    Return what lies in `folder`, and if `deep` at any depth; no folder is entered twice, and none of those in `but`.

    A camera's raw file counts as a photo where no other file has its name. Links to files are left to the reader, who
    knows which source they may not leave.
    """
    files, passed, raws, waiting, entered, but = [], [], [], [folder], set(), set(but)
    while waiting:
        place = waiting.pop()
        try:
            status = place.stat()
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            passed.append((CLOSED, place))
            continue
        if (status.st_dev, status.st_ino) in entered:  # a link that leads back
            passed.append((LINKED, place))
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in found:
            kind = ""
            if is_system(entry.name):
                kind = CLOUD if entry.name.endswith(".icloud") else SYSTEM
            elif (folder_there := _leads_to_folder(entry)) is None:
                kind = CLOSED
            elif folder_there and entry.is_symlink() and not follow_links:
                kind = LINKED
            elif folder_there:
                waiting += {place / entry.name} - but if deep else ()
                continue
            elif not _is_called_photo(entry.name):
                kind = _kind(place / entry.name)
            if kind:
                (raws if kind == RAW else passed).append((kind, place / entry.name))
            else:
                files.append(entry.path)
    developed = {Path(file).with_suffix("") for file in files if _is_called_photo(file)} if raws else set()
    passed += [(kind, path) for kind, path in raws if path.with_suffix("") in developed]
    files += [str(path) for _, path in raws if path.with_suffix("") not in developed]
    if len(entered) > 1 or raws:
        files.sort(key=Path)
    return Listing(tuple(files), tuple(sorted(passed)))


def is_system(name: str) -> bool:
    """
    Return whether a file or folder is one that systems make for themselves: hidden ones are, too.

    >>> is_system("__MACOSX"), is_system("Thumbs.db"), is_system(".DS_Store"), is_system("ants")
    (True, True, True, False)
    """
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _leads_to_folder(entry: os.DirEntry) -> bool | None:
    """Return whether an entry is a folder; None for a link to itself, or into a folder that is closed to us."""
    try:
        return entry.is_dir()
    except OSError:
        return None


def _is_called_photo(name: str) -> bool:
    """Return whether a file's name is that of a photo; as text, for a Path takes ten times as long."""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122


def _kind(path: Path) -> str:
    """Return the kind of a file that is passed over; "" for a photo."""
    suffix = path.suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return ""
    if suffix in KIND_OF:
        return KIND_OF[suffix]
    try:
        if not path.is_file():  # a pipe would never end
            return OTHER
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""  # whoever takes it says why it cannot be read
    return "" if known_header(head)[0] != "bin" else OTHER


def photos_below(folder: Path) -> tuple[int, bool]:
    """Return how many photos lie below a folder, by their names alone, and whether all of it was looked through."""
    count = seen = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_system(name)]
        seen += len(names) + len(folders)
        count += sum(Path(name).suffix.lower() in PHOTO_SUFFIXES and not is_system(name) for name in names)
        if seen > MOST_SEEN:
            return count, False
    return count, True


def side_folders(folder: Path, labels: Iterable[str] = ()) -> dict[str, str]:
    """
    Return the folders of a ready split, name → side; {} if the folder is none, or those names are among the `labels`.

    A ready split has a folder for training, such as train, and one for judging, such as val. Each holds label folders.
    """
    names = [path.name for path in subfolders_of(folder)]
    sides = {name: SIDE_NAMES[name.casefold()] for name in names if name.casefold() in SIDE_NAMES}
    if len(set(sides.values()) | {"train"}) == 1 or "train" not in sides.values() or set(sides) & set(labels):
        return {}
    return sides if any(subfolders_of(folder / name) for name, side in sides.items() if side == "train") else {}


def subfolders_of(folder: Path) -> list[Path]:
    """Return the folders in a source, sorted by name, without those of systems. It may lie in a ZIP (zipfile.Path)."""
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:  # knows what is a folder without a look at each of many photos
            found = [folder / entry.name for entry in entries if _leads_to_folder(entry)]
    else:
        found = [path for path in folder.iterdir() if path.is_dir()]
    return sorted((path for path in found if not is_system(path.name)), key=lambda path: path.name)


def label_folders(folder: Path, labels: Iterable[str] = ()) -> dict[str, list[Path]]:
    """
    Return label → its folders in a source, sorted by name; system folders are none.

    In a ready split (see `side_folders`, which `labels` go to) they are the folders in train, valid and so on. A folder
    name that cannot be a label everywhere, such as "Penaeus sp.", stands for the label nearest to it. Raises
    FieldguideError if two names stand for one.
    """
    found: dict[str, list[Path]] = {}
    tops = [folder / name for name in sorted(side_folders(folder, labels))] or [folder]
    for path in (path for top in tops for path in subfolders_of(top)):
        same = found.setdefault(as_label(path.name), [])
        if same and normalize("NFC", same[0].name) != normalize("NFC", path.name):
            raise FieldguideError(
                f"The folders {same[0].name!r} and {path.name!r} in {folder} would both be the label "
                f"{as_label(path.name)!r}. Rename one of them."
            )
        same.append(path)
    return dict(sorted(found.items()))


def renamed_sentence(folders: Mapping[str, Iterable[Path]]) -> str:
    """Return which folder names became other labels, in a sentence; "" if none did."""
    told = [
        f"the folder {path.name!r} is the label {label!r}"
        for label, paths in folders.items()
        for path in paths
        if normalize("NFC", path.name) != label
    ]
    if not told:
        return ""
    return f"Some systems do not take every folder name. So {'; '.join(told)}."


def require_one_spelling(folders: Mapping[str, Sequence[Path]], labels: Iterable[str]) -> None:
    """Refuse a source's folders if one is one of the labels in another case: its photos would be left out."""
    if found := misspelt(folders, labels):
        name, meant = found
        raise FieldguideError(
            f"The folder {folders[name][0]} belongs to no label. Is it {meant!r}? Then rename it to {meant!r}, or "
            f"write {name!r} under [labels]. Else move it out of the source."
        )


def misspelt(names: Iterable[str], labels: Iterable[str]) -> tuple[str, str] | None:
    """
    Return the first name that is one of the labels in another case, and that label; None if each is a label or another.

    >>> misspelt(["ant", "Bee", "wasp"], ["ant", "bee"]), misspelt(["ant", "wasp"], ["ant", "bee"])
    (('Bee', 'bee'), None)
    """
    asked = {label.casefold(): label for label in labels}
    known = set(asked.values())
    found = ((name, asked[name.casefold()]) for name in names if name.casefold() in asked and name not in known)
    return next(found, None)


def passed_sentence(folder: Path, passed: Sequence[tuple[str, Path]]) -> str:
    """Return what was passed over in a source, counted by kind with an example each; "" if nothing was."""
    kinds: dict[str, list[Path]] = {}
    for kind, path in sorted(passed):
        kinds.setdefault(kind, []).append(path)
    told = [
        f"{counted(len(paths), kind, PLURALS.get(kind))} ({paths[0].relative_to(folder)})"
        for kind, paths in sorted(kinds.items(), key=lambda each: (-len(each[1]), each[0]))
    ]
    return f"Passed over in {folder}: {', '.join(told)}." if told else ""
