"""An export made on this Python and used on another: vetting reads it anywhere, and every way to ask answers alike."""

import io
import json
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from fastai.learner import load_learner
from test_inference import SIZES, copy_alone, draw, make_learner

from utils.export.formats import save_learner, save_onnx
from utils.inference import load_classifier

PYTHONS = "FIELDGUIDE_PYTHONS"  # further interpreters to try, as PATH lists folders
NEEDED = ("fastai", "onnxruntime")
RECIPE = {"longest_side": 512, "size": 64, "extra": 16, "bits": 12, "mirrored": True}
METADATA = {"labels": '["cat", "dog"]', "recipe": json.dumps(RECIPE)}

ASK = """
import json, sys, warnings
from fastai.vision.all import load_learner
from inference import load_classifier

warnings.simplefilter("ignore")
pictures, learner = sys.argv[1:], load_learner("export.pkl")
with learner.no_bar():
    fastai = [learner.predict(picture)[2].tolist() for picture in pictures]
ours = {name: load_classifier(name).predict(pictures) for name in ("export.pkl", "model.onnx")}
rows = {name: [list(answer.probabilities.values()) for answer in found] for name, found in ours.items()}
print(json.dumps(rows | {"fastai": fastai, "version": sys.version_info[:2]}))
"""


@cache
def interpreters() -> dict[str, str]:
    """Return other Pythons from 3.11 on that this machine has, version → path: named, on PATH, or beside this one."""
    minors = [f"python3.{minor}" for minor in range(11, 20)]
    named = os.environ.get(PYTHONS, "").split(os.pathsep)
    beside = (str(path / "bin" / name) for path in Path(sys.base_prefix).parent.iterdir() for name in minors)
    found: dict[str, str] = {}
    for path in (*named, *map(shutil.which, minors), *sorted(beside)):
        if path and Path(path).is_file():
            done = subprocess.run(
                [path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
            )
            if done.returncode == 0 and done.stdout.strip() != str(sys.version_info[:2]):
                found.setdefault(done.stdout.strip(), path)
    return found


def able(path: str) -> bool:
    """Return whether an interpreter has what both model files need."""
    code = f"import sys, importlib.util as u; sys.exit(None in map(u.find_spec, {NEEDED}))"
    return subprocess.run([path, "-c", code], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def _folder(tmp_path_factory) -> Path:
    """Return a folder with both model files, what other programs copy, and drawn pictures."""
    folder = tmp_path_factory.mktemp("roundtrip")
    learn = make_learner(folder / "images", network="squeezenet1_1")
    save_learner(learn, folder / "export.pkl", temperature=3.0, bits=12)
    save_onnx(learn, folder / "model.onnx", temperature=3.0, metadata=METADATA)
    copy_alone(folder)
    for n, size in enumerate(SIZES):
        draw(folder / f"{n}.png", size=size, seed=n)
    return folder


def run(python: str, folder: Path, code: str, *arguments: str) -> str:
    """Run code with an interpreter in a folder, and return what it prints last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [python, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_the_pickle_is_names_and_numbers(_folder):
    """Every name in it leads to something that can be imported, and none to what would make code of bytes."""
    with zipfile.ZipFile(_folder / "export.pkl") as file:
        data = file.read("archive/data.pkl")
    names = {tuple(arg.split(" ")) for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}
    assert len(names) > 50
    for module, name in names:
        assert pickle.Unpickler(io.BytesIO()).find_class(module, name) is not None
    assert {module.split(".")[0] for module, _ in names} & {"cloudpickle", "marshal", "types", "utils", "dill"} == set()


def test_both_files_know_the_bits_of_16_bit_pictures(_folder):
    """The pickle in a note that fastai passes over, the network in its metadata; the learner itself has none."""
    pickled, network = (load_classifier(_folder / name) for name in ("export.pkl", "model.onnx"))
    assert pickled.recipe == network.recipe and pickled.recipe.bits == 12
    assert load_learner(_folder / "export.pkl").dls.valid.after_item.fs[0].bits == 12


def test_vetting_reads_it_on_every_python(_folder):
    """An interpreter of another version, without any package, accepts the file."""
    if not interpreters():
        pytest.skip(f"no other Python from 3.11 on is on this machine: install one, or name it in {PYTHONS}")
    code = "import sys; sys.path.insert(0, 'inference'); import vetting; vetting.vet('export.pkl'); print('accepted')"
    assert [run(path, _folder, code) for path in interpreters().values()] == ["accepted"] * len(interpreters())


def test_another_python_gives_the_same_answers(_folder):
    """fastai's own load_learner, our export.pkl and our model.onnx, there as here, within 1e-5."""
    others = {version: path for version, path in interpreters().items() if able(path)}
    if not others:
        seen = ", ".join(interpreters().values()) or "none"
        pytest.skip(f"no other Python with {' and '.join(NEEDED)} (seen: {seen}); name one in {PYTHONS}")
    pictures = [f"{n}.png" for n in range(len(SIZES))]
    here = json.loads(run(sys.executable, _folder, ASK, *pictures))
    for version, path in others.items():
        there = json.loads(run(path, _folder, ASK, *pictures))
        assert str(tuple(there["version"])) == version
        for way in ("fastai", "export.pkl", "model.onnx"):
            for ours, theirs in zip(here[way], there[way], strict=True):
                assert theirs == pytest.approx(ours, abs=1e-5)
