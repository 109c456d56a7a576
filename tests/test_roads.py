"""`make run` from several beginnings: own photos, a search, an interrupt, and what cannot go on."""

import os
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
from tiny_projects import SEA, SETTINGS, run

from utils.dataset import read_dataset
from utils.inference import load_classifier
from utils.project import REPOSITORY, Project
from utils.tables import SOURCES_COLUMNS, read_rows

pytestmark = [pytest.mark.notebooks, pytest.mark.long]


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
    settings = SETTINGS.format(source='source = "photos"\nindividuals = true')
    (tmp_path / "project.toml").write_text(settings, encoding="utf-8")
    before = tree(tmp_path / "photos")
    done = run(tmp_path, "notebooks/run.py", "--reports", str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "photos") == before
    models = Project.load(tmp_path / "project.toml").models
    assert load_classifier(models / "export.pkl").labels == ("robin", "wren")
    (found,) = load_classifier(models / "model.onnx").nearest(tmp_path / "photos" / "wren" / "IMG 0.jpg")
    assert {known.label for known in found.individuals} == {"robin", "wren"}
    assert "MAP@5" in (tmp_path / "reports" / "05_evaluate.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "names", "says"),
    [
        ("name = ", ["01_download"], "Write a value after ="),
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
    text = '\n[filters]\nlicense = "Public"\n[labels]\n"🐟 тилапия" = ["tilapia", "тилапия"]\n"海参" = ["海参 x"]\n'
    with StandIn(tmp_path) as service, serving() as host:
        text = SETTINGS.format(source=f'allowed_hosts = ["{host.name}"]') + text
        (tmp_path / "project.toml").write_text(text, encoding="utf-8")
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
