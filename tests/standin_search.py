"""
DuckDuckGo's picture search, played on this machine, for tests with the real clients.

It is a proxy on 127.0.0.1 that answers for duckduckgo.com with a certificate of its own. It keeps the rules of the real
service. ``/`` gives a page that holds `vqd`. ``/i.js`` wants it back from the same User-Agent, with Referer and
Sec-Fetch-Mode, and gives pages of at most 100 rows. The clients find it by the two variables of `environment`. Faults
planned by `fail` come before anything else, one per request.
"""

import hashlib
import itertools
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import trustme

PAGE = 100  # rows
LONGEST_QUERY = 499  # characters
CLIENTS = ("ddgs", "duckduckgo_search")


@dataclass(frozen=True)
class Answer:
    """An answer; `then` is "hang" (say nothing), "reset" (close at once) or "cut" (stop in the middle)."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    then: str = ""


@dataclass(frozen=True)
class Asked:
    """A request: which client, which step ("vqd", or the number of a page), and its headers."""

    client: str
    step: str | int
    params: dict[str, str]
    headers: dict[str, str]


HANG, RESET, CUT = Answer(then="hang"), Answer(then="reset"), Answer(body=b'{"results": [{"ima', then="cut")
CAPTCHA = Answer(body=b"<html><body>Bots use this service too. Select all squares with a duck.</body></html>")
MALFORMED = Answer(body=b'{"results": [{"image": "https://exam')


def status(code: int, **headers: str) -> Answer:
    """Return a refusal; keywords are headers, such as ``Retry_After="7"``."""
    return Answer(code, {name.replace("_", "-"): value for name, value in headers.items()})


def listing(*rows: object) -> Answer:
    """Return a page of these rows instead of the right one."""
    return Answer(body=json.dumps({"results": list(rows)}).encode())


def row(n: object, **changes: object) -> dict:
    """Return one row as the service gives it."""
    site = "https://example.org"
    told = {"image": f"{site}/{n}.jpg", "url": f"{site}/{n}", "thumbnail": f"{site}/t{n}.jpg", "title": f"Fish {n}"}
    return told | {"width": 640, "height": 480, "source": "Bing"} | changes


class StandIn:
    """The running service: `rows` holds what each query finds, `asked` every request in its order."""

    def __init__(self, folder: Path):
        authority = trustme.CA()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.set_alpn_protocols(["http/1.1"])
        authority.issue_cert("duckduckgo.com").configure_cert(self._tls)
        authority.cert_pem.write_to_path(folder / "authority.pem")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False  # a hanging answer must not block others
        self._server.standin = self
        self._plan: dict[tuple[str, str | int], Iterator[Answer | None]] = {}
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.environment = {
            "DDGS_PROXY": f"http://127.0.0.1:{self._server.server_port}",
            "PRIMP_CA_BUNDLE": str(folder / "authority.pem"),
        }
        self.forget()

    def forget(self) -> None:
        """Forget the rows, the faults and the requests."""
        self.rows: dict[str, list] = {}
        self.asked: list[Asked] = []
        self.tunnel = 200  # the status of the proxy's own answers
        self._plan.clear()

    def fail(self, step: str | int, *faults: Answer | None, client: str = "", always: bool = False) -> None:
        """Plan faults for a step of one client or both: one per request (None: the right answer), or one always."""
        for name in [client] if client else CLIENTS:
            self._plan[name, step] = itertools.repeat(faults[0]) if always else iter(faults)

    def answer(self, asked: Asked) -> Answer:
        """Return the planned fault, else the right answer."""
        with self.lock:
            self.asked.append(asked)
            fault = next(self._plan.get((asked.client, asked.step), iter(())), None)
        query, agent = asked.params.get("q", ""), asked.headers.get("user-agent", "")
        vqd = "4-" + hashlib.sha256(f"{query}\n{agent}".encode()).hexdigest()
        if fault:
            return fault
        if len(query) > LONGEST_QUERY:
            return status(403)
        if asked.step == "vqd":
            return Answer(body=f'<html><script>vqd="{vqd}";</script></html>'.encode())
        allowed = (
            asked.params.get("vqd") == vqd
            and asked.headers.get("referer") == "https://duckduckgo.com/"
            and asked.headers.get("sec-fetch-mode") == "cors"
        )
        if not allowed:
            return status(403)
        rows, start = self.rows.get(query, []), int(asked.params.get("s", 0))
        page = {"query": query, "results": rows[start : start + PAGE]}
        if len(rows) > start + PAGE:
            page["next"] = f"i.js?q=x&o=json&s={start + PAGE}&u=bing"
        return Answer(body=json.dumps(page).encode())

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection: CONNECT first, then the requests inside the tunnel."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body come 40 ms apart

    def do_CONNECT(self) -> None:
        standin: StandIn = self.server.standin
        self.send_response(standin.tunnel if self.path == "duckduckgo.com:443" else 403)
        self.end_headers()
        if standin.tunnel == 200:
            self.connection = standin._tls.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
            self.close_connection = False

    def do_GET(self) -> None:
        standin: StandIn = self.server.standin
        parts = urlsplit(self.path)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        client = CLIENTS[0] if headers.get("accept") == "*/*" else CLIENTS[1]  # accepts what a browser would
        step = 1 + int(params.get("s", 0)) // PAGE if parts.path == "/i.js" else "vqd"
        answer = standin.answer(Asked(client, step, params, headers))
        self.close_connection = bool(answer.then)
        if answer.then == "hang":
            standin.closing.wait(30)
        if answer.then in ("hang", "reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + (100 if answer.then == "cut" else 0)))
        self.end_headers()
        self.wfile.write(answer.body)

    def handle(self) -> None:
        with suppress(OSError):  # a client may leave at any time
            super().handle()

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, *args: object) -> None:
        pass
