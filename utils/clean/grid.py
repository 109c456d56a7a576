"""
The cleaner as a grid of pictures, on anywidget: the kernel's half. grid.js and grid.css are the browser's.

Reads and writes what `session` does. The browser asks and gets one answer: hello, page, flag, undo, apply, back,
bring, zoom, like or leave in; page, flags, zoom or alert out. Messages name pictures by their ids. Thumbnails travel as
binary buffers and never as widget state, so that neither notebook nor kernel grows. A choice shows once the kernel has
said that it is stored. Messages are hostile until checked: a bad one is answered with an alert.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import anywidget

from utils.addresses import web_host
from utils.clean.applying import summary
from utils.clean.fitting import cards_that_fit
from utils.clean.opened import ALIKE_SHOWN, LIKE_ONE, OpenedLists, Place, look_alikes_told
from utils.clean.session import CHANGED_SINCE, DECIDED, UNDECIDED, Cleaning, View
from utils.clean.thumbnails import Thumbnails, draw_large, original
from utils.errors import FieldguideError
from utils.ledger import DELETE, KEEP
from utils.project import Project
from utils.tables import SIDES, SOURCES_COLUMNS, each_row
from utils.widgets import front_end, sendable, unforeseen
from utils.words import counted, share

LONGEST_ECHO = 100  # characters of a message that an answer repeats
LARGEST_ROOM = 100_000  # pixels
LOOK_FIRST = "Nothing was moved yet: look at what changed, then press the button again."
logger = logging.getLogger(__name__)


class Grid(anywidget.AnyWidget):
    """The grid; the parameters are those of `ImageClassifierCleaner`, `labels` are all that it offers."""

    _esm = front_end(Path(__file__).with_name("grid.js"))
    _css = Path(__file__).with_name("grid.css")
    ASKS = ("hello", "page", "flag", "undo", "apply", "back", "bring", "zoom", "like", "leave")  # each has its method

    def __init__(self, cleaning: Cleaning, *, labels: Sequence[str], height: int, width: int, max_n: int, note=""):
        super().__init__()  # in Colab it also switches widgets of this kind on
        self.cleaning = cleaning
        self.labels, self._size, self._per, self._card_size = list(labels), max_n, max_n, (width, height)
        self._setup = {"note": note, "labels": self.labels, "height": height, "width": width, "sides": list(SIDES)}
        self._setup |= {"shows": [UNDECIDED, DECIDED], "sorts": cleaning.sorts, "project": bool(cleaning.project)}
        self._setup |= {"alike": cleaning.alike is not None}
        self._thumbnails = Thumbnails(height=height, width=width)
        self._ids = {_sendable_id(id): id for id in cleaning.positions}
        self._sent_ids = {id: sent for sent, id in self._ids.items()}
        self._web_pages, self._warning = _web_pages(cleaning.project)
        self._warning = " ".join(filter(None, [self._warning, cleaning.told_at_first()]))
        first = "" if cleaning.live else next(iter(cleaning.lists), "")  # a list that learns finds more among all
        self._at, self._view = 0, View(list=first, sort=cleaning.sorts[0])
        self._selected, self._moves = cleaning.select(self._view), cleaning.moves
        self._seen = 0  # pictures at the start of the selection that were shown: they keep their places
        self._opened = OpenedLists(cleaning)
        self.followers: list[Callable[[], None]] = []  # called when flags may have changed
        self.on_msg(self._receive)

    def _receive(self, widget, content, buffers) -> None:
        self.send(*self.answer(content))
        for follow in self.followers:
            follow()
        self._thumbnails.draw_ahead([self.cleaning.pictures[n].path for n in self._on_page(self._at + 1)])

    def answer(self, content) -> tuple[dict, list[bytes]]:
        """Return the answer to a message from the browser, and the binary buffers that go with it."""
        request = content if isinstance(content, dict) else {}
        with self.cleaning.lock:
            news = ""
            try:
                what = _one_of(self.ASKS, request, "ask")
                news = self._refresh(what)
                if news and what in ("apply", "back"):  # never carry out what nobody saw here
                    message, buffers = self._show(LOOK_FIRST)
                else:
                    message, buffers = getattr(self, f"_{what}")(request)
                if self._moves != self.cleaning.moves and message["tell"] == "flags":
                    message, buffers = self._show("" if "offer" in message else message["alert"])
            except FieldguideError as error:
                message, buffers = {"tell": "alert", "alert": str(error)}, []
            except Exception as error:
                message, buffers = {"tell": "alert", "alert": unforeseen(error, logger, "The cleaner")}, []
            message["alert"] = " ".join(filter(None, [news, message["alert"]]))
            return self._addressed(message, request), buffers

    def tell(self, said: str) -> str:
        """Show every view the page as it is now, with a sentence about it; return the sentence."""
        with self.cleaning.lock:
            message, buffers = self._moved(said)
            self.send(self._addressed(message, {}), buffers)
        for follow in self.followers:
            follow()
        return said

    def show_list(self, name: str, positions: Sequence[int], order: str) -> None:
        """Show every view some pictures as a list of their own."""
        with self.cleaning.lock:
            message, buffers = self.open_list(name, positions, order=order)
            self.send(self._addressed(message, {}), buffers)

    def _addressed(self, message: dict, request: Mapping) -> dict:
        """Return a message with what every one carries: the counts, and whom it answers."""
        cleaning, asker, serial = self.cleaning, request.get("view"), request.get("serial")
        place = f"Page {self._at + 1:,} of {self._pages():,}, {counted(len(self._selected))}"
        message |= {"counts": cleaning.progress(), "place": place}
        message |= {"pending": len(cleaning.pending()), "applied": cleaning.applied}
        # Who asked, and which time: so a view can tell an answer that came too late.
        message["view"] = asker if isinstance(asker, str) and len(asker) <= LONGEST_ECHO else ""
        message["serial"] = serial if type(serial) is int and abs(serial) < 2**53 else 0
        return sendable(message)

    def _refresh(self, what: str) -> str:
        """Take over what happened elsewhere; a table that cannot be read stops what would write to it, and no more."""
        try:
            news = self.cleaning.refresh()
        except FieldguideError as error:
            if what in ("flag", "undo", "apply", "back"):
                raise
            news = str(error)
        if self._moves != self.cleaning.moves:
            self._select_again()
        return news

    def _select_again(self) -> None:
        """Select what the view shows now; where its order follows the person, what was shown keeps its place."""
        self.cleaning.learn()
        now = self._select(self._view)
        seen, there = self._selected[: self._seen], set(now)
        shown = [n for n in seen if n in there] if self.cleaning.follows(self._view) else []
        self._seen, before = len(shown), set(shown)
        self._selected = shown + [n for n in now if n not in before]

    def _hello(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Tell a view that has just been made all it needs, and the page that is open."""
        self._fit(request, first=self._at * self._per)
        message, buffers = self._show(self._warning)
        return message | {"setup": self._setup}, buffers

    def _page(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show another page, or another selection."""
        view = View(
            list=_one_of(["", *self.cleaning.lists], request, "list"),
            label=_one_of(["", *self.cleaning.labels], request, "label"),
            side=_one_of(["", *SIDES], request, "side"),
            show=_one_of(["", UNDECIDED, DECIDED], request, "show"),
            sort=_one_of(self.cleaning.sorts, request, "sort"),
        )
        view = self._fitting(view)
        page = request.get("page")
        if type(page) is not int:
            raise FieldguideError("The page asked for is not a number. Reload the browser's page.")
        first = self._at * self._per
        # Turning pages keeps the selection as it was made: among the undecided, those just decided would make room,
        # and the next page would skip as many.
        self.cleaning.learn()
        if view != self._view:
            self._view, self._selected, self._seen = view, self._select(view), 0
            first = 0
        else:
            self._selected[self._seen :] = self._arranged(self._selected[self._seen :], view)
        self._at = page
        self._fit(request, first=first)
        return self._show()

    def _fitting(self, view: View) -> View:
        """Return a view with an order that its list has; other kinds of grids have more of them."""
        return view

    def _select(self, view: View) -> list[int]:
        return self.cleaning.select(view)

    def _arranged(self, positions: Sequence[int], view: View) -> list[int]:
        """Return positions that were not shown yet in the order that they have by now."""
        return self.cleaning.live.arranged(positions) if self.cleaning.follows(view) else list(positions)

    def _choice(self, id: str) -> str | None:
        return self.cleaning.choices.get(id)

    def _fit(self, request: Mapping, *, first: int) -> None:
        """
        Put as many cards on a page as fit into the room that a view has; `first` is the picture shown first by now.

        A view whose room stays as it was gets the page that it asks for.
        """
        room = request.get("room")
        if (
            not isinstance(room, list)
            or len(room) != 2
            or not all(type(n) is int and 0 < n < LARGEST_ROOM for n in room)
        ):
            return
        per, height = cards_that_fit(room, self._card_size, most=self._size)
        self._setup["height"] = height
        if per != self._per:
            self._per, self._at = per, first // per

    def _flag(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Store one choice for one or several pictures."""
        ids = self._asked(request)
        choice = request.get("choice")
        if choice is not None:
            choice = _one_of([KEEP, DELETE, *self.labels], request, "choice")
        refused = self.cleaning.flag(dict.fromkeys(ids, choice))
        self.cleaning.learn(now=False)
        message, buffers = self._flags(ids, alert=_refusals(refused))
        wrong = len(ids) == 1 and self.cleaning.choices.get(ids[0], KEEP) != KEEP
        if wrong and self.cleaning.alike and not refused and not self._view.list.startswith(f"{LIKE_ONE} "):
            message["alert"] = look_alikes_told(self.cleaning, self.cleaning.positions[ids[0]])
            message |= {"offer": self._sent_ids[ids[0]]} if message["alert"] else {}
        return message, buffers

    def _undo(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Take the last step of flags back."""
        undone = self.cleaning.undo()
        self.cleaning.learn(now=False)
        done = [id for id, reason in undone.items() if not reason]
        changed = sum(reason == CHANGED_SINCE for reason in undone.values())
        left = _refusals({id: reason for id, reason in undone.items() if reason not in ("", CHANGED_SINCE)})
        told = [left] if left else []
        if changed:
            told.insert(0, f"Not undone: {counted(changed, 'choice')} changed elsewhere since.")
        if done:
            name = self.cleaning.names[self.cleaning.positions[done[0]]]
            told.insert(0, f"Undone: {name if len(done) == 1 else f'the choice for {len(done)} pictures'}.")
        message, buffers = self._flags(list(undone), alert=" ".join(told))
        return message | {"undone": True}, buffers

    def _apply(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Have the files moved, and show what is left."""
        return self._moved(summary(self.cleaning.apply()))

    def _back(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Have the files moved back that the last Apply moved, and show them."""
        return self._moved(summary(self.cleaning.take_back(), undone=True))

    def _bring(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Have pictures brought into the training set that are outside of it, and show what is left."""
        choice = _one_of([KEEP, *self.cleaning.labels], request, "choice")
        return self._moved(self.cleaning.bring(self._asked(request), None if choice == KEEP else choice))

    def _zoom(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show one picture in full."""
        id = self._id(request.get("key"))
        picture, project = self.cleaning.pictures[self.cleaning.positions[id]], self.cleaning.project
        large = draw_large([original(project, picture), picture.path] if project else [picture.path])
        message = {"tell": "zoom", "key": self._sent_ids[id], "problem": large.problem, "alert": ""}
        return message, [large.jpeg] if large.jpeg else []

    def _like(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show the pictures that look most like one, which comes first."""
        position = self.cleaning.positions[self._id(request.get("key"))]
        if not self.cleaning.alike:
            raise FieldguideError("Nothing is known of how pictures look: give the cleaner features.")
        try:
            nearest, _ = self.cleaning.alike.nearest(position, ALIKE_SHOWN, among=self.cleaning.there)
        except FieldguideError as error:
            return self._show(str(error))  # the browser waits for a page
        name = f"{LIKE_ONE} {self.cleaning.names[position]}"
        return self.open_list(name, [position, *nearest.tolist()], order="Nearest first", focus=request.get("from"))

    def open_list(self, name: str, positions: Sequence[int], *, order: str, focus=None) -> tuple[dict, list[bytes]]:
        """Show pictures as a list of their own, and keep where the person was, with the key of the card in focus."""
        focus = focus if isinstance(focus, str) and focus in self._ids else ""
        place = Place(self._view, self._selected, self._seen, self._at * self._per, focus, self._moves)
        self._view = self._opened.add(name, positions, order, place)
        self._selected, self._seen, self._at = self._select(self._view), 0, 0
        return self._show()

    def _leave(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show the page from which the list was opened, as it was."""
        try:
            place = self._opened.leave()
        except FieldguideError as error:
            return self._show(str(error))  # the browser waits for a page
        self._view, self._selected, self._seen = place.view, place.selected, place.seen
        if place.moves != self.cleaning.moves:  # files moved since
            self._select_again()
        self._at = place.first // self._per
        message, buffers = self._show()
        return message | {"focus": place.focus}, buffers

    def _moved(self, said: str) -> tuple[dict, list[bytes]]:
        """Return the page that is open, selected anew after files moved."""
        self._select_again()
        return self._show(said)

    def _show(self, alert: str = "") -> tuple[dict, list[bytes]]:
        """Return the page that is open."""
        self._moves = self.cleaning.moves
        pages = self._pages()
        self._at = min(max(self._at, 0), pages - 1)
        positions = self._on_page(self._at)
        self._seen = max(self._seen, min((self._at + 1) * self._per, len(self._selected)))
        drawn = self._thumbnails.draw([self.cleaning.pictures[n].path for n in positions])
        cards = [self._card(n) | {"problem": small.problem} for n, small in zip(positions, drawn, strict=True)]
        present = {name: len(self.cleaning.select(View(list=name))) for name in self.cleaning.lists}
        message = {
            "tell": "page",
            "chosen": asdict(self._view),
            "lists": list(present.items()),
            "cards": cards,  # the buffers are the thumbnails of those without a problem, in this order
            "page": self._at,
            "pages": pages,
            "height": self._setup["height"],
            **self._opened.told(self._view),
            "alert": alert or ("" if cards else "No pictures here: choose another list, label, set or show."),
        }
        return message, [small.jpeg for small in drawn if not small.problem]

    def _card(self, position: int) -> dict:
        """Return what a card tells about a picture."""
        cleaning, picture = self.cleaning, self.cleaning.pictures[position]
        label, probability = cleaning.predicted(position) or (None, 0.0)
        lists = [self._view.list] if self._view.list else cleaning.lists
        reasons = [cleaning.reasons[name][position] for name in lists if position in cleaning.reasons[name]]
        return {
            "key": self._sent_ids[picture.id],
            "file": cleaning.names[position],
            "label": picture.label,
            "predicted": label,
            "confidence": share(probability),
            "loss": None if label is None else cleaning.loss(position),
            "side": picture.side,
            "reason": "".join(reasons[:1]),
            "page": self._web_pages.get(picture.id, ""),
            "choice": self._choice(picture.id),
            "outside": asdict(cleaning.outside[picture.id])
            if picture.id in cleaning.outside and not picture.label
            else None,
        }

    def _flags(self, ids: Sequence[str], *, alert: str) -> tuple[dict, list[bytes]]:
        """Return the flags of pictures and of the page that is open, as they are stored."""
        shown = [self.cleaning.pictures[position].id for position in self._on_page(self._at)]
        choices = {self._sent_ids[id]: self._choice(id) for id in [*ids, *shown]}
        return {"tell": "flags", "choices": choices, "first": self._sent_ids[ids[0]], "alert": alert}, []

    def _on_page(self, page: int) -> list[int]:
        return self._selected[page * self._per : (page + 1) * self._per]

    def _pages(self) -> int:
        return max(1, -(-len(self._selected) // self._per))

    def _asked(self, request: Mapping) -> list[str]:
        """Return the ids of the pictures that a choice is for."""
        sent = request.get("keys")
        if not isinstance(sent, list) or not 1 <= len(sent) <= self._size:
            raise FieldguideError(f"A choice is for 1 to {self._size} pictures, those of a page. Nothing was stored.")
        return [self._id(key) for key in sent]

    def _id(self, sent) -> str:
        """Return the id that a message names, or raise if there is none such."""
        if not isinstance(sent, str) or sent not in self._ids:
            raise FieldguideError(f"There is no picture {str(sent)[:LONGEST_ECHO]!r} here. Reload the browser's page.")
        return self._ids[sent]


def _one_of(values, request: Mapping, name: str) -> str:
    """Return what a message says under a name, or raise if it is none of the values."""
    value = request.get(name)
    if not isinstance(value, str) or value not in values:
        shown = str(value)[:LONGEST_ECHO]
        raise FieldguideError(f"The {name} {shown!r} is not offered here. Reload the browser's page.")
    return value


def _refusals(refused: Mapping[str, str]) -> str:
    """Return in words why flags were not stored, each reason once."""
    reasons = list(dict.fromkeys(refused.values()))
    more = f" And {len(reasons) - 3} more reasons." if len(reasons) > 3 else ""
    return f"Not stored: {' '.join(reasons[:3])}{more}" if reasons else ""


def _web_pages(project: Project | None) -> tuple[dict[str, str], str]:
    """Return id → the web page a picture came from, and why there are none: a broken table stops nobody."""
    pages: dict[str, str] = {}
    try:
        for row in each_row(project.table("sources"), SOURCES_COLUMNS) if project else ():
            if row["id"] and web_host(row["page_url"]):
                pages.setdefault(row["id"], row["page_url"])
    except (FieldguideError, OSError) as error:
        return {}, f"The pages that the pictures came from are not linked: {error}"
    return pages, ""


def _sendable_id(id: str) -> str:
    """Return an id as text that travels; a path that is not valid text as the digits of its bytes."""
    try:
        id.encode("utf-8")
    except UnicodeEncodeError:
        return f"bytes {os.fsencode(id).hex()}"
    return id
