"""
A photo with its boxes, to be corrected in a notebook, by jupyter-bbox-widget; and beside them what the model finds.

What a person saves goes through `corrections` to boxes.csv at once. The widget tells places in pixels of the training
copy. A box that was not touched keeps its exact corners.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import anywidget
import ipywidgets
from IPython.display import display
from jupyter_bbox_widget import BBoxWidget
from PIL import Image

from utils.boxes.box import FROM_MODEL, GROUP, PERSON, Box, box_problem, clipped, corner_array, read_boxes
from utils.boxes.corrections import BoxesChanged, BoxLedger
from utils.boxes.photos import BoxedPhoto, Photos
from utils.errors import FieldguideError
from utils.inference import box_overlaps
from utils.words import SETS, counted

UNTOUCHED = 1e-3  # pixels by which a corner may differ on its way through the browser
SAME_PLACE = 0.5  # overlap from which on a box of the model takes the place of one of the same label
LABEL_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
OF_MODEL = "#ff7f0e"  # the colour of what the model finds
MANY_AT_ONCE = "many in one box"
HELP = (
    "Drag on the photo to draw a box; drag a box or its corners to move it. Keys, after a click on the photo: "
    "<b>1</b>–<b>9</b> choose a label, <b>Tab</b> the next box, <b>C</b> gives it the label, <b>Delete</b> removes it, "
    "<b>W A S D</b> move it, <b>Enter</b> saves, <b>Space</b> skips, <b>Esc</b> leaves the photo."
)


@dataclass(frozen=True)
class ToLookAt:
    """A photo to look at: why, and the boxes that the model offers there."""

    id: str
    reason: str = ""
    offered: tuple[Box, ...] = ()


class Suppressor(anywidget.AnyWidget):
    """Keeps the keys of the editor from the notebook around it, and names the photo for screen readers."""

    _esm = Path(__file__).with_name("editor.js")


class BoxEditor:
    """
    Photos one after another, each with its boxes to correct.

    Parameters
    ----------
    photos : Photos
        Which there are. Boxes are read anew for each photo.
    looks : iterable of ToLookAt, optional
        The photos to show, in this order; by default all, those without boxes first. Those that a person saved before,
        and that are unchanged since, are passed over.
    """

    def __init__(self, photos: Photos, looks: Iterable[ToLookAt] | None = None):
        self.photos, self.ledger = photos, BoxLedger(photos.project)
        every = sorted(photos, key=lambda photo: bool(photo.boxes))
        self.looks = list(looks if looks is not None else (ToLookAt(photo.id) for photo in every))
        if unknown := [each.id for each in self.looks if each.id not in photos.dataset]:
            raise FieldguideError(
                f"There is no photo {unknown[0]} in {photos.project.images}. Run this notebook again."
            )
        done = self.ledger.looked_at()
        self._waiting = [n for n, each in enumerate(self.looks) if each.id not in done]
        self._at, self._before, self._others = None, (), ()
        self._classes = _classes(photos.labels)
        own = [LABEL_COLOURS[n % len(LABEL_COLOURS)] for n in range(len(photos.labels))]
        colours = own + [OF_MODEL] * len(own)
        self.boxes = BBoxWidget(classes=list(photos.labels), colors=colours, hide_buttons=True)
        self._group = ipywidgets.Checkbox(description=MANY_AT_ONCE, indent=False)
        self.boxes.attach(self._group, name=GROUP, default_value=False)
        self._title, self._told = ipywidgets.HTML(), ipywidgets.HTML()
        self._take = self._button("Take the model's boxes", self.take)
        self._back = self._button("Undo the last save", self.undo)
        save, skip = self._button("Save", self.save, "primary"), self._button("Skip", self.skip)
        save.add_class("fieldguide-save")
        skip.add_class("fieldguide-skip")
        self._save, self._actions = save, [save, skip, self._take]
        row = ipywidgets.HBox([*self._actions, self._back], layout=ipywidgets.Layout(flex_flow="row wrap"))
        parts = [self._title, row, self._told, self.boxes, self._group, ipywidgets.HTML(HELP), Suppressor()]
        self.widget = ipywidgets.VBox(parts)
        self.widget.add_class("fieldguide-boxes")
        self._show()

    def _ipython_display_(self) -> None:
        display(self.widget)

    def next_step(self) -> str:
        """Return what there is to do, in words."""
        if self._waiting:
            return f"{counted(len(self._waiting), 'photo')} to look at. Each is saved when you press Save."
        return "Every photo was looked at. Run 3_train and 4_test again if you changed boxes."

    @property
    def shown(self) -> ToLookAt | None:
        """The photo that is shown; None if there is none left."""
        return None if self._at is None else self.looks[self._at]

    def save(self) -> None:
        """Make the boxes on screen those of the photo, and show the next one."""
        if self.shown is None or self._save.disabled:
            return
        boxes, dropped = self._drawn()
        try:
            changed = self.ledger.save(self.shown.id, self._before, (*boxes, *self._others))
        except BoxesChanged as error:
            return self._show(self._at, told=str(error))
        except (FieldguideError, OSError) as error:
            self._told.value = _alert(str(error))
            return None
        told = (
            f"Saved: {counted(len(boxes), 'box', 'boxes')}." if changed else "Saved: the boxes are right as they were."
        )
        if dropped:
            told += f" Left out: {counted(dropped, 'box', 'boxes')} without area."
        self._waiting = [n for n in self._waiting if n != self._at]
        return self._show(told=told)

    def skip(self) -> None:
        """Leave the photo as it is, and show the next; a skipped photo comes again at the end."""
        if self._at in self._waiting:
            self._waiting = [n for n in self._waiting if n != self._at] + [self._at]
            self._show(told="Skipped: it comes again at the end.")

    def take(self) -> None:
        """Put the model's boxes in the place of those of the same thing, and beside the others."""
        if self.shown is None:
            return
        drawn, _ = self._drawn()
        self._put(_with_offered(drawn, self.shown.offered), ())
        self._told.value = "The model's boxes are taken over, and not yet saved."

    def undo(self) -> None:
        """Take back the last save, of whichever photo, and show that photo."""
        try:
            id = self.ledger.undo()
        except FieldguideError as error:
            self._told.value = _alert(str(error))
            return
        at = next((n for n, each in enumerate(self.looks) if each.id == id), None)
        if at is None:
            self._told.value = f"Taken back: photo {id}." if id else "There is nothing to take back."
            return
        self._waiting = [at, *(n for n in self._waiting if n != at)]
        self._show(at, told="Taken back.")

    def _show(self, at: int | None = None, told: str = "") -> None:
        """Show one of the photos, by default the next that waits."""
        at = at if at is not None else next(iter(self._waiting), None)
        self._at, self._told.value = at, escape(told)
        for button in self._actions:
            button.disabled = at is None
        if at is None:
            self._title.value, self.boxes.bboxes, self.boxes.image_bytes = f"<b>{self.next_step()}</b>", [], b""
            return
        look = self.looks[at]
        photo = self.photos[look.id]
        try:
            self._before = read_boxes(self.photos.project.table("boxes")).get(look.id, ())
            with Image.open(photo.path) as image:
                self._size = image.size
            self.boxes.image_bytes = photo.path.read_bytes()
        except (FieldguideError, OSError) as error:
            self._told.value = _alert(f"{error} Nothing can be saved for this photo: press Skip.")
            self._save.disabled = self._take.disabled = True
            self._title.value, self.boxes.bboxes, self.boxes.image_bytes = self._title_of(photo, look), [], b""
            return
        self._title.value = self._title_of(photo, look)
        self._take.disabled = not look.offered
        # Boxes of labels that the project file leaves out are not shown, and stay.
        self._others = tuple(box for box in self._before if box.label not in self.photos.labels)
        self._put([box for box in self._before if box.label in self.photos.labels], look.offered)

    def _title_of(self, photo: BoxedPhoto, look: ToLookAt) -> str:
        """Return what stands above a photo, as HTML."""
        name = self.photos.dataset.records.own_name(photo.path) or photo.path.name
        where = SETS.get(photo.side, "in no set yet")
        left = f"{counted(len(self._waiting), 'photo')} to look at"
        return f"<b>{escape(name)}</b> · {where} · {left}" + (f"<br>{escape(look.reason)}" if look.reason else "")

    def _put(self, boxes: Sequence[Box], offered: Sequence[Box]) -> None:
        """Show boxes, and in another colour those that the model offers."""
        self._kept = tuple(boxes)
        shown = [self._as_shown(box) | {"n": n, GROUP: GROUP in box.flags} for n, box in enumerate(boxes)]
        shown += [self._as_shown(box) | {"label": self._classes[box.label], "n": -1} for box in offered]
        self.boxes.selected_index = -1
        self.boxes.classes = [*self.photos.labels, *sorted({self._classes[box.label] for box in offered})]
        self.boxes.bboxes = shown

    def _as_shown(self, box: Box) -> dict:
        """Return a box as the widget takes it: pixels of the training copy."""
        (width, height), (left, top, right, bottom) = self._size, box.corners
        across, down = (right - left) * width, (bottom - top) * height
        return {"x": left * width, "y": top * height, "width": across, "height": down, "label": box.label}

    def _drawn(self) -> tuple[tuple[Box, ...], int]:
        """Return the boxes on screen but for those that the model offers, and how many have no area."""
        boxes, dropped, offered = [], 0, set(self._classes.values())
        for shown in self.boxes.bboxes:
            if shown.get("label") in offered:
                continue
            box = self._box_of(shown)
            if box is None or box.label not in self.photos.labels or box_problem(box):
                dropped += 1
            else:
                boxes.append(box)
        return tuple(boxes), dropped

    def _box_of(self, shown: Mapping) -> Box | None:
        """Return what the widget tells of a box; one that was not touched is the one that was put there."""
        n = shown.get("n", -1)
        kept = self._kept[n] if type(n) is int and 0 <= n < len(self._kept) else None
        try:
            x, y, across, down = (float(shown[key]) for key in ("x", "y", "width", "height"))
        except (KeyError, TypeError, ValueError):
            return None
        flags = set(kept.flags if kept else ()) - {GROUP} | ({GROUP} if shown.get(GROUP) is True else set())
        label, flags = str(shown.get("label")), tuple(sorted(flags))
        if kept:
            was = self._as_shown(kept)
            moved = any(abs(float(shown[key]) - was[key]) > UNTOUCHED for key in ("x", "y", "width", "height"))
            if not moved:
                same = (label, flags) == (kept.label, kept.flags)
                return kept if same else replace(kept, label=label, flags=flags, by=PERSON)
        width, height = self._size
        left, right = sorted((x / width, (x + across) / width))
        top, bottom = sorted((y / height, (y + down) / height))
        return clipped(Box(label, left, top, right, bottom, flags, PERSON))

    def _button(self, text: str, action: Callable[[], None], style: str = "") -> ipywidgets.Button:
        """Return a button that calls a method."""
        button = ipywidgets.Button(description=text, button_style=style, layout=ipywidgets.Layout(width="auto"))
        button.on_click(lambda _: action())
        return button


def _classes(labels: Sequence[str]) -> dict[str, str]:
    """Return label → what the model's boxes of it are called on screen, a name that no label has."""
    end = " (model)"
    while any(f"{label}{end}" in labels for label in labels):
        end += "*"
    return {label: f"{label}{end}" for label in labels}


def _with_offered(boxes: Sequence[Box], offered: Sequence[Box]) -> tuple[Box, ...]:
    """
    Return boxes with those that the model offers in the place of boxes of the same thing.

    >>> old, new = Box("boat", 0, 0, 0.5, 0.5), Box("boat", 0, 0, 0.5, 0.6)
    >>> [(box.bottom, box.by) for box in _with_offered([old], [new])]
    [(0.6, 'model')]
    """
    overlaps = box_overlaps(corner_array(boxes), corner_array(offered))
    replaced = {
        n
        for n, box in enumerate(boxes)
        if any(overlaps[n, m] >= SAME_PLACE and new.label == box.label for m, new in enumerate(offered))
    }
    left = [box for n, box in enumerate(boxes) if n not in replaced]
    return (*left, *(replace(clipped(box), by=FROM_MODEL) for box in offered))


def _alert(text: str) -> str:
    """Return a sentence as an alert, as HTML."""
    return f'<div role="alert"><b>{escape(text)}</b></div>'
