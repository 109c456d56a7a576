"""
Near-duplicates under several labels: at most one of the folders is right.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from utils.copies import same_photos
from utils.dataset import Dataset, Picture
from utils.words import counted, listed

LISTED = 5  # sets of labels in the sentence


@dataclass(frozen=True)
class Contradictions:
    """The photos of a data set that lie under several labels, saved anew."""

    photos: list[list[Picture]]  # the versions of each; those of the same labels stand together
    sentence: str  # how many, under which labels


def find_contradictions(dataset: Dataset) -> Contradictions:
    """Return the photos of which versions lie in several folders; none are compared while a label has no picture."""
    if empty := sorted(set(dataset.project.labels) - set(dataset.labels)):
        return Contradictions([], f"Near-duplicates were not compared: there is no picture yet of {listed(empty)}.")
    versions: dict[str, list[Picture]] = defaultdict(list)
    photos = same_photos(dataset)
    for picture in dataset:
        versions[photos[picture.id]].append(picture)
    several = [sorted(same, key=lambda picture: (picture.label, picture.id)) for same in versions.values()]
    several = [same for same in several if len(labels_among(same)) > 1]
    several.sort(key=lambda same: (labels_among(same), same[0].id))
    return Contradictions(several, told_contradictions(several, len(dataset)))


def labels_among(pictures: list[Picture]) -> tuple[str, ...]:
    """Return the different labels of pictures, sorted."""
    return tuple(sorted({picture.label for picture in pictures}))


def told_contradictions(photos: list[list[Picture]], count: int) -> str:
    """Return how many of `count` pictures contradict each other, and under which labels."""
    if not photos:
        return "No photo lies in two folders, saved anew."
    told = Counter(map(labels_among, photos)).most_common()
    under = [f"{number:,} under {listed(labels)}" for labels, number in told[:LISTED]]
    more = f"; and {sum(number for _, number in told[LISTED:]):,} under others" if len(told) > LISTED else ""
    return (
        f"{sum(map(len, photos)):,} of {counted(count)} contradict each other: versions of "
        f"{counted(len(photos), 'photo')} lie in several folders ({'; '.join(under)}{more})."
    )
