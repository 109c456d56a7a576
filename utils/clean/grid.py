"""
Stage 06: the cleaner as a grid of pictures, on anywidget: the kernel's half; grid.js and grid.css are the browser's.

Reads and writes what `cleaning` does. The browser asks and gets one answer: hello, page, flag, undo, apply or zoom in;
page, flags, zoom or alert out. Messages name pictures by their keys. Thumbnails travel as binary buffers and never as
widget state, so that neither notebook nor kernel grows; a choice is shown once the kernel has said that it is stored.
Messages are hostile until checked: a bad one is answered with an alert.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import anywidget

from utils.clean.session import (
    CHANGED,
    DECIDED,
    LABEL,
    LOOK_FIRST,
    NAME,
    SIDES,
    UNDECIDED,
    WORST,
    Cleaning,
    View,
    original,
    summary,
    web_pages,
)
from utils.clean.thumbnails import Thumbnails, draw_large
from utils.errors import FieldguideError
from utils.ledger import DELETE, KEEP

LONGEST = 100  # characters of the name that a view of this widget gives itself
logger = logging.getLogger(__name__)


class Grid(anywidget.AnyWidget):
    """
    The grid.

    Parameters
    ----------
    cleaning : Cleaning
    labels : sequence of str
        The labels to offer; the number keys 1 to 9 mean the first nine.
    height, width : int
        Pixels of a thumbnail.
    max_n : int
        Pictures a page.
    """

    _esm = Path(__file__).with_name("grid.js")
    _css = Path(__file__).with_name("grid.css")

    def __init__(self, cleaning: Cleaning, *, labels: Sequence[str], height: int, width: int, max_n: int):
        super().__init__()  # in Colab it also switches widgets of this kind on
        self.cleaning = cleaning
        self._labels, self._height, self._width, self._size = list(labels), height, width, max_n
        self._thumbnails = Thumbnails(height=height, width=width)
        self._keys = {_sendable_key(key): key for key in cleaning.positions}
        self._sent_keys = {key: sent for sent, key in self._keys.items()}
        self._web_pages, self._warning = _web_pages(cleaning)
        self._page, self._view = 0, View(list=next(iter(cleaning.lists), ""))
        self._selected, self._moves = cleaning.select(self._view), cleaning.moves
        self.on_msg(self._receive)

    def _receive(self, widget, content, buffers) -> None:
        self.send(*self.answer(content))
        self._thumbnails.draw_ahead([self.cleaning.pictures[n].path for n in self._on_page(self._page + 1)])

    def answer(self, content) -> tuple[dict, list[bytes]]:
        """Return the answer to a message from the browser, and the binary buffers that go with it."""
        request = content if isinstance(content, dict) else {}
        handlers = {
            "hello": self._hello,
            "page": self._turn,
            "flag": self._flag,
            "undo": self._undo,
            "apply": self._apply,
            "zoom": self._zoom,
        }
        with self.cleaning.lock:
            news = ""
            try:
                what = _one_of(handlers, request, "ask")
                news = self._refresh(what)
                handler = self._look_first if what == "apply" and news else handlers[what]
                message, buffers = handler(request)
                if self._moves != self.cleaning.moves and message["tell"] == "flags":
                    message, buffers = self._show(message["alert"])
            except FieldguideError as error:
                message, buffers = {"tell": "alert", "alert": str(error)}, []
            except Exception as error:  # told to the person; the kernel and the other pictures are none the worse
                logger.exception("The cleaner could not answer.")
                message, buffers = {"tell": "alert", "alert": f"That did not work: {type(error).__name__}: {error}"}, []
            message["alert"] = " ".join(filter(None, [news, message["alert"]]))
            message |= {"counts": self.cleaning.progress(), "place": self._place()}
        # Who asked, and which time: so a view can tell an answer that came too late.
        asker, serial = request.get("view"), request.get("serial")
        message["view"] = asker if isinstance(asker, str) and len(asker) <= LONGEST else ""
        message["serial"] = serial if type(serial) is int and abs(serial) < 2**53 else 0
        return _sendable(message), buffers

    def _refresh(self, what: str) -> str:
        """Take over what happened elsewhere; a table that cannot be read stops what would write to it, and no more."""
        try:
            news = self.cleaning.refresh()
        except FieldguideError as error:
            if what in ("flag", "undo", "apply"):
                raise
            news = str(error)
        if self._moves != self.cleaning.moves:
            self._selected = self.cleaning.select(self._view)
        return news

    # --- answers ---

    def _hello(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Tell a view that has just been made all it needs, and the page that is open."""
        message, buffers = self._show(self._warning)
        message["setup"] = {
            "labels": self._labels,
            "sides": list(SIDES),
            "shows": [UNDECIDED, DECIDED],
            "sorts": [WORST, NAME, LABEL],
            "project": self.cleaning.project is not None,
            "height": self._height,
            "width": self._width,
        }
        return message, buffers

    def _turn(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show another page, or another selection."""
        view = View(
            list=_one_of(["", *self.cleaning.lists], request, "list"),
            label=_one_of(["", *self.cleaning.labels], request, "label"),
            side=_one_of(["", *SIDES], request, "side"),
            show=_one_of(["", UNDECIDED, DECIDED], request, "show"),
            sort=_one_of([WORST, NAME, LABEL], request, "sort"),
        )
        page = request.get("page")
        if type(page) is not int:
            raise FieldguideError("The page was asked for by no number. Reload the browser's page.")
        # Turning pages keeps the selection as it was made: among the undecided, those just decided would make room,
        # and the next page would skip as many.
        if view != self._view:
            self._view, self._selected = view, self.cleaning.select(view)
        self._page = page
        return self._show()

    def _flag(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Store one choice for one or several pictures."""
        sent = request.get("keys")
        if not isinstance(sent, list) or not 1 <= len(sent) <= self._size:
            raise FieldguideError(f"A choice is for 1 to {self._size} pictures, those of a page. Nothing was stored.")
        keys = [self._key(key) for key in sent]
        choice = request.get("choice")
        if choice is not None:
            choice = _one_of([KEEP, DELETE, *self._labels], request, "choice")
        refused = self.cleaning.flag(dict.fromkeys(keys, choice))
        return self._flags(keys, alert=_told(refused))

    def _undo(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Take the last step back."""
        undone = self.cleaning.undo()
        done = [key for key, reason in undone.items() if not reason]
        name = self.cleaning.pictures[self.cleaning.positions[done[0]]].path.name if done else ""
        back = f"Taken back: {name if len(done) == 1 else f'the choice for {len(done)} pictures'}." if done else ""
        changed = sum(reason == CHANGED for reason in undone.values())
        flags = "1 flag was" if changed == 1 else f"{changed} flags were"
        since = f"Not taken back: {flags} changed elsewhere since." if changed else ""
        left = _told({key: reason for key, reason in undone.items() if reason not in ("", CHANGED)})
        message, buffers = self._flags(list(undone), alert=" ".join(filter(None, [back, since, left])))
        return message | {"undone": True}, buffers

    def _apply(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Have the files moved, and show what is left."""
        if not self.cleaning.project:
            raise FieldguideError("Without a project nothing is applied here. Use cleaner.delete() and .change().")
        said = summary(self.cleaning.apply())
        self._selected = self.cleaning.select(self._view)
        return self._show(said)

    def _look_first(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show what was changed elsewhere, instead of carrying out what nobody saw here."""
        return self._show(LOOK_FIRST)

    def _zoom(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show one picture in full."""
        key = self._key(request.get("key"))
        picture, project = self.cleaning.pictures[self.cleaning.positions[key]], self.cleaning.project
        paths = [original(project, picture), picture.path] if project else [picture.path]
        large = draw_large(paths)
        message = {"tell": "zoom", "key": self._sent_keys[key], "problem": large.problem, "alert": ""}
        return message, [large.jpeg] if large.jpeg else []

    # --- their parts ---

    def _show(self, alert: str = "") -> tuple[dict, list[bytes]]:
        """Return the page that is open."""
        self._moves = self.cleaning.moves
        pages = self._pages()
        self._page = min(max(self._page, 0), pages - 1)
        positions = self._on_page(self._page)
        drawn = self._thumbnails.draw([self.cleaning.pictures[position].path for position in positions])
        cards = []
        for position, small in zip(positions, drawn, strict=True):
            cards.append(self._card(position) | {"problem": small.problem})
        present = {name: len(self.cleaning.select(View(list=name))) for name in self.cleaning.lists}
        message = {
            "tell": "page",
            "chosen": asdict(self._view),
            "lists": list(present.items()),
            "cards": cards,  # the buffers are the thumbnails of those without a problem, in this order
            "page": self._page,
            "pages": pages,
            "alert": alert or ("" if cards else "No pictures here: choose another list, label, side or show."),
        }
        return message, [small.jpeg for small in drawn if not small.problem]

    def _card(self, position: int) -> dict:
        """Return what a card tells about a picture."""
        cleaning, picture = self.cleaning, self.cleaning.pictures[position]
        label, probability = cleaning.predicted(position) or (None, None)
        reasons = cleaning.reasons
        lists = [self._view.list] if self._view.list else list(reasons)
        return {
            "key": self._sent_keys[picture.key],
            "file": picture.path.name,
            "label": picture.label,
            "predicted": label,
            "probability": probability,
            "loss": None if label is None else cleaning.loss(position),
            "side": picture.side,
            "reason": next((reasons[name][position] for name in lists if position in reasons.get(name, {})), ""),
            "page": self._web_pages.get(picture.key, ""),
            "choice": cleaning.choice(position),
        }

    def _flags(self, keys: Sequence[str], *, alert: str) -> tuple[dict, list[bytes]]:
        """Return the flags of pictures and of the page that is open, as they are stored."""
        shown = [self.cleaning.pictures[position].key for position in self._on_page(self._page)]
        choices = {self._sent_keys[key]: self.cleaning.choices.get(key) for key in [*keys, *shown]}
        return {"tell": "flags", "choices": choices, "first": self._sent_keys[keys[0]], "alert": alert}, []

    def _on_page(self, page: int) -> list[int]:
        return self._selected[page * self._size : (page + 1) * self._size]

    def _pages(self) -> int:
        return max(1, -(-len(self._selected) // self._size))

    def _place(self) -> str:
        count = len(self._selected)
        return f"Page {self._page + 1:,} of {self._pages():,}, {count:,} picture{'s' * (count != 1)}"

    def _key(self, sent) -> str:
        """Return the key that a message names, or raise where there is none such."""
        if not isinstance(sent, str) or sent not in self._keys:
            raise FieldguideError(f"There is no picture {str(sent)[:LONGEST]!r} here. Reload the browser's page.")
        return self._keys[sent]


def _one_of(values, request: Mapping, name: str) -> str:
    """Return what a message says under a name, or raise where it is none of the values."""
    value = request.get(name)
    if not isinstance(value, str) or value not in values:
        raise FieldguideError(f"{str(value)[:LONGEST]!r} is no {name} that is offered here. Reload the browser's page.")
    return value


def _told(refused: Mapping[str, str]) -> str:
    """Return in words why flags were not stored, each reason once."""
    reasons = list(dict.fromkeys(refused.values()))
    more = f" And {len(reasons) - 3} reasons more." if len(reasons) > 3 else ""
    return f"Not stored: {' '.join(reasons[:3])}{more}" if reasons else ""


def _web_pages(cleaning: Cleaning) -> tuple[dict[str, str], str]:
    """Return id → web page, and why there are none: a broken table is told, and stops nobody from cleaning."""
    try:
        return (web_pages(cleaning.project) if cleaning.project else {}), ""
    except (FieldguideError, OSError) as error:
        return {}, f"The pages that the pictures came from are not linked: {error}"


def _sendable_key(key: str) -> str:
    """Return a key as text that travels; a path that is no valid text as the digits of its bytes."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return f"bytes {os.fsencode(key).hex()}"
    return key


def _sendable(message: dict) -> dict:
    """Return a message whose texts all are valid: a file's name need not be."""
    return json.loads(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"))
