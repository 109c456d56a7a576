"""
Drawn pictures of three sea creatures, some of them faulty on purpose.

The planted faults are those of pictures found on the web. Each `SamplePicture` records its own, so that the stages
which look for faults can be measured against the truth.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance

from sample.drawing import draw_outline, draw_photo
from utils.download import Gathered
from utils.errors import FieldguideError
from utils.pictures import jpeg_bytes
from utils.settling import SAMPLE
from utils.storage import content_id

LABELS = ("penaeus monodon", "sea cucumber", "tilapia")
BROKEN = ("empty", "truncated", "html", "not a picture", "tiny", "flat")
FAULTS = ("wrong label", *BROKEN, "exact copy", "copy under another label", "near-copy")
# Fractions of the good pictures. Wrong labels replace good pictures' labels; the others come on top.
SHARES = {"wrong label": 0.06, **dict.fromkeys(BROKEN, 1 / 120)}
SHARES |= {"exact copy": 1 / 60, "copy under another label": 1 / 120, "near-copy": 1 / 30}


@dataclass(frozen=True)
class SamplePicture:
    """One file of the sample and the truth about it."""

    name: str  # stable, such as "tilapia/017.jpg"
    label: str  # what it is filed under
    true_label: str  # what it shows; "" for a broken file
    fault: str  # "" or one of FAULTS
    data: bytes  # the file
    of: str = ""  # for a copy, its original's name

    @property
    def url(self) -> str:
        """
        What stands for the picture in the tables: its name and its content.

        With another seed or number of pictures a name may hold another picture, and that must count as a new one.
        """
        return f"sample:{self.name}#{content_id(self.data)}"


def sample_pictures(labels: Iterable[str], *, per_label: int = 80, seed: int = 42) -> Iterator[SamplePicture]:
    """
    Draw the sample, one picture at a time, in a fixed order.

    A picture without a fault depends on its seed and name alone. Other labels, or their order, change no byte of it.

    Parameters
    ----------
    labels : iterable of names out of `LABELS`
    per_label : int
        Good pictures per label, at least 1. The number of faults grows with it; from 10 on each kind occurs.
    seed : int

    Raises
    ------
    FieldguideError
        A ValueError, if a label cannot be drawn, or `per_label` is below 1.

    Examples
    --------
    >>> first = next(sample_pictures(["tilapia"], per_label=1))
    >>> first.name, first.true_label, first.fault
    ('tilapia/000.jpg', 'tilapia', '')
    """
    labels = sorted(set(labels))
    if unknown := [label for label in labels if label not in LABELS]:
        known = ", ".join(map(repr, LABELS))
        raise FieldguideError(f"The sample cannot draw {unknown[0]!r}. Use labels out of {known}, or another source.")
    if per_label < 1:
        raise FieldguideError(f"per_label is {per_label}. Ask for at least 1 picture per label.")
    return _pictures(labels, per_label, seed)


def outline_of(picture: SamplePicture, *, seed: int) -> bytes | None:
    """
    Return where the creature of a picture is: a PNG, white where it is; None for a broken file or a copy.

    `seed` is the one that drew the picture.
    """
    if picture.fault not in ("", "wrong label"):
        return None
    outline = draw_outline(_rng(seed, picture.true_label, picture.name), picture.true_label)
    buffer = BytesIO()
    Image.fromarray(outline.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def gathered_sample(pictures: Iterable[SamplePicture]) -> Iterator[Gathered]:
    """Turn pictures of the sample into what `utils.download.save_pictures` takes."""
    for picture in pictures:
        told = {"engine": SAMPLE, "title": picture.name, "license": "CC0-1.0 (drawn)"}
        yield Gathered(picture.label, picture.url, picture.data, **told)


def _pictures(labels, per_label, seed):
    """Yield what `sample_pictures` promises."""
    shown = _shown(labels, per_label, seed)
    extras = _extras(labels, per_label)
    clean = {}  # label -> names without fault in seeded order: the originals of the copies, each used once
    for label in labels:
        names = [name for name in (_name(label, i) for i in range(per_label)) if shown[name] == label]
        clean[label] = sorted(names, key=lambda name: _digest(seed, "original", name))
    for label in labels:
        for name in (_name(label, i) for i in range(per_label)):
            fault = "" if shown[name] == label else "wrong label"
            yield SamplePicture(name, label, shown[name], fault, _photo(seed, shown[name], name))
        for i, fault in enumerate(extras[label], start=per_label):
            yield _extra(_name(label, i), label, fault, labels, clean, seed)


def _shown(labels, per_label, seed):
    """Return what each good picture shows: its own label, or another where the label is wrong on purpose."""
    total = _count("wrong label", labels, per_label)
    shown = {}
    for k, label in enumerate(labels):
        names = [_name(label, i) for i in range(per_label)]
        wrong = sorted(names, key=lambda name: _digest(seed, "wrong", name))
        wrong = wrong[: (k + 1) * total // len(labels) - k * total // len(labels)]
        others = [other for other in labels if other != label]
        shown |= dict.fromkeys(names, label)
        shown |= {name: others[i % len(others)] for i, name in enumerate(wrong)}
    return shown


def _extras(labels, per_label):
    """Return the faults that come on top, dealt to the labels in turn, like cards."""
    extras = {label: [] for label in labels}
    deck = [fault for fault in SHARES if fault != "wrong label" for _ in range(_count(fault, labels, per_label))]
    for i, fault in enumerate(deck):
        extras[labels[i % len(labels)]].append(fault)
    return extras


def _count(fault, labels, per_label):
    """Return how many pictures have this fault, over all labels."""
    if len(labels) < 2 and fault in ("wrong label", "copy under another label"):
        return 0
    count = round(SHARES[fault] * per_label * len(labels))
    if fault == "empty":
        count = min(count, len(labels))  # all empty files are equal: two under one label would be copies
    return max(count, 1) if per_label >= 10 and fault != "wrong label" else count


def _extra(name, label, fault, labels, clean, seed):
    """Return a broken file or a copy."""
    rng = _rng(seed, fault, name)
    if fault in BROKEN:
        return SamplePicture(name, label, "", fault, _broken(fault, rng, lambda: _photo(seed, label, name)))
    source = labels[labels.index(label) - 1] if fault == "copy under another label" else label
    of = clean[source].pop()
    data = _photo(seed, source, of)
    return SamplePicture(name, label, source, fault, _near_duplicate(data, rng) if fault == "near-copy" else data, of)


def _broken(kind, rng, photo):
    """Return bytes as failed downloads leave them."""
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    match kind:
        case "empty":
            return b""
        case "truncated":
            data = photo()
            return data[: int(len(data) * rng.uniform(0.4, 0.6))]
        case "html":
            page = f"<title>403 Forbidden</title><p>Request {rng.bytes(8).hex()} was denied.</p>"
            return f"<!DOCTYPE html><html>{page}</html>\n".encode()
        case "not a picture":
            return b"This is no picture.\n" + rng.bytes(int(rng.integers(2_000, 9_000)))
        case "tiny":
            return jpeg_bytes(Image.new("RGB", (1, 1), colour), quality=90)
        case "flat":
            return jpeg_bytes(Image.new("RGB", (int(rng.integers(200, 500)), 240), colour), quality=90)


def _near_duplicate(data, rng):
    """Return the photo as another site shows it: cropped a little, smaller, brighter or darker, compressed anew."""
    image = Image.open(BytesIO(data)).convert("RGB")
    w, h = image.size
    left, top, right, bottom = rng.uniform(0, 0.02, 4)  # together at most 4 % a side
    image = image.crop((round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom))))
    scale = rng.uniform(0.6, 0.8)
    image = image.resize((round(w * scale), round(h * scale)), Image.LANCZOS)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.94, 1.06))
    return jpeg_bytes(image, quality=int(rng.integers(60, 90)))


def _name(label, index):
    return f"{label}/{index:03d}.jpg"


def _photo(seed, label, name):
    """Return the JPEG of one creature, which depends on these three alone."""
    return draw_photo(_rng(seed, label, name), label)


def _digest(*parts):
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()


def _rng(*parts):
    """Return a generator for one purpose: no draw disturbs another."""
    return np.random.default_rng(int.from_bytes(_digest(*parts)[:16], "big"))
