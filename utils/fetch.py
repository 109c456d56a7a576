"""
Fetching one picture, or many at a time, from a web that misbehaves: rules, deadline, redirects, tries, thumbnails.

`fetching` is the way in. Fetches run on an event loop of their own, where a deadline is strict even against a host
that drips; what became of each comes back in the order it was asked for. Nothing is written here.
"""

import asyncio
import io
import ipaddress
import random
import re
import socket
import threading
import time
import warnings
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx
from PIL import Image

from utils.files import FieldguideError
from utils.pictures import FORMATS, MAX_PIXELS

LARGEST = 20_000_000  # bytes of one picture
TRIES = 3  # of one address
PAUSE = 0.5  # seconds before the second try, at least; twice that before the third
TIMEOUTS = {"connect": 10, "read": 10, "write": 10, "pool": None}  # seconds in which something must happen
FEW, MANY = 3, 8  # hosts in a row that can't be reached: at the end, and at any time, a reason to doubt the network
HOPS = 5  # redirects
PROBE = "https://duckduckgo.com/"  # asked when many hosts in a row can't be reached: is it them, or the network?
BUSY = (408, 425, 429)  # with 5xx, the answers worth asking again for
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; Fieldguide/1.0)",
    "Accept": "image/jpeg,image/png,image/*;q=0.9,*/*;q=0.5",
    "Accept-Encoding": "identity",  # pictures are compressed already; what inflates on arrival is a trap
}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
PUBLIC_6 = ipaddress.ip_network("2000::/3")  # no other IPv6 address is anybody's in public
LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".intranet", ".home.arpa")
NO_TRAINING = {"noai", "noimageai"}
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # rules with a colon
METADATA = (ipaddress.ip_address("168.63.129.16"),)  # a public address, but answered inside Azure; others are local

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """What a fetch may do."""

    allowed_hosts: frozenset[str] = frozenset()  # in lower case; the only ones that may be private
    deadline: float = 30.0  # seconds for one address, its redirects and tries together
    workers: int = 8  # fetches at a time
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
# Addresses
# ---------------------------------------------------------------------------------------------------------------


def is_private(address: str) -> bool:
    """
    Return whether an IP address is no public one: private, loopback, link-local, metadata, reserved, multicast.

    >>> is_private("169.254.169.254"), is_private("::ffff:10.0.0.1"), is_private("93.184.216.34")
    (True, True, False)
    >>> is_private("64:ff9b::7f00:1"), is_private("64:ff9b::5db8:d822")  # a net of IPv6 alone speaks to IPv4 like this
    (True, False)
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if not inner and ip not in PUBLIC_6:
            return True
        ip = inner or ip
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
        return "." not in host or host.endswith(LOCAL_NAMES)


def spellings(url: str) -> list[str]:
    """
    Return an address as it may have been before a search client unquoted it.

    >>> spellings("https://example.org/a+b.jpg?q=c+d"), spellings("https://example.org/a.jpg")
    (['https://example.org/a%20b.jpg?q=c%20d'], [])
    >>> spellings("https://example.org/a%20b.jpg")
    ['https://example.org/a+b.jpg']
    """
    others = (url.replace("+", "%20").replace("#", "%23"), url.replace("%20", "+"))
    return [other for other in dict.fromkeys(others) if other != url]


# ---------------------------------------------------------------------------------------------------------------
# Headers and bodies
# ---------------------------------------------------------------------------------------------------------------


def seconds_asked(retry_after: str) -> float:
    """
    Return how long a Retry-After header asks to wait, in seconds or until a date; 0 where it says nothing sensible.

    >>> seconds_asked("120"), seconds_asked("Thu, 01 Jan 1970 00:00:00 GMT"), seconds_asked("soon"), seconds_asked("-5")
    (120.0, 0.0, 0.0, 0.0)
    """
    if retry_after.strip().isdecimal():
        return float(retry_after)
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
    for header in robots:
        bot = "*"
        for rule in header.lower().split(","):
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


def _refuse_unless_picture(data: bytes, kind: str) -> None:
    """Fail unless `data` begins like a picture, of no more pixels than may be opened; nothing is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _Failed(f"too many pixels: far more than {MAX_PIXELS // 1_000_000} million") from error
    except Exception as error:  # Pillow's parsers raise what they like on hostile bytes
        raise _Failed(f"not a picture: {kind if data else 'empty'}") from error
    if width * height > MAX_PIXELS:
        raise _Failed(f"too many pixels: {width}×{height}, more than {MAX_PIXELS // 1_000_000} million")


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


class _Fetcher:
    """Fetches pictures on one event loop, within `Rules`."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.jitter = random.Random()
        self.workers = asyncio.Semaphore(rules.workers)
        self.hosts = defaultdict(lambda: asyncio.Semaphore(rules.per_host))
        self.public: set[str] = set()  # hosts that were resolved and judged
        # Which way an address goes must be known here, not inside httpx: behind a proxy, the proxy resolves names.
        proxies = getproxies()
        self.proxied = {scheme: proxies.get(scheme) or proxies.get("all") for scheme in ("http", "https")}
        # Bare transports, not a client: that keeps cookies, sends passwords and reads redirects on its own.
        self.ways = _ways({None, *self.proxied.values()} - {""}, httpx.Limits(max_keepalive_connections=20))

    async def close(self) -> None:
        for transport in self.ways.values():
            await transport.aclose()

    async def outcome(self, url: str, thumbnail: str) -> Outcome:
        """Fetch a picture, or its thumbnail where that fails; never raises for what a host does."""
        async with self.workers:
            try:
                return Outcome(await self._picture(url))
            except _Failed as failed:
                first, offline = failed, failed.offline
            if first.status != "refused" and thumbnail not in ("", url):
                try:
                    return Outcome(await self._picture(thumbnail), "thumbnail", str(first))
                except _Failed as second:
                    offline = offline and second.offline
        # A host that the user named, such as one at home, tells nothing about the network.
        unreached = httpx.URL(url).host.lower() if offline else ""
        return Outcome(b"", first.status, str(first), "" if unreached in self.rules.allowed_hosts else unreached)

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
            # A dead network hangs more often than it says so, in asking for a name as in connecting.
            raise _Failed(f"not whole after {self.rules.deadline:g} s", offline=True) from None

    async def _tries(self, url: str, clock: asyncio.Timeout) -> bytes:
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
                target = _joined(target, answer)
        except _Failed:
            raise
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise _Failed(f"not a valid address ({error})") from error
        except httpx.TimeoutException as error:
            raise _Failed("no answer in time", again=True, offline=isinstance(error, httpx.ConnectTimeout)) from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            reached = "[SSL" in str(error)  # something answered, such as with a certificate nobody vouches for
            raise _Failed(f"no connection ({error})", again=not reached, offline=not reached) from error
        except httpx.HTTPError as error:
            raise _Failed(f"broken off ({type(error).__name__})", again=True) from error
        except Exception as error:  # one strange address or answer must not cost all the other pictures
            raise _Failed(f"{type(error).__name__}: {error}") from error
        raise _Failed(f"more than {HOPS} redirects")

    def _strange(self, url: httpx.URL) -> bool:
        """Return whether a host was not named by the user."""
        return url.host.rstrip(".").lower() not in self.rules.allowed_hosts

    async def _way(self, url: httpx.URL) -> str | None:
        """Return the proxy for an address, None for the direct way; refuse what leads where it should not."""
        if url.scheme not in ("http", "https"):
            raise _Failed(f"{url.scheme or 'no'}: address, not http or https", status="refused")
        host = url.raw_host.decode("ascii")  # as it is asked for: never judge another spelling than is used
        port = 80 if url.port is None else url.port  # which of the usual ones does not matter here
        if not host or "%" in host or not 0 < port < 65536:
            raise _Failed("an address without a valid host and port", status="refused")
        proxy = self.proxied[url.scheme]
        if proxy and any(proxy_bypass(name) for name in (host, url.netloc.decode("ascii"))):
            proxy = None
        if not self._strange(url):
            return proxy
        if is_local_name(host):
            raise _Failed(f"private address {host}", status="refused")
        if not proxy and host not in self.public:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                again = getattr(error, "errno", None) == socket.EAI_AGAIN
                raise _Failed("no such host", again=again, offline=True) from error
            for *_, address in found:
                _refuse_private(address[0], host)
            self.public.add(host)
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
        extensions = {"timeout": TIMEOUTS}
        if not proxy and self._strange(url):
            extensions["trace"] = partial(_refuse_private_peer, url.host)
        request = httpx.Request("GET", url, headers=HEADERS, extensions=extensions)
        response = await self.ways[proxy].handle_async_request(request)
        try:
            if response.has_redirect_location:
                return response.headers["location"]
            if response.status_code != 200:
                raise _Failed(
                    f"HTTP {response.status_code}",
                    again=response.status_code in BUSY or response.status_code >= 500,
                    missing=response.status_code == 404,
                    wait=seconds_asked(response.headers.get("retry-after", "")),
                )
            if self.rules.honour_noai and forbids_training(response.headers.get_list("x-robots-tag")):
                raise _Failed("the site asks not to be used for training (noai)", status="refused")
            data = await self._body(response)
        finally:
            await response.aclose()
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            data = _inflated(data, self.rules.largest)
        kind = response.headers.get("content-type", "").split(";")[0].strip()[:60] or "no type given"
        _refuse_unless_picture(data, kind if encoding in ("", "identity") else f"{kind}, compressed as {encoding[:20]}")
        return data

    async def _body(self, response: httpx.Response) -> bytes:
        """Return a body as it comes, and stop at the first byte too many."""
        data = bytearray()
        told = response.headers.get("content-length", "")
        if not (told.isdecimal() and int(told) > self.rules.largest):
            async for chunk in response.stream:
                data += chunk
                if len(data) > self.rules.largest:
                    break
            else:
                return bytes(data)
        raise _too_large(self.rules.largest)


def _ways(proxies: Iterable[str | None], limits: httpx.Limits) -> dict[str | None, httpx.AsyncHTTPTransport]:
    """Return what carries requests to each proxy and, for None, directly."""
    try:
        context = httpx.create_ssl_context()  # honours SSL_CERT_FILE
    except OSError as error:  # also what is wrong inside the file
        raise FieldguideError(
            f"The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {error}. Correct or unset it."
        ) from error
    ways = {}
    for proxy in proxies:
        try:
            through = proxy and httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")
            if through and through.url.scheme == "https":
                through.ssl_context = context
            ways[proxy] = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, proxy=through)
        except ImportError as error:
            raise FieldguideError(
                f"The proxy at {through.url.host!r} is a SOCKS proxy, which needs one more package. Run "
                "`pip install httpx[socks]`, or set HTTP_PROXY and HTTPS_PROXY to one that begins with http://."
            ) from error
        except (ValueError, httpx.InvalidURL) as error:
            raise FieldguideError(
                f"The proxy set for this machine cannot be used: {error}. Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY."
            ) from error
    return ways


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    """Return where a redirect leads."""
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise _Failed("redirects to no valid address") from error


def _refuse_private(address: str, host: str) -> None:
    if is_private(address):
        raise _Failed(f"private address {address} behind {host}", status="refused")


async def _refuse_private_peer(host: str, event: str, info: dict) -> None:
    """Judge whom a new connection reached, before a byte is sent: the name may lead elsewhere than when resolved."""
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        try:
            _refuse_private(stream.get_extra_info("server_addr")[0], host)
        except BaseException:
            await stream.aclose()
            raise


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
        if len(under_way) >= window:
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
        if outcome.unreached:
            hosts.add(outcome.unreached)
            if len(hosts) < MANY:
                continue
            if not is_online():
                break
        yield from held
        held, hosts = [], set()
    if len(hosts) >= FEW and not is_online():
        raise FieldguideError(
            f"There seems to be no network: the last {len(held)} addresses could not be reached "
            f"({held[-1][1].reason}), nor could {PROBE}. Check the connection and run this cell again; "
            "everything fetched so far is kept."
        )
    yield from held
