"""
Video clips as photos: a frame every so many seconds, read by PyAV where it is installed.

A clip is opened as a file and by the formats of cameras alone: others are lists of addresses, which FFmpeg would open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.pictures import MAX_PIXELS, jpeg_bytes

if TYPE_CHECKING:
    from av.container import InputContainer

CLIP_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf"  # as FFmpeg calls them
MOST_OF_A_CLIP = 10_000  # of one clip
FRAME_QUALITY = 95  # of JPEG: a training copy is made of it, so nothing should be lost
EARLY = 1e-3  # seconds by which a frame may come before its time: clips count time in small steps


class ClipError(ValueError):
    """A clip that cannot be read; the message is the reason."""


def can_read_clips() -> bool:
    """Return whether PyAV is installed."""
    return find_spec("av") is not None


def frame_times(path: Path, every: float) -> list[float]:
    """Return the times in seconds of the frames that are taken of a clip: 0, `every`, twice that, up to its end."""
    with _opened_clip(path) as (container, stream):
        length = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
        return [n * every for n in range(min(MOST_OF_A_CLIP, max(1, -int(-float(length) // every))))]


def frame_bytes(path: Path, time: float) -> bytes:
    """Return the frame of a clip at a time in seconds, upright, as a JPEG; or raise ClipError."""
    with _opened_clip(path) as (container, stream):
        start = stream.start_time or 0
        container.seek(start + int(time / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= time + float(start * stream.time_base) - EARLY:
                image = frame.to_image()
                turned = image.rotate(frame.rotation, expand=True) if frame.rotation else image
                return jpeg_bytes(turned, quality=FRAME_QUALITY)
    raise ClipError(f"has no frame at {time:g} s")


@contextmanager
def _opened_clip(path: Path) -> Iterator[tuple["InputContainer", Any]]:
    """Open a clip and its video stream; turn whatever FFmpeg says into a ClipError."""
    import av  # it may not be there

    try:
        with path.open("rb") as file, av.open(file, options={"format_whitelist": CLIP_FORMATS}) as container:
            if not container.streams.video:
                raise ClipError("has no pictures in it")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise ClipError(f"too many pixels: {stream.width}×{stream.height}")
            yield container, stream
    except av.FFmpegError as error:
        raise ClipError(f"cannot be read ({error.strerror or error})") from error
