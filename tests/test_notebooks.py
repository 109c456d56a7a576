"""Every notebook, run top to bottom on a tiny project by nbmake and by `make run`'s runner."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import pytest
from conftest import draw_picture, tree
from standin_host import serving, without_proxy
from standin_search import StandIn, row, status

from utils.dataset import read_dataset, round_fingerprint
from utils.inference import load_classifier
from utils.project import REPOSITORY, Project
from utils.tables import SOURCES_COLUMNS, SPLIT_COLUMNS, read_rows

pytestmark = pytest.mark.notebooks
SETTINGS = """
name = "tiny sea ñ"
{source}
images_per_label = 12
weights = "none"
size = 32
epochs = 1
batch_size = 8
data_dir = "data"
models_dir = "models"
"""
SEA = '\n[labels]\n"penaeus monodon" = ["x"]\n"sea cucumber" = ["y"]\ntilapia = ["z"]\n'


def run(folder, *command):
    """Run a command in the repository with the project of `folder`; return the finished process."""
    environment = os.environ | {"PROJECT": str(folder / "project.toml"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the folder of a tiny sample project after nbmake ran every notebook on it."""
    folder = tmp_path_factory.mktemp("a folder, ñ")
    (folder / "project.toml").write_text(SETTINGS.format(source='source = "sample"') + SEA, encoding="utf-8")
    options = ("-p", "no:cacheprovider", "--override-ini=addopts=", "--nbmake-timeout=600")
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
    stages = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("0?_*.ipynb"))
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


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_in_one_sentence(tmp_path):
    """Interrupted while it draws, the run says what is kept and how to go on; status 130, no traceback."""
    (tmp_path / "project.toml").write_text(SETTINGS.format(source='source = "sample"') + SEA, encoding="utf-8")
    environment = os.environ | {"PROJECT": str(tmp_path / "project.toml")}
    command = [sys.executable, "notebooks/run.py", "--reports", str(tmp_path / "reports")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a test run in the background inherits deafness
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, start_new_session=True, preexec_fn=heard, **pipes
    )
    assert process.stdout.readline().startswith("tiny")
    for _ in range(600):  # until the kernel has begun to gather
        if (tmp_path / "data").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped. What was gathered and trained so far is kept" in output
    assert "Traceback" not in output + errors


def test_a_folder_of_own_photos_goes_the_whole_road(tmp_path):
    """Photos in folders are copied and never moved; the kernel's working directory does not matter."""
    for n, label in enumerate(("robin", "wren")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(12):
            picture = draw_picture(100 * n + k, colour=("red", "blue")[n])
            picture.save(tmp_path / "photos" / label / f"IMG {k}.jpg")
    (tmp_path / "project.toml").write_text(SETTINGS.format(source='source = "photos"'), encoding="utf-8")
    before = tree(tmp_path / "photos")
    done = run(tmp_path, "notebooks/run.py", "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "photos") == before
    assert load_classifier(Project.load(tmp_path / "project.toml").models / "export.pkl").labels == ("robin", "wren")


@pytest.mark.parametrize(
    ("text", "names", "says"),
    [
        ("name = ", ["01_download"], "is not a readable TOML file"),
        (SETTINGS.format(source='source = "sample"') + SEA, ["04_train"], "Run 02 and 03 first"),
        (SETTINGS.format(source='source = "sample"') + SEA, ["02_verify"], "nothing was gathered"),
    ],
)
def test_a_run_that_cannot_go_on_ends_in_one_sentence(tmp_path, text, names, says):
    """Status 1 and a sentence on what to do; no traceback."""
    (tmp_path / "project.toml").write_text(text, encoding="utf-8")
    done = run(tmp_path, "notebooks/run.py", *names, "--reports", str(tmp_path / "reports"))
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_search_is_collected_once(tmp_path, monkeypatch):
    """01 and 02 gather what the service finds, junk and all; run again, they ask nobody for anything."""
    without_proxy(monkeypatch)
    text = SETTINGS.format(source='allowed_hosts = ["localhost"]')
    text += '\n[filters]\nlicense = "Public"\n[labels]\n"🐟 тилапия" = ["tilapia", "тилапия"]\n"海参" = ["海参 x"]\n'
    (tmp_path / "project.toml").write_text(text, encoding="utf-8")
    with StandIn(tmp_path) as service, serving() as host:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        junk = [row(path, image=f"{host.url}/{path}", thumbnail="") for path in ("status/404", "page", "noai")]
        good = [row(n, image=f"{host.url}/photo/{n}") for n in range(40)]
        service.rows = {"tilapia": [*junk, *good[:5], *good[:2]], "тилапия": good[3:20], "海参 x": good[20:]}
        service.fail(1, status(403), client="ddgs")  # of the label that comes first
        done = run(tmp_path, "notebooks/run.py", "01_download", "02_verify", "--reports", str(tmp_path / "reports"))
        assert done.returncode == 0, done.stderr
        asked = len(service.asked), len(host.asked)
        done = run(tmp_path, "notebooks/run.py", "01_download", "02_verify", "--reports", str(tmp_path / "reports"))
        assert done.returncode == 0, done.stderr
        assert (len(service.asked), len(host.asked)) == asked
    project = Project.load(tmp_path / "project.toml")
    rows = read_rows(project.table("sources"), SOURCES_COLUMNS)
    assert Counter(r["label"] for r in rows if r["status"] == "kept") == {"🐟 тилапия": 12, "海参": 12}
    assert {r["license"] for r in rows} == {"Public"}
    assert {r["engine"] for r in rows if r["label"] == "海参"} == {"duckduckgo_search"}
    reasons = [(r["status"], r["reason"]) for r in rows if r["status"] in ("failed", "refused")]
    expected = [("failed", "HTTP 404"), ("failed", "not a picture: text/html")]
    assert sorted(reasons) == [*expected, ("refused", "the site asks not to be used for training (noai)")]
    assert len(read_dataset(project)) == 24
    page = (tmp_path / "reports" / "01_download.html").read_text(encoding="utf-8")
    assert "HTTP 404" in page and "the site asks not to be used" in page


def test_a_search_without_a_network_ends_in_one_sentence(tmp_path, monkeypatch):
    """Where nothing was gathered yet and nobody answers, 01 stops and says what to check."""
    monkeypatch.setenv("DDGS_PROXY", "http://127.0.0.1:9")
    (tmp_path / "project.toml").write_text(SETTINGS.format(source="") + SEA, encoding="utf-8")
    done = run(tmp_path, "notebooks/run.py", "01_download", "--reports", str(tmp_path / "reports"))
    assert done.returncode == 1
    assert "DuckDuckGo could not be reached for the search 'x'" in done.stderr and "Check the network" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
