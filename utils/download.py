"""
Stage 01, second half: fetches pictures, or takes them from a folder or the sample, with a row for each.

Writes raw/<label>/<id>.<ext>, bytes as they came, named by their content, and sources.csv. The file is written
first and its row after it, so that a run killed at any moment is completed by the next one: what has a row is not
asked for again, what has none is.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from unicodedata import normalize

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from utils.fetch import LARGEST, Rules, fetching
from utils.files import (
    LINE_BREAKS,
    FieldguideError,
    append_rows,
    content_id,
    locked,
    read_rows,
    remove_leftovers,
    write_new,
)
from utils.pictures import FORMATS, extension
from utils.project import SOURCES_COLUMNS, Project, safe_name

BATCH = 16  # rows appended at once; a kill costs at most these, and they are done again
WINDOW = 4  # pictures under way for each worker; their bytes wait in memory for their turn


@dataclass(frozen=True)
class Gathered:
    """One picture in hand: its bytes, where they are from, and the label they were asked for under."""

    label: str
    url: str
    data: bytes
    query: str = ""
    engine: str = ""
    page_url: str = ""
    title: str = ""
    license: str = "unknown"
    problem: str = ""  # why it could not be taken; then data is empty


@dataclass(frozen=True)
class DownloadReport:
    """What one run added to sources.csv: a dict of `SOURCES_COLUMNS` for each row."""

    rows: list[dict[str, str]]

    def counts(self) -> pd.DataFrame:
        """Return how many pictures each label (row) has of each status (column)."""
        table = pd.DataFrame(self.rows, columns=list(SOURCES_COLUMNS))
        return pd.crosstab(table["label"], table["status"])

    def reasons(self) -> pd.DataFrame:
        """Return how often each reason for not keeping a picture occurred, most frequent first."""
        # An exact copy's reason names its original: without that, each would be a reason of its own.
        reasons = Counter(row["reason"].split(" of ")[0] for row in self.rows if row["reason"])
        return pd.DataFrame(sorted(reasons.items(), key=lambda item: (-item[1], item[0])), columns=["reason", "count"])


# ---------------------------------------------------------------------------------------------------------------
# Files and rows
# ---------------------------------------------------------------------------------------------------------------


class _Collection:
    """The one writer of pictures and of their rows in `table`; knows what both held before."""

    def __init__(self, table: Path):
        rows = read_rows(table, SOURCES_COLUMNS)
        self.table = table
        self.rows: list[dict[str, str]] = []
        self.known = {(row["label"], row["url"]) for row in rows}
        self.kept = {(row["label"], row["id"]) for row in rows if row["status"] in ("kept", "thumbnail")}
        self.states = {(row["label"], row["url"], row["id"], row["reason"] * (not row["id"])) for row in rows}
        self._pending: list[dict[str, str]] = []
        self._files: dict[Path, dict[str, bool]] = {}

    def has(self, label: str, url: str) -> bool:
        """Return whether this address was asked for under this label before."""
        return (label, _plain(url)) in self.known

    def has_as_it_is(self, picture: Gathered) -> bool:
        """Return whether there is a row of this address with this very content, or with this problem."""
        id = "" if picture.problem else content_id(picture.data)
        return (picture.label, _plain(picture.url), id, _plain(picture.problem)) in self.states

    def files(self, folder: Path) -> dict[str, bool]:
        """Return the ids of the files that lie in `folder`, and whether each has a known picture format."""
        if folder not in self._files:
            remove_leftovers(folder)
            self._files[folder] = _ids(folder)
        return self._files[folder]

    def pictures(self, folder: Path) -> int:
        """Return how many distinct pictures lie in `folder`."""
        return sum(self.files(folder).values())

    def add(self, folder: Path, picture: Gathered, *, status: str = "kept", reason: str = "") -> None:
        """Write a picture and note its row, or the row that says why there is none."""
        facts = {"id": "", "bytes": "", "width": "", "height": ""}
        if status in ("kept", "thumbnail"):
            id, files = content_id(picture.data), self.files(folder)
            width, height = _size(picture.data)
            facts = {"id": id, "bytes": len(picture.data), "width": width, "height": height}
            # A file without a row is what a killed run left: it is its own original.
            if id in files and (picture.label, id) in self.kept:
                status, reason = "copy", f"exact copy of {id}"
            elif id not in files:
                suffix = extension(picture.data)
                write_new(folder / f"{id}.{suffix}", picture.data)
                files[id] = suffix != "bin"
        row = {name: getattr(picture, name) for name in ("label", "query", "engine", "url", "page_url", "title")}
        row |= facts | {"license": picture.license, "status": status, "reason": reason}
        row["fetched_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        row = {name: _plain(row[name]) for name in SOURCES_COLUMNS}
        self.known.add((row["label"], row["url"]))
        self.states.add((row["label"], row["url"], row["id"], row["reason"] * (not row["id"])))
        if status in ("kept", "thumbnail"):
            self.kept.add((row["label"], row["id"]))
        self._pending.append(row)
        if len(self._pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Append the rows that wait."""
        rows, self._pending = self._pending, []
        append_rows(self.table, SOURCES_COLUMNS, rows)
        self.rows += rows


@contextmanager
def _collecting(table: Path) -> Iterator[_Collection]:
    """Hold the folder of `table` and write the last rows at the end, also when the work is interrupted."""
    with locked(table.parent):
        collection = _Collection(table)
        try:
            yield collection
        finally:
            collection.flush()


def _plain(value) -> str:
    """Return a value as it is read back from a table: one line of valid UTF-8."""
    return LINE_BREAKS.sub(" ", str(value).encode("utf-8", "replace").decode("utf-8"))


def _visible(folder: Path) -> list[Path]:
    """Return the files in `folder`, sorted by name, without hidden ones; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())


def _size(data: bytes) -> tuple[int | str, int | str]:
    """Return width and height in pixels from a picture's header, ("", "") where it is none."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # Pillow's parsers raise what they like on hostile bytes
        return "", ""


def _ids(folder: Path) -> dict[str, bool]:
    """Return the ids of the files in `folder`, and whether each has a known picture format; 02 judges how good."""
    return {path.stem: path.suffix not in (".bin", ".csv") for path in _visible(folder)}


def kept_count(project: Project, label: str) -> int:
    """Return how many distinct pictures of a label lie in raw/<label>."""
    return sum(_ids(project.raw / label).values())


def save_pictures(project: Project, pictures: Iterable[Gathered], *, total: int | None = None) -> DownloadReport:
    """
    Write pictures to raw/<label>/ and a row for each to sources.csv; what has a row already is passed over.

    A file of a folder has one as long as it did not change: one that was put right since is taken. Bytes are kept as
    they came, also where they are no picture: 02 judges them.

    Parameters
    ----------
    project : Project
    pictures : iterable of Gathered
    total : int, optional
        How many there will be, for the progress bar.

    Raises
    ------
    FieldguideError
        If a label is no folder name, something can't be written, or another notebook is at work there.
    """
    with _collecting(project.table("sources")) as collection:
        for picture in tqdm(pictures, total=total, desc="pictures", unit="picture"):
            # A file may have been put right since; what is at an address of the web is not asked for twice.
            known = collection.has(picture.label, picture.url)
            if not (collection.has_as_it_is(picture) if picture.engine == "folder" else known):
                try:
                    folder = project.raw / safe_name(picture.label)
                except ValueError as error:
                    raise FieldguideError(f"{error}.") from error
                status = "failed" if picture.problem else "kept"
                collection.add(folder, picture, status=status, reason=picture.problem)
    return DownloadReport(collection.rows)


# ---------------------------------------------------------------------------------------------------------------
# The sample and folders
# ---------------------------------------------------------------------------------------------------------------


def gathered_sample(pictures: Iterable) -> Iterator[Gathered]:
    """Turn the sample's pictures (records with name, url, label and data) into what `save_pictures` takes."""
    for picture in pictures:
        yield Gathered(
            label=picture.label,
            url=picture.url,
            data=picture.data,
            engine="sample",
            title=picture.name,
            license="CC0-1.0 (drawn)",
        )


def folder_pictures(
    folder: str | Path, labels: Iterable[str], *, limit: int | None = None, complete: bool = True
) -> Iterator[Gathered]:
    """
    Read the files of ``<folder>/<label>/``, sorted by name; hidden files and sub-folders are left out.

    What cannot be taken (too large, unreadable, a link that leads out of the folder) comes with its `problem`.
    Nothing in the folder is changed.

    Parameters
    ----------
    folder : str or Path
    labels : iterable of K labels
        A sub-folder belongs to a label if their names are the same in Unicode's NFC form.
    limit : int, optional
        Distinct contents taken a label; the rest is left out. `folders_table` tells how many.
    complete : bool
        Whether the folder must hold every label; beside other sources one will do.

    Raises
    ------
    FieldguideError
        If a label has no sub-folder, or an empty one (or if all have none, where it need not be complete); before
        anything is read.
    """
    folder = Path(folder).absolute()
    files = {label: _label_files(folder, label, complete=complete) for label in labels}
    if files and not any(files.values()):
        raise FieldguideError(
            f"There are no photos of any label in {folder}; there is {_names(_subfolders(folder))}. "
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
            yield Gathered(label, path.as_uri(), data, engine="folder", title=path.name, problem=problem)


def _label_files(folder: Path, label: str, *, complete: bool) -> list[Path]:
    """Return the files of one label in a source folder; where there must be some, say what is missing."""
    if not folder.is_dir():
        raise FieldguideError(f"There is no folder {folder}. Correct source in the project file.")
    own = [path for path in _subfolders(folder) if normalize("NFC", path.name) == normalize("NFC", label)]
    own = [path for path in own if path.resolve().is_relative_to(folder.resolve())]
    files = [path for subfolder in own for path in _visible(subfolder)]
    if complete and not own:
        raise FieldguideError(
            f"There is no folder for the label {label!r} in {folder}; there is {_names(_subfolders(folder))}. "
            "Rename that folder, or correct [labels] in the project file."
        )
    if complete and not files:
        raise FieldguideError(f"The folder {own[0]} holds no files. Put photos of {label!r} straight into it.")
    return files


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _names(paths: list[Path]) -> str:
    """Return the names of folders as a sentence's part."""
    return ", ".join(repr(path.name) for path in paths) or "no folder at all"


def folders_table(project: Project) -> pd.DataFrame:
    """Return how many files the source folders hold of each label (row), and how many of them were taken."""
    rows = read_rows(project.table("sources"), SOURCES_COLUMNS)
    taken = {(row["label"], row["url"]) for row in rows if row["engine"] == "folder" and row["id"]}
    counts = {}
    for label in project.labels if project.folders else ():
        urls = [p.as_uri() for folder in project.folders for p in _label_files(folder, label, complete=False)]
        there = sum((label, _plain(url)) in taken for url in urls)
        counts[label] = {"files in the folders": len(urls), "taken": there}
    return pd.DataFrame.from_dict(counts, orient="index")


def _file_bytes(path: Path, folder: Path) -> tuple[bytes, str]:
    """Return a file's bytes and "", or b"" and why it is not taken."""
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return b"", "a link that leads out of the source folder"
        if not path.is_file():
            return b"", "not a file, or a link that leads nowhere"
        if path.stat().st_size > LARGEST:
            return b"", f"larger than {LARGEST // 1_000_000} MB"
        return path.read_bytes(), ""
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"


# ---------------------------------------------------------------------------------------------------------------
# Fetching
# ---------------------------------------------------------------------------------------------------------------


def download_images(
    results: Iterable,
    dest: str | Path,
    *,
    wanted: int | None = None,
    label: str | None = None,
    sources: str | Path | None = None,
    allowed_hosts: Iterable[str] = (),
    deadline: float = 30.0,
    workers: int = 8,
    per_host: int = 4,
    largest: int = LARGEST,
    honour_noai: bool = True,
) -> DownloadReport:
    """
    Fetch pictures into `dest`, named by their content, with a row for each address asked for.

    Every address has one row, with one status: "kept", "thumbnail" (the picture failed, for the reason given, and
    its thumbnail was kept), "copy" (of one that is there), "failed" or "refused" (by the rules below). What has a
    row is not asked for again: run it again after an interruption, and it goes on where it was.

    Only http and https are fetched, and every redirect is judged anew: private, loopback, link-local and metadata
    addresses are refused, by name and after resolving. HTTP_PROXY, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE count.

    Parameters
    ----------
    results : iterable of addresses, or of records with `url` and any of thumbnail, page_url, title, query, …
    dest : str or Path
        A folder; raw/<label> of a project.
    wanted : int, optional
        Distinct pictures that `dest` shall hold, those of earlier runs included; stop there.
    label : str, optional
        For the rows; by default the name of `dest`.
    sources : str or Path, optional
        The table of rows. By default the sources.csv of the project, if `dest` is its raw/<label>; else one in `dest`.
    allowed_hosts : iterable of host names
        Hosts that may be private ones, such as "localhost".
    deadline : float
        Seconds for one address, tries and redirects included; a thumbnail has its own.
    workers, per_host : int
        Fetches at a time, in all and to one host.
    largest : int
        Bytes of one picture.
    honour_noai : bool
        Leave out pictures whose site says "noai" or "noimageai" in X-Robots-Tag.

    Raises
    ------
    FieldguideError
        If there is no network (addresses not reached then have no row, so they are asked for again), something
        can't be written, or another notebook is at work there.
    """
    dest = Path(dest).absolute()
    label = dest.name if label is None else label
    if sources is None:
        sources = (dest.parents[1] if dest.parent.name == "raw" else dest) / "sources.csv"
    hosts = frozenset(host.lower() for host in allowed_hosts)
    rules = Rules(hosts, deadline, workers, per_host, largest, honour_noai)
    with _collecting(Path(sources)) as collection, tqdm(total=wanted, desc=label[:40], unit="picture") as bar:
        bar.update(collection.pictures(dest))
        missing = WINDOW * workers if wanted is None else wanted - bar.n
        if missing <= 0:
            return DownloadReport(collection.rows)
        addresses = _unknown((_gathered(result, label) for result in results), collection)
        with fetching(addresses, rules, window=max(workers, min(WINDOW * workers, missing))) as outcomes:
            for picture, outcome in outcomes:
                picture = replace(picture, data=outcome.data)
                collection.add(dest, picture, status=outcome.status, reason=outcome.reason)
                bar.update(collection.pictures(dest) - bar.n)
                if wanted is not None and bar.n >= wanted:
                    break
    return DownloadReport(collection.rows)


def _gathered(result, label: str) -> tuple[Gathered, str]:
    """Return a result, still without bytes, and the address of its thumbnail."""
    if isinstance(result, str):
        return Gathered(label, _plain(result), b"", engine="address"), ""
    told = {name: _plain(getattr(result, name, "") or "") for name in ("query", "engine", "page_url", "title")}
    url, thumbnail = (_plain(getattr(result, name, "") or "") for name in ("url", "thumbnail"))
    license = _plain(getattr(result, "license", "") or "unknown")
    return Gathered(label, url, b"", license=license, **told), thumbnail


def _unknown(pictures: Iterable[tuple[Gathered, str]], collection: _Collection) -> Iterator[tuple[Gathered, str, str]]:
    """Yield the pictures that have no row yet, each address once, with their addresses."""
    seen: set[str] = set()
    for picture, thumbnail in pictures:
        if picture.url not in seen and not collection.has(picture.label, picture.url):
            seen.add(picture.url)
            yield picture, picture.url, thumbnail


def sources_table(project: Project) -> pd.DataFrame:
    """Return what became of every address asked for: a row a label, a column a status."""
    rows = pd.DataFrame(read_rows(project.table("sources"), SOURCES_COLUMNS), columns=list(SOURCES_COLUMNS))
    return pd.crosstab(rows.label, rows.status) if len(rows) else pd.DataFrame()
