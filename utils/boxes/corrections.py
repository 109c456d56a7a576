"""
What a person says of the boxes of photos, written into boxes.csv, with a way back.

Writes box_corrections.csv: one row per photo that was looked at, with its boxes before and after as JSON. The row comes
first and boxes.csv after it. A run that was killed between the two is completed by the next call.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from utils.boxes.box import Box, box_problem, clipped, read_boxes, write_boxes
from utils.errors import FieldguideError
from utils.ledger import now
from utils.project import Project
from utils.storage import locked, write_whole
from utils.tables import BOX_CORRECTION_COLUMNS, append_rows, mend_log, read_rows

SAVED, TAKEN_BACK = "saved", "undone"  # what a row tells: boxes as a person left them, or a way back


class BoxesChanged(FieldguideError):
    """The boxes of a photo are no longer those that a person saw."""


class BoxLedger:
    """The account of all that a person decided about boxes; opening it does nothing."""

    def __init__(self, project: Project):
        self.project = project
        self.table, self._boxes = project.table("box_corrections"), project.table("boxes")
        self._pending = project.data / "box_pending"  # there as long as a row is written and boxes.csv is not

    def save(self, id: str, before: Sequence[Box], after: Sequence[Box]) -> bool:
        """
        Make `after` the boxes of a photo and return whether that changes any; `before` are those the person saw.

        Boxes that stay as they were are noted, too: a person found them right. Raises BoxesChanged if the photo has
        other boxes by now, and FieldguideError for a box that cannot be.
        """
        after = tuple(clipped(box) for box in after)
        if problem := next(filter(None, map(box_problem, after)), ""):
            raise FieldguideError(f"One of the boxes is {problem}. Draw it anew.")
        with locked(self.project.data):
            boxes = self._settled()
            if _as_json(boxes.get(id, ())) != _as_json(before):
                raise BoxesChanged(f"The boxes of photo {id} were changed elsewhere meanwhile. They stand here now.")
            self._write(boxes, id, tuple(before), after, SAVED)
        return _as_json(before) != _as_json(after)

    def undo(self) -> str | None:
        """Take back the last row that still stands, and return the id of its photo; None if there is none."""
        with locked(self.project.data):
            boxes = self._settled()
            if not (standing := _standing_saves(self._rows())):
                return None
            last = standing[-1]
            before, after = _as_boxes(last["before"], self.table), _as_boxes(last["after"], self.table)
            if _as_json(boxes.get(last["id"], ())) != _as_json(after):
                raise BoxesChanged(
                    f"The boxes of photo {last['id']} were changed outside of the editor since: they stay as they are."
                )
            self._write(boxes, last["id"], after, before, TAKEN_BACK)
            return last["id"]

    def settle(self) -> None:
        """Complete what a killed run left half done; do nothing, and write nothing, where there is no such thing."""
        if self._pending.exists():
            with locked(self.project.data):
                self._settled()

    def looked_at(self) -> set[str]:
        """Return the ids of photos whose boxes are those that a person saved last."""
        with locked(self.project.data):
            boxes, last = self._settled(), {}
        for row in self._rows():
            last[row["id"]] = row
        saved = {id: row for id, row in last.items() if row["kind"] == SAVED}
        return {id for id, row in saved.items() if row["after"] == _as_json(boxes.get(id, ()))}

    def corrections(self):
        """
        Return all that was decided as a pandas DataFrame, oldest first.

        Its columns: time, id, how many boxes before and after, and the kind of row.
        """
        import pandas as pd  # here, because a table of gigabytes is read without it

        rows = [
            {**row, **{name: len(_as_boxes(row[name], self.table)) for name in ("before", "after")}}
            for row in self._rows()
        ]
        return pd.DataFrame(rows, columns=BOX_CORRECTION_COLUMNS)

    def _rows(self) -> list[dict[str, str]]:
        return read_rows(self.table, BOX_CORRECTION_COLUMNS)

    def _settled(self) -> dict[str, tuple[Box, ...]]:
        """Return boxes.csv, after completing the last row if a run was killed before it came there."""
        mend_log(self.table, BOX_CORRECTION_COLUMNS)
        boxes, rows = read_boxes(self._boxes), self._rows()
        # Only where a run was killed: a person may have put the boxes back by hand.
        if self._pending.exists():
            if rows and _as_json(boxes.get(rows[-1]["id"], ())) == rows[-1]["before"] != rows[-1]["after"]:
                boxes = _with_changed(boxes, rows[-1]["id"], _as_boxes(rows[-1]["after"], self.table))
                write_boxes(self._boxes, boxes)
            self._pending.unlink()
        return boxes

    def _write(self, boxes: dict, id: str, before: Sequence[Box], after: Sequence[Box], kind: str) -> None:
        """Write a row, and after it boxes.csv."""
        row = {"time": now(), "id": id, "before": _as_json(before), "after": _as_json(after), "kind": kind}
        if row["before"] == row["after"]:
            append_rows(self.table, BOX_CORRECTION_COLUMNS, [row])
            return
        write_whole(self._pending, row["time"])
        append_rows(self.table, BOX_CORRECTION_COLUMNS, [row])
        write_boxes(self._boxes, _with_changed(boxes, id, after))
        self._pending.unlink()


def _standing_saves(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the saves that were not taken back, oldest first; a way back whose save a hand deleted counts for none."""
    standing: list[dict[str, str]] = []
    for row in rows:
        if row["kind"] == SAVED:
            standing.append(row)
            continue
        own = [n for n, each in enumerate(standing) if (each["id"], each["after"]) == (row["id"], row["before"])]
        if own:
            standing.pop(own[-1])
    return standing


def _with_changed(boxes: dict[str, tuple[Box, ...]], id: str, found: Sequence[Box]) -> dict[str, tuple[Box, ...]]:
    """Return the boxes of all photos with those of one in place of what it had."""
    return {key: own for key, own in {**boxes, id: tuple(found)}.items() if own}


def _as_json(boxes: Sequence[Box]) -> str:
    """Return the boxes of one photo as one line of JSON."""
    return json.dumps([[box.label, *box.corners, list(box.flags), box.by] for box in boxes])


def _as_boxes(text: str, table: Path) -> tuple[Box, ...]:
    """Return the boxes of one photo from a row, or refuse what a hand has spoilt."""
    try:
        boxes = tuple(Box(label, *corners, tuple(flags), by) for label, *corners, flags, by in json.loads(text))
        problem = next(filter(None, map(box_problem, boxes)), "")
    except (ValueError, TypeError) as error:
        problem = str(error)
    if problem:
        raise FieldguideError(f"{table} holds {text[:60]!r}, which cannot be boxes ({problem}). Delete that line.")
    return boxes
