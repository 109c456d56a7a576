"""What several tests need: drawn pictures and small projects in a temporary folder."""

import os

# Before torch is imported: else its threads and those of the loaders compete for few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

from utils.project import Project
from utils.storage import content_id, write_whole

# No test measures time. In CI every run tries the same examples.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no core waits for another at the end."""
    items.sort(key=lambda item: item.get_closest_marker("notebooks") is item.get_closest_marker("browser") is None)


def draw_picture(seed: int, *, colour: str = "tomato", size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Return a picture of a few shapes on a noisy ground. Another seed gives a picture that looks different."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    left, top = (int(rng.integers(5, side // 2)) for side in size)
    draw.ellipse((left, top, left + size[0] // 3, top + size[1] // 3), fill=colour)
    return image


def picture_bytes(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def make_project(tmp_path):
    """Return a function that makes a project in the temporary folder; keywords are settings."""

    def make(**settings) -> Project:
        defaults = {
            "name": "pets",
            "labels": {"cat": ["cat photo"], "dog": ["dog photo"]},
            "data_dir": str(tmp_path / "data"),
            "models_dir": str(tmp_path / "models"),
            "arch": "squeezenet1_1",  # few numbers, quick to write
            "weights": "none",
            "size": 32,
            "epochs": 1,
            "batch_size": 4,
        }
        return Project.model_validate(defaults | settings)

    return make


@pytest.fixture
def fill_raw():
    """Return a function that puts drawn pictures into raw/ and returns their ids by label."""

    def fill(project: Project, count: int = 10) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for n, label in enumerate(project.labels):
            for k in range(count):
                data = picture_bytes(draw_picture(1000 * n + k, colour=("tomato", "navy", "gold")[n % 3]))
                ids.setdefault(label, []).append(put_raw(project, label, data))
        return ids

    return fill


def put_raw(project: Project, label: str, data: bytes, extension: str = "jpg") -> str:
    """Put one file into raw/<label>/ and return its id."""
    id = content_id(data)
    write_whole(project.raw / label / f"{id}.{extension}", data)
    return id


def code_cells(path: Path) -> list[str]:
    """Return the sources of a notebook's code cells."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder: relative path → bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
