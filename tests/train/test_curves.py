"""04, what a person sees: overfitting is named, with its epoch, in plain words."""

import io

import numpy as np
import pytest
from PIL import Image

from utils.train.curves import (
    best_row,
    epoch_label,
    history_table,
    overfitting_sentence,
    remark,
    schedule_picture,
    training_curve,
)
from utils.train.schedule import planned_rates


def history(*losses):
    """Return rows of history.csv with these pairs of training and validation loss."""
    rest = {"accuracy": 0.5, "lr": 1e-3, "seconds": 1.0}
    return [
        {"epoch": n, "phase": "unfrozen" if n else "frozen", "train_loss": a, "valid_loss": b} | rest
        for n, (a, b) in enumerate(losses)
    ]


HEART = history((1.0, 0.9), (0.8, 0.7), (0.6, 0.6), (0.4, 0.7), (0.2, 0.9))


def test_overfitting_is_said_with_its_epoch():
    """The sentence names the first epoch after the best one, and both losses."""
    sentence = overfitting_sentence(HEART)
    assert sentence.startswith("Overfitting from epoch 3 on: the training loss went from 0.60 to 0.20")
    assert "the validation loss from 0.60 to 0.90. Epoch 2 is kept" in sentence


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        (((1.0, 0.9), (0.8, 0.7)), "The last epoch, 1, is the best: no overfitting yet"),
        (((1.0, 0.9), (0.8, 0.7), (0.7, 0.71)), "no clear overfitting"),
        (((1.0, 0.9), (0.8, 0.7), (0.9, 1.2)), "no clear overfitting"),
        (((1.0, float("nan")),), "No epoch has a validation loss that is a number"),
    ],
)
def test_where_there_is_none_it_is_not_claimed(losses, says):
    """A last epoch that is best, a rise within chance, and a training that worsened too are no overfitting."""
    assert says in overfitting_sentence(history(*losses))


def test_every_epoch_has_its_remark():
    """Beside the kept epoch, those are marked where training is better than in it and validation clearly worse."""
    worse = "overfitting: training improved since epoch 2, validation worsened"
    assert [remark(row, best_row(HEART)) for row in HEART] == ["", "", "the best: its weights are kept", worse, worse]
    early = history((1.0, 0.7), (0.8, 0.9), (0.6, 0.6), (0.5, 0.61))  # worse before the best, and hardly worse after
    assert [remark(row, best_row(early)) for row in early] == ["", "", "the best: its weights are kept", ""]


def test_the_table_shows_the_remarks():
    """The page that a person reads holds each sentence, and seconds of a quick epoch are not rounded to none."""
    page = history_table(HEART).to_html()
    assert page.count("overfitting") == 2 and "its weights are kept" in page
    assert ">1.0<" in page and "remark" not in HEART[0]


def test_the_first_of_equal_epochs_is_the_best():
    """As the weights that are kept."""
    assert best_row(history((1, 0.5), (1, 0.5)))["epoch"] == 0
    assert best_row(history((1, float("nan")), (1, 0.5)))["epoch"] == 1


def test_the_curves_are_a_picture_of_three():
    """Wide enough for losses, accuracy and learning rate, also before the first batch."""
    rates = np.array([[np.nan, 1e-3]] * 4 + [[1e-4, 1e-3]] * 4)
    for known in (rates, rates[:0]):
        picture = Image.open(io.BytesIO(training_curve(HEART, known, title="goes on")))
        assert picture.format == "PNG" and picture.width > 3 * picture.height
    assert schedule_picture("smooth", rates).width > 300


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws the curves of so many epochs, the first ones frozen, and returns the figure."""
    kept = []
    monkeypatch.setattr("utils.train.curves.png_bytes", lambda figure: kept.append(figure) or b"")

    def draw(epochs, frozen=1, steps=3):
        rows = history(*((1 / (n + 1), 1.0) for n in range(epochs)))
        for row in rows:
            row["phase"] = "frozen" if row["epoch"] < frozen else "unfrozen"
        rates = planned_rates("one-cycle", epochs, steps=steps, base_lr=2e-3, lr_mult=100)[: steps * epochs]
        training_curve(rows, rates)
        kept[-1].canvas.draw()
        return kept[-1]

    return draw


@pytest.mark.parametrize("epochs", [1, 2, 5, 30])
def test_epochs_are_whole_numbers_in_every_panel(drawn, epochs):
    """No axis names a part of an epoch, and the first and the last epoch lie inside."""
    for axes in drawn(epochs).axes:
        names = [name.get_text() for name in axes.get_xticklabels()]
        assert names and all(name.lstrip("\N{MINUS SIGN}").isdigit() for name in names)
        left, right = axes.get_xlim()
        assert left <= 0 and right >= epochs - 1


@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 3), (2, 3), (5, 3), (30, 3)])
def test_no_text_of_the_rate_panel_touches_another(drawn, epochs, steps):
    """Names of marks, title, axis and lines stand apart, inside the picture and off the curves."""
    figure = drawn(epochs, steps=steps)
    axes = figure.axes[2]
    names = [*axes.get_xticklabels(), *axes.get_yticklabels(minor=True)]
    names += [name for name in axes.get_yticklabels() if axes.bbox.y0 - 1 <= name.get_window_extent().y1]
    texts = [text for text in (*names, axes.title, axes.xaxis.label) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for n, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[n + 1 :]), texts[n]
        assert box.x1 <= figure.bbox.x1, texts[n]
    legend = axes.get_legend().get_window_extent()
    points = np.concatenate([line.get_transform().transform(line.get_xydata()) for line in axes.lines])
    assert points[np.isfinite(points).all(1), 1].max() < legend.y0


def test_the_axis_says_which_epochs_are_frozen(drawn):
    """None, one or several."""
    rows = history((1, 1), (1, 1), (1, 1))
    assert epoch_label(rows) == "epoch (0 is the frozen one)"
    assert epoch_label([row | {"phase": "frozen"} for row in rows]) == "epoch (0 to 2 are the frozen ones)"
    assert [axes.get_xlabel() for axes in drawn(3, frozen=0).axes[:2]] == ["epoch", "epoch"]
