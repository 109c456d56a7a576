"""
The shortcut alarm: can the files alone, without what they show, tell the labels?

Reads images/, raw/, pictures.csv and sources.csv, for stage 05. If all pictures of one label come from one site, or
stand on white, a network learns the site or the white and fails elsewhere, while its figures here look well. So a
small decision tree is given nothing but facts of the files. What it gets right, a network could get right without
looking at the animal (Torralba and Efros 2011; Geirhos et al. 2020).
"""

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_predict, permutation_test_score
from sklearn.tree import DecisionTreeClassifier

from utils.addresses import web_host
from utils.intervals import LEVEL, wilson
from utils.project import Project
from utils.tables import PICTURES_COLUMNS, SOURCES_COLUMNS, TAKEN, each_row

PERMUTATIONS = 200
FOLDS = 5
MOST = 2000  # pictures that are looked at: more would tell the same, later
HOSTS = 20  # the most frequent ones have a column each
REDUCED = 64  # pixels, the least that JPEG's own reduction may leave of the longest side: enough for a border's colour
EDGE = 0.06  # of the shorter side: what counts as border
WEAK = 0.1  # better than guessing by less than this share is a trace, not an alarm
ADVICE = {
    "file size": "are one label's files from another camera, or compressed by another site?",
    "picture size": "does one label come in other sizes than the rest?",
    "aspect": "is one label cropped, or taken upright?",
    "border colour": "has one label a frame, a plain ground, or another surrounding than the rest?",
    "source": "does one label come from sites of its own? Gather each label from several.",
}


def find_shortcuts(project: Project) -> dict:
    """
    Return how well the facts of the files alone tell the labels of the train and valid sides.

    Returns
    -------
    dict
        ``accuracy``: a figure, over five folds, near-duplicates counted once; ``majority``: the share of the most frequent
        label; ``p``: how often as much comes about with labels dealt out anew, of 200 times; ``facts``: the accuracy by
        each fact alone; ``strongest``: the fact that tells most. Where there is too little to ask, accuracy's value is
        None and its "why" says so.
    """
    ids, labels = _sampled(project)
    smallest = min(Counter(labels).values(), default=0)
    if len(set(labels)) < 2 or smallest < 2:
        return {"accuracy": wilson(0, 0, why="too few pictures to look for shortcuts"), "facts": {}}
    facts = file_facts(project, ids)
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=project.seed)
    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, random_state=project.seed)
    everything = np.hstack(list(facts.values()))
    hits = {name: cross_val_predict(tree, table, labels, cv=folds) == labels for name, table in facts.items()}
    together = cross_val_predict(tree, everything, labels, cv=folds) == labels
    _, _, p = permutation_test_score(
        tree, everything, labels, cv=folds, n_permutations=PERMUTATIONS, random_state=project.seed
    )
    figures = {name: wilson(int(right.sum()), len(right)) for name, right in hits.items()}
    return {
        "accuracy": wilson(int(together.sum()), len(together)),
        "majority": round(max(Counter(labels).values()) / len(labels), 6),
        "p": round(float(p), 6),
        "facts": figures,
        "strongest": max(figures, key=lambda name: figures[name]["value"]),  # the first of equals
    }


def shortcut_line(found: Mapping) -> str:
    """Return in one line what `find_shortcuts` found, and where to look if it found something."""
    accuracy = found["accuracy"]
    if accuracy["value"] is None:
        return f"No shortcut was looked for: {accuracy['why']}."
    strongest = found["strongest"]
    told = (
        f"File facts alone tell the labels in {accuracy['value']:.0%} (95 % interval {accuracy['low']:.0%} to "
        f"{accuracy['high']:.0%}, n = {accuracy['n']}; always naming the most frequent label: {found['majority']:.0%}, "
        f"p = {found['p']:.2g})"
    )
    if found["p"] >= 1 - LEVEL or accuracy["value"] <= found["majority"]:
        return f"No shortcut found. {told}."
    share = found["facts"][strongest]["value"]
    where = f"most by {strongest}, alone {share:.0%}: {ADVICE[strongest]}"
    if accuracy["value"] - found["majority"] < WEAK:
        return f"Hardly a shortcut. {told}, {where}"
    return f"Shortcut! {told}, {where}"


def _sampled(project: Project) -> tuple[list[str], np.ndarray]:
    """Return ids and labels of the train and valid sides, one of each group of near-duplicates, at most MOST."""
    split, pictures = project.split(), project.pictures()
    first: dict[str, str] = {}  # group → its first id; pictures() is sorted
    for id in pictures:
        if id in split and split[id][1] != "test":
            first.setdefault(split[id][0], id)
    drawn = sorted(first.values(), key=lambda id: hashlib.sha256(f"{project.seed}:{id}".encode()).digest())[:MOST]
    labels = {id: pictures[id].parent.name for id in drawn}
    counts = Counter(labels.values())
    if any(count >= FOLDS for count in counts.values()):  # a label of few pictures is left out, not all of them
        labels = {id: label for id, label in labels.items() if counts[label] >= FOLDS}
    ids = sorted(labels)
    return ids, np.array([labels[id] for id in ids])


def file_facts(project: Project, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """
    Return what is known of N files without looking at the middle of the picture, a table (N, F) for each fact.

    Size, aspect and source are those of the original; an unknown number is NaN. The border's colour, in the mean, and
    how even it is are those of the training copy. A fact of which nothing is known is left out.
    """
    sizes = {row["id"]: (row["width"], row["height"]) for row in each_row(project.table("pictures"), PICTURES_COLUMNS)}
    bytes_of = raw_sizes(project, ids)
    pictures = project.pictures()
    dimensions = np.array([[_number(text) for text in sizes.get(id, ("", ""))] for id in ids]).reshape(-1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(dimensions)
        facts = {
            "file size": np.log(np.array([[bytes_of.get(id, math.nan)] for id in ids], dtype=float)),
            "picture size": logs.sum(1, keepdims=True),
            "aspect": logs[:, :1] - logs[:, 1:],
            "border colour": np.array([border_colour(pictures[id]) for id in ids]),
            "source": _host_columns(project, ids),
        }
    facts = {name: np.where(np.isfinite(table), table, np.nan) for name, table in facts.items()}
    return {name: table for name, table in facts.items() if table.shape[1] and not np.isnan(table).all()}


def _number(text: str) -> float:
    """Return a number from a table that hands may have edited; NaN where it is none above 0."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if 0 < number < math.inf else math.nan


def raw_sizes(project: Project, ids: Iterable[str]) -> dict[str, int]:
    """Return id → bytes of the originals; a picture that was moved since lies under its first label."""
    wanted = set(ids)
    files = sorted(path for path in project.raw.glob("*/*") if path.stem in wanted and path.is_file())
    return {path.stem: path.stat().st_size for path in files}


def border_colour(path: Path) -> list[float]:
    """
    Return the mean red, green and blue of a picture's border and how much it varies, 0–255; NaN where it won't open.

    A training copy needs no honest opening: it is upright RGB. JPEG's own reduction gives an eighth of it in a tenth of
    the time, which is enough for a mean.
    """
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("JPEG",)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image.draft("RGB", (REDUCED, REDUCED))
            pixels = np.asarray(image.convert("RGB"), dtype=float)  # (H, W, 3)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return [math.nan] * 4
    edge = max(1, round(EDGE * min(pixels.shape[:2])))
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[edge:-edge, edge:-edge] = True
    border = pixels[~inner]
    return [*border.mean(0), border.std(0).mean()]


def _host_columns(project: Project, ids: Sequence[str]) -> np.ndarray:
    """Return for N pictures which of the most frequent hosts they are from, as 0 and 1; no column for a single host."""
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
