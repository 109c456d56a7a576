"""
Stage 06: fastai's ImageClassifierCleaner, with flags that last and belong to pictures instead of places on screen.

Reads images/, split.csv and review.csv; writes review.csv the moment a flag is set, and has the ledger apply it. The
look and the calls are fastai's (fastai/vision/widgets.py); what is kept of it and what is mended is told in the tests.
All that is decided lives in `Cleaning`, which knows no widget; `ImageClassifierCleaner` only shows it.
"""

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.display import display

from utils.files import FieldguideError
from utils.ledger import DELETE, DELETED, KEEP, Ledger, Outcome, read_review, save_flag
from utils.pictures import PictureError, jpeg_bytes, open_picture, thumbnail
from utils.project import Project

SUSPECTS = "<Suspects>"  # the list across labels; no folder can have such a name
ALL_SIDES = "All sides"
MENU_KEEP, MENU_DELETE = "<Keep>", "<Delete>"  # fastai's words
UNSEEN = "— not looked at —"
FRAMES = {None: "transparent", KEEP: "#4c9a5a", DELETE: "#c0392b"}  # of a card, by its flag
MOVED = "#2a78b8"  # the frame of a picture flagged to move
THUMBNAILS = 2000  # kept in memory: about 10 MB


@dataclass(frozen=True)
class Picture:
    """One of N pictures: `key` is its id in a project, else its path; `label` is "" once it left the training set."""

    key: str
    path: Path
    label: str
    side: str = ""  # "Train", "Valid", "Test", or "" where the split does not know it


# --- what is decided ---------------------------------------------------------------------------------------------


class Cleaning:
    """
    N pictures, what a model thinks of them, and what a person decided; positions are those of `pictures`.

    Parameters
    ----------
    pictures : sequence of N `Picture`
    labels : sequence of K labels, the columns of `probs`
    probs : array of shape (N, K), optional
        Probabilities in [0, 1]; a row of NaN is a picture that could not be judged.
    order : sequence of positions, optional
        The suspects, worst first; by default the largest loss comes first within a label.
    project : Project, optional
        Where flags are stored; without one they live in memory.
    """

    def __init__(self, pictures: Sequence[Picture], labels: Sequence[str], *, probs=None, order=None, project=None):
        self.pictures = list(pictures)
        self.labels = list(labels)
        self.columns = {label: k for k, label in enumerate(self.labels)}
        self.project: Project | None = project
        self.probs = None if probs is None else _checked_probs(probs, len(self.pictures), len(self.labels))
        self.order = None if order is None else _checked_order(order, len(self.pictures))
        self.choices: dict[str, str] = read_review(project) if project else {}

    def select(self, category: str, side: str = ALL_SIDES) -> list[int]:
        """Return the positions of a label, or of the suspects, on a side, worst first."""
        suspects = self.order or []
        if category == SUSPECTS:
            ranked = [n for n in suspects if self.pictures[n].label]
        else:
            inside = [n for n, picture in enumerate(self.pictures) if picture.label == category]
            rank = {n: r for r, n in enumerate(suspects)}
            ranked = sorted(inside, key=lambda n: (rank.get(n, len(rank)), -self.loss(n), n))
        return [n for n in ranked if side in (ALL_SIDES, self.pictures[n].side)]

    def loss(self, position: int) -> float:
        """Return the cross-entropy of a picture under its present label; 0 where there is no prediction."""
        label = self.pictures[position].label
        if self.predicted(position) is None or label not in self.columns:
            return 0.0
        return float(-np.log(max(self.probs[position, self.columns[label]], 1e-12)))

    def predicted(self, position: int) -> tuple[str, float] | None:
        """Return the label the model would give, and its probability; None where it was not asked."""
        if self.probs is None or np.isnan(self.probs[position]).any():
            return None
        best = int(self.probs[position].argmax())
        return self.labels[best], float(self.probs[position, best])

    def choice(self, position: int) -> str | None:
        """Return "Keep", "Delete" or a label; None if a person has not looked at the picture yet."""
        return self.choices.get(self.pictures[position].key)

    def choose(self, position: int, choice: str | None) -> None:
        """Flag a picture, in a project on disk at once; its own label counts as "Keep", None takes the flag back."""
        picture = self.pictures[position]
        choice = KEEP if choice == picture.label else choice
        if self.project:
            save_flag(self.project, picture.key, choice)
        if choice is None:
            self.choices.pop(picture.key, None)
        else:
            self.choices[picture.key] = choice

    def deletions(self) -> list[int]:
        """Return the positions flagged "Delete" whose file is still there."""
        return [n for n, picture in enumerate(self.pictures) if self.choice(n) == DELETE and picture.path.exists()]

    def changes(self) -> list[tuple[int, str]]:
        """Return (position, new label) for each picture to move whose file is still there."""
        return [
            (n, self.choices[picture.key])
            for n, picture in enumerate(self.pictures)
            if self.choices.get(picture.key, KEEP) not in (KEEP, DELETE, picture.label) and picture.path.exists()
        ]

    def apply(self) -> list[Outcome]:
        """Have the ledger carry out the flags, and take the folders as they are afterwards."""
        said = {picture.key: self.predicted(n) for n, picture in enumerate(self.pictures)}
        outcomes = Ledger(self.project).apply({key: guess for key, guess in said.items() if guess})
        now = self.project.pictures()
        self.pictures = [
            replace(picture, path=now[picture.key], label=now[picture.key].parent.name)
            if picture.key in now
            else replace(picture, label="")
            for picture in self.pictures
        ]
        self.choices = read_review(self.project)
        return outcomes


def _checked_probs(probs, n: int, k: int) -> np.ndarray:
    probs = np.asarray(probs, dtype=float)
    if probs.shape != (n, k):
        raise FieldguideError(
            f"probs has the shape {probs.shape}; expected {(n, k)}: a row a picture and a column a label. "
            "If pictures were added or moved since it was made, run the cells above again."
        )
    return probs


def _checked_order(order, n: int) -> list[int]:
    order = [int(position) for position in order]
    if wrong := [position for position in order if not 0 <= position < n]:
        raise FieldguideError(f"order holds {wrong[0]}, but there are {n} pictures, 0 to {n - 1}. Rank them again.")
    return list(dict.fromkeys(order))


def summary(outcomes: Sequence[Outcome]) -> str:
    """
    Return what applying did, as a person would say it.

    >>> summary([Outcome("a", "cat", "dog", True), Outcome("b", "cat", "<Delete>", True)])
    'Moved 1 to another label and 1 to the trash. Run 04 and 05 again to train on what is left and compare.'
    >>> summary([])
    'There was nothing to apply: no picture is flagged to be moved or deleted.'
    """
    done = [outcome for outcome in outcomes if outcome.done]
    left = [f"{outcome.id} was left: {outcome.reason}." for outcome in outcomes if not outcome.done]
    if not outcomes:
        return "There was nothing to apply: no picture is flagged to be moved or deleted."
    deleted = sum(outcome.new == DELETED for outcome in done)
    moved = f"Moved {len(done) - deleted} to another label and {deleted} to the trash."
    again = ["Run 04 and 05 again to train on what is left and compare."] if done else []
    more = [f"{len(left) - 5} more were left; the ledger tells why."] if len(left) > 5 else []
    return " ".join([moved, *left[:5], *more, *again])


# --- pictures and probabilities from a project or a learner ------------------------------------------------------


def project_pictures(project: Project) -> list[Picture]:
    """Return the N pictures of a project, sorted by id, with label and side."""
    split = project.split()
    return [
        Picture(id, path, path.parent.name, split[id][1].capitalize() if id in split else "")
        for id, path in project.pictures().items()
    ]


def learner_pictures(learn) -> list[Picture]:
    """
    Return the N pictures a fastai learner holds, training side first; its items may be paths or DataFrame rows.

    Raises
    ------
    FieldguideError
        If it holds none, as one from load_learner, or an item leads to no file.
    """
    sides = ("Train", "Valid", "Test")
    pictures = []
    for number, loader in enumerate(learn.dls.loaders):
        inputs, targets = loader.dataset.tls[:2]
        rows = getattr(inputs.items, "iloc", inputs.items)
        for n in range(len(inputs.items)):
            path = _path_of(rows[n], inputs.tfms.fs)
            pictures.append(Picture(str(path), path, str(learn.dls.vocab[int(targets[n])]), sides[min(number, 2)]))
    if not pictures:
        raise FieldguideError(
            "This learner holds no pictures: load_learner brings the model only. Name the project as well: "
            "ImageClassifierCleaner(learn, project=project)."
        )
    return pictures


def _path_of(item, transforms: Iterable) -> Path:
    """Follow a learner's own transforms from an item, such as a DataFrame row, until they give a path."""
    for transform in transforms:
        if isinstance(item, str | os.PathLike):
            break
        item = transform(item)
    if not isinstance(item, str | os.PathLike):
        raise FieldguideError(
            f"This learner's items lead to {type(item).__name__}, not to files; only files can be cleaned."
        )
    return Path(item)


def learner_probs(learn, paths: Sequence[Path], labels: Sequence[str]) -> np.ndarray:
    """
    Return a learner's probabilities for N pictures, columns as `labels`; shape (N, K), rows of unreadable ones NaN.

    The pictures go through the validation transforms: through the training ones each call would give other losses.

    Raises
    ------
    FieldguideError
        If the learner tells other labels apart than these.
    """
    vocab = [str(label) for label in learn.dls.vocab]
    if set(vocab) != set(labels):
        raise FieldguideError(
            f"The learner tells {', '.join(vocab[:10])} apart, the pictures are {', '.join(list(labels)[:10])}. "
            "Train again (04), or use the project the learner was made for."
        )
    probs = np.full((len(paths), len(vocab)), np.nan)
    readable = list(range(len(paths)))
    try:
        probs[readable] = _judge(learn, paths)
    except Exception:  # from Pillow, or from a loader's worker in another dress; only now each file is worth a look
        readable = [n for n in readable if not unreadable(paths[n])]
        if len(readable) == len(paths):
            raise
        if readable:
            probs[readable] = _judge(learn, [paths[n] for n in readable])
    return probs[:, [vocab.index(label) for label in labels]]


def _judge(learn, paths: Sequence[Path]) -> np.ndarray:
    with learn.no_bar():
        return learn.get_preds(dl=learn.dls.test_dl(list(paths)))[0].numpy()


def unreadable(path: Path) -> str:
    """Return why a picture cannot be read, "" where it can."""
    try:
        open_picture(path)
    except (PictureError, OSError) as error:
        return str(error)
    return ""


# --- what is shown -----------------------------------------------------------------------------------------------


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


class ImageClassifierCleaner:
    """
    Look at pictures, worst first, and flag each to keep, to delete or to move to another label.

    Without a project it is used as fastai's: ``for idx in cleaner.delete(): cleaner.fns[idx].unlink()``. With one,
    flags are stored as they are set, and the Apply button has the ledger move the files.

    Parameters
    ----------
    learn : fastai Learner, optional
        Gives the probabilities where `probs` does not; without a project also the pictures.
    opts : sequence of str
        More labels to offer than those there are.
    height, width : int
        Pixels of a thumbnail.
    max_n : int
        Pictures a page.
    project : Project, optional
        Gives the pictures (as `project.pictures()` does, sorted by id), and takes the flags.
    probs : array of shape (N, K), optional
        Probabilities in [0, 1]: a row a picture of the project, a column a label, both sorted.
    order : sequence of positions, optional
        The suspects, worst first, shown across labels.

    Attributes
    ----------
    fns : tuple of N Path
        The pictures at the start. It never changes, so that a position means one file, always.
    widget : ipywidgets.VBox
    """

    def __init__(
        self,
        learn=None,
        opts: Sequence[str] = (),
        height: int = 128,
        width: int = 256,
        max_n: int = 30,
        *,
        project: Project | None = None,
        probs=None,
        order: Iterable[int] | None = None,
    ):
        if learn is None and project is None:
            raise FieldguideError("There is nothing to clean: give a learner, or project=project.")
        if max_n < 1:
            raise FieldguideError(f"max_n = {max_n}: a page holds at least one picture.")
        if project and (unknown := sorted(set(opts) - set(project.labels))):
            raise FieldguideError(
                f"opts holds {unknown[0]!r}, no label of {project.name!r}. Add it to its [labels] first."
            )
        pictures = project_pictures(project) if project else learner_pictures(learn)
        labels = list(project.labels) if project else [str(label) for label in learn.dls.vocab]
        if probs is None and learn is not None and pictures:
            probs = learner_probs(learn, [picture.path for picture in pictures], labels)
        self.cleaning = Cleaning(pictures, labels, probs=probs, order=order, project=project)
        self.fns = tuple(picture.path for picture in pictures)
        self._menu_labels = list(dict.fromkeys([*labels, *map(str, opts)]))
        self._height, self._width, self._page, self._retired = height, width, 0, []
        self.cards = [Card(height=height, width=width) for _ in range(min(max_n, len(pictures)))]
        self._build(sides=[picture.side for picture in pictures])
        self.show()

    def _build(self, *, sides: Sequence[str]) -> None:
        """Make every widget there will ever be, but the menus."""
        suspects = self.cleaning.order is not None
        sides = ["Train", "Valid", "Test"] if self.cleaning.project else list(dict.fromkeys(["Train", "Valid", *sides]))
        self._menu_layout = widgets.Layout(width=f"{self._width}px")
        self._menu_style = widgets.Dropdown().style
        self.dd_cats = widgets.Dropdown(
            options=[*([SUSPECTS] if suspects else []), *self.cleaning.labels], description="Category"
        )
        self.dd_ds = widgets.Dropdown(options=[*sides, ALL_SIDES], description="Side")
        self.dd_ds.value = ALL_SIDES if suspects else "Train"
        self.previous = widgets.Button(description="Previous", icon="arrow-left")
        self.next = widgets.Button(description="Next", icon="arrow-right")
        self.apply = widgets.Button(
            description="Apply",
            button_style="primary",
            tooltip="Move the files as flagged; Ledger(project).undo() takes it back",
        )
        self.place, self.counts, self.message = widgets.Label(), widgets.Label(), widgets.HTML()
        # The grid scrolls by itself, so that the buttons above it stay in view.
        self.grid = widgets.Box([], layout={"flex_flow": "row wrap", "max_height": "75vh", "overflow": "auto"})
        for menu in (self.dd_cats, self.dd_ds):
            menu.observe(lambda change: self.show(), "value")
        self.previous.on_click(lambda button: self.show(self._page - 1))
        self.next.on_click(lambda button: self.show(self._page + 1))
        self.apply.on_click(lambda button: self._apply())
        # Apply stands apart from Next, which is pressed often.
        paging = [self.previous, self.place, self.next, self.counts, *([self.apply] if self.cleaning.project else [])]
        rows = [widgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in ([self.dd_cats, self.dd_ds], paging)]
        self.widget = widgets.VBox([*rows, self.message, self.grid])

    def _ipython_display_(self) -> None:
        display(self.widget)

    def delete(self) -> list[int]:
        """Return the positions in `fns` flagged to be deleted, of files still there."""
        return self.cleaning.deletions()

    def change(self) -> list[tuple[int, str]]:
        """Return (position in `fns`, new label) for each file still there that is flagged to move."""
        return self.cleaning.changes()

    def show(self, page: int = 0) -> None:
        """Show a page of the pictures that the two menus at the top select."""
        positions = self.cleaning.select(self.dd_cats.value, self.dd_ds.value)
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
        for card, position in zip(self.cards, shown, strict=False):
            self._fill(card, position)
        for card in self.cards[len(shown) :]:
            card.menu, card.position, card.box.children = None, None, ()
        self.grid.children = [card.box for card in self.cards[: len(shown)]]
        self.place.value = f"Page {self._page + 1} of {pages}, {len(positions)} picture{'s' * (len(positions) != 1)}"
        self.previous.disabled, self.next.disabled = self._page == 0, self._page == pages - 1
        self._say("" if positions else f"No pictures here: {self.dd_cats.value}, {self.dd_ds.value}.")
        self._count()

    def _fill(self, card: Card, position: int) -> None:
        """Show a picture on a card, under a menu of its own."""
        picture = self.cleaning.pictures[position]
        card.position = position
        card.image.value, problem = _thumbnail(picture.path, self._height, self._width)
        card.caption.value = _caption(self.cleaning, position, problem)
        others = [label for label in self._menu_labels if label != picture.label]
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
        try:
            self.cleaning.choose(position, choice)
        except FieldguideError as error:
            self._say(str(error))
            change["owner"].value = _shown(self.cleaning.choice(position), change["owner"].options)
        else:
            for card in self.cards:  # a late choice from the page before, of a picture that is on this page as well
                if card.position == position:
                    card.frame(self.cleaning.choice(position))
                    card.menu.value = _shown(self.cleaning.choice(position), card.menu.options)
            self._say("")
            self._count()

    def _apply(self) -> None:
        try:
            said = summary(self.cleaning.apply())
        except FieldguideError as error:
            said = str(error)
        self.show(self._page)
        self._say(said)

    def _say(self, text: str) -> None:
        self.message.value = html.escape(text)

    def _count(self) -> None:
        """Say how far the person is: over all pictures, not only those shown."""
        pictures = [n for n, picture in enumerate(self.cleaning.pictures) if picture.label]
        choices = [choice for n in pictures if (choice := self.cleaning.choice(n))]
        deleted, kept = choices.count(DELETE), choices.count(KEEP)
        self.counts.value = (
            f"{len(choices)} of {len(pictures)} looked at: {kept} to keep, {deleted} to delete, "
            f"{len(choices) - kept - deleted} to move"
        )


def _shown(choice: str | None, options: Sequence[str]) -> str:
    """Return a choice as the menu writes it; one that is not offered counts as not looked at."""
    shown = {None: UNSEEN, KEEP: MENU_KEEP, DELETE: MENU_DELETE}.get(choice, choice)
    return shown if shown in options else UNSEEN


def _caption(cleaning: Cleaning, position: int, problem: str) -> str:
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


def _thumbnail(path: Path, height: int, width: int) -> tuple[bytes, str]:
    """Return a thumbnail as JPEG bytes, and why the picture cannot be read ("" where it can)."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = None
    return _cached_thumbnail(path, height, width, changed)


@lru_cache(maxsize=THUMBNAILS)
def _cached_thumbnail(path: Path, height: int, width: int, changed: int | None) -> tuple[bytes, str]:
    """Draw a thumbnail; `changed` is there so that a replaced file gets a new one."""
    problem = ""
    try:
        image = open_picture(path, longest_side=max(height, width))
    except (PictureError, OSError) as error:
        problem, image = str(error), thumbnail(path, min(height, width))
    image.thumbnail((width, height))
    return jpeg_bytes(image, quality=85), problem
