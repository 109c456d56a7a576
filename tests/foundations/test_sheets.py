"""Contact sheets: how a notebook shows them."""

import matplotlib.pyplot as plt
import numpy as np
from conftest import draw_picture
from fastai.interpret import ClassificationInterpretation
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from utils.sheets import contact_sheet, labels_as_written, png_bytes, without_formulas


def test_a_notebook_stores_a_sheet_once():
    """As JPEG; Pillow's images come as PNG too, which weighs six times as much."""
    formats, _ = DisplayFormatter().format(contact_sheet([draw_picture(1), draw_picture(2)]))
    assert sorted(formats) == ["image/jpeg", "text/plain"]


def test_a_caption_may_have_two_lines():
    """Each line gets its own room below the pictures, also under those whose caption has one."""
    photos = [draw_picture(1), draw_picture(2)]
    one, two = (contact_sheet(photos, ["a", caption]) for caption in ("b", "b\nc"))
    assert two.height - one.height == 16
    assert min(two.crop((0, one.height, *two.size)).convert("L").get_flattened_data()) < 100


LABELS = ["US$ coin, A$ coin", "$x^2$", r"\$x_1$", "$"]


def test_a_dollar_is_a_letter_in_our_figures():
    """A label with two dollar signs is drawn as it is written: as matplotlib draws it when told to look for nothing."""

    def drawn(label, **options):
        figure = Figure()
        figure.subplots().set_title(label, **options)
        return png_bytes(figure)

    for label in LABELS:
        assert drawn(without_formulas(label)) == drawn(label, parse_math=False)
    assert drawn(LABELS[1]) != drawn(LABELS[1], parse_math=False)


def test_a_dollar_is_a_letter_in_fastais_figures(monkeypatch):
    """fastai's confusion matrix names its rows and columns letter by letter, also when it is shown after the cell."""
    interpretation = object.__new__(ClassificationInterpretation)
    monkeypatch.setattr(interpretation, "vocab", LABELS, raising=False)
    monkeypatch.setattr(interpretation, "confusion_matrix", lambda: np.eye(len(LABELS), dtype=int))
    with labels_as_written():
        interpretation.plot_confusion_matrix()
    axes = plt.gcf().axes[0]
    png_bytes(plt.gcf())
    plt.close()
    shown = [label for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()]
    assert [label.get_text() for label in shown] == LABELS * 2
    assert not any(label.get_parse_math() for label in shown)
