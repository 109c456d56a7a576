"""
One picture from a web that misbehaves: rules, deadline, redirects, tries, thumbnails.

`queue` runs many at a time. The deadline holds even against a host that sends one byte after another. Writes nothing.
"""

import asyncio
import os
import random
import socket
import ssl
from collections import defaultdict
from collections.abc import Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from yarl import URL

from utils.addresses import RefusedAddress, host_and_ports, host_name, is_local_name, is_private, parsed, spellings
from utils.download.answers import Fetched, NoPicture, forbids_training, inflated, picture_in, seconds_asked, too_large
from utils.errors import FieldguideError

LARGEST_FILE = 20_000_000  # bytes of one picture
CONNECTIONS = 24  # fetches at a time; most of them wait for a host far away
TRIES = 3  # per address
PAUSE = 0.5  # seconds before the second try, at least; twice that before the third
TIMEOUTS = aiohttp.ClientTimeout(connect=10, sock_read=10)  # seconds in which something must happen
IDLE = 2  # seconds that a connection is kept for the next picture; most hosts have only one
LONGEST_HEADER = 32_768  # bytes
HOPS = 5  # redirects
PLACEHOLDER = "photo_unavailable"  # in the address that Flickr redirects to in place of a photo that is gone
REDIRECTS = (301, 302, 303, 307, 308)
PROBE = "https://duckduckgo.com/"  # asked when many hosts in a row fail: is it them, or the network?
BUSY = (408, 425, 429)  # beside 5xx, the answers worth another try
HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; Fieldguide/1.0)",
    "Accept": "image/jpeg,image/png,image/*;q=0.9,*/*;q=0.5",
    "Accept-Encoding": "identity",  # pictures are compressed already, and a compressed body may be a trap
}


@dataclass(frozen=True)
class Rules:
    """What a fetch may do. HTTP_PROXY, NO_PROXY and SSL_CERT_FILE of the machine count too."""

    # A host, or several, that may be private, such as "nas.local" (ports 80 and 443) or "nas.local:8080".
    allowed_hosts: str | Iterable[str] = ()
    deadline: float = 30.0  # seconds per address, redirects and tries included
    workers: int = CONNECTIONS  # fetches at a time
    per_host: int = 4  # of them to one host
    largest: int = LARGEST_FILE  # bytes
    honour_noai: bool = True  # leave out pictures whose site says "noai" or "noimageai" in X-Robots-Tag


class _PublicNames(aiohttp.ThreadedResolver):
    """Resolves names, and refuses those that lead to a private address. What it returns is what is connected to."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list:
        found = await super().resolve(host, port, family)
        for address in found:
            if is_private(address["host"]):
                raise RefusedAddress(f"private address {address['host']} behind {host}")
        return found


class Fetcher:
    """Fetches pictures on one event loop, within `Rules`."""

    def __init__(self, rules: Rules):
        self.rules = rules
        hosts = [rules.allowed_hosts] if isinstance(rules.allowed_hosts, str) else rules.allowed_hosts
        self.allowed = _allowed(hosts)
        self.jitter = random.Random()
        self.workers = asyncio.Semaphore(rules.workers)
        self.hosts = defaultdict(lambda: asyncio.Semaphore(rules.per_host))
        # We choose the proxy, not aiohttp: behind one, the proxy resolves names, and they are judged another way.
        self.proxies, self.certificates = _proxies(), _certificates()

    async def open(self) -> None:
        """Make ready, on the loop."""
        # Two sessions share no names and connections, so a stranger never gets one that was not judged.
        self.to_strangers = _http_session(self.certificates, _PublicNames())
        self.to_allowed = _http_session(self.certificates, aiohttp.ThreadedResolver())  # allowed hosts, and proxies

    async def close(self) -> None:
        """Cancel what is still under way, and close the connections."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self.to_strangers.close()
        await self.to_allowed.close()

    async def fetched(self, url: str, thumbnail: str) -> Fetched:
        """Fetch a picture, or its thumbnail if that fails. Whatever a host does, it raises nothing."""
        try:
            return await self._picture(url)
        except NoPicture as failed:
            first, offline = failed, failed.offline
        if first.status != "refused" and thumbnail not in ("", url):
            try:
                return replace(await self._picture(thumbnail), status="thumbnail", reason=str(first))
            except NoPicture as second:
                offline = offline and second.offline
        # A host that the user allowed, such as one at home, tells nothing about the network.
        unreached = offline and host_name(urlsplit(url).hostname) not in dict(self.allowed)
        return Fetched(b"", first.status, str(first), unreached, first.passing)

    async def online(self) -> bool:
        """Return whether the network is there at all."""
        try:
            await self._picture(PROBE)
        except NoPicture as failed:
            return not failed.offline
        return True

    async def _picture(self, url: str) -> Fetched:
        """Return the picture at `url`, with tries and redirects, within the deadline."""
        try:
            async with asyncio.timeout(self.rules.deadline) as clock:
                return await self._tries(url, clock)
        except TimeoutError:
            # A dead network mostly hangs, while a name is looked up or a connection is made.
            raise NoPicture(f"not whole after {self.rules.deadline:g} s", offline=True) from None

    async def _tries(self, url: str, clock: asyncio.Timeout) -> Fetched:
        """Return the picture at `url`; try again after a pause where that is worth it and time is left."""
        urls = [url, *spellings(url)]
        tried = 0
        while True:
            try:
                return await self._follow(urls[0], clock)
            except NoPicture as failed:
                if failed.missing and urls[1:]:
                    del urls[0]
                    continue
                wait = max(failed.wait, PAUSE * 2**tried * self.jitter.uniform(1, 1.5))
                tried += 1
                if not failed.again or tried == TRIES or asyncio.get_running_loop().time() + wait > clock.when():
                    raise
            await asyncio.sleep(wait)

    async def _follow(self, address: str, clock: asyncio.Timeout) -> Fetched:
        """Return the picture at `address`; every redirect is judged like a first address."""
        proxy = url = None
        try:
            url = parsed(address)
            for _ in range(HOPS + 1):
                session, proxy = self._way(url)
                async with self._slot(url.raw_host, clock):
                    answer = await self._get(url, session, proxy)
                if isinstance(answer, Fetched):
                    return answer
                if PLACEHOLDER in answer:
                    raise NoPicture("gone: the site redirects to a placeholder")
                url = _joined(url, answer)
        except NoPicture:
            raise
        except RefusedAddress as error:
            raise NoPicture(f"{error}{self._other_port(url)}", status="refused") from error
        except aiohttp.ServerTimeoutError as error:
            offline = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise NoPicture("no answer in time", offline=offline, late=True) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error, aiohttp.ClientConnectorDNSError) and not proxy:
                raise NoPicture("no such host", again=error.os_error.errno == socket.EAI_AGAIN, offline=True) from error
            reached = isinstance(error, aiohttp.ClientSSLError)  # but it showed no valid certificate
            raise NoPicture(f"no connection ({error.__cause__})", again=not reached, offline=not reached) from error
        except aiohttp.ClientHttpProxyError as error:
            raise NoPicture(f"no connection ({error.status} {error.message})", again=True, offline=True) from error
        except ValueError as error:  # also aiohttp's
            raise NoPicture(f"not a valid address ({error})") from error
        except aiohttp.ClientError as error:  # which kind depends on where the bytes were cut
            raise NoPicture("broken off", again=True) from error
        except Exception as error:  # one strange answer must not cost the other pictures
            raise NoPicture(f"{type(error).__name__}: {error}") from error
        raise NoPicture(f"more than {HOPS} redirects")

    def _way(self, url: URL) -> tuple[aiohttp.ClientSession, URL | None]:
        """Return the session and the proxy for an address, or refuse it."""
        host = url.raw_host  # judge the very spelling that is asked for
        proxy = self.proxies.get(url.scheme)
        if proxy and any(proxy_bypass(name) for name in (host, url.raw_authority)):
            proxy = None
        if (host_name(host), url.port) in self.allowed:
            return self.to_allowed, proxy
        if is_local_name(host):
            raise RefusedAddress(f"private address {host}")
        return self.to_allowed if proxy else self.to_strangers, proxy

    def _other_port(self, url: URL | None) -> str:
        """Return what to say of a refused address whose host is allowed, but for another port; "" for any other."""
        host = host_name(url.raw_host) if url else ""
        ports = sorted(port for name, port in self.allowed if name == host)
        if not ports or url.port in ports:
            return ""
        return f" (allowed_hosts has port {' and '.join(map(str, ports))} of it; for this one, add {host}:{url.port})"

    @asynccontextmanager
    async def _slot(self, host: str, clock: asyncio.Timeout):
        """Hold one of the host's connections and one of all. The deadline stands still while waiting for them."""
        loop = asyncio.get_running_loop()
        left = clock.when() - loop.time()
        clock.reschedule(None)
        async with self.hosts[host], self.workers:  # in this order: who waits for a slow host takes nobody's place
            clock.reschedule(loop.time() + left)
            yield

    async def _get(self, url: URL, session: aiohttp.ClientSession, proxy: URL | None) -> Fetched | str:
        """Return the picture that an address holds, or where it redirects to."""
        async with session.get(url, allow_redirects=False, proxy=proxy) as response:
            headers = response.headers
            if response.status in REDIRECTS and "Location" in headers:
                return headers["Location"]
            if response.status != 200:
                raise NoPicture(
                    f"HTTP {response.status}",
                    again=response.status in BUSY or response.status >= 500,
                    missing=response.status == 404,
                    wait=seconds_asked(headers.get("Retry-After", ""), headers.get("Date", "")),
                )
            if self.rules.honour_noai and forbids_training(headers.getall("X-Robots-Tag", [])):
                raise NoPicture("the site asks not to be used for training (noai)", status="refused")
            data = await self._body(response)
        encoding = headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            data = inflated(data, self.rules.largest)
        kind = headers.get("Content-Type", "").split(";")[0].strip()[:60] or "no type given"
        return picture_in(data, kind if encoding in ("", "identity") else f"{kind}, compressed as {encoding[:20]}")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of a response; stop at the first byte too many."""
        parts, room = [], self.rules.largest
        if (response.content_length or 0) > room:
            raise too_large(self.rules.largest)
        if response.connection:  # there is more to come
            response.connection.protocol.closed.add_done_callback(partial(_end, response.content))
        async for part in response.content.iter_any():
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise too_large(self.rules.largest)
        return b"".join(parts)


def _end(body: aiohttp.StreamReader, connection: asyncio.Future) -> None:
    """End a body with its connection: after a malformed chunk, aiohttp lets the reader wait for ever."""
    if not connection.cancelled() and connection.exception() is None and not body.is_eof():
        body.set_exception(aiohttp.ClientPayloadError())


def _allowed(hosts: Iterable[str]) -> frozenset[tuple[str, int]]:
    """Return the hosts that may be private, each with each of its ports."""
    try:
        return frozenset((host, port) for host, ports in map(host_and_ports, hosts) for port in ports)
    except ValueError as error:
        raise FieldguideError(f"allowed_hosts: {error}.") from error


def _http_session(certificates: ssl.SSLContext, resolver: aiohttp.abc.AbstractResolver) -> aiohttp.ClientSession:
    """Return a session that sends our headers and nothing else, and hands over bodies as they came."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=certificates, resolver=resolver, limit=0, keepalive_timeout=IDLE),
        headers=HEADERS,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # no password from ~/.netrc, and no proxy but ours
        auto_decompress=False,
        timeout=TIMEOUTS,
        max_field_size=LONGEST_HEADER,
    )


def _certificates() -> ssl.SSLContext:
    """Return the authorities that this machine is set to trust, else those that browsers trust."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except OSError as error:  # also for errors inside the file
        raise FieldguideError(
            f"The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {error}. Correct or unset it."
        ) from error


def _proxies() -> dict[str, URL]:
    """Return the proxies set for this machine, for http and https."""
    proxies, settings = {}, getproxies()
    for scheme in ("http", "https"):
        if setting := settings.get(scheme) or settings.get("all"):
            try:
                proxies[scheme] = proxy = URL(setting if "://" in setting else f"http://{setting}")
            except ValueError:  # its message might hold the password
                proxy = URL()
            if proxy.scheme not in ("http", "https") or not proxy.host:
                raise FieldguideError(
                    f"The proxy set for this machine, {proxy.host or ''!r}, cannot be used for {scheme}: it has not "
                    "the form http://host:port. Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY; SOCKS is not known here."
                )
    return proxies


def _joined(url: URL, location: str) -> URL:
    """Return where a redirect leads."""
    try:
        return parsed(urljoin(str(url), location))
    except ValueError as error:
        raise NoPicture("redirects to no valid address") from error
