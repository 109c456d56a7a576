"""Fetching: a picture or the reason why not, in bounded time, from nowhere it should not be from."""

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from utils.fetch import Outcome, Rules, fetching
from utils.files import FieldguideError


def picture(seed, kind="JPEG", side=64):
    """A small picture as the bytes of a file; another seed is another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------
# A host on this machine that answers as planned
# ---------------------------------------------------------------------------------------------------------------


class Host(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        self.connection.settimeout(10)
        with suppress(OSError):
            getattr(self, self.path.split("?")[0].split("/")[1].split("%")[0].split("+")[0], self.gone)()

    def log_message(self, *args):
        pass

    def give(self, data, *, status=200, kind="image/jpeg", told=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if told is None else told))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def gone(self):
        self.give(b"", status=404)

    def photo(self):  # /photo/7: every number another picture
        self.give(picture(int(self.path.split("/")[2].split("?")[0])))

    def png(self):
        self.give(picture(1, "PNG"), kind="application/octet-stream", Content_Disposition='attachment; filename="../x"')

    def query(self):
        self.give(picture(int(self.path.split("=")[1])))

    def spaced(self):  # only the address with %20 is right
        self.give(picture(2)) if self.path == "/spaced%20name.jpg" else self.gone()

    def page(self):
        self.give(b"<html>not here</html>", kind="text/html; charset=utf-8")

    def empty(self):
        self.give(b"")

    def deleted(self):
        self.give(b"", status=410)

    def busy(self):  # twice busy, then well
        again = self.server.asked.count(self.path) > 2
        self.give(picture(3)) if again else self.give(b"", status=503)

    def cut(self):
        self.give(picture(4)[:500], told=5000)
        self.close_connection = True

    def large(self):
        self.give(b"\xff" * 60_000)

    def endless(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"\xff" * 60_000)

    def drip(self):  # a good picture, if one waits for three seconds
        self.send_response(200)
        self.end_headers()
        data = picture(6)
        for n in range(60):
            self.wfile.write(data[n : n + 1])
            self.server.closing.wait(0.05)
        self.wfile.write(data[60:])
        self.close_connection = True

    def hang(self):
        self.server.closing.wait(300)

    def dripping_header(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.closing.wait(0.05):
            self.wfile.write(b"x")

    def noai(self):
        self.give(picture(5), X_Robots_Tag="noai, noimageai")

    def redirect(self):  # /redirect?<where to>
        self.give(b"", status=302, Location=self.path.split("?", 1)[1])


@contextmanager
def serving() -> Iterator[SimpleNamespace]:
    """Serve as planned; url = "http://localhost:port", asked = the paths asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.daemon_threads = True
    server.asked, server.closing = [], threading.Event()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    port = server.server_address[1]
    yield SimpleNamespace(url=f"http://localhost:{port}", port=port, asked=server.asked)
    server.closing.set()
    server.shutdown()
    server.server_close()


def without_proxy(monkeypatch) -> None:
    """Fetch directly, whatever this machine is set to."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    without_proxy(monkeypatch)


@pytest.fixture
def host():
    with serving() as host:
        yield host


def fetch(*addresses, hosts=("localhost",), **rules) -> list[Outcome]:
    """Fetch addresses, each alone or with that of its thumbnail; "localhost" is allowed."""
    pairs = [(address, "") if isinstance(address, str) else address for address in addresses]
    asked = [(n, *pair) for n, pair in enumerate(pairs)]
    with fetching(asked, Rules(frozenset(hosts), **rules)) as outcomes:
        found = list(outcomes)
    assert [n for n, _ in found] == list(range(len(asked)))
    return [outcome for _, outcome in found]


def names_lead(monkeypatch, answer):
    """Have every host name resolved by `answer`, a coroutine function without arguments."""

    async def resolve(self, *args, **options):
        return await answer()

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", resolve)


# ---------------------------------------------------------------------------------------------------------------
# One picture
# ---------------------------------------------------------------------------------------------------------------


def test_query_string_belongs_to_the_address(host):
    """Two addresses that differ in their query are two pictures."""
    assert fetch(*(f"{host.url}/query?item={n}" for n in (1, 2))) == [Outcome(picture(1)), Outcome(picture(2))]


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/nothing", ("failed", "HTTP 404")),
        ("/deleted", ("failed", "HTTP 410")),
        ("/page", ("failed", "not a picture: text/html")),
        ("/empty", ("failed", "not a picture: empty")),
        ("/large", ("failed", "larger than 0.05 MB")),
        ("/endless", ("failed", "larger than 0.05 MB")),
        ("/drip", ("failed", "not whole after 1 s")),
        ("/dripping_header", ("failed", "not whole after 1 s")),
        ("/noai", ("refused", "the site asks not to be used for training (noai)")),
        ("/redirect?file:///etc/passwd", ("refused", "file: address, not http or https")),
        ("/redirect?http://127.0.0.1:1/photo/1", ("refused", "private address 127.0.0.1")),
        ("/redirect?http://[::1]:1/photo/1", ("refused", "private address ::1")),
        ("/redirect?http://169.254.169.254/latest", ("refused", "private address 169.254.169.254")),
        ("/redirect?http://2130706433/photo/1", ("refused", "private address 2130706433")),
        ("/redirect?http://metadata.google.internal/", ("refused", "private address metadata.google.internal")),
        ("/redirect?" * 11, ("failed", "more than 5 redirects")),
        ("/redirect?http://[::1", ("failed", "redirects to no valid address")),
    ],
)
def test_says_why_there_is_no_picture(host, path, expected):
    """Each bad answer ends in its reason, in bounded time, and without bytes."""
    (outcome,) = fetch(host.url + path, deadline=1.0, largest=50_000)
    assert (outcome.status, outcome.reason, outcome.data) == (*expected, b"")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "data:image/png;base64,AA", "http://", "/a.jpg", "", "http://a b"]
)
def test_only_web_addresses(url):
    """What is no http address is refused or failed with a reason, never read."""
    (outcome,) = fetch(url)
    assert outcome.status in ("refused", "failed") and outcome.reason and not outcome.data


def test_a_private_host_must_be_allowed_by_name(host):
    """The same picture is refused where its host is not named."""
    assert fetch(f"{host.url}/photo/1", hosts=[]) == [Outcome(b"", "refused", "private address localhost")]
    assert host.asked == []


def test_a_name_that_leads_to_a_private_address(host, monkeypatch):
    """A public-looking name is judged by what it resolves to."""

    async def home():
        return [(2, 1, 6, "", ("127.0.0.1", 0))]

    names_lead(monkeypatch, home)
    (outcome,) = fetch(f"http://pictures.example.org:{host.port}/photo/1")
    assert outcome.reason == "private address 127.0.0.1 behind pictures.example.org"
    assert host.asked == []


def test_follows_a_redirect(host):
    """A redirect to an allowed host is followed."""
    assert fetch(f"{host.url}/redirect?/photo/1") == [Outcome(picture(1))]


def test_asks_a_busy_host_again(host):
    """503 is asked again; 404 and 410 are not."""
    outcomes = fetch(f"{host.url}/busy", f"{host.url}/nothing", f"{host.url}/deleted")
    assert [outcome.status for outcome in outcomes] == ["kept", "failed", "failed"]
    assert sorted(host.asked) == ["/busy", "/busy", "/busy", "/deleted", "/nothing"]


def test_a_broken_off_body_is_no_picture(host):
    """A body shorter than was told is asked for again and, short again, not kept."""
    assert fetch(f"{host.url}/cut") == [Outcome(b"", "failed", "broken off (RemoteProtocolError)")]
    assert len(host.asked) == 3


def test_repairs_an_address_after_a_404(host):
    """Where a search client wrote + for %20, the second form is tried."""
    assert fetch(f"{host.url}/spaced+name.jpg") == [Outcome(picture(2))]


def test_a_thumbnail_takes_the_place_of_a_failed_picture(host):
    """A picture that failed is replaced by its thumbnail, which says so; a refused one is not."""
    outcomes = fetch(
        (f"{host.url}/nothing", f"{host.url}/photo/1"),
        ("http://10.0.0.1/x.jpg", f"{host.url}/photo/2"),
        (f"{host.url}/page", f"{host.url}/nothing"),
    )
    assert outcomes == [
        Outcome(picture(1), "thumbnail", "HTTP 404"),
        Outcome(b"", "refused", "private address 10.0.0.1"),
        Outcome(b"", "failed", "not a picture: text/html"),
    ]
    assert "/photo/2" not in host.asked


# ---------------------------------------------------------------------------------------------------------------
# Many
# ---------------------------------------------------------------------------------------------------------------


def test_outcomes_come_in_the_order_asked(host):
    """Whichever answers first, however few are under way at a time."""
    asked = [(path, f"{host.url}/{path}", "") for path in ("busy", "nothing", *(f"photo/{n}" for n in range(9)))]
    with fetching(asked, Rules(frozenset(["localhost"])), window=3) as outcomes:
        assert [path for path, _ in outcomes] == [path for path, _, _ in asked]


def test_leaving_early_drops_what_is_under_way(host):
    """A hanging fetch does not hold up the end, and no thread is left behind."""
    asked = [(n, f"{host.url}/{path}", "") for n, path in enumerate(("photo/1", "hang", "hang?2"))]
    with fetching(asked, Rules(frozenset(["localhost"]), deadline=300), window=2) as outcomes:
        assert next(outcomes) == (0, Outcome(picture(1)))
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_dead_hosts_are_told_where_there_is_a_network(host, monkeypatch):
    """When the probe answers, the hosts are dead, each with its reason."""
    monkeypatch.setattr("utils.fetch.PROBE", f"{host.url}/page")
    monkeypatch.setattr("utils.fetch.TRIES", 1)
    outcomes = fetch(*(f"http://{name}.invalid/x.jpg" for name in "abc"))
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("failed", "no such host")] * 3


def test_a_network_that_hangs_is_no_network(host, monkeypatch):
    """Where nothing answers before the deadline, the probe included, no host is blamed for it."""
    monkeypatch.setattr("utils.fetch.PROBE", "http://probe.example.org/")
    names_lead(monkeypatch, asyncio.Event().wait)
    with pytest.raises(FieldguideError, match=r"no network.*3 addresses.*not whole after 0.2 s"):
        fetch(*(f"http://{name}.example.org/x.jpg" for name in "abc"), deadline=0.2)
