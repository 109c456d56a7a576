"""
Near-duplicates, and what else must stand on one side, as groups.

Pictures share a group if they are the same one changed, if they follow each other in time or number and show one scene,
or if `group_by` says so. A scene alone joins nothing. The pictures of a fixed camera are cut into blocks instead.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from utils.copies.cameras import camera_blocks, fixed_cameras, same_frames, told_cameras
from utils.copies.chains import joined, name_groups, stars
from utils.copies.geometry import DIFFERENT, SAME_PICTURE
from utils.copies.hashes import NEAR, hash_codes, hash_neighbours
from utils.copies.neighbours import NEIGHBOURS, feature_neighbours, points_vectors
from utils.copies.points import picture_points
from utils.copies.sequences import group_keys, sequence_pairs, true_times
from utils.copies.verdicts import Verdicts
from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.features import picture_features
from utils.project import Project
from utils.storage import subfolders, visible_files
from utils.tables import REJECTED_COLUMNS, each_row
from utils.words import counted

BURST, BURST_LIKE = 2.0, 0.7  # seconds, and cosine of features, of a burst whose subject moves too fast for points
LARGE_GROUP = 20  # pictures, from which on the size is told: a side gets them all or none


@dataclass(frozen=True)
class Copies:
    """What comparing the pictures of a data set found."""

    groups: Mapping[str, str]  # id → group, also of pictures of split.csv that are absent now
    links: Sequence[tuple[str, str]]  # ids of two pictures of the data set that must stand on one side
    photos: Mapping[str, str]  # id → the photo that it is a version of, named by an id; no burst is one photo
    sentence: str  # what was compared, and what could not be


def find_copies(dataset: Dataset) -> Copies:
    """
    Compare the pictures by content, time and number, and return their groups.

    Besides the data set these are the pictures of split.csv that are absent now, in the trash or under a label that
    left the project file. They may come back to their side, so a newcomer that resembles one belongs there too.
    A group is named after its first id in split.csv, else after its smallest id, so that names last.
    """
    refuse_unready(dataset)
    keys, remark = group_keys(dataset)
    originals = files_by_id(dataset.project.raw)
    pictures = with_absent(dataset, originals)
    count, told = len(pictures), {pictures.position[id] for id in keys}
    codes = hash_codes(pictures, pictures.ids)
    points, features = picture_points(pictures, originals), picture_features(pictures)
    captured = true_times(np.array([points[n]["captured"] if n in points else np.nan for n in range(count)]))
    sequences = sequence_pairs(captured, pictures.names)
    verdicts = Verdicts(pictures, points)
    verdicts.of(sequences)
    vectors = points_vectors(points, count)

    def candidates(places: np.ndarray) -> list[np.ndarray]:
        near = [feature_neighbours(features[places]), feature_neighbours(vectors[places])]
        return [*near, hash_neighbours(codes[places], NEIGHBOURS)]

    compare(verdicts, count, candidates)

    shown = verdicts.of(sequences) != DIFFERENT
    follows = sequences[shown | _likely(sequences, captured, features, codes)]
    earlier = {id: group for id, (group, _) in dataset.split.items()}
    cameras = fixed_cameras(verdicts, pictures, captured, told, earlier)
    watched = {n for members in cameras for n in members}
    pairs, said = verdicts.known()
    one_picture = pairs[said == SAME_PICTURE]
    frames = same_frames(pictures.names, captured, cameras, one_picture)
    same, follows = without(one_picture, watched), without(follows, watched | told)
    links = {
        "near-duplicates": same,
        "pictures in sequence": follows,
        f"pictures that {'group_by' if dataset.project.group_by else 'a table'} joins": _pairs_of(keys, pictures),
    }
    versions = stars(same, count, verdicts)
    roots = joined(count, [versions, *list(links.values())[1:]])
    groups = name_groups(pictures.ids, roots, earlier)
    groups |= camera_blocks(pictures, cameras, captured, earlier, frames)

    unread = sum(pictures.position[id] not in points for id in dataset.ids)
    alone = {pictures.position[id]: groups[id] for id in dataset.ids if pictures.position[id] not in watched}
    kinds = [kind for kind, pairs in links.items() if len(pairs)]
    if len(set(alone.values())) < len({roots[n] for n in alone}):
        kinds.append("pictures that an earlier run put together")
    sentences = (
        told_groups(len(dataset) - unread, list(alone.values()), unread, kinds),
        told_cameras(pictures, cameras, captured, groups),
        remark,
    )
    together = np.unique(np.concatenate([*links.values(), frames]), axis=0)
    both = [(pictures.ids[a], pictures.ids[b]) for a, b in together.tolist()]
    both = [(a, b) for a, b in both if a in dataset and b in dataset]
    photos = name_groups(pictures.ids, joined(count, [versions, frames]), {})
    return Copies(dict(sorted(groups.items())), both, photos, " ".join(filter(None, sentences)))


def compare(verdicts: Verdicts, count: int, candidates: Callable[[np.ndarray], Sequence[np.ndarray]]) -> None:
    """
    Compare each of N pictures with its nearest, then one of each group with those of others until no groups join.

    Ten saves of one photo are each other's nearest. So the first search alone does not find the crop of that photo.
    `candidates` takes positions of pictures (M,), and returns arrays of pairs of places in these, (L, 2).
    """
    places = np.arange(count)
    while True:
        verdicts.of(places[np.unique(np.concatenate(candidates(places)), axis=0)])
        pairs, said = verdicts.known()
        before, roots = len(places), joined(count, [pairs[said == SAME_PICTURE]])
        places, sizes = np.unique(roots, return_counts=True)
        if len(places) == before or sizes.max() <= NEIGHBOURS:
            return


def refuse_unready(dataset: Dataset) -> None:
    """Refuse a data set that 02 has not seen, an empty one, and one that lacks a label."""
    project, hashes = dataset.project, dataset.records.hashes
    if unseen := [id for id in dataset.ids if id not in hashes]:
        pictures = "1 picture is" if len(unseen) == 1 else f"{counted(len(unseen))} are"
        raise FieldguideError(f"{pictures} new to 02, such as {unseen[0]}. Run 02 first.")
    if not dataset.ids:
        raise FieldguideError(f"There are no pictures in {project.images}. {_why_empty(project)}")
    if empty := sorted(set(project.labels) - set(dataset.labels)):
        raise FieldguideError(
            f"Label {empty[0]!r} has no pictures in {project.images / empty[0]}, so the model cannot learn it. Run 02 "
            "again: its first remark says why, and what to do. Or remove the label from the project file."
        )


def _why_empty(project: Project) -> str:
    """Return why 02 left nothing, or that it did not run."""
    if waiting := len(visible_files(project.unsorted)):
        return (
            f"{counted(waiting, 'photo')} in {project.unsorted} without a label: give each one its label in 02's grid."
        )
    rows = [row["reason"] for row in each_row(project.table("rejected"), REJECTED_COLUMNS) if row["stage"] == "verify"]
    if not rows:
        return "Run 01 and 02 first."
    (reason, count), *_ = Counter(rows).most_common(1)
    return (
        f"02 set all pictures aside; the most frequent reason, of {count:,}: {reason}. Gather pictures that it takes, "
        "or take some back there."
    )


def files_by_id(folder: Path, *, but: Sequence[str] = ()) -> dict[str, Path]:
    """Return id → file of the pictures straight in `folder` and in its folders, but for those named."""
    folders = [folder, *(each for each in subfolders(folder) if each.name not in but)] if folder.is_dir() else []
    return {path.stem: path for each in folders for path in visible_files(each)}


def with_absent(dataset: Dataset, originals: Mapping[str, Path]) -> Dataset:
    """Return the data set with the pictures of split.csv that are absent now, where a file of them is left."""
    absent = sorted(id for id in dataset.split if id in dataset.records.hashes and id not in dataset)
    if not absent:
        return dataset
    project = dataset.project
    files = originals | files_by_id(project.trash) | files_by_id(project.images, but=list(project.labels))
    rows = [(picture.id, picture.path, picture.label, picture.group, picture.side) for picture in dataset]
    rows += [(id, files.get(id, project.images / f"{id}.jpg"), "", *dataset.split[id]) for id in absent]
    columns = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    return replace(dataset, **dict(zip(dataset.COLUMNS, columns, strict=True)))


def without(pairs: np.ndarray, places: set[int]) -> np.ndarray:
    """Return the pairs (M, 2) that hold none of some positions."""
    return pairs[~np.isin(pairs, sorted(places)).any(axis=1)] if places else pairs


def _likely(pairs: np.ndarray, captured: np.ndarray, features: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return which pairs (M, 2) in sequence have nearly one hash, or are alike and of nearly one moment."""
    first, second = pairs.T
    alike = np.array([float(features[a] @ features[b]) for a, b in pairs.tolist()])
    lengths = np.sqrt((features**2).sum(axis=1))
    moment = np.abs(captured[first] - captured[second]) <= BURST
    near = np.bitwise_count(codes[first] ^ codes[second]) <= NEAR
    return near | (moment & (alike >= BURST_LIKE * lengths[first] * lengths[second]))


def _pairs_of(keys: Mapping[str, str], pictures: Dataset) -> np.ndarray:
    """Return pairs of positions (M, 2) that join the pictures of each key."""
    members: dict[str, list[int]] = defaultdict(list)
    for id, key in sorted(keys.items()):
        members[key].append(pictures.position[id])
    pairs = [pair for same in members.values() for pair in pairwise(same)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def told_groups(count: int, groups: Sequence[str], unread: int, kinds: Sequence[str]) -> str:
    """
    Return what was compared and what could not be.

    `groups` has one entry per picture outside a fixed camera; `kinds` says for what reasons they share one.
    """
    sizes = [size for size in Counter(groups).values() if size > 1]
    found = f"{counted(len(sizes), 'group')} of {' and '.join(kinds)}" if sizes else "no near-duplicates"
    large = f", the largest of {counted(max(sizes))}" if max(sizes, default=0) >= LARGE_GROUP else ""
    lost = f" Not compared: {unread:,} that cannot be read." if unread else ""
    return f"Compared by content: {counted(count)}{', ' + found + large if groups else ''}.{lost}"
