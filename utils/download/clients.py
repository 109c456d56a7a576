"""
Stage 01, first half: asks DuckDuckGo for pictures. Writes nothing; `download` fetches what is found here.

Two clients of one author ask the same service with different headers, so one may be let in where the other is
refused: `ddgs` goes first, `duckduckgo_search` second, and whoever was let in goes first from then on. Both throw away
much of what the service says (see `_Watch`). Their requests are watched, so that a refusal (raised as `SearchRefused`),
no network (`SearchUnreachable`) and truly nothing found (no results) are told apart again.
"""

import json
import os
import random
import re
import textwrap
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape
from typing import get_args

import ddgs
import duckduckgo_search
import primp
from ddgs.exceptions import DDGSException
from duckduckgo_search.exceptions import DuckDuckGoSearchException
from tqdm.auto import tqdm

from utils.addresses import web_host
from utils.errors import FieldguideError
from utils.project import LONGEST_SEARCH, REGION, Filters

PAGE = 100  # rows, at most; ddgs counts on it
LAST_PAGE = 30  # of a search; the service itself ends far earlier
ATTEMPTS = 3  # rounds through both clients before giving up on a page
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is the person's to wait for, not the notebook's
TIMEOUT = 20  # seconds for each of the two requests of a page
CHOICES = {name: get_args(choices) for name, choices in Filters.__annotations__.items() if name != "region"}
MISREAD = (TypeError, LookupError, ValueError, AttributeError)  # of both clients, at an answer of unexpected shape
FAILURES = (DDGSException, DuckDuckGoSearchException, primp.PrimpError, *MISREAD)  # primp's are not always wrapped


@dataclass(frozen=True)
class ImageResult:
    """One picture that the search named: where it is and what is known about it. Sizes in pixels, 0 = not told."""

    url: str
    page_url: str = ""
    title: str = ""
    thumbnail: str = ""
    width: int = 0
    height: int = 0
    license: str = "unknown"  # the filter that was asked; without one nothing is known, least of all that it is free
    query: str = ""
    engine: str = ""


class SearchUnfinished(FieldguideError):
    """A search that broke off; `results` holds what had been found before."""

    def __init__(self, message: str, results: Iterable[ImageResult] = ()):
        super().__init__(message)
        self.results = list(results)


class SearchRefused(SearchUnfinished):
    """The service would not answer: too many searches from this address for now."""


class SearchUnreachable(SearchUnfinished):
    """The service could not be reached: no network, or one that does not let this through."""


class _Trouble(Exception):
    """A page that could not be had."""

    def __init__(self, why: str, *, refused: bool, wait: float = 0.0):
        super().__init__(why)
        self.refused, self.wait = refused, wait  # wait: seconds, as the service told


def stream_images(
    query: str | Iterable[str],
    *,
    max_results: int | None = None,
    safesearch: str = "moderate",
    region: str = "wt-wt",
    license: str | None = None,
    size: str | None = None,
    type: str | None = None,
    pause: float = 1.0,
) -> Iterator[ImageResult]:
    """
    Ask DuckDuckGo for pictures and yield them as they are wanted, each URL once, best first.

    The pages of several searches are taken in turn: the first of each, then the second of each, and so on. A page is
    asked for when the one before it is used up, so a consumer that stops costs the service nothing more.

    Parameters
    ----------
    query : str or iterable of str
        What to look for, in any script; at most 499 characters each.
    max_results : int, optional
        Stop after so many URLs. Without it the stream goes on until every search has ended.
    safesearch : {"on", "moderate", "off"}
        For pictures the service makes no difference between "on" and "moderate".
    region : str
        Country and language such as "uk-en"; "wt-wt" is the whole world.
    license : {"any", "Public", "Share", "ShareCommercially", "Modify", "ModifyCommercially"}, optional
        Only pictures that the service believes to be under such a licence. Recorded with each result as asked.
    size : {"Small", "Medium", "Large", "Wallpaper"}, optional
    type : {"photo", "clipart", "gif", "transparent", "line"}, optional
    pause : float
        Seconds between two pages, varied a little; waits after a refusal grow from twice that.

    Raises
    ------
    SearchRefused
        While streaming, if both clients were refused, again and again; `results` holds what had been yielded before.
    SearchUnreachable
        While streaming, if neither client could reach the service; it has `results` too.
    FieldguideError
        At the call, if a search is empty or too long, or a filter does not exist.
    """
    searches = _searches(query)
    _check(searches, max_results, pause, region)
    _check_choices({"safesearch": safesearch, "license": license, "size": size, "type": type})
    options = {"region": region, "safesearch": safesearch, "size": size, "type_image": type, "license_image": license}
    return _stream(searches, max_results, options, pause)


def search_images(
    query: str | Iterable[str],
    *,
    max_results: int = 150,
    safesearch: str = "moderate",
    region: str = "wt-wt",
    license: str | None = None,
    size: str | None = None,
    type: str | None = None,
    pause: float = 1.0,
) -> list[ImageResult]:
    """Return the first `max_results` of `stream_images`, which explains the options, and show a bar meanwhile."""
    searches = _searches(query)
    filters = {"safesearch": safesearch, "region": region, "license": license, "size": size, "type": type}
    stream = stream_images(searches, max_results=max_results, pause=pause, **filters)
    return list(tqdm(stream, total=max_results, desc=searches[0][:40], unit="result"))


def _searches(query: str | Iterable[str]) -> list[str]:
    """Return one or several searches as a list."""
    return [query] if isinstance(query, str) else list(query)


def _check(searches: list[str], max_results: int | None, pause: float, region: str) -> None:
    """Refuse what the service would refuse, or would silently ignore."""
    if not searches or any(not isinstance(search, str) or not search.strip() for search in searches):
        raise FieldguideError("An empty search finds nothing. Write what to look for, such as 'tilapia in water'.")
    for search in searches:
        if len(search) > LONGEST_SEARCH:
            raise FieldguideError(
                f"The search {search[:40]!r}… has {len(search)} characters; DuckDuckGo takes at most {LONGEST_SEARCH}. "
                "Shorten it."
            )
    if max_results is not None and max_results < 1:
        raise FieldguideError(f"max_results is {max_results}. Ask for at least 1 picture.")
    if not pause >= 0:
        raise FieldguideError(f"pause is {pause}. Give the seconds between two pages, 0 or more.")
    if not re.fullmatch(REGION, str(region)):
        raise FieldguideError(
            f"region = {region!r} does not exist. Write a country and a language, such as 'uk-en', or 'wt-wt' for all."
        )


def _check_choices(filters: Mapping[str, str | None]) -> None:
    """Refuse the value of a filter that the service would silently ignore."""
    for name, value in filters.items():
        if value not in CHOICES[name] and (value is not None or name == "safesearch"):
            raise FieldguideError(f"{name} = {value!r} does not exist. Choose one of {', '.join(CHOICES[name])}.")


def _stream(searches: list[str], max_results: int | None, options: dict, pause: float) -> Iterator[ImageResult]:
    """Yield what `stream_images` promises."""
    clients: list[_Client] = [_Ddgs(), _DuckDuckGoSearch()]
    given: dict[str, set[str]] = {search: set() for search in searches}  # the URLs of each search that goes on
    found: dict[str, ImageResult] = {}
    for number in range(1, LAST_PAGE + 1):
        for search in list(given):
            if number > 1 or search != searches[0]:
                time.sleep(pause * random.Random().uniform(1, 1.5))
            try:
                engine, rows = _page(clients, search, number, options, pause)
            except _Trouble as trouble:
                raise _unfinished(search, trouble, list(found.values())) from trouble
            results = _results(rows, query=search, engine=engine, license=options["license_image"] or "unknown")
            if results.keys() <= given[search]:  # empty, or a repetition: the service repeats itself past its end
                del given[search]
                continue
            given[search] |= results.keys()
            for url in [url for url in results if url not in found]:
                found[url] = results[url]
                yield results[url]
                if len(found) == max_results:
                    return


def _page(clients: list["_Client"], search: str, number: int, options: dict, pause: float) -> tuple[str, list]:
    """Return the name of the client that was let in, which goes first from then on, and its rows; none past the end."""
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
    # One who was refused did reach the service: the network is there.
    raise _Trouble(why, refused=any(trouble.refused for trouble in troubles))


def _unfinished(search: str, trouble: _Trouble, results: list[ImageResult]) -> SearchUnfinished:
    """Return the error that tells a person what to do about a search that broke off."""
    so_far = f"{len(results)} results found before it are kept" if results else "nothing had been found yet"
    name = search if len(search) <= 60 else f"{search[:60]}…"
    if trouble.refused:
        return SearchRefused(
            f"DuckDuckGo refused the search {name!r} ({trouble}); {so_far}. It does so after many searches from one "
            "address: wait some minutes and run this cell again.",
            results,
        )
    return SearchUnreachable(
        f"DuckDuckGo could not be reached for the search {name!r} ({trouble}); {so_far}. Check the network connection "
        "(behind a proxy: DDGS_PROXY, and PRIMP_CA_BUNDLE for its certificate) and run this cell again.",
        results,
    )


class _Watch:
    """
    Stands between a client and the `primp.Client` that carries its requests, and keeps what the client throws away.

    ddgs raises "No results found." alike for a refusal and an empty page, leaves some rows out and sorts the others
    anew; both clients unquote URLs, so that ``%20``, ``%23`` and ``%2F`` no longer lead to the picture; one null title
    costs ddgs the whole page, one missing title the other; neither looks at Retry-After. The rows as they came are none
    the worse for it.
    """

    def __init__(self):
        self.carrier: primp.Client | None = None  # None: the client holds it elsewhere than it did, and nothing is seen
        self.forget()

    def forget(self) -> None:
        """Make ready for another page."""
        self.start = 0  # the number of its first row, where the client can't ask for it itself
        self.status: int | None = None  # HTTP status of the last answer; None if there was none
        self.wait = 0.0  # seconds, as told by Retry-After
        self.rows: list | None = None  # None if no page of results came

    def __getattr__(self, name: str):
        return getattr(self.carrier, name)

    def request(self, method: str, url: str, **options):
        if url.endswith("/i.js") and self.start:
            options["params"] = {**options["params"], "s": str(self.start)}
        self.status = None
        response = self.carrier.request(method, url, **options)
        body = response.content  # raises where it was cut off
        self.status, self.wait = response.status_code, _told_wait(response.headers)
        if url.endswith("/i.js") and self.status == 200:
            self.rows = _rows(body)
        return response


class _Client:
    """One way to ask the service."""

    name: str

    def __init__(self):
        self.watch = _Watch()
        self.inner = None

    def page(self, search: str, number: int, options: dict) -> list:
        """Return the rows of a page as the service sent them, [] past the end; raise `_Trouble` where none came."""
        self.watch.forget()
        rows, failure = None, None
        given = {name: value for name, value in options.items() if value}
        with warnings.catch_warnings(record=True):  # one client announces its new name, and opens all filters for it
            try:
                self.inner = self.inner or self.connect()
                rows = self.images(search, number, given)
            except FAILURES as error:
                failure = error
        if self.watch.rows is not None:
            return self.watch.rows
        if failure is None:  # unwatched, and answered
            return rows
        raise self.trouble(failure) from failure

    def trouble(self, failure: Exception) -> _Trouble:
        """Return what kept the client from a page, in words."""
        status, network = self.watch.status, _network_error(failure)
        if status is None and network:
            return _Trouble(_reason(network), refused=False)
        if status is None:
            return _Trouble(textwrap.shorten(str(failure), 90, placeholder=" …"), refused=True)
        why = f"HTTP {status}" if status != 200 else "something other than results, such as a captcha"
        return _Trouble(why, refused=True, wait=self.watch.wait)

    def connect(self):
        """Return the client, watched where it holds its carrier in the usual place."""
        raise NotImplementedError

    def images(self, search: str, number: int, options: dict) -> list:
        """Return what the client makes of a page."""
        raise NotImplementedError


class _Ddgs(_Client):
    name = "ddgs"

    def connect(self):
        client = ddgs.DDGS(timeout=TIMEOUT)
        with suppress(*MISREAD):  # where another version keeps it elsewhere, its own reading of the rows must do
            (engine,) = client._get_engines("images", "duckduckgo")
            engine.http_client.client, self.watch.carrier = self.watch, engine.http_client.client
        return client

    def images(self, search, number, options):
        # Without a backend by name, others are mixed in that ignore the filters.
        return self.inner.images(search, backend="duckduckgo", page=number, max_results=None, **options)


class _DuckDuckGoSearch(_Client):
    name = "duckduckgo_search"

    def connect(self):
        client = duckduckgo_search.DDGS(timeout=TIMEOUT)
        with suppress(AttributeError):
            client.client, self.watch.carrier = self.watch, client.client
        return client

    def images(self, search, number, options):
        # By itself it pages all at once, and loses every page when one fails: it is asked for single ones. Unwatched,
        # it gives the first page again, which ends the search.
        self.watch.start = PAGE * (number - 1)
        return self.inner.images(search, max_results=None, **options)


def _network_error(error: BaseException | None) -> primp.PrimpError | None:
    """Return the error of the network behind a client's: both wrap primp's, ddgs in its arguments."""
    while isinstance(error, BaseException):
        if isinstance(error, primp.PrimpError):
            return error
        inner = error.args[0] if error.args else None
        error = error.__cause__ or (inner if isinstance(inner, BaseException) else None)
    return None


def _reason(error: primp.PrimpError) -> str:
    """Return what went wrong in the network, without the inner state that primp tells around it."""
    if isinstance(error, primp.TimeoutError):
        return f"no answer in {TIMEOUT} seconds"
    if isinstance(error, primp.DNSError):
        return "no address known for the host's name"
    if isinstance(error, (primp.BodyError, primp.DecodeError)):
        return "the answer broke off"
    told = str(error.args[0] if error.args else error).partition(" (after an earlier failure")[0].partition("\n")[0]
    told = textwrap.shorten(re.split(" > | error: ", told)[-1], 90, placeholder=" …") or "no connection"
    if isinstance(error, primp.BuilderError) and "DDGS_PROXY" in os.environ:
        return f"DDGS_PROXY is no proxy's address: {told}"  # itself untold: it may hold a password
    return told


def _told_wait(headers: Mapping[str, str]) -> float:
    """
    Return the seconds that Retry-After asks to wait, whether it is a number or a date; 0 where it asks nothing.

    >>> _told_wait({"Retry-After": "7"}), _told_wait({"Retry-After": "soon"}), _told_wait({})
    (7.0, 0.0, 0.0)
    >>> _told_wait({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"})
    30.0
    """
    headers = {name.lower(): value for name, value in headers.items()}
    told = headers.get("retry-after", "").strip()
    if told.isdecimal():
        return float(told)
    try:  # by the service's own clock where it tells it: this machine's may be wrong
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max((parsedate_to_datetime(told) - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _rows(body: bytes) -> list | None:
    """
    Return the rows of a page as they came, [] where it has none, None where it is no page of results.

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
    """Return the usable rows of a page, URL → result; malformed rows are passed over."""
    results: dict[str, ImageResult] = {}
    for row in rows:
        url = web_address(row.get("image")) if isinstance(row, Mapping) else ""
        if url and url not in results:
            results[url] = ImageResult(
                url=url,
                page_url=web_address(row.get("url")),
                title=unescape(_text(row.get("title"))),
                thumbnail=web_address(row.get("thumbnail")),
                width=_pixels(row.get("width")),
                height=_pixels(row.get("height")),
                **told,
            )
    return results


def web_address(value) -> str:
    """
    Return `value` if it is an http or https address with a host, else "".

    >>> web_address("https://example.org/a.jpg"), web_address("data:image/png;base64,AA"), web_address(None)
    ('https://example.org/a.jpg', '', '')
    """
    text = _text(value)
    return text if web_host(text) else ""


def _text(value) -> str:
    """Return a text that can be stored as UTF-8, "" for anything that is none."""
    return value.encode("utf-8", "replace").decode("utf-8").strip() if isinstance(value, str) else ""


def _pixels(value) -> int:
    """Return a size in pixels, 0 where there is none."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
