"""Candidates: exact neighbours, found without comparing all with all in memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.copies import HashSearch, hashes, neighbours, pieces, search_pieces, versions_of_one
from utils.copies.cameras import BLOCK, blocks_of
from utils.copies.geometry import DIFFERENT, SAME_PICTURE
from utils.copies.hashes import NEAR, hash_neighbours, near_pairs, nearest_pairs
from utils.copies.neighbours import feature_neighbours, following


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_near_pairs_are_those_of_all_pairs(seed, count):
    """The banded search finds exactly the pairs that comparing all with all finds."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for n in range(1, count, 2):  # plant near ones, up to 14 bits away
        flips = rng.choice(64, rng.integers(0, 15), replace=False)
        codes[n] = codes[n - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
    expected = {
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if bin(int(codes[i]) ^ int(codes[j])).count("1") <= NEAR
    }
    assert {tuple(pair) for pairs in near_pairs(codes) for pair in pairs.tolist()} == expected


def test_hash_neighbours_are_the_nearest_and_equal_ones_are_chained():
    """A thousand equal hashes make 999 pairs; of the others each has its two nearest, where they are near enough."""
    equal = np.full(1000, 2**63 + 5, dtype=np.uint64)
    others = np.array([0, 1, 3, 7, 2**40 - 1], dtype=np.uint64)
    pairs = hash_neighbours(np.concatenate([equal, others]), 2).tolist()
    assert sum(second < 1000 for _, second in pairs) == 999
    assert sorted(pair for pair in pairs if pair[0] >= 1000) == [
        *([1000, 1001], [1000, 1002], [1001, 1002], [1001, 1003], [1002, 1003])
    ]


def test_a_search_in_pieces_finds_the_same(monkeypatch):
    """Whatever a piece's size: random hashes, planted copies up to 14 bits away, a blank frame, a camera's frames."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    for n in range(1, 1500, 2):
        flips = rng.choice(64, rng.integers(0, 15), replace=False).astype(np.uint64)
        codes[n] = codes[n - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
    codes[1500:2000] = codes[1500]
    codes[2000:2300] = codes[2000] ^ (np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64))
    whole = hash_neighbours(codes, neighbours.NEIGHBOURS)
    for size in (700, 10_000):
        monkeypatch.setattr(pieces, "PIECE_CODES", size)
        found = []

        def in_pieces(distinct, found=found):
            found += map(HashSearch(distinct).pairs, reversed(search_pieces(len(distinct))))
            return found

        assert hash_neighbours(codes, neighbours.NEIGHBOURS, in_pieces).tolist() == whole.tolist()
        assert max(map(len, found)) <= neighbours.NEIGHBOURS * len(codes)


@pytest.mark.parametrize("at_hand", [50, 2_000_000])
def test_the_order_of_the_pieces_changes_nothing(monkeypatch, at_hand):
    """Shuffled, and with farther ones dropped on the way: frames that are all near each other, many as near as many."""
    rng = np.random.default_rng(1)
    codes = np.unique(rng.integers(0, 2**64, 1, dtype=np.uint64) ^ rng.integers(0, 2**9, 300, dtype=np.uint64))
    near = np.bitwise_count(codes[:, None] ^ codes)
    found = np.argwhere(np.triu(near <= NEAR, 1))
    ranked = [[n for n in np.argsort(row, kind="stable") if n != own][:3] for own, row in enumerate(near)]
    expected = sorted({tuple(sorted((own, int(n)))) for own, others in enumerate(ranked) for n in others})
    monkeypatch.setattr(hashes, "CANDIDATES", at_hand)
    for _ in range(5):
        some = np.array_split(rng.permutation(found), 40)
        assert list(map(tuple, nearest_pairs(some, codes, 3).tolist())) == expected


def test_codes_that_share_a_band_do_not_come_at_once(monkeypatch):
    """600 codes in one band among 3,000 others make 360,000 candidates: none has too many at once."""
    monkeypatch.setattr(hashes, "CANDIDATES", 5000)
    codes = np.arange(3600, dtype=np.uint64) << np.uint64(3)
    codes[:600] = 2**63 + (np.arange(600, dtype=np.uint64) << np.uint64(16))
    parts = list(hashes.flipped_pairs(codes, hashes.in_bands(codes, 0), 0, near=64))
    assert sum(map(len, parts)) >= 600 * 599 and max(map(len, parts)) <= 5000 + 600


def test_equal_hashes_are_not_compared_with_each_other():
    """50,000 pictures with one hash: 49,999 pairs are compared, and where none is the same all stay alone."""
    asked = []

    def same(pairs):
        asked.append(len(pairs))
        return np.zeros(len(pairs), dtype=bool)

    roots = versions_of_one(np.full(50_000, 7, dtype=np.uint64), same, lambda codes: [])
    assert asked == [49_999] and roots.tolist() == list(range(50_000))


def test_answers_are_asked_for_once(monkeypatch):
    """Of pairs that come again, alone and among others, only new ones are asked; what was said of all is known."""
    monkeypatch.setattr(pieces, "LATE", 3)
    asked = []

    def same(pairs):
        asked.extend(map(tuple, pairs.tolist()))
        return pairs.sum(axis=1) % 2 == 0

    answers = pieces.PairAnswers(10, same)
    for pairs in ([[0, 2], [3, 4]], [[3, 4]], [[1, 3], [0, 2]], [[0, 9], [1, 2], [1, 3]], [[0, 9], [0, 2]]):
        expected = [SAME_PICTURE if (a + b) % 2 == 0 else DIFFERENT for a, b in pairs]
        assert answers.of(np.array(pairs)).tolist() == expected
    assert asked == [(0, 2), (3, 4), (1, 3), (0, 9), (1, 2)]
    assert answers.known()[0].tolist() == [[0, 2], [0, 9], [1, 2], [1, 3], [3, 4]]
    assert answers.known()[1].tolist() == [SAME_PICTURE, DIFFERENT, DIFFERENT, SAME_PICTURE, DIFFERENT]


def test_millions_of_answers_stand_in_arrays():
    """The first call brings nearly all pairs at once: no object is made for each."""
    pairs = np.stack([np.arange(200_000), np.arange(1, 200_001)], axis=1)
    answers = pieces.PairAnswers(200_001, lambda asked: asked[:, 0] % 2 == 0)
    tracemalloc.start()
    said = answers.of(pairs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said.tolist() == [SAME_PICTURE, DIFFERENT] * 100_000 and peak < 100 * len(pairs)


@pytest.mark.parametrize("at_once", [1, 7, 1024])
def test_feature_neighbours_are_exact(monkeypatch, at_once):
    """In blocks of any size: for each picture those of the largest cosine, and none for one without features."""
    monkeypatch.setattr(neighbours, "COMPARED_AT_ONCE", at_once)
    features = np.random.default_rng(0).random((30, 8), dtype=np.float32)
    features[7] = np.nan
    like = features @ features.T / np.sqrt(np.outer((features**2).sum(1), (features**2).sum(1)))
    np.fill_diagonal(like, -2)
    like[:, 7] = -3
    nearest = {n: np.argsort(-like[n])[:3].tolist() for n in range(30) if n != 7}
    expected = {tuple(sorted((n, m))) for n, others in nearest.items() for m in others}
    assert set(map(tuple, feature_neighbours(features, 3).tolist())) == expected


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_have_no_neighbours(count):
    """None, and one alone."""
    assert feature_neighbours(np.ones((count, 4), dtype=np.float32)).shape == (0, 2)
    assert hash_neighbours(np.ones(count, dtype=np.uint64), 5).shape == (0, 2)


def test_what_follows_within_the_gap_is_paired():
    """By hand: 1, 2 and 4 lie within 3 of the next or of the one after it; 20 stands alone."""
    values = np.array([4.0, 20.0, 1.0, 2.0])
    assert following(np.argsort(values), values, 3.0).tolist() == [[2, 3], [0, 3], [0, 2]]


def test_blocks_that_have_a_side_stay():
    """Newcomers within a block join it; at its edges and after the end they make blocks of their own."""
    earlier = {"b": "B", "d": "B", "e": "E"}
    names = blocks_of(["a", "b", "c", "d", "d2", "e", "f", "g", "h"], earlier, 2)
    assert {id: name.removeprefix(BLOCK) for id, name in names.items()} == {
        **{"a": "a", "b": "B", "c": "B", "d": "B", "d2": "d2", "e": "E", "f": "f", "g": "f", "h": "h"}
    }
    assert {name[: len(BLOCK)] == BLOCK for name in names.values() if name not in earlier.values()} == {True}
