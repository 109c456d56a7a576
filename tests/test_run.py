"""make run: which notebooks run in which order, and a summary that says no more than is known."""

import importlib.util
import json
import re
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from utils.dataset import read_dataset, round_fingerprint
from utils.evaluate.rounds import EVALUATION_FORM
from utils.ledger import save_flag
from utils.project import REPOSITORY
from utils.tables import REJECTED_COLUMNS, append_rows
from utils.verify import verify_images

STAGES = ["01_download", "02_verify", "03_split", "04_train", "05_evaluate", "06_clean", "07_export", "08_predict"]


@pytest.fixture
def runner():
    """Return notebooks/run.py as a module."""
    spec = importlib.util.spec_from_file_location("runner", REPOSITORY / "notebooks" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ready(make_project, fill_raw):
    """Return a project with four training copies a label."""
    project = make_project()
    fill_raw(project, 4)
    verify_images(project)
    return project


def ran(runner, monkeypatch, project, *arguments, moves=False, truth=True):
    """Return the names of the notebooks that a run executes; 06 deletes a picture if it `moves`."""
    names = []

    def run_notebook(execution, reports):
        names.append(execution.path.stem)
        if moves and execution.path.stem == "06_clean":
            read_dataset(project).paths[0].unlink()

    monkeypatch.setattr(runner, "Execution", lambda path: SimpleNamespace(path=path))
    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    monkeypatch.setattr(runner.Project, "load", lambda: project)
    if not truth:
        monkeypatch.setattr(runner, "TRUTH", REPOSITORY / "notebooks" / "gone.ipynb")
    else:
        monkeypatch.setattr(runner, "TRUTH", REPOSITORY / "notebooks" / "app.ipynb")  # one that is there
    assert runner.main([*arguments]) == 0
    return names


def test_every_stage_runs_once(runner, monkeypatch, ready):
    """Own photos and searches: 01 to 08, and no comparison with a truth that nobody knows."""
    assert ran(runner, monkeypatch, ready) == STAGES


def test_the_sample_is_compared_with_its_truth_after_06(runner, monkeypatch, ready):
    """On the drawn sample one notebook more; where it is missing the run does not fail."""
    drawn = ready.model_copy(update={"source": "sample"})
    assert ran(runner, monkeypatch, drawn) == [*STAGES[:6], "app", *STAGES[6:]]
    assert ran(runner, monkeypatch, drawn, truth=False) == STAGES


def test_what_depends_on_moved_pictures_is_made_again(runner, monkeypatch, ready):
    """After a 06 that moved a picture 03, 04 and 05 run again, then the comparison with the truth."""
    drawn = ready.model_copy(update={"source": "sample"})
    names = ran(runner, monkeypatch, drawn, moves=True)
    assert names == [*STAGES[:6], "03_split", "04_train", "05_evaluate", "app", *STAGES[6:]]


def test_what_finds_things_has_a_road_of_its_own(runner, monkeypatch, make_project, capsys):
    """With task = "detect" 1_tables to 4_test run, and no notebook that tells photos apart; nor the other way round."""
    finds = make_project(task="detect", source="photos", labels={}, size=64)
    monkeypatch.setattr(runner, "finding_summary", lambda project: ["verdict    none yet"])
    assert ran(runner, monkeypatch, finds) == ["1_tables", "2_photos", "3_train", "4_test"]
    assert runner.main(["03_split"]) == 1
    assert "03_split does not go with task = 'detect'" in capsys.readouterr().err


def test_named_notebooks_run_alone(runner, monkeypatch, ready):
    """In the order given, without what else would follow."""
    assert ran(runner, monkeypatch, ready, "06_clean", "03_split", moves=True) == ["06_clean", "03_split"]
    with pytest.raises(SystemExit):
        runner.main(["09_nothing"])


@pytest.fixture
def waiting(runner, tmp_path):
    """Return the execution of a notebook whose kernel has imported, and waits; its cells leave files behind."""
    (tmp_path / "begun.py").write_text("open('begun.txt', 'w')")
    first = "import sys\n\nsys.path.insert(0, '.')\nimport begun\nprint(file=open('ran.txt', 'w'))\nn = 3"
    cells = [nbformat.v4.new_code_cell(source) for source in (first, "print(n, 'begun' in globals())")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    execution = runner.Execution(tmp_path / "a.ipynb")
    for _ in range(600):
        if (tmp_path / "begun.txt").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "begun.txt").exists() and not (tmp_path / "ran.txt").exists()
    return execution


def kernel(execution):
    """Return the process of an execution's kernel."""
    return psutil.Process(execution.client.km.provisioner.process.pid)


def test_the_next_kernel_only_imports(waiting):
    """Before its turn a notebook does its imports and nothing else; its cells see them."""
    waiting.run()
    assert [cell.execution_count for cell in waiting.notebook.cells] == [1, 2]
    assert waiting.notebook.cells[1].outputs[0].text == "3 True\n"


def test_a_kernel_that_died_while_it_waited_is_replaced(waiting):
    """That says nothing of the notebook, which runs."""
    process = kernel(waiting)
    process.kill()
    for _ in range(600):  # the system takes its time
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    waiting.run()
    assert waiting.notebook.cells[1].outputs[0].text == "3 True\n"


def test_a_kernel_that_is_not_needed_ends(waiting, tmp_path):
    """After an error in the notebook before, no cell runs and no kernel is left."""
    process = kernel(waiting)
    waiting.cancel()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert not (tmp_path / "ran.txt").exists()


def test_a_run_that_stops_ends_the_kernel_that_waits(runner, monkeypatch, ready, tmp_path):
    """Whatever the first notebook raises, that of the second is cancelled; none is started twice."""
    started, cancelled = [], []

    def execution(path):
        started.append(path.stem)
        return SimpleNamespace(path=path, cancel=lambda: cancelled.append(path.stem))

    def stopped(execution, reports):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "Execution", execution)
    monkeypatch.setattr(runner, "run_notebook", stopped)
    with pytest.raises(KeyboardInterrupt):
        files = {name: REPOSITORY / "notebooks" / f"{name}.ipynb" for name in STAGES}
        runner.run_all(STAGES, files, ready, tmp_path, again=True)
    assert (started, cancelled) == (STAGES[:2], STAGES[1:2])


def test_a_first_cell_that_is_not_plain_python_is_left_to_the_notebook(runner):
    """A magic or a mistake: nothing is imported ahead, and nothing fails."""
    for source in ("%matplotlib inline\nimport os", "import os\nx = ("):
        assert runner.imports_of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])) == ""


def judged(project, **changed):
    """Write an evaluation.json of the project as it is now, as 05 does; return it."""
    keys = ("train", "arch", "weights", "size", "epochs", "freeze_epochs", "seed", "schedule", "patience", "augment")
    asked = {key: getattr(project, key) for key in (*keys, "class_weights")}
    asked |= {"optimizer": "Adam(eps=1e-05, wd=0.01)", "lr": project.base_lr / 2}
    settings = asked | changed.pop("settings", {})
    figure = {"value": 0.6389, "low": 0.5, "high": 0.8, "n": 8}
    facts = {key: {} for key in ("test", "labels", "test_labels", "confusion", "reliability", "shortcuts")}
    facts |= {
        "form": EVALUATION_FORM,
        "valid": {"accuracy": figure},
        "temperature": figure,
        "confused": [],
        "test_opened": 0,
    }
    verdict = {"right": 23, "n": 36, "guess": 18, "p": 0.07, "better": False, "pictures": 36, "side": "valid"}
    facts["verdict"] = verdict
    facts |= {"fingerprint": round_fingerprint(read_dataset(project), settings), "model": "", "changed": ""}
    facts |= {"settings": settings} | changed
    project.models.mkdir(parents=True, exist_ok=True)
    (project.models / "evaluation.json").write_text(json.dumps(facts), encoding="utf-8")


def told(runner, project):
    """Return the summary as a mapping from its first word to the rest of the line."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in runner.summary(project)}


def test_the_summary_says_the_verdict_and_no_bare_figure(runner, ready):
    """The sentence, the pictures, the next step; no accuracy without what guessing would get."""
    judged(ready)
    lines = told(runner, ready)
    assert lines["verdict"].startswith("Right for 23 of 36 photos; guessing would get 18. On so few photos")
    assert lines["pictures"].startswith("8 of 2 labels, in ")
    assert "make lab" in lines["next"]
    assert set(lines) == {"verdict", "pictures", "next"}
    assert not re.search(r"0\.\d|\d\.\d ?%|accuracy", " ".join(lines.values()))


def test_the_summary_says_when_there_is_no_verdict(runner, ready, make_project):
    """Nothing judged, or a models folder of the version before: what to run, and no traceback."""
    assert told(runner, ready)["verdict"] == "none yet: run 04_train and 05_evaluate"
    judged(ready, form=3)
    assert told(runner, ready)["verdict"].endswith("is of another version of Fieldguide. Train again: run 04 and 05.")
    assert told(runner, make_project(name="empty")) == {"verdict": "none yet: run 04_train and 05_evaluate"}


def test_the_summary_says_that_a_verdict_is_stale(runner, ready):
    """A picture gone, or other settings asked for since: the verdict is of the round before."""
    judged(ready)
    again = "changed since that verdict: run 03_split, 04_train and 05_evaluate"
    asked = ready.model_copy(update={"epochs": 9, "size": 64})
    assert told(runner, asked)["stale"] == f"Size, epochs {again}"
    asked = ready.model_copy(update={"optimizer": "sgd", "lr": 0.1, "freeze_epochs": 0})
    assert told(runner, asked)["stale"] == f"Freeze_epochs, optimizer, lr {again}"
    read_dataset(ready).paths[0].unlink()
    assert told(runner, ready)["stale"] == f"Pictures, labels or sides {again}"


def test_the_summary_says_which_settings_were_changed_in_04(runner, ready):
    """The record's sentence stands below the verdict, and such a round is not called stale."""
    judged(ready, settings={"epochs": 7}, changed="Cells of 04 were changed: it trained with epochs = 7 instead of 1.")
    lines = told(runner, ready)
    assert lines["settings"] == "Cells of 04 were changed: it trained with epochs = 7 instead of 1."
    assert "stale" not in lines


def test_the_summary_counts_what_was_rejected_and_what_waits(runner, ready):
    """Rejected and not taken back; choices that no Apply carried out, which a run leaves alone."""
    dataset = read_dataset(ready)
    rows = [{"id": id, "label": "cat", "stage": "verify", "reason": "broken"} for id in ("f" * 16, "e" * 16)]
    rows.append({"id": dataset.ids[0], "label": dataset.labels[0], "stage": "verify", "reason": "taken back since"})
    append_rows(ready.table("rejected"), REJECTED_COLUMNS, rows)
    save_flag(ready, dataset.ids[1], "Delete")
    lines = told(runner, ready)
    assert lines["rejected"].startswith("2, each with its reason in ")
    assert lines["waiting"].startswith("1 choice of yours: ") and "next" not in lines
