"""
Near-duplicates under two labels: at most one of the two folders is right.
"""

from collections import Counter
from dataclasses import dataclass

from utils.copies import find_copies
from utils.dataset import Dataset, Picture
from utils.words import counted, listed


@dataclass(frozen=True)
class Contradictions:
    """The same picture under two labels, as often as a data set holds it."""

    pairs: list[tuple[Picture, Picture]]
    sentence: str  # how many, between which labels


def find_contradictions(dataset: Dataset) -> Contradictions:
    """Return the pairs of near-duplicates that lie in two folders, those of the same two folders together."""
    empty = sorted(set(dataset.project.labels) - set(dataset.labels))
    if empty:
        return Contradictions([], f"Near-duplicates were not compared, because {listed(empty)} has no picture yet.")
    both = [(dataset[a], dataset[b]) for a, b in find_copies(dataset).same]
    both = [tuple(sorted(pair, key=lambda picture: picture.label)) for pair in both]
    pairs = sorted((pair for pair in both if pair[0].label != pair[1].label), key=_labels_then_ids)
    return Contradictions(pairs, told_contradictions(pairs, len(dataset)))


def _labels_then_ids(pair: tuple[Picture, Picture]) -> tuple[str, ...]:
    """Return what to sort pairs by."""
    return (*(picture.label for picture in pair), *(picture.id for picture in pair))


def told_contradictions(pairs: list[tuple[Picture, Picture]], count: int) -> str:
    """Return how many of `count` pictures contradict each other, and under which labels."""
    if not pairs:
        return "No picture and its near-duplicate lie in two folders."
    told = Counter(tuple(picture.label for picture in pair) for pair in pairs)
    between = "; ".join(f"{number:,} in {listed(labels)}" for labels, number in told.most_common(5))
    more = f"; and {len(told) - 5} more pairs of labels" if len(told) > 5 else ""
    pictures = len({picture.id for pair in pairs for picture in pair})
    return (
        f"{pictures:,} of {counted(count)} contradict each other. Near-duplicates under two labels: "
        f"{counted(len(pairs), 'pair')} ({between}{more})."
    )
