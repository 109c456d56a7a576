"""
The points by which a picture is recognised, a tiny grey version, and when it was taken: computed once and kept.

The points are SIFT's (Lowe 2004) on the picture reduced to 320 pixels, the 200 clearest. They lie in
data/<name>/copies/, 28 kB per picture. A picture counts as known by its id and the size of its file.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from utils.copies.kept import keep_rows, kept_rows, on_all_cores
from utils.dataset import Dataset
from utils.features import file_size
from utils.pictures import PictureError, image_file, open_picture

SEEN = 320  # pixels of the longest side
MOST_POINTS = 200  # per picture
FAINT = 0.01  # SIFT's contrast threshold, a quarter of its usual: else smooth pictures have hardly any points
SOFTENED = 1.0  # pixels, the blur before: else a noisy picture's points are those of its noise
THUMB = 32  # pixels
POINTS_TOGETHER = 128  # pictures per file
EXIF, ORIGINAL_TIME, FRACTION = 0x8769, 0x9003, 0x9291  # the section; DateTimeOriginal, SubsecTimeOriginal in it
POINTS_FORM = "points-1"  # of the files, and of how points are found
POINTS_ROW = np.dtype(
    [
        *(("id", "S16"), ("size", "<i8"), ("captured", "<f8"), ("width", "<u2"), ("count", "<u2")),
        ("thumb", "u1", (THUMB, THUMB)),
        ("places", "<f4", (MOST_POINTS, 2)),
        ("descriptors", "u1", (MOST_POINTS, 128)),
    ]
)


def picture_points(dataset: Dataset, originals: Mapping[str, Path]) -> dict[int, np.void]:
    """
    Return position in the data set → row of `POINTS_ROW`, of each picture that can be read.

    `originals` maps ids to their files in raw/, whose EXIF holds the capture time.
    """
    folder = dataset.project.data / "copies" / POINTS_FORM
    sizes = {id: file_size(path) for id, path in zip(dataset.ids, dataset.paths, strict=True)}
    found = _own_rows(folder, dataset, sizes)
    missing = [id for n, id in enumerate(dataset.ids) if n not in found and sizes[id] >= 0]
    if not missing:
        return found
    paths = dict(zip(dataset.ids, dataset.paths, strict=True))
    work = partial(points_row, paths, sizes, originals)
    for done in on_all_cores(work, missing, together=POINTS_TOGETHER, desc="finding points", unit="picture"):
        if rows := [row for row in done if row is not None]:
            keep_rows(folder, np.concatenate(rows))
    return _own_rows(folder, dataset, sizes)  # mapped from the files: in memory, many pictures would not fit


def _own_rows(folder: Path, dataset: Dataset, sizes: Mapping[str, int]) -> dict[int, np.void]:
    """Return the kept rows that belong to pictures of the data set, by position."""
    found = {}
    for rows in kept_rows(folder, POINTS_ROW):
        ids = [id.decode("ascii", "replace") for id in rows["id"].tolist()]
        for row, id, size in zip(rows, ids, rows["size"].tolist(), strict=True):
            if sizes.get(id) == size:
                found[dataset.position[id]] = row
    return found


def points_row(paths: Mapping, sizes: Mapping, originals: Mapping, id: str) -> np.ndarray | None:
    """Return one picture as an array (1,) of `POINTS_ROW`; None if it cannot be read."""
    pixels = seen_pixels(paths[id])
    if pixels is None:
        return None
    row = pixel_points(pixels)
    row["id"], row["size"], row["captured"] = id.encode(), sizes[id], captured_at(originals.get(id))
    return row


def pixel_points(pixels: np.ndarray) -> np.ndarray:
    """Return what pixels, uint8 (h, w, 3), show as an array (1,) of `POINTS_ROW`, without id, size and time."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    row = np.zeros(1, dtype=POINTS_ROW)
    soft = cv2.GaussianBlur(grey, (0, 0), SOFTENED)
    found, descriptors = cv2.SIFT_create(nfeatures=MOST_POINTS, contrastThreshold=FAINT).detectAndCompute(soft, None)
    count = min(len(found), MOST_POINTS)  # of two equally clear ones SIFT keeps both
    row["width"], row["count"] = grey.shape[1], count
    row["thumb"] = cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    if count:
        row["places"][0, :count] = [point.pt for point in found[:count]]
        row["descriptors"][0, :count] = descriptors[:count]
    return row


def seen_pixels(path: Path) -> np.ndarray | None:
    """Return a picture with its longest side reduced to 320 pixels, uint8 (h, w, 3); None if it cannot be read."""
    try:
        return np.asarray(open_picture(path, longest_side=SEEN))
    except (PictureError, OSError):
        return None


def captured_at(path: Path | None) -> float:
    """Return when a photo was taken, in seconds by the camera's clock; NaN if its file does not say."""
    try:
        with path.open("rb") as file, image_file(file) as image:
            facts = image.getexif().get_ifd(EXIF)
        taken = datetime.strptime(str(facts[ORIGINAL_TIME]).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
        return taken.timestamp() + float(f"0.{str(facts.get(FRACTION, 0)).strip(chr(0) + ' ') or 0}")
    except Exception:  # Pillow's parsers raise what they like on odd bytes; any of it means not known
        return float("nan")
