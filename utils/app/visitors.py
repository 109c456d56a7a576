"""
The app's server: how many people may use the page at once, and under which names it answers.

Voila loads both classes; `make app` names them. Reads and writes nothing.
"""

import asyncio
import ipaddress
import time
from html import escape

from jupyter_server.auth.identity import PasswordIdentityProvider
from jupyter_server.base.call_context import CallContext
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.httputil import split_host_and_port
from tornado.web import Finish, RequestHandler
from traitlets import Integer, Unicode

from utils.words import counted

ASK_AGAIN = 60  # seconds until somebody who found no place should ask again
LEAVING = 8  # seconds in which the kernel of a page that was closed, or is loaded anew, is gone; after 5 it is killed
PLAIN_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<body style="font: 18px/1.5 system-ui, sans-serif; max-width: 32em; margin: 4em auto; padding: 0 1em">
<h1 style="font-size: 1.4em">{title}</h1>
<p>{words}</p>
</body>
</html>
"""


class LimitedKernels(AsyncMappingKernelManager):
    """Voila's kernels, one for each open page: about 300 MB each, and so no more than `most` at a time."""

    most = Integer(4, min=1, config=True, help="How many pages may be open at a time.")
    _starting = 0

    async def start_kernel(self, **options) -> str:
        """Start a kernel; if all places are taken, answer with a page that says so."""
        handler = CallContext.get(CallContext.JUPYTER_HANDLER)
        handler.xsrf_token  # noqa: B018 - sets the cookie without which the server refuses the page's goodbye
        given_up = time.monotonic() + LEAVING
        while self._full() and time.monotonic() < given_up:
            await asyncio.sleep(0.2)
        if self._full():
            self.log.warning("All %d places are taken; make app APP_PAGES=%d allows more.", self.most, 2 * self.most)
            handler.set_header("Retry-After", str(ASK_AGAIN))
            words = f"It has room for {counted(self.most, 'visitor')} at a time, and is full. Try again in a minute."
            finish_with(handler, 503, "The app is busy", words)
        self._starting += 1
        try:
            return await super().start_kernel(**options)
        finally:
            self._starting -= 1

    def _full(self) -> bool:
        return len(self) + self._starting >= self.most


class NamedHosts(PasswordIdentityProvider):
    """
    Voila's visitors, who must ask for this machine by a name of its own.

    A site of the web can have its own name lead to this machine, and its scripts would then count as this page's. But
    the browser still sends the name that it asked for.
    """

    names = Unicode("", config=True, help="More names of this machine, with blanks between.")

    def get_user(self, handler: RequestHandler):
        """Return the visitor; if the name is not this machine's, answer with a page that says so."""
        host = split_host_and_port(handler.request.host.lower())[0].strip("[]").rstrip(".")
        reached = handler.request.connection.stream.socket.getsockname()[0]
        if not is_own(host, reached, self.names.lower().split()):
            self.log.warning("Refused a page asked for as %r; make app APP_HOSTS=… names more hosts.", host[:253])
            words = (
                f"It was asked for as {host[:253]!r}. Whoever runs it can allow that name: make app APP_HOSTS={host}"
            )
            finish_with(handler, 403, "The app does not answer to this name", words)
        return super().get_user(handler)


def finish_with(handler: RequestHandler, status: int, title: str, words: str) -> None:
    """End a request with a plain page. Voila's page of errors needs a visitor who was let in."""
    handler.set_status(status)
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    raise Finish(PLAIN_PAGE.format(title=escape(title), words=escape(words)))


def is_own(host: str, reached: str, names: list[str]) -> bool:
    """
    Return whether a host is this machine: one of `names`, a local name, or the address that was `reached`.

    >>> [is_own(host, "127.0.0.1", ["lab-pc"]) for host in ("localhost", "127.0.0.1", "lab-pc", "evil.example")]
    [True, True, True, False]
    >>> is_own("192.168.1.5", "192.168.1.5", []), is_own("192.168.1.5", "127.0.0.1", [])
    (True, False)
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in names or host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or host in names or address == ipaddress.ip_address(reached.partition("%")[0])
