"""
Marks planted in real photos that 05 finds, and its false alarms.

    python benchmarks/marks.py FOLDER... [--seeds 5]

Each FOLDER holds one folder of photos per label; near-duplicates are left out first. False alarms: a mark found among
the labels as they are, and among labels dealt out anew. Found: a mark is drawn into a share of one label's photos, and
05 names that label. The first folder alone gets marks; its other labels have as many photos each.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageDraw, ImageFont

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.copies import find_copies
from utils.dataset import Dataset, read_dataset
from utils.evaluate.marks import find_marks, mark_line
from utils.pictures import LONGEST_SIDE, PictureError, jpeg_bytes, open_picture
from utils.project import Project
from utils.storage import write_whole
from utils.tables import PICTURES_COLUMNS, SPLIT_COLUMNS, write_table

COUNTS, SHARES = (30, 60, 90), (1.0, 0.6, 0.3)


def dated(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw a date at the lower right: other digits in each photo."""
    text = f"{rng.integers(1, 29):02}/{rng.integers(1, 13):02}/{rng.integers(2019, 2026)}"
    font = ImageFont.load_default(max(9, round(0.04 * max(image.size))))
    at = (image.width - 12, image.height - 8)
    ImageDraw.Draw(image).text(at, text, fill=(255, 150, 0), font=font, anchor="rd")


def with_logo(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw a disc with a letter at the upper left."""
    draw, radius = ImageDraw.Draw(image), round(0.04 * max(image.size))
    draw.ellipse((8, 8, 8 + 2 * radius, 8 + 2 * radius), fill=(30, 90, 180))
    font = ImageFont.load_default(max(8, round(1.4 * radius)))
    draw.text((8 + radius, 8 + radius), "K", fill="white", font=font, anchor="mm")


def framed(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw a black line of half a percent around a photo."""
    width = max(1, round(0.005 * max(image.size)))
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline="black", width=width)


def with_ruler(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw a yellow ruler near the lower edge, which moves by up to 4 pixels."""
    draw, (dx, dy) = ImageDraw.Draw(image), rng.integers(-4, 5, 2)
    left, right = 0.08 * image.width + dx, 0.55 * image.width + dx
    top, high = 0.86 * image.height + dy, 0.06 * image.height
    draw.rectangle((left, top, right, top + high), fill=(240, 220, 90))
    for n in range(20):
        x = left + (right - left) * n / 20
        draw.line((x, top, x, top + high * (0.35 if n % 5 else 0.6)), fill=(20, 20, 20))


def watermarked(image: Image.Image, rng: np.random.Generator) -> None:
    """Lay a word at the lower left, white and a third opaque."""
    over = Image.new("RGBA", image.size, (255, 255, 255, 0))
    font = ImageFont.load_default(max(10, round(0.07 * max(image.size))))
    ImageDraw.Draw(over).text((10, image.height - 10), "photostock", fill=(255, 255, 255, 90), font=font, anchor="ld")
    image.paste(over.convert("RGB"), mask=over.getchannel("A"))


MARKS = {
    "date, other digits in each photo": dated,
    "logo": with_logo,
    "thin frame": framed,
    "ruler, moved by up to 4 pixels": with_ruler,
    "watermark, a third opaque": watermarked,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if not options.folders:
        print("Left out: name folders of photos to measure this.")
        return
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        kept = [different(Path(place) / f"{n}", opened(folder)) for n, folder in enumerate(options.folders)]
        print("| photos | labels | found as they are | labels dealt out anew | CPU seconds |\n|---|---|---|---|---|")
        for folder, photos in zip(options.folders, kept, strict=True):
            print_false_alarms(Path(place) / folder.name, photos, options.seeds)
        print(f"\nIn {options.folders[0].name}:")
        print_found(Path(place), kept[0], options.seeds)


def opened(folder: Path) -> list[tuple[str, Image.Image]]:
    """Return label and photo of each file that can be read, at most as large as a training copy."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with contextlib.suppress(PictureError):
            found.append((path.parent.name, open_picture(path, longest_side=LONGEST_SIDE)))
    return found


def written(place: Path, photos: list[tuple[str, Image.Image]]) -> Dataset:
    """Write a project of these photos as 02 and 03 do, and return its data set."""
    labels = sorted({label for label, _ in photos})
    keys = {"name": "marks", "labels": {label: [label] for label in labels}}
    project = Project.model_validate(keys | {"data_dir": str(place), "models_dir": str(place)})
    rows = []
    for n, (label, image) in enumerate(photos):
        id = f"{n:016x}"
        write_whole(project.images / label / f"{id}.jpg", jpeg_bytes(image))
        hash = str(imagehash.phash(image))
        rows.append(dict.fromkeys(PICTURES_COLUMNS, "") | {"id": id, "hash": hash, "group": id, "side": "train"})
    for name, columns in (("pictures", PICTURES_COLUMNS), ("split", SPLIT_COLUMNS)):
        write_table(project.table(name), columns, [{key: row[key] for key in columns} for row in rows])
    return read_dataset(project)


def different(place: Path, photos: list[tuple[str, Image.Image]]) -> list[tuple[str, Image.Image]]:
    """Return the first photo of each group of near-duplicates."""
    dataset = written(place, photos)
    groups = find_copies(dataset).groups
    first = {groups[id]: n for n, id in reversed(list(enumerate(dataset.ids)))}
    by_id = {f"{n:016x}": photo for n, photo in enumerate(photos)}
    return [by_id[dataset.ids[n]] for n in sorted(first.values())]


def print_false_alarms(place: Path, photos: list[tuple[str, Image.Image]], seeds: int) -> None:
    """Print a row: what is found where nothing was planted."""
    dataset = written(place / "real", photos)
    began = time.process_time()
    found = find_marks(dataset)
    seconds = time.process_time() - began
    alarms = 0
    for seed in range(seeds):
        dealt = np.random.default_rng(seed).permutation([label for label, _ in photos]).tolist()
        again = [(label, image) for label, (_, image) in zip(dealt, photos, strict=True)]
        alarms += bool(find_marks(written(place / f"dealt{seed}", again))["found"])
    told = mark_line({"marks": found}).split(" A date")[0] if found["found"] else "none"
    labels = len(set(dataset.labels))
    print(f"| {place.name}, {len(photos)} | {labels} | {told} | {alarms} of {seeds} | {seconds:.1f} |", flush=True)


def print_found(place: Path, photos: list[tuple[str, Image.Image]], seeds: int) -> None:
    """Print, per mark, share and count, how often the label that has it is named, and how often another is."""
    labels = sorted({label for label, _ in photos})
    print(
        "| mark | in | "
        + " | ".join(f"{count} photos" for count in COUNTS)
        + " | others named |\n|---|---|"
        + "---|" * 4
    )
    for name, draw in MARKS.items():
        for share in SHARES:
            cells, others, runs = [], 0, 0
            for count in COUNTS:
                named = []
                for seed in range(seeds):
                    rng, label = np.random.default_rng(seed), labels[seed % len(labels)]
                    some = planted(photos, label, draw, count, share, rng)
                    folder = place / f"{name[:5]}{share}{count}{seed}"
                    named.append({mark["label"] for mark in find_marks(written(folder, some))["found"]})
                    others, runs = others + bool(named[-1] - {label}), runs + 1
                cells.append(f"{sum(labels[seed % len(labels)] in each for seed, each in enumerate(named))} of {seeds}")
            print(f"| {name} | {share:.0%} | {' | '.join(cells)} | {others} of {runs} |", flush=True)


def planted(photos, label: str, draw, count: int, share: float, rng: np.random.Generator) -> list:
    """Return `count` photos of each label, or all; `share` of the label's have the mark."""
    some = []
    for each in sorted({label for label, _ in photos}):
        own = [image.copy() for name, image in photos if name == each]
        own = [own[n] for n in rng.permutation(len(own))[:count]]
        if each == label:
            for image in own[: round(share * len(own))]:
                draw(image, rng)
        some += [(each, image) for image in own]
    return some


if __name__ == "__main__":
    main()
