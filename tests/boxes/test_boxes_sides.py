"""Sides of photos with boxes: near-duplicates together, every label on every side, nothing moves later."""

import pytest
from drawn_boxes import draw_folder, draw_scene
from PIL import Image

from utils.boxes import read_box_sources, read_photos, sides_table, split_photos, take_boxed_photos
from utils.boxes.yolo import yolo_text, yolo_yaml
from utils.errors import FieldguideError
from utils.storage import content_id

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


def test_a_photo_put_there_by_hand_is_taken_in(project):
    """Until 2_photos runs again it is told; then it is a photo without a thing, on a side, its bytes in raw/."""
    path = project.images / "mine.png"
    draw_scene(99)[0].save(path)
    data, count = path.read_bytes(), len(read_photos(project))
    path.rename(path.with_suffix(".jpg"))
    (project.images / "notes.txt").write_text("of mine")
    with pytest.raises(FieldguideError, match=r"1 photo put into .* by hand, such as mine.jpg, and not yet taken in"):
        split_photos(read_photos(project))
    told = take_boxed_photos(project, read_box_sources(project))
    assert "1 photo put into images/ by hand, 1 without boxes" in " ".join(told)
    photos, id = split_photos(read_photos(project)).photos, content_id(data)
    assert len(photos) == count + 1 and photos[id].boxes == () and photos[id].side
    assert (project.raw / f"{id}.png").read_bytes() == data and (project.images / "notes.txt").exists()
    assert photos.dataset.records.own_name(photos[id].path) == "mine.jpg"
    take_boxed_photos(project, read_box_sources(project))
    assert len(read_photos(project)) == count + 1


def test_a_copy_that_was_changed_is_named(project):
    """Other bytes under the same name are refused, with both ways on; each of them works. A mere copy is fine."""
    first, second = sorted(project.images.glob("*.jpg"))[:2]
    before = {path: path.read_bytes() for path in (first, second)}
    first.unlink()
    first.write_bytes(before[first])  # as a copied folder has it
    read_photos(project)
    for path in before:
        path.write_bytes(before[path][:-3] + b"x\xff\xd9")
        with pytest.raises(FieldguideError, match=rf"1 photo in .* such as {path.name}\. Its boxes may not fit"):
            read_photos(project)
        if path == first:
            path.rename(path.with_name(f"new_{path.name}"))
            take_boxed_photos(project, read_box_sources(project))
            assert len(read_photos(project)) == 35 and path.stem not in read_photos(project).dataset
    second.unlink()
    table = project.table("pictures")
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(line for line in lines if second.stem not in line), encoding="utf-8")
    take_boxed_photos(project, read_box_sources(project))
    assert second.read_bytes() == before[second] and read_photos(project)[second.stem].boxes is not None


def test_a_rejected_photo_put_into_images_is_taken_back(project):
    """Too small to be taken, but a person puts it there again: it is wanted."""
    draw_scene(7)[0].resize((40, 30)).save(path := project.places[0] / "small.png")
    (project.places[0] / "small.txt").write_text("0 .5 .5 .5 .5\n", encoding="utf-8")
    id = content_id(path.read_bytes())
    take_boxed_photos(project, read_box_sources(project))
    assert id not in read_photos(project).dataset
    (project.images / "small.png").write_bytes(path.read_bytes())
    take_boxed_photos(project, read_box_sources(project))
    assert [box.label for box in read_photos(project)[id].boxes] == ["ball"]
