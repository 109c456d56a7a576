"""
Masks, the mask of one photo as a person draws it: every stroke on disk before the next one.

Writes data/<name>/masks/strokes/<id>.csv, a log with a row per stroke, and masks/<id>.png, which is drawn from it. A
mask that was made elsewhere is the first layer: before it is drawn over, a copy of its file goes to
masks/strokes/<hash>.png, and so do masks that were suggested. Undo is a row, too, so it outlasts the kernel.

The row is written first, then the picture, and no row before the last one's picture is there. So a kill leaves either
both, or a picture that lacks the last row: that one is drawn again. Any other picture was made by other hands.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.masks.reading import LIGHT, MaskError, mask_png, masks_folder, read_mask, read_photo
from utils.masks.strokes import (
    ASKED,
    BRUSH,
    CLEAR,
    ERASE,
    POLYGON,
    REDO,
    SKIP,
    UNDO,
    WAS_THERE,
    Stroke,
    StrokeError,
    drawn_over,
)
from utils.pictures import PictureError, open_picture
from utils.storage import (
    MINUTE,
    content_id,
    file_stamp,
    locked,
    remove_leftovers,
    sync_folder,
    visible_files,
    write_whole,
)
from utils.tables import STROKES_COLUMNS, append_rows, each_row, mend_log

LARGE = 1e5  # pixels: no number of a stroke is larger
BY_HAND = "file"  # begins the tokens of what was done to masks/<id>.png elsewhere


def strokes_folder(dataset: Dataset) -> Path:
    """Return the folder of the logs of strokes, and of the masks that they begin with."""
    return masks_folder(dataset) / "strokes"


def strokes_log(dataset: Dataset, id: str) -> Path:
    """Return the log of a photo's strokes."""
    return strokes_folder(dataset) / f"{id}.csv"


def drawn_ids(dataset: Dataset) -> set[str]:
    """Return the ids of the photos that have a mask in masks/."""
    return {path.stem for path in visible_files(masks_folder(dataset)) if path.suffix == ".png"} & set(dataset.ids)


def skipped_ids(dataset: Dataset) -> set[str]:
    """Return the ids of the photos that were skipped last, and not drawn on since."""
    skipped = set()
    for log in _logs(dataset):
        last = log.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]  # the others need not be understood
        skipped |= {log.stem} if last.split(b",")[2:3] == [SKIP.encode()] else set()
    return skipped


def _logs(dataset: Dataset) -> list[Path]:
    """Return the logs of the photos that are in the data set."""
    return [path for path in visible_files(strokes_folder(dataset)) if path.suffix == ".csv" and path.stem in dataset]


def finish_drawings(dataset: Dataset) -> None:
    """Draw the masks of which a killed kernel stored the last stroke, but not yet the picture."""
    remove_leftovers(masks_folder(dataset), older=MINUTE)
    for log in _logs(dataset):
        mask = masks_folder(dataset) / f"{log.stem}.png"
        if not mask.exists() or _older(mask, log):
            with suppress(FieldguideError, MaskError):  # as above
                Drawing(dataset, log.stem).look()


def _older(one: Path, other: Path) -> bool:
    """Return whether a file was written before another, as far as the disk can tell."""
    return one.stat().st_mtime_ns <= other.stat().st_mtime_ns


class Drawing:
    """
    The mask of a photo, with what was done to it.

    `image` is the photo as 02 reduces it, `mask` bool (H, W), true where the thing is. `last` names the last thing that
    was done: who undoes says which that was, so that nobody undoes what they have not seen. `remark` says what cannot
    be used of the file that was there.

    Raises MaskError if the photo cannot be read, FieldguideError if its log is damaged.
    """

    def __init__(self, dataset: Dataset, id: str):
        self.id, self._project = id, dataset.project
        self.image, _ = read_photo(dataset[id].path)
        self.log, self.file = strokes_log(dataset, id), masks_folder(dataset) / f"{id}.png"
        self._seen: list | None = None
        self._read()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.image.size

    @property
    def mask(self) -> np.ndarray:
        return self._state(self._place)

    @property
    def last(self) -> str:
        return self._rows[-1].token if self._rows else ""

    @property
    def skipped(self) -> bool:
        return bool(self._rows) and self._rows[-1].do == SKIP

    @property
    def undoable(self) -> int:
        """How many steps can be taken back; a mask that was there at first stays."""
        return self._place - self._floor

    @property
    def redoable(self) -> int:
        """How many steps can be made again."""
        return len(self._steps) - self._place

    @property
    def told(self) -> str:
        """What became of the mask, in words; "" if it can be used."""
        if usable(self.mask) is not None:
            return ""
        return "The mask covers the whole photo, so it is not used yet." if self.mask.any() else ""

    def look(self) -> None:
        """Take over what happened on disk, and draw the picture that a kill has left out."""
        self._read()
        if self._late:
            with locked(self._project.data):
                self._catch_up()

    def add(self, stroke: Stroke, *, after: str | None = None, layer: np.ndarray | None = None) -> None:
        """
        Store a stroke, and draw the mask anew; what was stored already is not stored twice.

        `after` names the last thing that the person saw, for what goes back or away. `layer` is the mask, bool (H, W),
        that the stroke brings. Raises StrokeError if it makes no sense here.
        """
        with locked(self._project.data):
            mend_log(self.log, STROKES_COLUMNS)
            self._catch_up()
            if stroke.token in self._tokens:
                return
            self._check(stroke, after)
            if layer is not None:
                stroke = replace(stroke, file=self._keep(mask_png(layer)))
            if self._unstored and self._unstored.file != (
                self._keep(self.file.read_bytes()) if self.file.exists() else ""
            ):
                raise FieldguideError(f"{self.file} is being changed elsewhere. Nothing was stored; try again.")
            time = datetime.now(UTC).isoformat(timespec="seconds")
            rows, new = [*([self._unstored] if self._unstored else []), stroke], not self.log.exists()
            append_rows(self.log, STROKES_COLUMNS, [_row(each, time) for each in rows])
            if new:
                sync_folder(self.log.parent)
            self._unstored = None
            self._push(stroke)
            self._draw()

    def _check(self, stroke: Stroke, after: str | None) -> None:
        """Raise StrokeError if a stroke makes no sense for what is there."""
        if after is not None and after != self.last:
            raise StrokeError("The mask was changed elsewhere since you saw it: nothing was done. Look at it first.")
        if stroke.do == UNDO and not self.undoable:
            raise StrokeError("There is nothing to undo.")
        if stroke.do == REDO and not self.redoable:
            raise StrokeError("There is nothing to do again.")
        if stroke.do == SKIP and self.mask.any():
            raise StrokeError("This photo has a mask. To skip it, clear the mask first.")
        if stroke.do == CLEAR and not self.mask.any():
            raise StrokeError("There is nothing to clear.")

    # --- what is on disk ---

    def _read(self) -> None:
        """Read the log and the picture, if they changed since they were read."""
        stamps = [file_stamp(self.log), file_stamp(self.file)]
        if stamps == self._seen:
            return
        if self._seen is None or stamps[0] != self._seen[0] or self._unstored:
            self._rows: list[Stroke] = []
            self._steps: list[Stroke] = []
            self._states = [np.packbits(np.zeros(self.size[::-1], bool))]
            self._place = self._floor = 0
            self._tokens: set[str] = set()
            self._unstored: Stroke | None = None  # what other hands did to the picture, until the next row
            self.remark = ""
            for stroke in _strokes(self.log):
                self._push(stroke)
        self._compare()
        self._seen = stamps

    def _compare(self) -> None:
        """Find out whether the picture on disk is the one that the log gives."""
        there = self._on_disk()
        content = "" if there is None else content_id(self.file.read_bytes())
        self._late = not _same_mask(there, usable(self.mask))
        if not self._late or self._lacks_last_row(there, content):
            return
        self._late = False
        by_hand = (
            Stroke(WAS_THERE, f"{BY_HAND}-{content}", file=content) if content else Stroke(CLEAR, f"{BY_HAND}-gone")
        )
        self._push(by_hand)
        self._unstored = by_hand

    def _lacks_last_row(self, there: np.ndarray | None, content: str) -> bool:
        """Return whether the picture is the one before the last row: a kill came between the two."""
        if not self._rows or (content and not _older(self.file, self.log)):
            return False
        found = [row.file for row in self._rows[-2:-1] if row.do == WAS_THERE]
        return _same_mask(there, usable(self._state(self._before))) or content in found

    def _on_disk(self) -> np.ndarray | None:
        """Return masks/<id>.png as bool (H, W) if it has the form of ours, no pixel if not; None if there is none."""
        if not self.file.exists():
            return None
        try:
            values = np.asarray(open_picture(self.file))[..., 0]
        except (PictureError, OSError):
            return np.zeros(0, bool)
        drawn = values.shape == self.size[::-1] and np.isin(values, (0, 255)).all()
        return values > 0 if drawn else np.zeros(0, bool)

    def _catch_up(self) -> None:
        """Take over what happened on disk, and finish what a kill interrupted; the caller holds the lock."""
        self._read()
        if self._late:
            self._draw()

    def _draw(self) -> None:
        """Write masks/<id>.png as the log gives it; where there is nothing to use, remove it."""
        self._late = True
        if usable(self.mask) is None:
            self.file.unlink(missing_ok=True)
            sync_folder(self.file.parent)
        else:
            write_whole(self.file, mask_png(self.mask))
        self._late = False
        self._seen = [file_stamp(self.log), file_stamp(self.file)]

    def _keep(self, data: bytes) -> str:
        """Store a mask's file under its content, and return its name."""
        name = content_id(data)
        path = self.log.with_name(f"{name}.png")
        if not path.exists():
            write_whole(path, data)
        return name

    # --- states ---

    def _state(self, place: int) -> np.ndarray:
        """Return the mask after so many steps."""
        width, height = self.size
        return np.unpackbits(self._states[place], count=width * height).astype(bool).reshape(height, width)

    def _push(self, stroke: Stroke) -> None:
        """Take one row into account."""
        self._before = self._place
        if stroke.do == UNDO:
            self._place = max(self._floor, self._place - 1)
        elif stroke.do == REDO:
            self._place = min(len(self._steps), self._place + 1)
        elif stroke.do != SKIP:
            del self._steps[self._place :], self._states[self._place + 1 :]
            self._steps.append(stroke)
            self._states.append(np.packbits(drawn_over(self._state(self._place), stroke, self._layer)))
            self._place += 1
            self._floor = int(self._steps[0].do == WAS_THERE)
        self._rows.append(stroke)
        if not stroke.token.startswith(BY_HAND):
            self._tokens.add(stroke.token)

    def _layer(self, stroke: Stroke) -> np.ndarray:
        """Return the mask that a stroke brings; one that cannot be used is empty, and `remark` says why."""
        path = self.log.with_name(f"{stroke.file}.png")
        place = path if path.exists() else self.file
        try:
            if content_id(place.read_bytes()) != stroke.file:
                raise MaskError("its file is not the one that was kept")
            return read_mask(place, LIGHT, self.size)
        except (MaskError, OSError) as error:
            self.remark = f"{place} is not used: {error}. What you draw begins without it; the file is kept in {path}."
            return np.zeros(self.size[::-1], bool)


def usable(mask: np.ndarray) -> np.ndarray | None:
    """Return a mask that says where the thing is; None if it is empty or full."""
    return mask if mask.any() and not mask.all() else None


def _same_mask(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool((one == other).all())


def _strokes(log: Path) -> Iterator[Stroke]:
    """Yield the rows of a log, or raise FieldguideError with the line that is none."""
    for number, row in enumerate(each_row(log, STROKES_COLUMNS), start=2):
        try:
            points = [tuple(map(float, point.split())) for point in row["points"].split(";") if point]
            stroke = Stroke(row["do"], row["token"], float(row["size"] or 0), tuple(points), row["file"])
            numbers = [stroke.size, *(value for point in points for value in point)]
            if any(len(point) != 2 for point in points) or not all(abs(value) < LARGE for value in numbers):
                raise ValueError
            if stroke.do not in (*ASKED, WAS_THERE) or set(stroke.file) - set("0123456789abcdef"):
                raise ValueError
            if not points and stroke.do in (BRUSH, ERASE, POLYGON):
                raise ValueError
            yield stroke
        except ValueError:
            raise FieldguideError(
                f"{log}, row {number}, is no stroke. Repair or delete that row; masks/ keeps the mask as it is."
            ) from None


def _row(stroke: Stroke, time: str) -> Mapping:
    """Return a stroke as a row of its log."""
    points = ";".join(f"{x:g} {y:g}" for x, y in stroke.points)
    return {**vars(stroke), "time": time, "points": points, "size": f"{stroke.size:g}" if stroke.size else ""}
