"""
Masks, painting them: a photo to paint on, on anywidget: the kernel's half. paint.js and paint.css are the browser's.

Reads and writes what `drawing` does. The browser asks and gets one answer: hello, list, open, stroke or judge in;
list, photo, saved, unsaved, judged or alert out. A stroke has a name of its own and is sent again until it is answered,
so none is lost while a kernel is busy or dies, and none is stored twice. Pictures travel as binary buffers and never as
widget state. Messages are hostile until checked: a bad one is answered with an alert.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import anywidget
import numpy as np
from PIL import Image

from utils.dataset import Dataset, Picture
from utils.errors import FieldguideError
from utils.masks.drawing import Drawing, drawn_ids, skipped_ids, strokes_folder
from utils.masks.masker import Masker
from utils.masks.network import level_stages
from utils.masks.reading import LIGHT, MaskError, masks_folder, read_mask, read_photo
from utils.masks.showing import DRAWN, SHOWN_FROM, with_outlines
from utils.masks.source import JUDGING
from utils.masks.strokes import (
    CLEAR,
    GRABCUT,
    LONGEST_STROKE,
    MASKER,
    REDO,
    THINNEST,
    UNDO,
    WIDEST,
    StrokeError,
    read_stroke,
)
from utils.masks.suggesting import MOST_JUDGED, suggested_by_masker, suggested_in_box, to_judge, to_paint, uncertainty
from utils.pictures import jpeg_bytes
from utils.sheets import thumbnail
from utils.storage import content_id, visible_files
from utils.widgets import front_end, sendable, unforeseen
from utils.words import SETS, counted, share

NEXT, JUDGE, PAINTED, PASSED = "next", "judge", "painted", "skipped"
PHOTO_LISTS = {
    NEXT: "To paint: training set",
    JUDGE: "To judge the masker: validation and test sets",
    PAINTED: "With a mask",
    PASSED: "Skipped",
}
PER_STRIP, SMALL = 12, 120  # photos at a time, and the pixels of each
STRIP_QUALITY, PHOTO_QUALITY = 80, 92  # of JPEG
TURN = 0.3  # seconds that the kernel judges photos before it listens again
LONGEST_VIEW = 60  # characters of the name that a view gives itself
RELOAD_OR_RUN = "Reload the browser's page, or run the cell again."
logger = logging.getLogger(__name__)


def painting_wanted(dataset: Dataset) -> bool:
    """Return whether masks are painted here: the project file asks for masks, or there are some."""
    project = dataset.project
    asked = project.mask_source or project.mask != "none"
    return bool(asked or visible_files(masks_folder(dataset)) or visible_files(strokes_folder(dataset)))


class MaskPainter(anywidget.AnyWidget):
    """
    A photo to paint on, and beside it those to paint next.

    Parameters
    ----------
    dataset : Dataset
        Its photos are painted. Each stroke is stored in data/<name>/masks at once.
    masker : Masker, optional
        Suggests a first mask, and says of which photos it is least sure: at most 200, drawn by the project's seed.
    """

    _esm = front_end(Path(__file__).with_name("paint.js"))
    _css = Path(__file__).with_name("paint.css")

    def __init__(self, dataset: Dataset, masker: Masker | None = None):
        super().__init__()  # in Colab it also switches widgets of this kind on
        self.dataset, self.masker = dataset, masker
        self._keys = {id: _key(id) for id in dataset.ids}
        self._ids = {key: id for id, key in self._keys.items()}
        self._lock = threading.RLock()  # front-ends may deliver messages while a cell is running
        self._unsure: dict[str, float] = {}
        self._asked_about: list[str] | None = None  # photos of which the masker is asked how sure it is
        self._open: Drawing | None = None
        self.on_msg(self._receive)

    @cached_property
    def _stages(self):
        return level_stages(self.masker.encoder)

    def next_step(self) -> str:
        """Return how many masks there are, and what there is to do, in words."""
        there = drawn_ids(self.dataset)
        judging = sum(self.dataset[id].side in JUDGING for id in there)
        train = len(there) - judging
        told = f"{counted(train, 'photo')} of the training set and {judging} to judge have a mask."
        if not len(self.dataset):
            return "There is no photo to paint on yet. Run 01_download and 02_verify first."
        if self.masker is None and train < SHOWN_FROM:
            more = SHOWN_FROM - train
            return f"{told} {SHOWN_FROM} are a beginning: paint {more} more, then run this notebook again."
        if self.masker is None:
            return f"{told} Run this notebook again: the masker learns from them, and suggests the others."
        if not judging and any(side in JUDGING for side in self.dataset.sides):
            return f"{told} Paint some of those that judge as well, then run this notebook again."
        learnt = counted(self.masker.masks, "mask")
        return f"{told} The masker learned from {learnt}. Run this notebook again to teach it what you paint."

    def _receive(self, widget, content, buffers) -> None:
        self.send(*self.answer(content))

    def answer(self, content) -> tuple[dict, list[bytes]]:
        """Return the answer to a message from the browser, and the binary buffers that go with it."""
        request = content if isinstance(content, dict) else {}
        asks = {"hello": self._hello, "list": self._list, "open": self._show, "stroke": self._store}
        asks["judge"] = self._judge
        token = request.get("token")
        with self._lock:
            message, pictures, failed = {}, [], {"tell": "alert"}
            try:
                ask = asks.get(request.get("ask")) if isinstance(request.get("ask"), str) else None
                if not ask:
                    raise StrokeError(f"That is nothing that can be asked here. {RELOAD_OR_RUN}")
                if ask == self._store:
                    # The page keeps what could not be stored, and sends it again; what is wrong in itself it drops.
                    failed = {"tell": "unsaved", "token": token if isinstance(token, str) else "", "again": True}
                message, pictures = ask(request)
            except (StrokeError, MaskError) as error:
                message = failed | {"alert": str(error), "again": False}
            except (FieldguideError, OSError) as error:
                message = failed | {"alert": str(error)}
            except Exception as error:
                message = failed | {"alert": unforeseen(error, logger, "The painter")}
            view, serial = request.get("view"), request.get("serial")
            message["view"] = view if isinstance(view, str) and len(view) <= LONGEST_VIEW else ""
            message["serial"] = serial if type(serial) is int and abs(serial) < 2**53 else 0
            return sendable(message), pictures

    def _hello(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Tell a view that has just been made all it needs, and the photos to paint next."""
        project = self.dataset.project
        setup = {"masker": self.masker is not None, "smallest": THINNEST, "largest": WIDEST, "points": LONGEST_STROKE}
        # What the browser could not have stored belongs to this project, and to no other of the same name.
        setup |= {"project": content_id(os.fsencode(project.data)), "judges": self._judging() > 0}
        message, pictures = self._list({"list": NEXT, "from": 0})
        return message | {"setup": setup}, pictures

    def _judging(self) -> int:
        """Return of how many photos the masker is still to be asked how sure it is."""
        if self.masker is None:
            return 0
        if self._asked_about is None:
            done = drawn_ids(self.dataset) | skipped_ids(self.dataset)
            self._asked_about = [picture.id for picture in to_paint(self.dataset, done, {})[:MOST_JUDGED]]
        return len(self._asked_about) - len(self._unsure)

    def _judge(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Ask the masker of a few photos more how sure it is; strokes may come in between."""
        end = time.monotonic() + TURN
        while self._judging() and time.monotonic() < end:
            id = self._asked_about[len(self._unsure)]
            try:
                image, _ = read_photo(self.dataset[id].path)
                self._unsure[id] = uncertainty(self.masker, self._stages, image)
            except MaskError:
                self._unsure[id] = -1.0  # a photo that cannot be read comes last
        return {"tell": "judged", "done": len(self._unsure), "of": len(self._asked_about or ())}, []

    def _list(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Tell a part of a list of photos."""
        name, start = request.get("list"), request.get("from")
        if name not in [*PHOTO_LISTS] or type(start) is not int or not 0 <= start <= len(self.dataset):
            raise StrokeError(f"There is no such list of photos. {RELOAD_OR_RUN}")
        there, skipped = drawn_ids(self.dataset), skipped_ids(self.dataset)
        done = there | skipped
        lists = {
            NEXT: to_paint(self.dataset, done, self._unsure),
            JUDGE: to_judge(self.dataset, done),
            PAINTED: [picture for picture in self.dataset if picture.id in there],
            PASSED: [picture for picture in self.dataset if picture.id in skipped - there],
        }
        shown = lists[name][start : start + PER_STRIP]
        message = {
            "tell": "list",
            "list": name,
            "from": start,
            "lists": [[each, title, len(lists[each])] for each, title in PHOTO_LISTS.items()],
            "items": [self._item(picture, there, skipped) for picture in shown],
            "note": self.next_step(),
        }
        return message, [self._small(picture, picture.id in there) for picture in shown]

    def _item(self, picture: Picture, there: set[str], skipped: set[str]) -> dict:
        """Return what the strip tells of a photo."""
        state = "mask" if picture.id in there else "skipped" if picture.id in skipped else ""
        unsure = self._unsure.get(picture.id, -1.0)
        return {
            "key": self._keys[picture.id],
            "name": self.dataset.records.own_name(picture.path) or picture.path.name,
            "label": picture.label,
            "state": state,
            "unsure": round(unsure, 3) if unsure >= 0 else None,
        }

    def _small(self, picture: Picture, painted: bool) -> bytes:
        """Return a small JPEG of a photo, with its mask's outline if it has one."""
        small = thumbnail(picture.path, SMALL)
        if painted:
            try:
                image, own = read_photo(picture.path)
                mask = read_mask(masks_folder(self.dataset) / f"{picture.id}.png", LIGHT, image.size, own)
                small = with_outlines(image, {DRAWN: mask})
                small.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
            except MaskError:  # told when the photo is opened
                logger.info("No outline for %s.", picture.id)
        return jpeg_bytes(small, quality=STRIP_QUALITY)

    def _show(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Show one photo, large, with its mask."""
        drawing = self._drawing(request)
        drawing.look()
        picture = self.dataset[drawing.id]
        message = {
            "tell": "photo",
            "name": self.dataset.records.own_name(picture.path) or picture.path.name,
            "label": picture.label,
            "set": SETS.get(picture.side, "in no set yet"),
            "judges": picture.side in JUDGING,
            "width": drawing.size[0],
            "height": drawing.size[1],
            "alert": drawing.remark,
        }
        return message | self._state(drawing), [_bits(drawing), jpeg_bytes(drawing.image, quality=PHOTO_QUALITY)]

    def _drawing(self, request: Mapping) -> Drawing:
        """Return the drawing of the photo that a message names."""
        id = self._ids.get(request.get("key")) if isinstance(request.get("key"), str) else None
        if id is None:
            raise StrokeError(f"There is no such photo here. {RELOAD_OR_RUN}")
        if self._open is None or self._open.id != id:
            self._open = Drawing(self.dataset, id)
        return self._open

    def _state(self, drawing: Drawing) -> dict:
        """Return what is told of a mask with each answer."""
        return {
            "key": self._keys[drawing.id],
            "last": drawing.last,
            "undo": drawing.undoable,
            "redo": drawing.redoable,
            "covered": share(float(drawing.mask.mean())),
            "state": "mask" if drawing.file.exists() else "skipped" if drawing.skipped else "",
            "remark": drawing.told,
        }

    def _store(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Store one stroke, and tell the mask that it makes."""
        drawing = self._drawing(request)
        stroke = read_stroke(request, drawing.size)
        layer, after = None, None
        if stroke.do == MASKER:
            if self.masker is None:
                raise StrokeError("There is no masker yet. Drag a box around the thing instead.")
            if self.dataset[drawing.id].side in JUDGING:
                raise StrokeError(
                    "This mask will judge the masker, so the masker suggests nothing. Drag a box instead."
                )
            layer = suggested_by_masker(self.masker, self._stages, drawing.image)
        if stroke.do == GRABCUT:
            layer = suggested_in_box(drawing.image, stroke.points)
        if stroke.do in (UNDO, REDO, CLEAR):
            after = str(request.get("after", ""))
        drawing.add(stroke, after=after, layer=layer)
        message = {"tell": "saved", "token": stroke.token, "note": self.next_step(), "alert": ""}
        return message | self._state(drawing), [_bits(drawing)]


def _bits(drawing: Drawing) -> bytes:
    """Return a mask as one bit per pixel: some browsers blur what a page reads out of a picture."""
    return np.packbits(drawing.mask).tobytes()


def _key(id: str) -> str:
    """Return the name by which messages call a photo; an id need not be valid text."""
    return id if id.isascii() and id.isprintable() else content_id(os.fsencode(id))
