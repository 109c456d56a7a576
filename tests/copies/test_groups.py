"""What 03 keeps together: copies, bursts, videos and what the person says; and what it does not."""

import io
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
from conftest import draw_picture
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from utils.copies import find_copies, kept, points, verdicts
from utils.copies.chains import LONGEST_CHAIN
from utils.dataset import read_dataset
from utils.download import read_folder, save_pictures, source_pictures
from utils.errors import FieldguideError
from utils.project import Project, ProjectError
from utils.split import assign_sides, leak_warning, save_split
from utils.verify import verify_images

LABELS = ("cat", "dog")
SETTINGS = 'name = "pets"\nsource = "photos"\ndata_dir = "data"\nmodels_dir = "models"'
SIZE = (200, 150)
COLOURS = tuple(zip(LABELS, ("tomato", "navy"), strict=True))


@pytest.fixture
def gathered(tmp_path):
    """Return a function that makes a project of photos: label → {place: image or (image, capture time)}."""

    def gather(photos: dict[str, dict], **settings) -> Project:
        for label, files in photos.items():
            for place, photo in files.items():
                image, taken = photo if isinstance(photo, tuple) else (photo, None)
                path = tmp_path / "photos" / label / place
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path, quality=95, exif=exif_of(taken))
        (tmp_path / "project.toml").write_text(SETTINGS)
        project = Project.load(tmp_path / "project.toml").model_copy(update=settings)
        save_pictures(project, source_pictures(read_folder(project.places[0], project.labels)))
        verify_images(project)
        return project

    return gather


def exif_of(taken: str | None) -> Image.Exif:
    """Return EXIF data that hold a capture time, such as "2024:05:01 12:00:00"."""
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    return exif


def different(label: str, count: int, start: int = 0) -> dict[str, Image.Image]:
    """Return photos that have nothing in common, under names without a number."""
    first = 1000 * LABELS.index(label) + start
    return {f"{chr(97 + n)}.jpg": draw_picture(first + n, size=SIZE) for n in range(count)}


def scene(n: int, seed: int = 500, colour: str = "gold") -> Image.Image:
    """Return one view with a disc at the `n`th of many places."""
    image = draw_picture(seed, size=SIZE)
    x, y = 30 + 47 * n % 139, 30 + 31 * n % 89
    ImageDraw.Draw(image).ellipse((x - 20, y - 20, x + 20, y + 20), fill=colour)
    return image


def named_groups(project: Project) -> dict[str, set[str]]:
    """Return group → own names of its pictures, of groups of more than one."""
    dataset, found = read_dataset(project), defaultdict(set)
    groups = find_copies(dataset).groups
    for id, name in zip(dataset.ids, dataset.names, strict=True):
        found[groups[id]].add(name)
    return {group: names for group, names in found.items() if len(names) > 1}


def split_of(project: Project):
    """Do what 03 does; return what was compared and the data set with its sides."""
    dataset = read_dataset(project)
    copies, labels = find_copies(dataset), dict(zip(dataset.ids, dataset.labels, strict=True))
    known = {id: side for id, (_, side) in dataset.split.items()}
    sides = assign_sides(copies.groups, labels, valid=project.valid, test=project.test, known=known)
    return copies, save_split(dataset, copies.groups, sides)


VERSIONS = {
    "orig": lambda image: image,
    "fliph": ImageOps.mirror,
    "flipv": ImageOps.flip,
    "rot90": lambda image: image.rotate(90, expand=True),
    "rot15": lambda image: image.rotate(15),
    "crop": lambda image: image.crop((15, 11, 185, 139)).resize(SIZE),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
}


def test_an_augmented_set_has_no_siblings_across_sides(gathered):
    """15 photos per label, each in seven versions: 30 groups of seven, and none stands on two sides."""
    rng = np.random.default_rng(0)
    photos = {label: {} for label in LABELS}
    for k, label in enumerate(LABELS):
        for n in range(15):
            fine = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(SIZE)
            image = Image.blend(draw_picture(100 * k + n, size=SIZE), fine, 0.3)
            photos[label] |= {f"leaf{n:02}_{way}.jpg": change(image) for way, change in VERSIONS.items()}
    copies, dataset = split_of(gathered(photos))
    assert sorted(Counter(copies.groups.values()).values()) == [7] * 30
    sides = defaultdict(set)
    for picture, name in zip(dataset, dataset.names, strict=True):
        sides[picture.label, name[:6]].add(picture.side)
    assert len(sides) == 30 and {len(each) for each in sides.values()} == {1}
    assert copies.sentence == "Compared by content: 210 pictures, 30 groups of near-duplicates."
    assert leak_warning(dataset, copies.links) == ""


@pytest.mark.parametrize("by", ["number", "time"])
def test_bursts_stay_together(gathered, by):
    """Four bursts of five, in which the subject moves, are four groups; single photos stay alone."""
    photos = {label: different(label, 6) for label in LABELS}
    for k, label in enumerate(LABELS):
        for burst in range(2):
            for n in range(5):
                image = scene(n, seed=700 + 10 * k + burst)
                number, minute = 100 * burst + n + 50 * k, 10 * k + 30 * burst
                if by == "number":
                    photos[label][f"IMG_{number:04}.jpg"] = image
                else:
                    name = f"{label}{'abcde'[n]}{'xy'[burst]}.jpg"
                    photos[label][name] = image, f"2024:05:01 12:{minute:02}:{3 * n:02}"
    assert sorted(map(len, named_groups(gathered(photos)).values())) == [5, 5, 5, 5]


def test_a_scene_alone_joins_nothing(gathered):
    """Without a number or a time, other content in one scene is another picture."""
    photos = {label: different(label, 8) for label in LABELS}
    photos["cat"] |= {f"view {letter}.jpg": scene(n) for n, letter in enumerate("vwxyz")}
    assert named_groups(gathered(photos)) == {}


def test_numbers_alone_join_nothing(gathered):
    """IMG_0001 and IMG_0002 of different things are different pictures."""
    photos = {
        label: {f"IMG_{n:04}.jpg": image for n, image in enumerate(different(label, 8).values())} for label in LABELS
    }
    assert named_groups(gathered(photos)) == {}


def test_a_clock_that_stands_still_tells_nothing(gathered):
    """32 photos with one capture time are no burst."""
    photos = {
        label: {name: (image, "2000:01:01 00:00:00") for name, image in different(label, 20).items()}
        for label in LABELS
    }
    assert named_groups(gathered(photos)) == {}


def test_a_fixed_camera_is_said_and_split_by_blocks(gathered):
    """Every label stands on every side, a block holds numbers in a row, and what comes later moves nobody."""
    photos = {
        label: {f"cam_{n:04}.jpg": scene(n, colour=colour) for n in range(20)}
        for label, colour in zip(LABELS, ("tomato", "navy"), strict=True)
    }
    project = gathered(photos)
    copies, dataset = split_of(project)
    assert "A fixed camera: 40 of 40 pictures show one view. They are split into 20 blocks" in copies.sentence
    assert "follow each other in number" in copies.sentence
    assert set(zip(dataset.labels, dataset.sides, strict=True)) == {
        (a, b) for a in LABELS for b in ("train", "valid", "test")
    }
    numbers = defaultdict(list)
    for picture, name in zip(dataset, dataset.names, strict=True):
        numbers[picture.label, picture.group].append(int(name[4:8]))
    assert all(max(each) - min(each) == 1 for each in numbers.values())
    assert leak_warning(dataset, copies.links) == ""
    later, again = split_of(gathered({"cat": {f"cam_{n:04}.jpg": scene(n, colour="tomato") for n in range(20, 26)}}))
    assert len(again) == 46 and None not in again.sides
    assert {id: again[id].side for id in dataset.ids} == dict(zip(dataset.ids, dataset.sides, strict=True))
    assert {id: later.groups[id] for id in dataset.ids} == dict(copies.groups)


def test_a_fixed_camera_stays_one_when_other_photos_come(gathered):
    """After many photos from elsewhere the frames keep their blocks, new frames get a side, and nothing leaks."""
    photos = {label: {f"cam_{n:04}.jpg": scene(n, colour=colour) for n in range(14)} for label, colour in COLOURS}
    project = gathered(photos)
    first, before = split_of(project)
    more = {
        label: different(label, 26) | {f"other {k}": image for k, image in different(label, 26, 50).items()}
        for label in LABELS
    }
    new = {label: {f"cam_{n:04}.jpg": scene(n, colour=colour) for n in range(14, 18)} for label, colour in COLOURS}
    copies, dataset = split_of(gathered({label: more[label] | new[label] for label in LABELS}))
    assert len(dataset) == 28 + 104 + 8 and None not in dataset.sides
    assert "A fixed camera: 36 of 140 pictures show one view" in copies.sentence
    assert {id: copies.groups[id] for id in before.ids} == dict(first.groups)
    assert leak_warning(dataset, copies.links) == ""


def test_a_video_among_other_photos_is_one_group(gathered):
    """24 frames of one view among 60 other photos stay together, at the first split and later; the size is told."""
    photos = {label: different(label, 26) for label in LABELS}
    photos["cat"] |= {f"video_{n:04}.jpg": scene(n) for n in range(24)}
    project = gathered(photos)
    first, _ = split_of(project)
    told = "76 pictures, 1 group of pictures in sequence, the largest of 24 pictures."
    assert first.sentence == f"Compared by content: {told}"
    copies, dataset = split_of(gathered({"dog": {f"video_{n:04}.jpg": scene(n) for n in range(24, 28)}}))
    assert "fixed camera" not in copies.sentence and None not in dataset.sides
    assert [len(names) for names in named_groups(project).values()] == [28]


def test_a_video_that_comes_in_parts_is_no_camera(gathered):
    """Two parts of a video have a side before what lies between them comes: what comes last still joins it."""
    photos = {label: different(label, 26) for label in LABELS}
    photos["dog"] |= {f"more {name}": image for name, image in different("dog", 24, 60).items()}
    split_of(gathered(photos | {"cat": photos["cat"] | video(range(8)) | video(range(22, 30))}))
    split_of(gathered({"cat": video(range(8, 22))}))
    copies, dataset = split_of(gathered({"cat": video(range(30, 36))}))
    assert "fixed camera" not in copies.sentence
    whole = {copies.groups[id] for id, name in zip(dataset.ids, dataset.names, strict=True) if "video" in name}
    assert len(whole) == 1 and not whole.pop().startswith("block-")


def video(numbers) -> dict[str, Image.Image]:
    """Return frames of one view under numbered names."""
    return {f"video_{n:04}.jpg": scene(n) for n in numbers}


def test_what_an_earlier_run_put_together_is_said(gathered):
    """group_by drew the split and was removed: its groups stand, and are not called near-duplicates."""
    images = {label: enumerate(different(label, 20).values()) for label in LABELS}
    photos = {label: {f"site {n // 2} {chr(97 + n)}.jpg": image for n, image in images[label]} for label in LABELS}
    project = gathered(photos, group_by=r"site (\d+) ")
    copies, _ = split_of(project)
    assert "10 groups of pictures that group_by joins." in copies.sentence
    copies = find_copies(read_dataset(project.model_copy(update={"group_by": ""})))
    assert (
        copies.sentence == "Compared by content: 40 pictures, 10 groups of pictures that an earlier run put together."
    )


def test_empty_frames_of_two_days_are_two_frames(gathered):
    """The camera numbers each card anew. Known times that differ tell frames apart, whatever their names say."""
    empty = draw_picture(500, size=SIZE)
    photos = {label: {} for label in LABELS}
    for k, (label, colour) in enumerate(COLOURS):
        for day in (1, 2):
            for n in range(8):
                image = empty if n % 2 else scene(n + 8 * day, colour=colour)
                name = f"{'ab'[day - 1]}/IMG_{n + 8 * k:04}.jpg"
                photos[label][name] = image, f"2024:05:0{day} 12:{n + 8 * k:02}:00"
    copies, dataset = split_of(gathered(photos))
    assert "fixed camera" in copies.sentence and "in time" in copies.sentence
    assert len(dataset) == 32 and copies.links == []


def test_a_fixed_camera_without_time_or_number_is_said(gathered):
    """Each picture is split as one of its own, and the sentence says why."""
    letters = "abcdefghijklmnopqrst"
    photos = {
        label: {f"{letters[n]}.jpg": scene(n, colour=colour) for n in range(20)}
        for label, colour in zip(LABELS, ("tomato", "navy"), strict=True)
    }
    copies, _ = split_of(gathered(photos))
    assert "Neither the time nor a number in the name is known" in copies.sentence


def test_copies_of_one_picture_are_no_fixed_camera(gathered):
    """24 versions of one picture are one group, which no split can part; a sentence says so."""
    image = draw_picture(3, size=SIZE)
    photos = {label: {} for label in LABELS}
    for n in range(24):
        photos[LABELS[n % 2]][f"{n}.jpg"] = ImageEnhance.Brightness(image).enhance(0.8 + 0.02 * n)
    project = gathered(photos)
    copies = find_copies(read_dataset(project))
    assert len(set(copies.groups.values())) == 1 and "fixed camera" not in copies.sentence
    with pytest.raises(FieldguideError, match=r"12 pictures in 1 group"):
        split_of(project)


def test_a_long_chain_is_cut(gathered, monkeypatch):
    """Of a strip, each picture overlaps the next; its ends have nothing in common and do not share a group."""
    rng = np.random.default_rng(1)
    strip = Image.fromarray(rng.integers(0, 256, (40, 260, 3), dtype=np.uint8)).resize(
        (2600, 400), Image.Resampling.BICUBIC
    )
    photos = {label: different(label, 2) for label in LABELS}
    photos["cat"] |= {f"part {chr(97 + n)}.jpg": strip.crop((90 * n, 0, 90 * n + 400, 300)) for n in range(20)}
    project = gathered(photos)
    (whole,) = named_groups(project).values()
    assert len(whole) == 20 <= LONGEST_CHAIN
    monkeypatch.setattr("utils.copies.chains.LONGEST_CHAIN", 10)
    parts = named_groups(project).values()
    assert len(parts) > 1 and max(map(len, parts)) < 12
    assert not any({"part a.jpg", "part t.jpg"} <= names for names in parts)


def test_group_by_says_what_belongs_together(gathered):
    """The first bracket names the group; what it does not match stays as it was, and copies stay with their like."""
    photos = {label: different(label, 3) for label in LABELS}
    for k, label in enumerate(LABELS):
        images = list(different(label, 9, start=100).values())
        photos[label] |= {f"site {n % 3 + 3 * k} {chr(97 + n)}.jpg": image for n, image in enumerate(images)}
    photos["cat"]["copy.jpg"] = ImageOps.mirror(photos["cat"]["site 1 b.jpg"])
    project = gathered(photos, group_by=r"site (\d+) ")
    found = named_groups(project)
    assert sorted(map(len, found.values())) == [3, 3, 3, 3, 3, 4]
    assert {"copy.jpg", "site 1 b.jpg", "site 1 e.jpg", "site 1 h.jpg"} in found.values()
    sentence = find_copies(read_dataset(project)).sentence
    assert "group_by puts 18 pictures into 6 groups. It matches no name of 7 pictures." in sentence


def test_group_by_sees_the_folder(gathered):
    """The expression is searched in folder and name; without a bracket all that it matches names the group."""
    project = gathered({label: different(label, 3) for label in LABELS}, group_by="^cat/")
    assert [len(names) for names in named_groups(project).values()] == [3]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("video", r"matches no file name, such as '.*jpg'"), ("jpg", r"puts all 6 pictures into one group, 'jpg'")],
)
def test_group_by_that_tells_nothing_apart_is_refused(gathered, pattern, told):
    """It matches nothing, or everything: the sentence gives an example and what to do."""
    project = gathered({label: different(label, 3) for label in LABELS}, group_by=pattern)
    with pytest.raises(FieldguideError, match=told):
        find_copies(read_dataset(project))


def test_group_by_must_be_a_regular_expression(tmp_path):
    """The project file is refused, with what is wrong in the expression."""
    (tmp_path / "project.toml").write_text('name = "p"\ngroup_by = "(a"\n[labels]\na = ["a"]\nb = ["b"]')
    with pytest.raises(ProjectError, match=r"group_by.*'\(a' is not a regular expression \(.*unterminated"):
        Project.load(tmp_path / "project.toml")


def test_few_pictures_are_compared_too(gathered):
    """One picture per label, then a third that is one of them mirrored."""
    photos = {label: different(label, 1) for label in LABELS}
    copies = find_copies(read_dataset(gathered(photos)))
    assert copies.sentence == "Compared by content: 2 pictures, no near-duplicates."
    copies = find_copies(read_dataset(gathered({"cat": {"z.jpg": ImageOps.mirror(photos["cat"]["a.jpg"])}})))
    assert copies.sentence == "Compared by content: 3 pictures, 1 group of near-duplicates." and len(copies.links) == 1


def test_what_cannot_be_read_is_said(gathered):
    """Two pictures that broke since 02 are counted as not compared, and stay alone."""
    project = gathered({label: different(label, 4) for label in LABELS})
    dataset = read_dataset(project)
    for path in dataset.paths[:2]:
        path.write_bytes(b"no picture")
    copies = find_copies(dataset)
    assert (
        copies.sentence == "Compared by content: 6 pictures, no near-duplicates. Not compared: 2 that cannot be read."
    )
    assert len(set(copies.groups.values())) == 8


def test_nothing_is_compared_twice(gathered, monkeypatch):
    """A second run opens nothing and compares nothing; a new photo is compared with its neighbours only."""
    project = gathered({label: different(label, 12) for label in LABELS})
    first = find_copies(read_dataset(project))
    done = counting(monkeypatch)
    assert find_copies(read_dataset(project)) == first and sum(done.values()) == 0
    gathered({"cat": {"new.jpg": draw_picture(301, size=SIZE)}})
    find_copies(read_dataset(project))
    assert done["points"] == 1 and 0 < done["pairs"] < 60


def counting(monkeypatch) -> Counter:
    """Count the pictures whose points are found and the pairs that are compared from now on."""
    done = Counter()
    for name, module, function in (("points", points, "points_row"), ("pairs", verdicts, "compared")):
        monkeypatch.setattr(module, function, noting(done, name, getattr(module, function)))
    return done


def noting(done: Counter, name: str, function):
    """Return a function that counts its calls."""

    def call(*args):
        done[name] += 1
        return function(*args)

    return call


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_that_is_killed_goes_on(gathered, monkeypatch, step):
    """At each write: what was kept before is not done again, and the result is the same."""
    photos = {"cat": different("cat", 12), "dog": different("dog", 11)}
    photos["dog"]["copy.jpg"] = ImageOps.mirror(photos["cat"]["a.jpg"]).resize((180, 135))
    project = gathered(photos)
    monkeypatch.setattr("utils.copies.points.POINTS_TOGETHER", 12)
    monkeypatch.setattr("utils.copies.verdicts.PAIRS_TOGETHER", 40)
    keep, calls = kept.write_whole, []

    def killed(path, data):
        calls.append(path)
        if len(calls) == step:
            raise KeyboardInterrupt
        keep(path, data)

    monkeypatch.setattr(kept, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        find_copies(read_dataset(project))
    done = counting(monkeypatch)
    copies = find_copies(read_dataset(project))
    assert done["points"] == max(0, 24 - 12 * (step - 1))
    assert sum(done.values()) > 0 and len(copies.links) > 0
    shutil.rmtree(project.data / "copies")
    assert find_copies(read_dataset(project)) == copies


def test_broken_files_are_made_anew(gathered):
    """Cut short, of another form, or holding objects: removed, and nothing in them is unpickled."""
    project = gathered({label: different(label, 4) for label in LABELS})
    whole = find_copies(read_dataset(project))
    for folder in (project.data / "copies").iterdir():
        (path,) = folder.iterdir()
        path.write_bytes(path.read_bytes()[:100])
        np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
        np.save(folder / "numbers.npy", np.zeros(3))
    assert find_copies(read_dataset(project)) == whole
    assert [len(list(folder.iterdir())) for folder in (project.data / "copies").iterdir()] == [1, 1]


def test_a_burst_is_not_one_picture(gathered):
    """Frames of one scene, in which the subject moves, belong together; only a frame saved anew is the same picture."""
    photos = {label: different(label, 6) for label in LABELS}
    photos["cat"] |= {f"IMG_{n:04}.jpg": scene(n) for n in range(3)}
    photos["dog"]["again.jpg"] = scene(0).resize((180, 135))
    project = gathered(photos)
    dataset, copies = read_dataset(project), find_copies(read_dataset(project))
    versions = defaultdict(set)
    for id, name in zip(dataset.ids, dataset.names, strict=True):
        versions[copies.photos[id]].add(name)
    assert [names for names in versions.values() if len(names) > 1] == [{"IMG_0000.jpg", "again.jpg"}]
    assert [len(names) for names in named_groups(project).values()] == [4]


def test_many_saves_of_a_photo_do_not_hide_its_crop(gathered):
    """Twelve saves of a photo and twelve of its crop under another label: one group, though all nearest are saves."""
    rng = np.random.default_rng(0)
    fine = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(SIZE)
    image = Image.blend(draw_picture(77, size=SIZE), fine, 0.3)
    photos = {label: different(label, 12) for label in LABELS}
    for n, letter in enumerate("abcdefghijkl"):
        photos["cat"][f"photo{letter}.jpg"] = saved_at(image, 60 + 3 * n)
        photos["dog"][f"crop{letter}.jpg"] = saved_at(image.crop((20, 15, 190, 140)).resize(SIZE), 60 + 3 * n)
    assert list(map(len, named_groups(gathered(photos)).values())) == [24]


def saved_at(image: Image.Image, quality: int) -> Image.Image:
    """Return an image as a JPEG of some quality shows it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_what_earlier_runs_compared_decides_nothing(gathered):
    """It is read and not computed again; but only the pairs that a run asks for count in it."""
    dataset = read_dataset(gathered({label: different(label, 3) for label in LABELS}))
    found, pairs = points.picture_points(dataset, {}), np.array([[0, 1], [0, 2], [1, 2]])
    verdicts.Verdicts(dataset, found).of(pairs)
    again = verdicts.Verdicts(dataset, found)
    assert len(again.known()[0]) == 0
    again.of(pairs[1:2])
    assert again.known()[0].tolist() == [[0, 2]]


def test_a_camera_frame_saved_twice_stands_on_one_side(gathered):
    """Each frame of a fixed camera lies there again, smaller: both have one block."""
    photos = {label: {} for label in LABELS}
    for k, label in enumerate(LABELS):
        for n in range(14):
            image = scene(n + 14 * k, colour=("gold", "navy")[k])
            photos[label][f"cam_{n + 14 * k:04}.jpg"] = image
            photos[label][f"cam_{n + 14 * k:04}_small.jpg"] = image.resize((120, 90))
    copies, dataset = split_of(gathered(photos))
    assert "fixed camera" in copies.sentence
    sides = sides_by_name(dataset)
    assert len(sides) == 28 and set(sides.values()) == {1}


@pytest.mark.parametrize("added", ["_small", " (1)", "_640"])
def test_a_camera_frame_that_comes_later_joins_its_version(gathered, added):
    """The versions have a side already, the frames themselves come later: each gets the side of its version."""
    frames = {
        label: {n: scene(n + 14 * k, colour=colour) for n in range(14)} for k, (label, colour) in enumerate(COLOURS)
    }
    split_of(
        gathered(
            {
                label: {
                    f"cam_{14 * k + n:04}{added}.jpg": image.resize((120, 90)) for n, image in frames[label].items()
                }
                for k, label in enumerate(LABELS)
            }
        )
    )
    copies, dataset = split_of(
        gathered(
            {
                label: {f"cam_{14 * k + n:04}.jpg": image for n, image in frames[label].items()}
                for k, label in enumerate(LABELS)
            }
        )
    )
    assert len(dataset) == 56 and "fixed camera" in copies.sentence
    sides = sides_by_name(dataset)
    assert len(sides) == 28 and set(sides.values()) == {1}


def test_camera_frames_that_stand_apart_are_told(gathered):
    """Two versions of one frame on two sides are a leak like any other."""
    photos = {
        label: {f"cam_{14 * k + n:04}.jpg": scene(n + 14 * k, colour=colour) for n in range(14)}
        for k, (label, colour) in enumerate(COLOURS)
    }
    photos["cat"]["cam_0003 (1).jpg"] = photos["cat"]["cam_0003.jpg"].resize((180, 135))
    project = gathered(photos)
    copies, dataset = split_of(project)
    assert leak_warning(dataset, copies.links) == ""
    frame = next(picture for picture, name in zip(dataset, dataset.names, strict=True) if name == "cam_0003.jpg")
    other = next(side for side in ("train", "valid") if side != frame.side)
    table = project.table("split")
    table.write_text(
        table.read_text().replace(f"{frame.id},{frame.group},{frame.side}", f"{frame.id},{frame.id},{other}")
    )
    copies, dataset = split_of(project)
    assert leak_warning(dataset, copies.links).startswith(
        "1 group of pictures that belong together stands on different"
    )


def sides_by_name(dataset) -> dict[str, int]:
    """Return, for each first eight letters of own file names, on how many sides such pictures stand."""
    sides = defaultdict(set)
    for picture, name in zip(dataset, dataset.names, strict=True):
        sides[name[:8]].add(picture.side)
    return {name: len(each) for name, each in sides.items()}


def test_an_empty_training_set_says_why(gathered):
    """02 ran and took nothing: the reason stands there, not "run 02"."""
    tiny = {f"{chr(97 + n)}.jpg": draw_picture(n, size=(28, 28)) for n in range(4)}
    project = gathered({"cat": dict(list(tiny.items())[:2]), "dog": dict(list(tiny.items())[2:])})
    with pytest.raises(
        FieldguideError, match=r"02 set all pictures aside; .* of 4: too small: 28×28 pixels, at least 64"
    ):
        find_copies(read_dataset(project))
