"""
Stage 01, second half: fetches pictures, or takes them from `folders` or the `sample`, with a row for each.

Writes raw/<label>/<id>.<ext>, bytes as they came, named by their content, and sources.csv. The file is written
first and its row after it, so that a run killed at any moment is completed by the next one: what has a row is not
asked for again, what has none is.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from utils.addresses import LONGEST_ADDRESS
from utils.download.fetch import LARGEST, WORKERS, Rules, fetching
from utils.errors import FieldguideError
from utils.pictures import header
from utils.project import Project, safe_name
from utils.storage import Shelf, content_id, locked, remove_leftovers, require_writable, visible_files
from utils.tables import FOLDER, HAND, SOURCES_COLUMNS, TAKEN, append_rows, each_row, mend_log, one_line

BATCH = 16  # pictures and rows put on disk at once; a kill costs at most two such, and they are done again
WINDOW = 4  # pictures under way for each worker; their bytes wait in memory for their turn
LONGEST_TEXT = 500  # characters of a title and the like; the web sends longer ones, and tables must stay readable
# What makes a reason one of its kind: an original's id, a host's address, a library's words, a size.
DETAILS = re.compile(r" (\(|of [0-9a-f]{16}\b|behind ).*|(?<=private address ).*|^\d+×\d+ (?=pixels)")


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
    """What one run added to sources.csv: how many rows of each (label, status, kind of reason)."""

    tally: Mapping[tuple[str, str, str], int]

    @property
    def added(self) -> int:
        """How many rows."""
        return sum(self.tally.values())

    def counts(self) -> pd.DataFrame:
        """Return how many pictures each label (row) has of each status (column)."""
        return _crosstab(self.tally)

    def reasons(self) -> pd.DataFrame:
        """Return how often each reason for not keeping a picture occurred, most frequent first."""
        reasons: Counter[str] = Counter()
        for (_, _, reason), count in self.tally.items():
            reasons[reason] += count if reason else 0
        found = sorted((+reasons).items(), key=lambda item: (-item[1], item[0]))
        return pd.DataFrame(found, columns=["reason", "count"])


def _crosstab(tally: Mapping[tuple[str, str, str], int]) -> pd.DataFrame:
    """Return a table of counts, a row a label and a column a status; an empty one of nothing."""
    labels, statuses = (sorted({key[n] for key in tally}) for n in (0, 1))
    table = pd.DataFrame(0, index=pd.Index(labels, name="label"), columns=pd.Index(statuses, name="status"))
    for (label, status, _), count in tally.items():
        table.loc[label, status] += count
    return table


def _kind(reason: str) -> str:
    """
    Return a reason without its details.

    >>> _kind("exact copy of e3b0c44298fc1c14"), _kind("private address 10.0.0.1 behind a.org"), _kind("HTTP 404")
    ('exact copy', 'private address', 'HTTP 404')
    """
    return DETAILS.sub("", reason).strip()


# ---------------------------------------------------------------------------------------------------------------
# Files and rows
# ---------------------------------------------------------------------------------------------------------------


class _Collection:
    """The one writer of pictures and of their rows in `table`; of what both held before it keeps short keys alone."""

    def __init__(self, table: Path, writer: Executor):
        self.table = table
        self.tally: Counter[tuple[str, str, str]] = Counter()
        self._asked: set[bytes] = set()  # (label, address)
        self._kept: set[bytes] = set()  # (label, id)
        self._states: set[bytes] = set()  # of files in folders, which can change: (label, address, id or problem)
        self._files: dict[Path, dict[str, bool]] = {}
        self._shelf, self._rows = Shelf(), []
        self._writer, self._under_way = writer, None
        remove_leftovers(table.parent, below=False)
        mend_log(table, SOURCES_COLUMNS)  # what a torn row was about is asked for again
        for row in each_row(table, SOURCES_COLUMNS):
            self._know(row)

    def _know(self, row: Mapping[str, str]) -> None:
        """Remember what a row says."""
        self._asked.add(_key(row["label"], row["url"]))
        if row["engine"] == FOLDER:
            self._states.add(_key(row["label"], row["url"], row["id"] or row["reason"]))
        if _was_taken(row):
            self._kept.add(_key(row["label"], row["id"]))

    def has(self, label: str, url: str) -> bool:
        """Return whether this address was asked for under this label before."""
        return _key(label, url) in self._asked

    def has_picture(self, picture: Gathered) -> bool:
        """Return whether a picture in hand has a row; a file of a folder may change, and needs one as it is now."""
        if picture.engine == FOLDER:
            return _key(picture.label, picture.url, picture.problem or content_id(picture.data)) in self._states
        return self.has(picture.label, picture.url)

    def pictures(self, folder: Path, label: str) -> int:
        """Return how many distinct pictures with a row lie in `folder`."""
        return sum(good and _key(label, id) in self._kept for id, good in self._lying(folder).items())

    def _lying(self, folder: Path) -> dict[str, bool]:
        """Return the ids of the files that lie in `folder`, and whether each has a known picture format."""
        if folder not in self._files:
            remove_leftovers(folder)
            self._files[folder] = _ids(folder)
        return self._files[folder]

    def add(
        self,
        folder: Path,
        picture: Gathered,
        *,
        status: str = "kept",
        reason: str = "",
        facts: tuple[str, int, int] | None = None,
    ) -> bool:
        """
        Write a picture and note its row, or the row that says why there is none.

        `facts` is what `_facts` returns, where it is known. Return whether there is one distinct picture more.
        """
        more, gained = {}, False
        if status in TAKEN:
            id, files = content_id(picture.data), self._lying(folder)
            suffix, width, height = facts or _facts(picture.data)
            more = {"id": id, "bytes": len(picture.data), "width": width, "height": height}
            # A file without a row is what a killed run left, or what lost its row: it is its own original.
            if id in files and _key(picture.label, id) in self._kept:
                status, reason = "copy", f"exact copy of {id}"
            else:
                if id not in files:
                    self._shelf.add(folder / f"{id}.{suffix}", picture.data)
                    files[id] = suffix != "bin"
                gained = files[id]
        row = {name: getattr(picture, name, "") for name in SOURCES_COLUMNS} | more
        row |= {"status": status, "reason": reason, "fetched_at": datetime.now(UTC).isoformat(timespec="seconds")}
        row = {name: one_line(value) for name, value in row.items()}
        self._know(row)
        self._rows.append(row)
        if len(self._rows) >= BATCH:
            self.flush()
        return gained

    def flush(self) -> None:
        """Have what waits put on disk, while the next pictures are fetched; wait for what was put there before."""
        try:
            self.wait()
        finally:  # one batch that failed takes no other with it
            shelf, rows, self._shelf, self._rows = self._shelf, self._rows, Shelf(), []
            self._under_way = self._writer.submit(self._settle, shelf, rows)

    def wait(self) -> None:
        """Wait for what is being put on disk, and raise what went wrong there."""
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()

    def _settle(self, shelf: Shelf, rows: list[dict[str, str]]) -> None:
        """Put pictures on disk, and after them their rows."""
        shelf.settle()
        append_rows(self.table, SOURCES_COLUMNS, rows)
        self.tally.update((row["label"], row["status"], _kind(row["reason"])) for row in rows)


def _key(*parts: str) -> bytes:
    """Return 12 bytes that stand for some texts: thousands of addresses need not lie in memory to be known again."""
    return blake2b("\n".join(map(one_line, parts)).encode(), digest_size=12).digest()


@contextmanager
def _collecting(table: Path) -> Iterator[_Collection]:
    """Hold the folder of `table` and write the last rows at the end, also when the work is interrupted."""
    with locked(table.parent), ThreadPoolExecutor(1) as writer:
        collection = _Collection(table, writer)
        try:
            yield collection
        finally:
            try:
                collection.flush()
            finally:
                collection.wait()


def _facts(data: bytes) -> tuple[str, int | str, int | str]:
    """Return extension, width and height in pixels from a picture's header, ("bin", "", "") where it is none."""
    try:
        return header(data)
    except Exception:  # Pillow's parsers raise what they like on hostile bytes
        return "bin", "", ""


def _ids(folder: Path) -> dict[str, bool]:
    """Return the ids of the files in `folder`, and whether each has a known picture format; 02 judges how good."""
    return {path.stem: path.suffix not in (".bin", ".csv") for path in visible_files(folder)}


def _was_taken(row: Mapping[str, str]) -> bool:
    """Return whether a row stands for a file that 01 took, not for one that a person put there."""
    return row["status"] in TAKEN and row["engine"] != HAND


def kept_count(project: Project, label: str) -> int:
    """Return how many distinct pictures of a label lie in raw/<label> and have a row that says where from."""
    good = {id for id, known in _ids(project.raw / label).items() if known}
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    return len(good & {row["id"] for row in rows if row["label"] == label and _was_taken(row)})


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
            if not collection.has_picture(picture):
                folder, status = _folder_of(project.raw, picture.label), "failed" if picture.problem else "kept"
                collection.add(folder, picture, status=status, reason=picture.problem)
    return DownloadReport(collection.tally)


def _folder_of(raw: Path, label: str) -> Path:
    """Return raw/<label>, or refuse a label that is no folder name."""
    try:
        return raw / safe_name(label)
    except ValueError as error:
        raise FieldguideError(f"{error}.") from error


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
    allowed_hosts: str | Iterable[str] = (),
    deadline: float = 30.0,
    workers: int = WORKERS,
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
        A record may be a mapping, also one of a search client's with "image" for `url` and "url" for `page_url`.
        Taken from as fetching goes on. What it raises, such as a search that is refused midway, is raised here
        after all that it gave before is on disk.
    dest : str or Path
        A folder; raw/<label> of a project.
    wanted : int, optional
        Distinct pictures that `dest` shall hold with a row each, those of earlier runs included; stop there.
    label : str, optional
        For the rows; by default the name of `dest`.
    sources : str or Path, optional
        The table of rows. By default the sources.csv of the project, if `dest` is its raw/<label>; else one in `dest`.
    allowed_hosts : a host name, or an iterable of them
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
        If there is no network (addresses not reached then have no row, so they are asked for again), a result names
        no address, `dest` is no folder for a label, something can't be written, or another notebook is at work there.
    """
    results, dest = _listed(results), _label_folder(dest)
    label = dest.name if label is None else label
    if sources is None:
        sources = (dest.parents[1] if dest.parent.name == "raw" else dest) / "sources.csv"
    hosts = [allowed_hosts] if isinstance(allowed_hosts, str) else allowed_hosts
    rules = Rules(frozenset(hosts), deadline, workers, per_host, largest, honour_noai)
    with (
        _collecting(Path(sources)) as collection,
        # It moves on with every address, also one that gave nothing.
        tqdm(total=wanted, desc=label[:40], unit="picture", miniters=0) as bar,
    ):
        bar.update(collection.pictures(dest, label))
        missing = WINDOW * workers if wanted is None else wanted - bar.n
        if missing <= 0:
            return DownloadReport(collection.tally)
        require_writable(dest)  # rather than after the first pictures were fetched
        addresses = _unknown((_gathered(result, label, n) for n, result in enumerate(results, start=1)), collection)
        asked = 0
        with fetching(addresses, rules, window=max(workers, min(WINDOW * workers, missing))) as outcomes:
            for picture, outcome in outcomes:
                found = {"status": outcome.status, "reason": outcome.reason}
                facts = (outcome.extension, outcome.width, outcome.height)
                gained = collection.add(dest, replace(picture, data=outcome.data), **found, facts=facts)
                asked += 1
                bar.set_postfix_str(f"{asked} addresses asked", refresh=False)
                bar.update(gained)
                if wanted is not None and bar.n >= wanted:
                    break
    return DownloadReport(collection.tally)


def _listed(results) -> Iterable:
    """Return results as a list where one alone was given; refuse what is none."""
    if isinstance(results, str | Mapping):
        return [results]
    if isinstance(results, bytes) or not isinstance(results, Iterable):
        raise FieldguideError(f"{repr(results)[:200]} is no list of addresses or of search results.")
    return results


def _label_folder(dest: str | Path) -> Path:
    """Return where pictures shall lie; below raw/, by a label's name alone."""
    dest = Path(dest).absolute()
    return _folder_of(dest.parent, dest.name) if dest.parent.name == "raw" or dest.name == ".." else dest


def _gathered(result, label: str, number: int) -> tuple[Gathered, str, str]:
    """Return a result, still without bytes, its address and that of its thumbnail."""
    if isinstance(result, str):
        return Gathered(label, _noted(one_line(result)), b"", engine="address"), one_line(result), ""
    tell = result.get if isinstance(result, Mapping) else partial(getattr, result)
    url, page_url = tell("url", None), tell("page_url", None)
    if isinstance(result, Mapping) and "image" in result:  # as a search client names them
        url, page_url = result["image"], page_url or url
    if not url or not isinstance(url, str):
        raise FieldguideError(
            f"The result number {number} has no address of a picture: {repr(result)[:200]}. "
            "Give addresses, or records with `url` (or mappings with 'url' or 'image')."
        )
    url, thumbnail, page_url = (one_line(told or "") for told in (url, tell("thumbnail", None), page_url))
    told = {name: one_line(tell(name, None) or "")[:LONGEST_TEXT] for name in ("query", "engine", "title", "license")}
    told["page_url"] = page_url if len(page_url) <= LONGEST_ADDRESS else ""  # cut, it would lead elsewhere
    return Gathered(label, _noted(url), b"", **told | {"license": told["license"] or "unknown"}), url, thumbnail


def _noted(url: str) -> str:
    """Return an address as it stands in the table: one too long to be asked for by its beginning and a hash."""
    return url if len(url) <= LONGEST_ADDRESS else f"{url[:LONGEST_TEXT]}…{content_id(url.encode())}"


def _unknown(
    pictures: Iterable[tuple[Gathered, str, str]], collection: _Collection
) -> Iterator[tuple[Gathered, str, str]]:
    """Yield the pictures that have no row yet, each address once, with their addresses."""
    seen: set[str] = set()
    for picture, address, thumbnail in pictures:
        if picture.url not in seen and not collection.has(picture.label, picture.url):
            seen.add(picture.url)
            yield picture, address, thumbnail


def sources_table(project: Project) -> pd.DataFrame:
    """Return what became of every address asked for: a row a label, a column a status."""
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    return _crosstab(Counter((row["label"], row["status"], "") for row in rows))


def reasons_table(project: Project) -> pd.DataFrame:
    """
    Return why addresses gave no picture of their own, most frequent first.

    A row a status and reason: how many addresses of all labels, and one of them to look at.
    """
    counts: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for row in each_row(project.table("sources"), SOURCES_COLUMNS):
        if row["reason"]:
            kind = row["status"], _kind(row["reason"])
            counts[kind] += 1
            example.setdefault(kind, row["url"])
    found = sorted(counts, key=lambda kind: (-counts[kind], kind))
    columns = ["status", "reason", "count", "example"]
    return pd.DataFrame([(*kind, counts[kind], example[kind]) for kind in found], columns=columns)
