"""JupyterLab and Voila as programs of their own: settings in a folder of their own, ended with all their children."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from utils.project import REPOSITORY

STARTS_WITHIN = 60  # seconds; a slow machine takes a few
SETTINGS = {  # of JupyterLab: nothing asks or interrupts, all cells are on the page, widgets are saved
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}
UNUSED = {"jupyter_lsp": False, "jupyter_server_terminals": False, "voila.server_extension": False}


@dataclass(frozen=True)
class Server:
    """A running server: its address without a slash at the end, and the folder that it shows."""

    url: str
    folder: Path


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[Server]:
    """Serve the notebooks of a folder in JupyterLab and, at /notebooks, in Notebook 7, without a token."""
    options = ("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}",
               "--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True",
               "--JupyterNotebookApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
               f"--ServerApp.jpserver_extensions={UNUSED}")  # fmt: skip
    with _serving("jupyterlab", folder, "/api/status", *options, port="--ServerApp.port={}") as server:
        yield server


@contextmanager
def voila(notebook: Path) -> Iterator[Server]:
    """Serve one notebook as a page."""
    options = (str(notebook), "--no-browser", "--Voila.ip=127.0.0.1")
    with _serving("voila", notebook.parent, "/voila/static/voila.js", *options, port="--Voila.port={}") as server:
        yield server


@contextmanager
def _serving(module: str, folder: Path, sign: str, *options: str, port: str) -> Iterator[Server]:
    """Run `python -m module` until the end of the block; it is up when it answers at the path `sign`."""
    home = folder / f".{module}"
    number = _free_port()
    log = home / "log"
    environment = _environment(home)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *options, port.format(number)],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            _wait_until_up(f"http://127.0.0.1:{number}{sign}", process, log)
            yield Server(f"http://127.0.0.1:{number}", folder)
        finally:
            _end(process)


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of a server that knows nothing of this account's settings, and leaves none behind."""
    settings = home / "settings"
    for plugin, values in SETTINGS.items():
        path = settings / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
           "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "IPYTHONDIR": "ipython"}  # fmt: skip
    return os.environ | {name: str(home / folder) for name, folder in own.items()} | {
        "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "0", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_until_up(url: str, process: subprocess.Popen, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"no answer at {url} (exit status {process.poll()}):\n{log.read_text(errors='replace')[-3000:]}")


def _end(process: subprocess.Popen) -> None:
    """End a process and everything that it started: kernels would go on without their server."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        family = [process]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=30)
