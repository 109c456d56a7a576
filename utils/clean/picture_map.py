"""
The map: all pictures as points, alike ones together. The kernel's half; picture_map.js and .css are the browser's.

Places come from `layout`; what a person decides, and which pictures are which, from the grid's `Cleaning`. The browser
asks hello, point or fill; the answers are map, point, filled or alert, and "changed" comes by itself. Places, labels
and thumbnails travel as binary buffers and never as widget state. Messages are hostile until checked.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import anywidget
import numpy as np

from utils.clean.grid import LONGEST_ECHO, Grid
from utils.clean.opened import FROM_MAP
from utils.clean.thumbnails import Thumbnails
from utils.errors import FieldguideError
from utils.ledger import DELETE, KEEP
from utils.widgets import front_end, sendable, unforeseen
from utils.words import counted, share

NOWHERE = 2**16 - 1  # the code of a picture that is not on the map
MAP_PICTURE = 160  # pixels of a picture that is pointed at

logger = logging.getLogger(__name__)


class PictureMap(anywidget.AnyWidget):
    """
    N pictures as points whose colour is their label; those that look wrong have a ring.

    `places` (N, 2) lie in the unit square, NaN for a picture that has none. Pictures that a person draws around are
    shown by `grid`.
    """

    _esm = front_end(Path(__file__).with_name("picture_map.js"))
    _css = Path(__file__).with_name("picture_map.css")

    def __init__(self, grid: Grid, places: np.ndarray):
        super().__init__()
        self._grid, self._cleaning, self._places = grid, grid.cleaning, places.astype("<f4")
        self._placed = ~np.isnan(places).any(1)
        self._codes = {label: code for code, label in enumerate(grid.labels)}
        self._thumbnails = Thumbnails(height=MAP_PICTURE, width=MAP_PICTURE)
        self._state = self._now()  # as every view shows it
        grid.followers.append(self.follow)
        self.on_msg(self._receive)

    def _receive(self, widget, content, buffers) -> None:
        self.send(*self.answer(content))

    def answer(self, content) -> tuple[dict, list[bytes]]:
        """Return the answer to a message from the browser, and the binary buffers that go with it."""
        request = content if isinstance(content, dict) else {}
        asks = {"hello": self._hello, "point": self._point, "fill": self._fill}
        what = request.get("ask")
        with self._cleaning.lock:
            try:
                if not isinstance(what, str) or what not in asks:
                    raise FieldguideError(f"The map cannot do {str(what)[:LONGEST_ECHO]!r}. Reload the browser's page.")
                message, buffers = asks[what](request)
            except FieldguideError as error:
                message, buffers = {"tell": "alert", "alert": str(error)}, []
            except Exception as error:
                message, buffers = {"tell": "alert", "alert": unforeseen(error, logger, "The map")}, []
        return sendable(message), buffers

    def follow(self) -> None:
        """Tell the views of which points anything that they show is another now."""
        with self._cleaning.lock:
            before, self._state = self._state, self._now()
            changed = np.flatnonzero((before != self._state).any(0)).astype("<u4")
            if len(changed):
                codes, marks = self._state[:2, changed]
                buffers = [changed.tobytes(), codes.astype("<u2").tobytes(), marks.astype("u1").tobytes()]
                self.send({"tell": "changed"}, buffers)

    def _now(self) -> np.ndarray:
        """Return codes of labels with what was decided, rings, and codes of folders and choices: int array (4, N)."""
        cleaning = self._cleaning
        folders = np.array([self._codes.get(picture.label, NOWHERE) for picture in cleaning.pictures], dtype=int)
        codes, chosen = folders.copy(), np.zeros_like(folders)
        for id, choice in cleaning.choices.items():
            if (n := cleaning.positions.get(id)) is not None and codes[n] != NOWHERE:
                codes[n] = codes[n] if choice == KEEP else self._codes.get(choice, NOWHERE)
                chosen[n] = 1 if choice == KEEP else 2 + codes[n]
        codes[~self._placed] = NOWHERE
        wrong = cleaning.live.trust < 0 if cleaning.live else np.zeros(len(codes), dtype=bool)  # not so for NaN
        return np.stack([codes, wrong & (chosen == 0), folders, chosen])

    def _hello(self, request: Mapping) -> tuple[dict, list[bytes]]:
        codes, marks = self._state[:2]
        missing = int((~self._placed & self._cleaning.there).sum())
        look = "looks, so it is" if missing == 1 else "look, so they are"
        note = f"Nothing is known of how {counted(missing)} {look} not on the map." if missing else ""
        buffers = [self._places.tobytes(), codes.astype("<u2").tobytes(), marks.astype("u1").tobytes()]
        return {"tell": "map", "labels": self._grid.labels, "note": note}, buffers

    def _point(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Return what a card would say of one picture, and its thumbnail."""
        n, cleaning = self._position(request.get("n")), self._cleaning
        picture = cleaning.pictures[n]
        said = cleaning.predicted(n)
        told = [f"Folder: {picture.label}." if picture.label else "Not in the training set any more."]
        told += [f"Model: {said[0]} ({share(said[1])})."] if said else []
        if choice := cleaning.choices.get(picture.id):
            told.append({KEEP: "Keep.", DELETE: "Delete."}.get(choice, f"Move to {choice}."))
        small = self._thumbnails.draw([picture.path])[0]
        message = {"tell": "point", "n": n, "file": cleaning.names[n], "told": " ".join(told), "problem": small.problem}
        return message, [small.jpeg] if small.jpeg else []

    def _fill(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Have the grid show pictures, those that look wrong first."""
        sent = request.get("points")
        if not isinstance(sent, list) or not 1 <= len(sent) <= len(self._places):
            raise FieldguideError(f"A list has 1 to {len(self._places):,} pictures. Nothing was opened.")
        positions = sorted({self._position(n) for n in sent})
        cleaning = self._cleaning
        worst = cleaning.live.arranged(positions) if cleaning.live else positions
        self._grid.show_list(FROM_MAP, worst, "Worst first")
        said = f"{counted(len(worst))} shown in the cleaner, worst first."
        return {"tell": "filled", "alert": said}, []

    def _position(self, sent) -> int:
        """Return the position that a message names, or raise if there is none such."""
        if type(sent) is not int or not 0 <= sent < len(self._places):
            raise FieldguideError(f"There is no picture {str(sent)[:LONGEST_ECHO]!r} here. Reload the browser's page.")
        return sent
