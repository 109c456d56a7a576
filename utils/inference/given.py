"""
Stage 08: what a program may hand over as a picture, made into what `open_picture` takes.

Kinds are told by what they can do, so that neither torch nor pandas nor a library for web pages is imported for them.
"""

import base64
import binascii
import inspect
import io
import os
import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

if "." in __package__:
    from ..pictures import LARGEST_OWN_FILE, PictureError, refuse_size, shortened
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import LARGEST_OWN_FILE, PictureError, refuse_size, shortened

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # one letter and a colon is a disk of Windows
DATA_URI = re.compile("data:[^,]{0,1000},", re.IGNORECASE)
MAX_URI = 100_000_000  # letters
LONGEST_PATH = 4096  # letters, as on Linux; longer text holds a picture, or nothing
PORTION = 2**20  # bytes or letters that are taken at a time
ON_THE_WEB = bytes.maketrans(b"-_", b"+/")  # what base64 writes where it may stand in an address
PER_PIXEL = (1, 3, 4)  # numbers per pixel: grey; red, green, blue; and opacity
EXPECTED = (
    'a path, the bytes of a file, a file opened with "rb", an upload, a PIL image, an array, a tensor or a data: URI'
)


def each_of(images) -> Iterable:
    """
    Return one picture as a list of it, and several as they are; refuse what is neither.

    >>> each_of("a.jpg"), each_of(["a.jpg", "b.jpg"])
    (['a.jpg'], ['a.jpg', 'b.jpg'])
    >>> each_of({"a.jpg": "ant"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    TypeError: This dict is not a picture. Give a path, ...
    """
    count = dimensions(images)
    if count is not None and count > 3:
        raise TypeError(
            f"This {type(images).__name__} of shape {tuple(images.shape)} holds many pictures. Give a list of them: "
            "list(pictures) makes one."
        )
    if count or isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)):
        return [images]
    if content_of(images) is not None or callable(getattr(images, "read", None)):
        return [images]
    table = hasattr(images, "columns")
    if count == 0 or table or isinstance(images, (Mapping, set, frozenset)) or not isinstance(images, Iterable):
        many = "a column of paths" if table else "a list of such"
        raise TypeError(f"This {type(images).__name__} is not a picture. Give {EXPECTED}, or {many}.")
    return images


def at_hand(picture):
    """Return an open file's or upload's bytes, or the exception that reading raised; any other picture as it is."""
    if isinstance(picture, (str, bytes, os.PathLike, Image.Image)):
        return picture
    try:
        content = content_of(picture)
        if content is not None:
            return bytes(content)
        return _whole(picture) if callable(getattr(picture, "read", None)) else picture
    except Exception as error:  # files and uploads raise what they like; none of it may stop the other pictures
        return error


def readable(picture, *, bgr: bool = False) -> str | os.PathLike | bytes | Image.Image | np.ndarray:
    """
    Return a picture as `open_picture` takes it, or refuse it; with `bgr`, the colours of arrays stand in that order.

    >>> readable("data:,GIF87a%00"), readable("data:image/gif;base64,R0lGODdhAA==")
    (b'GIF87a\\x00', b'GIF87a\\x00')
    >>> readable(np.array([[[0.0, 0.2, 1.0]]]), bgr=True).tolist()
    [[[255, 51, 0]]]
    """
    if isinstance(picture, Exception):  # of `at_hand`
        raise picture
    if isinstance(picture, str):
        return _from_text(picture)
    if isinstance(picture, (bytes, os.PathLike, Image.Image)):
        return picture
    if isinstance(picture, (bytearray, memoryview)):
        return bytes(picture)
    if dimensions(picture) is None:
        raise PictureError(f"this {type(picture).__name__} is not a picture; give {EXPECTED}")
    return _as_levels(_from_tensor(picture) if is_tensor(picture) else np.asarray(picture), bgr=bgr)


def reason(error: Exception) -> str:
    """Return why a picture could not be read; of a path that was given, about 100 letters."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{shortened(str(error.filename))}: {error.strerror}"
    return str(error) or type(error).__name__


def is_path(picture) -> bool:
    """Return whether a picture is a path, and so takes no memory until it is opened."""
    return isinstance(picture, os.PathLike) or (isinstance(picture, str) and len(picture) <= LONGEST_PATH)


def file_state(picture) -> tuple[int, ...] | None:
    """Return numbers that change when the file at a path is written to; None for a picture in memory, and no file."""
    try:
        status = os.stat(picture) if is_path(picture) else None  # noqa: PTH116 (a str may be anything)
    except (OSError, ValueError):
        return None
    return status and (status.st_ino, status.st_size, status.st_mtime_ns)


def is_tensor(value) -> bool:
    """Return whether a value is a tensor of torch, or of a class made from it."""
    return any(each.__name__ == "Tensor" and each.__module__.split(".")[0] == "torch" for each in type(value).__mro__)


def dimensions(value) -> int | None:
    """Return how many dimensions an array of numbers or a tensor has; None for anything else, such as a table."""
    if isinstance(value, np.ndarray):
        return value.ndim if value.dtype.kind in "biufc" else None
    if is_tensor(value):
        return value.ndim
    shape = getattr(value, "shape", ())
    return len(shape) if hasattr(value, "__array__") and not hasattr(value, "columns") and len(shape) > 1 else None


def content_of(value) -> bytes | bytearray | memoryview | None:
    """Return what an upload holds that brings its bytes along, as ipywidgets' do; None for anything else."""
    content = value.get("content") if isinstance(value, Mapping) else getattr(value, "content", None)
    return content if isinstance(content, (bytes, bytearray, memoryview)) else None


def _whole(file) -> bytes:
    """Return all bytes of an open file or upload, which is left where it was; only the rest where it cannot go back."""
    if inspect.iscoroutinefunction(file.read):
        raise PictureError(f"this {type(file).__name__} must be awaited; give the bytes that its read() returns")
    if isinstance(file, io.TextIOBase):
        raise PictureError('this file was opened as text; open it with "rb"')
    place = None
    try:
        where = file.tell()
        file.seek(0)
        place = where
    except (AttributeError, OSError):  # as a pipe, or what comes from the web
        pass
    try:
        return _read_on(file)
    finally:
        if place is not None:
            file.seek(place)


def _read_on(file) -> bytes:
    """Return the bytes from a file's place to its end, or refuse text and what has no end."""
    in_parts = isinstance(file, io.IOBase)  # which may give less than it was asked for, until it gives nothing
    data, part = bytearray(), b"more"
    while part and len(data) <= LARGEST_OWN_FILE:
        try:
            part = file.read(PORTION if in_parts else LARGEST_OWN_FILE + 1)
        except TypeError:  # this upload takes no size
            part, in_parts = file.read(), False
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise PictureError(f"this {type(file).__name__} gives {type(part).__name__} where bytes were expected")
        data += part
        if not in_parts:
            break
    if len(data) > LARGEST_OWN_FILE:
        raise PictureError(f"an open file of more than {LARGEST_OWN_FILE // 1_000_000} million bytes")
    return bytes(data)


def _from_text(text: str) -> str | bytes:
    """Return a path as it is, and the bytes in a ``data:`` URI; refuse an address, and text too long for a path."""
    if DATA_URI.match(text):
        return _from_uri(text)
    if ADDRESS.match(text):
        raise PictureError(f"{shortened(text)} is an address, not a file; download the picture first")
    if len(text) > LONGEST_PATH:
        raise PictureError(f"{shortened(text)} has {len(text)} letters and is no path; decode it, and give the bytes")
    return text


def _from_uri(uri: str) -> bytes:
    """Return the bytes in a ``data:`` URI, in base64 or with %-signs; what it says of their kind does not count."""
    if len(uri) > MAX_URI:
        raise PictureError(f"a data: URI of {len(uri)} letters, more than {MAX_URI // 1_000_000} million; give bytes")
    head, _, body = uri.partition(",")
    data, at = bytearray(), 0
    while at < len(body):  # in parts: unquoting takes a hundred times the memory
        end = at + PORTION
        cut = body.rfind("%", end - 2, end) if end < len(body) else -1
        end = end if cut < 0 else cut
        data += unquote_to_bytes(body[at:end])
        at = end
    if not head.lower().rstrip().endswith(";base64"):
        return bytes(data)
    data = data.translate(ON_THE_WEB, b" \t\r\n\f")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error as error:
        raise PictureError(f"a data: URI whose base64 is damaged ({error})") from error


def _from_tensor(tensor) -> np.ndarray:
    """Return a tensor as an array with its colours last; refuse one that could have them first or last."""
    if tensor.ndim == 3 and tensor.shape[0] in PER_PIXEL:
        if tensor.shape[2] in PER_PIXEL:
            raise PictureError(
                f"a tensor of shape {tuple(tensor.shape)}: its colours may be its first or its last dimension; give an "
                "array with the colours last: tensor.numpy(), or tensor.permute(1, 2, 0).numpy()"
            )
        tensor = tensor.permute(1, 2, 0)
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16


def _as_levels(array: np.ndarray, *, bgr: bool) -> np.ndarray:
    """Return an array with fractions made into levels of 0 to 255, and with its colours in the order RGB."""
    if array.ndim not in (2, 3):
        raise PictureError(f"an array of shape {array.shape}; a picture has two dimensions, or three with its colours")
    refuse_size(array.shape[1], array.shape[0])
    if array.dtype.kind == "f" and array.size:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also where one is NaN
            raise PictureError(
                f"an array of {array.dtype} from {low:.4g} to {high:.4g}; give fractions from 0 to 1, or uint8"
            )
        array = (array * 255).round().astype(np.uint8)
    if bgr and array.ndim == 3 and array.shape[2] in (3, 4):
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return array
