"""Which photos are shown to a person, in which order, and what is offered there."""

from utils.boxes import Box
from utils.detect import BoxSuspect, photos_to_mend


def suspect(kind, id, score, label="boat"):
    return BoxSuspect(kind, id, Box(label, 0.1, 0.1, 0.4, 0.4), score)


def test_each_photo_comes_once_the_most_doubtful_first():
    """The order is that of the first suspect of each photo; a photo tells at most three doubts, and counts the rest."""
    found = [suspect("background", "b", 0.9), suspect("missed", "a", 0.8), *[suspect("loose", "b", 0.7)] * 4]
    looks = photos_to_mend(found)
    assert [look.id for look in looks] == ["b", "a"]
    assert looks[0].reason.startswith("A detector finds a boat (90 %) where no box is. A detector finds the boat")
    assert looks[0].reason.endswith("And 2 more doubts.")


def test_only_what_boxes_csv_lacks_is_offered():
    """A box that nobody finds again is doubted, and not offered; one that was found is."""
    looks = photos_to_mend([suspect("missed", "a", 0.8), suspect("background", "b", 0.9)])
    assert [len(look.offered) for look in looks] == [0, 1]
