"""Fetching: a picture or the reason why not, in bounded time, from nowhere it should not be from."""

import asyncio
import socket
import ssl
import threading
import tracemalloc
from base64 import b64encode

import pytest
import trustme
from hypothesis import example, given, strategies
from standin_host import SERVED, bomb, picture, serving, without_proxy

from utils.addresses import is_private
from utils.download.answers import Fetched, forbids_training, seconds_asked
from utils.download.fetch import HEADERS, Rules
from utils.download.queue import believed, fetching
from utils.download.report import kind_of_reason
from utils.errors import FieldguideError


@pytest.fixture(autouse=True)
def as_it_was_made(monkeypatch):
    """Without the proxy of this machine, and with hardly a pause between two tries."""
    without_proxy(monkeypatch)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr("utils.download.fetch.PAUSE", 0.01)


@pytest.fixture
def host():
    with serving() as host:
        yield host


def fetch(*addresses, hosts=None, **rules) -> list[Fetched]:
    """Fetch addresses, each alone or with that of its thumbnail; the stand-in is allowed."""
    pairs = [(address, "") if isinstance(address, str) else address for address in addresses]
    asked = [(n, *pair) for n, pair in enumerate(pairs)]
    with fetching(asked, Rules(SERVED if hosts is None else hosts, **rules)) as outcomes:
        found = list(outcomes)
    assert [n for n, _ in found] == list(range(len(asked)))
    return [outcome for _, outcome in found]


def kept(data: bytes, *rest) -> Fetched:
    """What becomes of one of `picture`."""
    return Fetched(data, *rest, extension="jpg", width=72, height=64)


def certified(tmp_path, monkeypatch, name) -> ssl.SSLContext:
    """What a host of this name shows to prove it, by an authority that is then the only one trusted."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return tls


def names_lead(monkeypatch, answer):
    """Have every host name lead where `answer` says, a coroutine function without arguments."""

    async def resolve(self, host, port, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (await answer(), port))]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", resolve)


# ---------------------------------------------------------------------------------------------------------------
# One picture
# ---------------------------------------------------------------------------------------------------------------


def test_query_string_belongs_to_the_address(host):
    """Two addresses that differ in their query are two pictures."""
    assert fetch(*(f"{host.url}/query?item={n}" for n in (1, 2))) == [kept(picture(1)), kept(picture(2))]


@pytest.mark.parametrize(
    "given, sent",
    [
        ("a%2Fb+c%7E~d%20e%c3%b6,(f);g=h&i[j]@k:l'm!$*", "a%2Fb+c%7E~d%20e%c3%b6,(f);g=h&i[j]@k:l'm!$*"),
        ("a?b=c/d?e%2B+%20&f;g#h", "a?b=c/d?e%2B+%20&f;g"),
        ('ä b"<>|', "%C3%A4%20b%22%3C%3E%7C"),
        ("100%?50%zz", "100%25?50%25zz"),
        ("./a/../b//c/", "./a/../b//c/"),
        ("x" * 3000, "x" * 3000),
    ],
)
def test_an_address_is_asked_for_as_it_was_found(host, monkeypatch, given, sent):
    """What is legal goes out byte for byte, all else percent-encoded; through a proxy as directly."""
    fetch(f"{host.url}/photo/1/{given}")
    monkeypatch.setenv("http_proxy", host.proxy)
    fetch(f"http://pictures.example/photo/1/{given}")
    assert host.asked == [f"/photo/1/{sent}", f"http://pictures.example/photo/1/{sent}"]


def test_nobody_is_told_who_asks(host, monkeypatch, tmp_path):
    """No password of the address or of ~/.netrc, no cookie and no referrer is sent, before a redirect or after."""
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fetch(f"{host.url.replace('//', '//me:secret@')}/cookie", f"{host.url}/photo/60") == [kept(picture(60))] * 2
    assert host.asked.count("/photo/60") == 2
    assert host.heads == [HEADERS | {"Accept-Encoding": "identity", "Host": f"localhost:{host.port}"}] * 3


def test_a_kept_connection_may_be_closed(host, monkeypatch):
    """Asking where the host has hung up meanwhile counts for no try: the same is asked over a new connection."""
    monkeypatch.setattr("utils.download.fetch.TRIES", 1)
    urls = [f"{host.url}/hangs_up?{n}" for n in range(3)]
    assert fetch(*urls, workers=1) == [kept(picture(59))] * 3
    assert [host.asked.count(f"/hangs_up?{n}") for n in range(3)] == [1, 2, 2]


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/nothing", ("failed", "HTTP 404")),
        ("/status/410", ("failed", "HTTP 410")),
        ("/page", ("failed", "not a picture: text/html")),
        ("/empty", ("failed", "not a picture: empty")),
        ("/large", ("failed", "larger than 0.05 MB")),
        ("/endless", ("failed", "larger than 0.05 MB")),
        ("/dripping", ("failed", "not whole after 1 s")),
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
    assert fetch(f"{host.url}/photo/1", hosts=[]) == [Fetched(b"", "refused", "private address localhost")]
    assert fetch(f"{host.url}/photo/2") == [kept(picture(2))]
    assert (host.server.connections, host.asked) == (1, ["/photo/2"])


def test_a_port_must_be_allowed_too(host):
    """A host's name opens the ports of http and https; another one is named with it, and is told where it is not."""
    (refused,) = fetch(f"{host.url}/photo/1", hosts="localhost")
    told = f"allowed_hosts has port 80 and 443 of it; for this one, add {host.name}"
    assert (refused.status, refused.reason) == ("refused", f"private address localhost ({told})")
    with serving() as other:
        through, direct = fetch(f"{host.url}/redirect?{other.url}/photo/1", f"{host.url}/photo/2", hosts=[host.name])
        assert (through.status, direct.status, other.asked) == ("refused", "kept", [])
    assert kind_of_reason(refused.reason) == "private address"


@pytest.mark.parametrize("name", ["http://nas.local", "nas:0", "nas:65536", "nas local", ""])
def test_a_host_that_is_none_is_told(name):
    """What is not a host, or a host and a port, is refused before anything is asked."""
    with pytest.raises(FieldguideError, match=f"allowed_hosts: {name!r} is not the name of a host"):
        fetch("http://nas.local/a.jpg", hosts=[name])


def test_a_name_that_leads_to_a_private_address(host, monkeypatch):
    """A public-looking name is judged by what it resolves to, and not even connected to."""

    async def home():
        return "127.0.0.1"

    with monkeypatch.context() as names:
        names_lead(names, home)
        (outcome,) = fetch(f"http://pictures.example.org:{host.port}/photo/1")
    assert outcome.reason == "private address 127.0.0.1 behind pictures.example.org"
    assert fetch(f"{host.url}/photo/2") == [kept(picture(2))]
    assert (host.server.connections, host.asked) == (1, ["/photo/2"])


def test_a_name_that_leads_elsewhere_the_second_time(host, monkeypatch):
    """What is connected to is what was judged: a name that is public at first and private then is asked for once."""
    answers = iter(["127.0.0.1"])

    async def turning():
        return next(answers, "127.0.0.2")

    names_lead(monkeypatch, turning)
    monkeypatch.setattr(
        "utils.download.fetch.is_private", lambda address: address != "127.0.0.1" and is_private(address)
    )
    url = f"http://pictures.example.org:{host.port}/photo/1"
    assert fetch(url) == [kept(picture(1))]
    (later,) = fetch(url)
    assert (later.status, later.reason) == ("refused", "private address 127.0.0.2 behind pictures.example.org")


def test_a_public_host_needs_no_permission(host, monkeypatch):
    """What is public by its name, its address and its connection is fetched."""

    async def home():
        return "127.0.0.1"

    names_lead(monkeypatch, home)
    monkeypatch.setattr(
        "utils.download.fetch.is_private", lambda address: address != "127.0.0.1" and is_private(address)
    )
    url = f"http://pictures.example.org:{host.port}"
    assert fetch(*(f"{url}/photo/{n}" for n in (1, 2)), hosts=[]) == [kept(picture(1)), kept(picture(2))]


@given(strategies.text())
@example("5\x1f")
def test_no_header_is_too_odd(text):
    """Whatever a host writes into a header is read as something or nothing."""
    assert seconds_asked(text) >= 0
    assert forbids_training([text]) in (True, False)


@pytest.mark.parametrize("path", ["/noai", "/noimageai"])
def test_noai_can_be_passed_over(host, path):
    """With the switch off, a picture is fetched whatever its site wishes."""
    (outcome,) = fetch(host.url + path, honour_noai=False)
    assert outcome.status == "kept"


@pytest.mark.parametrize("path", ["/gzip_bomb", "/endless", "/endless_chunks"])
def test_no_more_is_held_than_is_allowed(host, path):
    """Of a body that does not end, or inflates beyond the largest size, little more than that size is ever held."""
    assert len(bomb()) < 100_000
    tracemalloc.start()
    (outcome,) = fetch(host.url + path, largest=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (outcome.status, outcome.reason) == ("failed", "larger than 1 MB")
    assert peak < 10_000_000


@pytest.mark.parametrize("secure", [False, True])
def test_an_endless_body_is_hung_up_on(tmp_path, monkeypatch, secure):
    """As soon as it is too large, and not only at the end of the run."""
    with serving(certified(tmp_path, monkeypatch, "pictures.example")) as host:
        monkeypatch.setenv("https_proxy", host.proxy)
        url = "https://pictures.example" if secure else host.url
        rules = Rules(host.name, largest=1_000_000)
        with fetching([(0, f"{url}/endless", "")], rules) as outcomes:
            assert [outcome.reason for _, outcome in outcomes] == ["larger than 1 MB"]
            assert host.server.left.wait(5)


def test_follows_a_redirect(host):
    """A redirect to an allowed host is followed."""
    assert fetch(f"{host.url}/redirect?/photo/1") == [kept(picture(1))]


def test_asks_a_busy_host_again(host):
    """503 is asked again; 404 and 410 are not."""
    outcomes = fetch(f"{host.url}/busy", f"{host.url}/nothing", f"{host.url}/status/410")
    assert [outcome.status for outcome in outcomes] == ["kept", "failed", "failed"]
    assert sorted(host.asked) == ["/busy", "/busy", "/busy", "/nothing", "/status/410"]


def test_waits_before_it_asks_a_busy_host_again(host, monkeypatch):
    """At least half a second, then at least a whole one, varied; longer if the host asks for more."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("utils.download.fetch.PAUSE", 0.5)
    monkeypatch.setattr("asyncio.sleep", sleep)
    assert [*fetch(f"{host.url}/busy"), *fetch(f"{host.url}/busy_seven")] == [kept(picture(3)), kept(picture(54))]
    first, second, told = (wait for wait in waits if wait)
    assert 0.5 <= first <= 0.75 and 1 <= second <= 1.5 and told == 7


def test_a_broken_off_body_is_no_picture(host):
    """A body shorter than was told is asked for again and, short again, not kept."""
    assert fetch(f"{host.url}/cut") == [Fetched(b"", "failed", "broken off", passing=True)]
    assert len(host.asked) == 3


def test_repairs_an_address_after_a_404(host):
    """Where a search client wrote + for %20, the second form is tried."""
    assert fetch(f"{host.url}/spaced+name.jpg") == [kept(picture(2))]


def test_a_thumbnail_takes_the_place_of_a_failed_picture(host):
    """A picture that failed is replaced by its thumbnail, which says so; a refused one is not."""
    outcomes = fetch(
        (f"{host.url}/nothing", f"{host.url}/photo/1"),
        ("http://10.0.0.1/x.jpg", f"{host.url}/photo/2"),
        (f"{host.url}/page", f"{host.url}/nothing"),
    )
    assert outcomes == [
        kept(picture(1), "thumbnail", "HTTP 404"),
        Fetched(b"", "refused", "private address 10.0.0.1"),
        Fetched(b"", "failed", "not a picture: text/html"),
    ]
    assert "/photo/2" not in host.asked


# ---------------------------------------------------------------------------------------------------------------
# What the machine is set to
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_is_asked(host, monkeypatch, name):
    """A proxy, at home too, resolves names, so none is looked up here; private addresses are refused all the same."""
    monkeypatch.setenv(name, host.url if name == "HTTP_PROXY" else f"127.0.0.1:{host.port}")
    outcomes = fetch("http://pictures.invalid/photo/1", "http://10.0.0.1/photo/1", "http://printer.local/photo/1")
    assert outcomes == [
        kept(picture(1)),
        Fetched(b"", "refused", "private address 10.0.0.1"),
        Fetched(b"", "refused", "private address printer.local"),
    ]
    assert host.asked == ["http://pictures.invalid/photo/1"]


@pytest.mark.parametrize("name", ["localhost", "localhost:{port}", "*"])
def test_no_proxy_leads_past_it(host, monkeypatch, name):
    """A host that NO_PROXY names, with or without its port, is asked directly."""
    monkeypatch.setenv("http_proxy", host.proxy)
    assert fetch(f"{host.url}/photo/1") == [kept(picture(1))]
    monkeypatch.setenv("NO_PROXY", name.format(port=host.port))
    assert fetch(f"{host.url}/photo/2") == [kept(picture(2))]
    assert host.asked == [f"{host.url}/photo/1", "/photo/2"]


def test_a_proxy_alone_hears_its_password(tmp_path, monkeypatch):
    """The name and password in its address open the proxy, and go no further."""
    with serving(certified(tmp_path, monkeypatch, "pictures.example")) as host:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, host.proxy.replace("//", "//me:se%40cret@"))
        fetch("http://pictures.example/photo/1", "https://pictures.example/photo/2", workers=1)
        heard = [(asked, head.get("Proxy-Authorization")) for asked, head in zip(host.asked, host.heads, strict=True)]
    password = f"Basic {b64encode(b'me:se@cret').decode()}"
    assert heard == [
        ("http://pictures.example/photo/1", password),
        ("CONNECT pictures.example:443", password),
        ("/photo/2", None),
    ]


def test_certificates_are_those_the_machine_trusts(tmp_path, monkeypatch):
    """Https is trusted by the authorities that SSL_CERT_FILE names, and no others; for the very host that was meant."""
    with serving(certified(tmp_path, monkeypatch, "pictures.example")) as host:
        monkeypatch.setenv("https_proxy", host.proxy)
        known, other = fetch("https://pictures.example/photo/1", "https://other.example/photo/1", workers=1)
        monkeypatch.delenv("SSL_CERT_FILE")
        (stranger,) = fetch("https://pictures.example/photo/1")
        assert host.asked == [
            "CONNECT pictures.example:443",
            "/photo/1",
            "CONNECT other.example:443",
            "CONNECT pictures.example:443",
        ]
    assert known == kept(picture(1))
    assert all("CERTIFICATE_VERIFY_FAILED" in outcome.reason for outcome in (other, stranger))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("ALL_PROXY", "socks5://me:secret@proxy.example:1080", "'proxy.example'.*the form http://host:port.*SOCKS"),
        ("HTTPS_PROXY", "gopher://me:secret@proxy.example", "cannot be used for https.*Correct HTTP_PROXY"),
        ("HTTP_PROXY", "http://me:secret@proxy.example:port", "cannot be used for http:.*Correct HTTP_PROXY"),
        ("SSL_CERT_FILE", "/no/such/file.pem", "SSL_CERT_FILE"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told(monkeypatch, name, value, message):
    """A proxy or certificate that will not do is an error to put right, without the password and without a trace."""
    monkeypatch.setenv(name, value)
    with pytest.raises(FieldguideError, match=message) as raised:
        fetch("http://pictures.example/photo/1")
    assert "secret" not in str(raised.value)
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


# ---------------------------------------------------------------------------------------------------------------
# Many
# ---------------------------------------------------------------------------------------------------------------


def test_outcomes_come_in_the_order_asked(host):
    """Whichever answers first, however few are under way at a time."""
    asked = [(path, f"{host.url}/{path}", "") for path in ("busy", "nothing", *(f"photo/{n}" for n in range(9)))]
    with fetching(asked, Rules(host.name), window=3) as outcomes:
        assert [path for path, _ in outcomes] == [path for path, _, _ in asked]


def test_addresses_are_pulled_as_they_are_needed(host):
    """No more pictures than the window are asked for ahead of the one that is handed over."""
    pulled = []

    def addresses():
        for n in range(9):
            pulled.append(n)
            yield n, f"{host.url}/photo/{n}", ""

    with fetching(addresses(), Rules(host.name), window=3) as outcomes:
        assert [len(pulled) - n for n, _ in outcomes] == [3] * 7 + [2, 1]


def test_a_search_that_fails_half_way_loses_nothing(host, monkeypatch):
    """What came before the failure is fetched and told, dead hosts too; then the failure is raised."""
    monkeypatch.setattr("utils.download.fetch.TRIES", 1)
    monkeypatch.setattr("utils.download.fetch.PROBE", f"{host.url}/page")

    def addresses():
        for n, url in enumerate([f"{host.url}/photo/1", "http://a.invalid/x.jpg", "http://b.invalid/x.jpg"]):
            yield n, url, ""
        raise FieldguideError("The search was refused.")

    found = []
    with (
        pytest.raises(FieldguideError, match="The search was refused"),
        fetching(addresses(), Rules(host.name)) as outcomes,
    ):
        for n, outcome in outcomes:
            found.append((n, outcome.status, outcome.reason))
    assert found == [(0, "kept", ""), (1, "failed", "no such host"), (2, "failed", "no such host")]


def test_a_host_is_asked_for_four_at_a_time(host):
    """Four at once, as eight fetches that are answered by fours show, and never a fifth."""
    outcomes = fetch(*(f"{host.url}/together?{n}" for n in range(8)))
    assert outcomes == [kept(picture(71))] * 8
    assert host.server.crowd == 4


def test_leaving_early_drops_what_is_under_way(host):
    """A hanging fetch does not hold up the end, and no thread is left behind."""
    asked = [(n, f"{host.url}/{path}", "") for n, path in enumerate(("photo/1", "hang", "hang?2"))]
    with fetching(asked, Rules(host.name, deadline=300), window=2) as outcomes:
        assert next(outcomes) == (0, kept(picture(1)))
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def test_dead_hosts_are_told_where_there_is_a_network(host, monkeypatch):
    """When the probe answers, the hosts are dead, each with its reason."""
    monkeypatch.setattr("utils.download.fetch.PROBE", f"{host.url}/page")
    monkeypatch.setattr("utils.download.fetch.TRIES", 1)
    outcomes = fetch(*(f"http://{name}.invalid/x.jpg" for name in "abc"))
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("failed", "no such host")] * 3


def test_a_network_that_hangs_is_no_network(host, monkeypatch):
    """Where nothing answers before the deadline, the probe included, no host is blamed for it."""
    monkeypatch.setattr("utils.download.fetch.PROBE", "http://probe.example.org/")
    names_lead(monkeypatch, asyncio.Event().wait)
    with pytest.raises(FieldguideError, match=r"no network.*3 addresses.*not whole after 0.2 s"):
        fetch(*(f"http://{name}.example.org/x.jpg" for name in "abc"), deadline=0.2)


@pytest.mark.parametrize("count", [2, 30])
def test_one_dead_host_is_told_from_no_network(host, monkeypatch, count):
    """Where nobody answers, not even the probe, no address of however few hosts counts as asked for."""
    monkeypatch.setattr("utils.download.fetch.PROBE", "http://probe.invalid/")
    monkeypatch.setattr("utils.download.fetch.TRIES", 1)
    good = [f"{host.url}/photo/1"]
    dead = [f"http://gone.invalid/{n}.jpg" for n in range(count)]
    with pytest.raises(FieldguideError, match="no network"):
        fetch(*good, *dead)


def test_a_slow_host_takes_nobodys_turn(host):
    """While more addresses wait for one host than there are turns, another host is asked all the same."""
    slow = [f"{host.url}/hang?{n}" for n in range(12)]
    other = f"http://127.0.0.1:{host.port}/photo/1"
    outcomes = fetch(*slow, other, hosts=(host.name, f"127.0.0.1:{host.port}"), workers=6, per_host=2, deadline=0.7)
    assert outcomes[-1].status == "kept"
    assert host.asked.index("/photo/1") < 4


def test_what_was_refused_tells_nothing_of_the_network(host, monkeypatch):
    """Addresses refused unasked, between dead ones, are no sign of a network; one host that answers is."""
    monkeypatch.setattr("utils.download.fetch.PROBE", "http://probe.invalid/")
    monkeypatch.setattr("utils.download.fetch.TRIES", 1)
    dead = [url for n in range(30) for url in (f"http://gone.invalid/{n}.jpg", "file:///etc/passwd")]
    with pytest.raises(FieldguideError, match="no network"):
        fetch(*dead)
    outcomes = fetch("http://gone.invalid/x.jpg", "file:///etc/passwd", f"{host.url}/photo/1")
    assert [outcome.status for outcome in outcomes] == ["failed", "refused", "kept"]


def test_no_network_isbelieved_at_once():
    """When 12 addresses are dead and the probe too, that is the end: an error, and nothing passed over."""
    answers = iter([False, True])  # a network that is back a moment later
    dead = iter([(n, Fetched(b"", "failed", "no such host", unreached=True)) for n in range(60)])
    with pytest.raises(FieldguideError, match="no network: the last 12 addresses"):
        list(believed(dead, lambda: next(answers)))
    assert next(dead)[0] == 12


def test_dead_hosts_among_living_ones_are_not_probed_for():
    """As long as some host answers now and then, nobody asks whether there is a network."""
    dead, alive = Fetched(b"", "failed", "no such host", unreached=True), Fetched(b"x")
    outcomes = [(n, alive if n % 10 == 9 else dead) for n in range(100)]
    assert list(believed(outcomes, lambda: pytest.fail("the network was probed"))) == outcomes
