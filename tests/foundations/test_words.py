"""Words: numbers and verdicts as a reader meets them."""

import pytest

from utils.intervals import figure, verdict
from utils.words import counted, few_photos_sentence, percent, share, verdict_sentence


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (figure(0.5, 0.25, 0.75, 4), "50.0 % (25.0 % to 75.0 %)"),
        (figure(0.5, 0.25, None, 4), "50.0 % (at least 25.0 %)"),
        (figure(0.5, None, 0.75, 4), "50.0 % (at most 75.0 %)"),
        (figure(0.5, None, None, 1, why="no spread"), "50.0 %"),
        (figure(None, 0, 1, 0, why="no picture"), "– (no picture)"),
    ],
)
def test_a_figure_is_told_with_what_is_known_of_it(entry, text):
    """Both ends, one of them, none, or the reason why there is no figure."""
    assert percent(entry, told="") == text


def test_a_share_is_never_none_or_all_where_it_is_some():
    """Only 0 is 0 %, only 1 is 100 %."""
    assert [share(value) for value in (0, 1e-9, 0.5, 1 - 1e-9, 1)] == ["0 %", "under 1 %", "50 %", "over 99 %", "100 %"]


@pytest.mark.parametrize(
    ("right", "n", "guess", "told"),
    [
        (33, 36, 18, "That is better than guessing."),
        (23, 36, 18, "On so few photos this cannot be told from guessing."),
        (18, 36, 18, "That is no better than guessing."),
        (5, 36, 18, "That is no better than guessing."),
        (1010, 2000, 1000, "On these photos this cannot be told from guessing."),
    ],
)
def test_the_sentence_claims_what_the_verdict_says(right, n, guess, told):
    """Better only if the verdict says so; more right than a guess, but not surely, is told as such."""
    labels = [0] * guess + [1] * (n - guess)
    found = verdict(labels, [*labels[:right], *[2] * (n - right)])
    start = f"Right for {right:,} of {counted(n, 'photo')}; guessing would get {guess:,}. "
    assert verdict_sentence(found) == start + told


def test_the_sentence_says_that_near_duplicates_count_once():
    """Where the photos are more than the sentence counts, it says why."""
    found = verdict([0, 0, 1], [0, 0, 1], groups=["a", "a", "b"])
    assert verdict_sentence(found).startswith("Right for 2 of 2 photos (photos of one group counted once); guessing")


def test_labels_of_fewer_than_5_photos_are_named():
    """Four are few and five are not; the smallest come first, and of many labels eight are named."""
    assert few_photos_sentence(["cat"] * 5) == few_photos_sentence([]) == ""
    assert few_photos_sentence(["dog"] * 4 + ["cat"] * 5 + ["ant"]).startswith(
        "Fewer than 5 photos: “ant” (1), “dog” (4)."
    )
    many = few_photos_sentence([f"w{n}" for n in range(10)])
    assert "“w7” (1) and 2 more." in many and "w8" not in many
