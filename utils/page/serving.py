"""
A folder as a website for this machine alone, as a static host would serve it.

The page cannot be opened as a file: a browser loads modules, workers and a model from a web address only.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from utils.errors import FieldguideError

logger = logging.getLogger(__name__)

HERE = "127.0.0.1"
# Python's own guess asks the system, and on Windows any program may have registered .js as plain text.
MEDIA_TYPES = {
    **{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"},
    **{".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".wasm": "application/wasm"},
    **{".json": "application/json", ".webmanifest": "application/manifest+json", ".onnx": "application/octet-stream"},
    **{".txt": "text/plain; charset=utf-8", ".md": "text/plain; charset=utf-8", ".csv": "text/csv; charset=utf-8"},
    **{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".ico": "image/x-icon"},
}
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # variables of Linux, one of which is set where windows can open
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


@contextmanager
def served(folder: Path, *, isolated: bool = False, port: int = 0) -> Iterator[str]:
    """
    Serve the files of a folder to this machine, in a thread, while the block runs; yield the address.

    Only GET and HEAD are answered. A folder is answered with its index.html and is never listed; hidden files and links
    that lead out of the folder are not found.

    Parameters
    ----------
    isolated : bool
        Whether to send the two headers under which a browser lets WebAssembly use several threads.
    port : int
        By default any free one.

    Raises
    ------
    FieldguideError
        If another program uses the port, or this account may not.
    """
    handler = partial(_Files, directory=os.fspath(Path(folder).resolve()), more=ISOLATED if isolated else {})
    try:
        server = _Quiet((HERE, port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FieldguideError(
            f"The page cannot be served on port {port}: {reason}. Name another port, or none: then a free one is taken."
        ) from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{HERE}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def has_screen(environment: Mapping[str, str], platform: str = sys.platform) -> bool:
    """
    Return whether a browser can open a window; without a screen Python would start one inside the terminal.

    >>> has_screen({}, "linux"), has_screen({"DISPLAY": ":0"}, "linux"), has_screen({}, "darwin")
    (False, True, True)
    """
    return platform in ("win32", "darwin") or any(environment.get(name) for name in SCREENS)


class _Quiet(ThreadingHTTPServer):
    """A server that writes nothing to the terminal when a browser hangs up."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on Windows it would let two programs share one port

    def handle_error(self, request, client_address) -> None:
        logger.debug("a request failed", exc_info=True)


class _Files(SimpleHTTPRequestHandler):
    """Answers GET and HEAD with the files of one folder."""

    def __init__(self, *args, more: dict[str, str], **options):
        self._more = more
        super().__init__(*args, **options)

    def send_head(self):
        """Refuse what is hidden, outside, or asked for under another name of this machine, then do as usual."""
        # A page elsewhere may point its own name at 127.0.0.1 and read what is served here.
        if self.headers.get("Host", "").partition(":")[0] not in (HERE, "localhost"):
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        root = Path(self.directory)
        try:
            path = Path(self.translate_path(self.path))
            inside = path.resolve().is_relative_to(root)
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        except (OSError, ValueError, RuntimeError):  # a name too long, a zero byte, links in a circle
            return self.send_error(HTTPStatus.NOT_FOUND)
        if hidden or not inside:
            return self.send_error(HTTPStatus.NOT_FOUND)
        return super().send_head()

    def list_directory(self, path):
        """Answer a folder without index.html as if it were not there."""
        return self.send_error(HTTPStatus.NOT_FOUND)

    def guess_type(self, path) -> str:
        """Return the kind of a file by its name, alike on every system."""
        return MEDIA_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")

    def end_headers(self) -> None:
        """Add that a page written anew is seen at once, and that no other kind of file runs as a script."""
        for name, value in ({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"} | self._more).items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format, *args) -> None:
        """Keep the terminal for the address."""
        logger.debug(format, *args)
