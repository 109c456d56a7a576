"""
Stage 06: the cleaner as a page of plain menus, where the grid of `grid` cannot be shown.

Reads and writes what `cleaning` does. The look is fastai's (fastai/vision/widgets.py): two menus at the top, a
thumbnail with a menu for each picture; every widget but those menus is made once and used again.
"""

import html
from collections.abc import Mapping, Sequence
from functools import partial

import ipywidgets as widgets

from utils.clean.session import LOOK_FIRST, SIDES, Cleaning, View, summary
from utils.clean.thumbnails import Thumbnails
from utils.errors import FieldguideError
from utils.ledger.flags import DELETE, KEEP
from utils.pictures import jpeg_bytes
from utils.sheets import thumbnail

ALL_SIDES = "All sides"
MENU_KEEP, MENU_DELETE = "<Keep>", "<Delete>"  # fastai's words
UNSEEN = "— not looked at —"
FRAMES = {None: "transparent", KEEP: "#4c9a5a", DELETE: "#c0392b"}  # of a card, by its flag
MOVED = "#2a78b8"  # the frame of a picture flagged to move


class Card:
    """A place on the page: thumbnail, caption and menu. The page gives it another picture and a new menu each time."""

    def __init__(self, *, height: int, width: int):
        self.image = widgets.Image(format="jpeg", layout={"height": f"{height}px", "object_fit": "contain"})
        self.caption = widgets.HTML()
        self.menu: widgets.Dropdown | None = None
        self.position: int | None = None
        self.box = widgets.VBox([], layout={"width": f"{width + 14}px", "margin": "2px", "padding": "2px"})

    def frame(self, choice: str | None) -> None:
        """Show at a glance what was chosen."""
        self.box.layout.border = f"2px solid {FRAMES.get(choice, MOVED)}"


class Menus(widgets.VBox):
    """
    The page.

    Parameters
    ----------
    cleaning : Cleaning
    labels : sequence of str
        The labels to offer.
    height, width : int
        Pixels of a thumbnail.
    max_n : int
        Pictures a page.
    reason : str
        Why menus are shown and not the grid.
    """

    def __init__(
        self, cleaning: Cleaning, *, labels: Sequence[str], height: int, width: int, max_n: int, reason: str = ""
    ):
        self.cleaning = cleaning
        self._labels, self._height, self._width = list(labels), height, width
        self._thumbnails = Thumbnails(height=height, width=width)
        self._page, self._retired = 0, []
        self.cards = [Card(height=height, width=width) for _ in range(min(max_n, len(cleaning.pictures)))]
        lists = {f"<{name}>": View(list=name) for name in cleaning.lists}  # no folder can have such a name
        self._views = lists | {label: View(label=label) for label in cleaning.labels}
        self._menu_layout = widgets.Layout(width=f"{width}px")
        self._menu_style = widgets.Dropdown().style
        self.dd_cats = widgets.Dropdown(options=list(self._views), description="Category")
        self.dd_ds = widgets.Dropdown(options=[*SIDES, ALL_SIDES], description="Side")
        self.dd_ds.value = ALL_SIDES if lists else SIDES[0]
        self.previous = widgets.Button(description="Previous", icon="arrow-left")
        self.next = widgets.Button(description="Next", icon="arrow-right")
        self.apply = widgets.Button(
            description="Apply",
            button_style="primary",
            tooltip="Move the files as flagged; Ledger(project).undo() takes it back",
        )
        self.place, self.counts, self.message = widgets.Label(), widgets.Label(), widgets.HTML()
        self.reason = widgets.Label(reason)
        # The grid scrolls by itself, so that the buttons above it stay in view.
        self.grid = widgets.Box([], layout={"flex_flow": "row wrap", "max_height": "75vh", "overflow": "auto"})
        for menu in (self.dd_cats, self.dd_ds):
            menu.observe(lambda change: self.show(), "value")
        self.previous.on_click(lambda button: self.show(self._page - 1))
        self.next.on_click(lambda button: self.show(self._page + 1))
        self.apply.on_click(lambda button: self._apply())
        # Apply stands apart from Next, which is pressed often.
        paging = [self.previous, self.place, self.next, self.counts, *([self.apply] if cleaning.project else [])]
        rows = [widgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in ([self.dd_cats, self.dd_ds], paging)]
        super().__init__([*([self.reason] if reason else []), *rows, self.message, self.grid])
        self.show()

    def show(self, page: int = 0) -> None:
        """Show a page of the pictures that the two menus at the top select."""
        try:
            news = self.cleaning.refresh()
        except FieldguideError as error:
            news = str(error)
        self._moves = self.cleaning.moves
        side = "" if self.dd_ds.value == ALL_SIDES else self.dd_ds.value
        view = self._views.get(self.dd_cats.value, View())
        positions = self.cleaning.select(View(list=view.list, label=view.label, side=side))
        size = max(1, len(self.cards))
        pages = max(1, -(-len(positions) // size))
        self._page = min(max(page, 0), pages - 1)
        shown = positions[self._page * size : (self._page + 1) * size]
        # A choice made on the page before may still be on its way from the browser. Its menu belongs to its picture
        # for good and lives on for one more page, so that the choice finds that picture and no other.
        for menu in self._retired:
            menu.close()
        self._retired = [card.menu for card in self.cards if card.menu]
        self.grid.children = ()  # emptied, the browser scrolls it back to its top: the worst pictures stand there
        drawn = self._thumbnails.draw([self.cleaning.pictures[position].path for position in shown])
        for card, position, small in zip(self.cards, shown, drawn, strict=False):
            self._fill(card, position, small.jpeg, small.problem)
        for card in self.cards[len(shown) :]:
            card.menu, card.position, card.box.children = None, None, ()
        self.grid.children = [card.box for card in self.cards[: len(shown)]]
        self.place.value = f"Page {self._page + 1} of {pages}, {len(positions)} picture{'s' * (len(positions) != 1)}"
        self.previous.disabled, self.next.disabled = self._page == 0, self._page == pages - 1
        self._say(news or ("" if positions else f"No pictures here: {self.dd_cats.value}, {self.dd_ds.value}."))
        self.counts.value = self.cleaning.progress()

    def _fill(self, card: Card, position: int, jpeg: bytes, problem: str) -> None:
        """Show a picture on a card, under a menu of its own."""
        picture = self.cleaning.pictures[position]
        card.position = position
        card.image.value = jpeg or jpeg_bytes(thumbnail(picture.path, min(self._height, self._width)), quality=85)
        card.caption.value = caption(self.cleaning, position, problem)
        others = [label for label in self._labels if label != picture.label]
        options = [UNSEEN, MENU_KEEP, MENU_DELETE, *others]
        flag = _shown(self.cleaning.choice(position), options)
        card.menu = widgets.Dropdown(options=options, value=flag, layout=self._menu_layout, style=self._menu_style)
        card.frame(self.cleaning.choice(position))
        card.menu.observe(partial(self._chosen, position), "value")
        card.box.children = [card.image, card.caption, card.menu]

    def _chosen(self, position: int, change: Mapping) -> None:
        """Store a choice; where that fails, say why and show what is stored."""
        choice = {UNSEEN: None, MENU_KEEP: KEEP, MENU_DELETE: DELETE}.get(change["new"], change["new"])
        if _shown(self.cleaning.choice(position), change["owner"].options) == change["new"]:
            return
        news = problem = ""
        try:
            news = self.cleaning.refresh()
            self.cleaning.choose(position, choice)
        except FieldguideError as error:
            problem = str(error)
        if self._moves != self.cleaning.moves:
            self.show(self._page)
        change["owner"].value = _shown(self.cleaning.choice(position), change["owner"].options)
        for card in self.cards:  # all: the choice may be a late one from the page before, and others set elsewhere
            if card.menu:
                card.frame(self.cleaning.choice(card.position))
                card.menu.value = _shown(self.cleaning.choice(card.position), card.menu.options)
        self._say(" ".join(filter(None, [news, problem])))
        self.counts.value = self.cleaning.progress()

    def _apply(self) -> None:
        try:
            news = self.cleaning.refresh()
            said = f"{news} {LOOK_FIRST}" if news else summary(self.cleaning.apply())
        except FieldguideError as error:
            said = str(error)
        self.show(self._page)
        self._say(said)

    def _say(self, text: str) -> None:
        self.message.value = html.escape(text)


def _shown(choice: str | None, options: Sequence[str]) -> str:
    """Return a choice as the menu writes it; one that is not offered counts as not looked at."""
    shown = {None: UNSEEN, KEEP: MENU_KEEP, DELETE: MENU_DELETE}.get(choice, choice)
    return shown if shown in options else UNSEEN


def caption(cleaning: Cleaning, position: int, problem: str) -> str:
    """Return what stands below a thumbnail, as HTML: label, prediction, probability, loss, side and file."""
    picture = cleaning.pictures[position]
    side = picture.side or "no side yet"
    lines = [f"filed as {picture.label}", "no prediction", side, picture.path.name]
    if guess := cleaning.predicted(position):
        lines[1] = f"model: {guess[0]} {guess[1]:.0%}"
        lines[2] = f"loss {cleaning.loss(position):.2f} · {side}"
    filed, said, *rest = map(html.escape, [*lines, problem] if problem else lines)
    if guess and guess[0] != picture.label:
        said = f"<b>{said}</b>"
    small = f'<span style="color:#666">{"<br>".join(rest)}</span>'
    return f'<div style="line-height:1.3;overflow-wrap:anywhere">{filed}<br>{said}<br>{small}</div>'
