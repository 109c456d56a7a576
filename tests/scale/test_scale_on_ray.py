"""utils.scale on a cluster of two nodes on this machine: workers, a node and the driver are killed, nothing is lost."""

import builtins
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import standin_host

ray = pytest.importorskip("ray", reason="needs requirements-cluster.txt")
pytest.importorskip("pyarrow", reason="needs requirements-cluster.txt")

from conftest import draw_picture  # noqa: E402 (after what may be missing)
from ray.cluster_utils import Cluster  # noqa: E402
from test_inference import colour_model, saved  # noqa: E402

from utils.download import Rules  # noqa: E402
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


def workers(kind: str) -> list[psutil.Process]:
    """Return the processes of Ray's actors of a kind on this machine that were started by this one."""
    return [each for each in psutil.Process().children(recursive=True) if f"ray::{kind}" in " ".join(each.cmdline())]


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


def kill_workers(kind: str = "MapWorker") -> None:
    found = workers(kind)
    assert found
    for each in found:
        each.kill()


def test_workers_are_killed(cluster, photos, tmp_path, monkeypatch):
    """All workers are killed in the middle: they are started again, and each picture has one row, as predict says."""
    after(150, kill_workers, monkeypatch)
    assert scale_out(arguments(cluster, photos, tmp_path)) == commands.SOME
    check(photos, tmp_path)


def test_print_stays_pythons_own(cluster, photos, tmp_path):
    """An export of fastai holds the learner's print: with Ray's it could be loaded where Ray is alone."""
    after_print = builtins.print
    assert scale_out(arguments(cluster, photos, tmp_path)) == commands.SOME
    ray.experimental.tqdm_ray.instance()  # as a worker that prints has Ray do
    assert builtins.print is after_print and print.__module__ == "builtins"


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
        if bar.desc not in told and workers("MapWorker"):
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


def killed_driver(given: list[str], out: Path, parts: Path) -> None:
    """Run the command line until there is a part, see that another run is refused meanwhile, and kill it."""
    command = [sys.executable, "-m", "utils.scale", *given]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as driver:
        until = time.monotonic() + 120
        while not (out / ".lock").exists() and time.monotonic() < until:
            time.sleep(0.1)
        with pytest.raises(commands.FieldguideError, match="is working on"), own_folder(str(out)):
            pass
        while not list(parts.glob("part-*")) and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)


def test_the_driver_is_killed_and_another_waits(cluster, photos, tmp_path):
    """A killed run is gone on with: what it wrote stays as it is. Meanwhile a second one is refused."""
    killed_driver(arguments(cluster, photos, tmp_path), tmp_path, tmp_path)
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


@pytest.fixture
def web(monkeypatch, tmp_path):
    """Return the stand-in host under two names, with a table of pictures; it counts who is there at the same time."""
    crowd, most, answered = Counter(), Counter(), standin_host.Host.do_GET

    def counted(self):
        name = self.headers["Host"]
        with self.server.lock:
            crowd[name] += 1
            most[name] = max(most[name], crowd[name])
        time.sleep(0.03)
        try:
            answered(self)
        finally:
            with self.server.lock:
                crowd[name] -= 1

    monkeypatch.setattr(standin_host.Host, "do_GET", counted)
    with standin_host.serving() as host:
        names = [host.name, f"127.0.0.1:{host.port}"]
        rows = [f"{n},http://{names[n % 2]}/photo/{n},{'ab'[n % 3 > 0]}" for n in range(PICTURES)]
        (tmp_path / "links.csv").write_text("\n".join(["id,url,label", *rows]) + "\n")
        host.most, host.names = most, names
        yield host


def collect_arguments(cluster, web, folder: Path) -> list[str]:
    """Return what the command line is given."""
    allowed = [part for name in web.names for part in ("--allow-host", name)]
    return ["collect", str(folder / "links.csv"), "--out", str(folder / "out"), "--address", cluster.address, *allowed]


def check_collected(web, out: Path) -> None:
    """Every address has one row and its picture, a row in sources.csv, and no host was asked by two workers at once."""
    rows = written_rows(out / "rows").to_pylist()
    assert sorted(int(row["id"]) for row in rows) == list(range(PICTURES)) and (out / "rows" / FINISHED).exists()
    for row in rows:
        assert (out / row["file"]).read_bytes() == standin_host.picture(int(row["id"])) and row["error"] is None
    assert len((out / "sources.csv").read_text().splitlines()) == 1 + PICTURES
    assert set(web.most) == set(web.names) and max(web.most.values()) == Rules.per_host


def test_who_collects_is_killed(cluster, web, tmp_path, monkeypatch):
    """New workers fetch what the killed ones left. One worker at a time asks each host, as before."""
    after(150, lambda: kill_workers("Hand"), monkeypatch)
    assert scale_out(collect_arguments(cluster, web, tmp_path)) == commands.ALL
    check_collected(web, tmp_path / "out")


def test_the_driver_of_collecting_is_killed(cluster, web, tmp_path):
    """What has a row stays as it is and is not asked for again."""
    given, out = collect_arguments(cluster, web, tmp_path), tmp_path / "out"
    killed_driver(given, out, out / "rows")
    first = {path: path.read_bytes() for path in (out / "rows").glob("part-*")}
    kept = {f"/photo/{id}" for id in written_rows(out / "rows")["id"].to_pylist()}
    time.sleep(3)  # Ray ends the workers of a driver that is gone
    asked = len(web.asked)
    assert scale_out(given) == commands.ALL
    assert {path: path.read_bytes() for path in first} == first != {}
    assert kept and not kept & set(web.asked[asked:])
    check_collected(web, out)


def test_a_node_is_killed(cluster, photos, tmp_path, monkeypatch):
    """A node dies in the middle, with its worker and its memory: the other one does the rest."""
    node = cluster.list_all_nodes()[-1]
    after(150, lambda: cluster.remove_node(node, allow_graceful=False), monkeypatch)
    assert scale_out(arguments(cluster, photos, tmp_path)) == commands.SOME
    check(photos, tmp_path)
