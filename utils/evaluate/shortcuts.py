"""
The shortcut alarm: can the files alone, without what they show, tell the labels?

Reads images/, raw/, pictures.csv and sources.csv, for stage 05. Suppose that all pictures of one label come from one
site, or have a white ground. A network then learns the site or the white: its figures here look good, and it fails
elsewhere. So a small decision tree sees only facts of the files. What it gets right, a network could get right without
looking at the animal (Torralba and Efros 2011; Geirhos et al. 2020).
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_predict, permutation_test_score
from sklearn.tree import DecisionTreeClassifier

from utils.addresses import web_host
from utils.dataset import Dataset, seeded_rank
from utils.intervals import LEVEL, wilson
from utils.project import Project
from utils.tables import PICTURES_COLUMNS, SOURCES_COLUMNS, TAKEN, each_row
from utils.words import counted, percent, rounded

PERMUTATIONS = 200
TREE_FOLDS = 5
MOST = 2000  # pictures that are looked at: more would tell the same, later
HOSTS = 20  # the most frequent ones have a column each
REDUCED = 64  # pixels, the least that JPEG's own reduction may leave of the longest side: enough for a border's colour
EDGE = 0.06  # of the shorter side: what counts as border
WEAK = 0.1  # better than guessing by less than this share is a trace, not an alarm
WHERE_TO_LOOK = {
    "file size": "are one label's files from another camera, or compressed by another site?",
    "picture size": "does one label come in other sizes than the rest?",
    "aspect": "is one label cropped, or taken upright?",
    "border colour": "has one label a frame, a plain ground, or another surrounding than the rest?",
    "source": "does one label come from sites of its own? Gather each label from several.",
}


def find_shortcuts(dataset: Dataset) -> dict:
    """
    Return how well the facts of the files alone tell the labels of the training and validation sets.

    The dict holds ``accuracy``: a figure, over five folds, near-duplicates counted once; ``majority``: the share of the
    most frequent label; ``p``: how often labels dealt out anew, 200 times, give as much; ``facts``: the accuracy by
    each fact alone; ``strongest``: the fact that tells most. With too few pictures, accuracy has no value and says why.
    """
    sample, seed = sampled(dataset, most=MOST), dataset.project.seed
    labels, counts = np.array(sample.labels), Counter(sample.labels)
    smallest = min(counts.values(), default=0)
    if len(counts) < 2 or smallest < 2:
        return {"accuracy": wilson(0, 0, why="too few pictures to look for shortcuts"), "facts": {}}
    facts = file_facts(sample)
    folds = StratifiedKFold(min(TREE_FOLDS, smallest), shuffle=True, random_state=seed)
    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, random_state=seed)
    everything = np.hstack(list(facts.values()))
    hits = {name: cross_val_predict(tree, table, labels, cv=folds) == labels for name, table in facts.items()}
    together = cross_val_predict(tree, everything, labels, cv=folds) == labels
    shuffles = {"n_permutations": PERMUTATIONS, "random_state": seed}
    _, _, p = permutation_test_score(tree, everything, labels, cv=folds, **shuffles)
    figures = {name: wilson(int(right.sum()), len(right)) for name, right in hits.items()}
    return {
        "accuracy": wilson(int(together.sum()), len(together)),
        "majority": round(max(counts.values()) / len(labels), 6),
        "p": round(float(p), 6),
        "facts": figures,
        "strongest": max(figures, key=lambda name: figures[name]["value"]),  # the first of equals
    }


def shortcut_line(found: Mapping) -> str:
    """Return in one line what `find_shortcuts` found, and where to look if it found something."""
    accuracy = found["accuracy"]
    if accuracy["value"] is None:
        return f"No shortcut was looked for: {accuracy['why']}."
    told = (
        f"File facts alone give the right label for {percent(accuracy, digits=0)} of {counted(accuracy['n'])}; "
        f"always naming the most frequent label: {rounded(found['majority'])}, p = {found['p']:.2g}"
    )
    gain = accuracy["value"] - found["majority"]
    if found["p"] >= 1 - LEVEL or gain <= 0:
        return f"No shortcut found. {told}."
    strongest = found["strongest"]
    alone = rounded(found["facts"][strongest]["value"])
    alarm = "Hardly a shortcut." if gain < WEAK else "Shortcut!"
    return f"{alarm} {told}. Most by {strongest}, alone {alone}: {WHERE_TO_LOOK[strongest]}"


def sampled(dataset: Dataset, *, most: int) -> Dataset:
    """Return at most `most` pictures of the training and validation sets, one per group of near-duplicates."""
    first: dict[str, str] = {}  # group → its first id
    for picture in dataset.on("train", "valid"):
        first.setdefault(picture.group, picture.id)
    seed = dataset.project.seed
    drawn = sorted(first.values(), key=lambda id: seeded_rank(seed, id))[:most]
    counts = Counter(dataset[id].label for id in drawn)
    # If some labels are large enough, the small ones are left out; else nothing is, and the caller decides.
    least = TREE_FOLDS if max(counts.values(), default=0) >= TREE_FOLDS else 0
    chosen = {id for id in drawn if counts[dataset[id].label] >= least}
    return dataset.where(lambda picture: picture.id in chosen)


def file_facts(dataset: Dataset) -> dict[str, np.ndarray]:
    """
    Return what is known of N files without looking at the middle of the picture: a table (N, F) per fact.

    Size, aspect and source are those of the original; an unknown number is NaN. The border's mean colour, and how even
    it is, are those of the training copy. A fact of which nothing is known is left out.
    """
    project, ids = dataset.project, list(dataset.ids)
    sizes = {row["id"]: (row["width"], row["height"]) for row in each_row(project.table("pictures"), PICTURES_COLUMNS)}
    originals = {path.stem: path for path in sorted(project.raw.glob("*/*"), reverse=True) if path.stem in dataset}
    bytes_of = [originals[id].stat().st_size if id in originals else np.nan for id in ids]
    # Hands may have edited the table: what is not a number above 0 is unknown.
    shapes = pd.DataFrame([sizes.get(id, ("", "")) for id in ids]).apply(pd.to_numeric, errors="coerce")
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(shapes.to_numpy(dtype=float))
        facts = {
            "file size": np.log(np.array(bytes_of)[:, None]),
            "picture size": logs.sum(1, keepdims=True),
            "aspect": logs[:, :1] - logs[:, 1:],
            "border colour": np.array([border_colour(path) for path in dataset.paths]),
            "source": _host_columns(project, ids),
        }
    facts = {name: np.where(np.isfinite(table), table, np.nan) for name, table in facts.items()}
    return {name: table for name, table in facts.items() if table.shape[1] and not np.isnan(table).all()}


def border_colour(path: Path) -> list[float]:
    """Return the mean red, green and blue of a picture's border and how much it varies, 0–255; NaN if unreadable."""
    pixels = colours_of(path, reduced=REDUCED)
    if pixels is None:
        return [np.nan] * 4
    edge = max(1, round(EDGE * min(pixels.shape[:2])))
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[edge:-edge, edge:-edge] = True
    border = pixels[~inner].astype(float)
    return [*border.mean(0), border.std(0).mean()]


def colours_of(path: Path, *, reduced: int | None = None) -> np.ndarray | None:
    """
    Return a training copy's pixels, uint8 (H, W, 3), reduced to no less than `reduced`; None if it does not open.

    A training copy is upright RGB already, so Pillow opens it. JPEG's own reduction gives an eighth of it in a tenth of
    the time, which is enough for a mean.
    """
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("JPEG",)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.draft("RGB", (reduced, reduced) if reduced else image.size)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _host_columns(project: Project, ids: Sequence[str]) -> np.ndarray:
    """Return which of the most frequent hosts each of N pictures is from, as 0 and 1; no column for a single host."""
    wanted = set(ids)
    hosts: dict[str, str] = {}
    for row in each_row(project.table("sources"), SOURCES_COLUMNS):
        if row["id"] in wanted and row["status"] in TAKEN:
            hosts.setdefault(row["id"], web_host(row["url"]))
    counts = Counter(hosts.get(id, "") for id in ids)
    frequent = sorted(counts, key=lambda name: (-counts[name], name))[:HOSTS]
    if len(counts) < 2:
        return np.zeros((len(ids), 0))
    return np.array([[hosts.get(id, "") == name for name in frequent] for id in ids], dtype=float)
