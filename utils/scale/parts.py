"""
The folder of answers: Parquet parts, each written whole, and _DONE once every picture of the table has its row.

One run at a time writes there. What the parts hold is known by their ids, so a run that was killed loses the rows that
waited in memory, and nothing that was written is judged again.
"""

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from utils.errors import FieldguideError
from utils.scale.photos import ADDRESS_BEGINS, CELLS
from utils.storage import locked, make_folder, remove_leftovers, require_writable, write_whole
from utils.words import counted, listed

PART_NAME, FINISHED = "part-{:06}.parquet", "_DONE"
FACTS_KEY = b"fieldguide"  # in a part's metadata: what made its rows, as JSON
MOST_BYTES, MOST_SECONDS = 64 * 2**20, 60  # of rows that wait for their part
FIRST_SECONDS = 2  # then twice as long for each part: a killed run loses little, and a long one has few parts


@contextmanager
def own_folder(out: str) -> Iterator[Path]:
    """Yield the folder of answers, which belongs to this run alone until the block ends."""
    if ADDRESS_BEGINS.match(out):
        raise FieldguideError(f"--out {out} is an address. Name a folder on a disk, and copy it there afterwards.")
    folder = Path(out).absolute()
    if folder.exists() and not folder.is_dir():
        raise FieldguideError(f"--out {out} is a file, not a folder. Name another.")
    require_writable(make_folder(folder))
    with locked(folder, wait=1):
        remove_leftovers(folder, below=False)
        yield folder


class Parts:
    """
    The rows of a table of N pictures in their folder: which are there, and new ones.

    `facts` say what makes the rows, such as the SHA-256 of a model. Raises FieldguideError if the folder holds rows
    that something else made, rows of pictures that the table does not name, or a part that cannot be read.
    """

    def __init__(self, folder: Path, ids: pa.ChunkedArray, schema: pa.Schema, facts: Mapping[str, str]):
        self.folder, self.ids, self.facts = folder, ids, facts
        self.schema = schema.with_metadata({FACTS_KEY: json.dumps(facts, sort_keys=True).encode()})
        self.known = np.zeros(len(ids), dtype=bool)  # (N,)
        self.places: dict[Path, np.ndarray] = {}  # part that was there → positions in the table of its rows
        self.errors = 0  # rows with one
        self._waiting: list[pa.Table] = []
        self._since, self._patience = 0.0, FIRST_SECONDS
        paths = part_paths(folder)
        self._next = 1 + max((int(path.stem[5:]) for path in paths if path.stem[5:].isdecimal()), default=0)
        self._know([(path, _rows_of(path, self.schema, facts)) for path in paths])

    def _know(self, parts: Sequence[tuple[Path, pa.Table]]) -> None:
        """Note the rows of the parts that are there; refuse ids that the table lacks, or that stand in two rows."""
        if not parts:
            return
        rows = pa.concat_tables(table for _, table in parts)
        places = pc.index_in(rows["id"].cast(CELLS), value_set=self.ids.combine_chunks())
        if places.null_count:
            others = rows["id"].filter(pc.is_null(places))
            raise FieldguideError(
                f"{self.folder} holds {counted(len(others), 'row')} of pictures that the table does not name: "
                f"{listed(others[:3].to_pylist())}. They are of another table: name another folder with --out."
            )
        places, start = places.to_numpy(), 0
        for path, table in parts:
            own = places[start : start + len(table)]
            if self.known[own].any() or len(np.unique(own)) < len(own):
                raise FieldguideError(
                    f"{path} holds ids that stand in two rows. Remove it; its pictures are judged again."
                )
            self.known[own], start = True, start + len(own)
            self.places[path] = own
        self.errors = len(rows) - rows["error"].null_count

    @property
    def constant(self) -> dict[str, str]:
        """The facts that are also columns, the same in each row."""
        return {name: value for name, value in self.facts.items() if name in self.schema.names}

    @property
    def missing(self) -> np.ndarray:
        """The positions in the table, int64 (M,), of the pictures without a row."""
        return np.flatnonzero(~self.known)

    def add(self, positions: np.ndarray, rows: pa.Table) -> int:
        """Take rows of pictures at these positions of the table, those that have none yet; return how many."""
        new = ~self.known[positions]
        self.known[positions] = True
        if not new.any():
            return 0
        if not self._waiting:
            self._since = time.monotonic()
        rows = rows.filter(pa.array(new))
        ids = self.ids.take(pa.array(positions[new])).cast(pa.string())
        self._waiting.append(rows.add_column(0, "id", ids).select(self.schema.names).cast(self.schema))
        self.errors += len(rows) - rows["error"].null_count
        waited, size = time.monotonic() - self._since, sum(each.nbytes for each in self._waiting)
        if size > MOST_BYTES or waited > min(self._patience, MOST_SECONDS):
            self.settle()
            self._patience *= 2
        return len(rows)

    def settle(self) -> None:
        """Write the rows that wait as a part."""
        if self._waiting:
            write_rows(self.folder / PART_NAME.format(self._next), pa.concat_tables(self._waiting))
            self._next += 1
        self._waiting = []

    def begin(self) -> None:
        """Take away _DONE: rows are missing."""
        (self.folder / FINISHED).unlink(missing_ok=True)

    def finish(self) -> None:
        """Write what waits, and _DONE if every picture of the table has its row."""
        self.settle()
        if not len(self.missing):
            told = {"pictures": len(self.ids), "errors": self.errors, **self.facts}
            write_whole(self.folder / FINISHED, json.dumps(told, indent=1) + "\n")


def part_paths(folder: Path) -> list[Path]:
    """Return the parts in a folder, in the order of their names."""
    return sorted(folder.glob("part-*.parquet"))


def write_rows(path: Path, rows: pa.Table) -> None:
    """Write rows as a Parquet file, whole or not at all."""
    buffer = io.BytesIO()  # so that a full disk is met by `write_whole`, which knows what to say
    parquet.write_table(rows, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def rows_so_far(folder: Path, schema: pa.Schema, facts: Mapping[str, str]) -> pa.Table:
    """Return the rows of all parts that are there; refuse those that are damaged or that something else made."""
    found = [_rows_of(path, schema, facts, schema.names) for path in part_paths(folder)]
    return pa.concat_tables([schema.empty_table(), *found])


def _rows_of(
    path: Path, schema: pa.Schema, facts: Mapping[str, str], columns: Sequence[str] = ("id", "error")
) -> pa.Table:
    """Return columns of a part; refuse one that is damaged or that something else made."""
    try:
        data = io.BytesIO(path.read_bytes())
        found = parquet.read_schema(data)
        made_by = json.loads((found.metadata or {}).get(FACTS_KEY, b"{}"))
        rows = parquet.read_table(data, columns=list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FieldguideError(
            f"{path} cannot be read ({str(error).splitlines()[0][:200]}). Remove it; its pictures are judged again."
        ) from error
    if made_by == facts and found.equals(schema):
        return rows
    changed = [name for name in facts if made_by.get(name) != facts[name]]
    told = [f"{name} was {made_by.get(name)} and is {facts[name]}" for name in changed]
    raise FieldguideError(
        f"{path} was made in another way: {'; '.join(told) or 'its columns are others'}. Rows of both must not mix: "
        "name another folder with --out, or go on with what made it."
    )


def written_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of all parts in a folder, sorted by id, with these columns or all."""
    return pa.concat_tables(each_part(folder, columns)).sort_by("id")


def each_part(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of one part in a folder after another, with these columns or all."""
    paths = part_paths(folder)
    if not paths:
        raise FieldguideError(f"{folder} holds no parts yet.")
    for path in paths:
        yield parquet.read_table(path, columns=columns)
