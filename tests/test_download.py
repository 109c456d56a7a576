"""Fetching and gathering: what is kept, why the rest is not, and that nothing is done twice or lost."""

import io
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from utils import download, sample
from utils.download import (
    SOURCES_COLUMNS,
    Gathered,
    download_images,
    folder_pictures,
    gathered_sample,
    kept_count,
    save_pictures,
)
from utils.files import FieldguideError, content_id, read_rows
from utils.project import Project


def picture(seed, kind="JPEG", side=64):
    """A small picture as the bytes of a file; another seed is another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def project(tmp_path):
    labels = {"cat": ["cat"], "dog": ["dog"]}
    folders = {"data_dir": str(tmp_path / "data"), "models_dir": str(tmp_path / "models")}
    return Project.model_validate({"name": "t", "labels": labels, **folders})


def rows(project):
    """sources.csv without the time of day."""
    return [row | {"fetched_at": ""} for row in read_rows(project.table("sources"), SOURCES_COLUMNS)]


def files(folder):
    """What lies below a folder, path → bytes, without locks."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


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


@pytest.fixture
def host():
    """The host, as "http://localhost:port"; asked = the paths it was asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.daemon_threads = True
    server.asked, server.closing = [], threading.Event()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    port = server.server_address[1]
    yield SimpleNamespace(url=f"http://localhost:{port}", port=port, asked=server.asked)
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Fetch directly, whatever this machine is set to."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def fetch(project, results, **options):
    """Fetch under the label "cat", with "localhost" allowed."""
    given = {"allowed_hosts": ["localhost"]} | options
    return download_images(results, project.raw / "cat", **given)


def outcome(project, host, path, **options):
    """Fetch one picture and return the status and the reason of its row."""
    (row,) = fetch(project, [host.url + path], **options).rows
    return row["status"], row["reason"]


# ---------------------------------------------------------------------------------------------------------------
# download_images
# ---------------------------------------------------------------------------------------------------------------


def test_keeps_a_picture_and_where_it_is_from(project, host):
    """A picture lies under its content's name, and its row tells all that was known."""
    result = SimpleNamespace(
        url=f"{host.url}/photo/1",
        page_url="https://example.org",
        title="A cat",
        license="Public",
        query="cat",
        engine="ddgs",
    )
    (row,) = fetch(project, [result]).rows
    id = content_id(picture(1))
    assert files(project.raw) == {f"cat/{id}.jpg": picture(1)}
    told = {"id": id, "label": "cat", "query": "cat", "engine": "ddgs", "url": result.url, "title": "A cat"}
    told |= {"page_url": "https://example.org", "license": "Public", "status": "kept", "reason": ""}
    told |= {"bytes": str(len(picture(1))), "width": "72", "height": "64"}
    assert rows(project) == [row | {"fetched_at": ""}] == [told | {"fetched_at": ""}]


def test_name_and_extension_come_from_the_content(project, host):
    """Neither Content-Disposition nor Content-Type nor the address has a say in the file's name."""
    assert outcome(project, host, "/png/..%2f..%2fx.gif") == ("kept", "")
    assert list(files(project.raw)) == [f"cat/{content_id(picture(1, 'PNG'))}.png"]


def test_query_string_belongs_to_the_address(project, host):
    """Two addresses that differ in their query are two pictures."""
    fetch(project, [f"{host.url}/query?item={n}" for n in (1, 2)])
    assert sorted(files(project.raw).values()) == sorted([picture(1), picture(2)])


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
def test_says_why_a_picture_is_not_kept(project, host, path, expected):
    """Each bad answer ends in a row with its reason, in bounded time, and nothing is written."""
    assert outcome(project, host, path, deadline=1.0, largest=50_000) == expected
    assert not files(project.raw)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "data:image/png;base64,AA", "http://", "/a.jpg", "", "http://a b"]
)
def test_only_web_addresses(project, url):
    """What is no http address is refused or failed with a reason, never read."""
    (row,) = fetch(project, [url]).rows
    assert row["status"] in ("refused", "failed") and row["reason"]
    assert not files(project.raw)


def test_a_private_host_must_be_allowed_by_name(project, host):
    """The same picture is refused where its host is not named."""
    assert outcome(project, host, "/photo/1", allowed_hosts=[]) == ("refused", "private address localhost")
    assert host.asked == []


def test_a_name_that_leads_to_a_private_address(project, host, monkeypatch):
    """A public-looking name is judged by what it resolves to."""

    async def leads_home(self, *args, **options):
        return [(2, 1, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", leads_home)
    report = fetch(project, [f"http://pictures.example.org:{host.port}/photo/1"])
    assert report.rows[0]["reason"] == "private address 127.0.0.1 behind pictures.example.org"
    assert host.asked == []


def test_follows_a_redirect(project, host):
    """A redirect to an allowed host is followed; the row keeps the first address."""
    (row,) = fetch(project, [f"{host.url}/redirect?/photo/1"]).rows
    assert (row["status"], row["url"]) == ("kept", f"{host.url}/redirect?/photo/1")


def test_asks_a_busy_host_again(project, host):
    """503 is asked again; 404 and 410 are not."""
    report = fetch(project, [f"{host.url}/busy", f"{host.url}/nothing", f"{host.url}/deleted"])
    assert [row["status"] for row in report.rows] == ["kept", "failed", "failed"]
    assert sorted(host.asked) == ["/busy", "/busy", "/busy", "/deleted", "/nothing"]


def test_a_broken_off_body_is_no_picture(project, host):
    """A body shorter than was told is asked for again and, short again, not kept."""
    assert outcome(project, host, "/cut") == ("failed", "broken off (RemoteProtocolError)")
    assert len(host.asked) == 3 and not files(project.raw)


def test_repairs_an_address_after_a_404(project, host):
    """Where a search client wrote + for %20, the second form is tried; the row keeps the address as given."""
    (row,) = fetch(project, [f"{host.url}/spaced+name.jpg"]).rows
    assert (row["status"], row["url"]) == ("kept", f"{host.url}/spaced+name.jpg")


def test_thumbnail_in_place_of_a_failed_picture(project, host):
    """A picture that failed is replaced by its thumbnail, and the row says so; a refused one is not."""
    results = [
        SimpleNamespace(url=f"{host.url}/nothing", thumbnail=f"{host.url}/photo/1"),
        SimpleNamespace(url="http://10.0.0.1/x.jpg", thumbnail=f"{host.url}/photo/2"),
        SimpleNamespace(url=f"{host.url}/page", thumbnail=f"{host.url}/nothing"),
    ]
    report = fetch(project, results)
    assert [(row["status"], row["reason"], row["url"]) for row in report.rows] == [
        ("thumbnail", "HTTP 404", f"{host.url}/nothing"),
        ("refused", "private address 10.0.0.1", "http://10.0.0.1/x.jpg"),
        ("failed", "not a picture: text/html", f"{host.url}/page"),
    ]
    assert list(files(project.raw).values()) == [picture(1)]


def test_stops_at_the_number_wanted(project, host):
    """Exact copies do not count; a later run adds only what is missing; a finished one asks for nothing."""
    results = [f"{host.url}/photo/{n}" for n in (1, "1?copy", 2, 3, 4, 5, 6)]
    first = fetch(project, results, wanted=2, workers=1)
    assert [row["status"] for row in first.rows] == ["kept", "copy", "kept"]
    assert first.rows[1]["reason"] == f"exact copy of {first.rows[0]['id']}"
    second = fetch(project, results, wanted=4)
    assert [row["url"] for row in second.rows] == results[3:5]
    assert kept_count(project, "cat") == 4
    before = len(host.asked)
    assert fetch(project, results, wanted=4).rows == [] and len(host.asked) == before


def test_a_second_run_adds_nothing(project, host):
    """What has a row is not asked for again, whatever its status; also if it comes twice in one run."""
    results = [f"{host.url}/{path}" for path in ("photo/1", "nothing", "photo/2", "photo/1")]
    assert len(fetch(project, results).rows) == 3
    state, before = files(project.data), len(host.asked)
    assert fetch(project, results).rows == []
    assert (files(project.data), len(host.asked)) == (state, before)


def test_order_of_rows_is_the_results(project, host):
    """Rows stand in the order of the results, whichever answered first."""
    results = [f"{host.url}/{path}" for path in ("busy", "nothing", *(f"photo/{n}" for n in range(20)))]
    fetch(project, results)
    assert [row["url"] for row in rows(project)] == results


@pytest.mark.parametrize("at", [0, 3])
def test_interrupted_run_is_completed(project, host, monkeypatch, tmp_path, at):
    """Killed between file and row, and run again, it ends where an unbroken run ends."""
    results = [f"{host.url}/photo/{n}" for n in (1, 2, "2?copy", 3, 4, 4, "1?copy")]
    whole = project.model_copy(update={"data_dir": str(tmp_path / "whole")})
    fetch(whole, results)
    interrupted(monkeypatch, lambda: fetch(project, results), at=at)
    fetch(project, results)
    assert rows(project) == rows(whole)
    assert files(project.raw) == files(whole.raw)


def interrupted(monkeypatch, work, *, at):
    """Run `work`, a row at a time, and die like a killed process when row number `at` is appended."""
    append = download.append_rows
    left = [at]

    def dying(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        append(*args)

    with monkeypatch.context() as patch:
        patch.setattr(download, "BATCH", 1)
        patch.setattr(download, "append_rows", dying)
        with pytest.raises(KeyboardInterrupt):
            work()


def test_interrupting_keeps_the_rows_of_what_is_there(project, host, monkeypatch):
    """Interrupted in the middle of a batch, every file has its row, and the next run can start at once."""
    plan = iter(range(100))
    write = download.write_new

    def stopped(*args):
        if next(plan) == 5:
            raise KeyboardInterrupt
        return write(*args)

    results = [f"{host.url}/photo/{n}" for n in range(9)]
    with monkeypatch.context() as patch:
        patch.setattr(download, "write_new", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(project, results)
    assert {row["id"] for row in rows(project)} == {Path(name).stem for name in files(project.raw)}
    assert len(fetch(project, results).rows) == 4


def test_what_is_still_under_way_is_dropped(project, host):
    """As soon as enough is there, hanging fetches are cancelled: no row of theirs, and no thread left behind."""
    report = fetch(project, [f"{host.url}/photo/1", f"{host.url}/hang", f"{host.url}/hang?2"], wanted=1, deadline=300)
    assert [row["status"] for row in report.rows] == ["kept"]
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


@pytest.mark.parametrize("dead", ["abc", "abcdefgh"], ids=["at the end", "in the middle"])
def test_without_network_nothing_is_recorded(project, host, monkeypatch, dead):
    """When no host can be reached, nor the probe, it is the network: an error, and no row that would end the matter."""
    monkeypatch.setattr(download, "PROBE", "http://probe.invalid/")
    monkeypatch.setattr(download, "TRIES", 1)
    results = [f"{host.url}/photo/1", *(f"http://{name}.invalid/x.jpg" for name in dead)]
    results += [f"{host.url}/photo/2"] if len(dead) > 3 else []
    with pytest.raises(FieldguideError, match=f"no network.*{len(dead)} addresses"):
        fetch(project, results)
    assert [row["url"] for row in rows(project)] == results[:1]


def test_dead_hosts_are_recorded_where_there_is_a_network(project, host, monkeypatch):
    """When the probe answers, the hosts are dead, each with its row."""
    monkeypatch.setattr(download, "PROBE", f"{host.url}/page")
    monkeypatch.setattr(download, "TRIES", 1)
    report = fetch(project, [f"http://{name}.invalid/x.jpg" for name in "abc"])
    assert [(row["status"], row["reason"]) for row in report.rows] == [("failed", "no such host")] * 3


def test_stands_alone(tmp_path, host):
    """Any folder will do: its name is the label, and the table lies in it."""
    report = download_images([f"{host.url}/photo/1"], tmp_path / "some folder", allowed_hosts=["localhost"])
    assert [row["label"] for row in report.rows] == ["some folder"]
    assert sorted(files(tmp_path / "some folder")) == [f"{content_id(picture(1))}.jpg", "sources.csv"]


def test_report_counts(project, host):
    """The report counts by label and status, and by reason."""
    paths = ("photo/1", "photo/1?a", "photo/1?b", "photo/2", "photo/2?a", "nothing", "page")
    report = fetch(project, [f"{host.url}/{path}" for path in paths])
    assert report.counts().to_dict("index") == {"cat": {"copy": 3, "failed": 2, "kept": 2}}
    assert report.reasons().values.tolist() == [["exact copy", 3], ["HTTP 404", 1], ["not a picture: text/html", 1]]
    empty = fetch(project, [])
    assert len(empty.counts()) == 0 and len(empty.reasons()) == 0


# ---------------------------------------------------------------------------------------------------------------
# save_pictures, the sample and folders
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A source folder with two labels and what does not belong there."""
    folder = tmp_path / "own photos"
    for label, seeds in {"cat": (1, 2, 3), "dog": (4, 5)}.items():
        (folder / label / "deeper").mkdir(parents=True)
        for seed in seeds:
            (folder / label / f"{seed}.jpg").write_bytes(picture(seed))
        (folder / label / "deeper" / "9.jpg").write_bytes(picture(9))
        (folder / label / ".hidden").write_bytes(b"x")
    (folder / "cat" / "2 copy.jpg").write_bytes(picture(2))
    (folder / "cat" / "notes.txt").write_bytes(b"three cats")
    return folder


def test_folder_is_copied_and_never_changed(project, folder):
    """Photos are copied from the folder, by label; the folder stays as it is; a second run adds nothing."""
    before = files(folder)
    report = save_pictures(project, folder_pictures(folder, project.labels))
    assert files(folder) == before
    cats = {f"cat/{content_id(picture(n))}.jpg": picture(n) for n in (1, 2, 3)}
    dogs = {f"dog/{content_id(picture(n))}.jpg": picture(n) for n in (4, 5)}
    assert files(project.raw) == cats | dogs | {f"cat/{content_id(b'three cats')}.bin": b"three cats"}
    assert [(Path(row["url"]).name, row["status"]) for row in report.rows] == [
        *(("1.jpg", "kept"), ("2%20copy.jpg", "kept"), ("2.jpg", "copy"), ("3.jpg", "kept"), ("notes.txt", "kept")),
        *(("4.jpg", "kept"), ("5.jpg", "kept")),
    ]
    assert kept_count(project, "cat") == 3
    state = files(project.data)
    assert save_pictures(project, folder_pictures(folder, project.labels)).rows == []
    assert files(project.data) == state


def test_folder_limit_counts_contents(project, folder):
    """The limit is of distinct contents a label: a copy does not use it up."""
    names = [p.title for p in folder_pictures(folder, ["cat", "dog"], limit=2)]
    assert names == ["1.jpg", "2 copy.jpg", "4.jpg", "5.jpg"]
    assert [p.title for p in folder_pictures(folder, ["cat"], limit=3)] == ["1.jpg", "2 copy.jpg", "2.jpg", "3.jpg"]


def test_folder_names_are_matched_in_any_unicode_form(project, tmp_path):
    """A folder name typed on a Mac (letters and accents apart) is the same label."""
    (tmp_path / "e\u0301le\u0301phant").mkdir()
    (tmp_path / "e\u0301le\u0301phant" / "a.jpg").write_bytes(picture(1))
    (found,) = folder_pictures(tmp_path, ["\u00e9l\u00e9phant"])
    assert found.label == "\u00e9l\u00e9phant"


def test_folder_without_a_label_says_what_is_there(folder):
    """A missing or empty label folder is named, together with those that are there."""
    with pytest.raises(FieldguideError, match=r"no folder for the label 'cow'.*'cat', 'dog'"):
        list(folder_pictures(folder, ["cat", "cow"]))
    (folder / "cow" / "inner").mkdir(parents=True)
    with pytest.raises(FieldguideError, match=r"cow holds no files"):
        list(folder_pictures(folder, ["cow"]))
    with pytest.raises(FieldguideError, match=r"no folder .*nowhere"):
        list(folder_pictures(folder / "nowhere", ["cat"]))


def test_folder_tells_what_it_does_not_take(project, folder, tmp_path, monkeypatch):
    """Too large files and links out of the folder have a row with the reason, and stop nothing."""
    (tmp_path / "secret.jpg").write_bytes(picture(8))
    (folder / "dog" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "dog" / "inner link.jpg").symlink_to(folder / "dog" / "4.jpg")
    (folder / "dog" / "lost.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "dog" / "large.tif").write_bytes(b"x" * 100_001)
    monkeypatch.setattr(download, "LARGEST", 100_000)
    report = save_pictures(project, folder_pictures(folder, ["dog"]))
    assert {row["title"]: (row["status"], row["reason"]) for row in report.rows} == {
        "4.jpg": ("kept", ""),
        "5.jpg": ("kept", ""),
        "inner link.jpg": ("copy", f"exact copy of {content_id(picture(4))}"),
        "large.tif": ("failed", "larger than 0 MB"),
        "link.jpg": ("failed", "a link that leads out of the source folder"),
        "lost.jpg": ("failed", "not a file, or a link that leads nowhere"),
    }


def test_sample_is_kept_with_its_faults(project):
    """The sample's files are kept byte for byte, the broken and the empty included, each under its label."""
    project = project.model_copy(update={"labels": {"tilapia": [], "sea cucumber": []}})
    drawn = list(sample.sample_pictures(project.labels, per_label=10, seed=1))
    report = save_pictures(project, gathered_sample(drawn), total=len(drawn))
    assert len(report.rows) == len(drawn)
    assert {(Path(name).parent.name, data) for name, data in files(project.raw).items()} == {
        (picture.label, picture.data) for picture in drawn
    }
    assert any(row["id"] == "e3b0c44298fc1c14" and row["bytes"] == "0" for row in report.rows)
    assert any(name.endswith("/e3b0c44298fc1c14.bin") for name in files(project.raw))
    assert {row["license"] for row in report.rows} == {"CC0-1.0 (drawn)"}


@pytest.mark.parametrize("at", range(0, 8, 2))
def test_killed_saving_is_completed(project, folder, monkeypatch, tmp_path, at):
    """Killed between a file and its row, and run again, it ends where an unbroken run ends: no copies of itself."""
    whole = project.model_copy(update={"data_dir": str(tmp_path / "whole")})
    save_pictures(whole, folder_pictures(folder, whole.labels))
    with suppress(pytest.fail.Exception):  # the last row was reached: nothing was left to interrupt
        interrupted(monkeypatch, lambda: save_pictures(project, folder_pictures(folder, project.labels)), at=at)
    save_pictures(project, folder_pictures(folder, project.labels))
    assert rows(project) == rows(whole)
    assert files(project.raw) == files(whole.raw)


def test_the_same_picture_under_two_labels_is_kept_under_both(project):
    """A copy is one within its label: 02 judges between labels."""
    report = save_pictures(project, [Gathered("cat", "x:1", picture(1)), Gathered("dog", "x:1", picture(1))])
    assert [row["status"] for row in report.rows] == ["kept", "kept"]
    assert len(files(project.raw)) == 2


def test_strange_text_is_stored_on_one_line(project):
    """Line breaks, quotes and broken Unicode in what the web tells neither tear a row nor bring it back twice."""
    strange = Gathered("cat", "http://a/\ud800\n,\"'", picture(1), title='a\r\n"b",\u2028c')
    assert len(save_pictures(project, [strange]).rows) == 1
    assert save_pictures(project, [strange]).rows == []
    assert rows(project)[0]["title"] == 'a "b", c'


def test_a_label_that_leads_elsewhere_is_refused(project):
    """A label is a folder name, never a path."""
    with pytest.raises(FieldguideError, match="cannot be a folder name"):
        save_pictures(project, [Gathered("../dog", "x:1", picture(1))])
    assert not project.raw.exists()
