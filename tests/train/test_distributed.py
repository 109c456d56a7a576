"""python -m utils.train: alone it is 04; two processes train as one, and go on after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import small_set
import torch
import two_processes
from hypothesis import given
from hypothesis import strategies as st
from small_set import fill

from utils.dataset import read_dataset
from utils.errors import FieldguideError
from utils.project import REPOSITORY, Project
from utils.tables import HISTORY_COLUMNS, read_rows
from utils.train import load_trained, processes, train_as_04, training_loss
from utils.train.__main__ import train_project
from utils.train.checkpoint import read_checkpoint
from utils.train.distributed import divided, require_enough
from utils.train.processes import Group, process_group

plain = small_set.plain
SETTINGS = """
name = "pets"
arch = "resnet18"
weights = "none"
size = 64
epochs = 2
batch_size = 5
class_weights = true
data_dir = "data"
models_dir = "models"

[labels]
cat = ["cat photo"]
dog = ["dog photo"]
"""


def project_file(folder: Path, **settings) -> Path:
    """Write a project file into a folder, draw its pictures, fewer dogs than cats, and return its path."""
    path = folder / "pets.toml"
    text = SETTINGS
    for name, value in settings.items():
        text = "\n".join(f"{name} = {value}" if line.startswith(f"{name} =") else line for line in text.splitlines())
    path.write_text(text)
    for dog in fill(Project.load(path)).on("train").of("dog").paths[:4]:
        dog.unlink()
    return path


def command(*arguments, count: int = 2) -> list[str]:
    """Return the command that runs two_processes.py in several processes."""
    start = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    return [*start, "--nproc-per-node", str(count), str(Path(two_processes.__file__)), *map(str, arguments)]


def environment(project: Path) -> dict[str, str]:
    """Return the environment of those processes."""
    return os.environ | {"PROJECT": str(project), "PYTHONPATH": str(REPOSITORY)}


def run_two(*arguments, project: Path) -> subprocess.CompletedProcess:
    """Run two_processes.py in two processes."""
    how = {"env": environment(project), "cwd": REPOSITORY, "capture_output": True, "text": True}
    return subprocess.run(command(*arguments), timeout=300, **how)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the project file of a training by two processes, and what each of them wrote down."""
    folder = tmp_path_factory.mktemp("trained")
    path = project_file(folder)
    done = run_two("train", folder, project=path)
    assert done.returncode == 0, done.stderr
    return path, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def history(path: Path) -> list[dict]:
    """Return the rows of a training's history without the seconds."""
    rows = read_rows(Project.load(path).models / "history.csv", HISTORY_COLUMNS)
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@given(st.integers(1, 300), st.integers(2, 64), st.integers(1, 8), st.integers(1, 4))
def test_each_picture_stands_in_one_part_and_parts_are_even(pictures, size, count, pieces):
    """No picture is lost or doubled; no batch is larger than asked; none is a small rest."""
    steps = divided(range(pictures), size=size, count=count, pieces=pieces)
    assert sorted(np.concatenate([part for step in steps for part in step])) == list(range(pictures))
    assert len(steps) == -(-pictures // size) * pieces and {len(step) for step in steps} == {count}
    batches = [sum(len(part) for step in steps[n : n + pieces] for part in step) for n in range(0, len(steps), pieces)]
    assert max(batches) <= size and max(batches) - min(batches) <= 1
    for n in range(0, len(steps), pieces):
        lengths = [len(part) for step in steps[n : n + pieces] for part in step]
        assert max(lengths) - min(lengths) <= 1


def test_alone_the_command_is_04(tmp_path, monkeypatch, capsys):
    """The figures of `train_as_04`, to the last digit; again, it says that the model stands, and trains nothing."""
    path = project_file(tmp_path, arch='"squeezenet1_1"', size=32)
    monkeypatch.setenv("PROJECT", str(path))
    _, rows = train_as_04(read_dataset(Project.load(path)))
    assert train_project([]) == 0
    told = capsys.readouterr().out
    assert told.startswith("There is no model yet") and "\nEpoch 2: training loss" in told
    kept = read_checkpoint(Project.load(path))
    assert [row | {"seconds": 0} for row in kept["rows"]] == [row | {"seconds": 0} for row in rows]
    assert "processes" not in kept["settings"]
    stamp = (tmp_path / "models/pets/learner.pth").stat().st_mtime_ns
    assert train_project([]) == 0 and capsys.readouterr().out.startswith("The model stands")
    assert (tmp_path / "models/pets/learner.pth").stat().st_mtime_ns == stamp


def test_more_processes_than_pictures_are_refused(make_project):
    """The sentence says how many can be started."""
    dataset = fill(make_project(batch_size=8))  # 16 pictures: two batches of 8
    require_enough(dataset, Group(count=4))
    with pytest.raises(FieldguideError, match=r"too few for 5 processes: each needs 2 at a time\. Start at most 4, or"):
        require_enough(dataset, Group(count=5))
    with pytest.raises(FieldguideError, match=r"for 2 processes with 3 pieces each"):
        require_enough(dataset, Group(count=2), pieces=3)


@pytest.mark.parametrize("taken", [True, False])
def test_processes_that_cannot_meet_say_so(monkeypatch, taken):
    """A port in use, and a process that never comes, end in a sentence, and not in a wait without end."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if taken:
            server.listen()
        else:
            server.close()
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setattr(processes, "NO_ANSWER", processes.timedelta(seconds=1))
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
        told = f"^Port {port} is in use" if taken else "^Not all of the 2 processes came"
        with pytest.raises(FieldguideError, match=told), process_group():
            pytest.fail("they met")


@pytest.mark.long
def test_two_processes_load_each_picture_once_an_epoch(trained):
    """Of both sets, in each epoch; both processes work, and they go through the training set in changing orders."""
    path, told = trained
    dataset = read_dataset(Project.load(path))
    for side in ("train", "valid"):
        epochs = list(zip(*(each["loaded"][side] for each in told), strict=True))
        assert len(epochs) == 3 and all(all(parts) for parts in epochs)
        assert [sorted(first + second) for first, second in epochs] == [sorted(dataset.on(side).ids)] * 3
    assert told[0]["loaded"]["train"][0] != told[0]["loaded"]["train"][1]


@pytest.mark.long
def test_the_validation_loss_of_two_processes_is_that_of_one(trained):
    """The kept epoch, judged anew by a single process, has the figures that two processes wrote down together."""
    path, _ = trained
    dataset = read_dataset(Project.load(path))
    learn = load_trained(dataset)
    learn.loss_func = training_loss(dataset)
    best = min(learn.record.history, key=lambda row: row["valid_loss"])
    with learn.no_bar(), learn.no_logging():
        valid_loss, accuracy = learn.validate()
    assert valid_loss == pytest.approx(best["valid_loss"], abs=1e-5) and accuracy == pytest.approx(best["accuracy"])
    assert learn.record.settings["processes"] == 2 and not learn.record.changed


@pytest.mark.long
def test_the_first_process_alone_writes(trained):
    """The second one changes no file, in the folders of data and of models."""
    _, told = trained
    assert any("resume" in path or ".part" in path for path in told[0]["changed"]) and told[1]["changed"] == []


@pytest.mark.long
def test_a_training_goes_on_after_a_kill_with_the_same_digits(trained, tmp_path):
    """One process dies by SIGKILL after the first epoch: all end soon; begun again, nothing tells of it."""
    path = project_file(tmp_path)
    models, env = Project.load(path).models, environment(path)
    running = subprocess.Popen(command("train", tmp_path), env=env, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    while not (models / "resume.pth").exists():
        assert running.poll() is None
        time.sleep(0.01)
    second = next(child for child in psutil.Process(running.pid).children() if child.environ().get("LOCAL_RANK") == "1")
    second.send_signal(signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode and not (models / "learner.pth").exists(), said
    done = run_two("train", tmp_path, project=path)
    assert done.returncode == 0 and "it goes on from epoch" in done.stdout, done.stderr
    assert history(path) == history(trained[0])
    kept, expected = (read_checkpoint(Project.load(file))["model"] for file in (path, trained[0]))
    assert all(torch.equal(kept[name], value) for name, value in expected.items())


@pytest.mark.long
def test_two_processes_learn_what_one_learns_from_the_whole_batch(tmp_path, monkeypatch):
    """Unequal parts, weighted labels, a batch in pieces: the weights are those of plain fastai, but for rounding."""
    path = project_file(tmp_path, batch_size=6)
    done = run_two("step", tmp_path, 2, project=path)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("PROJECT", str(path))
    expected = two_processes.plain_weights(Group())
    for rank in range(2):
        for found, weights in zip(torch.load(tmp_path / f"{rank}.pth"), expected, strict=True):
            torch.testing.assert_close(found, weights, atol=1e-6, rtol=1e-5)


@pytest.mark.long
def test_other_project_files_are_refused(tmp_path):
    """The first difference is named, once, and nothing is written."""
    path = project_file(tmp_path)
    (tmp_path / "other.toml").write_text(path.read_text().replace("epochs = 2", "epochs = 3"))
    done = run_two("differ", tmp_path, project=path)
    assert done.returncode and done.stderr.count("Process 1 of 2 has epochs = 3, process 0 has 2.") == 1
    assert not Project.load(path).models.exists()
