"""
Opening a picture: the steps from a file, bytes, an image or an array to upright 8-bit RGB in sRGB.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from .colour import to_srgb
from .depth import depth_of, grey_of, is_deep, keeps_upper_bits
from .formats import format_of, image_file
from .jpeg import END, end_of, lacks_scans, undecoded, wants_more
from .limits import LARGE_BYTES, MAX_PIXELS, MOST_PIXELS, alone, is_large, refuse_bytes, refuse_size
from .raw import PREVIEW, developed, is_raw, raw_preview
from .reasons import BROKEN, UNKNOWN, PictureError, decoding, shortened
from .sizes import bounded, by_strips
from .spaces import Space, from_space, space_of
from .structure import require_bounded
from .tiff import STORED, directories, led_to, photo_of
from .turning import orientation, turned, without_xmp

WHITE = (255, 255, 255)
NO_END = "no-end-marker"  # the remark on a JPEG that lacks its last two bytes and nothing else
UPPER_BITS = "16-bit-colour"  # the remark on colours of 16 bits: only their upper 8 bits are read


@dataclass(frozen=True)
class Opened:
    """A picture, and what its file says of it."""

    image: Image.Image  # upright 8-bit RGB in sRGB
    width: int  # pixels as stored, before turning and reducing
    height: int
    missing: float = 0.0  # fraction of its rows, at the bottom, that the file ended before
    coarse: bool = False  # whether it ends before its last details, as a progressive JPEG cut short does
    remarks: tuple[str, ...] = ()  # what else is odd about the file, each in a word
    bits: int | None = None  # that its tags name, or that hold its values, if it is grey of more than 8 bits

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright picture before it was reduced, in pixels."""
        shown = self.image.width - self.image.height
        lies = (self.width - self.height) * shown < 0  # it was turned by a quarter; nobody can tell of a square
        return (self.height, self.width) if lies else (self.width, self.height)


def open_picture(
    picture, *, longest_side: int | None = None, first_frame: bool = False, bits: int | None = None
) -> Image.Image:
    """
    Open a picture as an upright 8-bit RGB image in sRGB.

    `picture` is a path, bytes, a PIL image, or a uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). One
    larger than `longest_side` pixels is reduced to it; a smaller one stays as it is. With `first_frame`, the first
    frame of an animation, or the first page of many, is taken instead of refused. The values of 16-bit grey have `bits`
    bits, 16 by default, where the file's own tags name no other number; with `OWN_BITS`, as many as they need.

    Raises PictureError if it is not a picture, broken, animated or larger than `limits` allows, and FileNotFoundError
    if the path leads nowhere.
    """
    return open_with_facts(picture, longest_side=longest_side, first_frame=first_frame, bits=bits).image


def open_with_facts(
    picture, *, longest_side: int | None = None, first_frame: bool = False, bits: int | None = None
) -> Opened:
    """Open as `open_picture` does, and return what else is known of the file."""
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if isinstance(picture, Image.Image):
        with decoding(BROKEN):
            refuse_size(*picture.size)
            _refuse_unless_one_photo(picture, first_frame=first_frame)
            return _opened(picture, b"", longest_side, bits)
    with alone(_size_of(picture) > LARGE_BYTES):
        data = _data_of(picture)
        with decoding(UNKNOWN, data[:1024]):
            require_bounded(data, format_of(data))
            if is_raw(data):
                return _opened_raw(data, longest_side)
            data, stored = photo_first(data, first_frame=first_frame)
            image = image_file(io.BytesIO(data))
        with image, decoding(BROKEN):
            if image.format not in ("TIFF", "HEIF"):  # of a phone's bursts, the first is the photo
                _refuse_unless_one_photo(image, first_frame=first_frame)
            if image.format == "JPEG":
                return _opened_jpeg(without_xmp(image), data, longest_side)
            with _of_bounded_size(image):
                opened = _opened(without_xmp(image), data, longest_side, bits)
                return replace(opened, image=turned(opened.image, stored))


def _opened_raw(data: bytes, longest_side: int | None) -> Opened:
    """Open a raw file by the camera's own JPEG inside it, or by developing it."""
    if not (preview := raw_preview(data)):
        with alone(True):
            return _opened(developed(data), b"", longest_side, None)
    inside, stored = preview
    require_bounded(inside, "JPEG")
    image = without_xmp(image_file(io.BytesIO(inside)))
    own = orientation(image) != 1
    opened = _opened_jpeg(image, inside, longest_side)
    upright = opened.image if own else turned(opened.image, stored)
    return replace(opened, image=upright, remarks=(*opened.remarks, PREVIEW))


def photo_first(data: bytes, *, first_frame: bool) -> tuple[bytes, int]:
    """
    Return a file's bytes so that its photo is what opens, and how that is stored where another place says so.

    A TIFF may begin with a smaller version, and its photo hang below that, which then says how both are turned.
    """
    if format_of(data) != "TIFF":
        return data, 1
    if not (found := list(directories(data))):
        raise PictureError(f"{BROKEN} (it has no page)")
    photo = photo_of(found)
    if photo is None and not first_frame:
        raise PictureError("animated or many pages")
    if photo is None or photo is found[0]:
        return data, 1
    return led_to(data, photo), 1 if photo.following or STORED in photo.tags else found[0].first(STORED, 1)


def bits_wanted(picture) -> int | None:
    """
    Return the bits that a 16-bit grey picture's tags name, or that hold its values; None for any other picture.

    Pictures are taken and refused as by `open_picture`, with their first frame. No picture of 8 bits is decoded.
    """
    with decoding(UNKNOWN), alone(_size_of(picture) > LARGE_BYTES):
        data = _data_of(picture)
        require_bounded(data, format_of(data))
        data, _ = photo_first(data, first_frame=True)
        with image_file(io.BytesIO(data)) as image, _of_bounded_size(image):
            return depth_of(without_xmp(image), data).wanted if is_deep(image) else None


def _opened(image: Image.Image, data: bytes, longest_side: int | None, bits: int | None) -> Opened:
    """Decode an open file that is not a JPEG, or an image."""
    width, height = image.size
    image.load()  # a TIFF is turned by that
    depth = depth_of(image, data) if image.mode.startswith(("I", "F")) else None
    plain = grey_of(image, depth, bits) if depth else _plain
    space = None if depth else space_of(image, data)
    remarks = (UPPER_BITS,) * keeps_upper_bits(image, data) + (space.remarks if space else ())
    result = _of_its_own(_rgb(image, longest_side, plain, space), image)
    return Opened(result, width, height, remarks=remarks, bits=depth.wanted if depth and is_deep(image) else None)


def _opened_jpeg(image: Image.Image, data: bytes, longest_side: int | None) -> Opened:
    """Decode an open JPEG, at a fraction of its size where that is enough, and see what its file lacks."""
    width, height = image.size
    # Decoding at no less than twice the target costs a fraction and loses nothing that is kept.
    target = (2 * longest_side, 2 * longest_side) if longest_side else image.size
    unended = end_of(data) == len(data)
    if unended:
        image = without_xmp(image_file(io.BytesIO(data + END)))
    image.draft(None, target)
    refuse_size(*image.size)
    # The decoder keeps a progressive one in memory as a whole.
    with alone(is_large("JPEG", width * height if image.info.get("progressive") else image.width * image.height)):
        image.load()
        missing = undecoded(image)
        # Where nothing ends the file, its last details count too, if that does not take too much memory.
        seen = (width, height) if unended and not is_large("JPEG", width * height) else target
        more = bool(missing or unended) and wants_more(data, seen)
        coarse = bool(image.info.get("progressive") or unended) and lacks_scans(data)
        if unended and (more or coarse):
            raise PictureError(f"{BROKEN} (the file ends too early)")
        missing = missing if more else 0.0  # else it is a grey footer of its own
        remarks = (NO_END,) * unended
        return Opened(_of_its_own(_rgb(image, longest_side), image), width, height, missing, coarse, remarks)


def _data_of(picture) -> bytes:
    """Return the bytes of a file, or those given."""
    with decoding(UNKNOWN):
        return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


@contextmanager
def _of_bounded_size(image: Image.Image) -> Iterator[None]:
    """Refuse an open image of too many pixels for its format, and hold other large ones back meanwhile."""
    refuse_size(*image.size, most=MOST_PIXELS.get(image.format, MAX_PIXELS))
    with alone(is_large(image.format, image.width * image.height)):
        yield


def _size_of(picture) -> int:
    """Return the size in bytes of a file, or of its bytes; refuse what is absent, no file, empty or too large."""
    if isinstance(picture, bytes):
        size = len(picture)
    else:
        path, name = Path(picture), shortened(str(picture))
        if not path.exists():
            raise FileNotFoundError(f"There is no picture {name}.")
        if path.is_dir():
            raise PictureError(f"{name} is a folder, not a picture")
        if not path.is_file():  # opening a named pipe would wait for ever
            raise PictureError(f"{name} is no regular file")
        size = path.stat().st_size
    if size == 0:
        raise PictureError("empty file")
    refuse_bytes(size)
    return size


def _refuse_unless_one_photo(image: Image.Image, *, first_frame: bool) -> None:
    """Refuse, before decoding, what is more than one picture, unless its first frame is asked for."""
    # Frames are not counted: with the pages of a hostile TIFF that takes minutes.
    if not first_frame and getattr(image, "is_animated", False):
        raise PictureError("animated or many pages")


def _from_array(array: np.ndarray) -> Image.Image:
    """Return an array as an image, or refuse one whose shape or type leaves the colours to guessing."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise PictureError(
            f"an array of {array.dtype} and shape {array.shape}; expected uint8 of shape (H, W), (H, W, 1), (H, W, 3) "
            "or (H, W, 4)"
        )
    refuse_size(array.shape[1], array.shape[0])
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _rgb(
    image: Image.Image,
    longest_side: int | None,
    plain: Callable[[Image.Image], Image.Image] | None = None,
    space: Space | None = None,
) -> Image.Image:
    """
    Return a decoded image upright, as 8-bit RGB in sRGB and reduced.

    `plain` makes its values those of 8 bits; `space` is that of its colours, if no profile says it.
    """
    profile, stored = image.info.get("icc_profile"), orientation(image)
    deep, large = plain not in (None, _plain), is_large(None, image.width * image.height)
    if deep or large:
        factor = max(1, max(image.size) // (2 * longest_side)) if longest_side and large else 1
        image = by_strips(image, plain or _plain, factor)
    else:
        image = _plain(image)
    image = turned(image, stored)
    if profile and not deep and not space:
        image = to_srgb(image, profile)
    image = image if image.mode == "RGB" else image.convert("RGB")
    return bounded(by_strips(image, from_space(space)) if space else image, longest_side)


def _plain(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits as RGB, CMYK or grey, on white where it is transparent: what profiles describe."""
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("LA") if image.mode == "La" else image  # from which Pillow knows no other way
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", rgba.size, WHITE)
        image.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")  # a palette's colours are what its profile describes
    return image


def _of_its_own(result: Image.Image, image: Image.Image) -> Image.Image:
    """Return `result`, as a copy if it is still `image` itself: the caller's, or one bound to a file."""
    return image.copy() if result is image else result
