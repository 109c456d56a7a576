"""02: the same picture under two labels, saved anew."""

from conftest import draw_picture, picture_bytes, put_raw

from utils.dataset import read_dataset
from utils.verify import find_contradictions, verify_images


def test_pictures_saved_anew_under_two_labels_stand_together(make_project, fill_raw):
    """Two of four cats lie smaller and of less quality among the dogs: two photos, and four pictures of eight."""
    project = make_project()
    fill_raw(project, 2)
    both = []
    for n in (5000, 5001):
        image = draw_picture(n, size=(320, 240))
        one = put_raw(project, "cat", picture_bytes(image, quality=92))
        other = put_raw(project, "dog", picture_bytes(image.resize((300, 225)), quality=80))
        both.append((one, other))
    verify_images(project)
    twice = find_contradictions(read_dataset(project))
    assert [tuple(picture.id for picture in same) for same in twice.photos] == sorted(both)
    assert twice.sentence == (
        "4 of 8 pictures contradict each other: versions of 2 photos lie in several folders (2 under “cat” and “dog”)."
    )


def test_many_versions_of_one_photo_are_one(make_project):
    """Ten per folder, more than are compared with each: one photo, and all twenty pictures contradict each other."""
    project = make_project()
    image = draw_picture(5000, size=(320, 240))
    for n in range(10):
        put_raw(project, "cat", picture_bytes(image.resize((320 - 2 * n, 240 - 2 * n)), quality=95))
        put_raw(project, "dog", picture_bytes(image.crop((n, n, 300, 220)), quality=95))
    verify_images(project)
    (versions,) = find_contradictions(read_dataset(project)).photos
    assert len(versions) == 20


def test_near_duplicates_under_one_label_contradict_nobody(make_project, fill_raw):
    """The same picture in two qualities, both cats."""
    project = make_project()
    fill_raw(project, 2)
    for quality in (92, 60):
        put_raw(project, "cat", picture_bytes(draw_picture(5000, size=(320, 240)), quality=quality))
    verify_images(project)
    twice = find_contradictions(read_dataset(project))
    assert (twice.photos, twice.sentence) == ([], "No photo lies in two folders, saved anew.")


def test_a_label_without_a_picture_is_no_error(make_project):
    """02 says it in its first remark and goes on; nothing is compared yet."""
    project = make_project()
    put_raw(project, "cat", picture_bytes(draw_picture(1)))
    verify_images(project)
    twice = find_contradictions(read_dataset(project))
    assert twice.sentence == "Near-duplicates were not compared: there is no picture yet of “dog”."
