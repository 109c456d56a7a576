"""
Stage 01, first half: asks DuckDuckGo for pictures. Writes nothing; `download` fetches what is found here.

Two clients of one author ask the same service with different headers, so one may be let in where the other is
refused: `ddgs` goes first, page by page, `duckduckgo_search` second. What the clients blur is told apart again:
a refusal (raised as `SearchRefused`), no network (`SearchUnreachable`) and truly nothing found (an empty list).
"""

import json
import math
import os
import random
import textwrap
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from urllib.parse import urlsplit

import ddgs
import duckduckgo_search
import primp
from ddgs.engines.duckduckgo_images import DuckduckgoImages
from ddgs.exceptions import DDGSException
from ddgs.exceptions import TimeoutException as DDGSTimeout
from duckduckgo_search.exceptions import DuckDuckGoSearchException
from duckduckgo_search.exceptions import TimeoutException as OldTimeout
from tqdm.auto import tqdm

from utils.files import FieldguideError

LONGEST_QUERY = 499  # characters; the service refuses longer ones
LAST_PAGE = 30  # of 100 rows at most; the service itself ends far earlier
ATTEMPTS = 3  # rounds through both clients before giving up on a page
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is the person's to wait for, not the notebook's
TIMEOUT = 20  # seconds; ddgs counts its two requests of a page against it together
MISREAD = (TypeError, KeyError, ValueError, AttributeError)  # of both clients, at an answer of unexpected shape
CHOICES = {
    "safesearch": ("on", "moderate", "off"),
    "license": ("any", "Public", "Share", "ShareCommercially", "Modify", "ModifyCommercially"),
    "size": ("Small", "Medium", "Large", "Wallpaper"),
    "type_image": ("photo", "clipart", "gif", "transparent", "line"),
}


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
    """One client's failure to give a page."""

    def __init__(self, why: str, *, refused: bool, wait: float = 0.0):
        super().__init__(why)
        self.refused, self.wait = refused, wait


def search_images(
    query: str | Iterable[str],
    *,
    max_results: int = 150,
    safesearch: str = "moderate",
    region: str = "wt-wt",
    license: str | None = None,
    size: str | None = None,
    type_image: str | None = None,
    pause: float = 1.0,
) -> list[ImageResult]:
    """
    Ask DuckDuckGo for pictures and return at most `max_results` of them, each URL once, best first.

    Parameters
    ----------
    query : str or iterable of str
        What to look for. Several searches of one label share `max_results` and are deduplicated together.
    max_results : int
        URLs wanted; fewer come back where the search ends earlier.
    safesearch : {"on", "moderate", "off"}
    region : str
        Country and language such as "uk-en"; "wt-wt" is the whole world.
    license : {"any", "Public", "Share", "ShareCommercially", "Modify", "ModifyCommercially"}, optional
        Only pictures that the service believes to be under such a licence. Recorded with each result as asked.
    size : {"Small", "Medium", "Large", "Wallpaper"}, optional
    type_image : {"photo", "clipart", "gif", "transparent", "line"}, optional
    pause : float
        Seconds between two pages, varied a little; waits after a refusal grow from twice that.

    Raises
    ------
    SearchRefused
        If both clients were refused, again and again; `results` holds what had been found before.
    SearchUnreachable
        If neither client could reach the service; it has `results` too.
    FieldguideError
        If a search is empty or longer than 499 characters, or a filter does not exist.
    """
    searches = [query] if isinstance(query, str) else list(query)
    filters = {"safesearch": safesearch, "license": license, "size": size, "type_image": type_image}
    _check(searches, max_results, filters)
    options = {"region": region, "safesearch": safesearch, "size": size, "type_image": type_image}
    options["license_image"] = license
    found: dict[str, ImageResult] = {}
    with tqdm(total=max_results, desc=searches[0][:40], unit="result") as bar:
        for left, search in zip(range(len(searches), 0, -1), searches, strict=True):
            enough = len(found) + math.ceil((max_results - len(found)) / left)
            try:
                for page in _pages(search, options, wanted=enough - len(found), pause=pause):
                    fresh = _unseen(page, found, query=search, license=license or "unknown")
                    found |= dict(list(fresh.items())[: enough - len(found)])
                    bar.update(len(found) - bar.n)
                    if len(found) >= enough or not fresh:  # the service repeats itself past its end
                        break
            except _Trouble as trouble:
                raise _unfinished(search, trouble, list(found.values())) from trouble
    return list(found.values())


def _check(searches: list[str], max_results: int, filters: Mapping[str, str | None]) -> None:
    """Refuse what the service would refuse, or would silently ignore."""
    if not searches or any(not search.strip() for search in searches):
        raise FieldguideError("An empty search finds nothing. Write what to look for, such as 'tilapia in water'.")
    for search in searches:
        if len(search) > LONGEST_QUERY:
            raise FieldguideError(
                f"The search {search[:40]!r}… has {len(search)} characters; DuckDuckGo takes at most {LONGEST_QUERY}. "
                "Shorten it."
            )
    if max_results < 1:
        raise FieldguideError(f"max_results is {max_results}. Ask for at least 1 picture.")
    for name, value in filters.items():
        if value not in CHOICES[name] and (value is not None or name == "safesearch"):
            raise FieldguideError(f"{name} = {value!r} does not exist. Choose one of {', '.join(CHOICES[name])}.")


def _unfinished(search: str, trouble: _Trouble, results: list[ImageResult]) -> SearchUnfinished:
    """Return the error that tells a person what to do about a search that broke off."""
    so_far = f"{len(results)} results found before it are kept" if results else "nothing had been found yet"
    if trouble.refused:
        return SearchRefused(
            f"DuckDuckGo refused the search {search!r} ({trouble}); {so_far}. It does so after many searches from one "
            "address: wait some minutes and run this cell again.",
            results,
        )
    shortened = textwrap.shorten(str(trouble), 90, placeholder=" …")  # the clients quote their whole inner state
    return SearchUnreachable(
        f"DuckDuckGo could not be reached for the search {search!r} ({shortened}); {so_far}. Check the network "
        "connection (and DDGS_PROXY, behind a proxy) and run this cell again.",
        results,
    )


def _pages(search: str, options: dict, *, wanted: int, pause: float) -> Iterator[list[tuple[str, object]]]:
    """Yield pages of (client's name, raw row) until the search ends; raise `_Trouble` when nobody is let in."""
    jitter = random.Random()
    client, engine = _first_client()
    for page in range(1, LAST_PAGE + 1):
        if page > 1:
            time.sleep(pause * jitter.uniform(1, 1.5))
        troubles: list[_Trouble] = []
        for attempt in range(1, ATTEMPTS + 1):
            try:
                rows = _ask_first(client, engine, search, page, options)
                break
            except _Trouble as trouble:
                troubles.append(trouble)
            try:
                yield [("duckduckgo_search", row) for row in _ask_second(search, options, wanted)]
                return  # it pages by itself, so this was everything
            except _Trouble as trouble:
                troubles.append(trouble)
            if attempt < ATTEMPTS:
                told = max(trouble.wait for trouble in troubles[-2:])
                time.sleep(max(min(told, LONGEST_WAIT), pause * 2**attempt * jitter.uniform(1, 1.5)))
        else:
            raise max(troubles, key=lambda trouble: trouble.refused)  # one who was refused did reach the service
        if not rows:
            return
        yield [("ddgs", row) for row in rows]


class _WatchedEngine(DuckduckgoImages):
    """
    The DuckDuckGo engine of ddgs, which also keeps what its client throws away.

    The client raises "No results found." alike for a refusal, a time-out and an empty page; it unquotes URLs, so
    that ``%20``, ``%23`` and ``%2F`` no longer lead to the picture; it sorts some results out and all the others
    anew; and one null title costs it the whole page. The rows as they came are none the worse for it.
    """

    def forget(self) -> None:
        """Make ready for another page."""
        self.status: int | None = None  # HTTP status of the page; None if it was never asked for
        self.retry_after = ""
        self.rows: list | None = None  # None if there was nothing to be read

    def request(self, *args, **kwargs):
        response = self.http_client.request(*args, **kwargs)
        self.status = response.status_code
        headers = getattr(getattr(response, "_resp", None), "headers", None) or {}
        self.retry_after = next((headers[name] for name in headers if name.lower() == "retry-after"), "")
        return response.text if self.status == 200 else None

    def extract_results(self, html_text):
        self.rows = json.loads(html_text).get("results") or []
        return super().extract_results(html_text)


def _first_client() -> tuple[object, _WatchedEngine]:
    """Return a ddgs client and the engine inside it that remembers what the service answered."""
    client = ddgs.DDGS(timeout=TIMEOUT)
    engine = _WatchedEngine(proxy=os.environ.get("DDGS_PROXY"), timeout=TIMEOUT)
    getattr(client, "_engines_cache", {})[DuckduckgoImages] = engine
    return client, engine


def _ask_first(client, engine: _WatchedEngine, search: str, page: int, options: dict) -> list:
    """Return one page from ddgs, [] past the end; raise `_Trouble` for anything else."""
    engine.forget()
    given = {name: value for name, value in options.items() if value}
    try:
        rows = client.images(search, backend="duckduckgo", page=page, max_results=None, **given)
    except (DDGSException, *MISREAD) as error:
        if engine.rows is not None:
            return engine.rows
        if _unreachable(error, DDGSTimeout):
            raise _Trouble(f"ddgs: {error}", refused=False) from error
        why = f"HTTP {engine.status}" if engine.status not in (None, 200) else f"{type(error).__name__}: {error}"
        wait = float(engine.retry_after) if engine.retry_after.isdecimal() else 0.0
        raise _Trouble(f"ddgs: {why}", refused=True, wait=wait) from error
    return rows if engine.rows is None else engine.rows


def _ask_second(search: str, options: dict, wanted: int) -> list:
    """Return everything from duckduckgo_search, [] where nothing is found; raise `_Trouble` for anything else."""
    with warnings.catch_warnings(record=True):  # it announces its new name at every construction, and opens all filters
        client = duckduckgo_search.DDGS(timeout=TIMEOUT)
        try:
            try:
                return client.images(search, max_results=wanted, **options)
            except DuckDuckGoSearchException:
                if wanted <= 100:
                    raise
                return client.images(search, max_results=None, **options)  # a later page cost it the first: that one
        except DuckDuckGoSearchException as error:
            refused = not _unreachable(error, OldTimeout)
            raise _Trouble(f"duckduckgo_search: {error}", refused=refused) from error
        except MISREAD as error:
            raise _Trouble(f"duckduckgo_search: {type(error).__name__}: {error}", refused=True) from error


def _unreachable(error: BaseException | None, timeout: type[Exception]) -> bool:
    """Return whether an error goes back to the network: both clients wrap primp's errors, ddgs in its arguments."""
    while isinstance(error, BaseException):
        if isinstance(error, (primp.RequestError, timeout)):
            return True
        inner = error.args[0] if error.args else None
        error = error.__cause__ or (inner if isinstance(inner, BaseException) else None)
    return False


def _unseen(page: list[tuple[str, object]], found: Mapping, *, query: str, license: str) -> dict[str, ImageResult]:
    """Return the usable rows of a page that are not in `found`, URL → result; malformed rows are passed over."""
    fresh: dict[str, ImageResult] = {}
    for engine, row in page:
        if not isinstance(row, Mapping):
            continue
        url = web_address(row.get("image"))
        if url and url not in found:
            fresh.setdefault(
                url,
                ImageResult(
                    url=url,
                    page_url=web_address(row.get("url")),
                    title=unescape(_text(row.get("title"))),
                    thumbnail=web_address(row.get("thumbnail")),
                    width=_pixels(row.get("width")),
                    height=_pixels(row.get("height")),
                    license=license,
                    query=query,
                    engine=engine,
                ),
            )
    return fresh


def web_address(value) -> str:
    """
    Return `value` if it is an http or https address with a host, else "".

    >>> web_address("https://example.org/a.jpg"), web_address("data:image/png;base64,AA"), web_address(None)
    ('https://example.org/a.jpg', '', '')
    """
    text = _text(value)
    try:
        parts = urlsplit(text)
        return text if parts.scheme in ("http", "https") and parts.hostname else ""
    except ValueError:  # such as http://[::1
        return ""


def _text(value) -> str:
    """Return a text that can be stored as UTF-8, "" for anything that is none."""
    return value.encode("utf-8", "replace").decode("utf-8").strip() if isinstance(value, str) else ""


def _pixels(value) -> int:
    """Return a size in pixels, 0 where there is none."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
