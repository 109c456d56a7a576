"""`make page`: from a project to an address."""

import importlib
import os
import signal
import subprocess
import sys
import types
import urllib.request
from pathlib import Path

import pytest

from utils.errors import FieldguideError
from utils.export.page import WrittenPage
from utils.page import has_screen
from utils.project import REPOSITORY, Project


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return the command's module, in front of a page that is written without a model and a runtime."""
    module = importlib.import_module("utils.export.__main__")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("the page")
    monkeypatch.setattr(
        module,
        "Project",
        types.SimpleNamespace(load=lambda: Project(name="pets", labels={"cat": ["cat"], "dog": ["dog"]})),
    )
    monkeypatch.setattr(module, "fetch_runtime", dict)
    monkeypatch.setattr(module, "write_page", lambda project: WrittenPage(tmp_path / "page", None, 8))
    return module


@pytest.fixture
def opened(command, monkeypatch):
    """Return a list of what the command had a browser show; Ctrl-C is pressed once that has been read."""
    seen = []

    def show(address):
        with urllib.request.urlopen(address) as response:
            seen.append((address, response.read(), response.headers["Cross-Origin-Opener-Policy"]))

    def press(seconds):
        raise KeyboardInterrupt

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(command.webbrowser, "open", show)
    monkeypatch.setattr(command.time, "sleep", press)
    return seen


def test_the_page_opens_and_ctrl_c_ends_it_quietly(command, opened, capsys, tmp_path):
    """The browser sees the page, with the headers for threads; the terminal has folder, address and how to stop."""
    assert command.show_page([]) == 0
    ((address, body, policy),) = opened
    assert (body, policy) == (b"the page", "same-origin")
    out, err = capsys.readouterr()
    assert str(tmp_path / "page") in out and f"at {address} until you press Ctrl-C" in out and err == ""


def test_no_browser_opens_where_none_is_wanted_or_there_is_no_screen(command, opened, monkeypatch):
    """With --no-browser, and on a Linux machine without a screen."""
    assert command.show_page(["--no-browser"]) == 0
    monkeypatch.setattr(command, "has_screen", lambda environment: has_screen({}, "linux"))
    assert command.show_page([]) == 0
    assert opened == []


def test_the_port_is_the_one_that_was_asked_for(command, opened, capsys):
    """--port N names it; one that is taken is told in a sentence."""
    with command.served(Path(__file__).parent) as taken:
        port = taken.split(":")[2].strip("/")
        assert command.show_page(["--port", port]) == 1
    assert f"cannot be served on port {port}" in capsys.readouterr().err
    assert command.show_page(["--port", port]) == 0
    assert opened[0][0] == taken


def test_what_is_missing_is_said_without_a_traceback(command, opened, monkeypatch, capsys):
    """Such as a project that 07 has not exported: exit code 1."""

    def refuse(project):
        raise FieldguideError("models/pets holds no model.onnx. Run 07 first.")

    monkeypatch.setattr(command, "write_page", refuse)
    assert command.show_page([]) == 1
    assert capsys.readouterr().err == "models/pets holds no model.onnx. Run 07 first.\n" and opened == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_a_real_ctrl_c_ends_the_process(tmp_path):
    """While it waits: exit code 0, nothing on stderr."""
    script = f"""
import signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
import utils.export.__main__ as command
command.Project = types.SimpleNamespace(load=lambda: types.SimpleNamespace(page="cdn"))
command.write_page = lambda project: types.SimpleNamespace(folder={str(tmp_path)!r})
sys.exit(command.show_page(["--no-browser"]))
"""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    with subprocess.Popen([sys.executable, "-c", script], **options) as process:
        assert "The page is in" in process.stdout.readline() and "Ctrl-C" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert (process.wait(timeout=60), process.stderr.read()) == (0, "")
