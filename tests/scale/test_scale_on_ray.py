"""utils.scale on a cluster of two nodes on this machine: workers, a node and the driver are killed, nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ray = pytest.importorskip("ray", reason="needs requirements-cluster.txt")
pytest.importorskip("pyarrow", reason="needs requirements-cluster.txt")

from conftest import draw_picture  # noqa: E402 (after what may be missing)
from ray.cluster_utils import Cluster  # noqa: E402
from test_inference import colour_model, saved  # noqa: E402

from utils.inference import load_classifier  # noqa: E402
from utils.project import REPOSITORY  # noqa: E402
from utils.scale import commands, grouping, scale_out  # noqa: E402
from utils.scale.jobs import JOB_MAKERS  # noqa: E402
from utils.scale.parts import FINISHED, own_folder, written_rows  # noqa: E402
from utils.scale.predicting import Predicting, predicting  # noqa: E402

pytestmark = pytest.mark.long

PICTURES = 600


@pytest.fixture(scope="module")
def cluster():
    """Return a cluster of two nodes that lend two processors each; Ray may need several tries on a busy machine."""
    for attempt in range(1, 5):
        made = Cluster()
        try:
            for _ in range(2):
                made.add_node(num_cpus=2, include_dashboard=False)
            break
        except Exception:
            made.shutdown()
            if attempt == 4:
                raise
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Return a folder with a table, its pictures (the last one broken) and a model."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["id,path"]
    for n in range(PICTURES):
        draw_picture(n, size=(64, 48)).save(folder / f"{n:03}.png")
        rows.append(f"photo {n},{n:03}.png")
    (folder / f"{PICTURES - 1:03}.png").write_bytes(b"no picture")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    saved(colour_model(), folder / "model.onnx")
    return folder


def arguments(cluster, photos: Path, out: Path) -> list[str]:
    """Return what the command line is given."""
    named = ["--model", str(photos / "model.onnx"), "--out", str(out), "--address", cluster.address]
    return ["predict", str(photos / "table.csv"), *named]


def workers() -> list[psutil.Process]:
    """Return the processes of Ray's actors on this machine that were started by this one."""
    return [each for each in psutil.Process().children(recursive=True) if "ray::MapWorker" in " ".join(each.cmdline())]


def check(photos: Path, out: Path) -> None:
    """Every id has one row, and answers are those of the product's own predict."""
    rows = written_rows(out)
    assert rows["id"].to_pylist() == sorted(f"photo {n}" for n in range(PICTURES))
    assert (out / FINISHED).exists()
    paths = [photos / f"{id.split()[1].zfill(3)}.png" for id in rows["id"].to_pylist()]
    for row, own in zip(rows.to_pylist(), load_classifier(photos / "model.onnx").predict(paths), strict=True):
        assert (row["label"], row["error"]) == (own.label, own.error)
        assert row["probability"] == pytest.approx(own.probability, abs=1e-6)


def after(rows: int, deed, monkeypatch) -> None:
    """Do a deed once so many rows came."""
    heard, told = [0], commands.Pace.told

    def told_too(self, bar, new):
        heard[0] += new
        if heard[0] >= rows > heard[0] - new:
            deed()
        told(self, bar, new)

    monkeypatch.setattr(commands.Pace, "told", told_too)


def kill_workers() -> None:
    found = workers()
    assert found
    for each in found:
        each.kill()


def test_workers_are_killed(cluster, photos, tmp_path, monkeypatch):
    """All workers are killed in the middle: they are started again, and each picture has one row, as predict says."""
    after(150, kill_workers, monkeypatch)
    assert scale_out(arguments(cluster, photos, tmp_path)) == commands.SOME
    check(photos, tmp_path)


def test_groups_of_copies_while_workers_are_killed(cluster, photos, tmp_path, monkeypatch):
    """The search and the comparisons are handed out, workers are killed in both: the groups are those made here."""
    table = copies_beside(photos, tmp_path)
    out, told = ["--address", cluster.address, "--out"], []
    assert scale_out(["verify", table, *out, str(tmp_path / "checked")]) == commands.SOME
    given = ["copies", table, "--checked", str(tmp_path / "checked"), *out]
    assert scale_out([*given, str(tmp_path / "here")]) == commands.SOME
    monkeypatch.setattr(grouping, "FEW_HASHES", 0)
    monkeypatch.setattr(grouping, "FEW_PAIRS", 0)

    def kill_once(self, bar, new, told_before=commands.Pace.told):
        if bar.desc not in told and workers():
            told.append(bar.desc)
            kill_workers()
        told_before(self, bar, new)

    monkeypatch.setattr(commands.Pace, "told", kill_once)
    assert scale_out([*given, str(tmp_path / "there")]) == commands.SOME
    assert told == ["search", "compare"]
    here, there = (written_rows(tmp_path / name).to_pylist() for name in ("here", "there"))
    assert here == there and sum(row["pictures"] == 2 for row in here) >= 80


def copies_beside(photos: Path, folder: Path) -> str:
    """Save 40 larger pictures and a smaller version of each; return a table of them and of 20 others."""
    rows = (photos / "table.csv").read_text().splitlines()[-20:]
    rows = ["id,path", *(row.replace(",", f",{photos}/") for row in rows)]
    for n in range(40):
        image = draw_picture(3000 + n, size=(240, 180))
        image.save(folder / f"{n}.png")
        image.resize((120, 90)).save(folder / f"{n} small.png")
        rows += [f"{n},{folder}/{n}.png", f"{n} small,{folder}/{n} small.png"]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "table.csv")


def test_the_driver_is_killed_and_another_waits(cluster, photos, tmp_path):
    """A killed run is gone on with: what it wrote stays as it is. Meanwhile a second one is refused."""
    command = [sys.executable, "-m", "utils.scale", *arguments(cluster, photos, tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as driver:
        until = time.monotonic() + 120
        while not (tmp_path / ".lock").exists() and time.monotonic() < until:
            time.sleep(0.1)
        with pytest.raises(commands.FieldguideError, match="is working on"), own_folder(str(tmp_path)):
            pass
        while not list(tmp_path.glob("part-*")) and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
    first = {path: path.read_bytes() for path in tmp_path.glob("part-*")}
    assert scale_out(arguments(cluster, photos, tmp_path)) == commands.SOME
    assert {path: path.read_bytes() for path in first} == first != {}
    check(photos, tmp_path)


@dataclass(frozen=True)
class Deadly(Predicting):
    """Predicting with a picture that kills the process which opens it, as some decoder may."""

    def worker(self, cores: int):
        judge = super().worker(cores)

        def judge_or_die(pictures):
            pictures = list(pictures)
            if any(path.name == "017.png" for path in pictures):
                os.kill(os.getpid(), signal.SIGKILL)
            return judge(iter(pictures))

        return judge_or_die


def deadly(options) -> Deadly:
    return Deadly(*vars(predicting(options)).values())


def test_a_picture_that_kills_its_workers(cluster, photos, tmp_path, monkeypatch):
    """It has a row that says so, and all others have their answers."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
    monkeypatch.setitem(JOB_MAKERS, "predict", f"{__name__}:deadly")
    few = photos / "few.csv"
    few.write_text("\n".join((photos / "table.csv").read_text().splitlines()[:41]))
    given = arguments(cluster, photos, tmp_path)
    assert scale_out([given[0], str(few), *given[2:]]) == commands.SOME
    rows = written_rows(tmp_path).to_pylist()
    assert {row["id"]: row["error"] for row in rows if row["error"]} == {
        "photo 17": "its worker died each time it was judged"
    }
    assert len(rows) == 40


def test_a_node_is_killed(cluster, photos, tmp_path, monkeypatch):
    """A node dies in the middle, with its worker and its memory: the other one does the rest."""
    node = cluster.list_all_nodes()[-1]
    after(150, lambda: cluster.remove_node(node, allow_graceful=False), monkeypatch)
    assert scale_out(arguments(cluster, photos, tmp_path)) == commands.SOME
    check(photos, tmp_path)
