"""
The known photos beside a model of single animals, and which of them are nearest to a photo.

Reads gallery.safetensors, which notebook 07 writes: of each known photo its id, its label, what the network makes of it
(features) and a small JPEG. The file is hostile until checked: it holds numbers alone, all sizes are bounded, and each
JPEG is decoded and written anew before anybody sees it.
"""

import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from .vetting import ModelError, in_one_line

if "." in __package__:
    from ..pictures import jpeg_bytes
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import jpeg_bytes

GALLERY = "gallery.safetensors"
GALLERY_FORM = 1
MAX_GALLERY, MAX_HEAD = 2**28, 2**22  # bytes: of the file, and of what it says of itself; ours have 30 MB and 200 kB
MAX_KNOWN = 100_000  # photos
MAX_FEATURES = 2**14  # numbers for each photo; ours have at most 4,096
MAX_THUMBNAIL = 2**16  # bytes of a JPEG
THUMBNAIL_SIDE = 160  # pixels of its longest side
BEGINS = 8  # bytes, which say how long the head is


@dataclass(frozen=True)
class Known:
    """An individual, and its known photo that is nearest to the one asked about."""

    label: str
    similarity: float  # cosine of both photos' features: 1 is the same, 0 has nothing in common
    id: str  # of the known photo
    thumbnail: bytes = field(repr=False)  # a JPEG of at most 160 pixels

    @property
    def picture(self) -> Image.Image:
        """The known photo, small."""
        return Image.open(io.BytesIO(self.thumbnail))


@dataclass(frozen=True)
class Nearest:
    """The individuals whose known photos are nearest to a photo, the nearest first; or why it could not be read."""

    individuals: tuple[Known, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Gallery:
    """M known photos."""

    labels: tuple[str, ...]  # M
    ids: tuple[str, ...]  # M
    features: np.ndarray = field(repr=False)  # float32 (M, D), each row of length 1
    jpegs: tuple[bytes, ...] = field(repr=False)  # M

    def nearest(self, features: np.ndarray, k: int) -> list[Nearest]:
        """Return for each of N rows of features (N, D) the `k` individuals with the nearest known photo."""
        if features.ndim != 2 or features.shape[1] != self.features.shape[1] or not np.isfinite(features).all():
            raise ModelError(f"the network's features do not fit {GALLERY}. Export both again with notebook 07")
        alike = unit_rows(features) @ self.features.T  # (N, M)
        return [Nearest(tuple(self._individuals(row, k))) for row in alike]

    def _individuals(self, alike: np.ndarray, k: int) -> list[Known]:
        """Return the nearest photo of each of the `k` nearest individuals, of M similarities."""
        best: dict[str, int] = {}
        for place in np.argsort(-alike, kind="stable").tolist():
            best.setdefault(self.labels[place], place)
            if len(best) == k:
                break
        return [
            Known(label, float(alike[at]), self.ids[at], clean_thumbnail(self.jpegs[at])) for label, at in best.items()
        ]


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Return features (N, D) as float32, each row divided by its length; a row of zeros stays as it is."""
    features = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def clean_thumbnail(data: bytes) -> bytes:
    """Return a small JPEG decoded and written anew, or refuse anything else."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            warnings.simplefilter("ignore")
            if max(image.size) > THUMBNAIL_SIDE:
                raise ValueError(f"it is {image.width} × {image.height} pixels large")
            return jpeg_bytes(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise what they like on broken bytes
        raise ModelError(f"a small photo in {GALLERY} is broken ({in_one_line(error)})") from None


def read_gallery(path: Path, model: str, labels: Sequence[str]) -> Gallery:
    """Return the known photos in a file that was made for the model of this SHA-256, or say in a ModelError why not."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_GALLERY + 1)
    except OSError as error:
        raise ModelError(
            f"There are no known photos beside this model ({path}: {error.strerror or error}). Write individuals = "
            "true into the project file and export it again with notebook 07."
        ) from None
    try:
        return _checked(data, model, labels)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = in_one_line(error) if isinstance(error, ModelError) else f"it is damaged ({type(error).__name__})"
        raise ModelError(f"{path} cannot be used: {told}. Export it again with notebook 07.") from None


def _checked(data: bytes, model: str, labels: Sequence[str]) -> Gallery:
    """Return what the bytes of a gallery hold; anything unexpected raises ValueError, KeyError or the like."""
    if len(data) > MAX_GALLERY:
        raise ModelError(f"it is larger than {MAX_GALLERY // 2**20} MB")
    length = int.from_bytes(data[:BEGINS], "little")
    if length > min(MAX_HEAD, len(data)):
        raise ModelError("it is cut short, or no gallery")
    head, body = json.loads(data[BEGINS : BEGINS + length]), memoryview(data)[BEGINS + length :]
    facts = json.loads(head["__metadata__"]["gallery"])
    if facts["form"] != GALLERY_FORM:
        raise ModelError("it is of another version")
    if model not in facts["models"]:
        raise ModelError("it was made for another model")
    names, ids, ends = (facts[key] for key in ("labels", "ids", "ends"))
    if not all(isinstance(each, list) for each in (names, ids, ends)) or not len(names) == len(ids) == len(ends) > 0:
        raise ModelError("it does not say a label, an id and an end for each photo")
    if len(ids) > MAX_KNOWN or not set(names) <= set(labels) or not all(isinstance(id, str) for id in ids):
        raise ModelError("it holds too many photos, or labels that the model does not know")
    rows = _tensor(head["features"], body, "F16", 2)
    jpegs = _tensor(head["thumbnails"], body, "U8", 1)
    if rows.shape[0] != len(ids) or not 0 < rows.shape[1] <= MAX_FEATURES or not np.isfinite(rows).all():
        raise ModelError("its features are not numbers for each photo")
    starts = [0, *ends[:-1]]
    if any(type(end) is not int for end in ends) or not all(
        0 < end - start <= MAX_THUMBNAIL for start, end in zip(starts, ends, strict=True)
    ):
        raise ModelError("its small photos have no bounds, or are too large")
    if ends[-1] != len(jpegs):
        raise ModelError("its small photos end elsewhere")
    cut = tuple(jpegs[start:end].tobytes() for start, end in zip(starts, ends, strict=True))
    return Gallery(tuple(names), tuple(ids), unit_rows(rows), cut)


def _tensor(entry: dict, body: memoryview, kind: str, axes: int) -> np.ndarray:
    """Return an array of a file of safetensors, whose place and shape are checked."""
    (start, end), shape = entry["data_offsets"], entry["shape"]
    whole = [*shape, start, end]
    if entry["dtype"] != kind or len(shape) != axes or not all(type(number) is int and number >= 0 for number in whole):
        raise ModelError("its numbers are of another kind")
    dtype, count = np.dtype({"F16": "<f2", "U8": "u1"}[kind]), 1
    for side in shape:
        count *= side
    if not start <= end <= len(body) or end - start != count * dtype.itemsize:
        raise ModelError("its numbers are not where it says")
    return np.frombuffer(body[start:end], dtype).reshape(shape)
