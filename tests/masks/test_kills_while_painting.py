"""A kernel that is killed at any step of a stroke: what was answered is there, and the mask is never half of one."""

import os
import sys

import numpy as np
import pytest
from conftest import picture_bytes
from mask_pictures import photo_and_mask, with_photos
from PIL import Image

from tests.killing import kill_at
from utils.masks import MaskPainter, take_masks
from utils.masks.strokes import under_brush
from utils.storage import visible_files, write_whole

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
SHAPE = (120, 160)
FIRST, SECOND = ([[30, 40], [90, 40]], [[60, 20], [60, 90]])
MOST = 40  # steps


def send(painter, id, points, token):
    """Send a stroke as the page does, and return the answer."""
    request = {"ask": "stroke", "key": id, "do": "brush", "size": 20, "points": points, "token": token}
    return painter.answer(request)[0]


def killed(project, id, step, lost, dataset):
    """Send the second stroke from a child that is killed at a step; return whether it was."""
    child = os.fork()
    if child == 0:
        painter = MaskPainter(dataset)
        kill_at(step, lost, project.data)
        send(painter, id, SECOND, "v2-1")
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("before", "lost"),
    [
        ("a stroke", 30),
        ("one that is scaled", 0),
        pytest.param("nothing", 0, marks=pytest.mark.long),
        pytest.param("a stroke", 0, marks=pytest.mark.long),
        pytest.param("a mask from elsewhere", 30, marks=pytest.mark.long),
        pytest.param("a mask from elsewhere", 0, marks=pytest.mark.long),
    ],
)
def test_a_kill_at_any_step_of_a_stroke_loses_nothing(make_project, before, lost):
    """
    Before the page sends it again, the mask is the one before the stroke or the one after it. Once it was sent again,
    it is the one after it, with one step to undo; and the mask from elsewhere is kept.
    """
    steps = 0
    for step in range(1, MOST):
        project = make_project(name=f"pets{step}", mask_source="paint")
        dataset, (id,) = with_photos(project, 1)
        first, file = np.zeros(SHAPE, bool), project.data / "masks" / f"{id}.png"
        if before == "a stroke":
            assert send(MaskPainter(dataset), id, FIRST, "v1-1")["tell"] == "saved"
            first = under_brush(FIRST, 20, SHAPE)
        elif before != "nothing":
            mask = photo_and_mask(0)[1]
            first = np.asarray(mask) > 0
            larger = mask.resize((480, 360), Image.Resampling.NEAREST) if "scaled" in before else mask
            write_whole(file, picture_bytes(larger, "PNG"))
        original = file.read_bytes() if file.exists() else b""
        if not killed(project, id, step, lost, dataset):
            break
        steps = step
        both = first | under_brush(SECOND, 20, SHAPE)
        drawn = [mask.read()[1] for mask in take_masks(dataset).drawn]  # a run of 03a after the kill
        assert any(np.array_equal(drawn[0] if drawn else np.zeros(SHAPE, bool), one) for one in (first, both))
        answer = send(MaskPainter(dataset), id, SECOND, "v2-1")
        assert (answer["tell"], answer["undo"]) == ("saved", 2 if before == "a stroke" else 1)
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(image) > 0, both)
        layers = [path.read_bytes() for path in visible_files(file.parent / "strokes") if path.suffix == ".png"]
        assert layers == ([original] if "elsewhere" in before or "scaled" in before else [])
    assert 8 <= steps < MOST - 1
