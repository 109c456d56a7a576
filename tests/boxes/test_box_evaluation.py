"""4_test: the verdict, the test set that stays closed, rounds, out-of-fold boxes and suspects."""

import json
from types import SimpleNamespace

import pytest
from drawn_boxes import fill_project

from utils.boxes import Box, BoxLedger, read_photos
from utils.detect import evaluate_boxes, evaluating, folding, read_found
from utils.detect.detecting import ScoredBox
from utils.detect.evaluating import worst_photos
from utils.detect.folding import box_suspects, out_of_fold_boxes
from utils.detect.keeping import DETECTOR_FILE
from utils.errors import FieldguideError
from utils.storage import file_hash

DETECT = {"task": "detect", "source": "photos", "labels": {}, "arch": "efficientnet_lite0", "size": 64}


def seen_in(photo) -> tuple[ScoredBox, ...]:
    """Return what a stand-in finds in a photo: all of it, and a box of low score that is wrong."""
    right = [ScoredBox(box.label, *box.corners, score=0.9) for box in photo.boxes]
    return (*right, ScoredBox("ball", 0.0, 0.9, 0.1, 1.0, score=0.2))


@pytest.fixture
def judged(make_project, monkeypatch):
    """Return the photos of a project, a stand-in for a detector, and which photos it was asked about."""
    project, asked = make_project(**DETECT), []
    fill_project(project, 20)
    photos = read_photos(project)
    project.models.mkdir(parents=True)
    (project.models / DETECTOR_FILE).write_bytes(b"a detector")
    settings = {"plan": "a", "usual_plan": "a"}
    record = {"data": photos.fingerprint, "settings": settings, "asked": {}}
    detector = SimpleNamespace(record=record | {"file": file_hash(project.models / DETECTOR_FILE)})

    def found(detector, photos, *, told=""):
        asked.extend(photo.id for photo in photos)
        return {photo.id: seen_in(photo) for photo in photos}

    monkeypatch.setattr(evaluating, "detect_boxes", found)
    monkeypatch.setattr(folding, "detect_boxes", found)
    return photos, detector, asked


def test_the_test_set_stays_closed(judged):
    """Only photos of the validation set are looked at until the test set is asked for; openings are counted."""
    photos, detector, asked = judged
    evaluation = evaluate_boxes(photos, detector)
    assert set(asked) == set(photos.on("valid").dataset.ids)
    assert (evaluation["test"], evaluation["test_opened"], evaluation["task"]) == ({}, 0, "detect")
    assert evaluation["verdict"]["found"] == evaluation["verdict"]["things"] > 0 == evaluation["verdict"]["wrong"]
    assert evaluation["threshold"] == 0.55  # in the middle between .9 and .2
    assert evaluation["valid"]["figures"]["ap50"]["value"] == 1
    opened = evaluate_boxes(photos, detector, open_test=True)
    assert opened["test_opened"] == 1 and opened["verdict"]["side"] == "test"
    assert set(asked) == set(photos.on("valid", "test").dataset.ids)
    assert evaluate_boxes(photos, detector) == opened
    assert json.loads((photos.project.models / "evaluation.json").read_text()) == opened


def test_a_round_stands_and_the_next_has_a_number(judged):
    """Judged again nothing is asked; another detector is a round of its own, and the first one's boxes stay."""
    photos, detector, asked = judged
    evaluate_boxes(photos, detector)
    count, first = len(asked), read_found(photos.project)
    evaluate_boxes(photos, detector)
    assert len(asked) == count
    (photos.project.models / DETECTOR_FILE).write_bytes(b"another detector")
    with pytest.raises(FieldguideError, match="another detector meanwhile"):
        evaluate_boxes(photos, detector)
    detector.record["file"] = file_hash(photos.project.models / DETECTOR_FILE)
    (photos.project.models / "rounds/001/boxes.csv").write_text(
        "id,side,label,left,top,right,bottom,score\nx,valid,,,,,,\n"
    )
    evaluate_boxes(photos, detector)
    assert read_found(photos.project, number=2) == first
    assert read_found(photos.project, number=1) == {"x": ()}


def test_boxes_come_back_from_their_round(judged):
    """boxes.csv of a round holds each found box, and each judged photo in which nothing was found."""
    photos, detector, _ = judged
    evaluate_boxes(photos, detector)
    valid = photos.on("valid")
    assert read_found(photos.project) == {photo.id: seen_in(photo) for photo in valid}
    assert [box.score for box in read_found(photos.project)[valid.dataset.ids[0]]][-1] == 0.2
    worst = worst_photos(valid, read_found(photos.project), 0.1)
    assert list(worst.kinds) == ["background"] * len(valid) and len(worst_photos(valid, {}, 0.1)) == 0


def test_another_detector_than_the_trained_one_is_refused(judged):
    """A detector of other photos is not judged on these."""
    photos, _, _ = judged
    with pytest.raises(FieldguideError, match="Run 3_train again"):
        evaluate_boxes(photos, SimpleNamespace(record={"data": "others"}))


def test_evaluation_json_of_another_kind_is_refused(judged):
    """A file of a project that tells photos apart is not overwritten."""
    photos, detector, _ = judged
    path = photos.project.models / "evaluation.json"
    path.write_text('{"form": 4, "verdict": {}}')
    with pytest.raises(FieldguideError, match="tells photos apart"):
        evaluate_boxes(photos, detector)
    assert path.read_text() == '{"form": 4, "verdict": {}}'


def test_no_detector_judges_what_it_has_seen(judged, monkeypatch):
    """Each training photo is judged once, by a detector that was not trained on it; groups stay together."""
    photos, _, asked = judged
    ids = photos.on("train").dataset.ids
    groups = {id: f"pair {n // 2}" for n, id in enumerate(ids)}
    rows = "".join(f"{photo.id},{groups.get(photo.id, photo.id)},{photo.side}\n" for photo in photos)
    photos.project.table("split").write_text("id,group,side\n" + rows)
    photos, trained = read_photos(photos.project), []

    def trains(divided, **_):
        mine = set(divided.on("train").dataset.ids)
        assert not mine & set(divided.on("valid").dataset.ids)
        assert {groups[id] for id in mine}.isdisjoint(groups[id] for id in divided.on("valid").dataset.ids)
        trained.append(mine)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return SimpleNamespace(model=None), []

    monkeypatch.setattr(folding, "train_as_3", trains)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold_boxes(photos, folds=3)
    found, told = out_of_fold_boxes(photos, folds=3)
    assert len(trained) == 4  # the second one twice
    assert sorted(asked) == sorted(found) == sorted(ids)
    assert found == {photo.id: seen_in(photo) for photo in photos.on("train")}
    assert out_of_fold_boxes(photos, folds=3) == (found, told) and len(trained) == 4


def test_the_ranking_goes_on_while_boxes_are_mended(judged, monkeypatch):
    """
    After a save the same detectors stand, and that is said; what was mended is no doubt any more. `again` trains anew,
    and so do other photos.
    """
    photos, trained = judged[0], []
    project = photos.project

    def trains(divided, **_):
        trained.append(divided)
        return SimpleNamespace(model=None), []

    monkeypatch.setattr(folding, "train_as_3", trains)
    first = next(photo for photo in photos.on("train") if photo.boxes)
    BoxLedger(project).save(first.id, first.boxes, first.boxes[1:])
    photos = read_photos(project)
    monkeypatch.setattr(folding, "detect_boxes", lambda _, some: {p.id: (*seen_in(p), *lacking(p)) for p in some})

    def lacking(photo):
        return [ScoredBox(b.label, *b.corners, score=0.9) for b in first.boxes[:1] if photo.id == first.id]

    found, _ = out_of_fold_boxes(photos)
    assert [(each.kind, each.id) for each in box_suspects(photos, found)] == [("background", first.id)]
    BoxLedger(project).undo()
    later = read_photos(project)
    again, told = out_of_fold_boxes(later)
    assert again == found and len(trained) == 3 and "again=True" in told and box_suspects(later, again) == []
    _, told = out_of_fold_boxes(later, again=True)
    assert len(trained) == 6 and "as they are" in told and out_of_fold_boxes(later)[1] == told and len(trained) == 6
    first.path.unlink()
    out_of_fold_boxes(read_photos(project))
    assert len(trained) == 9


def test_suspects_stand_in_the_order_of_their_scores(judged):
    """A thing that nobody finds comes first, then a sure box where nothing is; a right box is no suspect."""
    photos, _, _ = judged
    one, other = [photo for photo in photos.on("train") if photo.boxes][:2]
    lacks = ScoredBox("ball", 0.0, 0.0, 0.05, 0.05, score=0.8)
    found = {one.id: (lacks, *seen_in(one)), other.id: tuple(seen_in(other)[1:])}
    suspects = box_suspects(photos, found)
    assert [(one.kind, one.id, one.score) for one in suspects] == [
        ("missed", other.id, 1.0),
        ("background", one.id, 0.8),
    ]
    assert suspects[0].box == other.boxes[0] and isinstance(suspects[0].box, Box)
