"""Gathering: what is kept and noted, that nothing is done twice, and that nothing is lost."""

import errno
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_fetch import SERVED, picture, serving, without_proxy

from utils.download import (
    Gathered,
    collection,
    download_images,
    kept_count,
    reasons_table,
    save_pictures,
    sources_table,
)
from utils.download.clients import SearchRefused
from utils.errors import FieldguideError, WriteError
from utils.project import REPOSITORY
from utils.storage import content_id, write_whole
from utils.tables import HAND, SOURCES_COLUMNS, append_rows, read_rows


@pytest.fixture
def project(make_project):
    """A project of two labels, in which nothing was gathered yet."""
    return make_project()


def rows(project):
    """sources.csv without the time of day."""
    return [row | {"fetched_at": ""} for row in read_rows(project.table("sources"), SOURCES_COLUMNS)]


def added_by(gather, project, items, **options):
    """Gather as told; return the rows that this added, as many as the report says."""
    before = len(rows(project))
    tally = gather(project, items, **options)
    found = rows(project)[before:]
    assert tally.total() == len(found)
    return found


def fetched(project, results, **options):
    """Fetch as `fetch` does; return the rows that this added."""
    return added_by(fetch, project, results, **options)


def saved(project, pictures, **options):
    """Save as `save_pictures` does; return the rows that this added."""
    return added_by(save_pictures, project, pictures, **options)


def files(folder):
    """What lies below a folder, path → bytes, without locks."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def host(monkeypatch):
    """The host that misbehaves as planned; fetched from directly, whatever this machine is set to."""
    without_proxy(monkeypatch)
    with serving() as host:
        yield host


def fetch(project, results, **options):
    """Fetch under the label "cat", with the stand-in allowed."""
    given = {"allowed_hosts": SERVED} | options
    return download_images(results, project.raw / "cat", **given)


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
    (row,) = fetched(project, [result])
    id = content_id(picture(1))
    assert files(project.raw) == {f"cat/{id}.jpg": picture(1)}
    told = {"id": id, "label": "cat", "query": "cat", "engine": "ddgs", "url": result.url, "title": "A cat"}
    told |= {"page_url": "https://example.org", "license": "Public", "status": "kept", "reason": ""}
    told |= {"bytes": str(len(picture(1))), "width": "72", "height": "64"}
    assert row == told | {"fetched_at": ""}


def test_name_and_extension_come_from_the_content(project, host):
    """Neither Content-Disposition nor Content-Type nor the address has a say in the file's name."""
    fetch(project, [f"{host.url}/png/..%2f..%2fx.gif"])
    assert list(files(project.raw)) == [f"cat/{content_id(picture(1, 'PNG'))}.png"]


def test_one_allowed_host_needs_no_list(project, host):
    """A name given as it is stands for that host, not for its letters."""
    (row,) = fetched(project, [f"{host.url}/photo/1"], allowed_hosts=host.name)
    assert (row["status"], row["reason"]) == ("kept", "")


def test_what_a_person_put_there_does_not_count_as_fetched(project, host):
    """02 moves a dropped photo to raw/ and notes it; the pictures wanted are fetched besides."""
    id = content_id(picture(9))
    write_whole(project.raw / "cat" / f"{id}.jpg", picture(9))
    noted = {"id": id, "label": "cat", "engine": HAND, "status": "kept"}
    append_rows(project.table("sources"), SOURCES_COLUMNS, [noted])
    assert kept_count(project, "cat") == 0
    (row,) = fetched(project, [f"{host.url}/photo/1"], wanted=1)
    assert row["status"] == "kept" and kept_count(project, "cat") == 1


@pytest.mark.parametrize("path", ["/redirect?/photo/1", "/spaced+name.jpg"])
def test_a_row_keeps_the_address_as_given(project, host, path):
    """Wherever a picture was found in the end, its row holds the address that was asked for."""
    (row,) = fetched(project, [host.url + path])
    assert (row["status"], row["url"]) == ("kept", host.url + path)


def test_a_refused_or_failed_address_writes_nothing(project, host):
    """What gave no picture has a row with its reason, and no file."""
    found = fetched(project, [f"{host.url}/page", "file:///etc/passwd"])
    assert [(row["status"], row["reason"], row["id"], row["bytes"]) for row in found] == [
        ("failed", "not a picture: text/html", "", ""),
        ("refused", "file: address, not http or https", "", ""),
    ]
    assert not files(project.raw)


def test_thumbnail_in_place_of_a_failed_picture(project, host):
    """The row of a picture whose thumbnail was kept says so, and why; its address is the picture's."""
    results = [
        SimpleNamespace(url=f"{host.url}/nothing", thumbnail=f"{host.url}/photo/1"),
        SimpleNamespace(url=f"{host.url}/page", thumbnail=f"{host.url}/nothing"),
    ]
    found = fetched(project, results)
    assert [(row["status"], row["reason"], row["url"]) for row in found] == [
        ("thumbnail", "HTTP 404", f"{host.url}/nothing"),
        ("failed", "not a picture: text/html", f"{host.url}/page"),
    ]
    assert list(files(project.raw).values()) == [picture(1)]


def test_stops_at_the_number_wanted(project, host):
    """Exact copies do not count; a later run adds only what is missing; a finished one asks for nothing."""
    results = [f"{host.url}/photo/{n}" for n in (1, "1?copy", 2, 3, 4, 5, 6)]
    first = fetched(project, results, wanted=2, workers=1)
    assert [row["status"] for row in first] == ["kept", "copy", "kept"]
    assert first[1]["reason"] == f"exact copy of {first[0]['id']}"
    second = fetched(project, results, wanted=4)
    assert [row["url"] for row in second] == results[3:5]
    assert kept_count(project, "cat") == 4
    before = len(host.asked)
    assert fetched(project, results, wanted=4) == [] and len(host.asked) == before


def test_a_second_run_adds_nothing(project, host):
    """What has a row is not asked for again, whatever its status; also if it comes twice in one run."""
    results = [f"{host.url}/{path}" for path in ("photo/1", "nothing", "photo/2", "photo/1")]
    assert len(fetched(project, results)) == 3
    state, before = files(project.data), len(host.asked)
    assert fetched(project, results) == []
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
    append = collection.append_rows
    left = [at]

    def dying(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        append(*args)

    with monkeypatch.context() as patch:
        patch.setattr(collection, "ROWS_AT_ONCE", 1)
        patch.setattr(collection, "append_rows", dying)
        with pytest.raises(KeyboardInterrupt):
            work()


def test_interrupting_keeps_the_rows_of_what_is_there(project, host, monkeypatch):
    """Interrupted in the middle of a batch, every file has its row, and the next run can start at once."""
    plan = iter(range(100))
    add = collection.Shelf.add

    def stopped(*args):
        if next(plan) == 5:
            raise KeyboardInterrupt
        add(*args)

    results = [f"{host.url}/photo/{n}" for n in range(9)]
    with monkeypatch.context() as patch:
        patch.setattr(collection.Shelf, "add", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(project, results)
    assert {row["id"] for row in rows(project)} == {Path(name).stem for name in files(project.raw)}
    assert len(fetched(project, results)) == 4


def test_what_is_still_under_way_is_dropped(project, host, monkeypatch):
    """When the work breaks off, hanging fetches are cancelled: no row of theirs, and no thread left behind."""
    monkeypatch.setattr(collection.Shelf, "add", interrupt)
    results = [f"{host.url}/photo/1", f"{host.url}/hang", f"{host.url}/hang?2"]
    with pytest.raises(KeyboardInterrupt):
        fetch(project, results, deadline=300)
    assert rows(project) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "fetch"]


def interrupt(*args):
    """Stop like a person who presses Ctrl-C."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("dead", ["abc", "abcdefghijkl"], ids=["at the end", "in the middle"])
def test_without_network_nothing_is_recorded(project, host, monkeypatch, dead):
    """When no host can be reached, nor the probe, it is the network: an error, and no row that would end the matter."""
    monkeypatch.setattr("utils.download.fetch.PROBE", "http://probe.invalid/")
    monkeypatch.setattr("utils.download.fetch.TRIES", 1)
    results = [f"{host.url}/photo/1", *(f"http://{name}.invalid/x.jpg" for name in dead)]
    results += [f"{host.url}/photo/2"] if len(dead) > 3 else []
    with pytest.raises(FieldguideError, match=f"no network.*{len(dead)} addresses"):
        fetch(project, results)
    assert [row["url"] for row in rows(project)] == results[:1]


def test_stands_alone(tmp_path, host):
    """Any folder will do: its name is the label, and the table lies in it."""
    added = download_images([f"{host.url}/photo/1"], tmp_path / "some folder", allowed_hosts=[host.name])
    assert added == {("some folder", "kept", ""): 1}
    assert sorted(files(tmp_path / "some folder")) == [f"{content_id(picture(1))}.jpg", "sources.csv"]


def test_reasons_of_all_runs(project, host):
    """The table counts each kind of reason over the whole of sources.csv, with one address to look at."""
    fetch(project, [f"{host.url}/{path}" for path in ("photo/1", "photo/1?a", "nothing", "page")])
    fetch(project, [f"{host.url}/{path}" for path in ("nothing?2", "photo/1?b")] + ["http://10.0.0.1/a", "file:///b"])
    assert reasons_table(project).values.tolist() == [
        ["copy", "exact copy", 2, f"{host.url}/photo/1?a"],
        ["failed", "HTTP 404", 2, f"{host.url}/nothing"],
        ["failed", "not a picture: text/html", 1, f"{host.url}/page"],
        ["refused", "file: address, not http or https", 1, "file:///b"],
        ["refused", "private address", 1, "http://10.0.0.1/a"],
    ]
    assert sources_table(project).to_dict("index") == {"cat": {"copy": 2, "failed": 3, "kept": 1, "refused": 2}}


def test_before_the_first_run_the_tables_are_empty(project):
    """Nothing was asked for: no counts, no reasons, no error."""
    assert (len(sources_table(project)), len(reasons_table(project)), kept_count(project, "cat")) == (0, 0, 0)


# ---------------------------------------------------------------------------------------------------------------
# A search that is not over yet
# ---------------------------------------------------------------------------------------------------------------


def test_a_search_that_is_refused_midway_loses_nothing(project, host):
    """What it named before is fetched, written and rowed; then its own error is raised."""

    def search():
        yield from (f"{host.url}/photo/{n}" for n in range(10))
        raise SearchRefused("Come back later.")

    with pytest.raises(SearchRefused, match="Come back later"):
        fetch(project, search(), wanted=100)
    assert [row["status"] for row in rows(project)] == ["kept"] * 10
    assert len(files(project.raw)) == 10


@pytest.mark.parametrize("useless", [[], ["nothing"], ["photo/0", "page"]], ids=["none", "failures", "copies too"])
def test_no_host_is_asked_for_a_picture_that_is_thrown_away(project, host, useless):
    """Of a search without end: as many addresses as pictures are wanted, and one more for each that gave none."""
    paths = [f"photo/{n}" for n in range(100)]
    for n, path in enumerate(useless * 5):
        paths.insert(3 + 5 * n, f"{path}?{n}")
    named = iter([f"{host.url}/{path}" for path in paths])
    found = fetched(project, named, wanted=50)
    given = [row["status"] for row in found].count("kept")
    assert (given, len(found)) == (50, 50 + 5 * len(useless)) and kept_count(project, "cat") == 50
    assert len(host.asked) == len(set(host.asked)) == len(found)
    assert next(named) == f"{host.url}/{paths[len(found)]}"


def test_a_failure_behind_a_slow_picture_is_replaced_at_once(project, host):
    """Four can be there together only if the fourth is asked for while the first still waits."""
    paths = ["together?1", "together?2", "nothing", "together?3", "together?4"]
    fetch(project, [f"{host.url}/{path}" for path in paths], wanted=4)
    assert not host.server.four.broken and len(host.asked) == 5


# ---------------------------------------------------------------------------------------------------------------
# Odd names and addresses
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["морський огірок", "海参", "🦐 shrimp", "l'éléphant, gris"])
def test_labels_of_any_script(project, host, label):
    """A label's name is the folder's and the row's, whatever it is written in."""
    project = project.model_copy(update={"labels": {label: ["x"], "cat": ["x"]}})
    for added in (1, 0):
        tally = download_images([f"{host.url}/photo/1"], project.raw / label, allowed_hosts=[host.name])
        assert tally.total() == added
    assert [row["label"] for row in rows(project)] == [label]
    assert list(files(project.raw)) == [f"{label}/{content_id(picture(1))}.jpg"]
    assert kept_count(project, label) == 1


@pytest.mark.parametrize(
    "odd", ['a,b;c="d"', "'", "a\nb", "a\r\n1,2,3", "\ud800", "\u2028", "é海", "%0A%22", "=1+1", "x" * 3000]
)
def test_addresses_of_any_form(project, host, odd):
    """An address becomes one row on one line, and is known again in the next run, as it was given or as it is noted."""
    url = f"{host.url}/photo/1?{odd}"
    (row,) = fetched(project, [url])
    assert len(project.table("sources").read_bytes().splitlines()) == 2
    assert fetched(project, [url]) == fetched(project, [row["url"]]) == []


# ---------------------------------------------------------------------------------------------------------------
# A sources.csv that hands or editors changed
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(project, host):
    """Addresses of three pictures that were fetched."""
    results = [f"{host.url}/photo/{n}" for n in range(3)]
    assert len(fetched(project, results, wanted=3)) == 3
    return results


def line(number, change):
    """Return what changes one line (the header is 1) of a text."""

    def changed(text):
        lines = text.splitlines(keepends=True)
        lines[number - 1] = change(lines[number - 1])
        return "".join(lines)

    return changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (line(1, lambda header: header.replace("label", "name")), "begins with 'id,name,.*expected 'id,label,"),
        (line(1, lambda header: ""), "begins with '.*expected 'id,label,"),
        (lambda text: text[:20], "begins with 'id,label,query,engin'"),
        (line(3, lambda row: row.replace(",", "", 1)), "line 3: 13 fields where 14 are expected .*Repair or delete"),
        (line(3, lambda row: "," + row), "line 3: 15 fields where 14 are expected .*Repair or delete"),
        (line(2, lambda row: '"' + row), "line 2: .*Repair or delete"),
        (lambda text: text.replace(",", ";"), "semicolons between its columns.*Save it again as CSV with commas"),
        (lambda text: text.replace(",", "\t"), "tabs between its columns.*Save it again as CSV with commas"),
        (lambda text: text.encode("utf-16"), "is not UTF-8 text.*Save it as CSV in UTF-8"),
    ],
    ids=["header", "no header", "cut header", "field less", "field more", "quote", "semicolons", "tabs", "utf-16"],
)
def test_a_table_spoilt_by_hand(project, host, three, change, says):
    """One sentence says what is wrong and where, before anything is fetched; once put right, all is as it was."""
    table, asked = project.table("sources"), len(host.asked)
    whole = table.read_text(encoding="utf-8")
    spoilt = change(whole)
    table.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    before = files(project.data)
    for use in (lambda: fetch(project, [*three, f"{host.url}/photo/9"]), lambda: sources_table(project)):
        with pytest.raises(FieldguideError, match=rf"sources\.csv.*{says}"):
            use()
    assert (files(project.data), len(host.asked)) == (before, asked)
    table.write_text(whole, encoding="utf-8")
    assert fetched(project, three, wanted=3) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text + "\n\n",
    ],
    ids=["mark", "CRLF", "mark and CRLF", "blank lines"],
)
def test_a_table_saved_by_a_spreadsheet(project, host, three, change):
    """A byte-order mark, line ends of Windows and blank lines at the end change nothing."""
    before, table = rows(project), project.table("sources")
    table.write_bytes(change(table.read_text(encoding="utf-8")).encode())
    assert fetched(project, three, wanted=3) == []
    (new,) = fetched(project, [f"{host.url}/photo/9"])
    assert rows(project) == [*before, new]


@pytest.mark.parametrize(
    ("left", "cut"),
    [
        (2, lambda text: text[:-100]),
        (2, lambda text: text[:-3]),  # in the last field, which leaves as many fields as there should be
        (2, lambda text: text[:-1]),
        (1, lambda text: text[: text.index("photo/1")]),
        (0, lambda text: text[: text.index("\n") + 1]),
        (0, lambda text: text[: text.index("\n")]),
        (0, lambda text: ""),
        (0, lambda text: None),
    ],
    ids=["in a row", "in the last field", "line break", "two rows", "all rows", "behind the header", "all", "deleted"],
)
@pytest.mark.filterwarnings("ignore:.*no line break")
def test_rows_that_were_lost_are_asked_for_again(project, host, three, left, cut):
    """Their pictures lie there without telling where from: each is asked for once more, and is no copy of itself."""
    whole, state, table = rows(project), files(project.raw), project.table("sources")
    text = cut(table.read_text(encoding="utf-8"))
    table.unlink() if text is None else table.write_bytes(text.encode())
    assert kept_count(project, "cat") == left
    asked = len(host.asked)
    assert fetched(project, three, wanted=3) == whole[left:]
    assert (rows(project), files(project.raw)) == (whole, state)
    assert sorted(host.asked[asked:]) == [f"/photo/{n}" for n in range(left, 3)]
    assert kept_count(project, "cat") == 3


# ---------------------------------------------------------------------------------------------------------------
# A disk that takes no more
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [0, 2, 5, 9])
def test_a_disk_that_fills_up(project, host, monkeypatch, tmp_path, nth):
    """One sentence; no half file, no row without its picture; with space again, it ends where an unbroken run ends."""
    results = [f"{host.url}/photo/{n}" for n in range(12)]
    whole = project.model_copy(update={"data_dir": str(tmp_path / "whole")})
    fetch(whole, results)
    fsync, calls = os.fsync, itertools.count()

    def full(handle):
        if next(calls) >= nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(collection, "ROWS_AT_ONCE", 4)
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=r"Cannot write .*: the disk is full\. Free some space"):
            fetch(project, results)
    assert {row["id"] for row in rows(project)} <= {Path(name).stem for name in files(project.raw)}
    assert all(Path(name).stem == content_id(data) for name, data in files(project.raw).items())
    fetch(project, results)
    assert rows(project) == rows(whole)
    assert files(project.raw) == files(whole.raw)


@pytest.mark.parametrize(("limit", "odd", "cannot"), [(12_000, ["png"], "raw/cat"), (7_000, [], "sources.csv")])
def test_a_write_that_breaks_off_in_the_middle(project, host, limit, odd, cannot):
    """The system takes the first bytes of a file and no more, of a large picture or of the table: nothing is lost."""
    pytest.importorskip("resource")
    assert len(picture(1)) < 7_000 and len(picture(1, "PNG")) > 12_000
    paths = [*(f"photo/{n}" for n in range(30)), *odd, *(f"photo/{n}" for n in range(30, 70))]
    results = [f"{host.url}/{path}" for path in paths]
    work = (
        "import resource, sys\n"
        "from utils.download import download_images\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"download_images(sys.argv[2:], sys.argv[1], allowed_hosts=['{host.name}'])\n"
    )
    command = [sys.executable, "-c", work, str(project.raw / "cat"), *results]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert "utils.errors.WriteError: Cannot write" in run.stderr and cannot in run.stderr.splitlines()[-1]
    assert all(Path(name).stem == content_id(data) for name, data in files(project.raw).items())
    assert {row["id"] for row in rows(project)} <= {Path(name).stem for name in files(project.raw)}
    fetch(project, results)
    assert [row["url"] for row in rows(project)] == results
    assert len(files(project.raw)) == len(results)


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EACCES, "this account may not write there"), (errno.EROFS, "that disk is read-only")]
)
def test_a_folder_that_may_not_be_written(project, host, monkeypatch, number, advice):
    """It is said at once, before any site is asked for anything."""

    def refused(self, *args, **options):
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(WriteError, match=rf"Cannot write .*cat: {advice}"):
        fetch(project, [f"{host.url}/photo/1"])
    assert host.asked == []


# ---------------------------------------------------------------------------------------------------------------
# save_pictures
# ---------------------------------------------------------------------------------------------------------------


def test_the_same_picture_under_two_labels_is_kept_under_both(project):
    """A copy is one within its label: 02 judges between labels."""
    found = saved(project, [Gathered("cat", "x:1", picture(1)), Gathered("dog", "x:1", picture(1))])
    assert [row["status"] for row in found] == ["kept", "kept"]
    assert len(files(project.raw)) == 2


def test_strange_text_is_stored_on_one_line(project):
    """Line breaks, quotes and broken Unicode in what the web tells neither tear a row nor bring it back twice."""
    strange = Gathered("cat", "http://a/\ud800\n,\"'", picture(1), title='a\r\n"b",\u2028c')
    assert len(saved(project, [strange])) == 1
    assert saved(project, [strange]) == []
    assert rows(project)[0]["title"] == 'a "b", c'


def test_a_label_that_leads_elsewhere_is_refused(project):
    """A label is a folder name, never a path."""
    with pytest.raises(FieldguideError, match="cannot be a folder name"):
        save_pictures(project, [Gathered("../dog", "x:1", picture(1))])
    assert not project.raw.exists()


def test_what_the_web_tells_at_length_is_cut(project, host):
    """Titles and the like to 500 characters; the address of a page, which would lead elsewhere, is left out."""
    texts = dict.fromkeys(("title", "query", "engine", "license"), "x" * 200_000)
    result = SimpleNamespace(url=f"{host.url}/photo/1", page_url="https://example.org/" + "p" * 200_000, **texts)
    (row,) = fetched(project, [result])
    assert {name: row[name] for name in texts} == dict.fromkeys(texts, "x" * 500)
    assert (row["status"], row["page_url"]) == ("kept", "")
    assert fetched(project, [result]) == []


def test_an_address_of_any_length_has_its_row(tmp_path, host):
    """One too long to be asked for is refused, told from its like, and not looked at again."""
    found = [f"{host.url}/{'a' * 150_000}{end}" for end in "xy"]
    for added in (2, 0):
        assert download_images(found, tmp_path / "pictures", allowed_hosts=[host.name]).total() == added
    rows = read_rows(tmp_path / "pictures" / "sources.csv", SOURCES_COLUMNS)
    assert [(row["status"], row["reason"]) for row in rows] == [("refused", rows[0]["reason"])] * 2
    assert "characters" in rows[0]["reason"] and host.asked == []


def test_one_address_is_no_list_of_letters(tmp_path, host):
    """A single address may be given as it is."""
    download_images(f"{host.url}/photo/1", tmp_path / "pictures", allowed_hosts=[host.name])
    assert host.asked == ["/photo/1"]


@pytest.mark.parametrize("name", ["url", "image"])
def test_a_mapping_is_a_record(project, host, name):
    """What a search client returns is taken as it is, in a list or alone; all that it tells is noted."""
    result = {name: f"{host.url}/photo/1", "title": "A cat", "thumbnail": f"{host.url}/photo/2"}
    (row,) = fetched(project, [result])
    assert (row["status"], row["url"], row["title"]) == ("kept", f"{host.url}/photo/1", "A cat")
    assert fetched(project, result) == []


@pytest.mark.parametrize(
    "odd", [None, 3, b"http://a.example/1.jpg", {}, {"title": "x"}, {"url": 7}, SimpleNamespace(url=None)], ids=repr
)
def test_what_names_no_address_is_told(project, host, odd):
    """It is an error that shows it, not a row without an address; what came before is kept."""
    with pytest.raises(FieldguideError, match=r"result number 2 .*no address") as raised:
        fetch(project, [f"{host.url}/photo/1", odd])
    assert repr(odd) in str(raised.value)
    assert [row["url"] for row in rows(project)] == [f"{host.url}/photo/1"]


def test_no_results_at_all_are_told(project):
    """Something that is not a list of results, such as a forgotten return, is an error that shows it."""
    with pytest.raises(FieldguideError, match="None"):
        fetch(project, None)


@pytest.mark.parametrize("name", ["..", "CON", "a:b", " cat", "cat/.."])
def test_a_project_takes_no_odd_folder(project, host, name):
    """A folder of raw/ that is no label's name is refused before anything is asked or written."""
    with pytest.raises(FieldguideError, match="cannot be a folder name"):
        download_images([f"{host.url}/photo/1"], project.raw / name, allowed_hosts=[host.name])
    assert host.asked == [] and not project.data.exists()
