"""Painting masks: what is answered is on disk, undo outlasts the kernel, and nobody's mask is ever lost."""

import json
from contextlib import nullcontext
from itertools import count

import numpy as np
import pytest
from conftest import picture_bytes, tree
from mask_pictures import add_photo, photo_and_mask, with_photos
from PIL import Image

from utils.dataset import read_dataset, seeded_rank
from utils.errors import WriteError
from utils.masks import MaskPainter, drawing, fit_masker, masks_sentence, overlap, painting_wanted, take_masks
from utils.masks.network import BIAS, MAP_LEVELS, level_stages
from utils.masks.reading import read_photo
from utils.masks.strokes import inside_polygon, under_brush
from utils.masks.suggesting import uncertainty
from utils.project import Project
from utils.storage import content_id, write_whole

SHAPE = (120, 160)
LINE = {"do": "brush", "size": 20, "points": [[30, 40], [90, 40]]}
CORNERS = {"do": "polygon", "points": [[100, 60], [150, 60], [150, 110]]}
DOT = {"do": "erase", "size": 10, "points": [[60, 40]]}
NUMBERS = count()  # of strokes
LINE_MASK = under_brush(LINE["points"], 20, SHAPE)


class Page:
    """What a page does: it opens photos and sends strokes, each with a name of its own."""

    def __init__(self, dataset, masker=None):
        self.painter = MaskPainter(dataset, masker)

    def ask(self, what, **details):
        message, self.buffers = self.painter.answer({"ask": what, "view": "v", "serial": 1, **details})
        return json.loads(json.dumps(message))

    def open(self, id):
        self.photo = self.ask("open", key=id)
        return self.photo

    def stroke(self, stroke, **details):
        request = {"key": self.photo["key"], "token": f"v1-t{next(NUMBERS)}", "after": self.photo["last"], **stroke}
        answer = self.ask("stroke", **request | details)
        if answer["tell"] == "saved":
            self.photo |= answer
        return answer

    @property
    def mask(self):
        """The mask of the last answer."""
        return np.unpackbits(np.frombuffer(self.buffers[0], np.uint8), count=160 * 120).reshape(SHAPE) > 0

    def listed(self, name):
        """Return the keys of a whole list, in its order."""
        keys, total = [], 1
        while len(keys) < total:
            answer = self.ask("list", **{"list": name, "from": len(keys)})
            total = {each: count for each, _, count in answer["lists"]}[name]
            keys += [item["key"] for item in answer["items"]]
        return keys


@pytest.fixture
def project(make_project):
    return make_project(mask_source="paint", size=[96, 128])


def on_disk(project, id):
    """Return masks/<id>.png as bool, None if there is none."""
    path = project.data / "masks" / f"{id}.png"
    if not path.exists():
        return None
    with Image.open(path) as image:
        assert image.mode == "L" and set(np.unique(image)) <= {0, 255}
        return np.asarray(image) > 0


def same(one, other):
    np.testing.assert_array_equal(one, other)
    return True


def test_a_stroke_is_on_disk_when_it_is_answered(project):
    """masks/<id>.png holds what the strokes cover, the answer shows the same, and the log has a row per stroke."""
    dataset, ids = with_photos(project, 2)
    page = Page(dataset)
    assert (page.open(ids[0])["width"], page.photo["height"]) == (160, 120) and not page.mask.any()
    assert tree(project.data).keys() == tree(project.data).keys() - {f"masks/{ids[0]}.png"}
    for stroke in (LINE, CORNERS, DOT):
        assert page.stroke(stroke)["tell"] == "saved"
        assert same(on_disk(project, ids[0]), page.mask)
    expected = (LINE_MASK | inside_polygon(CORNERS["points"], SHAPE)) & ~under_brush(DOT["points"], 10, SHAPE)
    assert same(page.mask, expected) and on_disk(project, ids[1]) is None
    rows = (project.data / "masks" / "strokes" / f"{ids[0]}.csv").read_text().splitlines()
    assert [row.split(",")[2:] for row in rows[1:]] == [
        ["brush", "20", "30 40;90 40", ""],
        ["polygon", "", "100 60;150 60;150 110", ""],
        ["erase", "10", "60 40", ""],
    ]
    assert [mask.mask.stem for mask in take_masks(dataset).drawn] == [ids[0]]
    page.stroke({"do": "brush", "size": 9.5, "points": [[-3.25, 100], [-1, -7.5], [20.125, -4]]})  # at the border
    mask, again = page.mask, Page(dataset)
    assert again.open(ids[0])["undo"] == 4 and same(again.mask, mask) and mask.sum() > expected.sum()


def test_undo_and_redo_outlast_the_kernel(project):
    """A new kernel takes back what an old one stored, step by step; a new stroke ends what could be done again."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    states = [page.mask]
    for stroke in (LINE, CORNERS, DOT, {"do": "clear"}):
        page.stroke(stroke)
        states.append(page.mask)
    for n in (3, 2, 1, 0):
        page = Page(dataset)
        assert page.open(id)["undo"] == n + 1
        assert page.stroke({"do": "undo"})["redo"] == 4 - n
        assert same(page.mask, states[n])
    assert on_disk(project, id) is None
    assert page.stroke({"do": "undo"})["alert"] == "There is nothing to undo."
    page = Page(dataset)
    page.open(id)
    page.stroke({"do": "redo"})
    assert same(page.mask, states[1]) and same(on_disk(project, id), states[1])
    assert page.stroke(DOT)["redo"] == 0
    assert page.stroke({"do": "redo"})["alert"] == "There is nothing to do again."


def test_a_stroke_that_comes_twice_is_stored_once(project):
    """As when the answer was lost and the page sends it again, to this kernel or to the next."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    page.stroke(LINE, token="v1-1")
    page.stroke(DOT, token="v1-2")
    before = tree(project.data)
    for again in (page, Page(dataset)):
        again.open(id)
        answer = again.stroke(LINE, token="v1-1")
        assert (answer["tell"], answer["undo"], answer["last"]) == ("saved", 2, "v1-2")
    assert tree(project.data) == before


def test_nobody_undoes_what_they_have_not_seen(project):
    """Of two pages, the one that has not seen the last stroke is told of it, and takes nothing back."""
    dataset, (id,) = with_photos(project, 1)
    one, other = Page(dataset), Page(dataset)
    for page in (one, other):
        page.open(id)
    one.stroke(LINE)
    for do in ("undo", "clear", "redo"):
        answer = other.stroke({"do": do})
        assert (answer["tell"], answer["again"]) == ("unsaved", False) and "changed elsewhere" in answer["alert"]
    other.stroke(CORNERS)
    assert same(on_disk(project, id), LINE_MASK | inside_polygon(CORNERS["points"], SHAPE))


# --- masks of other hands ---------------------------------------------------------------------------------------------


def put_mask(project, id, image, **options):
    path = project.data / "masks" / f"{id}.png"
    write_whole(path, picture_bytes(image, options.pop("format", "PNG"), **options))
    return path.read_bytes()


def kept(project, data):
    return (project.data / "masks" / "strokes" / f"{content_id(data)}.png").read_bytes() == data


def test_a_mask_that_was_there_is_the_first_layer_and_stays(project):
    """It is shown, and nothing is written by looking; the first stroke keeps its file, and undo ends at it."""
    dataset, (id,) = with_photos(project, 1)
    mask = photo_and_mask(0)[1]
    data, before = put_mask(project, id, mask), tree(project.data)
    page = Page(dataset)
    assert page.open(id)["undo"] == 0 and same(page.mask, np.asarray(mask) > 0)
    assert tree(project.data) == before
    assert page.stroke(LINE)["undo"] == 1 and kept(project, data)
    assert same(on_disk(project, id), LINE_MASK | (np.asarray(mask) > 0))
    page = Page(dataset)
    page.open(id)
    assert page.stroke({"do": "undo"})["undo"] == 0
    assert same(on_disk(project, id), np.asarray(mask) > 0)
    assert page.stroke({"do": "undo"})["tell"] == "unsaved" and page.stroke({"do": "clear"})["tell"] == "saved"
    assert on_disk(project, id) is None and kept(project, data)


def test_a_mask_that_was_changed_elsewhere_is_taken_over(project):
    """Between two strokes of one page: the next stroke is drawn on the new mask, and undo leads back to both."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    page.stroke(LINE)
    mask = np.asarray(photo_and_mask(7)[1]) > 0
    data = put_mask(project, id, photo_and_mask(7)[1])
    assert "changed elsewhere" in page.stroke({"do": "undo"})["alert"] and same(on_disk(project, id), mask)
    page.stroke(CORNERS)
    assert same(on_disk(project, id), mask | inside_polygon(CORNERS["points"], SHAPE)) and kept(project, data)
    page.stroke({"do": "undo"})
    assert same(on_disk(project, id), mask)
    page.stroke({"do": "undo"})
    assert same(on_disk(project, id), LINE_MASK)


def test_a_mask_that_was_deleted_by_hand_does_not_come_back(project):
    """The next stroke begins anew, and undo brings the deleted mask back."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    page.stroke(LINE)
    page.stroke(CORNERS)
    before = on_disk(project, id)
    (project.data / "masks" / f"{id}.png").unlink()
    take_masks(dataset)
    assert on_disk(project, id) is None and not (page.open(id) and page.mask.any())
    page.stroke(DOT | {"do": "brush"})
    assert same(on_disk(project, id), under_brush(DOT["points"], 10, SHAPE))
    page.stroke({"do": "undo"})
    page.stroke({"do": "undo"})
    assert same(on_disk(project, id), before)


def test_a_mask_that_cannot_be_used_is_told_and_kept(project):
    """One in colour: the page says why it begins without it, and the first stroke keeps its file."""
    dataset, (id,) = with_photos(project, 1)
    data = put_mask(project, id, photo_and_mask(0)[0])
    page = Page(dataset)
    assert "it is in colour" in page.open(id)["alert"] and not page.mask.any()
    page.stroke(LINE)
    assert same(on_disk(project, id), LINE_MASK) and kept(project, data)
    page.stroke(DOT)
    assert Page(dataset).open(id)["undo"] == 2


def test_a_soft_and_larger_mask_is_taken_over_as_03a_reads_it(project):
    """Scaled, and cut at the middle of its values; its file is kept as it was."""
    dataset, (id,) = with_photos(project, 1)
    large = photo_and_mask(0)[1].resize((480, 360), Image.Resampling.BICUBIC)
    data = put_mask(project, id, large)
    (drawn,) = take_masks(dataset).drawn
    page = Page(dataset)
    page.open(id)
    assert same(page.mask, drawn.read()[1]) and (project.data / "masks" / f"{id}.png").read_bytes() == data
    page.stroke(LINE)
    assert same(on_disk(project, id), drawn.read()[1] | LINE_MASK) and kept(project, data)


def test_what_a_person_cleared_does_not_come_back_from_the_source(make_project, tmp_path):
    """mask_source brings a mask once; cleared, it stays away, and the copy is kept."""
    project = make_project(mask_source=str(tmp_path / "outlines"))
    dataset, (id,) = with_photos(project, 1)
    write_whole(tmp_path / "outlines" / f"{id}.png", picture_bytes(photo_and_mask(0)[1], "PNG"))
    assert take_masks(dataset).copied == 1
    page = Page(dataset)
    page.open(id)
    page.stroke({"do": "clear"})
    taken = take_masks(dataset)
    assert (taken.copied, taken.drawn, taken.refused) == (0, (), ())


def test_an_empty_or_full_mask_is_no_mask(project):
    """No file is written for either, and the page says why a full mask is not used."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    whole = {"do": "polygon", "points": [[0, 0], [160, 0], [160, 120], [0, 120]]}
    assert "covers the whole photo" in page.stroke(whole)["remark"] and on_disk(project, id) is None
    page.stroke(DOT)
    assert on_disk(project, id).sum() == 160 * 120 - under_brush(DOT["points"], 10, SHAPE).sum()


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_run_of_03a_draws_the_stroke_that_a_kill_left_undrawn(project, monkeypatch):
    """The row is on disk, the picture is not: `take_masks` draws it, and the masker learns from the whole mask."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    page.stroke(LINE)
    with monkeypatch.context() as broken:
        broken.setattr(drawing, "write_whole", failing)
        page.stroke(CORNERS)
    (mask,) = take_masks(dataset).drawn
    assert same(mask.read()[1], LINE_MASK | inside_polygon(CORNERS["points"], SHAPE))


def failing(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("part", ["append_rows", "write_whole"])
def test_what_cannot_be_stored_is_said_and_can_be_sent_again(project, monkeypatch, part):
    """A full disk, at the log or at the picture: the page keeps the stroke, and the same one is stored once later."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    page.stroke(LINE)
    with monkeypatch.context() as broken:
        broken.setattr(drawing, part, failing)
        answer = page.stroke(CORNERS, token="v1-2")
        assert (answer["tell"], answer["token"], answer["again"]) == ("unsaved", "v1-2", True)
        assert "No space left" in answer["alert"] and same(on_disk(project, id), LINE_MASK)
    assert page.stroke(CORNERS, token="v1-2")["undo"] == 2
    assert same(on_disk(project, id), LINE_MASK | inside_polygon(CORNERS["points"], SHAPE))


def test_a_torn_row_is_dropped(project):
    """A kill in the middle of a row: what was answered is there, and the next stroke is stored after it."""
    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    page.stroke(LINE)
    page.stroke(DOT)
    before = on_disk(project, id)
    log = project.data / "masks" / "strokes" / f"{id}.csv"
    whole = log.read_bytes()
    for torn in (b"2026-11-28T12:00:00+00:00,v1-3,bru", b"2026-11-28T12:00:00+00:00,v1-3,brush,20,30 40;9,"):
        log.write_bytes(whole + torn)
        page = Page(dataset)
        with pytest.warns() if torn.endswith(b",") else nullcontext():
            page.open(id)
        assert same(page.mask, before)
        page.stroke(CORNERS)
        assert page.stroke({"do": "undo"})["tell"] == "saved" and same(on_disk(project, id), before)


@pytest.mark.parametrize("row", ["burn,20,1 2,", "brush,20,1 2 3,", "brush,nan,1 2,", "brush,20,,", "found,,,../x"])
def test_a_damaged_log_is_said_and_the_mask_stays(project, row):
    """With its place and row; the other photos can be painted."""
    dataset, ids = with_photos(project, 2)
    page = Page(dataset)
    page.open(ids[0])
    page.stroke(LINE)
    log = project.data / "masks" / "strokes" / f"{ids[0]}.csv"
    log.write_text(log.read_text() + f"2026-11-28T12:00:00+00:00,v1-3,{row}\n")
    page = Page(dataset)
    answer = page.open(ids[0])
    assert answer["tell"] == "alert" and f"{log}, row 3" in answer["alert"]
    assert same(on_disk(project, ids[0]), LINE_MASK) and take_masks(dataset).drawn
    assert page.ask("hello")["items"] and page.open(ids[1])["tell"] == "photo"


HOSTILE = [
    None, [], "hello", {}, {"ask": None}, {"ask": ["hello"]}, {"ask": "answer"}, {"ask": "open"},
    {"ask": "open", "key": "../../etc/passwd"}, {"ask": "open", "key": ["x"]}, {"ask": "list"},
    {"ask": "list", "list": "next", "from": -1}, {"ask": "list", "list": "next", "from": True},
    {"ask": "list", "list": "next", "from": 10**30}, {"ask": "list", "list": ["next"], "from": 0},
    {"ask": "stroke"}, {"ask": "stroke", "key": "x", "token": "t"},
    {"ask": "hello", "view": "v" * 10_000, "serial": 1e300}, {"ask": "hello", "view": "\ud800", "serial": 2**60},
]  # fmt: skip


@pytest.mark.parametrize("message", HOSTILE, ids=repr)
def test_a_hostile_message_is_answered_and_changes_nothing(project, message):
    """With an alert or, where it is one that the page may send, with what it asks for; nothing is written."""
    dataset, _ = with_photos(project, 2)
    painter, before = MaskPainter(dataset), tree(project.data)
    answer, _ = painter.answer(message)
    json.dumps(answer).encode()
    assert answer["tell"] in ("alert", "unsaved", "list") and len(answer["view"]) <= 60 and tree(project.data) == before
    if answer["tell"] != "list":
        assert answer["alert"].endswith(".") and not answer.get("again")


def test_a_bad_stroke_is_dropped_by_the_page(project):
    """What is wrong in itself is never sent again: the page would wait behind it for ever."""
    dataset, (id,) = with_photos(project, 1)
    page, before = Page(dataset), tree(project.data)
    page.open(id)
    for stroke in (
        LINE | {"size": 1000},
        {"do": "found", "file": "0" * 16},
        {"do": "masker"},
        {"do": "undo"},
        {"do": "clear"},
    ):
        answer = page.stroke(stroke)
        assert (answer["tell"], answer["again"]) == ("unsaved", False) and answer["alert"]
    assert set(tree(project.data)) - set(before) <= {".lock"}


def test_a_photo_that_cannot_be_read_is_told(project):
    """It is shown as a grey card in the strip; opening it says why there is nothing to paint on."""
    dataset, ids = with_photos(project, 2)
    dataset[ids[0]].path.write_bytes(b"no picture")
    page = Page(dataset)
    assert len(page.ask("hello")["items"]) == 2 == len(page.buffers)
    assert "its photo cannot be read" in page.open(ids[0])["alert"]


# --- which photo next -------------------------------------------------------------------------------------------------


def sided(project):
    """Return ids by side, of 8 photos to train, 3 to validate and 2 to test."""
    sides = ["train"] * 8 + ["valid"] * 3 + ["test"] * 2
    ids = [add_photo(project, n, "cat", side=side) for n, side in enumerate(sides)]
    return ids[:8], ids[8:]


def test_without_a_masker_the_seed_chooses(project):
    """The training set first, the judging photos apart; what has a mask or was skipped is offered no more."""
    train, judging = sided(project)
    page = Page(read_dataset(project))
    by_seed = sorted(train, key=lambda id: seeded_rank(project.seed, id))
    assert page.listed("next") == by_seed
    assert page.listed("judge") == sorted(judging, key=lambda id: seeded_rank(project.seed, id))
    page.open(by_seed[0])
    assert page.stroke(LINE)["state"] == "mask"
    page.open(by_seed[1])
    assert page.stroke({"do": "skip"})["state"] == "skipped"
    page.open(judging[0])
    page.stroke(LINE)
    assert "1 photo of the training set and 1 to judge" in page.photo["note"] and "paint 9 more" in page.photo["note"]
    page = Page(read_dataset(project))
    assert page.listed("next") == by_seed[2:] and page.listed("skipped") == [by_seed[1]]
    assert page.listed("painted") == sorted([by_seed[0], judging[0]]) and len(page.listed("judge")) == 4
    page.open(by_seed[1])
    page.stroke(LINE)
    assert page.listed("skipped") == []
    assert "clear the mask first" in page.stroke({"do": "skip"})["alert"]


def test_the_masker_is_asked_and_its_doubts_come_first(project):
    """Photos are judged a few at a time, between strokes; then the least sure is the first."""
    train, judging = sided(project)
    for n, id in enumerate(train[:4]):
        put_mask(project, id, photo_and_mask(n)[1])
    dataset = read_dataset(project)
    masker, stages = fit_masker(project, take_masks(dataset).drawn, folds=0), level_stages()
    page = Page(dataset, masker)
    assert (
        page.ask("hello")["setup"]["judges"]
        and page.ask("list", **{"list": "next", "from": 0})["items"][0]["unsure"] is None
    )
    told = page.ask("judge")
    while told["done"] < told["of"]:
        told = page.ask("judge")
    assert told["of"] == 4  # not those with a mask, nor those that judge
    doubts = {id: uncertainty(masker, stages, read_photo(dataset[id].path)[0]) for id in train[4:]}
    assert page.listed("next") == sorted(doubts, key=doubts.get, reverse=True)
    assert page.listed("judge") == sorted(judging, key=lambda id: seeded_rank(project.seed, id))
    assert [item["unsure"] for item in page.ask("list", **{"list": "next", "from": 0})["items"]] == sorted(
        (round(doubt, 3) for doubt in doubts.values()), reverse=True
    )


def test_uncertainty_is_1_where_nothing_is_known_and_0_where_all_is(project):
    """Scores of 0 are one half everywhere; with a large bias, each place is sure. At three quarters: 0.811 bits."""
    add_photo(project, 0, "cat")
    for n in range(2):
        put_mask(project, add_photo(project, 3 + n, "cat"), photo_and_mask(3 + n)[1])
    masker = fit_masker(project, take_masks(read_dataset(project)).drawn, folds=0)
    stages, image = level_stages(), photo_and_mask(0)[0]
    for level in MAP_LEVELS:
        masker.head[str(level)].zero_()
    for bias, expected in ((0.0, 1.0), (40.0, 0.0), (-40.0, 0.0), (float(np.log(3)), 0.8113)):
        masker.head[BIAS].fill_(bias)
        assert uncertainty(masker, stages, image) == pytest.approx(expected, abs=1e-3)


# --- a first mask to correct ------------------------------------------------------------------------------------------


def test_a_box_gives_a_mask_to_correct(project):
    """GrabCut finds a disc in a box; what was painted outside of it stays, and undo takes all of it back at once."""
    dataset, (id,) = with_photos(project, 1)
    disc = np.asarray(photo_and_mask(0)[1]) > 0
    (top, bottom), (left, right) = ((places.min() - 8, places.max() + 9) for places in np.nonzero(disc))
    page = Page(dataset)
    page.open(id)
    far = {"do": "brush", "size": 6, "points": [[4, 4] if left > 20 else [150, 110]]}
    page.stroke(far)
    page.stroke({"do": "grabcut", "points": [[int(left), int(top)], [int(right), int(bottom)]]})
    assert overlap(page.mask & ~under_brush(far["points"], 6, SHAPE), disc) > 0.9
    found = page.mask
    assert same(Page(dataset).open(id) and on_disk(project, id), found)
    page.stroke({"do": "undo"})
    assert same(page.mask, under_brush(far["points"], 6, SHAPE))
    page.stroke({"do": "redo"})
    assert same(page.mask, found)


def test_a_box_on_a_photo_of_one_colour_is_told(project):
    """There is nothing to tell apart: a sentence, and no stroke."""
    data = picture_bytes(Image.new("RGB", (160, 120), "navy"))
    write_whole(project.images / "cat" / f"{content_id(data)}.jpg", data)
    page = Page(read_dataset(project))
    page.open(content_id(data))
    answer = page.stroke({"do": "grabcut", "points": [[40, 40], [90, 90]]})
    assert (answer["tell"], answer["again"]) == ("unsaved", False) and "by hand" in answer["alert"]


def test_the_masker_suggests(project):
    """Its mask replaces what is there, as one step; the next masker does not change it."""
    dataset, ids = with_photos(project, 6)
    for n, id in enumerate(ids[:5]):
        put_mask(project, id, photo_and_mask(n)[1])
    masker = fit_masker(project, take_masks(dataset).drawn, folds=0)
    page = Page(dataset, masker)
    page.open(ids[5])
    page.stroke(LINE)
    page.stroke({"do": "masker"})
    assert overlap(page.mask, np.asarray(photo_and_mask(5)[1]) > 0) > 0.6 and page.photo["undo"] == 2
    found = on_disk(project, ids[5])
    again = Page(dataset)
    again.open(ids[5])
    assert same(again.mask, found)


def test_the_masker_suggests_nothing_where_it_is_judged(project):
    """A mask that began as its own would flatter it; the box is there for such photos, too."""
    judging = add_photo(project, 9, "cat", side="valid")
    dataset, ids = with_photos(project, 3)
    for n, id in enumerate(ids):
        put_mask(project, id, photo_and_mask(n)[1])
    page = Page(dataset, fit_masker(project, take_masks(dataset).drawn, folds=0))
    assert page.open(judging)["judges"]
    answer = page.stroke({"do": "masker"})
    assert (answer["tell"], answer["again"]) == ("unsaved", False) and "will judge the masker" in answer["alert"]
    assert page.stroke({"do": "grabcut", "points": [[5, 5], [150, 110]]})["tell"] == "saved"


# --- where the painter is shown ---------------------------------------------------------------------------------------


def test_painting_is_offered_where_masks_are_wanted(make_project, tmp_path):
    """By the project file, or by a mask that is there; else the sentence says how to begin."""
    project = make_project()
    dataset, (id,) = with_photos(project, 1)
    assert not painting_wanted(dataset)
    assert 'mask_source = "paint"' in masks_sentence(take_masks(dataset), wanted=False)
    put_mask(project, id, photo_and_mask(0)[1])
    assert painting_wanted(dataset) and "paint more below" in masks_sentence(take_masks(dataset), wanted=True)
    for key in ({"mask_source": "paint"}, {"mask": "channel", "train": "all"}):
        other = read_dataset(make_project(name="other", **key))
        assert painting_wanted(other) and "Paint some" in masks_sentence(take_masks(other), wanted=True)


def test_paint_is_a_word_and_no_folder(tmp_path):
    """mask_source = "paint" stays as it is; "./paint" is a folder beside the project file."""
    path = tmp_path / "project.toml"
    text = 'name = "a"\nmask_source = "{}"\n[labels]\na = ["a"]\nb = ["b"]\n'
    for given, expected in (("paint", "paint"), ("./paint", str(tmp_path / "paint"))):
        path.write_text(text.format(given), encoding="utf-8")
        assert Project.load(path).mask_source == expected


def test_write_errors_are_told_with_their_remedy(project, monkeypatch):
    """A folder that may not be written to: the sentence of `WriteError`, and the page keeps the stroke."""

    def refused(*args, **kwargs):
        raise WriteError("Cannot write there: this account may not.")

    dataset, (id,) = with_photos(project, 1)
    page = Page(dataset)
    page.open(id)
    monkeypatch.setattr(drawing, "append_rows", refused)
    answer = page.stroke(LINE)
    assert (answer["again"], answer["alert"]) == (True, "Cannot write there: this account may not.")
