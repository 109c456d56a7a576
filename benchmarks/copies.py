"""
Which changed copies of real photos 03 finds, and what it takes for a copy that is none.

    python benchmarks/copies.py FOLDER... [--photos 64] [--pool 0] [--others FOLDER...] [--peer PYTHON]

FOLDER holds photos, in folders or not. `--photos` of them, spread over all, are changed in each way, saved as in 02.
One project per way holds all photos and the changed ones. With `--pool` it is filled up to that number: with tiles of
the photos in `--others`, 25 of each that do not overlap, and with drawn pictures where these do not suffice. Found:
the changed photo shares a group with its own. The perceptual hash alone, as 03 used it before, stands beside, and
imagededup's pHash and CNN with their default thresholds: found if they call both duplicates. A disc in a photo makes
another picture of the same scene. False pairs are told by name: look at them, photos from the web
hold real copies. Seconds are from stored features and points; the first time they come on top.
"""

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import imagehash
import numpy as np
import psutil
from _imagededup import LEFT_OUT, imagededup_says
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.copies import find_copies
from utils.copies.geometry import SAME_PICTURE
from utils.copies.hashes import NEAR, hash_codes
from utils.copies.neighbours import feature_neighbours, points_vectors
from utils.copies.points import picture_points
from utils.copies.verdicts import Verdicts
from utils.dataset import Dataset, read_dataset
from utils.features import picture_features
from utils.pictures import LONGEST_SIDE, PictureError, jpeg_bytes, open_picture
from utils.project import Project
from utils.storage import write_whole
from utils.tables import PICTURES_COLUMNS, write_table

RANDOM, NEAREST = 10_000, 10  # random pairs; nearest photos of each
TILE = 320  # pixels, the width of what fills a pool


def cropped(image: Image.Image, part: int = 8) -> Image.Image:
    """Return an image without an eighth at each edge."""
    width, height = image.size
    return image.crop((width // part, height // part, width - width // part, height - height // part))


def noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an image with Gaussian noise of 20 levels."""
    pixels = np.asarray(image) + rng.normal(0, 20, (image.height, image.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved_again(image: Image.Image) -> Image.Image:
    """Return an image as a JPEG of quality 30 shows it."""
    return Image.open(io.BytesIO(jpeg_bytes(image, quality=30))).convert("RGB")


def marked(image: Image.Image) -> Image.Image:
    """Return an image with a date on white in a corner."""
    image, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(image)
    draw.rectangle((0.7 * width, 0.9 * height, width, height), fill="white")
    draw.text((0.72 * width, 0.91 * height), "2024-05-01", fill="black")
    return image


def with_disc(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """Return an image with a disc of any colour somewhere; its diameter is a share of the shorter side."""
    image, radius = image.copy(), share * min(image.size) / 2
    x, y = (rng.uniform(radius, side - radius) for side in image.size)
    colour = tuple(rng.integers(0, 256, 3).tolist())
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


WAYS = {
    "mirrored": lambda image, rng: ImageOps.mirror(image),
    "upside down, mirrored": lambda image, rng: ImageOps.flip(image),
    "turned by 90°": lambda image, rng: image.rotate(90, expand=True),
    "turned by 15°": lambda image, rng: image.rotate(15, resample=Image.Resampling.BICUBIC),
    "cropped by 1/8": lambda image, rng: cropped(image),
    "zoomed": lambda image, rng: cropped(image).resize(image.size),
    "grey": lambda image, rng: image.convert("L").convert("RGB"),
    "noisy": noisy,
    "saved again": lambda image, rng: saved_again(image),
    "half the size": lambda image, rng: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.4),
    "date in a corner": lambda image, rng: marked(image),
}
DISCS = {f"disc of {share:.0%}": share for share in (0.1, 0.2, 0.3, 0.45)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--pool", type=int, default=0)
    parser.add_argument("--others", nargs="*", type=Path, default=[])
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with benchmarks/peers/imagededup.txt")
    options = parser.parse_args()
    if not options.folders:
        print("Left out: name folders of photos to measure this.")
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stderr(nothing),
    ):
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Make the project, compare, and print."""
    photos = opened(sorted(path for place in options.folders for path in place.rglob("*") if path.is_file()))
    chosen = list(photos)[:: max(1, len(photos) // options.photos)][: options.photos]
    others = sorted(path for place in options.others for path in place.rglob("*") if path.is_file())
    dataset, names, of = written_project(folder, photos, chosen, fillers(others, max(0, options.pool - len(photos))))
    began = time.perf_counter()
    picture_features(dataset)
    points = picture_points(dataset, {})
    print(
        f"{len(photos)} photos, {len(chosen)} of them changed; {len(dataset) - len(of)} different pictures in a pool."
    )
    print(f"Features and points: {(time.perf_counter() - began) / len(dataset):.3f} s per picture.\n")
    changed_ids, theirs = set(of), {}
    if options.peer:
        plain = [id for id, name in names.items() if name != "filler"]
        theirs = imagededup_says(options.peer, {id: dataset[id].path for id in plain})
    else:
        print(LEFT_OUT + "\n")
    heads = ["changed", "found", "by the hash alone", *(f"imagededup {method}" for method in theirs)]
    print(row(heads) + "\n" + "|---" * len(heads) + "|")
    for way in WAYS:
        own = {id for id in of if names[id].startswith(f"{way}: ")}
        pool = dataset.where(lambda picture, own=own: picture.id not in changed_ids or picture.id in own)
        groups = find_copies(pool).groups
        found = np.mean([groups[id] == groups[of[id]] for id in own])
        by_hash = np.mean(hash_distances(dataset, own, of) <= NEAR)
        by_them = [np.mean([of[id] in said[id] for id in own]) for said in theirs.values()]
        print(row([way, *(f"{share:.1%}" for share in (found, by_hash, *by_them))]), flush=True)
    verdicts = Verdicts(dataset, points)
    heads = ["same scene, other content", "told apart", *(f"imagededup {method}" for method in theirs)]
    print("\n" + row(heads) + "\n" + "|---" * len(heads) + "|")
    for way in DISCS:
        pairs = [(id, of[id]) for id in of if names[id].startswith(f"{way}: ")]
        apart = np.mean(verdicts.of(positions(dataset, pairs)) != SAME_PICTURE)
        by_them = [np.mean([other not in said[id] for id, other in pairs]) for said in theirs.values()]
        print(row([way, *(f"{share:.1%}" for share in (apart, *by_them))]))
    plain = dataset.where(lambda picture: picture.id not in changed_ids and names[picture.id] != "filler")
    print_false_pairs(plain, names)
    for method, said in theirs.items():
        pairs = {tuple(sorted((id, other))) for id in plain.ids for other in said[id] if other in plain}
        print(f"imagededup {method} calls {len(pairs)} of all {len(plain) * (len(plain) - 1) // 2:,} pairs duplicates.")
    time_all(dataset.where(lambda picture: picture.id not in changed_ids))


def row(cells: list[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def opened(paths: list[Path]) -> dict[str, Image.Image]:
    """Return name → photo of those that can be read, at most as large as a training copy."""
    found = {}
    for path in paths:
        with contextlib.suppress(PictureError):
            found[f"{path.parent.name}/{path.name}"] = open_picture(path, longest_side=LONGEST_SIDE)
    return found


def written_project(
    folder: Path, photos: dict, chosen: list[str], others: Iterable[Image.Image]
) -> tuple[Dataset, dict, dict]:
    """Write all pictures as 02 does; return the data set, id → name, and changed id → id of the photo."""
    project = Project.model_validate(
        {"name": "copies", "labels": {"a": ["a"], "b": ["b"]}, "data_dir": str(folder), "models_dir": str(folder)}
    )
    names, of, rows = {}, {}, []

    def write(image: Image.Image, name: str) -> str:
        id = f"{len(rows):016x}"
        write_whole(project.images / "ab"[len(rows) % 2] / f"{id}.jpg", jpeg_bytes(image))
        rows.append(dict.fromkeys(PICTURES_COLUMNS, "") | {"id": id, "hash": str(imagehash.phash(image))})
        names[id] = name
        return id

    ids = {name: write(photo, name) for name, photo in photos.items()}
    for n, name in enumerate(chosen):
        for k, (way, change) in enumerate(WAYS.items()):
            of[write(change(photos[name], np.random.default_rng([n, k])), f"{way}: {name}")] = ids[name]
        for k, (way, share) in enumerate(DISCS.items()):
            disc = with_disc(photos[name], np.random.default_rng([n, k, 1]), share)
            of[write(disc, f"{way}: {name}")] = ids[name]
    for image in others:
        write(image, "filler")
    write_table(project.table("pictures"), PICTURES_COLUMNS, rows)
    return read_dataset(project), names, of


def fillers(paths: list[Path], count: int) -> Iterator[Image.Image]:
    """Yield that many pictures: tiles of photos, then drawn ones."""
    made = 0
    for path in paths:
        try:
            photo = open_picture(path, longest_side=5 * TILE)
        except PictureError:
            continue
        wide, high = photo.width // 5, photo.height // 5
        for n in range(min(25, count - made)):
            left, top = n % 5 * wide, n // 5 * high
            tile, made = photo.crop((left, top, left + wide, top + high)), made + 1
            yield tile.resize((TILE, max(1, round(TILE * high / wide))), Image.Resampling.BICUBIC)
    for n in range(count - made):
        yield drawn(np.random.default_rng([n, 2]))


def drawn(rng: np.random.Generator) -> Image.Image:
    """Return a picture of coarse and fine colours, to fill a pool."""
    layers = [rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8) for cells in (5, 20, 80)]
    layers = [np.asarray(Image.fromarray(each).resize((384, 288), Image.Resampling.BICUBIC)) for each in layers]
    return Image.fromarray(np.average(layers, axis=0, weights=(0.5, 0.3, 0.2)).astype(np.uint8))


def hash_distances(dataset: Dataset, ids: set[str], of: dict[str, str]) -> np.ndarray:
    """Return the bits in which changed photos' hashes differ from their own."""
    own = sorted(ids)
    return np.bitwise_count(hash_codes(dataset, own) ^ hash_codes(dataset, [of[id] for id in own]))


def positions(dataset: Dataset, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return pairs of ids as pairs of positions (M, 2), the smaller first."""
    return np.sort([[dataset.position[id] for id in pair] for pair in pairs], axis=1)


def print_false_pairs(photos: Dataset, names: dict[str, str]) -> None:
    """Print how many pairs of photos count as the same picture, random ones and the nearest, and which these are."""
    points = picture_points(photos, {})
    verdicts, rng = Verdicts(photos, points), np.random.default_rng(0)
    random = rng.integers(0, len(photos), (3 * RANDOM, 2))
    random = np.unique(np.sort(random[random[:, 0] != random[:, 1]], axis=1), axis=0)
    random = random[np.sort(rng.permutation(len(random))[:RANDOM])]
    near = [
        feature_neighbours(each, NEAREST) for each in (picture_features(photos), points_vectors(points, len(photos)))
    ]
    print("\n| pairs of photos | counted as the same picture |\n|---|---|")
    told = []
    for kind, pairs in (("random", random), ("nearest", np.unique(np.concatenate(near), axis=0))):
        same = pairs[verdicts.of(pairs) == SAME_PICTURE]
        print(f"| {len(pairs):,} {kind} | {len(same)} |")
        told += [" = ".join(names[photos.ids[n]] for n in pair) for pair in same.tolist()]
    print("\n" + "\n".join(told))


def time_all(pictures: Dataset) -> None:
    """Print the seconds that the pool takes from stored features and points, and once more with all kept."""
    for folder in (pictures.project.data / "copies").glob("pairs-*"):
        shutil.rmtree(folder)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        find_copies(pictures)
        seconds.append(time.perf_counter() - began)
    print(
        f"\n{len(pictures):,} pictures from stored features and points: {seconds[0]:.1f} s; again: {seconds[1]:.1f} s; "
        f"{psutil.Process().memory_info().rss / 1e9:.2f} GB, with the photos of this script."
    )


if __name__ == "__main__":
    main()
