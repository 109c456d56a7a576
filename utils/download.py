"""
Stage 01, second half: fetches pictures, or takes them from a folder or the sample, with a row for each.

Writes raw/<label>/<id>.<ext>, bytes as they came, named by their content, and sources.csv. The file is written
first and its row after it, so that a run killed at any moment is completed by the next one: what has a row is not
asked for again, what has none is. Fetches run on an event loop of their own, where a deadline is strict even
against a host that drips; one thread, the caller's, writes files and rows in the order of the results.
"""

import asyncio
import io
import ipaddress
import random
import socket
import sys
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from unicodedata import normalize
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

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
from utils.project import Project, safe_name

SOURCES_COLUMNS = (
    *("id", "label", "query", "engine", "url", "page_url", "title", "license", "status", "reason"),
    *("bytes", "width", "height", "fetched_at"),
)
LARGEST = 20_000_000  # bytes of one picture
BATCH = 16  # rows appended at once; a kill costs at most these, and they are done again
WINDOW = 4  # pictures under way for each worker; their bytes wait in memory for their turn
TRIES = 3  # of one address
FEW, MANY = 3, 8  # hosts in a row that can't be reached: at the end, and at any time, a reason to doubt the network
HOPS = 5  # redirects
PROBE = "https://duckduckgo.com/"  # asked when many hosts in a row can't be reached: is it them, or the network?
BUSY = (408, 425, 429)  # with 5xx, the answers worth asking again for
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; Fieldguide/1.0)",
    "Accept": "image/jpeg,image/png,image/*;q=0.9,*/*;q=0.5",
    "Accept-Encoding": "identity",  # pictures are compressed already; what inflates on arrival is a trap
}


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
        self._pending: list[dict[str, str]] = []
        self._files: dict[Path, set[str]] = {}
        self._pictures: Counter[Path] = Counter()

    def has(self, label: str, url: str) -> bool:
        """Return whether this address was asked for under this label before."""
        return (label, _plain(url)) in self.known

    def files(self, folder: Path) -> set[str]:
        """Return the ids of the files that lie in `folder`."""
        if folder not in self._files:
            remove_leftovers(folder)
            self._files[folder] = {path.stem for path in _visible(folder)}
            self._pictures[folder] = count_pictures(folder)
        return self._files[folder]

    def pictures(self, folder: Path) -> int:
        """Return how many distinct pictures lie in `folder`."""
        self.files(folder)
        return self._pictures[folder]

    def add(self, folder: Path, picture: Gathered, *, status: str = "kept", reason: str = "") -> str:
        """Write a picture, or note why there is none, and return the status its row got."""
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
                files.add(id)
                self._pictures[folder] += suffix != "bin"
        row = {name: getattr(picture, name) for name in ("label", "query", "engine", "url", "page_url", "title")}
        row |= facts | {"license": picture.license, "status": status, "reason": reason}
        row["fetched_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        row = {name: _plain(row[name]) for name in SOURCES_COLUMNS}
        self.known.add((row["label"], row["url"]))
        if status in ("kept", "thumbnail"):
            self.kept.add((row["label"], row["id"]))
        self._pending.append(row)
        if len(self._pending) >= BATCH:
            self.flush()
        return status

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


def count_pictures(folder: Path) -> int:
    """Return how many distinct files in `folder` have a known picture format; 02 judges which are good ones."""
    return len({path.stem for path in _visible(folder) if path.suffix not in (".bin", ".csv")})


def kept_count(project: Project, label: str) -> int:
    """Return how many distinct pictures of a label lie in raw/<label>."""
    return count_pictures(project.raw / label)


def save_pictures(project: Project, pictures: Iterable[Gathered], *, total: int | None = None) -> DownloadReport:
    """
    Write pictures to raw/<label>/ and a row for each to sources.csv; what has a row already is passed over.

    Bytes are kept as they came, also where they are no picture: 02 judges them.

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
            if not collection.has(picture.label, picture.url):
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
    """Turn the sample's pictures (records with name, label and data) into what `save_pictures` takes."""
    for picture in pictures:
        yield Gathered(
            label=picture.label,
            url=f"sample:{picture.name}",
            data=picture.data,
            engine="sample",
            title=picture.name,
            license="CC0-1.0 (drawn)",
        )


def folder_pictures(folder: str | Path, labels: Iterable[str], *, limit: int | None = None) -> Iterator[Gathered]:
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
        Distinct contents taken a label; the rest is left out.

    Raises
    ------
    FieldguideError
        If a label has no sub-folder, or an empty one; before anything is read.
    """
    folder = Path(folder).absolute()
    files = {label: _label_files(folder, label) for label in labels}
    for label, paths in files.items():
        contents: set[str] = set()
        for path in paths:
            if limit is not None and len(contents) >= limit:
                break
            data, problem = _file_bytes(path, folder)
            if not problem:
                contents.add(content_id(data))
            yield Gathered(label, path.as_uri(), data, engine="folder", title=path.name, problem=problem)


def _label_files(folder: Path, label: str) -> list[Path]:
    """Return the files of one label in a source folder, or say what is missing there."""
    if not folder.is_dir():
        raise FieldguideError(f"There is no folder {folder}. Correct source in the project file.")
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    own = [path for path in subfolders if normalize("NFC", path.name) == normalize("NFC", label)]
    own = [path for path in own if path.resolve().is_relative_to(folder.resolve())]
    if not own:
        there = ", ".join(repr(path.name) for path in subfolders) or "no folder at all"
        raise FieldguideError(
            f"There is no folder for the label {label!r} in {folder}; there is {there}. "
            "Rename that folder, or correct [labels] in the project file."
        )
    files = [path for subfolder in own for path in _visible(subfolder)]
    if not files:
        raise FieldguideError(f"The folder {own[0]} holds no files. Put photos of {label!r} straight into it.")
    return files


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
# Fetching: addresses
# ---------------------------------------------------------------------------------------------------------------

NAT64 = ipaddress.ip_network("64:ff9b::/96")
METADATA = (ipaddress.ip_address("168.63.129.16"),)  # a public address, but answered inside Azure; others are local


def is_private(address: str) -> bool:
    """
    Return whether an IP address is no public one: private, loopback, link-local, metadata, reserved, multicast.

    >>> is_private("169.254.169.254"), is_private("::ffff:10.0.0.1"), is_private("93.184.216.34")
    (True, True, False)
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            ip = inner
    return not ip.is_global or ip.is_multicast or ip in METADATA


def is_local_name(host: str) -> bool:
    """
    Return whether a host is private by its name alone, as it must be judged where a proxy resolves names.

    >>> [is_local_name(host) for host in ("localhost", "printer", "nas.local", "127.1", "[::1]", "example.org")]
    [True, True, True, True, True, False]
    """
    host = host.strip("[]").rstrip(".").lower()
    try:
        return is_private(host)
    except ValueError:
        pass
    try:
        return is_private(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1, 0x7f000001 and 2130706433 are one host
    except OSError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))


def repaired(url: str) -> str:
    """
    Return an address as it may have been before a search client unquoted it.

    >>> repaired("https://example.org/a+b.jpg?q=c+d")
    'https://example.org/a%20b.jpg?q=c%20d'
    """
    return url.replace("+", "%20").replace("#", "%23")


# ---------------------------------------------------------------------------------------------------------------
# Fetching: one picture
# ---------------------------------------------------------------------------------------------------------------


class _Failed(Exception):
    """An address gave no picture; the message is the reason."""

    def __init__(self, reason: str, *, status="failed", again=False, missing=False, offline=False, wait=0.0):
        super().__init__(reason)
        self.status = status  # "failed", or "refused" by our own rules
        self.again = again  # worth another try
        self.missing = missing  # a 404: the address may have been spoilt on its way here
        self.offline = offline  # nothing answered: it may be the network and not this host
        self.wait = wait  # seconds the host asked for


@dataclass(frozen=True)
class _Outcome:
    """What became of one result."""

    data: bytes = b""
    status: str = "kept"
    reason: str = ""
    offline: bool = False


@dataclass(frozen=True)
class _Rules:
    """What a fetch may do."""

    allowed_hosts: frozenset[str]
    deadline: float  # seconds for one address, its redirects and tries together
    workers: int
    per_host: int
    largest: int  # bytes
    honour_noai: bool


class _Fetcher:
    """Fetches pictures on one event loop, within `_Rules`."""

    def __init__(self, rules: _Rules):
        self.rules = rules
        self.jitter = random.Random()
        self.workers = asyncio.Semaphore(rules.workers)
        self.hosts = defaultdict(lambda: asyncio.Semaphore(rules.per_host))
        # Which way an address goes must be known here, not inside httpx: behind a proxy, the proxy resolves names.
        proxies = getproxies()
        self.proxied = {scheme: proxies.get(scheme) or proxies.get("all") for scheme in ("http", "https")}
        context = httpx.create_ssl_context()  # honours SSL_CERT_FILE
        settings = {"verify": context, "timeout": httpx.Timeout(10, pool=None), "headers": HEADERS, "trust_env": False}
        self.clients = {None: httpx.AsyncClient(**settings)}
        for proxy in {proxy for proxy in self.proxied.values() if proxy}:
            url = proxy if "://" in proxy else f"http://{proxy}"
            self.clients[proxy] = httpx.AsyncClient(proxy=url, **settings)

    async def close(self) -> None:
        for client in self.clients.values():
            await client.aclose()

    async def outcome(self, url: str, thumbnail: str) -> _Outcome:
        """Fetch a picture, or its thumbnail where that fails; never raises for what a host does."""
        async with self.workers:
            try:
                return _Outcome(await self._picture(url))
            except _Failed as failed:
                reason, offline = str(failed), failed.offline
                if failed.status == "refused" or not thumbnail or thumbnail == url:
                    return _Outcome(status=failed.status, reason=reason, offline=offline)
            try:
                return _Outcome(await self._picture(thumbnail), "thumbnail", reason)
            except _Failed as failed:
                return _Outcome(status="failed", reason=reason, offline=offline and failed.offline)

    async def online(self) -> bool:
        """Return whether the network is there at all."""
        try:
            await self._picture(PROBE)
        except _Failed as failed:
            return not failed.offline
        return True

    async def _picture(self, url: str) -> bytes:
        """Return the picture at `url`, with tries and redirects, within the deadline."""
        try:
            async with asyncio.timeout(self.rules.deadline) as clock:
                return await self._tries(url, clock)
        except TimeoutError:
            raise _Failed(f"not whole after {self.rules.deadline:g} s") from None

    async def _tries(self, url: str, clock: asyncio.Timeout) -> bytes:
        tries = TRIES
        while True:
            try:
                return await self._follow(url, clock)
            except _Failed as failed:
                if failed.missing and repaired(url) != url:
                    url = repaired(url)
                    continue
                tries -= 1
                wait = max(failed.wait, 0.5 * 2 ** (TRIES - tries - 1) * self.jitter.uniform(1, 1.5))
                if not failed.again or not tries or asyncio.get_running_loop().time() + wait > clock.when():
                    raise
            await asyncio.sleep(wait)

    async def _follow(self, url: str, clock: asyncio.Timeout) -> bytes:
        """Return the picture at `url`; every redirect is judged like a first address."""
        try:
            target = httpx.URL(url)
            for _ in range(HOPS + 1):
                proxy = await self._way(target)
                async with self._slot(target.host, clock):
                    answer = await self._get(target, proxy)
                if isinstance(answer, bytes):
                    return answer
                target = target.join(answer)
        except _Failed:
            raise
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise _Failed(f"not a valid address ({error})") from error
        except httpx.TimeoutException as error:
            offline = isinstance(error, httpx.ConnectTimeout)
            raise _Failed("no answer in time", again=True, offline=offline and self._strange(target)) from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            certificate = "CERTIFICATE" in str(error)
            offline = not certificate and self._strange(target)
            raise _Failed(f"no connection ({error})", again=not certificate, offline=offline) from error
        except httpx.HTTPError as error:
            if "location header" in str(error):  # httpx reads it even where it is told not to follow
                raise _Failed("redirects to no valid address") from error
            raise _Failed(f"broken off ({type(error).__name__})", again=True) from error
        except Exception as error:  # one strange address or answer must not cost all the other pictures
            raise _Failed(f"{type(error).__name__}: {error}") from error
        raise _Failed(f"more than {HOPS} redirects")

    def _strange(self, url: httpx.URL) -> bool:
        """Return whether a host was not named by the user: only these tell something about the network."""
        return url.host.lower() not in self.rules.allowed_hosts

    async def _way(self, url: httpx.URL) -> str | None:
        """Return the proxy for an address, None for the direct way; refuse what leads where it should not."""
        if url.scheme not in ("http", "https"):
            raise _Failed(f"{url.scheme or 'no'}: address, not http or https", status="refused")
        if not url.host:
            raise _Failed("an address without a host", status="refused")
        proxy = self.proxied[url.scheme]
        proxy = None if proxy and proxy_bypass(url.host) else proxy
        if not self._strange(url):
            return proxy
        if is_local_name(url.host):
            raise _Failed(f"private address {url.host}", status="refused")
        if not proxy:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.getaddrinfo(url.host, url.port or 0, type=socket.SOCK_STREAM)
            except OSError as error:
                again = getattr(error, "errno", None) == socket.EAI_AGAIN
                raise _Failed("no such host", again=again, offline=True) from error
            for *_, address in found:
                if is_private(address[0]):
                    raise _Failed(f"private address {address[0]} behind {url.host}", status="refused")
        return proxy

    @asynccontextmanager
    async def _slot(self, host: str, clock: asyncio.Timeout):
        """Hold one of a host's few connections; the deadline stands still while waiting for it."""
        loop = asyncio.get_running_loop()
        left = clock.when() - loop.time()
        clock.reschedule(None)
        async with self.hosts[host]:
            clock.reschedule(loop.time() + left)
            yield

    async def _get(self, url: httpx.URL, proxy: str | None) -> bytes | str:
        """Return the picture that an address holds, or where it redirects to."""
        async with self.clients[proxy].stream("GET", url) as response:
            if not proxy and self._strange(url):
                # The name may have led elsewhere this time than when it was judged.
                peer = response.extensions["network_stream"].get_extra_info("server_addr")
                if peer and is_private(peer[0]):
                    raise _Failed(f"private address {peer[0]} behind {url.host}", status="refused")
            if response.has_redirect_location:
                return response.headers["location"]
            if response.status_code != 200:
                busy = response.status_code in BUSY or response.status_code >= 500
                wait = response.headers.get("retry-after", "")
                raise _Failed(
                    f"HTTP {response.status_code}",
                    again=busy,
                    missing=response.status_code == 404,
                    wait=float(wait) if wait.isdecimal() else 0.0,
                )
            robots = response.headers.get("x-robots-tag", "").lower()
            if self.rules.honour_noai and ("noai" in robots or "noimageai" in robots):
                raise _Failed("the site asks not to be used for training (noai)", status="refused")
            data = await self._body(response)
            if extension(data) == "bin":
                kind = response.headers.get("content-type", "").split(";")[0].strip()[:60] or "no type given"
                raise _Failed(f"not a picture: {kind if data else 'empty'}")
            return data

    async def _body(self, response: httpx.Response) -> bytes:
        """Return a body, and stop at the first byte too many."""
        data = bytearray()
        told = response.headers.get("content-length", "")
        if not (told.isdecimal() and int(told) > self.rules.largest):
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > self.rules.largest:
                    break
            else:
                return bytes(data)
        raise _Failed(f"larger than {self.rules.largest / 1_000_000:g} MB")


# ---------------------------------------------------------------------------------------------------------------
# Fetching: all of them
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
    rules = _Rules(hosts, deadline, workers, per_host, largest, honour_noai)
    with _collecting(Path(sources)) as collection, tqdm(total=wanted, desc=label[:40], unit="picture") as bar:
        bar.update(collection.pictures(dest))
        if wanted is not None and bar.n >= wanted:
            return DownloadReport(collection.rows)
        pictures = _unknown((_gathered(result, label) for result in results), collection)
        with _running(rules) as (fetcher, start):
            window = max(workers, min(WINDOW * workers, (wanted or sys.maxsize) - bar.n))
            outcomes = _outcomes(pictures, fetcher, start, window=window)
            for picture, outcome in _believed(outcomes, lambda: start(fetcher.online()).result()):
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


def _unknown(pictures: Iterable[tuple[Gathered, str]], collection: _Collection) -> Iterator[tuple[Gathered, str]]:
    """Yield the pictures that have no row yet, each address once."""
    seen: set[str] = set()
    for picture, thumbnail in pictures:
        if picture.url not in seen and not collection.has(picture.label, picture.url):
            seen.add(picture.url)
            yield picture, thumbnail


@contextmanager
def _running(rules: _Rules) -> Iterator[tuple[_Fetcher, Callable]]:
    """
    Yield a fetcher and the function that starts its coroutines on a loop in another thread.

    Not the caller's own loop: in a notebook, that one is busy running the cell.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fetch", daemon=True)
    thread.start()
    fetcher = _Fetcher(rules)
    try:
        yield fetcher, lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop)
    finally:
        asyncio.run_coroutine_threadsafe(_wound_up(fetcher), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _wound_up(fetcher: _Fetcher) -> None:
    """Cancel what is still under way, and close the connections."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await fetcher.close()


def _outcomes(
    pictures: Iterator[tuple[Gathered, str]], fetcher: _Fetcher, start: Callable, *, window: int
) -> Iterator[tuple[Gathered, _Outcome]]:
    """Yield each picture with what became of it, in their own order, while the next ones are under way."""
    under_way: deque = deque()
    for picture, thumbnail in pictures:
        under_way.append((picture, start(fetcher.outcome(picture.url, thumbnail))))
        if len(under_way) >= window:
            picture, future = under_way.popleft()
            yield picture, future.result()
    while under_way:
        picture, future = under_way.popleft()
        yield picture, future.result()


def _believed(
    outcomes: Iterable[tuple[Gathered, _Outcome]], is_online: Callable[[], bool]
) -> Iterator[tuple[Gathered, _Outcome]]:
    """Pass outcomes on; hold hosts back that can't be reached until it is clear that the network is there."""
    unreached: list[tuple[Gathered, _Outcome]] = []
    for picture, outcome in outcomes:
        unreached.append((picture, outcome))
        if outcome.offline and _hosts(unreached) < MANY:
            continue
        if outcome.offline and not is_online():
            break
        yield from unreached
        unreached = []
    if _hosts(unreached) >= FEW and not is_online():
        raise FieldguideError(
            f"There seems to be no network: the last {len(unreached)} addresses could not be reached "
            f"({unreached[-1][1].reason}), nor could {PROBE}. Check the connection and run this cell again; "
            "everything fetched so far is kept."
        )
    yield from unreached


def _hosts(outcomes: list[tuple[Gathered, _Outcome]]) -> int:
    """Return how many different hosts these pictures are from."""
    return len({urlsplit(picture.url).netloc for picture, _ in outcomes})


def sources_table(project: Project) -> pd.DataFrame:
    """Return what became of every address asked for: a row a label, a column a status."""
    rows = pd.DataFrame(read_rows(project.table("sources"), SOURCES_COLUMNS), columns=list(SOURCES_COLUMNS))
    return pd.crosstab(rows.label, rows.status) if len(rows) else pd.DataFrame()
