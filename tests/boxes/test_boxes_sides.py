"""Sides of photos with boxes: near-duplicates together, every label on every side, nothing moves later."""

import pytest
from drawn_boxes import draw_folder, draw_scene
from PIL import Image

from utils.boxes import read_box_sources, read_photos, sides_table, split_photos, take_boxed_photos
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.errors import FieldguideError

LABELS = ["ball", "block"]


@pytest.fixture
def project(make_project, tmp_path):
    """Return a project whose folder holds 30 drawn photos, and smaller saves of five of them."""
    folder = tmp_path / "photos"
    boxes = draw_folder(folder, 30)
    for n in range(5):
        image, own = draw_scene(n)
        image.resize((128, 96), Image.Resampling.LANCZOS).save(folder / f"again{n}.jpg", quality=80)
        boxes[f"again{n}"] = own
    for name, own in boxes.items():
        (folder / f"{name}.txt").write_text(yolo_text(own, LABELS), encoding="utf-8")
    (folder / "data.yaml").write_text(yolo_yaml(LABELS), encoding="utf-8")
    project = make_project(task="detect", source=str(folder), labels={}, size=64)
    take_boxed_photos(project, read_box_sources(project))
    return project


def test_a_photo_and_its_smaller_save_stand_on_one_side(project):
    """Five photos lie there twice: each pair shares its side; each side has every label and empty photos."""
    result = split_photos(read_photos(project))
    photos = result.photos
    names = dict(zip(photos.dataset.ids, photos.dataset.names, strict=True))
    side_of = {names[photo.id]: photo.side for photo in photos}
    assert len(side_of) == 35 and [side_of[f"again{n}.jpg"] for n in range(5)] == [
        side_of[f"000{n}.jpg"] for n in range(5)
    ]
    table = sides_table(photos)
    assert (table.filter(like="photos") > 0).all(axis=None) and table.to_numpy()[:, ::2].sum() >= 35
    assert result.remarks[0].startswith("Compared by content: 35 pictures")
    assert sides_table(read_photos(project)).equals(table)


def test_sides_are_sticky(project):
    """With other fractions and more photos, those that have a side keep it, and a remark says how to draw anew."""
    first = {photo.id: photo.side for photo in split_photos(read_photos(project)).photos}
    folder = project.places[0]
    for n in range(40, 46):
        image, own = draw_scene(n)
        image.save(folder / f"{n}.jpg")
        (folder / f"{n}.txt").write_text(yolo_text(own, LABELS), encoding="utf-8")
    later = project.model_copy(update={"valid": 0.4})
    take_boxed_photos(later, read_box_sources(later))
    result = split_photos(read_photos(later))
    now = {photo.id: photo.side for photo in result.photos}
    assert len(now) == 41 and {id: now[id] for id in first} == first and None not in now.values()
    assert "valid 0.2 → 0.4" in " ".join(result.remarks)


def test_a_rare_label_is_drawn_with_the_others(project):
    """One photo of a label cannot stand on three sides: it is drawn with the most frequent, and that is said."""
    folder = project.places[0]
    draw_scene(77)[0].save(folder / "rare.jpg")
    (folder / "rare.txt").write_text("2 .5 .5 .2 .2\n", encoding="utf-8")
    (folder / "data.yaml").write_text(yolo_yaml([*LABELS, "rare"]), encoding="utf-8")
    take_boxed_photos(project, read_box_sources(project))
    result = split_photos(read_photos(project))
    assert "so drawn with the others: “rare”." in " ".join(result.remarks)
    assert all(photo.side for photo in result.photos)


def test_a_photo_put_there_by_hand_is_told(project):
    """What came from no source has no row: the message says where to put it."""
    draw_scene(99)[0].save(project.images / "mine.jpg")
    with pytest.raises(FieldguideError, match=r"1 photo in .* came from no source, such as mine.jpg"):
        split_photos(read_photos(project))
