"""What `utils.export` promises: one safe, plain, repeatable file, put in place only when it answers as fastai does."""

import hashlib
import json
import os
import pickle
import pickletools
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from test_inference import draw, make_learner

from utils import export
from utils.export import export_classifier, read_card
from utils.files import FieldguideError, append_rows
from utils.inference import load_classifier
from utils.project import SPLIT_COLUMNS, Project
from utils.vetting import vet

FIGURES = {"accuracy": {"value": 0.75, "low": 0.3, "high": 0.95, "n": 4}}


@pytest.fixture(scope="session")
def _learner(tmp_path_factory):
    return make_learner(tmp_path_factory.mktemp("export") / "images", network="squeezenet1_1")  # small files


@pytest.fixture
def project(tmp_path) -> Project:
    """Return a project of twelve pictures that is trained and evaluated, by its files."""
    settings = {"name": "t", "labels": {"cat": ["cat"], "dog": ["dog"]}, "size": 64, "weights": "none"}
    roots = {"data_dir": str(tmp_path / "data"), "models_dir": str(tmp_path / "models")}
    project = Project.model_validate(settings | roots)
    rows = []
    for label in project.labels:
        for n in range(6):
            path = draw(project.images / label / f"{label}{n}.jpg", size=(60 + 9 * n, 80), seed=n)
            rows.append({"id": path.stem, "group": path.stem, "side": ("valid", "test", *["train"] * 4)[n]})
    append_rows(project.table("split"), SPLIT_COLUMNS, rows)
    project.models.mkdir(parents=True)
    evaluation = {"valid": FIGURES, "test": FIGURES, "labels": {}, "test_opened": 1}
    evaluation["fingerprint"] = project.fingerprint()
    (project.models / "evaluation.json").write_text(json.dumps(evaluation))
    return project


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_export_is_safe_and_answers(project, _learner):
    """export.pkl is accepted by vetting and knows the project's labels; nothing temporary is left behind."""
    done = export_classifier(project, _learner)
    vet(done.model)
    assert load_classifier(done.model).labels == ("cat", "dog")
    assert (done.checked, done.backup) == (2, None)
    assert listing(project.models) == ["card.json", "evaluation.json", "export.pkl"]


def test_the_card_holds_the_facts(project, _learner):
    """card.json holds counts by label and side, figures, settings, versions and hashes, hand-counted here."""
    done = export_classifier(project, _learner)
    card = read_card(done.model)
    assert card == done.card == read_card(project.models) == read_card(done.card_file)
    assert card["counts"] == {label: {"test": 1, "train": 4, "valid": 1} for label in ("cat", "dog")}
    assert (card["valid"], card["test"]) == (FIGURES, FIGURES)
    facts = {"name": "t", "labels": ["cat", "dog"], "seed": 42, "arch": "resnet18", "weights": "none", "size": 64}
    assert facts.items() <= card.items()
    assert card["sha256"] == {
        "export.pkl": hashlib.sha256(done.model.read_bytes()).hexdigest(),
        "split.csv": hashlib.sha256(project.table("split").read_bytes()).hexdigest(),
    }
    assert set(card["versions"]) == {"python", "fastai", "torch", "torchvision", "numpy", "Pillow"}
    assert card["fingerprint"] == project.fingerprint()
    assert card["created"].endswith("+00:00")


def test_the_file_holds_names_of_libraries_only(project, _learner, tmp_path):
    """The pickle names nothing of this repository or of cloudpickle, and holds no path of this machine."""
    with zipfile.ZipFile(export_classifier(project, _learner).model) as file:
        data = file.read("archive/data.pkl")
    arguments = [(op.name, arg) for op, arg, _ in pickletools.genops(data) if isinstance(arg, str)]
    modules = {arg.split(".")[0].split(" ")[0] for op, arg in arguments if op == "GLOBAL"}
    assert not {"utils", "cloudpickle", "__main__", "test_inference"} & modules
    assert [arg for _, arg in arguments if arg.startswith("/") or str(tmp_path) in arg] == []


def test_paths_become_the_readers_own_kind(project, _learner, tmp_path, monkeypatch):
    """Our file makes no PosixPath, which fails on Windows; the check would see one, as in fastai's own export."""
    ours = export_classifier(project, _learner).model
    theirs = tmp_path / "theirs.pkl"
    _learner.path = tmp_path
    _learner.export(theirs.name, pickle_module=pickle)

    def refused(*_):
        raise NotImplementedError("cannot instantiate this path on your system")

    monkeypatch.setattr(type(Path()), "__new__", refused)
    options = {"map_location": "cpu", "pickle_module": pickle, "weights_only": False}
    with pytest.raises(NotImplementedError):
        torch.load(str(theirs), **options)
    assert isinstance(torch.load(str(ours), **options).path, Path)


def test_the_learner_is_left_as_it_was(project, _learner):
    """After an export the learner has its dataloaders, callbacks, optimizer and mode, and trains on."""
    _learner.create_opt()
    before = (id(_learner.dls), id(_learner.opt), list(_learner.cbs), _learner.path, len(_learner.dls.train_ds))
    export_classifier(project, _learner)
    after = (id(_learner.dls), id(_learner.opt), list(_learner.cbs), _learner.path, len(_learner.dls.train_ds))
    assert after == before
    with _learner.no_bar(), _learner.no_logging():
        _learner.fit(1)
        assert len(_learner.get_preds()[0]) == 4


def test_callbacks_of_training_stay_out(project, _learner):
    """A callback that no file could name is no hindrance: callbacks are left out of the export."""
    from fastai.callback.core import Callback

    class Local(Callback):
        pass

    _learner.add_cb(Local())
    try:
        export_classifier(project, _learner)
        assert any(isinstance(callback, Local) for callback in _learner.cbs)
    finally:
        _learner.remove_cb(Local)


def test_the_same_learner_gives_the_same_bytes(project, _learner):
    """Exported again, the file is the same to the byte, and no backup is made."""
    first = export_classifier(project, _learner).model.read_bytes()
    again = export_classifier(project, _learner)
    assert again.model.read_bytes() == first
    assert again.backup is None


def test_an_earlier_export_is_kept_by_number(project, _learner):
    """A different earlier export.pkl stays beside the new one under the next number."""
    earlier = [b"first", b"second"]
    for content in earlier:
        (project.models / "export.pkl").write_bytes(content)
        export_classifier(project, _learner)
    backups = [project.models / f"export.{n:03d}.pkl" for n in (1, 2)]
    assert [path.read_bytes() for path in backups] == earlier


def test_a_stale_evaluation_is_refused(project, _learner):
    """When labels changed since the last training, nothing is written and the message names 04 and 05."""
    shutil.move(project.images / "cat" / "cat5.jpg", project.images / "dog" / "cat5.jpg")
    with pytest.raises(FieldguideError, match="Run 04 and 05 again"):
        export_classifier(project, _learner)
    assert listing(project.models) == ["evaluation.json"]


def test_no_or_a_broken_evaluation_is_refused(project, _learner):
    """Without a readable evaluation.json the message says what to run."""
    (project.models / "evaluation.json").write_text("{")
    with pytest.raises(FieldguideError, match=r"evaluation\.json is broken .*run 05 again"):
        export_classifier(project, _learner)
    (project.models / "evaluation.json").unlink()
    with pytest.raises(FieldguideError, match=r"There is no .*Run 04 and 05"):
        export_classifier(project, _learner)


def test_a_learner_of_other_labels_is_refused(project, tmp_path):
    """A learner whose labels are not the project's is refused with both."""
    other = make_learner(tmp_path / "other", labels=("cat", "fox"), network="squeezenet1_1")
    with pytest.raises(FieldguideError, match=r"cat, fox.*cat, dog"):
        export_classifier(project, other)


def test_disagreement_stops_the_export(project, _learner, monkeypatch):
    """If our answers were not fastai's, the export is refused with the picture's name, and the old file stays."""
    (project.models / "export.pkl").write_bytes(b"old")
    real = export.fastai_probabilities

    def off_for_the_second(path, pictures):
        rows = real(path, pictures)
        rows[1] += [0.002, -0.002]
        return rows

    monkeypatch.setattr(export, "fastai_probabilities", off_for_the_second)
    with pytest.raises(FieldguideError, match=r"disagree on .*dog0\.jpg.*0\.0020"):
        export_classifier(project, _learner)
    assert (project.models / "export.pkl").read_bytes() == b"old"
    assert listing(project.models) == ["evaluation.json", "export.pkl"]


def test_what_vetting_refuses_is_not_exported(project, _learner):
    """A learner with a function that is not fastai's or torch's is refused with its name, and the old file stays."""
    block = _learner.model[0]
    block.helper = draw
    try:
        with pytest.raises(FieldguideError, match=r"names test_inference\.draw"):
            export_classifier(project, _learner)
        block.helper = lambda: None
        with pytest.raises(FieldguideError, match="no lambda"):
            export_classifier(project, _learner)
    finally:
        del block.helper
    assert listing(project.models) == ["evaluation.json"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root and Windows may write anywhere")
def test_a_read_only_folder_is_told(project, _learner):
    """Where the models folder is read-only, one sentence says so."""
    project.models.chmod(0o500)
    try:
        with pytest.raises(FieldguideError, match="may not write there"):
            export_classifier(project, _learner)
    finally:
        project.models.chmod(0o700)


def test_a_folder_that_takes_no_files_is_told(project, _learner, monkeypatch):
    """When writing fails, the refusal names the file and the way out, whoever runs this."""

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(export, "save_learner", refused)
    with pytest.raises(FieldguideError, match=r"export\.pkl: this account may not write there"):
        export_classifier(project, _learner)


def test_what_only_training_draws_stays_out(project, _learner):
    """Steps of ours and of fastai that no picture to be judged goes through are not named; the learner keeps them."""
    from fastai.vision.augment import Dihedral

    from utils.augment import Dehaze, Greyscale

    before = [loader.after_batch.fs for loader in _learner.dls.loaders]
    _learner.dls.add_tfms([Greyscale(0.5), Dehaze(0.1), Dihedral(p=1.0)], "after_batch")
    try:
        done = export_classifier(project, _learner)
        vet(done.model)
        with zipfile.ZipFile(done.model) as file:
            data = file.read("archive/data.pkl")
        names = {arg.partition(" ")[2] for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}
        assert names & {"Greyscale", "Dehaze", "Dihedral", "Flip", "Brightness"} == set()
        assert "Normalize" in names
        kept = [type(step).__name__ for step in _learner.dls.train.after_batch.fs]
        assert {"Greyscale", "Dehaze", "Dihedral", "Flip", "Brightness", "Normalize"} <= set(kept)
    finally:
        for loader, steps in zip(_learner.dls.loaders, before, strict=True):
            loader.after_batch.fs = steps


def test_another_process_of_fastai_alone_reads_it(project, _learner, tmp_path):
    """fastai alone, in a folder without this repository, loads the file and predicts."""
    from test_inference import run

    done = export_classifier(project, _learner)
    picture = next(iter(project.pictures().values()))
    code = (
        "import sys; from fastai.learner import load_learner; learn = load_learner(sys.argv[1]); "
        "print(learn.predict(sys.argv[2])[0], type(learn.path).__name__)"
    )
    output = run("-c", code, done.model, picture, cwd=tmp_path).stdout.decode()
    (prediction,) = load_classifier(done.model).predict(picture)
    assert output.split()[-2:] == [prediction.label, type(Path()).__name__]
