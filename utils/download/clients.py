"""
Stage 01, first half: ask DuckDuckGo for pictures. Writes nothing; `collect` fetches what is found here.

Two clients of one author ask the same service with different headers, so it may accept one and refuse the other.
`ddgs` goes first, `duckduckgo_search` second; whichever is accepted goes first from then on. Both lose much of what the
service says (see `_Watch`). So their requests are watched, to tell apart a refusal (`SearchRefused`), a network that
does not answer (`SearchUnreachable`) and a search that finds nothing (no results).
"""

import json
import logging
import os
import random
import re
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from itertools import islice
from typing import get_args

import ddgs
import duckduckgo_search
import primp
from ddgs.exceptions import DDGSException
from duckduckgo_search.exceptions import DuckDuckGoSearchException
from tqdm.auto import tqdm

from utils.addresses import web_host
from utils.download.answers import seconds_asked
from utils.errors import FieldguideError
from utils.project import LONGEST_SEARCH
from utils.sections import REGION, Filters
from utils.words import counted

PAGE, LAST_PAGE = 100, 30  # rows of a page at most, as ddgs takes them; pages of a search: the service ends far earlier
ATTEMPTS = 3  # rounds through both clients before giving up on a page
LONGEST_WAIT = 60.0  # seconds; for a longer Retry-After the person waits, not the notebook
TIMEOUT = 20  # seconds for each of the two requests of a page
FILTERS = {name: get_args(choices) for name, choices in Filters.__annotations__.items() if name != "region"}
MISREAD = (TypeError, LookupError, ValueError, AttributeError)  # what both clients raise on answers they don't expect
logger = logging.getLogger(__name__)
FAILURES = (DDGSException, DuckDuckGoSearchException, primp.PrimpError, *MISREAD)  # primp's are not always wrapped


@dataclass(frozen=True)
class ImageResult:
    """One picture that the search named: where it is and what is known of it. Sizes in pixels; 0 is unknown."""

    url: str
    page_url: str = ""
    title: str = ""
    thumbnail: str = ""
    width: int = 0
    height: int = 0
    license: str = "unknown"  # the licence that was searched for; "unknown" does not mean free to use
    query: str = ""
    engine: str = ""


class SearchUnfinished(FieldguideError):
    """A search that broke off; `results` holds what had been found before."""

    def __init__(self, message: str, results: Iterable[ImageResult] = ()):
        super().__init__(message)
        self.results = list(results)


class SearchRefused(SearchUnfinished):
    """The service refused to answer: too many searches from this address for now."""


class SearchUnreachable(SearchUnfinished):
    """The service could not be reached: there is no network, or it does not let searches through."""


class _Trouble(Exception):
    """The reason why a page did not come."""

    def __init__(self, why: str, *, refused: bool, wait: float = 0.0):
        super().__init__(why)
        self.refused, self.wait = refused, wait  # wait: seconds that the service asked for


def stream_images(
    query: str | Iterable[str],
    *,
    safesearch: str = "moderate",
    region: str = "wt-wt",
    license: str | None = None,
    size: str | None = None,
    type: str | None = None,
    pause: float = 1.0,
) -> Iterator[ImageResult]:
    """
    Ask DuckDuckGo for pictures and yield them one by one, each URL once, best first.

    Several searches take turns: the first page of each, then the second page of each, and so on. A page is asked for
    when the one before it is used up, so whoever stops early costs the service nothing more.
    Results without an address are passed over, and the log says how many.

    The call raises FieldguideError for a search that is empty or too long, or an unknown filter. Streaming raises
    SearchRefused or SearchUnreachable after it has yielded what it found.

    Parameters
    ----------
    query : str or iterable of str
        What to look for, in any script; at most 499 characters each.
    safesearch : {"on", "moderate", "off"}
        For pictures, the service treats "on" and "moderate" alike.
    region : str
        Country and language, such as "uk-en"; "wt-wt" is the whole world.
    license : {"any", "Public", "Share", "ShareCommercially", "Modify", "ModifyCommercially"}, optional
        Only pictures that the service believes to have this licence. Each result notes it.
    size : {"Small", "Medium", "Large", "Wallpaper"}, optional
    type : {"photo", "clipart", "gif", "transparent", "line"}, optional
    pause : float
        Seconds between two pages, varied a little. Waits after a refusal begin with twice that, and double.
    """
    searches = [query] if isinstance(query, str) else list(query)
    _check(searches, pause, region)
    for name, value in {"safesearch": safesearch, "license": license, "size": size, "type": type}.items():
        if value not in FILTERS[name] and (value is not None or name == "safesearch"):
            raise FieldguideError(f"{name} = {value!r} does not exist. Choose one of {', '.join(FILTERS[name])}.")
    options = {"region": region, "safesearch": safesearch, "size": size, "type_image": type, "license_image": license}
    return _stream(searches, options, pause)


def search_images(query: str | Iterable[str], *, max_results: int = 150, **options) -> list[ImageResult]:
    """Return the first `max_results` of `stream_images`, which explains the options, and show a bar meanwhile."""
    if max_results < 1:
        raise FieldguideError(f"max_results is {max_results}. Ask for at least 1 picture.")
    return list(tqdm(islice(stream_images(query, **options), max_results), total=max_results, unit="result"))


def _check(searches: list[str], pause: float, region: str) -> None:
    """Refuse what the service would refuse or silently ignore."""
    if not searches or any(not isinstance(search, str) or not search.strip() for search in searches):
        raise FieldguideError("An empty search finds nothing. Write what to look for, such as 'tilapia in water'.")
    if len(longest := max(searches, key=len)) > LONGEST_SEARCH:
        raise FieldguideError(
            f"The search {longest[:40]!r}… has {len(longest)} characters; DuckDuckGo takes at most {LONGEST_SEARCH}. "
            "Shorten it."
        )
    if not pause >= 0:
        raise FieldguideError(f"pause is {pause}. Give the seconds between two pages, 0 or more.")
    if not re.fullmatch(REGION, str(region)):
        raise FieldguideError(
            f"region = {region!r} does not exist. Write a country and a language, such as 'uk-en', or 'wt-wt' for all."
        )


def _stream(searches: list[str], options: dict, pause: float) -> Iterator[ImageResult]:
    """Yield what `stream_images` promises."""
    clients = both_clients()
    given: dict[str, set[str]] = {search: set() for search in searches}  # the URLs of each search that goes on
    found: dict[str, ImageResult] = {}
    unusable: set[str] = set()  # rows without an address; past its end, the service sends them again
    for number in range(1, LAST_PAGE + 1):
        for search in list(given):
            if number > 1 or search != searches[0]:
                time.sleep(pause * random.Random().uniform(1, 1.5))
            try:
                engine, rows = _page(clients, search, number, options, pause)
            except _Trouble as trouble:
                raise _unfinished(search, trouble, list(found.values())) from trouble
            if without := _without_address(rows) - unusable:
                few = f"{counted(len(without), 'result')} of {len(rows)}"
                logger.warning(f"Search {search!r}, page {number}: {few} without a web address, passed over.")
                unusable |= without
            results = _results(rows, query=search, engine=engine, license=options["license_image"] or "unknown")
            if results.keys() <= given[search]:  # nothing new: past its end, the service repeats itself
                del given[search]
                continue
            given[search] |= results.keys()
            for url in [url for url in results if url not in found]:
                found[url] = results[url]
                yield results[url]


def _page(clients: list["Client"], search: str, number: int, options: dict, pause: float) -> tuple[str, list]:
    """Return the name of the client that was accepted, which goes first from then on, and its rows."""
    for attempt in range(1, ATTEMPTS + 1):
        troubles: list[_Trouble] = []
        for client in list(clients):
            try:
                rows = client.page(search, number, options)
            except _Trouble as trouble:
                troubles.append(trouble)
            else:
                clients.remove(client)
                clients.insert(0, client)
                return client.name, rows
        if attempt < ATTEMPTS:
            told = min(max(trouble.wait for trouble in troubles), LONGEST_WAIT)
            seconds = max(told, pause * 2**attempt * random.Random().uniform(1, 1.5))
            words = f"DuckDuckGo: {troubles[-1]}; asked again in {seconds:.0f} s"
            with tqdm(bar_format="{desc}", desc=words, leave=False, disable=seconds < 1):
                time.sleep(seconds)
    why = "; ".join(dict.fromkeys(map(str, troubles)))
    # If one client was refused, it did reach the service: there is a network.
    raise _Trouble(why, refused=any(trouble.refused for trouble in troubles))


def _unfinished(search: str, trouble: _Trouble, results: list[ImageResult]) -> SearchUnfinished:
    """Return the error for a search that broke off, with what to do."""
    name = repr(search if len(search) <= 60 else f"{search[:60]}…")
    so_far = f"{len(results)} results found before it are kept" if results else "nothing had been found yet"
    if trouble.refused:
        kind, what = SearchRefused, f"DuckDuckGo refused the search {name}"
        do = "It does so after many searches from one address: wait some minutes"
    else:
        kind, what = SearchUnreachable, f"DuckDuckGo could not be reached for the search {name}"
        do = "Check the network connection (behind a proxy: DDGS_PROXY, and PRIMP_CA_BUNDLE for its certificate)"
    return kind(f"{what} ({trouble}); {so_far}. {do} and run this cell again.", results)


class _Watch:
    """
    Stands between a client and the `primp.Client` that carries its requests, and keeps the rows as they were sent.

    The clients lose much of them. ddgs raises "No results found." for a refusal as for an empty page, leaves rows out
    and sorts the others. Both clients unquote URLs, so that ``%20``, ``%23`` and ``%2F`` no longer lead to the picture.
    One title that is null costs ddgs the whole page; one that is missing, the other. Neither looks at Retry-After.
    """

    def __init__(self):
        self.carrier: primp.Client | None = None  # None: this version of the client keeps it elsewhere
        self.forget()

    def forget(self, start: int = 0) -> None:
        """Make ready for the page that begins with row number `start`."""
        self.start = start
        self.status: int | None = None  # HTTP status of the last answer; None if there was none
        self.wait = 0.0  # seconds, from Retry-After
        self.rows: list | None = None  # None if no page of results came

    def __getattr__(self, name: str):
        return getattr(self.carrier, name)

    def request(self, method: str, url: str, **options):
        if url.endswith("/i.js") and self.start:
            options["params"] = {**options["params"], "s": str(self.start)}
        self.status = None
        response = self.carrier.request(method, url, **options)
        body = response.content  # raises if it was cut off
        told = {name.lower(): value for name, value in response.headers.items()}
        self.wait = seconds_asked(told.get("retry-after", ""), told.get("date", ""))
        self.status = response.status_code
        if url.endswith("/i.js") and self.status == 200:
            self.rows = _rows(body)
        return response


@dataclass
class Client:
    """One way to ask the service."""

    name: str
    make: Callable  # returns the client
    holder: Callable  # returns what keeps the carrier of a client's requests as its `client`
    asking: Callable[[int], dict]  # returns how the client is asked for a page of this number

    def __post_init__(self):
        self.watch, self.inner = _Watch(), None

    def page(self, search: str, number: int, options: dict) -> list:
        """Return the rows of a page as the service sent them, [] past the end; raise `_Trouble` if none came."""
        self.watch.forget(PAGE * (number - 1))
        rows, failure = None, None
        given = {name: value for name, value in options.items() if value}
        with warnings.catch_warnings(record=True):  # one client announces its new name, and opens all filters for it
            try:
                self.inner = self.inner or self.connect()
                rows = self.inner.images(search, max_results=None, **self.asking(number), **given)
            except FAILURES as error:
                failure = error
        if self.watch.rows is not None:
            return self.watch.rows
        if failure is None:  # not watched, and answered
            return rows
        raise self.trouble(failure) from failure

    def connect(self):
        """Return the client, watched if it still keeps its carrier where we look for it."""
        client = self.make(timeout=TIMEOUT)
        with suppress(*MISREAD):  # otherwise the client's own reading of the rows must do
            holder = self.holder(client)
            holder.client, self.watch.carrier = self.watch, holder.client
        return client

    def trouble(self, failure: Exception) -> _Trouble:
        """Return what kept the client from a page, in words."""
        status, network = self.watch.status, _network_error(failure)
        if status is None and network:
            return _Trouble(_reason(network), refused=False)
        if status is None:
            return _Trouble(textwrap.shorten(str(failure), 90, placeholder=" …"), refused=True)
        why = f"HTTP {status}" if status != 200 else "something other than results, such as a captcha"
        return _Trouble(why, refused=True, wait=self.watch.wait)


def both_clients() -> list[Client]:
    """Return the two clients, in the order in which they are tried."""
    return [
        # Without a backend by name, ddgs mixes in others that ignore the filters.
        Client(
            "ddgs",
            ddgs.DDGS,
            lambda client: client._get_engines("images", "duckduckgo")[0].http_client,
            lambda number: {"backend": "duckduckgo", "page": number},
        ),
        # By itself it asks for all pages at once, and loses them all if one fails; the watch asks for one. Not watched,
        # it gives the first page again, which ends the search.
        Client("duckduckgo_search", duckduckgo_search.DDGS, lambda client: client, lambda number: {}),
    ]


def _network_error(error: BaseException | None) -> primp.PrimpError | None:
    """Return the network's error inside a client's: both wrap primp's, ddgs in its arguments."""
    while isinstance(error, BaseException):
        if isinstance(error, primp.PrimpError):
            return error
        inner = error.args[0] if error.args else None
        error = error.__cause__ or (inner if isinstance(inner, BaseException) else None)
    return None


def _reason(error: primp.PrimpError) -> str:
    """Return what went wrong in the network, without the inner state that primp adds."""
    if isinstance(error, primp.TimeoutError):
        return f"no answer in {TIMEOUT} seconds"
    if isinstance(error, primp.DNSError):
        return "no address known for the host's name"
    if isinstance(error, (primp.BodyError, primp.DecodeError)):
        return "the answer broke off"
    told = str(error.args[0] if error.args else error).partition(" (after an earlier failure")[0].partition("\n")[0]
    told = textwrap.shorten(re.split(" > | error: ", told)[-1], 90, placeholder=" …") or "no connection"
    if isinstance(error, primp.BuilderError) and "DDGS_PROXY" in os.environ:
        return f"DDGS_PROXY is no proxy's address: {told}"  # which is not shown: it may hold a password
    return told


def _rows(body: bytes) -> list | None:
    """
    Return the rows of a page as they came, [] if it has none, None if it is something else.

    >>> _rows(b'{"results": [1]}'), _rows(b'{"results": null}'), _rows(b"<html>are you a robot?</html>")
    ([1], [], None)
    """
    try:
        page = json.loads(body)
    except ValueError:
        return None
    rows = (page.get("results") or []) if isinstance(page, Mapping) else None
    return rows if isinstance(rows, list) else None


def _results(rows: Iterable, **told: str) -> dict[str, ImageResult]:
    """Return the usable rows of a page, URL → result; those `_without_address` are passed over."""
    results: dict[str, ImageResult] = {}
    for row in rows:
        url = _address(row.get("image")) if isinstance(row, Mapping) else ""
        if url and url not in results:
            results[url] = ImageResult(
                url=url,
                page_url=_address(row.get("url")),
                title=unescape(_utf8(row.get("title"))),
                thumbnail=_address(row.get("thumbnail")),
                width=_side(row.get("width")),
                height=_side(row.get("height")),
                **told,
            )
    return results


def _without_address(rows: Iterable) -> set[str]:
    """Return the rows of a page that lead to no picture, as text."""
    return {repr(row) for row in rows if not (isinstance(row, Mapping) and _address(row.get("image")))}


def _address(value) -> str:
    """Return `value` if it is an http or https address with a host, else ""."""
    return text if web_host(text := _utf8(value)) else ""


def _utf8(value) -> str:
    """Return a text that can be stored as UTF-8; "" for anything else."""
    return value.encode("utf-8", "replace").decode("utf-8").strip() if isinstance(value, str) else ""


def _side(value) -> int:
    """Return a size in pixels; 0 if it is not a number."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
