"""Video clips: frames as photos, a clip on one side, and nothing opened that is no clip."""

import io

import numpy as np
import pytest
from PIL import Image
from test_collect import rows
from test_sources import LABELS, given, project_of, put, taken

from utils.download import clips, places_report, sources
from utils.download.clips import ClipError, frame_bytes, frame_times

av = pytest.importorskip("av", reason="needs requirements-optional.txt")


def clip(path, *, seconds=5, rate=10, size=(160, 120)):
    """Write a clip whose red grows by 2 with each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        for n in range(seconds * rate):
            pixels = np.full((size[1], size[0], 3), (2 * n, 80, 255 - 2 * n), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "mov"])
def test_a_frame_is_that_of_its_time(tmp_path, suffix):
    """Frames at 0, 2 and 4 s of a clip of 5 s, each with the colour of its moment."""
    path = clip(tmp_path / f"a.{suffix}")
    assert frame_times(path, 2.0) == [0.0, 2.0, 4.0]
    for time in (0.0, 2.0, 4.0):
        image = Image.open(io.BytesIO(frame_bytes(path, time)))
        assert image.size == (160, 120)
        assert image.getpixel((80, 60))[0] == pytest.approx(20 * time, abs=6)
    with pytest.raises(ClipError, match="has no frame at 60 s"):
        frame_bytes(path, 60.0)


def test_the_frames_of_a_clip_are_photos_of_one_group(tmp_path, monkeypatch):
    """They are drawn with the photos, and found again without being decoded."""
    put(tmp_path / "set", "ant/1.jpg", "bee/2.jpg", "bee/3.jpg")
    clip(tmp_path / "set" / "ant" / "deep" / "walk.mp4")
    for name in ("broken.mp4", "broken too.mp4"):
        (tmp_path / "set" / "bee" / name).write_bytes(b"no clip")
    clip(tmp_path / "set" / "bee" / "2.mov", seconds=1)  # the photo 2.jpg, moving
    project = project_of(tmp_path, "set")
    names = ["1.jpg", "walk.mp4 at 0 s", "walk.mp4 at 2 s", "walk.mp4 at 4 s"]
    assert taken(project) == {"ant": names, "bee": ["2.jpg", "3.jpg"]}
    assert {group for _, group, *_ in given(project).values()} == {
        (tmp_path / "set" / "ant" / "deep" / "walk.mp4").as_uri()
    }
    report = places_report(project)
    assert report.table.loc["ant"].to_dict() == {"photos there": 4, "taken": 4}
    assert "1 clip: a frame every 2 s is a photo (clip_seconds)." in report.remarks
    assert "2 clips that cannot be read (bee/broken too.mp4), 1 clip of a photo beside it (bee/2.mov)" in " ".join(
        report.remarks
    )
    monkeypatch.setattr(clips, "jpeg_bytes", None)
    before = rows(project)
    taken(project)
    assert rows(project) == before
    few = project_of(tmp_path, "set", "images_per_label = 2").model_copy(update={"name": "few"})
    monkeypatch.undo()
    assert len(taken(few)["ant"]) == 2


def test_without_pyav_clips_are_counted(tmp_path, monkeypatch):
    """And the way to have them read is said."""
    put(tmp_path / "set", "ant/1.jpg", "bee/2.jpg")
    clip(tmp_path / "set" / "ant" / "walk.mp4", seconds=1)
    monkeypatch.setattr(sources, "can_read_clips", lambda: False)
    project = project_of(tmp_path, "set", labels=LABELS)
    assert taken(project) == {"ant": ["1.jpg"], "bee": ["2.jpg"]}
    assert places_report(project).remarks == [
        f"Passed over in {tmp_path / 'set'}: 1 clip (ant/walk.mp4).",
        "To take a frame of each clip every 2 s (clip_seconds), install PyAV: pip install av",
    ]


def test_only_formats_of_cameras_are_opened(tmp_path):
    """A list of addresses under a clip's name is not followed."""
    clip(tmp_path / "a.mp4", seconds=1)
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile 'a.mp4'\n")
    with pytest.raises(ClipError, match="cannot be read"):
        frame_times(tmp_path / "b.mp4", 1.0)
