"""
Fetching one picture, or many at a time, from a web that misbehaves: rules, deadline, redirects, tries, thumbnails.

`fetching` is the way in. Fetches run on an event loop of their own, where a deadline is strict even against a host
that drips; what became of each comes back in the order it was asked for. Nothing is written here.
"""

import asyncio
import os
import random
import re
import socket
import ssl
import threading
import time
import warnings
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from types import SimpleNamespace
from typing import TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from PIL import Image
from yarl import URL

from utils.addresses import RefusedAddress, host_name, is_local_name, is_private, parsed, spellings
from utils.errors import FieldguideError
from utils.pictures import MAX_PIXELS, header

LARGEST = 20_000_000  # bytes of one picture
WORKERS = 24  # fetches at a time; most of them wait for a host far away
HELD = 100_000_000  # bytes of pictures that wait for their turn, because one before them is slow
TRIES = 3  # of one address
PAUSE = 0.5  # seconds before the second try, at least; twice that before the third
TIMEOUTS = aiohttp.ClientTimeout(connect=10, sock_read=10)  # seconds in which something must happen
IDLE = 2  # seconds that a connection is kept for the next picture; most hosts have but one
LONGEST_HEADER = 32_768  # bytes
MANY = 8  # hosts in a row that can't be reached are a reason to doubt the network
LONG = 24  # addresses in a row, of however few hosts, are one too
HOPS = 5  # redirects
MOVED = (301, 302, 303, 307, 308)
PROBE = "https://duckduckgo.com/"  # asked when many hosts in a row can't be reached: is it them, or the network?
BUSY = (408, 425, 429)  # with 5xx, the answers worth asking again for
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; Fieldguide/1.0)",
    "Accept": "image/jpeg,image/png,image/*;q=0.9,*/*;q=0.5",
    "Accept-Encoding": "identity",  # pictures are compressed already; what inflates on arrival is a trap
}
NO_TRAINING = {"noai", "noimageai"}
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # rules with a colon

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """What a fetch may do."""

    allowed_hosts: frozenset[str] = frozenset()  # the only ones that may be private
    deadline: float = 30.0  # seconds for one address, its redirects and tries together
    workers: int = WORKERS  # fetches at a time
    per_host: int = 4  # of them to one host
    largest: int = LARGEST  # bytes
    honour_noai: bool = True  # leave out what a site does not want to be trained on


@dataclass(frozen=True)
class Outcome:
    """What became of one picture."""

    data: bytes = b""
    status: str = "kept"  # or "thumbnail" (in place of the picture), "failed", "refused" (by our own rules)
    reason: str = ""  # why it is not the picture
    unreached: str = ""  # its host, where nothing answered: it may be the network and not this host
    extension: str = ""  # without a dot; by what the picture is, not by how it was named
    width: int = 0  # pixels, as for `height`
    height: int = 0


@contextmanager
def fetching(
    addresses: Iterable[tuple[T, str, str]], rules: Rules, *, window: int = 32
) -> Iterator[Iterator[tuple[T, Outcome]]]:
    """
    Yield an iterator over pictures and what became of them; leaving the context drops what is still under way.

    Parameters
    ----------
    addresses : iterable of (anything, address, address of the thumbnail or "")
        Pulled no further ahead than `window`. What it raises is raised here, after the outcomes of all before.
    rules : Rules
    window : int
        Pictures under way or waiting for their turn, at most.

    Raises
    ------
    FieldguideError
        If the proxy or the certificates set for this machine cannot be used. While iterating, if there is no
        network; what could not be reached is then not among the outcomes.
    """
    with warnings.catch_warnings(), _running(rules) as (fetcher, start):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a picture too large ends in its own reason
        trouble: list[Exception] = []
        addresses = _until_trouble(addresses, trouble)
        outcomes = _outcomes(addresses, lambda url, small: start(fetcher.outcome(url, small)), window=window)
        yield _then_raise(_believed(outcomes, lambda: start(fetcher.online()).result()), trouble)


# ---------------------------------------------------------------------------------------------------------------
# Headers and bodies
# ---------------------------------------------------------------------------------------------------------------


def seconds_asked(retry_after: str) -> float:
    """
    Return how long a Retry-After header asks to wait, in seconds or until a date; 0 where it says nothing sensible.

    >>> seconds_asked("120"), seconds_asked("Thu, 01 Jan 1970 00:00:00 GMT"), seconds_asked("soon"), seconds_asked("-5")
    (120.0, 0.0, 0.0, 0.0)
    """
    if (seconds := retry_after.strip()).isdecimal():
        return float(seconds)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except Exception:  # the parser raises what it likes on hostile text
        return 0.0


def forbids_training(robots: Iterable[str]) -> bool:
    """
    Return whether X-Robots-Tag headers ask all, or us by name, not to train on the picture.

    A rule behind the name of a bot is for that bot alone, up to the end of the header or the next name.

    >>> forbids_training(["noindex, noai"]), forbids_training(["otherbot: noindex, noai"])
    (True, False)
    >>> forbids_training(["otherbot: noai, *: noimageai"]), forbids_training(["nofollow", "Fieldguide: noai"])
    (True, True)
    """
    for rules in robots:
        bot = "*"
        for rule in rules.lower().split(","):
            name, colon, rest = (part.strip() for part in rule.partition(":"))
            if colon and name not in VALUED and re.fullmatch(r"\*|[a-z][\w.+-]*", name):
                bot, rule = name, rest
            if bot in ("*", "fieldguide") and NO_TRAINING & set(re.split(r"[\s;]+", rule)):
                return True
    return False


def _inflated(data: bytes, largest: int) -> bytes:
    """Return a gzip or deflate body as it was, or fail where it has more than `largest` bytes; never hold many more."""
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # with either header; some hosts send deflate without any
        inflater = zlib.decompressobj(bits)
        try:
            whole = inflater.decompress(data, largest + 1)
        except zlib.error:
            continue
        if len(whole) > largest:
            raise _too_large(largest)
        if inflater.eof:
            return whole
    raise _Failed("a compressed body that cannot be read")


def _too_large(largest: int) -> "_Failed":
    return _Failed(f"larger than {largest / 1_000_000:g} MB")


def _picture_in(data: bytes, kind: str) -> Outcome:
    """Return the picture that `data` is by its header, of no more pixels than may be opened; nothing is decoded."""
    try:
        extension, width, height = header(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _Failed(f"too many pixels: far more than {MAX_PIXELS // 1_000_000} million") from error
    except Exception as error:  # Pillow's parsers raise what they like on hostile bytes
        raise _Failed(f"not a picture: {kind if data else 'empty'}") from error
    if width * height > MAX_PIXELS:
        raise _Failed(f"too many pixels: {width}×{height}, more than {MAX_PIXELS // 1_000_000} million")
    return Outcome(data, extension=extension, width=width, height=height)


# ---------------------------------------------------------------------------------------------------------------
# One picture
# ---------------------------------------------------------------------------------------------------------------


class _Failed(Exception):
    """An address gave no picture; the message is the reason."""

    def __init__(self, reason: str, *, status="failed", again=False, missing=False, offline=False, wait=0.0):
        super().__init__(reason[:200])  # hosts write into it
        self.status = status  # "failed", or "refused" by our own rules
        self.again = again  # worth another try
        self.missing = missing  # a 404: the address may have been spoilt on its way here
        self.offline = offline  # nothing answered: it may be the network and not this host
        self.wait = wait  # seconds the host asked for


class _PublicNames(aiohttp.ThreadedResolver):
    """Resolves names to what is then connected to; refuses those that lead to a private address."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list:
        found = await super().resolve(host, port, family)
        for address in found:
            if is_private(address["host"]):
                raise RefusedAddress(f"private address {address['host']} behind {host}")
        return found


class _Fetcher:
    """Fetches pictures on one event loop, within `Rules`."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.allowed = frozenset(map(host_name, rules.allowed_hosts))
        self.jitter = random.Random()
        self.workers = asyncio.Semaphore(rules.workers)
        self.hosts = defaultdict(lambda: asyncio.Semaphore(rules.per_host))
        # Which way an address goes must be known here, not inside aiohttp: behind a proxy, the proxy resolves names.
        self.proxies, self.certificates = _proxies(), _certificates()

    async def open(self) -> None:
        """Make ready, on the loop."""
        # Each keeps its own names and connections, so that nothing unjudged comes to a host nobody vouches for.
        self.to_strangers = _session(self.certificates, _PublicNames())
        self.as_told = _session(self.certificates, aiohttp.ThreadedResolver())  # to proxies, and hosts that are allowed

    async def outcome(self, url: str, thumbnail: str) -> Outcome:
        """Fetch a picture, or its thumbnail where that fails; never raises for what a host does."""
        try:
            return await self._picture(url)
        except _Failed as failed:
            first, offline = failed, failed.offline
        if first.status != "refused" and thumbnail not in ("", url):
            try:
                return replace(await self._picture(thumbnail), status="thumbnail", reason=str(first))
            except _Failed as second:
                offline = offline and second.offline
        # A host that the user named, such as one at home, tells nothing about the network.
        unreached = host_name(urlsplit(url).hostname) if offline else ""
        return Outcome(b"", first.status, str(first), "" if unreached in self.allowed else unreached)

    async def online(self) -> bool:
        """Return whether the network is there at all."""
        try:
            await self._picture(PROBE)
        except _Failed as failed:
            return not failed.offline
        return True

    async def _picture(self, url: str) -> Outcome:
        """Return the picture at `url`, with tries and redirects, within the deadline."""
        try:
            async with asyncio.timeout(self.rules.deadline) as clock:
                return await self._tries(url, clock)
        except TimeoutError:
            # A dead network hangs more often than it says so, in asking for a name as in connecting.
            raise _Failed(f"not whole after {self.rules.deadline:g} s", offline=True) from None

    async def _tries(self, url: str, clock: asyncio.Timeout) -> Outcome:
        urls = [url, *spellings(url)]
        tried = 0
        while True:
            try:
                return await self._follow(urls[0], clock)
            except _Failed as failed:
                if failed.missing and urls[1:]:
                    del urls[0]
                    continue
                wait = max(failed.wait, PAUSE * 2**tried * self.jitter.uniform(1, 1.5))
                tried += 1
                if not failed.again or tried == TRIES or asyncio.get_running_loop().time() + wait > clock.when():
                    raise
            await asyncio.sleep(wait)

    async def _follow(self, address: str, clock: asyncio.Timeout) -> Outcome:
        """Return the picture at `address`; every redirect is judged like a first address."""
        proxy = None
        try:
            url = parsed(address)
            for _ in range(HOPS + 1):
                session, proxy = self._way(url)
                async with self._slot(url.raw_host, clock):
                    answer = await self._get(url, session, proxy)
                if isinstance(answer, Outcome):
                    return answer
                url = _joined(url, answer)
        except _Failed:
            raise
        except RefusedAddress as error:
            raise _Failed(str(error), status="refused") from error
        except aiohttp.ServerTimeoutError as error:
            offline = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise _Failed("no answer in time", offline=offline) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error, aiohttp.ClientConnectorDNSError) and not proxy:
                raise _Failed("no such host", again=error.os_error.errno == socket.EAI_AGAIN, offline=True) from error
            reached = isinstance(error, aiohttp.ClientSSLError)  # such as with a certificate nobody vouches for
            raise _Failed(f"no connection ({error.__cause__})", again=not reached, offline=not reached) from error
        except aiohttp.ClientHttpProxyError as error:
            raise _Failed(f"no connection ({error.status} {error.message})", again=True, offline=True) from error
        except ValueError as error:  # also aiohttp's
            raise _Failed(f"not a valid address ({error})") from error
        except aiohttp.ClientError as error:  # which one depends on how the bytes were cut on their way
            raise _Failed("broken off", again=True) from error
        except Exception as error:  # one strange address or answer must not cost all the other pictures
            raise _Failed(f"{type(error).__name__}: {error}") from error
        raise _Failed(f"more than {HOPS} redirects")

    def _way(self, url: URL) -> tuple[aiohttp.ClientSession, URL | None]:
        """Return what carries an address there, and by which proxy; refuse what leads where it should not."""
        host = url.raw_host  # as it is asked for: never judge another spelling than is used
        proxy = self.proxies.get(url.scheme)
        if proxy and any(proxy_bypass(name) for name in (host, url.raw_authority)):
            proxy = None
        if host_name(host) in self.allowed:
            return self.as_told, proxy
        if is_local_name(host):
            raise RefusedAddress(f"private address {host}")
        return self.as_told if proxy else self.to_strangers, proxy

    @asynccontextmanager
    async def _slot(self, host: str, clock: asyncio.Timeout):
        """Hold one of a host's few connections, and then of all; the deadline stands still while waiting for them."""
        loop = asyncio.get_running_loop()
        left = clock.when() - loop.time()
        clock.reschedule(None)
        async with self.hosts[host], self.workers:  # in this order: a slow host's queue takes nobody's turn
            clock.reschedule(loop.time() + left)
            yield

    async def _get(self, url: URL, session: aiohttp.ClientSession, proxy: URL | None) -> Outcome | str:
        """Return the picture that an address holds, or where it redirects to."""
        kept: list[bool] = []  # not empty where the connection was used before
        options = {"proxy": proxy, "trace_request_ctx": kept, "middlewares": [partial(_asked, kept)]}
        async with session.get(url, allow_redirects=False, **options) as response:
            headers = response.headers
            if response.status in MOVED and "Location" in headers:
                return headers["Location"]
            if response.status != 200:
                raise _Failed(
                    f"HTTP {response.status}",
                    again=response.status in BUSY or response.status >= 500,
                    missing=response.status == 404,
                    wait=seconds_asked(headers.get("Retry-After", "")),
                )
            if self.rules.honour_noai and forbids_training(headers.getall("X-Robots-Tag", [])):
                raise _Failed("the site asks not to be used for training (noai)", status="refused")
            data = await self._body(response)
        encoding = headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            data = _inflated(data, self.rules.largest)
        kind = headers.get("Content-Type", "").split(";")[0].strip()[:60] or "no type given"
        return _picture_in(data, kind if encoding in ("", "identity") else f"{kind}, compressed as {encoding[:20]}")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """Return a body as it comes, and stop at the first byte too many."""
        parts, room = [], self.rules.largest
        if (response.content_length or 0) > room:
            raise _too_large(self.rules.largest)
        if response.connection:  # there is more to come
            response.connection.protocol.closed.add_done_callback(partial(_end, response.content))
        async for part in response.content.iter_any():
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise _too_large(self.rules.largest)
        return b"".join(parts)


def _end(body: aiohttp.StreamReader, connection: asyncio.Future) -> None:
    """End a body with its connection; where a chunk is out of form, aiohttp leaves the reader waiting for ever."""
    if not connection.cancelled() and connection.exception() is None and not body.is_eof():
        body.set_exception(aiohttp.ClientPayloadError())


async def _asked(
    kept: list[bool], request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Return the answer to a request; where a kept connection was closed meanwhile, ask anew: that is no failure."""
    while True:
        kept.clear()
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not kept:  # aiohttp alone would ask once more here too, uncounted
                raise _Failed("broken off", again=True) from error


async def _note_kept(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    """Note that a request goes over a kept connection."""
    context.trace_request_ctx.append(True)


def _session(certificates: ssl.SSLContext, resolver: aiohttp.abc.AbstractResolver) -> aiohttp.ClientSession:
    """Return what sends our headers and nothing else, and hands over what comes as it came."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_kept)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=certificates, resolver=resolver, limit=0, keepalive_timeout=IDLE),
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # no password out of ~/.netrc; proxies are ours to choose
        auto_decompress=False,
        timeout=TIMEOUTS,
        max_field_size=LONGEST_HEADER,
        trace_configs=[trace],
    )


def _certificates() -> ssl.SSLContext:
    """Return whom to trust: the authorities that the machine is set to, else those that browsers trust."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except OSError as error:  # also what is wrong inside the file
        raise FieldguideError(
            f"The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {error}. Correct or unset it."
        ) from error


def _proxies() -> dict[str, URL]:
    """Return the proxies that the machine is set to, for http and https."""
    proxies, settings = {}, getproxies()
    for scheme in ("http", "https"):
        if setting := settings.get(scheme) or settings.get("all"):
            try:
                proxies[scheme] = proxy = URL(setting if "://" in setting else f"http://{setting}")
            except ValueError:  # whose words might hold the password
                proxy = URL()
            if proxy.scheme.startswith("socks"):
                raise FieldguideError(
                    f"The proxy at {proxy.host!r} is a SOCKS proxy, which cannot be used here. "
                    "Set HTTP_PROXY and HTTPS_PROXY to one that begins with http://."
                )
            if proxy.scheme not in ("http", "https") or not proxy.host:
                raise FieldguideError(
                    f"The proxy set for this machine cannot be used for {scheme}: it is none of the form "
                    "http://host:port. Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY."
                )
    return proxies


def _joined(url: URL, location: str) -> URL:
    """Return where a redirect leads."""
    try:
        return parsed(urljoin(str(url), location))
    except ValueError as error:
        raise _Failed("redirects to no valid address") from error


# ---------------------------------------------------------------------------------------------------------------
# Many, on a loop of their own
# ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _running(rules: Rules) -> Iterator[tuple[_Fetcher, Callable]]:
    """
    Yield a fetcher and the function that starts its coroutines on a loop in another thread.

    Not the caller's own loop: in a notebook, that one is busy running the cell.
    """
    fetcher = _Fetcher(rules)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(4 * rules.workers))  # names that hang must not hold up the others
    thread = threading.Thread(target=loop.run_forever, name="fetch", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fetcher.open(), loop).result()
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
    for session in (fetcher.to_strangers, fetcher.as_told):
        await session.close()


def _until_trouble(addresses: Iterable[T], trouble: list[Exception]) -> Iterator[T]:
    """Pass addresses on; where their source fails half-way, end there and note why."""
    try:
        yield from addresses
    except Exception as error:
        trouble.append(error)


def _then_raise(outcomes: Iterable[T], trouble: list[Exception]) -> Iterator[T]:
    """Pass outcomes on; then raise what has been noted meanwhile."""
    yield from outcomes
    if trouble:
        raise trouble[0]


def _outcomes(addresses: Iterable[tuple[T, str, str]], start: Callable, *, window: int) -> Iterator[tuple[T, Outcome]]:
    """Yield what became of each picture, in their order, while the next ones are under way."""
    under_way: deque = deque()
    for item, url, thumbnail in addresses:
        under_way.append((item, start(url, thumbnail)))
        while len(under_way) >= window or sum(len(f.result().data) for _, f in under_way if f.done()) > HELD:
            item, future = under_way.popleft()
            yield item, future.result()
    for item, future in under_way:
        yield item, future.result()


def _believed(outcomes: Iterable[tuple[T, Outcome]], is_online: Callable[[], bool]) -> Iterator[tuple[T, Outcome]]:
    """Pass outcomes on; hold hosts back that can't be reached until it is clear that the network is there."""
    held: list[tuple[T, Outcome]] = []
    hosts: set[str] = set()
    for item, outcome in outcomes:
        held.append((item, outcome))
        hosts |= {outcome.unreached} - {""}
        if hosts and (outcome.unreached or outcome.status == "refused"):  # what our rules refuse tells nothing
            if len(hosts) < MANY and len(held) < LONG:
                continue
            _require_network(held, is_online)
        yield from held
        held, hosts = [], set()
    _require_network(held, is_online)
    yield from held


def _require_network(held: list[tuple[T, Outcome]], is_online: Callable[[], bool]) -> None:
    """Raise a `FieldguideError` if something is held back and there is no network."""
    if held and not is_online():
        dead = [outcome.reason for _, outcome in held if outcome.unreached]
        raise FieldguideError(
            f"There seems to be no network: the last {len(dead)} addresses could not be reached "
            f"({dead[-1]}), nor could {PROBE}. Check the connection and run this cell again; "
            "everything fetched so far is kept."
        )
