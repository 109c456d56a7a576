"""
Few pairs of pictures at a time, compared on this machine: handing them out would take longer.

A long chain asks for one pair after another, thousands in all. So the answers are kept too, as a part for each few
seconds of work.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from utils.errors import FieldguideError
from utils.machine import usable_cores
from utils.scale.jobs import part_schema
from utils.scale.pairing import Comparing
from utils.scale.parts import Parts, rows_so_far
from utils.scale.photos import CELLS
from utils.scale.work import Worker
from utils.storage import make_folder, remove_leftovers
from utils.words import counted

SECONDS = 20  # of work, that a killed run loses at most
TRIES_ALONE = 2  # as often a pair that failed is tried again


class FewPairs:
    """What was compared here, kept in a folder; `pictures` tells the pictures from others."""

    def __init__(self, folder: Path, pictures: str):
        self._worker = Worker(Comparing(""), usable_cores(), ())  # it keeps the picture that a chain is compared with
        self._folder, self._facts = folder, {"task": "compare", "pictures": pictures}
        self._schema = part_schema(Comparing.columns)
        if folder.exists():
            remove_leftovers(folder, below=False)
        self._rows = {row["id"]: row for row in rows_so_far(folder, self._schema, self._facts).to_pylist()}
        self._kept, self._since = len(self._rows), 0.0  # the first so many rows stand in parts

    def answers(self, ids: Sequence[str], places: pa.ChunkedArray) -> pa.Table:
        """Return the rows of pairs in this order; raises FieldguideError if some cannot be compared for now."""
        new = [n for n, id in enumerate(ids) if id not in self._rows]
        if new:
            self._since = self._since or time.monotonic()
            found = self._compared(pa.table({"row": new, "place": places.take(pa.array(new))}))
            self._rows |= {ids[row["row"]]: {"id": ids[row["row"]], **row} for row in found}
            if time.monotonic() - self._since > SECONDS:
                self.keep()
        return pa.Table.from_pylist([self._rows[id] for id in ids], schema=self._schema)

    def _compared(self, pairs: pa.Table) -> list[Mapping]:
        """Return the answers to pairs; those that fail are tried again, each alone."""
        rows = self._worker(pairs).to_pylist()
        for _ in range(TRIES_ALONE):
            for n in [n for n, row in enumerate(rows) if row["failed"]]:
                rows[n] = self._worker(pairs.slice(n, 1)).to_pylist()[0]
        if left := [row["failed"] for row in rows if row["failed"]]:
            raise FieldguideError(
                f"{counted(len(left), 'pair')} of pictures could not be compared: {left[0]}. Put that right, and run "
                "this again: what was compared is kept."
            )
        return rows

    def keep(self) -> None:
        """Write the answers that wait as a part."""
        if len(self._rows) > self._kept:
            parts = Parts(
                make_folder(self._folder), pa.chunked_array([list(self._rows)], CELLS), self._schema, self._facts
            )
            rows = pa.Table.from_pylist(list(self._rows.values())[self._kept :], schema=self._schema)
            parts.add(parts.missing, rows.drop_columns(["id"]))
            parts.settle()
        self._kept, self._since = len(self._rows), 0.0
