"""Test-time augmentation: the mean of a picture and its mirror image, the same from both kinds of file."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_commands import ask
from test_inference import colour_model, draw, make_learner, saved

from utils.export.formats import save_learner, save_onnx
from utils.inference import ModelError, load_classifier


def half_dark(path: Path, seed: int) -> Path:
    """Draw a picture whose left half is black, so that its mirror image is another one."""
    with Image.open(draw(path, size=(90 + 20 * seed, 64), seed=seed)) as image:
        image.paste("black", (0, 0, image.width // 2, image.height))
        image.save(path)
    return path


@pytest.fixture(scope="module")
def _models(tmp_path_factory) -> list[Path]:
    """Return an export.pkl and a model.onnx of one untrained learner, whose training would mirror pictures."""
    folder = tmp_path_factory.mktemp("tta")
    learn = make_learner(folder / "images")
    save_learner(learn, folder / "export.pkl")
    recipe = asdict(load_classifier(folder / "export.pkl").recipe)
    save_onnx(learn, folder / "model.onnx", metadata={"labels": '["cat", "dog"]', "recipe": json.dumps(recipe)})
    return [folder / "export.pkl", folder / "model.onnx"]


def test_the_answer_is_the_mean_of_both_looks(_models, tmp_path):
    """For each of five pictures, from both files: the mean of the probabilities as it is and mirrored; no chance."""
    photos = [half_dark(tmp_path / f"{n}.png", n) for n in range(5)]
    mirrored = [ImageOps.mirror(Image.open(photo)) for photo in photos]
    answers = []
    for model in map(load_classifier, _models):
        both = model.predict(photos, tta=True)
        once, other = model.predict(photos), model.predict(mirrored)
        expected = [(a.probabilities["cat"] + b.probabilities["cat"]) / 2 for a, b in zip(once, other, strict=True)]
        assert [p.probabilities["cat"] for p in both] == pytest.approx(expected, abs=1e-4)
        assert max(abs(a.probability - b.probability) for a, b in zip(once, both, strict=True)) > 4e-3
        assert both == model.predict(photos, tta=True) == list(model.stream(photos, batch_size=5, tta=True))
        answers.append([p.probabilities["cat"] for p in both])
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)


def test_a_picture_that_cannot_be_read_stops_nothing(_models, tmp_path):
    """It has its error, and the others their answers."""
    first, second = load_classifier(_models[1]).predict([b"no picture", draw(tmp_path / "a.png")], tta=True)
    assert first.error and second.label


def test_a_model_trained_without_mirrored_pictures_is_not_asked(tmp_path):
    """With do_flip = false both files say so, and tta=True is refused before a picture is opened."""
    learn = make_learner(tmp_path / "images", network="squeezenet1_1", do_flip=False)
    save_learner(learn, tmp_path / "export.pkl")
    pickled = load_classifier(tmp_path / "export.pkl")
    onnx = load_classifier(saved(_of_recipe(mirrored=False), tmp_path / "model.onnx"))
    for model in (pickled, onnx):
        assert model.recipe.mirrored is False
        with pytest.raises(ModelError, match=r"do_flip = false.*without tta=True \(--tta\)"):
            model.stream(["nowhere.png"], tta=True)
        assert model.predict(np.zeros((9, 9, 3), np.uint8))[0].label  # asked once, it answers


def _of_recipe(**facts):
    """Return a network for colours whose recipe says more."""
    return colour_model(recipe={"longest_side": 512, "size": 16, "extra": 0} | facts)


def test_a_file_says_whether_training_mirrored(_models, tmp_path):
    """Both kinds of file say it; an earlier export does not, and is asked all the same; nonsense is refused."""
    assert [load_classifier(path).recipe.mirrored for path in _models] == [True, True]
    earlier = load_classifier(saved(colour_model(), tmp_path / "earlier.onnx"))
    assert earlier.recipe.mirrored is None and replace(earlier.recipe, mirrored=True) != earlier.recipe
    assert earlier.predict(draw(tmp_path / "a.png"), tta=True)[0].label
    for nonsense in ("yes", 1, []):
        with pytest.raises(ModelError, match="mirrored = "):
            load_classifier(saved(_of_recipe(mirrored=nonsense), tmp_path / "bad.onnx"))


def test_the_command_line_asks_twice_with_tta(_models, tmp_path, capsys):
    """--tta prints the mean of both looks; it says where a file does not tell, and refuses where training says no."""
    path = half_dark(tmp_path / "a.png", 0)
    expected = load_classifier(_models[1]).predict(path, tta=True)[0]
    code, [line], said = ask(capsys, _models[1], path, "--tta")
    assert (code, line, said) == (0, [str(path), expected.label, f"{expected.probability:.4f}"], "")
    assert line != ask(capsys, _models[1], path)[1][0]
    earlier = saved(colour_model(), tmp_path / "earlier.onnx")
    assert f"{earlier} does not say whether its training mirrored photos." in ask(capsys, earlier, path, "--tta")[2]
    assert ask(capsys, earlier, path)[2] == ""
    never = saved(_of_recipe(mirrored=False), tmp_path / "never.onnx")
    code, lines, said = ask(capsys, never, path, "--tta")
    assert (code, lines, said.count("\n")) == (1, [], 1) and "do_flip = false" in said


def test_a_submission_is_the_same_from_both_files_and_may_look_twice(_models, tmp_path, capsys):
    """export.pkl and model.onnx fill a template alike, with --tta by the mean of both looks."""
    photos = [half_dark(tmp_path / "p" / f"{n}.png", n) for n in range(3)]
    (tmp_path / "t.csv").write_text("id,cat,dog\n" + "".join(f"{n},,\n" for n in range(3)))
    expected = [p.probabilities["cat"] for p in load_classifier(_models[0]).predict(photos, tta=True)]
    for model in _models:
        target = tmp_path / f"{model.name}.csv"
        assert ask(capsys, model, tmp_path / "p", "--submission", tmp_path / "t.csv", "--csv", target, "--tta")[0] == 0
        found = [float(line.split(",")[1]) for line in target.read_text().splitlines()[1:]]
        assert found == pytest.approx(expected, abs=1e-4)
