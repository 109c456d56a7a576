"""
Stage 01's offline source: drawn pictures of three sea creatures, some of them faulty on purpose.

The planted faults are those of pictures found on the web, each recorded in its `SamplePicture`, so that the stages
that look for faults can be measured against the truth.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from utils.drawing import draw_photo
from utils.files import FieldguideError, append_rows, content_id, each_row, locked, read_rows
from utils.pictures import jpeg_bytes
from utils.project import REJECTED_COLUMNS, SOURCES_COLUMNS, Project

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


# --- Which picture is filed where, and with which fault --------------------------------------------------------------


def sample_pictures(labels: Iterable[str], *, per_label: int = 80, seed: int = 42) -> Iterator[SamplePicture]:
    """
    Draw the sample, one picture at a time, in a fixed order.

    A picture without fault depends on seed and name alone: other labels, or their order, do not change a byte of it.

    Parameters
    ----------
    labels : iterable of names out of `LABELS`
    per_label : int
        Good pictures a label, at least 1. The faults of `SHARES` scale with it; from 10 on each kind occurs.
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
        raise FieldguideError(f"per_label is {per_label}. Ask for at least 1 picture a label.")
    return _pictures(labels, per_label, seed)


def _pictures(labels, per_label, seed):
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
    """What each good picture shows: its label, but for the wrong ones, spread evenly over the labels."""
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
    """The faults that come on top, dealt round to the labels like cards."""
    extras = {label: [] for label in labels}
    deck = [fault for fault in SHARES if fault != "wrong label" for _ in range(_count(fault, labels, per_label))]
    for i, fault in enumerate(deck):
        extras[labels[i % len(labels)]].append(fault)
    return extras


def _count(fault, labels, per_label):
    """How many pictures have this fault, over all labels."""
    if len(labels) < 2 and fault in ("wrong label", "copy under another label"):
        return 0
    count = round(SHARES[fault] * per_label * len(labels))
    if fault == "empty":
        count = min(count, len(labels))  # all empty files are equal: two under one label would be copies
    return max(count, 1) if per_label >= 10 and fault != "wrong label" else count


def _extra(name, label, fault, labels, clean, seed):
    """A broken file or a copy."""
    rng = _rng(seed, fault, name)
    if fault in BROKEN:
        return SamplePicture(name, label, "", fault, _broken(fault, rng, lambda: _photo(seed, label, name)))
    source = labels[labels.index(label) - 1] if fault == "copy under another label" else label
    of = clean[source].pop()
    data = _photo(seed, source, of)
    return SamplePicture(name, label, source, fault, _near_copy(data, rng) if fault == "near-copy" else data, of)


def _broken(kind, rng, photo):
    """Bytes as failed downloads leave them."""
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


def _near_copy(data, rng):
    """The same photograph as another site shows it: cropped a little, smaller, brighter or darker, compressed anew."""
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
    """The JPEG of one creature: depends on these three alone."""
    return draw_photo(_rng(seed, label, name), label)


def _digest(*parts):
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()


def _rng(*parts):
    """A generator of its own for each purpose: no draw disturbs another."""
    return np.random.default_rng(int.from_bytes(_digest(*parts)[:16], "big"))


# --- The truth, kept beside the pictures, and what the stages found of it --------------------------------------------

TRUTH_COLUMNS = ("url", "id", "label", "true_label", "fault", "of")  # of: a copy's original, by its url
SET_ASIDE = (*BROKEN, "exact copy", "copy under another label")  # the faults that 02 should catch


def write_truth(project: Project, pictures: Iterable[SamplePicture]) -> None:
    """Add to truth.csv what each drawn picture shows, and which fault was planted in it; what is there stays."""
    pictures = list(pictures)
    urls = {p.name: p.url for p in pictures}
    rows = [
        {"url": p.url, "id": content_id(p.data), "label": p.label}
        | {"true_label": p.true_label, "fault": p.fault, "of": urls.get(p.of, "")}
        for p in pictures
    ]
    with locked(project.data):
        known = {row["url"] for row in read_rows(project.table("truth"), TRUTH_COLUMNS)}
        append_rows(project.table("truth"), TRUTH_COLUMNS, [row for row in rows if row["url"] not in known])


def read_truth(project: Project) -> pd.DataFrame:
    """Return truth.csv; empty for pictures that were not drawn."""
    return pd.DataFrame(read_rows(project.table("truth"), TRUTH_COLUMNS), columns=list(TRUTH_COLUMNS))


def faults_caught(project: Project) -> pd.DataFrame:
    """Return, for each planted fault that 02 should catch, how many were planted and how many caught."""
    truth = read_truth(project)
    truth = truth[truth.fault.isin(SET_ASIDE)]
    rejected = each_row(project.table("rejected"), REJECTED_COLUMNS)
    aside = {(row["id"], row["label"]) for row in rejected}
    sources = each_row(project.table("sources"), SOURCES_COLUMNS)
    copies = {row["url"] for row in sources if row["status"] == "copy"}
    caught = [(row.id, row.label) in aside or row.url in copies for row in truth.itertuples()]
    table = pd.DataFrame({"fault": truth.fault, "planted": 1, "caught": caught}).groupby("fault", sort=True).sum()
    if len(table):
        table.loc["all"] = table.sum()
    return table


def near_copies_together(project: Project, groups: Mapping[str, str]) -> pd.DataFrame:
    """Return how many planted near-copies share a group (id → group) with their original."""
    truth = read_truth(project)
    ids = dict(zip(truth.url, truth.id, strict=True))
    pairs = [(row.id, ids.get(row.of)) for row in truth[truth.fault == "near-copy"].itertuples()]
    there = [(copy, original) for copy, original in pairs if copy in groups and original in groups]
    together = sum(groups[copy] == groups[original] for copy, original in there)
    counts = {"planted": len(pairs), "both in the training set": len(there), "in one group": together}
    return pd.DataFrame([counts], index=["near-copies"]) if pairs else pd.DataFrame()


def accuracy_against_truth(project: Project, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the share of predictions (columns id, label, predicted) that agree with folder and with truth."""
    from utils.scores import wilson  # here, for drawing the sample needs no scikit-learn

    shows = {row.id: row.true_label for row in read_truth(project).itertuples()}
    drawn = predictions[predictions.id.isin(shows.keys())]
    if drawn.empty:
        return pd.DataFrame()
    groups = project.groups(drawn.id)
    hits = {
        "what the folders say": drawn.predicted == drawn.label,
        "what the pictures show": drawn.predicted == drawn.id.map(shows),
    }
    figures = {name: wilson(int(right.sum()), len(drawn), groups=groups) for name, right in hits.items()}
    table = pd.DataFrame.from_dict(figures, orient="index")[["value", "low", "high", "n"]].round(3)
    return table.rename(columns={"value": "accuracy against", "low": "95 % from", "high": "to"})


def wrong_labels_found(project: Project, suspects: Sequence[str]) -> pd.DataFrame:
    """
    Return how many of the W wrong labels stand among the first W and 2 W suspects (ids, worst first).

    A picture counts as wrong where it lies now: one that was put right since is wrong no more.
    """
    shows = {row.id: row.true_label for row in read_truth(project).itertuples()}
    lies = {id: path.parent.name for id, path in project.pictures().items()}
    wrong = {id for id in lies if shows.get(id, lies[id]) != lies[id]}
    rows = [
        {"first suspects": first, "wrong labels in all": len(wrong), "among them": len(wrong & set(suspects[:first]))}
        for first in (len(wrong), 2 * len(wrong))
        if wrong
    ]
    return pd.DataFrame(rows)
