"""Searching, with the real clients: pages become results, and refused, unreachable and empty are told apart."""

import dataclasses
import socket
import warnings
from itertools import islice
from types import SimpleNamespace

import primp
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from standin_search import CAPTCHA, CLIENTS, CUT, HANG, MALFORMED, RESET, Answer, StandIn, listing, row, status

import utils.download.clients
from utils.download.clients import SearchRefused, SearchUnreachable, search_images, stream_images
from utils.errors import FieldguideError

REFUSED = status(403)
FAULTS = {
    **{str(code): status(code) for code in (202, 403, 418, 429, 500)},
    **{"captcha": CAPTCHA, "malformed": MALFORMED, "reset": RESET, "cut": CUT},
}


def urls(*numbers):
    return [f"https://example.org/{n}.jpg" for n in numbers]


def found(query="fish", **options):
    """The URLs of a search without pauses."""
    return [result.url for result in search_images(query, pause=0, **options)]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One stand-in for all tests."""
    with StandIn(tmp_path_factory.mktemp("standin")) as running:
        yield running


@pytest.fixture
def web(service, monkeypatch):
    """The stand-in, made new; `web.waits` are the seconds that the search would have waited."""
    service.forget()
    lead_to(service, monkeypatch)
    return service


def lead_to(service, patch):
    """Send the clients to the stand-in, and let nobody really wait."""
    for name, value in service.environment.items():
        patch.setenv(name, value)
    service.waits = []
    patch.setattr("utils.download.clients.time", SimpleNamespace(sleep=service.waits.append))
    patch.setattr("duckduckgo_search.duckduckgo_search.sleep", lambda seconds: None)


def steps(web, client=None):
    """What was asked of the stand-in: the number of each page."""
    return [asked.step for asked in web.asked if asked.step != "vqd" and client in (None, asked.client)]


def only(web, client):
    """Let in one client alone; the other is refused whatever it asks."""
    for other in set(CLIENTS) - {client}:
        web.fail("vqd", REFUSED, client=other, always=True)


# ---------------------------------------------------------------------------------------------------------------
# The stand-in itself
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [None, "user-agent", "referer", "sec-fetch-mode", "vqd", "length"])
def test_the_standin_keeps_the_rules_of_the_service(web, broken):
    """Results come for the vqd that the same browser was given, with Referer and Sec-Fetch-Mode, and else a 403."""
    query = "x" * (500 if broken == "length" else 499)
    client = primp.Client(proxy=web.environment["DDGS_PROXY"])
    page = client.get("https://duckduckgo.com/", params={"q": query}, headers={"User-Agent": "a"}).text
    vqd = "4-0" if broken == "vqd" else page.partition('vqd="')[2].partition('"')[0]
    headers = {"User-Agent": "a", "Referer": "https://duckduckgo.com/", "Sec-Fetch-Mode": "cors"}
    headers = {name: "b" if name.lower() == broken else value for name, value in headers.items()}
    answer = client.get("https://duckduckgo.com/i.js", params={"q": query, "vqd": vqd}, headers=headers)
    assert answer.status_code == (403 if broken else 200)


# ---------------------------------------------------------------------------------------------------------------
# Pages
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_pages_until_enough_each_url_once(web, client):
    """Pages are asked for until enough different URLs are found, and no further."""
    only(web, client)
    web.rows["fish"] = [row(n // 2) for n in range(1000)]  # every URL twice
    assert found(max_results=120) == urls(*range(120))
    assert steps(web) == [1, 2, 3]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("rest", [0, 30])
def test_goes_on_to_the_end(web, client, rest):
    """Without a limit all there is comes, and the end is no error."""
    only(web, client)
    web.rows["fish"] = [row(n) for n in range(200 + rest)]
    assert [result.url for result in stream_images("fish", pause=0)] == urls(*range(200 + rest))


def test_ends_where_the_service_repeats_itself(web):
    """A page that gives nothing new ends the search."""
    web.rows["fish"] = [row(n) for n in range(500)]
    web.fail(2, listing(row(7), row(1)))
    assert found() == urls(*range(100))
    assert steps(web) == [1, 2]


def test_ends_at_the_last_page(web, monkeypatch):
    """A service without an end is not asked for ever."""
    monkeypatch.setattr("utils.download.clients.LAST_PAGE", 2)
    web.rows["fish"] = [row(n) for n in range(500)]
    assert len(found(max_results=500)) == 200


def test_searches_take_turns(web):
    """Page 1 of each search, then page 2 of each: an empty search ends alone, and no URL comes twice over all."""
    web.rows = {
        "a": [row(n) for n in range(150)],
        "c": [row(n) for n in range(100)],  # nothing that "a" had not, and still a search that goes on
        "d": [row(n) for n in range(90, 210)],
    }
    results = list(stream_images(["a", "b", "c", "d", "a"], pause=0))
    asked = [(asked.params["q"], asked.step) for asked in web.asked if asked.step != "vqd"]
    assert asked[:4] == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
    assert asked[4:] == [("a", 2), ("c", 2), ("d", 2), ("a", 3), ("d", 3)]
    expected = [("a", n) for n in range(100)] + [("d", n) for n in range(100, 190)]  # 1st pages
    expected += [("d", n) for n in range(190, 210)]  # "a" has nothing new on its 2nd
    assert [(result.query, result.url) for result in results] == [(query, urls(n)[0]) for query, n in expected]


def test_nothing_is_asked_before_it_is_wanted(web):
    """The stream asks nothing when it is made, and no page before the one before it is used up."""
    web.rows["fish"] = [row(n) for n in range(300)]
    stream = stream_images("fish", pause=0)
    assert web.asked == []
    for _ in range(100):
        next(stream)
    assert steps(web) == [1]
    next(stream)
    assert steps(web) == [1, 2]
    stream.close()
    assert steps(web) == [1, 2]


def test_pauses_between_pages(web):
    """Before each page but the first is a pause, varied a little, whichever search it belongs to."""
    web.rows["a"] = [row(n) for n in range(150)]
    list(stream_images(["a", "b"], pause=2))
    assert steps(web) == [1, 1, 2, 3]
    assert len(web.waits) == 3 and all(2 <= wait <= 3 for wait in web.waits)


def test_the_list_is_the_stream_with_a_bar(web, monkeypatch):
    """`search_images` gives what the stream gives and shows one bar; the stream shows none."""
    web.rows["fish"] = [row(n) for n in range(200)]
    bars = []
    monkeypatch.setattr("utils.download.clients.tqdm", lambda stream, **told: bars.append(told) or stream)
    stream = list(islice(stream_images("fish", pause=0), 120))
    assert bars == []
    assert search_images("fish", max_results=120, pause=0) == stream
    assert [told["total"] for told in bars] == [120]


# ---------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_malformed_rows_cost_only_themselves(web, client, caplog):
    """Rows without a web address are left out and counted; a null or missing title, page or size costs nothing."""
    only(web, client)
    bad = [row(0, image=url) for url in (None, "", "data:image/png;base64,AA", "file:///etc/passwd", 7, "http://[::1")]
    odd = row(1, title=None, width="640", height="tall", thumbnail="file:///x", url=None)
    bare = {"image": "https://example.org/2.jpg"}
    web.rows["fish"] = [*bad, None, "text", odd, bare, row(3, title="lone \ud800 half &amp; whole", width=float("inf"))]
    first, second, third = search_images("fish", pause=0)
    assert (first.title, first.width, first.height, first.thumbnail, first.page_url) == ("", 640, 0, "", "")
    assert (second.url, second.title) == (urls(2)[0], "")
    assert (third.title, third.width) == ("lone ? half & whole", 0)
    assert {result.engine for result in (first, second, third)} == {client}
    said = "Search 'fish', page 1: 8 results of 11 without a web address, passed over."
    assert [record.getMessage() for record in caplog.records if record.name.startswith("utils")] == [said]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_order_is_the_services(web, client):
    """Results come in the order of the service, and none is left out for its title."""
    only(web, client)
    web.rows["fish"] = [row(1, title="x"), row(2, title="Category:Fish - Wikimedia Commons"), row(3, title="fish")]
    assert found() == urls(1, 2, 3)


PIECES = ["%20", "%23", "%25", "%2F", "%2f", "%3F", "%2B", "%C3%A9", "%zz", "+", "?", "#", "&", "&amp;", "=", ";", "é"]
ADDRESSES = st.lists(st.sampled_from([*PIECES, "鱼", "🐟", "'", '"', "\\", "~", "..", "/", "a", "x y"]), max_size=8)


@examples(max_examples=50)
@given(st.lists(ADDRESSES.map(lambda parts: f"https://example.org/{''.join(parts)}.jpg"), min_size=1, unique=True))
def test_urls_arrive_as_they_were_served(service, addresses):
    """Both clients undo escapes, with which the picture is lost; here every URL is the very one that was served."""
    with pytest.MonkeyPatch.context() as patch:
        lead_to(service, patch)
        for client in CLIENTS:
            service.forget()
            only(service, client)
            service.rows["fish"] = [row(n, image=url, url=url, thumbnail=url) for n, url in enumerate(addresses)]
            results = list(islice(stream_images("fish", pause=0), len(addresses)))
            assert [dataclasses.astuple(result)[:2] for result in results] == [(url, url) for url in addresses]
            assert {(result.engine, result.thumbnail == result.url) for result in results} == {(client, True)}


# ---------------------------------------------------------------------------------------------------------------
# What is asked
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_filters_reach_the_service(web, client):
    """Each filter arrives as the service's own parameter, with every page, and the licence is recorded as asked."""
    only(web, client)
    web.rows["fish"] = [row(n) for n in range(101)]
    filters = {"safesearch": "off", "region": "uk-en", "license": "Share", "size": "Large", "type": "photo"}
    results = search_images("fish", pause=0, **filters)
    assert {result.license for result in results} == {"Share"}
    params = [asked.params for asked in web.asked if asked.step != "vqd"]
    told = {"l": "uk-en", "p": "-1", "f": ",size:Large,,type:photo,,license:Share"}
    assert [{name: one[name] for name in told} for one in params] == [told] * 3
    assert [one.get("s", "0") for one in params] == ["0", "100", "200"]


@pytest.mark.parametrize("client", CLIENTS)
def test_without_filters_none_is_asked(web, client):
    """By default the whole world is searched with moderate safety, and a licence is not known."""
    only(web, client)
    web.rows["fish"] = [row(1)]
    assert [result.license for result in search_images("fish", pause=0)] == ["unknown"]
    params = next(asked.params for asked in web.asked if asked.step == 1)
    assert (params["l"], params["p"], params.get("f", "").strip(",")) == ("wt-wt", "1", "")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "query", ["тилапия в воде", "罗非鱼 养殖", "🐟 & chips = 50% + more?#", "سمك البلطي", "é" * 499]
)
def test_searches_in_any_script_arrive_intact(web, client, query):
    """What is searched for is what was written, in both requests of a page."""
    only(web, client)
    web.rows[query] = [row(1)]
    assert [result.query for result in search_images(query, max_results=1, pause=0)] == [query]
    assert {asked.params["q"] for asked in web.asked} == {query}


@pytest.mark.parametrize("ask", [search_images, stream_images])
@pytest.mark.parametrize(
    "query, options, match",
    [
        ("x" * 600, {}, "600 characters; DuckDuckGo takes at most 499. Shorten it"),
        (["fish", "x" * 500], {}, "500 characters"),
        (" ", {}, "empty search"),
        ([], {}, "empty search"),
        (["fish", None], {}, "empty search"),
        ("fish", {"license": "free"}, "license = 'free'.*Public"),
        ("fish", {"type": "movie"}, "type = 'movie'.*photo"),
        ("fish", {"size": ""}, "size = ''"),
        ("fish", {"safesearch": None}, "safesearch"),
        ("fish", {"region": "Germany"}, "region = 'Germany'.*uk-en"),
        ("fish", {"pause": -1}, "pause is -1"),
    ],
)
def test_refuses_what_the_service_would(web, ask, query, options, match):
    """A search that can't work is refused at the call, before anything is asked."""
    with pytest.raises(FieldguideError, match=match):
        ask(query, **options)
    assert web.asked == []


# ---------------------------------------------------------------------------------------------------------------
# Refused, unreachable, empty
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("step", ["vqd", 1, 2])
def test_the_second_client_goes_on_where_the_first_fails(web, step, fault):
    """Whatever the first client meets, and wherever, the second takes over at that page: nothing lost or twice."""
    web.rows["fish"] = [row(n) for n in range(120)]
    web.fail(step, fault, client="ddgs", always=True)
    results = search_images("fish", pause=0, max_results=110)
    assert [result.url for result in results] == urls(*range(110))
    assert [result.engine for result in results] == [CLIENTS[0 if step == 2 else 1]] * 100 + [CLIENTS[1]] * 10
    assert steps(web, "duckduckgo_search") == ([2] if step == 2 else [1, 2])


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_second_client_loses_no_page(web, fault):
    """A later page that fails costs the second client none of the earlier ones, and is asked for again."""
    only(web, "duckduckgo_search")
    web.rows["fish"] = [row(n) for n in range(250)]
    web.fail(3, fault, client="duckduckgo_search")
    assert found(max_results=250) == urls(*range(250))
    assert steps(web) == [1, 2, 3, 3]


def test_who_was_let_in_goes_first(web):
    """A client that was refused is not sent again as long as the other is let in."""
    web.rows["fish"] = [row(n) for n in range(300)]
    web.fail(1, REFUSED, client="ddgs")
    found(max_results=300)
    assert (steps(web, "ddgs"), steps(web, "duckduckgo_search")) == ([1], [1, 2, 3])


@pytest.mark.parametrize("step, kept", [("vqd", 0), (1, 0), (2, 100)])
@pytest.mark.parametrize("ask", [search_images, stream_images])
def test_refused_by_both(web, ask, step, kept):
    """Refused by both, again and again, is an error of its own that says what to do and holds what had been found."""
    web.rows["fish"] = [row(n) for n in range(300)]
    web.fail(step, status(429), client="ddgs", always=True)
    web.fail(step, status(403), client="duckduckgo_search", always=True)
    so_far = "100 results found before it are kept" if kept else "nothing had been found yet"
    match = rf"refused the search 'fish' \(HTTP 429; HTTP 403\); {so_far}.*wait some minutes"
    yielded = []
    with pytest.raises(SearchRefused, match=match) as caught:
        yielded.extend(ask("fish", pause=1))
    assert [result.url for result in caught.value.results] == urls(*range(kept))
    assert len([asked for asked in web.asked if asked.step == step]) == 3 * 2
    first, second = web.waits[-2:]
    assert 2 <= first <= 3 and 4 <= second <= 6


def test_a_refusal_stops_all_searches(web):
    """The service refuses an address, not a search: the others are not tried on it, and what they gave is kept."""
    web.rows = {"a": [row(1)], "b": [row(2)], "c": [row(3)]}
    only(web, "ddgs")
    web.fail(1, None, *[REFUSED] * 3)
    stream = stream_images(["a", "b", "c"], pause=0)
    assert next(stream).url == urls(1)[0]
    with pytest.raises(SearchRefused, match="the search 'b'") as caught:
        next(stream)
    assert [result.url for result in caught.value.results] == urls(1)
    assert "c" not in {asked.params["q"] for asked in web.asked}


def test_a_long_search_is_told_shortened(web):
    """The error names a long search by its beginning."""
    web.fail("vqd", REFUSED, always=True)
    with pytest.raises(SearchRefused, match=f"the search '{'鱼' * 60}…'"):
        found("鱼" * 300)


def test_a_refusal_that_passes_is_waited_for(web):
    """After a wait the search goes on where it was."""
    web.rows["fish"] = [row(n) for n in range(150)]
    web.fail(2, REFUSED)
    assert found() == urls(*range(150))
    assert steps(web, "ddgs") == [1, 2, 2] and steps(web, "duckduckgo_search") == [2]


@pytest.mark.parametrize("fault", [CAPTCHA, MALFORMED, Answer(body=b'{"results": "no"}'), Answer(body=b"[" * 10_000)])
@pytest.mark.parametrize("step", ["vqd", 1])
def test_something_other_than_results_is_a_refusal(web, step, fault):
    """A page for humans, or broken JSON, in place of results is told as that."""
    web.fail(step, fault, always=True)
    with pytest.raises(SearchRefused, match=r"\(something other than results, such as a captcha\)"):
        found()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("text", [b'{"results": []}', b'{"results": null}', b"{}"])
def test_empty_is_no_refusal(web, client, text):
    """200 without results is nothing found: no error, no second try, and no other client."""
    only(web, client)
    web.fail(1, Answer(body=text), client=client)
    assert found() == []
    assert steps(web) == [1] and web.waits == []


@pytest.mark.parametrize("step", ["vqd", 1])
@pytest.mark.parametrize(
    "fault, why",
    [
        (RESET, r"Connection reset by peer \(os error \d+\)"),
        (CUT, "the answer broke off"),
        (HANG, "no answer in 0.2 seconds"),
    ],
    ids=["reset", "cut", "hang"],
)
def test_a_broken_connection_is_no_refusal(web, monkeypatch, step, fault, why):
    """A connection that breaks or goes silent is told as that, with what had been found before."""
    if fault is HANG:
        monkeypatch.setattr("utils.download.clients.TIMEOUT", 0.2)
    monkeypatch.setattr("utils.download.clients.ATTEMPTS", 1)
    web.fail(step, fault, always=True)
    match = rf"could not be reached for the search 'fish' \({why}\); nothing had been found yet.*network"
    with pytest.raises(SearchUnreachable, match=match):
        found()


def test_unreachable_keeps_what_was_found(web):
    """Pages had before the network went are in the error."""
    web.rows["fish"] = [row(n) for n in range(150)]
    web.fail(2, RESET, always=True)
    with pytest.raises(SearchUnreachable, match="100 results found before it are kept") as caught:
        found()
    assert [result.url for result in caught.value.results] == urls(*range(100))


def _closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    "proxy, why",
    [(f"http://127.0.0.1:{_closed_port()}", "Connection refused"), ("no proxy", "DDGS_PROXY is no proxy's address")],
    ids=["nobody there", "no address"],
)
def test_no_network(web, monkeypatch, proxy, why):
    """No network is told apart from a refusal, and says what to look at."""
    monkeypatch.setenv("DDGS_PROXY", proxy)
    with pytest.raises(SearchUnreachable, match=f"could not be reached.*{why}.*nothing had been found yet.*network"):
        found()
    assert web.asked == []


def test_a_proxy_that_lets_nothing_through(web):
    """A proxy that refuses the way is no refusal by the service; its own word is told."""
    web.tunnel = 407
    with pytest.raises(SearchUnreachable, match=r"407.*DDGS_PROXY"):
        found()


def test_a_foreign_certificate(web, monkeypatch):
    """Without the authority of the certificate no connection is made, and the way out is named."""
    monkeypatch.delenv("PRIMP_CA_BUNDLE")
    with pytest.raises(SearchUnreachable, match=r"certificate.*PRIMP_CA_BUNDLE"):
        found()
    assert web.asked == []


@pytest.mark.parametrize("refused", CLIENTS)
def test_one_refusal_is_a_refusal(web, refused):
    """Where one client was refused and the other lost its way, the network is there: it is a refusal."""
    for client in CLIENTS:
        web.fail(1, REFUSED if client == refused else RESET, client=client, always=True)
    with pytest.raises(SearchRefused, match="HTTP 403"):
        found()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("step", ["vqd", 1])
@pytest.mark.parametrize(
    "told, waited",
    [
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "86400"}, 60),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"Retry_After": "Thu, 22 Oct 2099 07:28:00 GMT"}, 60),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry_After": "soon"}, 0),
    ],
    ids=["seconds", "a day", "date", "far date", "past date", "nonsense"],
)
def test_waits_as_long_as_it_is_told(web, client, step, told, waited):
    """Retry-After is honoured up to a minute, as a number and as a date, whichever client was told."""
    web.fail(step, status(429, **told), client=client, always=True)
    only_other = next(other for other in CLIENTS if other != client)
    web.fail("vqd", REFUSED, client=only_other, always=True)
    with pytest.raises(SearchRefused):
        found()
    assert web.waits == [waited, waited]


# ---------------------------------------------------------------------------------------------------------------
# The clients' insides
# ---------------------------------------------------------------------------------------------------------------


def test_the_warning_filters_are_left_alone(web):
    """The old client's loud renaming notice neither shows nor opens the process's warning filters."""
    only(web, "duckduckgo_search")
    web.rows["fish"] = [row(n) for n in range(150)]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        before = list(warnings.filters)
        stream = stream_images("fish", pause=0)
        assert [(next(stream).engine, warnings.filters == before) for _ in range(150)] == [(CLIENTS[1], True)] * 150
        assert shown == []


@pytest.mark.parametrize("client", utils.download.clients.both_clients(), ids=lambda client: client.name)
def test_the_clients_can_be_watched(client):
    """Both clients still hold what carries their requests where the search looks for it."""
    with warnings.catch_warnings(record=True):
        client.connect()
    assert isinstance(client.watch.carrier, primp.Client), f"{client.name} has moved it: results fall back to its own"


def test_a_page_that_came_late_is_no_loss(web, monkeypatch):
    """ddgs gives a page up when its two requests together took too long; once it came, it counts."""
    web.rows["fish"] = [row(1)]
    monkeypatch.setattr("ddgs.ddgs.wait", lambda futures, **options: (set(), set(futures)))
    results = search_images("fish", max_results=1)
    assert [(result.url, result.engine) for result in results] == [(urls(1)[0], "ddgs")]


@pytest.fixture
def unwatched(web, monkeypatch):
    """The stand-in, before clients that let nobody replace what carries their requests."""

    def keep(client, carrier):
        if not isinstance(carrier, primp.Client):
            raise AttributeError
        client.__dict__["carrier"] = carrier

    for holder in ("ddgs.http_client.HttpClient", "duckduckgo_search.DDGS"):
        kept = property(lambda client: client.__dict__["carrier"], keep)
        monkeypatch.setattr(f"{holder}.client", kept, raising=False)
    return web


def test_an_unwatched_client_still_gives_what_it_can(unwatched):
    """Without the watch, the rows are those of the client's public side."""
    unwatched.rows["fish"] = [row(n) for n in range(150)]
    assert found() == urls(*range(150))
    assert steps(unwatched) == [1, 2]


def test_an_unwatched_second_client_ends_after_a_page(unwatched):
    """Without the watch the second client can't be asked for a later page: its first comes, and the search ends."""
    only(unwatched, "duckduckgo_search")
    unwatched.rows["fish"] = [row(n) for n in range(150)]
    assert found() == urls(*range(100))


@pytest.mark.parametrize("fault, error", [(REFUSED, SearchRefused), (RESET, SearchUnreachable)])
def test_unwatched_clients_tell_a_refusal_from_no_network(unwatched, fault, error):
    """Also without the watch, no network is no refusal."""
    unwatched.fail(1, fault, always=True)
    with pytest.raises(error):
        found()


def test_unwatched_and_nothing_found(unwatched):
    """Where the first client calls nothing found an error, the second tells."""
    assert found() == []
