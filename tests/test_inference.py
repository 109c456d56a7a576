"""What `utils.inference` promises: fastai's answers from the file alone, in order, whatever the pictures are."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils import inference
from utils.inference import ModelError, NoModel, Prediction, UnsafeModel, load_classifier
from utils.pictures import open_picture, squish_and_crop

REPOSITORY = Path(__file__).resolve().parents[1]
SIZES = [(64, 64), (300, 40), (40, 300), (512, 512), (500, 333), (123, 77), (65, 64), (200, 512), (32, 32), (90, 91)]


def draw(path: Path, *, size=(64, 64), seed: int = 0, color=(255, 60, 0)) -> Path:
    """Draw a picture of soft noise over a colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    soft = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    Image.blend(soft, Image.new("RGB", size, color), 0.4).save(path)
    return path


def make_learner(folder: Path, *, labels=("cat", "dog"), size: int = 64, network: str = "resnet18"):
    """Return an untrained learner, made as stage 04 makes one, of twelve drawn pictures."""
    import torchvision
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        RandomResizedCrop,
        accuracy,
        aug_transforms,
        imagenet_stats,
        parent_label,
        set_seed,
        vision_learner,
    )

    set_seed(7)
    pictures = [draw(folder / label / f"{n}.png", seed=n) for label in labels for n in range(6)]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(labels))),
        get_y=parent_label,
        splitter=IndexSplitter([0, 1, 6, 7]),
        item_tfms=RandomResizedCrop(size, min_scale=0.5),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(pictures, path=folder, bs=4, num_workers=0)
    return vision_learner(loaders, getattr(torchvision.models, network), pretrained=False, metrics=accuracy)


@pytest.fixture(scope="session")
def _model(tmp_path_factory) -> Path:
    """Return an export.pkl of an untrained learner."""
    from utils.export import save_learner

    folder = tmp_path_factory.mktemp("inference")
    save_learner(make_learner(folder / "images"), folder / "export.pkl")
    return folder / "export.pkl"


@pytest.fixture(scope="session")
def _classifier(_model):
    return load_classifier(_model)


@pytest.fixture(scope="session")
def _pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [draw(folder / f"{n}.png", size=size, seed=n) for n, size in enumerate(SIZES)]
    return paths + [draw(folder / f"{n}.jpg", size=size, seed=n) for n, size in enumerate(SIZES)]


def test_answers_as_fastai_does(_model, _classifier, _pictures):
    """On upright 8-bit RGB files of many sizes, labels equal load_learner's and probabilities are within 1e-3."""
    from fastai.learner import load_learner

    learner = load_learner(_model)
    for path, ours in zip(_pictures, _classifier.predict(_pictures), strict=True):
        with learner.no_bar():
            label, _, theirs = learner.predict(path)
        assert ours.label == label
        assert list(ours.probabilities.values()) == pytest.approx(theirs.tolist(), abs=1e-3)


def test_the_answers_differ_between_pictures(_classifier, _pictures):
    """Agreement means something: the untrained network does not answer the same to every picture."""
    spread = np.ptp([p.probabilities["cat"] for p in _classifier.predict(_pictures)])
    assert spread > 0.02


def test_probabilities_sum_to_one(_classifier, _pictures):
    """A prediction's probabilities are over all labels in order, sum to 1, and name the largest."""
    for prediction in _classifier.predict(_pictures):
        assert tuple(prediction.probabilities) == _classifier.labels == ("cat", "dog")
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert prediction.probability == max(prediction.probabilities.values())
        assert prediction.probabilities[prediction.label] == prediction.probability


def test_every_kind_of_picture_gives_one_answer(_classifier, _pictures):
    """A path, a string, bytes, a PIL image and an array of the same picture are judged alike."""
    path = _pictures[0]
    image = Image.open(path)
    kinds = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    probabilities = [p.probability for p in _classifier.predict(kinds)]
    assert probabilities == pytest.approx([probabilities[0]] * 5, abs=1e-6)


def test_a_large_picture_is_judged_as_its_training_copy(_classifier, tmp_path):
    """A photo beyond 512 pixels is judged by the reduced copy that training would have made of it."""
    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (900, 1400, 3), dtype=np.uint8))
    copy = open_picture(photo, longest_side=512)
    ours, expected = (p.probability for p in _classifier.predict([photo, copy]))
    assert ours == pytest.approx(expected, abs=1e-6)
    reduced = np.asarray(squish_and_crop(copy, 64, extra=16))
    assert np.array_equal(_classifier.recipe.pixels(photo), reduced)


def test_one_picture_alone_is_one_picture(_classifier, _pictures):
    """A path, bytes, image or array given without a list is one picture, not an iterable of letters or rows."""
    path = _pictures[0]
    for alone in (path, str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
        (prediction,) = _classifier.predict(alone)
        assert prediction.label


def test_a_broken_picture_does_not_stop_the_others(_classifier, _pictures, tmp_path):
    """Each unreadable picture becomes an error in its place; the rest are judged."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(_pictures[-1].read_bytes()[:300])
    found = _classifier.predict([_pictures[0], broken, tmp_path / "none.jpg", tmp_path, 5, None, _pictures[1]])
    assert [p.error is None for p in found] == [True, False, False, False, False, False, True]
    assert found[1] == Prediction(error=found[1].error)
    assert "none.jpg" in found[2].error


def test_no_pictures_give_no_answers(_classifier):
    """An empty iterable gives an empty list."""
    assert _classifier.predict([]) == []


def test_a_stream_keeps_order_across_batches(_classifier, _pictures):
    """Batches of any size give the same answers in the same order."""
    whole = [p.probability for p in _classifier.predict(_pictures)]
    for batch_size in (1, 3, 100):
        streamed = [p.probability for p in _classifier.stream(iter(_pictures), batch_size=batch_size)]
        assert streamed == pytest.approx(whole, abs=1e-5)


def test_a_stream_is_lazy(_classifier, _pictures):
    """An endless iterable is read no further than two batches ahead, and stops when the reader does."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield _pictures[0]

    stream = _classifier.stream(endless(), batch_size=2)
    assert taken == 0
    for _ in range(5):
        next(stream)
    stream.close()
    assert 6 <= taken <= 6 + 2 * 2


def test_the_recipe_comes_from_the_file(tmp_path):
    """Size, crop and labels are the learner's own, not this module's."""
    from utils.export import save_learner

    learn = make_learner(tmp_path / "images", labels=("морской огурец", 'a "b"', "c"), size=96)
    save_learner(learn, tmp_path / "export.pkl")
    classifier = load_classifier(tmp_path / "export.pkl")
    assert classifier.labels == ('a "b"', "c", "морской огурец")  # fastai sorts them
    assert (classifier.recipe.size, classifier.recipe.extra) == (96, 16)
    assert classifier.recipe.mean == pytest.approx((0.485, 0.456, 0.406))


def test_a_file_of_fastais_default_needs_trust(_pictures, tmp_path):
    """What learn.export() writes by default holds code: refused, and loaded with trusted=True."""
    learn = make_learner(tmp_path / "images")
    learn.path = tmp_path
    learn.export("default.pkl")
    with pytest.raises(UnsafeModel, match="cloudpickle"):
        load_classifier(tmp_path / "default.pkl")
    assert load_classifier(tmp_path / "default.pkl", trusted=True).predict(_pictures[0])[0].label


def test_what_is_no_model_is_told_in_a_sentence(_model, tmp_path):
    """A missing file, folder, address, cut file, picture, or model of another kind: one sentence that names it."""
    import torch

    cut = tmp_path / "cut.pkl"
    cut.write_bytes(_model.read_bytes()[:100_000])
    other = tmp_path / "other.pkl"
    torch.save({"weights": torch.zeros(3)}, other)
    empty = tmp_path / "empty.pkl"
    empty.write_bytes(b"")
    picture = draw(tmp_path / "photo.png")
    for path, words in [
        (tmp_path / "none.pkl", "There is no model"),
        (tmp_path, "is a folder"),
        ("https://example.org/export.pkl", "is an address"),
        (cut, "cut short"),
        (other, "not a fastai learner"),
        (empty, "it is empty"),
        (picture, "no torch archive"),
    ]:
        with pytest.raises(ModelError, match=words) as refusal:
            load_classifier(path)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    with pytest.raises(FileNotFoundError):
        load_classifier(tmp_path / "none.pkl")
    assert issubclass(NoModel, ValueError)


def test_another_preparation_is_refused(tmp_path):
    """A learner that prepares pictures otherwise than stage 04 would be judged wrongly here: refused."""
    from fastai.vision.all import Resize

    learn = make_learner(tmp_path / "images")
    for loader in learn.dls.loaders:
        loader.after_item.fs[:] = [Resize(64), *loader.after_item.fs[1:]]
    learn.path = tmp_path
    learn.export("other.pkl", pickle_module=pickle)
    with pytest.raises(ModelError, match="prepares pictures in another way"):
        load_classifier(tmp_path / "other.pkl", trusted=True)


def run(*arguments, cwd=REPOSITORY, **environment) -> subprocess.CompletedProcess:
    """Run Python with these arguments."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True)


def test_the_command_line_prints_json(_model, _pictures, tmp_path):
    """--json prints one object a picture, in order; a missing one is told on its line, and the exit code is 2."""
    gone = tmp_path / "gone.jpg"
    done = run("-m", "utils.inference", _model, _pictures[0], gone, _pictures[1], "--json")
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (2, b"")
    assert list(first) == ["file", "label", "probability", "probabilities"]
    assert list(second) == ["file", "error"]
    assert [first["file"], second["file"], third["file"]] == [str(p) for p in (_pictures[0], gone, _pictures[1])]


def test_the_command_line_prints_lines(_model, _pictures, _classifier, capsys):
    """Without --json a line is file, label and probability between tabs; the exit code is 0."""
    assert inference.main([str(_model), str(_pictures[0])]) == 0
    expected = _classifier.predict(_pictures[0])[0]
    file, label, probability = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (file, label, float(probability)) == (
        str(_pictures[0]),
        expected.label,
        pytest.approx(expected.probability, abs=1e-4),
    )


def test_the_command_line_refuses_in_a_sentence(tmp_path, capsys):
    """A model that cannot be used: exit code 1, one sentence on stderr, nothing on stdout."""
    assert inference.main([str(tmp_path / "none.pkl"), "x.jpg"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_importing_does_not_import_torch():
    """Importing the module imports neither torch nor fastai."""
    done = run("-c", "import sys, utils.inference; print(sorted({'torch', 'fastai'} & set(sys.modules)))")
    assert done.stdout.strip() == b"[]", done.stderr


def test_three_files_are_enough(_model, _pictures, _classifier, tmp_path):
    """Copied loose into one folder, pictures, vetting and inference work without this repository."""
    for name in ("pictures", "vetting", "inference"):
        shutil.copy(REPOSITORY / "utils" / f"{name}.py", tmp_path)
    done = run("inference.py", _model, _pictures[0], "--json", cwd=tmp_path, PYTHONPATH="")
    found = json.loads(done.stdout)
    assert found["probability"] == pytest.approx(_classifier.predict(_pictures[0])[0].probability, abs=1e-5)


def test_top_is_sorted():
    """`top` gives the most probable labels first, and nothing for an error."""
    prediction = Prediction("b", 0.5, {"a": 0.2, "b": 0.5, "c": 0.3})
    assert prediction.top(2) == [("b", 0.5), ("c", 0.3)]
    assert Prediction(error="broken").top() == []


def test_bytes_in_memory_are_pictures(_classifier, _pictures):
    """An io buffer's bytes, as an upload brings them, are read without a file."""
    buffer = io.BytesIO()
    Image.open(_pictures[0]).save(buffer, "PNG")
    assert _classifier.predict([buffer.getvalue()])[0].error is None
