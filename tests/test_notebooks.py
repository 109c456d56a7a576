"""Every notebook, run top to bottom on a tiny project by nbmake and by `make run`'s runner."""

import json
import re

import pytest
from conftest import draw_picture, tree
from tiny_projects import SEA, SETTINGS, run

from utils.dataset import read_dataset, round_fingerprint
from utils.inference import load_classifier
from utils.project import REPOSITORY, Project
from utils.tables import RUNS_COLUMNS, SPLIT_COLUMNS, read_rows

pytestmark = [pytest.mark.notebooks, pytest.mark.long]
STUDY = '\n[study]\ntrain = ["all", "head"]\nclass_weights = [false, true]\nseeds = 2\n'


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the folder of a tiny sample project after nbmake ran every notebook on it."""
    folder = tmp_path_factory.mktemp("a folder, ñ")
    text = SETTINGS.format(source='source = "sample"') + STUDY + SEA
    (folder / "project.toml").write_text(text, encoding="utf-8")
    options = ("-p", "no:cacheprovider", "--override-ini=addopts=", "--nbmake-timeout=600")
    options += ("--ignore=notebooks/boxes",)  # they are of another kind of project: tests/boxes runs them
    done = run(folder, "-m", "pytest", "--nbmake", *options, "notebooks")
    assert done.returncode == 0, done.stdout[-6000:]
    return folder


def test_the_notebooks_write_what_the_contract_lists(tiny):
    """01–08 leave every table and model file where design and README say."""
    project = Project.load(tiny / "project.toml")
    assert {path.name for path in project.data.iterdir()} >= {
        *("raw", "images", "sources.csv", "pictures.csv", "rejected.csv", "split.csv", "truth.csv")
    }
    assert {path.name for path in project.models.iterdir()} >= {
        *("learner.pth", "history.csv", "training.png", "evaluation.json", "rounds"),
        *("export.pkl", "model.onnx", "card.json", "MODEL_CARD.md", "README.md", "ATTRIBUTION.csv"),
    }
    dataset, figures = read_dataset(project), evaluation(project)
    assert {row["id"] for row in read_rows(project.table("split"), SPLIT_COLUMNS)} == set(dataset.ids)
    assert figures["fingerprint"] == round_fingerprint(dataset, figures["settings"])
    assert set(figures["valid"]["accuracy"]) == {"value", "low", "high", "n"}
    assert figures["verdict"]["side"] == "valid"


def test_09_trains_every_setting_with_every_seed(tiny):
    """Four settings and two seeds are eight rows, each judged."""
    (table,) = Project.load(tiny / "project.toml").models.glob("study/*/runs.csv")
    rows = read_rows(table, RUNS_COLUMNS)
    assert (len(rows), {row["status"] for row in rows}, len({row["setting"] for row in rows})) == (8, {"done"}, 4)


def evaluation(project):
    """Return evaluation.json."""
    return json.loads((project.models / "evaluation.json").read_text(encoding="utf-8"))


def test_the_exported_model_predicts_from_program_and_shell(tiny, tmp_path):
    """One picture, the same answer from load_classifier and from the command line, of either file."""
    project = Project.load(tiny / "project.toml")
    photo = tmp_path / "фото 1.png"
    draw_picture(4).save(photo)
    answer, other = (load_classifier(project.models / f).predict([photo])[0] for f in ("export.pkl", "model.onnx"))
    assert other.probabilities == pytest.approx(answer.probabilities, abs=1e-3)
    done = run(tiny, "-m", "utils.inference", str(project.models / "export.pkl"), str(photo), "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert (line["file"], line["label"]) == (str(photo), answer.label)
    assert line["probabilities"] == pytest.approx(dict(answer.probabilities), abs=1e-6)


def test_the_readme_s_program_runs(tiny, tmp_path):
    """The lines under "Use the model", pasted into a file, name a label for each of two photos."""
    (block,) = re.findall(r"```python\n(.+?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), flags=re.S)
    model = Project.load(tiny / "project.toml").models / "model.onnx"
    for n, name in enumerate(("a.jpg", "b.png")):
        draw_picture(n).save(tmp_path / name)
        block = block.replace(f'"{name}"', repr(str(tmp_path / name)))
    done = run(tiny, "-c", block.replace('"models/sea_life/model.onnx"', repr(str(model))))
    assert done.returncode == 0, done.stderr
    labels = "|".join(load_classifier(model).labels)
    assert re.fullmatch(rf"(({labels}) [01]\.\d+(e-\d+)? None\n){{2}}", done.stdout)


def test_a_second_run_changes_no_file(tiny):
    """Everything stands: no picture, table, model or figure is written anew; the summary tells what is there."""
    project = Project.load(tiny / "project.toml")
    before = tree(project.data) | tree(project.models)
    done = run(tiny, "notebooks/run.py", "--reports", str(tiny / "reports"))
    assert done.returncode == 0, done.stderr
    after = tree(project.data) | tree(project.models)
    assert sorted(name for name in before | after if before.get(name) != after.get(name)) == []
    assert "guessing would get" in done.stdout and "export.pkl" in done.stdout
    stages = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("0[1-8]_*.ipynb"))
    names = re.findall(r"^(\w+) +\d+ s *$", done.stdout, flags=re.M)
    assert names == [*stages[:6], "sample_truth", *stages[6:]]
    assert {path.stem for path in (tiny / "reports").glob("*.html")} == set(names)
    assert (tiny / "reports" / "02_verify.html").stat().st_size > 50_000
    assert "Here stands a widget" not in (tiny / "reports" / "01_download.html").read_text(encoding="utf-8")
    assert "Here stands a widget" in (tiny / "reports" / "06_clean.html").read_text(encoding="utf-8")


def test_choices_are_applied_and_what_depends_on_them_is_made_again(tiny):
    """With a file of choices, one run moves the picture, trains and judges a second round, and exports that one."""
    project = Project.load(tiny / "project.toml")
    first, chosen = evaluation(project), next(iter(read_dataset(project).on("train")))
    other = next(label for label in project.labels if label != chosen.label)
    project.table("choices").write_text(f"id,choice\n{chosen.id},{other}\n", encoding="utf-8")
    done = run(tiny, "notebooks/run.py", "--reports", str(tiny / "reports"))
    assert done.returncode == 0, done.stderr
    assert read_dataset(project)[chosen.id].label == other
    assert len(list(project.models.glob("rounds/*/predictions.csv"))) == 2
    card = json.loads((project.models / "card.json").read_text(encoding="utf-8"))
    assert card["fingerprint"] == evaluation(project)["fingerprint"] != first["fingerprint"]
    assert {path.name for path in (project.models / "exports" / "001").iterdir()} >= {"export.pkl", "card.json"}
