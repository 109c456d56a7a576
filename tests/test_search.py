"""Searching: pages become results, and refused, unreachable and empty are told apart."""

import json
import warnings
from types import SimpleNamespace

import ddgs
import ddgs.http_client
import duckduckgo_search
import primp
import pytest
from ddgs.exceptions import DDGSException
from duckduckgo_search.exceptions import DuckDuckGoSearchException, RatelimitException

from utils.files import FieldguideError
from utils.search import SearchRefused, SearchUnreachable, search_images


def row(n, **changes):
    """One row as the clients give it."""
    site = "https://example.org"
    told = {"image": f"{site}/{n}.jpg", "url": f"{site}/{n}", "thumbnail": f"{site}/t{n}.jpg", "title": f"Fish {n}"}
    return told | {"width": 640, "height": 480, "source": "Bing"} | changes


def urls(*numbers):
    return [f"https://example.org/{n}.jpg" for n in numbers]


def refused(self, *args, **options):
    raise RatelimitException("https://duckduckgo.com/i.js 403 Ratelimit")


@pytest.fixture
def clients(monkeypatch):
    """Put answers where the two clients ask the network: a list of pages (or errors), and a function."""
    asked = []

    def install(pages=(), second=refused):
        def first(self, query, *, page, **options):
            asked.append((query, page, options))
            answer = pages[page - 1] if page <= len(pages) else []
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(ddgs.ddgs.DDGS, "images", first)
        monkeypatch.setattr(duckduckgo_search.DDGS, "images", second)
        return asked

    ddgs.DDGS()  # loads ddgs.ddgs
    return install


def test_pages_until_enough_each_url_once(clients):
    """Pages are asked for until enough different URLs are found, and no further."""
    asked = clients([[row(1), row(2)], [row(2), row(3)], [row(4), row(5)], [row(6)]])
    assert [result.url for result in search_images("fish", max_results=5, pause=0)] == urls(1, 2, 3, 4, 5)
    assert [page for _, page, _ in asked] == [1, 2, 3]
    assert {options["backend"] for _, _, options in asked} == {"duckduckgo"}


@pytest.mark.parametrize("end", [[], [row(1)]], ids=["empty page", "repeated page"])
def test_ends_where_the_search_ends(clients, end):
    """A page that is empty or repeats what is known ends the search without an error."""
    asked = clients([[row(1)], end, [row(9)]])
    assert [result.url for result in search_images("fish", pause=0)] == urls(1)
    assert len(asked) == 2


def test_passes_over_malformed_rows(clients):
    """Rows without a web address are left out; a missing title, size or thumbnail costs a row nothing."""
    bad = [row(0, image=url) for url in (None, "", "data:image/png;base64,AA", "file:///etc/passwd", 7, "http://[::1")]
    missing = {"image": "https://example.org/2.jpg"}
    odd = row(1, title=None, width="640", height="tall", thumbnail="file:///x", url=None)
    clients([[*bad, None, "text", odd, missing, row(3, title="lone \ud800 half")]])
    first, second, third = search_images("fish", pause=0)
    assert (first.title, first.width, first.height, first.thumbnail, first.page_url) == ("", 640, 0, "", "")
    assert (second.url, second.title) == (urls(2)[0], "")
    assert third.title == "lone ? half"


def test_second_client_is_asked_when_the_first_is_refused(clients):
    """A refused first client is no end: the second gives the rest, and pages already had are kept."""
    clients([[row(1)], DDGSException("No results found.")], second=lambda self, query, **options: [row(1), row(2)])
    results = search_images("fish", pause=0)
    assert [(result.url, result.engine) for result in results] == [
        ("https://example.org/1.jpg", "ddgs"),
        ("https://example.org/2.jpg", "duckduckgo_search"),
    ]


def test_second_client_leaves_the_warning_filters_alone(clients):
    """The old client's loud renaming notice neither shows nor opens the process's warning filters."""
    clients([DDGSException("No results found.")], second=lambda self, query, **options: [row(1)])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        before = list(warnings.filters)
        search_images("fish", pause=0)
        assert (warnings.filters, shown) == (before, [])


def test_second_client_keeps_its_first_page(clients):
    """Where a later page is refused, which costs the second client all of them, its first page is asked for alone."""

    def second(self, query, *, max_results, **options):
        return refused(self) if max_results else [row(1)]

    clients([DDGSException("No results found.")], second=second)
    assert [result.url for result in search_images("fish", max_results=300, pause=0)] == urls(1)


def test_refused_by_both(clients):
    """Refused by both clients is an error of its own that says what to do and holds what had been found."""
    asked = clients([[row(1), row(2)], DDGSException("No results found.")])
    with pytest.raises(SearchRefused, match=r"2 results.*wait some minutes") as caught:
        search_images("fish", pause=0)
    assert [result.url for result in caught.value.results] == urls(1, 2)
    assert [page for _, page, _ in asked] == [1, 2, 2, 2]


def test_retries_after_a_refusal(clients):
    """A refusal that passes is waited for, and the search goes on where it was."""
    answers = [DDGSException("No results found."), [row(1)]]
    asked = clients([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddgs.ddgs.DDGS, "images", lambda self, query, **options: _next(answers))
        assert [result.url for result in search_images("fish", pause=0, max_results=1)] == urls(1)
    assert asked == []


def _next(answers):
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_no_network(clients):
    """No network is told apart from a refusal."""
    cause = primp.ConnectError("connection refused")

    def second(self, query, **options):
        raise DuckDuckGoSearchException("https://duckduckgo.com ConnectError") from cause

    inner = DDGSException("ConnectError")
    inner.__cause__ = cause
    clients([DDGSException(inner)], second=second)
    with pytest.raises(SearchUnreachable, match=r"could not be reached.*nothing had been found yet.*network"):
        search_images("fish", pause=0)


def test_one_refusal_is_a_refusal(clients):
    """Where one client was refused and the other lost its way, the network is there: it is a refusal."""

    def second(self, query, **options):
        raise DuckDuckGoSearchException("timed out") from primp.TimeoutError("timed out")

    clients([DDGSException("No results found.")], second=second)
    with pytest.raises(SearchRefused):
        search_images("fish", pause=0)


def test_nothing_found(clients):
    """A search that finds nothing gives an empty list, also where the first client calls it an error."""
    clients([DDGSException("No results found.")], second=lambda self, query, **options: [])
    assert search_images("qwxzv", pause=0) == []


def test_filters_and_licence(clients):
    """Filters reach the client; a licence is recorded as it was asked for, and is unknown otherwise."""
    asked = clients([[row(1)]])
    assert search_images("fish", max_results=1)[0].license == "unknown"
    shared = search_images("fish", max_results=1, license="Share", size="Large", type_image="photo", region="uk-en")
    assert shared[0].license == "Share"
    expected = {"license_image": "Share", "size": "Large", "type_image": "photo", "region": "uk-en"}
    assert expected.items() <= asked[1][2].items() and "license_image" not in asked[0][2]


def test_several_searches_share_the_wanted_number(clients, monkeypatch):
    """The searches of one label get equal shares, what one lacks goes to the next, and no URL comes twice."""
    clients()
    pages = {"a": [row(1)], "b": [row(1), row(2), row(3), row(4)], "c": [row(n) for n in range(2, 20)]}
    monkeypatch.setattr(
        ddgs.ddgs.DDGS, "images", lambda self, query, *, page, **options: pages[query] if page == 1 else []
    )
    results = search_images(["a", "b", "c"], max_results=8, pause=0)
    assert [result.query for result in results] == ["a", "b", "b", "b", "c", "c", "c", "c"]
    assert [result.url for result in results] == urls(*range(1, 9))


@pytest.mark.parametrize(
    "query, options, match",
    [
        ("x" * 500, {}, "500 characters.*at most 499"),
        (" ", {}, "empty search"),
        ([], {}, "empty search"),
        ("fish", {"license": "free"}, "license = 'free'.*Public"),
        ("fish", {"safesearch": None}, "safesearch"),
        ("fish", {"max_results": 0}, "max_results is 0"),
    ],
)
def test_refuses_what_the_service_would(clients, query, options, match):
    """A search that can't work is refused before anything is asked."""
    asked = clients([[row(1)]])
    with pytest.raises(FieldguideError, match=match):
        search_images(query, **options)
    assert asked == []


class TestRealFirstClient:
    """The real ddgs client and engine, above a web that answers as planned."""

    @pytest.fixture
    def web(self, monkeypatch):
        def install(*answers, status=200, headers=()):
            answers = list(answers)

            def request(self, method, url, **options):
                if url.endswith("i.js"):
                    text = answers.pop(0) if len(answers) > 1 else answers[0]
                    inner = SimpleNamespace(headers=dict(headers))
                    return SimpleNamespace(status_code=status, text=text, content=text.encode(), _resp=inner)
                return SimpleNamespace(status_code=200, text="", content=b'vqd="4-1"')

            monkeypatch.setattr(ddgs.http_client.HttpClient, "request", request)
            monkeypatch.setattr(duckduckgo_search.DDGS, "images", refused)

        return install

    def test_a_null_title_costs_nothing(self, web):
        """A null title, over which ddgs itself stumbles, loses neither its row nor the page."""
        web(json.dumps({"results": [row(1, title=None), row(2), None, row(3, url=None)]}), '{"results": []}')
        assert [result.url for result in search_images("fish", pause=0)] == urls(1, 2, 3)

    def test_the_order_is_the_services(self, web):
        """Results come in the order of the service, and none is left out for its title."""
        rows = [row(1, title="x"), row(2, title="Category:Fish - Wikimedia Commons"), row(3, title="fish &amp; sea")]
        web(json.dumps({"results": rows}), '{"results": []}')
        results = search_images("fish", pause=0)
        assert [result.url for result in results] == urls(1, 2, 3)
        assert results[2].title == "fish & sea"

    def test_urls_arrive_as_they_were(self, web):
        """Escapes that ddgs would undo are still there."""
        url = "https://example.org/a%20b%23c%2Fd%3F.jpg?x=1%2B1"
        web(json.dumps({"results": [row(1, image=url)]}), '{"results": []}')
        assert [result.url for result in search_images("fish", pause=0)] == [url]

    @pytest.mark.parametrize("text", ['{"results": []}', '{"results": null}', "{}"])
    def test_an_empty_page_is_no_refusal(self, web, text):
        """200 without results is an end: the second client is not even asked."""
        web(text)
        assert search_images("fish", pause=0) == []

    @pytest.mark.parametrize("status", [202, 403, 429, 500])
    def test_a_refusal_is_no_empty_page(self, web, status):
        """Any other status is a refusal, although ddgs says "No results found." to both."""
        web("", status=status)
        with pytest.raises(SearchRefused):
            search_images("fish", pause=0)

    def test_a_captcha_page_is_a_refusal(self, web):
        """A page for humans in place of results is a refusal."""
        web("<html>are you a robot?</html>")
        with pytest.raises(SearchRefused):
            search_images("fish", pause=0)

    @pytest.mark.parametrize("told, waited", [("7", 7), ("86400", 60)])
    def test_waits_as_long_as_it_is_told(self, web, monkeypatch, told, waited):
        """Retry-After is honoured, up to a minute."""
        waits = []
        monkeypatch.setattr("utils.search.time", SimpleNamespace(sleep=waits.append))
        web("", status=429, headers={"Retry-After": told})
        with pytest.raises(SearchRefused):
            search_images("fish", pause=0)
        assert waits == [waited, waited]
