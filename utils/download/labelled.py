"""
A table of photos and their labels as a source: finds the files that it names, below its own folder and nowhere else.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from utils.download.sources import Photo, Source
from utils.errors import FieldguideError
from utils.listing import list_photos, misspelt, passed_sentence
from utils.photo_table import PhotoTable, read_photo_table
from utils.words import counted

MISSING, OUTSIDE, SEVERAL = "no photo of that name", "a path that leads out of the table's folder", "several such files"


def read_labelled(
    place: Path,
    labels: Iterable[str],
    *,
    follow_links: bool = False,
    group_by: str = "",
    apart: Iterable[Path] = (),
) -> Source:
    """
    Return what a table names: files below its folder, or web addresses. `apart` are folders that are not looked into.

    A file may be written with or without its folders and its ending. What cannot be found, lies outside, or has two
    labels is left out and counted. Raises FieldguideError if it is no such table, or a label's name stands in it in
    another case.
    """
    table, labels = read_photo_table(place, group_by=group_by), list(labels)
    _require_spelling(table, labels)
    rows = [_with_own_group(place, row) for row in table.rows]
    remarks = [*table.remarks, _left_labels(place, rows, labels)]
    if table.has_files:
        photos, passed, told = _photos_of(place, rows, labels, follow_links=follow_links, apart=apart)
        source = {"photos": photos, "passed": passed}
    else:
        links, told = _links_of(rows, labels)
        source = {"photos": dict.fromkeys(labels, ()), "links": links}
    remarks = tuple(filter(None, [*remarks, *told]))
    return Source(place, place.parent, names=tuple(table.labels), remarks=remarks, **source)


def _require_spelling(table: PhotoTable, labels: Sequence[str]) -> None:
    """Refuse a table in which a label is written in another case: its photos would be left out."""
    if found := misspelt(table.labels, labels):
        name, meant = found
        raise FieldguideError(
            f"{table.path} has the label {name!r}, which is none of the project file. Is it {meant!r}? Write it in one "
            f"way in both, or write {name!r} under [labels]."
        )


def _with_own_group(place: Path, row: Mapping[str, str]) -> Mapping[str, str]:
    """Return a row whose group no other table has."""
    return {**row, "group": f"{place.as_uri()}#{row['group']}"} if row["group"] else row


def _left_labels(place: Path, rows: Sequence[Mapping], labels: Sequence[str]) -> str:
    """Return which labels of a table the project file leaves out."""
    left = Counter(row["label"] for row in rows if row["label"] not in labels)
    named = ", ".join(f"{label} ({count:,})" for label, count in sorted(left.items())[:20])
    more = f" and {len(left) - 20:,} more" if len(left) > 20 else ""
    return f"Labels in {place.name} that the project file leaves out, with their rows: {named}{more}." if left else ""


def _photos_of(
    place: Path, rows: Sequence[Mapping], labels: Sequence[str], *, follow_links: bool, apart: Iterable[Path]
):
    """Return label → photos, what was passed over, and sentences on rows and files that are left out."""
    folder = place.parent
    listing = list_photos(folder, follow_links=follow_links, but=apart)
    find, left = _Finder(folder, listing.photos), defaultdict(list)
    named: dict[Path, list[Mapping]] = defaultdict(list)
    for row in rows:
        path, problem = find(row["file"])
        if path:
            named[path].append(row)
        else:
            left[problem].append(row["file"])
    photos: dict[str, list[Photo]] = {label: [] for label in labels}
    torn, twice = [], []
    for path, several in sorted(named.items()):
        if len({row["label"] for row in several}) > 1:
            torn.append(path)
            continue
        if several[0]["label"] in photos:
            photos[several[0]["label"]].append(Photo(str(path), several[0]))
        twice += [path] * (len(several) > 1)
    told = [
        f"Left out: {counted(len(files), 'row')} of {place.name} with {why}, such as {files[0][:80]!r}."
        for why, files in sorted(left.items())
    ]
    if torn:
        both = " and ".join(sorted({repr(row["label"]) for row in named[torn[0]]}))
        told.append(
            f"Left out: {counted(len(torn), 'photo')} with two labels in {place.name}, such as "
            f"{torn[0].relative_to(folder)}: {both}. Keep the row that is right."
        )
    if twice:
        told.append(f"{counted(len(twice), 'photo')} in {place.name} twice, such as {twice[0].relative_to(folder)}.")
    if spare := [path for path in listing.photos if path not in named]:
        told.append(
            f"{counted(len(spare), 'photo')} beside {place.name} in no row, such as {spare[0].relative_to(folder)}."
        )
    passed = tuple(each for each in listing.passed if each[1] != place)
    told.append(passed_sentence(folder, passed))
    return {label: tuple(found) for label, found in photos.items()}, passed, told


class _Finder:
    """Finds the photo that a cell names."""

    def __init__(self, folder: Path, photos: Iterable[Path]):
        self._folder = folder
        self._by_name: dict[str, list[tuple[Path, tuple[str, ...]]]] = defaultdict(list)
        for path in photos:
            parts = _plain_parts(path.relative_to(folder).parts)
            for last in dict.fromkeys((parts[-1], _plain_parts([path.stem])[0])):
                self._by_name[last].append((path, (*parts[:-1], last)))

    def __call__(self, text: str) -> tuple[Path | None, str]:
        """Return the photo, or None and why there is none."""
        text = text.replace("\\", "/")
        if PureWindowsPath(text).drive or text.startswith("/"):
            try:
                text = Path(text).relative_to(self._folder).as_posix()
            except ValueError:
                return None, OUTSIDE
        wanted = _plain_parts(PurePosixPath(text).parts)
        if ".." in wanted:
            return None, OUTSIDE
        if not wanted:
            return None, MISSING
        found = [(path, parts) for path, parts in self._by_name.get(wanted[-1], ()) if parts[-len(wanted) :] == wanted]
        for same in (
            [path for path, _ in found if path.relative_to(self._folder).as_posix() == text],
            [path for path, parts in found if parts == wanted],
            [path for path, _ in found],
        ):
            if len(same) == 1:
                return same[0], ""
        return None, SEVERAL if found else MISSING


def _plain_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a path as systems compare them that make no difference of case and Unicode form."""
    return tuple(normalize("NFC", part).casefold() for part in parts)


def _links_of(rows: Sequence[Mapping], labels: Sequence[str]) -> tuple[dict, list[str]]:
    """Return label → rows with an address, each address once, and sentences on those that are left out."""
    links: dict[str, list[Mapping]] = {label: [] for label in labels}
    of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        of[row["url"]].add(row["label"])
    torn = sorted(url for url, found in of.items() if url and len(found) > 1)
    seen: set[str] = {"", *torn}
    for row in rows:
        if row["url"] not in seen and row["label"] in links:
            links[row["label"]].append(row)
        seen.add(row["url"])
    told = []
    if torn:
        addresses = counted(len(torn), "address", "addresses")
        told.append(f"Left out: {addresses} with two labels, such as {torn[0][:80]}.")
    if empty := sum(not row["url"] for row in rows):
        told.append(f"Left out: {counted(empty, 'row')} without an address.")
    return {label: tuple(found) for label, found in links.items()}, told
