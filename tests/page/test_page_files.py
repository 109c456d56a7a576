"""Writing models/<name>/page: whole or not at all, nothing of a person's is lost, and only if the answers agree."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser.app_project import COLOURS, photo, save_model

from utils.errors import FieldguideError
from utils.export import page as module
from utils.export.page import page_sentence, write_page
from utils.page import RUNTIME, PageAnswer
from utils.project import REPOSITORY, Project


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """A project with a drawn model, on a machine that has the runtime (small stand-ins) and no browser."""
    save_model(tmp_path / "models" / "colours", "colours", COLOURS)
    runtime = {}
    for name in RUNTIME:
        runtime[name] = tmp_path / "cache" / Path(name).name
        runtime[name].parent.mkdir(exist_ok=True)
        runtime[name].write_text(name)
    monkeypatch.setattr(module, "cached_runtime", lambda: runtime)
    monkeypatch.setattr(module, "ask_page", lambda folder, pictures: None)
    return made(tmp_path)


def made(folder: Path, **settings) -> Project:
    labels = {label: [label] for label in COLOURS}
    return Project(
        name="colours", labels=labels, models_dir=str(folder / "models"), data_dir=str(folder / "data"), **settings
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_files_that_page_json_names_are_there(project):
    """The web files, the model, the runtime and README.md; page.json has the SHA-256 of each."""
    folder = write_page(project).folder
    facts = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    assert set(contents(folder)) == {*facts["files"], "page.json"}
    assert {"index.html", "page.css", "page.js", "offline.js", "model.onnx", "README.md", *RUNTIME} <= set(
        facts["files"]
    )
    assert facts["model"]["bytes"] == (folder / "model.onnx").stat().st_size


def test_the_known_photos_go_along_whole_or_no_page_does(project):
    """gallery.safetensors is named with its SHA-256, and goes when the model has none; a broken one stops the page."""
    shutil.rmtree(project.models)
    save_model(project.models, "colours", COLOURS, knows=[(label, photo(colour)) for label, colour in COLOURS.items()])
    folder = write_page(project).folder
    facts = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    gallery = project.models / "gallery.safetensors"
    assert facts["known"] == {
        "file": gallery.name,
        "bytes": gallery.stat().st_size,
        "sha256": module.file_hash(folder / gallery.name),
    }
    whole = contents(folder)
    gallery.write_bytes(gallery.read_bytes()[:-1])
    with pytest.raises(FieldguideError, match=r"cannot show the known photos.*notebook 07"):
        write_page(project)
    assert contents(folder) == whole
    gallery.unlink()
    model = save_model(project.models / "new", "colours", COLOURS)
    for path in (model, model.with_name("card.json")):
        path.replace(project.models / path.name)
    write_page(project)
    assert gallery.name not in contents(folder)
    assert json.loads((folder / "page.json").read_text(encoding="utf-8"))["known"] is None


def test_written_again_nothing_changes(project):
    """The same model, the same bytes."""
    before = contents(write_page(project).folder)
    assert contents(write_page(project).folder) == before


def test_a_persons_own_files_and_words_stay(project, tmp_path):
    """An added file, a changed README.md: left alone. A changed page.css is kept aside before ours takes its place."""
    folder = write_page(project).folder
    for name, text in {"CNAME": "fish.example.org", "README.md": "mine", "page.css": "body { color: red }"}.items():
        (folder / name).write_text(text)
    write_page(project)
    assert (folder / "CNAME").read_text() == "fish.example.org" and (folder / "README.md").read_text() == "mine"
    (kept,) = (project.models / "exports" / "page").iterdir()
    assert kept.read_text() == "body { color: red }" and "color: red" not in (folder / "page.css").read_text()


def test_files_of_an_earlier_page_go(project, monkeypatch):
    """A file that the new page does not have is removed, unless a person changed it."""
    monkeypatch.setattr(module, "web_files", lambda real=module.web_files: real() | {"old.js": b"1", "older.js": b"2"})
    folder = write_page(project).folder
    (folder / "older.js").write_text("mine")
    monkeypatch.undo()
    monkeypatch.setattr(module, "cached_runtime", lambda: {})
    monkeypatch.setattr(module, "ask_page", lambda folder, pictures: None)
    write_page(project)
    assert not (folder / "old.js").exists() and (folder / "older.js").read_text() == "mine"


def test_page_json_that_leads_out_of_the_folder_removes_nothing(project):
    """A page.json from elsewhere may name any path: it is not believed."""
    folder = write_page(project).folder
    precious = project.models / "card.json"
    facts = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    facts["files"]["../card.json"] = module.file_hash(precious)
    (folder / "page.json").write_text(json.dumps(facts), encoding="utf-8")
    write_page(project)
    assert precious.exists()


def test_a_page_that_answers_otherwise_is_not_written(project, monkeypatch):
    """The browser's probabilities differ from model.onnx's by more than 0.001: an error, and no folder."""
    wrong = PageAnswer((0.2, 0.3, 0.5), None, b"", None)
    monkeypatch.setattr(module, "ask_page", lambda folder, pictures: [wrong] * len(pictures))
    with pytest.raises(FieldguideError, match=r"The page and model.onnx disagree on upright.jpg.*No page was written"):
        write_page(project)
    assert not (project.models / "page").exists() and not (project.models / ".page").exists()


def test_a_page_that_refuses_what_python_reads_is_not_written(project, monkeypatch):
    """Only what no browser decodes may be an error where model.onnx gives an answer."""
    refused = PageAnswer(None, "truncated or broken inside", b"", None)
    monkeypatch.setattr(module, "ask_page", lambda folder, pictures: [refused] * len(pictures))
    with pytest.raises(FieldguideError, match=r"disagree on upright.jpg"):
        write_page(project)


def test_what_was_asked_is_told(project, monkeypatch):
    """With a browser, how many pictures it was asked about; without one, that nobody asked. The same page asks once."""
    assert "No browser was asked" in page_sentence(project)
    asked = []

    def answers(folder, pictures):
        asked.append(len(pictures))
        right = module.load_model(folder / "model.onnx").predict(pictures.values())
        return [PageAnswer(p.probabilities and tuple(p.probabilities.values()), p.error, b"", None) for p in right]

    monkeypatch.setattr(module, "ask_page", answers)
    for _ in range(2):
        assert f"gave the same answers to {asked[0] if asked else 26} pictures as model.onnx" in page_sentence(project)
    assert asked == [26]


def test_the_small_model_is_taken_where_the_project_asks_for_it(tmp_path, project):
    """int8 = true and 07 kept one: the page runs that; else, or without such a file, model.onnx."""
    files = []
    for small, asked in ((False, True), (True, False), (True, True)):
        if small:
            (project.models / "model.int8.onnx").write_bytes((project.models / "model.onnx").read_bytes())
        folder = write_page(made(tmp_path, int8=asked)).folder
        files.append(json.loads((folder / "page.json").read_text(encoding="utf-8"))["model"]["file"])
    assert files == ["model.onnx", "model.onnx", "model.int8.onnx"]
    assert not (folder / "model.onnx").exists()


def test_without_the_runtime_one_sentence_says_how_to_get_it(project, monkeypatch):
    """07 writes no page then, and names the command; nothing is on disk."""
    monkeypatch.setattr(module, "cached_runtime", lambda: None)
    assert "Type “make page” in a terminal" in page_sentence(project)
    assert not (project.models / "page").exists()
    with pytest.raises(FieldguideError, match="Type: make page"):
        write_page(project)


def test_without_a_model_the_stage_is_named(tmp_path, project):
    """A project that was not exported."""
    (project.models / "model.onnx").unlink()
    with pytest.raises(ValueError, match="notebooks 01 to 07"):
        write_page(project)


def test_on_a_public_server_the_runtime_is_named_by_version(tmp_path, project):
    """page = "cdn": only its licences in the folder, and the policy lets the page load it from that one server."""
    folder = write_page(made(tmp_path, page="cdn")).folder
    facts = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    assert [path.name for path in (folder / "runtime").iterdir()] == ["NOTICE.txt"]
    assert facts["runtime"]["wasm"][0] == "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/ort.wasm.min.mjs"
    for name in ("index.html", "offline.js"):
        assert "script-src 'self' https://cdn.jsdelivr.net 'wasm-unsafe-eval'" in (folder / name).read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_half_way_the_next_run_writes_it_whole(project, tmp_path):
    """SIGKILL while the files are put in place: page.json still names the old set, and the next run mends it."""
    write_page(project)
    save_model(tmp_path / "other", "colours", {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)})
    for name in ("model.onnx", "card.json"):
        (project.models / name).write_bytes((tmp_path / "other" / name).read_bytes())
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from utils.export import page as module
from utils.project import Project
module.cached_runtime = lambda: {{}}
module.ask_page = lambda folder, pictures: None
real = Path.replace
def replace(self, target):
    real(self, target)
    if Path(target).name == "model.onnx" and Path(target).parent.name == "page":
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
labels = {{label: [label] for label in {list(COLOURS)!r}}}
module.write_page(Project(name="colours", labels=labels, models_dir={str(tmp_path / "models")!r}))
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    folder = write_page(project).folder
    facts = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    assert module.is_whole(folder, facts)
    assert (folder / "model.onnx").read_bytes() == (project.models / "model.onnx").read_bytes()
    assert not (project.models / ".page").exists()
