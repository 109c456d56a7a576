"""
Opening a picture honestly: the one way, used by every path from collecting to prediction.

Decode in full, turn upright, convert the colour profile to sRGB, and end as 8-bit RGB: 16-bit values are scaled,
transparency is laid on white, an animation is refused. fastai's own opening clips, flattens and ignores instead,
which moves probabilities by up to 0.98 between training and use. Needs Pillow and numpy alone, never torch, so
that it can be copied into another program together with `inference` and `vetting`.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageOps, UnidentifiedImageError

MAX_PIXELS = 80_000_000  # refused before decoding: larger ones are decompression bombs more often than photos
LONGEST_SIDE = 512  # pixels, of a training copy
JPEG_QUALITY = 92  # of a training copy
# Formats that are photos (a camera's MPO opens as JPEG). Pillow knows more, some of which start other programs
# (EPS) or are rarely well-formed.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
WHITE = (255, 255, 255)


class PictureError(ValueError):
    """A picture that cannot be read as one; the message is the reason, such as "truncated"."""


def open_picture(picture, *, longest_side: int | None = None) -> Image.Image:
    """
    Open a picture as an upright 8-bit RGB image in sRGB.

    Parameters
    ----------
    picture : path, bytes, PIL image, or uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
    longest_side : int, optional
        Pixels. Larger pictures are reduced to it; smaller ones stay as they are.

    Raises
    ------
    PictureError
        If it is not a picture, broken, animated or larger than 80 million pixels.
    FileNotFoundError
        If the path leads nowhere.
    """
    return open_with_size(picture, longest_side=longest_side)[0]


def open_with_size(picture, *, longest_side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Open as `open_picture` does; return also width and height in pixels as stored, before turning and reducing."""
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if isinstance(picture, Image.Image):
        with _decoding("truncated or broken inside"):
            return _bounded(to_rgb(picture), longest_side), picture.size
    source = _source(picture)
    with _decoding("not a picture in a format known here"):
        image = Image.open(source, formats=FORMATS)
    with image, _decoding("truncated or broken inside"):
        size = image.size
        _refuse_unless_one_photo(image)
        if longest_side and image.format == "JPEG":
            # Decoding at no less than twice the target costs a fraction and loses nothing that is kept.
            image.draft(None, (2 * longest_side, 2 * longest_side))
        image.load()
        return _bounded(to_rgb(image), longest_side), size


@contextmanager
def _decoding(reason: str) -> Iterator[None]:
    """Turn whatever Pillow raises on odd bytes into a `PictureError`: its parsers raise nearly every kind."""
    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(reason) from error
    except Image.DecompressionBombError as error:
        raise PictureError("more pixels than any photo") from error
    except MemoryError as error:  # also what a lying header asks for; one file must not stop thousands
        raise PictureError("needs more memory than there is") from error
    except PermissionError as error:
        raise PictureError("this account may not read the file") from error
    except Exception as error:
        raise PictureError(f"{reason} ({error})") from error


def _source(picture) -> io.BytesIO | Path:
    """Return bytes or a path as Pillow takes them; refuse what is absent, no file, or empty."""
    if isinstance(picture, bytes):
        source, size = io.BytesIO(picture), len(picture)
    else:
        source = Path(picture)
        if not source.exists():
            raise FileNotFoundError(f"There is no picture {source}.")
        if not source.is_file():
            raise PictureError(f"{source} is a folder, not a picture")
        size = source.stat().st_size
    if size == 0:
        raise PictureError("empty file")
    return source


def _refuse_unless_one_photo(image: Image.Image) -> None:
    """Refuse, before decoding, what is too large or more than one picture."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{width}×{height} pixels, more than {MAX_PIXELS // 1_000_000} million")
    # A camera's MPO holds a preview as a second frame: its first frame is the photo, not an animation's start.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PictureError(f"animated or many pages ({image.n_frames} frames)")


def _from_array(array: np.ndarray) -> Image.Image:
    """Return an array as an image, or refuse one whose shape or type leaves the colours to guessing."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(
            f"an array of {array.dtype} and shape {array.shape}; expected uint8 of shape (H, W), (H, W, 3) or (H, W, 4)"
        )
    if 0 in array.shape:
        raise PictureError(f"an empty array of shape {array.shape}")
    return Image.fromarray(array)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image upright and as 8-bit RGB in sRGB, whatever its mode."""
    profile = image.info.get("icc_profile")
    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        return _scaled_to_8_bit(image).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size, WHITE)
        image.paste(rgba, mask=rgba.getchannel("A"))
    if profile and image.mode in ("RGB", "CMYK", "L"):
        image = _to_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says; leave it where that record is broken."""
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError):
        return image  # viewers show such a picture as it is stored, and so do we


def _scaled_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or floating grey to 8 bits; Pillow's convert would clip at 255 (all white)."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError("pixels that are no numbers")
    top = 65535.0 if image.mode.startswith("I") and values.max() > 255 else 255.0 if values.max() > 1 else 1.0
    return Image.fromarray((values / max(top, values.max()) * 255).round().clip(0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert to sRGB from the picture's own colour profile; a broken profile counts as none, as browsers do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


def _bounded(image: Image.Image, longest_side: int | None) -> Image.Image:
    """Reduce an image so that its longest side is at most `longest_side` pixels; never enlarge."""
    if longest_side is None or max(image.size) <= longest_side:
        return image
    scale = longest_side / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def extension(data: bytes) -> str:
    """
    Return the file extension that belongs to the real format of `data`, "bin" where it is no known picture.

    >>> extension(b"<html>")
    'bin'
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return EXTENSIONS.get(image.format, image.format.lower())
    except Exception:  # Pillow's parsers raise what they like on hostile bytes; any of it means "unknown"
        return "bin"


def jpeg_bytes(image: Image.Image, *, quality: int = JPEG_QUALITY) -> bytes:
    """Return an RGB image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def is_training_copy(data: bytes) -> bool:
    """
    Return whether `data` is what a training copy is: a whole RGB JPEG, stored upright, of at most 512 pixels.

    >>> is_training_copy(b"<html>")
    False
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.load()
            upright = image.getexif().get(0x0112, 1) == 1
            return upright and image.mode == "RGB" and max(image.size) <= LONGEST_SIDE
    except Exception:  # Pillow's parsers raise what they like; any of it means no
        return False


def squish_and_crop(image: Image.Image, size: int, *, extra: int) -> Image.Image:
    """
    Bring an RGB image to the model's size: squish to (size + extra)², then cut the middle size².

    The same as fastai's ``RandomResizedCrop`` does at validation, so that training, evaluation and use agree.
    """
    larger = size + extra
    edge = extra // 2
    return image.resize((larger, larger), Image.Resampling.BILINEAR).crop((edge, edge, edge + size, edge + size))


def thumbnail(picture, side: int = 128) -> Image.Image:
    """Return a small copy of a picture, or a grey card with the reason where it cannot be read."""
    try:
        return open_picture(picture, longest_side=side)
    except (PictureError, OSError) as error:
        card = Image.new("RGB", (side, side), (200, 200, 200))
        ImageDraw.Draw(card).multiline_text((6, 6), _wrapped(str(error), side // 7), fill=(60, 60, 60))
        return card


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines of at most `width` characters."""
    return "\n".join(text[i : i + width] for i in range(0, len(text), max(width, 1)))


def contact_sheet(
    pictures: Sequence, captions: Iterable[str] = (), *, columns: int = 8, side: int = 112
) -> Image.Image:
    """
    Return one image of N pictures in a grid, each with an optional caption below it.

    Parameters
    ----------
    pictures : sequence of N pictures, as `open_picture` takes them
        One that cannot be read stands as a grey card with the reason.
    captions : iterable of up to N texts
    columns : int
        Pictures a row.
    side : int
        Pixels of a picture's longest side.
    """
    captions = list(captions)
    text_height = 16 if captions else 0
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    gap = 6
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + text_height + gap) + gap), WHITE)
    draw = ImageDraw.Draw(sheet)
    for n, picture in enumerate(pictures):
        small = thumbnail(picture, side)
        left = gap + (n % columns) * (side + gap)
        top = gap + (n // columns) * (side + text_height + gap)
        sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
        if n < len(captions):
            draw.text((left, top + side + 1), captions[n][: side // 7], fill=(40, 40, 40), font_size=11)
    return sheet
