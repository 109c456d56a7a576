"""What a second look, mirrored, gains: on the same photos, by the mean of both answers."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import FlipItem, aug_transforms
from test_inference import make_learner

from utils.evaluate.mirroring import mirrored_batches, mirroring_gain, mirroring_sentence, trained_mirrored
from utils.project import REPOSITORY

VOCAB = ("ant", "bee")


def predictions(labels: str, ants: list[float]) -> pd.DataFrame:
    """Return predictions of pictures of "a" (ant) and "b" (bee), by the probability of an ant."""
    table = pd.DataFrame({"id": [f"{n:03}" for n in range(len(ants))], "side": "valid"})
    table["label"] = [VOCAB["ab".index(letter)] for letter in labels]
    table["predicted"] = [VOCAB[p < 0.5] for p in ants]
    return table.assign(ant=ants, bee=1 - np.array(ants))


def of_own(table: pd.DataFrame) -> dict:
    """Return id → a picture that is a group of its own."""
    return {id: type("Picture", (), {"group": id}) for id in table.id}


def test_the_mean_of_both_answers_is_compared_photo_by_photo():
    """Of six photos one becomes right and one wrong by the mean; the others stay, whatever the mirror image says."""
    plain = predictions("aabbab", [0.9, 0.4, 0.2, 0.4, 0.6, 0.7])  # right but the second and the last
    mirrored = predictions("aabbab", [0.8, 0.7, 0.1, 0.7, 0.45, 0.6])  # the second becomes right, the fourth wrong
    found = mirroring_gain(of_own(plain), plain, mirrored)
    assert (found["gained"], found["lost"], found["p"]) == (1, 1, 1.0)
    assert (found["before"]["value"], found["after"]["value"]) == (pytest.approx(4 / 6, abs=1e-6),) * 2
    assert found["difference"]["low"] < 0 < found["difference"]["high"]
    assert mirroring_sentence(found).endswith("p = 1): not shown to help.")


def test_what_helps_and_what_harms_is_said():
    """Of 40 photos, 10 become right: it helps; the other way round it harms."""
    plain = predictions("a" * 40, [0.9] * 25 + [0.4] * 15)
    mirrored = predictions("a" * 40, [0.9] * 25 + [0.8] * 10 + [0.1] * 5)
    helps = mirroring_sentence(mirroring_gain(of_own(plain), plain, mirrored))
    assert "+25.0 points (95 % interval +" in helps and "it helps" in helps and "--tta" in helps
    worse = predictions("a" * 40, [0.6] * 10 + [0.9] * 30)
    harms = mirroring_sentence(mirroring_gain(of_own(plain), worse, predictions("a" * 40, [0.1] * 10 + [0.9] * 30)))
    assert "-25.0 points" in harms and harms.endswith("it harms, so leave it out.")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, True), ({"do_flip": False}, False), ({"flip_vert": True}, True), ({"do_flip": False, "mult": 2.0}, False)],
)
def test_it_is_known_whether_training_mirrors(options, expected):
    """fastai's aug_transforms mirrors unless do_flip is false; a step of items counts, too."""
    steps = [type("Steps", (), {"fs": list(fs)}) for fs in ((), aug_transforms(**options))]
    dls = type("Loaders", (), {"train": type("Loader", (), {"after_item": steps[0], "after_batch": steps[1]})})
    assert trained_mirrored(dls) is expected
    steps[0].fs.append(FlipItem())
    assert trained_mirrored(dls) is True


def test_the_network_sees_the_mirror_image(tmp_path):
    """With the callback, fastai's predictions are those of the network on batches whose columns are reversed."""
    learn = make_learner(tmp_path, network="squeezenet1_1")
    paths = sorted(tmp_path.rglob("*.png"))[:3]
    loader = learn.dls.test_dl(paths, num_workers=0)
    with learn.no_bar():
        plain, mirrored = (learn.get_preds(dl=loader, cbs=cbs)[0] for cbs in ([], [mirrored_batches()]))
    (batch,) = loader.one_batch()
    with torch.inference_mode():
        expected = learn.model.eval()(batch.flip(-1)).softmax(1)
    assert torch.allclose(mirrored, torch.Tensor(expected), atol=1e-5)
    assert not torch.allclose(plain, mirrored, atol=1e-5)


def test_who_reads_an_evaluation_does_not_load_fastai():
    """`make run` tells its verdict without the seconds and the warnings that loading fastai brings."""
    told = "import sys, utils.evaluate; print('fastai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
