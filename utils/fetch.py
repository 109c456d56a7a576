"""
Fetching one picture, or many at a time, from a web that misbehaves: rules, deadline, redirects, tries, thumbnails.

`fetching` is the way in. Fetches run on an event loop of their own, where a deadline is strict even against a host
that drips; what became of each comes back in the order it was asked for. Nothing is written here.
"""

import asyncio
import ipaddress
import random
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from utils.files import FieldguideError
from utils.pictures import extension

LARGEST = 20_000_000  # bytes of one picture
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
NAT64 = ipaddress.ip_network("64:ff9b::/96")
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
    rules : Rules
    window : int
        Pictures under way or waiting for their turn, at most.

    Raises
    ------
    FieldguideError
        While iterating, if there is no network; what could not be reached is then not among the outcomes.
    """
    with _running(rules) as (fetcher, start):
        outcomes = _outcomes(addresses, lambda url, small: start(fetcher.outcome(url, small)), window=window)
        yield _believed(outcomes, lambda: start(fetcher.online()).result())


# ---------------------------------------------------------------------------------------------------------------
# Addresses
# ---------------------------------------------------------------------------------------------------------------


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
# One picture
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


class _Fetcher:
    """Fetches pictures on one event loop, within `Rules`."""

    def __init__(self, rules: Rules):
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
        tried = 0
        while True:
            try:
                return await self._follow(url, clock)
            except _Failed as failed:
                if failed.missing and repaired(url) != url:
                    url = repaired(url)
                    continue
                wait = max(failed.wait, 0.5 * 2**tried * self.jitter.uniform(1, 1.5))
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
                target = target.join(answer)
        except _Failed:
            raise
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise _Failed(f"not a valid address ({error})") from error
        except httpx.TimeoutException as error:
            raise _Failed("no answer in time", again=True, offline=isinstance(error, httpx.ConnectTimeout)) from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            reached = "CERTIFICATE" in str(error)
            raise _Failed(f"no connection ({error})", again=not reached, offline=not reached) from error
        except httpx.HTTPError as error:
            if "location header" in str(error):  # httpx reads it even where it is told not to follow
                raise _Failed("redirects to no valid address") from error
            raise _Failed(f"broken off ({type(error).__name__})", again=True) from error
        except Exception as error:  # one strange address or answer must not cost all the other pictures
            raise _Failed(f"{type(error).__name__}: {error}") from error
        raise _Failed(f"more than {HOPS} redirects")

    def _strange(self, url: httpx.URL) -> bool:
        """Return whether a host was not named by the user."""
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
# Many, on a loop of their own
# ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _running(rules: Rules) -> Iterator[tuple[_Fetcher, Callable]]:
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
