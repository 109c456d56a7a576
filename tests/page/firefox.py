"""A Firefox without a window, driven by WebDriver BiDi: commands as JSON over a web socket, and no driver program."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import aiohttp

NAMES = ("firefox-esr", "firefox")
PATIENCE = 120  # seconds for its start, and for each command
PREFERENCES = (  # it asks nobody for news, updates or experiments
    'user_pref("app.update.disabledForTesting", true);\n'
    'user_pref("datareporting.policy.dataSubmissionEnabled", false);\n'
    'user_pref("network.captive-portal-service.enabled", false);\n'
    'user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");\n'
)


class Firefox:
    """An open window; a command that Firefox refuses raises AssertionError with its words."""

    def __init__(self, run, socket):
        self._run, self._socket, self._number = run, socket, 0
        self._command("session.new", capabilities={})
        self._window = self._command("browsingContext.getTree")["contexts"][0]["context"]

    def _command(self, method: str, **details) -> dict:
        return self._run(asyncio.wait_for(self._answer(method, details), PATIENCE))

    async def _answer(self, method: str, details: dict) -> dict:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": details})
        while (answer := await self._socket.receive_json()).get("id") != self._number:
            pass  # an event
        assert answer["type"] == "success", answer
        return answer["result"]

    def goto(self, address: str) -> None:
        """Open an address and wait until all of it is loaded."""
        self._command("browsingContext.navigate", context=self._window, url=address, wait="complete")

    def evaluate(self, function: str, given=None):
        """Return what a function of JavaScript makes of an argument, after waiting for its promise; both go as JSON."""
        details = {"target": {"context": self._window}, "awaitPromise": True}
        details["functionDeclaration"] = f"async (given) => JSON.stringify(await ({function})(JSON.parse(given)))"
        details["arguments"] = [{"type": "string", "value": json.dumps(given)}]
        answer = self._command("script.callFunction", **details)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])


@contextmanager
def firefox() -> Iterator[Firefox | None]:
    """Yield a Firefox with a new profile; None if there is none."""
    if not (program := next(filter(None, map(shutil.which, NAMES)), None)):
        yield None
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        Path(profile, "user.js").write_text(PREFERENCES)
        command = [program, "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", profile]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ | {"HOME": profile}}
        process = subprocess.Popen(command, **quiet)
        # A thread of its own: Playwright, which other tests use, keeps an event loop in this one.
        with ThreadPoolExecutor(1) as thread:
            runner = asyncio.Runner()
            try:
                connected = _connected(Path(profile, "WebDriverBiDiServer.json"))
                session, socket = thread.submit(runner.run, connected).result()
                yield Firefox(lambda task: thread.submit(runner.run, task).result(), socket)
                thread.submit(runner.run, session.close()).result()
            finally:
                process.kill()
                process.wait()
                thread.submit(runner.close).result()


async def _connected(told: Path) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    async with asyncio.timeout(PATIENCE):
        while not (told.is_file() and told.read_text()):  # Firefox writes it once it listens
            await asyncio.sleep(0.05)
    address, session = json.loads(told.read_text()), aiohttp.ClientSession()
    return session, await session.ws_connect(f"ws://{address['ws_host']}:{address['ws_port']}/session", max_msg_size=0)
