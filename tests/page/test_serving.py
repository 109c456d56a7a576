"""The page's server: as a static host, for this machine alone."""

import http.client
import socket

import pytest

from utils.errors import FieldguideError
from utils.page import served


@pytest.fixture
def site(tmp_path):
    """Return a folder with a page in it, and secrets beside and below it."""
    folder = tmp_path / "site"
    (folder / "runtime").mkdir(parents=True)
    for name in (
        "index.html",
        "a.mjs",
        "a.js",
        "a.wasm",
        "model.onnx",
        "a.json",
        "a.css",
        "a.svg",
        "A.JS",
        "a.strange",
    ):
        (folder / name).write_text(name)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / ".secret").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    return folder


def answer(address: str, path: str, method: str = "GET", **headers) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers in small letters and body; the path goes out as it is written."""
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("A.JS", "text/javascript; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("model.onnx", "application/octet-stream"),
        ("a.json", "application/json"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.strange", "application/octet-stream"),
    ],
)
def test_a_kind_is_told_alike_on_every_system(site, monkeypatch, name, kind):
    """Even where the system says that scripts are plain text, as some Windows registries do."""
    monkeypatch.setattr("mimetypes.guess_type", lambda *args, **options: ("text/plain", None))
    with served(site) as address:
        status, headers, body = answer(address, f"/{name}")
        assert (status, headers["content-type"], body) == (200, kind, (name or "index.html").encode())
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-cache"
        assert answer(address, f"/{name}?v=1", "HEAD")[::2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/%2e%2e/secret.txt", "/runtime/../../secret.txt", "//etc/passwd", "/..%5csecret.txt"),
        *(
            "/.secret",
            "/%2esecret",
            "/.git/config",
            "/.git/",
            "/runtime/",
            "/absent",
            "/%00",
            "/" + "a" * 5000,
            "/loop",
        ),
        *("/outside.txt", "/outside/secret.txt"),
    ],
)
def test_nothing_outside_nothing_hidden_and_no_listing(site, path):
    """Paths that climb, hidden files, folders without a page, links that lead out: not found."""
    (site / "outside.txt").symlink_to(site.parent / "secret.txt")
    (site / "outside").symlink_to(site.parent)
    (site / "loop").symlink_to(site / "loop")
    with served(site) as address:
        status, _, body = answer(address, path)
    assert status == 404 and b"secret" not in body and b"root:" not in body


def test_only_get_and_head_are_answered(site):
    """POST, PUT and DELETE are refused, and the file stays."""
    with served(site) as address:
        assert [answer(address, "/a.js", method)[0] for method in ("POST", "PUT", "DELETE", "OPTIONS")] == [501] * 4
    assert (site / "a.js").read_text() == "a.js"


def test_threads_are_allowed_where_they_are_wanted(site):
    """The two headers of isolation come with every answer, or with none."""
    names = ("cross-origin-opener-policy", "cross-origin-embedder-policy")
    with served(site, isolated=True) as address:
        answers = [answer(address, path)[1] for path in ("/", "/a.wasm", "/absent")]
    assert [[headers.get(name) for name in names] for headers in answers] == [["same-origin", "require-corp"]] * 3
    with served(site) as address:
        assert not set(names) & set(answer(address, "/")[1])


def test_a_foreign_name_of_this_machine_is_refused(site):
    """A page elsewhere that points its own name here reads nothing; localhost is a name of ours."""
    with served(site) as address:
        port = address.split(":")[2].strip("/")
        assert answer(address, "/", Host=f"evil.example:{port}")[0] == 421
        assert [answer(address, "/", Host=host)[0] for host in (f"localhost:{port}", "127.0.0.1")] == [200, 200]


def test_it_writes_nothing_and_ends_with_the_block(site, capfd):
    """No line per request, none for a browser that hangs up; afterwards the port is free again."""
    (site / "large.onnx").write_bytes(bytes(2**24))
    with served(site) as address:
        port = int(address.split(":")[2].strip("/"))
        with socket.create_connection(("127.0.0.1", port)) as hasty:
            hasty.sendall(b"GET /large.onnx HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer(address, "/absent")[0] == 404
    assert capfd.readouterr() == ("", "")
    with served(site, port=port) as again:
        assert again == address


def test_a_port_that_is_taken_is_told(site):
    """With its number and what to do; likewise a number that is no port."""
    with served(site) as address:
        port = int(address.split(":")[2].strip("/"))
        for wrong in (port, 70_000):
            with (
                pytest.raises(FieldguideError, match=f"port {wrong}: .+ Name another port, or none"),
                served(site, port=wrong),
            ):
                pass
