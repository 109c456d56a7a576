"""The answers of utils.scale without Ray: parts, going on after a kill, blocks that fail, and what a worker answers."""

import json
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason="needs requirements-cluster.txt")

from conftest import draw_picture, tree  # noqa: E402
from test_inference import colour_model, saved  # noqa: E402

import utils.scale  # noqa: E402
from utils.errors import FieldguideError  # noqa: E402
from utils.inference import load_classifier  # noqa: E402
from utils.scale.jobs import part_schema  # noqa: E402
from utils.scale.parts import FINISHED, Parts, own_folder, written_rows  # noqa: E402
from utils.scale.predicting import Predicting  # noqa: E402
from utils.scale.running import MOST_IN_BLOCK, Halted, judge_missing  # noqa: E402
from utils.scale.storages import witnesses  # noqa: E402
from utils.scale.verifying import Verifying  # noqa: E402
from utils.scale.work import TROUBLE, Worker  # noqa: E402
from utils.storage import content_id, file_hash  # noqa: E402

COLUMNS = pa.schema([("label", pa.string()), ("model_sha256", pa.string())])
ANSWERS = pa.schema(
    [("row", pa.int64()), ("label", pa.string()), ("model_sha256", pa.string()), ("error", pa.string()), *TROUBLE]
)


def parts_of(folder: Path, count: int, sha256: str = "abc") -> Parts:
    """Return the parts of a table with the ids p0, p1, …"""
    ids = pa.chunked_array([pa.array([f"p{n}" for n in range(count)], pa.large_string())])
    return Parts(folder, ids, part_schema(COLUMNS), {"task": "predict", "model_sha256": sha256})


def answered(positions, **more) -> pa.Table:
    """Return what a worker answers to pictures at these positions."""
    row = {"label": "cat", "model_sha256": "abc", **more}
    return pa.Table.from_pylist([{"row": int(n), **row} for n in positions], schema=ANSWERS)


def judge(parts: Parts, hand_out, told=None) -> None:
    """Hand out what is missing, to two workers and without a pause."""
    places = pa.chunked_array([[f"/{n}.jpg" for n in range(len(parts.ids))]])
    judge_missing(parts, places, hand_out, told or (lambda rows: None), workers=2, pause=0)


def blocks_of(positions, size):
    return [positions[start : start + size] for start in range(0, len(positions), size)]


# --- Parts ------------------------------------------------------------------------------------------------------------


def test_a_part_is_known_again_and_done_comes_last(tmp_path):
    """Rows that were written are not missing in the next run; _DONE stands there only when all are."""
    parts = parts_of(tmp_path, 3)
    assert parts.add(np.array([2]), pa.table({"label": ["cat"], "error": ["torn"], "model_sha256": ["abc"]})) == 1
    parts.finish()
    again = parts_of(tmp_path, 3)
    assert again.missing.tolist() == [0, 1] and again.errors == 1
    assert not (tmp_path / FINISHED).exists()
    rows = {"label": ["dog", "fox", "owl"], "error": [None] * 3, "model_sha256": ["abc"] * 3}
    assert again.add(np.array([1, 2, 0]), pa.table(rows)) == 2  # p2 has its row
    again.finish()
    assert json.loads((tmp_path / FINISHED).read_text()) == {
        "pictures": 3,
        "errors": 1,
        "task": "predict",
        "model_sha256": "abc",
    }
    found = written_rows(tmp_path).to_pydict()
    assert (found["id"], found["label"], found["error"]) == (
        ["p0", "p1", "p2"],
        ["owl", "dog", "cat"],
        [None, None, "torn"],
    )
    longer = parts_of(tmp_path, 4)
    longer.begin()
    assert longer.missing.tolist() == [3] and not (tmp_path / FINISHED).exists()


def test_parts_that_do_not_fit_are_refused_and_stay(tmp_path):
    """Another model, another table, ids in two parts, a damaged part: a sentence for each, and no file changes."""
    parts = parts_of(tmp_path, 2)
    parts.add(np.array([0, 1]), pa.table({"label": ["cat"] * 2, "error": ["x"] * 2, "model_sha256": ["abc"] * 2}))
    parts.finish()
    before = tree(tmp_path)
    with pytest.raises(FieldguideError, match="model_sha256 was abc and is def"):
        parts_of(tmp_path, 2, "def")
    with pytest.raises(FieldguideError, match="1 row of pictures that the table does not name: “p1”"):
        parts_of(tmp_path, 1)
    first = tmp_path / "part-000001.parquet"
    second = tmp_path / "part-000002.parquet"
    second.write_bytes(first.read_bytes())
    with pytest.raises(FieldguideError, match=r"part-000002\.parquet holds ids that stand in two rows"):
        parts_of(tmp_path, 2)
    second.write_bytes(first.read_bytes()[:-20])
    with pytest.raises(FieldguideError, match=r"part-000002\.parquet cannot be read"):
        parts_of(tmp_path, 2)
    second.unlink()
    assert tree(tmp_path) == before


def test_one_run_at_a_time(tmp_path):
    """A second run into the same folder is refused; an address and a file are no folder."""
    with own_folder(str(tmp_path)), pytest.raises(FieldguideError, match="is working on"), own_folder(str(tmp_path)):
        pass
    (tmp_path / "file").touch()
    for out, told in ((f"{tmp_path}/file", "is a file"), ("s3://bucket/out", "is an address")):
        with pytest.raises(FieldguideError, match=told), own_folder(out):
            pass


# --- Blocks -----------------------------------------------------------------------------------------------------------


def test_blocks_that_vanish_or_come_twice(tmp_path):
    """Each id has one row, though a third of the blocks is lost at first and another third comes twice."""
    parts, lost, heard = parts_of(tmp_path, 500), [], []

    def hand_out(positions, places, size):
        assert places.to_pylist() == [f"/{n}.jpg" for n in positions]
        for n, block in enumerate(blocks_of(positions, size)):
            if n % 3 == 0 and not lost.count(n):
                lost.append(n)
                continue
            for _ in range(1 + (n % 3 == 1)):
                yield answered(block)

    judge(parts, hand_out, heard.append)
    parts.finish()
    assert written_rows(tmp_path)["id"].to_pylist() == sorted(f"p{n}" for n in range(500))
    assert sum(heard) == 500 and len(lost) > 1


def test_a_picture_that_kills_its_worker(tmp_path):
    """Whatever block holds it comes to nothing. Alone it gets a row with an error, the others get their answers."""
    parts = parts_of(tmp_path, 300)

    def hand_out(positions, places, size):
        yield from (answered(block) for block in blocks_of(positions, size) if 77 not in block)

    judge(parts, hand_out)
    parts.finish()
    rows = written_rows(tmp_path).to_pylist()
    assert [row["id"] for row in rows if row["error"]] == ["p77"] and len(rows) == 300
    assert rows[[row["id"] for row in rows].index("p77")] == {
        "id": "p77",
        "label": None,
        "error": "its worker died each time it was judged",
        "model_sha256": "abc",
    }


def test_a_failing_block_says_why(tmp_path):
    """What a worker says of a block that failed becomes the error of the picture that fails alone."""
    parts = parts_of(tmp_path, 40)

    def hand_out(positions, places, size):
        for block in blocks_of(positions, size):
            yield answered(block, failed="out of memory", label=None) if 5 in block else answered(block)

    judge(parts, hand_out)
    parts.finish()
    assert {row["id"]: row["error"] for row in written_rows(tmp_path).to_pylist() if row["error"]} == {
        "p5": "out of memory"
    }


def test_a_cluster_that_halts_is_tried_again(tmp_path):
    """What is missing is handed out anew; without an answer in between, three halts end the run with a sentence."""
    parts, halts = parts_of(tmp_path, 100), []

    def hand_out(positions, places, size):
        if len(halts) < 4:
            yield answered(positions[:10])
            halts.append(1)
            raise Halted("a node is gone")
        yield answered(positions)

    judge(parts, hand_out)
    assert len(parts.missing) == 0

    def dead(positions, places, size):
        raise Halted("no node is left")
        yield

    with pytest.raises(FieldguideError, match=r"stopped 3 times without an answer \(no node is left\)"):
        judge(parts_of(tmp_path / "other", 100), dead)


def test_a_run_that_leads_nowhere_stops(tmp_path):
    """A worker that refuses stops everything; so does a run in which no picture of many can be judged."""
    with pytest.raises(FieldguideError, match="sees nothing"):
        judge(parts_of(tmp_path, 9), lambda positions, places, size: [answered(positions, refused="sees nothing")])
    with pytest.raises(FieldguideError, match=f"None of {MOST_IN_BLOCK + 1} pictures could be judged: no memory"):
        judge(parts_of(tmp_path, MOST_IN_BLOCK + 1), lambda p, places, size: [answered(p, failed="no memory")])


# --- A worker ---------------------------------------------------------------------------------------------------------


def block_of(*places) -> pa.Table:
    return pa.table({"row": range(len(places)), "place": [str(place) for place in places]})


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    """Return four pictures, a broken one and one that is missing."""
    paths = [tmp_path / f"photo {n}.png" for n in range(6)]
    for n, path in enumerate(paths[:4]):
        draw_picture(n, colour=("red", "lime", "blue", "gold")[n]).save(path)
    paths[4].write_bytes(b"no picture")
    return paths


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_worker_answers_as_predict_does(tmp_path, photos, prefix):
    """The same labels and probabilities, by paths and through a storage; what cannot be read is a row with a reason."""
    path = saved(colour_model(), tmp_path / "model.onnx")
    job = Predicting(path.name, path.read_bytes(), file_hash(path))
    places = [f"{prefix}{str(photo).replace(' ', '%20' if prefix else ' ')}" for photo in photos]
    rows = Worker(job, 1, witnesses(places[:4]))(block_of(*places)).to_pylist()
    assert [row["row"] for row in rows] == list(range(6))
    for row, own in zip(rows, load_classifier(path).predict(photos), strict=True):
        assert (row["label"], row["probability"]) == (own.label, own.probability)
        assert bool(row["error"]) == bool(own.error) and row["failed"] is row["refused"] is None
    assert {row["model_sha256"] for row in rows} == {file_hash(path)}


def test_a_worker_verifies_as_02_does(photos):
    """The id of the content, size and warnings; or the reason, and then no size."""
    rows = Worker(Verifying(), 2, ())(block_of(*photos)).to_pylist()
    assert [row["content"] for row in rows] == [*(content_id(photo.read_bytes()) for photo in photos[:5]), None]
    assert [row["width"] for row in rows] == [160] * 4 + [None] * 2
    assert rows[4]["error"] == "not a picture but text" and "there is no file" in rows[5]["error"]


def test_a_machine_that_does_not_see_the_pictures_refuses(photos, tmp_path):
    """It says so at once, and also when they vanish later; where only some are gone, those are rows with a reason."""
    assert (
        "does not see the pictures"
        in Worker(Verifying(), 1, ["/none/1", "/none/2"])(block_of(photos[0]))["refused"][0].as_py()
    )
    worker = Worker(Verifying(), 1, [str(photos[0])])
    assert worker(block_of(photos[5]))["refused"].to_pylist() == [None]
    photos[0].unlink()
    assert "does not see the pictures" in worker(block_of(photos[5]))["refused"][0].as_py()
    with pytest.raises(FieldguideError, match="None of the pictures looked at is there"):
        witnesses([str(photos[5])])


def test_a_storage_that_does_not_answer_is_asked_again(photos):
    """The picture is no answer yet but failed; the others of its block have their rows."""
    away = "s3://bucket/a.jpg?endpoint_override=127.0.0.1:9&scheme=http&region=x&connect_timeout=1&request_timeout=1"
    rows = Worker(Verifying(), 1, ())(block_of(photos[0], away)).to_pylist()
    assert rows[0]["failed"] is None and rows[0]["width"] == 160
    assert "cannot be reached" in rows[1]["failed"]


# --- The command line -------------------------------------------------------------------------------------------------


def test_without_ray_there_is_the_line_to_type(monkeypatch, capsys):
    """One sentence, and exit code 1."""
    monkeypatch.setattr(utils.scale, "find_spec", lambda name: None if name == "ray" else True)
    assert utils.scale.scale_out(["verify", "t.csv", "--out", "x"]) == 1
    assert "Not installed: ray" in (told := capsys.readouterr().err)
    assert "-m pip install -r requirements-cluster.txt" in told
