"""
The confusion matrix as buttons: a cell shows its pictures in the grid. matrix.js and matrix.css are the browser's half.

The table is the widget's state, and so stands in a saved notebook. A message names a cell by its row and column, and is
hostile until checked.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import anywidget
import traitlets

from utils.clean.grid import Grid
from utils.errors import FieldguideError
from utils.widgets import front_end, unforeseen
from utils.words import counted

MOST_LABELS = 24  # rows, and columns, that are shown
logger = logging.getLogger(__name__)


class ConfusionMatrix(anywidget.AnyWidget):
    """
    A matrix of the pictures that the model has judged: its rows are folders and its columns the model's answers.

    The pictures of the cell that a person presses are shown by `grid`. Folders are those of the moment when a cell was
    last pressed. Of more than 24 labels, those with the most errors are shown.
    """

    _esm = front_end(Path(__file__).with_name("matrix.js"))
    _css = Path(__file__).with_name("matrix.css")
    table = traitlets.Dict().tag(sync=True)  # labels (K), counts (K rows of K numbers), note

    def __init__(self, grid: Grid):
        self._grid, self._cleaning = grid, grid.cleaning
        cells = self._cells()
        self._labels, self._note = _most_confused(cells)
        super().__init__(table=self._table(cells))
        self.on_msg(self._receive)

    def _receive(self, widget, content, buffers) -> None:
        self.send({"tell": "said", "text": self.answer(content)})

    def answer(self, content) -> str:
        """Have the grid show the pictures of a cell, the most confident first; return what was done, in words."""
        row, column = (content.get(key) if isinstance(content, dict) else None for key in ("row", "column"))
        if not all(type(n) is int and 0 <= n < len(self._labels) for n in (row, column)):
            return "There is no such cell. Reload the browser's page."
        with self._cleaning.lock:
            try:
                return self._open(row, column)
            except FieldguideError as error:
                return str(error)
            except Exception as error:
                return unforeseen(error, logger, "The matrix")

    def _open(self, row: int, column: int) -> str:
        label, said = self._labels[row], self._labels[column]
        self._cleaning.look()
        cells = self._cells()
        self.table = self._table(cells)
        if not (found := cells[label, said]):
            return "No picture is in this cell any more."
        name = f"{label}, right" if label == said else f"{label} taken for {said}"
        self._grid.show_list(name, [n for _, n in found], "Most confident first")
        return f"{counted(len(found))} shown in the cleaner below, the most confident answer first."

    def _cells(self) -> dict[tuple[str, str], list[tuple[float, int]]]:
        """Return (label, answer) → [(−confidence, position), …], sorted, of the pictures that were judged."""
        cells = defaultdict(list)
        for n, picture in enumerate(self._cleaning.pictures):
            if picture.label and (answer := self._cleaning.predicted(n)):
                cells[picture.label, answer[0]].append((-answer[1], n))
        return defaultdict(list, {cell: sorted(found) for cell, found in cells.items()})

    def _table(self, cells: Mapping[tuple[str, str], list]) -> dict:
        counts = [[len(cells[row, column]) for column in self._labels] for row in self._labels]
        return {"labels": self._labels, "counts": counts, "note": self._note}


def _most_confused(cells: Mapping[tuple[str, str], list]) -> tuple[list[str], str]:
    """Return the labels to show, sorted, and a sentence if those are not all."""
    labels, errors = sorted({label for cell in cells for label in cell}), Counter()
    if len(labels) <= MOST_LABELS:
        return labels, ""
    for (label, said), found in cells.items():
        if label != said:
            errors.update({label: len(found), said: len(found)})
    shown = sorted(labels, key=lambda label: (-errors[label], label))[:MOST_LABELS]
    return sorted(shown), f"{MOST_LABELS} of {len(labels):,} labels: those with the most errors."
