"""Killed at twenty moments and run again each time, collecting ends where it ends undisturbed."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import draw_picture, picture_bytes

from utils.download.collect import WINDOW
from utils.download.collection import ROWS_AT_ONCE
from utils.project import REPOSITORY, Project
from utils.tables import PICTURES_COLUMNS, REJECTED_COLUMNS, SOURCES_COLUMNS, read_rows

LABELS = ("penaeus monodon", "морський огірок 🥒")
EACH, WANTED = 150, 130  # addresses a label, and pictures
WORKERS = 8

# What notebooks 01 and 02 call, in a process that can be killed.
RUN = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from utils.download import download_images
from utils.project import Project
from utils.verify import verify_images

settings, found, wanted, workers, host = json.loads(Path(sys.argv[1]).read_text())
project = Project.model_validate(settings)
for label, results in found.items():
    results = [SimpleNamespace(**result) for result in results]
    download_images(results, project.raw / label, wanted=wanted, allowed_hosts=[host], workers=workers)
verify_images(project)
"""


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        if len(set(self.server.asked)) >= self.server.alarm_at:
            self.server.alarm.set()
        data = self.server.pictures.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *args):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args):  # the other side is killed all the time
        pass


@contextmanager
def hosting(pictures):
    """Serve pictures by path; asked = the paths asked for, alarm = set when alarm_at different ones were."""
    server = Quiet(("127.0.0.1", 0), Answer)
    server.pictures, server.asked, server.alarm, server.alarm_at = pictures, [], threading.Event(), 10**9
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def drawn_web():
    """300 addresses, path → bytes: photos, among them copies, the dead, pages, and what 02 sets aside."""
    web = {}
    for n in range(len(LABELS)):
        for k in range(EACH):
            data = picture_bytes(draw_picture(1000 * n + k, size=(96, 72)), quality=80)
            if k % 30 == 7:
                data = None  # gone
            elif k % 50 == 9:
                data = b"<html>a page</html>"
            elif k == 120:
                data = web[f"/{n}/20"]  # a copy
            elif k == 41:
                data = picture_bytes(draw_picture(n, size=(96, 40)))  # too small
            elif k == 42:
                data = data[: len(data) // 2]  # broken
            elif k == 43:
                data = web.get("/0/43", data)  # the same picture under both labels
            web[f"/{n}/{k}"] = data
        web[f"/{n}/small/7"] = picture_bytes(draw_picture(2000 + n, size=(96, 72)))  # a thumbnail
    return web


def found_of(port):
    """What a search would have found, by label."""
    url = f"http://localhost:{port}"
    return {
        label: [
            {"url": f"{url}/{n}/{k}", "title": f'no. {k}, "a"', "thumbnail": f"{url}/{n}/small/{k}", "query": label}
            for k in range(EACH)
        ]
        for n, label in enumerate(LABELS)
    }


def project_in(folder):
    """The project that is collected in a folder."""
    labels = {label: [f"a search for {label}"] for label in LABELS}
    return Project.model_validate({"name": "t", "labels": labels, "data_dir": str(folder / "data")})


def started(folder, port):
    """Start a run in a process of its own."""
    job = [
        project_in(folder).model_dump(include={"name", "labels", "data_dir"}),
        found_of(port),
        WANTED,
        WORKERS,
        f"localhost:{port}",
    ]
    (folder / "job.json").write_text(json.dumps(job))
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (folder / "said").open("wb") as said:
        command = [sys.executable, "-c", RUN, folder / "job.json"]
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=said)


def run(folder, port):
    """Run to the end."""
    assert started(folder, port).wait() == 0, (folder / "said").read_text()


def state(project, port):
    """Everything that a run leaves: files, and rows without the time, the port and their order in 02's tables."""
    files = {
        path.relative_to(project.data).as_posix(): path.read_bytes()
        for path in sorted(project.data.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.parent != project.data
    }
    sources = [row | {"fetched_at": ""} for row in read_rows(project.table("sources"), SOURCES_COLUMNS)]
    sources = [row | {"url": row["url"].replace(str(port), "port")} for row in sources]
    columns = {"pictures": PICTURES_COLUMNS, "rejected": REJECTED_COLUMNS}
    tables = {name: sorted(map(str, read_rows(project.table(name), columns[name]))) for name in columns}
    tables |= {"files": sorted(path.name for path in project.data.iterdir() if not path.is_dir())}
    return files, sources, tables


def count(folder):
    """How many finished files lie below a folder."""
    return sum(1 for _ in folder.rglob("[0-9a-f]*.*"))


@pytest.fixture(scope="module")
def web():
    return drawn_web()


@pytest.fixture(scope="module")
def undisturbed(web, tmp_path_factory):
    """What a run leaves that nobody kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with hosting(web) as server:
        run(folder, server.server_port)
        assert len(server.asked) == len(set(server.asked))
        return state(project_in(folder), server.server_port)


@pytest.mark.long
def test_twenty_kills_change_nothing(web, undisturbed, tmp_path):
    """
    Files and rows are the same in the end, no leftovers; what had a row was never asked for again.

    Eight kills come shortly after a request, drawn at random; eight as soon as pictures stand in raw/, which is where
    their rows are not yet written; four when some more training copies are there.
    """
    project, rng = project_in(tmp_path), random.Random(20)
    by_request = sorted(rng.sample(range(1, 100), 8))
    with hosting(web) as server:
        for kill in range(20):
            before = len(server.asked)
            rowed = {row["url"] for row in read_rows(project.table("sources"), SOURCES_COLUMNS)}
            server.alarm.clear()
            server.alarm_at = by_request[kill] if kill < 8 else 10**9
            folder = project.raw if kill < 16 else project.images
            enough = count(folder) + (1 if kill < 16 else rng.randrange(1, 40))
            process = started(tmp_path, server.server_port)
            if kill < 8:
                assert server.alarm.wait(60)
                time.sleep(rng.uniform(0, 0.03))
            else:
                while count(folder) < enough and process.poll() is None:
                    time.sleep(0.0005)
            process.kill()
            assert process.wait() != 0, f"the run was over before kill {kill}"
            urls = [f"http://localhost:{server.server_port}{path}" for path in server.asked[before:]]
            assert rowed.isdisjoint(urls)
        run(tmp_path, server.server_port)
        assert state(project, server.server_port) == undisturbed
        assert len(server.asked) - len(set(server.asked)) <= 16 * (2 * ROWS_AT_ONCE + WINDOW * WORKERS)
        before = len(server.asked)
        run(tmp_path, server.server_port)
        assert len(server.asked) == before
        assert state(project, server.server_port) == undisturbed
