"""Gathering: what is kept and noted, that nothing is done twice, and that nothing is lost."""

import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_fetch import picture, serving, without_proxy

from utils import download, sample
from utils.download import (
    SOURCES_COLUMNS,
    Gathered,
    download_images,
    folder_pictures,
    folders_table,
    gathered_sample,
    kept_count,
    save_pictures,
)
from utils.files import FieldguideError, content_id, read_rows
from utils.project import Project


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


@pytest.fixture
def host(monkeypatch):
    """The host that misbehaves as planned; fetched from directly, whatever this machine is set to."""
    without_proxy(monkeypatch)
    with serving() as host:
        yield host


def fetch(project, results, **options):
    """Fetch under the label "cat", with "localhost" allowed."""
    given = {"allowed_hosts": ["localhost"]} | options
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
    (row,) = fetch(project, [result]).rows
    id = content_id(picture(1))
    assert files(project.raw) == {f"cat/{id}.jpg": picture(1)}
    told = {"id": id, "label": "cat", "query": "cat", "engine": "ddgs", "url": result.url, "title": "A cat"}
    told |= {"page_url": "https://example.org", "license": "Public", "status": "kept", "reason": ""}
    told |= {"bytes": str(len(picture(1))), "width": "72", "height": "64"}
    assert rows(project) == [row | {"fetched_at": ""}] == [told | {"fetched_at": ""}]


def test_name_and_extension_come_from_the_content(project, host):
    """Neither Content-Disposition nor Content-Type nor the address has a say in the file's name."""
    fetch(project, [f"{host.url}/png/..%2f..%2fx.gif"])
    assert list(files(project.raw)) == [f"cat/{content_id(picture(1, 'PNG'))}.png"]


@pytest.mark.parametrize("path", ["/redirect?/photo/1", "/spaced+name.jpg"])
def test_a_row_keeps_the_address_as_given(project, host, path):
    """Wherever a picture was found in the end, its row holds the address that was asked for."""
    (row,) = fetch(project, [host.url + path]).rows
    assert (row["status"], row["url"]) == ("kept", host.url + path)


def test_a_refused_or_failed_address_writes_nothing(project, host):
    """What gave no picture has a row with its reason, and no file."""
    report = fetch(project, [f"{host.url}/page", "file:///etc/passwd"])
    assert [(row["status"], row["reason"], row["id"], row["bytes"]) for row in report.rows] == [
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
    report = fetch(project, results)
    assert [(row["status"], row["reason"], row["url"]) for row in report.rows] == [
        ("thumbnail", "HTTP 404", f"{host.url}/nothing"),
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
    monkeypatch.setattr("utils.fetch.PROBE", "http://probe.invalid/")
    monkeypatch.setattr("utils.fetch.TRIES", 1)
    results = [f"{host.url}/photo/1", *(f"http://{name}.invalid/x.jpg" for name in dead)]
    results += [f"{host.url}/photo/2"] if len(dead) > 3 else []
    with pytest.raises(FieldguideError, match=f"no network.*{len(dead)} addresses"):
        fetch(project, results)
    assert [row["url"] for row in rows(project)] == results[:1]


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


def test_a_photo_put_right_at_the_same_path_is_taken(project, folder, monkeypatch):
    """What failed, or was half copied, is read again; the unchanged failure has one row, not one for each run."""
    (folder / "dog" / "4.jpg").write_bytes(picture(4)[:500])
    monkeypatch.setattr(download, "LARGEST", 100_000)
    (folder / "dog" / "large.jpg").write_bytes(b"x" * 100_001)
    save_pictures(project, folder_pictures(folder, ["dog"]))
    assert save_pictures(project, folder_pictures(folder, ["dog"])).rows == []
    (folder / "dog" / "4.jpg").write_bytes(picture(4))
    (folder / "dog" / "large.jpg").write_bytes(picture(6))
    report = save_pictures(project, folder_pictures(folder, ["dog"]))
    assert [(row["title"], row["status"]) for row in report.rows] == [("4.jpg", "kept"), ("large.jpg", "kept")]
    assert {content_id(picture(n)) for n in (4, 6)} <= {Path(name).stem for name in files(project.raw)}
    assert save_pictures(project, folder_pictures(folder, ["dog"])).rows == []


def test_beside_other_sources_a_folder_may_lack_labels(folder):
    """A missing or empty label folder is passed over; one with none of the labels is still refused."""
    (folder / "cow" / "inner").mkdir(parents=True)
    found = folder_pictures(folder, ["bird", "cow", "dog"], complete=False)
    assert [picture.title for picture in found] == ["4.jpg", "5.jpg"]
    with pytest.raises(FieldguideError, match=r"no photos of any label.*'cat', 'cow', 'dog'"):
        list(folder_pictures(folder, ["bird", "cow"], complete=False))


def test_what_the_limit_leaves_out_is_told(project, folder):
    """For each label, how many photos its folders hold and how many of them were taken."""
    project = project.model_copy(update={"source": ["sample", str(folder)]})
    save_pictures(project, folder_pictures(folder, project.labels, limit=2))
    table = folders_table(project)
    assert table.to_dict("index") == {
        "cat": {"files in the folders": 5, "taken": 2},
        "dog": {"files in the folders": 2, "taken": 2},
    }
    assert folders_table(project.model_copy(update={"source": "sample"})).empty


def test_another_sample_adds_its_pictures(project):
    """A larger sample or another seed draws what is new and asks for nothing twice."""
    project = project.model_copy(update={"labels": {"tilapia": [], "sea cucumber": []}})

    def gather(per_label, seed):
        drawn = list(sample.sample_pictures(project.labels, per_label=per_label, seed=seed))
        sample.write_truth(project, drawn)
        save_pictures(project, gathered_sample(drawn))
        return drawn

    every = [gather(10, 1), gather(12, 1), gather(10, 2)]
    state = files(project.data)
    gather(10, 1)
    assert files(project.data) == state
    there = {(Path(name).parent.name, data) for name, data in files(project.raw).items()}
    assert there == {(picture.label, picture.data) for drawn in every for picture in drawn}
    assert set(sample.read_truth(project).url) == {row["url"] for row in rows(project)}
