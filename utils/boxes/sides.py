"""
2_photos, second half: which photos train the detector and which judge it; near-duplicates stay together.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from utils.boxes.photos import NO_BOX, Photos
from utils.copies import Copies, find_copies
from utils.errors import FieldguideError
from utils.split import LabelTooSmall, assign_sides, changed_settings, given_sentence, leak_warning, save_split
from utils.tables import SIDES
from utils.words import counted, listed


@dataclass(frozen=True)
class SplitPhotos:
    """The photos with their sides, what was compared, and in sentences what a person should know."""

    photos: Photos
    copies: Copies
    remarks: tuple[str, ...]


def split_photos(photos: Photos) -> SplitPhotos:
    """
    Put each photo on a side, near-duplicates together, and write split.csv; a photo never changes side.

    `valid` and `test` of the project file hold within each label (of a photo with several, the most frequent) and
    within the photos without a thing. Labels too rare for that are drawn together with the most frequent one. Raises
    FieldguideError if there are no photos, or too few for every side.
    """
    project, dataset = photos.project, photos.dataset
    if not len(photos):
        raise FieldguideError(f"There are no photos in {project.images}. Take some first: the cells above do.")
    if unknown := [id for id in dataset.ids if id not in dataset.records.hashes]:
        raise FieldguideError(
            f"{counted(len(unknown), 'photo')} put into {project.images} by hand, such as {unknown[0]}.jpg, and not "
            "yet taken in. Run this notebook again from its first cell."
        )
    strata = dict(zip(dataset.ids, dataset.labels, strict=True))
    plain = replace(
        dataset, project=project.model_copy(update={"labels": {label: [] for label in sorted(set(strata.values()))}})
    )
    copies = find_copies(plain)
    known = {id: side for id, (_, side) in dataset.split.items()}
    options = {"valid": project.valid, "test": project.test, "seed": project.seed, "known": known}
    sides, together = _drawn_sides(copies.groups, strata, options | {"given": dataset.given_sides})
    saved = save_split(plain, copies.groups, sides)
    split = replace(photos, dataset=dataset.with_split(saved.split, saved.stamp))
    added = f"Photos new in split.csv: {len(saved.split) - len(dataset.split):,}."
    told = [copies.sentence, added, together, changed_settings(project), given_sentence(split.dataset)]
    told.append(leak_warning(split.dataset, copies.links))
    return SplitPhotos(split, copies, tuple(filter(None, told)))


def _drawn_sides(groups: Mapping[str, str], strata: Mapping[str, str], options: Mapping) -> tuple[dict[str, str], str]:
    """Return id → side, and a sentence on the labels that were too rare to be drawn alone."""
    joined: list[str] = []
    while True:
        counts = Counter(strata.values())
        try:
            sides = assign_sides(groups, strata, **options)
        except LabelTooSmall:
            if len(counts) == 1:
                raise
            order = sorted(counts, key=lambda label: (counts[label], label))
            rarest, largest = order[0], order[-1]
            joined.append(rarest)
            strata = {id: largest if label == rarest else label for id, label in strata.items()}
        else:
            names = ["photos without a thing" if label == NO_BOX else label for label in joined]
            told = f"Too few for a share on every side, so drawn with the others: {listed(names)}." if names else ""
            return sides, told


def sides_table(photos: Photos) -> pd.DataFrame:
    """Return how many photos and boxes each side has: one row per label, and one for photos without a thing."""
    rows: dict[str, Counter] = {label: Counter() for label in (*photos.labels, NO_BOX)}
    for photo in photos:
        side = photo.side or "no side"
        for label in {box.label for box in photo.boxes} or {NO_BOX}:
            rows[label][f"{side}: photos"] += 1
        for box in photo.boxes:
            rows[box.label][f"{side}: boxes"] += 1
    columns = [f"{side}: {what}" for side in (*SIDES, "no side") for what in ("photos", "boxes")]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=None).reindex(columns=columns).fillna(0).astype(int)
    return table.loc[(table != 0).any(axis=1), (table != 0).any()]
