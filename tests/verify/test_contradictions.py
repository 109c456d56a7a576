"""02: the same picture under two labels, saved anew."""

from conftest import draw_picture, picture_bytes, put_raw

from utils.dataset import read_dataset
from utils.verify import find_contradictions, verify_images


def test_pictures_saved_anew_under_two_labels_stand_in_pairs(make_project, fill_raw):
    """Two of four cats lie smaller and of less quality among the dogs: two pairs, and four pictures of eight."""
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
    assert [(one.id, other.id) for one, other in twice.pairs] == sorted(both)
    assert twice.sentence == (
        "4 of 8 pictures contradict each other. Near-duplicates under two labels: 2 pairs (2 in “cat” and “dog”)."
    )


def test_near_duplicates_under_one_label_contradict_nobody(make_project, fill_raw):
    """The same picture in two qualities, both cats."""
    project = make_project()
    fill_raw(project, 2)
    for quality in (92, 60):
        put_raw(project, "cat", picture_bytes(draw_picture(5000, size=(320, 240)), quality=quality))
    verify_images(project)
    twice = find_contradictions(read_dataset(project))
    assert (twice.pairs, twice.sentence) == ([], "No picture and its near-duplicate lie in two folders.")


def test_a_label_without_a_picture_is_no_error(make_project):
    """02 says it in its first remark and goes on; nothing is compared yet."""
    project = make_project()
    put_raw(project, "cat", picture_bytes(draw_picture(1)))
    verify_images(project)
    twice = find_contradictions(read_dataset(project))
    assert twice.sentence == "Near-duplicates were not compared, because “dog” has no picture yet."
