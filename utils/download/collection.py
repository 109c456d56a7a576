"""
The one writer of stage 01: a file for each picture, then a row for each address.

Writes raw/<label>/<id>.<ext>, bytes as they came, named by their content, and sources.csv. The file comes first and
its row after it, so the next run completes a run that was killed: it asks only for what has no row.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from utils.download.report import ids_in, kind_of_reason, was_taken
from utils.pictures import known_header
from utils.storage import Shelf, content_id, locked, remove_leftovers
from utils.tables import FOLDER, HAD, SOURCES_COLUMNS, TAKEN, append_rows, each_row, mend_log, one_line

ADOPTED_AT_ONCE = 10_000  # rows
ROWS_AT_ONCE = 16  # pictures and rows put on disk together; a kill loses at most two such batches, and they are redone


@dataclass(frozen=True)
class Gathered:
    """One picture in hand: its bytes, where they are from, and the label they were asked for under."""

    label: str
    url: str
    data: bytes
    query: str = ""
    engine: str = ""
    page_url: str = ""
    title: str = ""
    license: str = "unknown"
    problem: str = ""  # why it could not be taken; then data is empty


def sources_row(picture: Gathered, **found) -> dict[str, str]:
    """Return the row of sources.csv for a picture and what was found of it: status, reason, id, bytes, …"""
    row = {name: getattr(picture, name, "") for name in SOURCES_COLUMNS} | found
    row["fetched_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    return {name: one_line(value) for name, value in row.items()}


class Collection:
    """What raw/ and sources.csv hold, and the only way to add to them. `tally` counts the rows added."""

    def __init__(self, table: Path, writer: Executor):
        self.table = table
        self.tally: Counter[tuple[str, str, str]] = Counter()  # by label, status, kind of reason
        self._asked: dict[tuple, bool] = {}  # (label, address) → whether its picture was taken, or one equal to it
        self._kept: set[tuple] = set()  # (label, id)
        self._states: set[tuple] = set()  # of files in folders, which can change: (label, address, id or problem)
        self._files: dict[Path, dict[str, bool]] = {}
        self._shelf, self._rows = Shelf(), []
        self._writer, self._under_way = writer, None
        remove_leftovers(table.parent, below=False)
        mend_log(table, SOURCES_COLUMNS)  # what a torn row was about is asked for again
        for row in each_row(table, SOURCES_COLUMNS):
            self._know(row)

    def _know(self, row: Mapping[str, str]) -> None:
        """Remember what a row says."""
        asked = row["label"], row["url"]
        self._asked[asked] = self._asked.get(asked, False) or row["status"] in HAD
        if row["engine"] == FOLDER:
            self._states.add((row["label"], row["url"], row["id"] or row["reason"]))
        if was_taken(row):
            self._kept.add((row["label"], row["id"]))

    def has(self, label: str, url: str) -> bool:
        """Return whether this address was asked for under this label before."""
        return (one_line(label), one_line(url)) in self._asked

    def has_picture(self, picture: Gathered) -> bool:
        """Return whether a picture in hand has a row. A file in a folder may change, and is then a new picture."""
        if picture.engine != FOLDER:
            return self.has(picture.label, picture.url)
        state = picture.problem or content_id(picture.data)
        return tuple(map(one_line, (picture.label, picture.url, state))) in self._states

    def pictures(self, folder: Path, label: str) -> int:
        """Return how many different pictures with a row lie in `folder`."""
        return sum(good and (one_line(label), id) in self._kept for id, good in self._lying(folder).items())

    def _lying(self, folder: Path) -> dict[str, bool]:
        """Return the ids of the files that lie in `folder`, and whether each has a known picture format."""
        if folder not in self._files:
            remove_leftovers(folder)
            self._files[folder] = ids_in(folder)
        return self._files[folder]

    def add(
        self, folder: Path, picture: Gathered, *, status: str = "kept", reason: str = "", facts: tuple | None = None
    ) -> bool:
        """Write a picture (`facts`: extension, width, height) and its row, or its row; return whether it is new."""
        more, gained = {}, False
        if status in TAKEN:
            id, files = content_id(picture.data), self._lying(folder)
            suffix, width, height = facts or known_header(picture.data)
            more = {"id": id, "bytes": len(picture.data), "width": width, "height": height}
            # A file without a row is left from a killed run, or its row was lost: it is an original, not a copy.
            if id in files and (one_line(picture.label), id) in self._kept:
                status, reason = "copy", f"exact copy of {id}"
            else:
                if id not in files:
                    self._shelf.add(folder / f"{id}.{suffix}", picture.data)
                    files[id] = suffix != "bin"
                gained = files[id]
        self._note(sources_row(picture, status=status, reason=reason, **more))
        if len(self._rows) >= ROWS_AT_ONCE:
            self.flush()
        return gained

    def adopt(self, row: Mapping[str, str]) -> None:
        """Take over a row whose picture is on disk already, unless its address has one that says as much."""
        asked = row["label"], row["url"]
        if asked not in self._asked or (was_taken(row) and not self._asked[asked]):
            twin = was_taken(row) and (row["label"], row["id"]) in self._kept
            self._note({**row, "status": "copy", "reason": f"exact copy of {row['id']}"} if twin else row)
            if len(self._rows) >= ADOPTED_AT_ONCE:
                self.flush()

    def _note(self, row: Mapping[str, str]) -> None:
        self._know(row)
        self._rows.append(row)

    def flush(self) -> None:
        """Have what waits put on disk while the next pictures are fetched, and wait for the batch before it."""
        shelf, rows, self._shelf, self._rows = self._shelf, self._rows, Shelf(), []
        before, self._under_way = self._under_way, self._writer.submit(self._settle, shelf, rows)
        if before:
            before.result()  # raises what went wrong there

    def wait(self) -> None:
        """Wait for the last batch."""
        self._under_way.result()

    def _settle(self, shelf: Shelf, rows: list[dict[str, str]]) -> None:
        """Put pictures on disk, and after them their rows."""
        shelf.settle()
        append_rows(self.table, SOURCES_COLUMNS, rows)
        self.tally.update((row["label"], row["status"], kind_of_reason(row["reason"])) for row in rows)


def adopt_rows(table: Path, rows: Iterable[Mapping[str, str]]) -> Counter:
    """
    Write rows to sources.csv whose pictures are on disk already, those whose address has none, or only ones
    without a picture where this one has it; return what was added.

    The caller holds the lock of the folder.
    """
    with ThreadPoolExecutor(1) as writer:
        collection = Collection(table, writer)
        for row in rows:
            collection.adopt(row)
        collection.flush()
        collection.wait()
    return collection.tally


@contextmanager
def collecting(table: Path) -> Iterator[Collection]:
    """Lock the folder of `table`, and write the last rows at the end, also after an interruption."""
    with locked(table.parent), ThreadPoolExecutor(1) as writer:
        collection = Collection(table, writer)
        try:
            yield collection
        finally:
            try:
                collection.flush()
            finally:
                collection.wait()
