"""02 reads the 16-bit pictures of a set by one number of bits, which stays."""

import numpy as np
import pytest
from conftest import draw_picture, picture_bytes, put_raw
from PIL import Image

from utils.dataset import read_dataset
from utils.inference.recipe import Recipe
from utils.tables import PICTURES_COLUMNS, REJECTED_COLUMNS, read_rows, write_table
from utils.verify import take_back, verify_images


def deep(seed: int, bits: int, *, share: float = 1.0) -> bytes:
    """Return a drawn picture as a 16-bit TIFF whose values take a share of some bits."""
    grey = np.asarray(draw_picture(seed).convert("L")).astype(float)
    return picture_bytes(Image.fromarray((grey / 255 * share * (2**bits - 1)).astype(np.uint16)), "TIFF")


def column(project, name: str) -> dict[str, str]:
    """Return id → a column of pictures.csv."""
    return {row["id"]: row[name] for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}


def mean_of(project, id: str) -> float:
    """Return the mean grey of a picture's training copy."""
    with Image.open(read_dataset(project)[id].path) as image:
        return float(np.asarray(image.convert("L")).mean())


@pytest.fixture
def _microscope(make_project, fill_raw):
    """Return a project of 8-bit photos, a 12-bit picture and a dark one that 10 bits would hold, and the two ids."""
    project = make_project()
    fill_raw(project, 2)
    return (
        project,
        put_raw(project, "cat", deep(50, 12), "tif"),
        put_raw(project, "cat", deep(51, 12, share=0.2), "tif"),
    )


def test_the_brightest_picture_decides_for_the_set(_microscope):
    """Both are read as 12 bits, and predicted so: the dark one stays darker. 8-bit photos have no number."""
    project, bright, dark = _microscope
    verify_images(project)
    assert {id: bits for id, bits in column(project, "bits").items() if bits} == {bright: "12", dark: "12"}
    assert mean_of(project, bright) == pytest.approx(np.asarray(draw_picture(50).convert("L")).mean(), abs=2)
    assert mean_of(project, dark) == pytest.approx(np.asarray(draw_picture(51).convert("L")).mean() / 5, abs=2)
    recipe = Recipe(512, 64, 0, bits=read_dataset(project).records.bits)
    raw = next(project.raw.glob(f"*/{dark}.*"))
    copy = read_dataset(project)[dark].path
    assert np.abs(recipe.pixels(raw).astype(int) - recipe.pixels(copy)).mean() < 2


def test_a_later_picture_of_more_bits_changes_nothing_and_is_named(_microscope):
    """It is rejected with its value, the report says what to do, and even taken back it is not scaled otherwise."""
    project, bright, dark = _microscope
    verify_images(project)
    before = {id: mean_of(project, id) for id in (bright, dark)}
    late, fits = put_raw(project, "cat", deep(52, 16), "tif"), put_raw(project, "dog", deep(53, 12, share=0.1), "tif")
    report = verify_images(project)
    reasons = {row["id"]: row["reason"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS)}
    assert reasons[late].startswith("too bright for 12 bits: a value of ")
    assert [remark for remark in report.remarks if "1 of the 16-bit pictures" in remark and "export them" in remark]
    assert {id: mean_of(project, id) for id in (bright, dark)} == before and column(project, "bits")[fits] == "12"
    with pytest.raises(Exception, match="cannot be taken back: too bright"):
        take_back(project, late)


def test_an_older_table_is_read_and_grows(_microscope):
    """Its 16-bit pictures were read as 16 bits, and so are those that come now. The file gets the new column."""
    project, bright, _ = _microscope
    verify_images(project)
    rows = read_rows(project.table("pictures"), PICTURES_COLUMNS)
    write_table(project.table("pictures"), PICTURES_COLUMNS[:6], rows)
    assert column(project, "bits")[bright] == ""
    late = put_raw(project, "cat", deep(52, 14), "tif")
    verify_images(project)
    assert {id: bits for id, bits in column(project, "bits").items() if bits} == {late: "16"}
    assert [row | {"bits": ""} for row in rows] == read_rows(project.table("pictures"), PICTURES_COLUMNS)[:-1]


def test_a_picture_dropped_by_hand_is_read_like_the_set(_microscope):
    """Also if it is the first of 16 bits."""
    project, bright, dark = _microscope
    for id in (bright, dark):
        (project.raw / "cat" / f"{id}.tif").unlink()
    (project.images / "cat").mkdir(parents=True, exist_ok=True)
    (project.images / "cat" / "dropped.tif").write_bytes(deep(54, 14))
    verify_images(project)
    assert set(column(project, "bits").values()) == {"", "14"}
