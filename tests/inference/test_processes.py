"""A classifier in other processes: the same answers, from the same bytes, which are vetted there."""

import json
import multiprocessing
import pickle
import pickletools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from redteam import archive, call, pickled, text
from test_inference import GREY, RED, colour_model, draw, make_learner, saved

from utils.inference import ModelError, UnsafeModel, load_classifier
from utils.pictures import LONGEST_SIDE
from utils.storage import file_hash


@pytest.fixture(scope="module")
def _models(tmp_path_factory) -> Path:
    """Return a folder with an export.pkl and a model.onnx of one learner, and one of fastai's default, default.pkl."""
    from utils.export.formats import save_learner, save_onnx

    folder = tmp_path_factory.mktemp("processes")
    learn = make_learner(folder / "images")
    learn.path = folder
    learn.export("default.pkl")
    save_learner(learn, folder / "export.pkl")
    recipe = {"longest_side": LONGEST_SIDE, "size": 64, "extra": 16}
    save_onnx(learn, folder / "model.onnx", metadata={"labels": '["cat", "dog"]', "recipe": json.dumps(recipe)})
    return folder


def test_another_process_gives_the_same_answers(_models, tmp_path):
    """A spawned process answers as this one, also after another file came to the model's path, or none is there."""
    photos = [draw(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    names = ("model.onnx", "export.pkl")
    for name in names:
        (tmp_path / name).write_bytes((_models / name).read_bytes())
    classifiers = [load_classifier(tmp_path / name) for name in names]
    expected = [classifier.predict(photos) for classifier in classifiers]
    saved(colour_model(), tmp_path / "model.onnx")
    (tmp_path / "export.pkl").unlink()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for classifier, answers in zip(classifiers, expected, strict=True):
            there = pool.submit(classifier.predict, photos).result()
            assert [p.label for p in there] == [p.label for p in answers]
            for theirs, ours in zip(there, answers, strict=True):
                assert dict(theirs.probabilities) == pytest.approx(dict(ours.probabilities), abs=1e-6)


def test_what_the_program_changed_goes_along(_models, tmp_path):
    """Labels, recipe and threshold are those of the classifier, not those of the file or of a card beside it."""
    path = tmp_path / "export.pkl"
    path.write_bytes((_models / "export.pkl").read_bytes())
    card = {"sha256": {"export.pkl": file_hash(path)}, "unknown": {"threshold": 0.99}}
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    classifier = load_classifier(path)
    (tmp_path / "card.json").unlink()
    again = pickle.loads(pickle.dumps(classifier))
    assert again.threshold == classifier.threshold == 0.99
    colours = replace(load_classifier(saved(colour_model(), tmp_path / "model.onnx")), labels=("rot", "grün", "blau"))
    again = pickle.loads(pickle.dumps(colours))
    assert again == colours
    assert [p.label for p in again.predict([RED, GREY], unknown=True)] == ["rot", None]


def test_a_hostile_model_is_refused_in_the_other_process_too(_models, tmp_path):
    """The bytes that a pickled classifier brings are vetted when it arrives, and the refusal names the file."""
    command = archive(tmp_path / "hostile.pkl", pickled(call("os.system", text(f"touch {tmp_path / 'mark'}"))))
    classifier = load_classifier(_models / "export.pkl")
    changed = replace(classifier, network=replace(classifier.network, source=("a.pkl", command.read_bytes(), False)))
    with pytest.raises(UnsafeModel, match=r"a\.pkl is not loaded: .*(system|posix)"):
        pickle.loads(pickle.dumps(changed))
    assert not (tmp_path / "mark").exists()
    cut = replace(
        classifier, network=replace(classifier.network, source=("a.pkl", classifier.network.source[1][:999], False))
    )
    with pytest.raises(ModelError, match="cut short"):
        pickle.loads(pickle.dumps(cut))
    model = colour_model()
    model.graph.initializer[1].data_location = 1  # in another file
    colours = load_classifier(saved(colour_model(), tmp_path / "model.onnx"))
    changed = replace(colours, network=replace(colours.network, data=model.SerializeToString()))
    with pytest.raises(ModelError, match=r"model\.onnx is not a model .* another file"):
        pickle.loads(pickle.dumps(changed))


def test_a_trusted_file_stays_trusted(_models, tmp_path):
    """What somebody loaded with trusted=True is loaded so again, and only that."""
    photo = draw(tmp_path / "photo.png")
    trusted = load_classifier(_models / "default.pkl", trusted=True)
    assert pickle.loads(pickle.dumps(trusted)).predict(photo) == trusted.predict(photo)
    path, data, _ = trusted.network.source
    with pytest.raises(UnsafeModel):
        pickle.loads(pickle.dumps(replace(trusted, network=replace(trusted.network, source=(path, data, False)))))


def test_a_pickled_classifier_names_nothing_of_torch_or_onnxruntime(_models):
    """Whoever reads the pickle finds names of this package alone; the rest lies in the model's bytes, to be vetted."""
    for name in ("model.onnx", "export.pkl"):
        data = pickle.dumps(load_classifier(_models / name))
        texts = [arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)]
        assert {text.split(".")[0] for text in texts if "." in text and "/" not in text} <= {"utils", "copyreg"}


def test_the_models_bytes_stay_out_of_sight(_models):
    """A network shows itself without the bytes of its file."""
    for name in ("model.onnx", "export.pkl"):
        assert len(repr(load_classifier(_models / name).network)) < 100_000
