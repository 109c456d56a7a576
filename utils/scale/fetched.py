"""
The rows of collected addresses, and the work of fetching a block of them on some machine. Knows nothing of Ray.
"""

import json
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from utils.download import Rules, adopt_rows, fetch_rows
from utils.scale.jobs import part_schema
from utils.scale.links import LINK_FIELDS, host_of
from utils.scale.parts import FINISHED, Parts, written_rows
from utils.storage import make_folder, write_whole
from utils.tables import SOURCES_COLUMNS, TABLE

LATER_NAME, TOKEN_NAME = "later.parquet", ".collecting"
SILENT = 12  # addresses of a host in a row that fail for the moment; then its others wait for another run
ALONE_WINDOW = 24  # addresses of one host that are under way or wait for their turn: all too many for a silent one
LINK_TEXTS = ("file", *LINK_FIELDS, "picture", "status", "fetched_at")
NUMBER_COLUMNS = ("bytes", "width", "height")
LINK_COLUMNS = pa.schema([(name, pa.string()) for name in LINK_TEXTS] + [(name, pa.int64()) for name in NUMBER_COLUMNS])
LINK_ANSWERS = pa.schema(
    [("row", pa.int64()), *LINK_COLUMNS, ("error", pa.string()), ("passing", pa.bool_()), ("silent", pa.bool_())]
)


class Collected(Parts):
    """Rows of addresses. What failed for the moment stands apart, in later.parquet, and is missing in the next run."""

    def __init__(self, folder: Path, ids: pa.ChunkedArray):
        super().__init__(make_folder(folder), ids, part_schema(LINK_COLUMNS), {"task": "collect"})
        self.later: dict[int, pa.Table] = {}  # position → its row

    def begin(self) -> None:
        """Take away _DONE, and what is asked for again."""
        super().begin()
        (self.folder / LATER_NAME).unlink(missing_ok=True)

    def has(self, position: int) -> bool:
        """Return whether there is a row for the address at this position of the table."""
        return bool(self.known[position]) or position in self.later

    def take(self, answers: pa.Table) -> int:
        """Take the answers of a worker; return how many are new."""
        passing = answers["passing"].combine_chunks()
        rows = answers.select([*LINK_COLUMNS.names, "error"])
        for n in np.flatnonzero(passing.to_numpy(zero_copy_only=False)).tolist():
            self.later.setdefault(answers["row"][n].as_py(), rows.slice(n, 1))
        final = np.flatnonzero(~passing.to_numpy(zero_copy_only=False))
        added = self.add(answers["row"].to_numpy()[final], rows.take(pa.array(final)))
        return added + len(answers) - len(final)

    def finish(self) -> None:
        """Write what waits, what failed for the moment, and _DONE if every address has its row in one of them."""
        self.settle()
        if self.later:
            positions = sorted(self.later)
            rows = pa.concat_tables(self.later[n] for n in positions)
            rows = rows.add_column(0, "id", self.ids.take(pa.array(positions)).cast(pa.string()))
            buffer = pa.BufferOutputStream()
            parquet.write_table(rows.select(self.schema.names).cast(self.schema), buffer, compression="zstd")
            write_whole(self.folder / LATER_NAME, buffer.getvalue().to_pybytes())
        if len(self.missing) == len(self.later):
            told = {"addresses": len(self.ids), "errors": self.errors, "later": len(self.later), **self.facts}
            write_whole(self.folder / FINISHED, json.dumps(told, indent=1) + "\n")


@dataclass(frozen=True)
class Fetching:
    """What a worker does on its machine: fetch a block of addresses into the folder that all machines see."""

    folder: str
    token: str  # what stands in a file there while this run lasts
    rules: Rules

    def refusal(self) -> str:
        """Return why this machine cannot do the work, or ""."""
        try:
            seen = (Path(self.folder) / TOKEN_NAME).read_text()
        except OSError:
            seen = ""
        return (
            ""
            if seen == self.token
            else f"The machine {socket.gethostname()} does not see the folder {self.folder}. All machines must find it "
            "at the same place: mount one disk there under the same path on each."
        )

    def answers(self, positions: Sequence[int], records: Sequence[Mapping]) -> Iterator[pa.Table]:
        """Yield answers to the addresses of a block, a few at a time, each once its picture is on disk."""
        hosts, failed, asked, waiting = [host_of(each["url"]) for each in records], Counter(), [], []

        def willing() -> Iterator[Mapping]:
            for n, record in enumerate(records):
                (waiting if failed[hosts[n]] >= SILENT else asked).append(n)
                if asked[-1:] == [n]:
                    yield {**record, "engine": TABLE}

        window = ALONE_WINDOW if len(set(hosts)) == 1 else 0
        for outcomes in fetch_rows(willing(), Path(self.folder), self.rules, window=window):
            rows = []
            for k, row, file, passing in outcomes:
                n = asked[k]
                failed[hosts[n]] = failed[hosts[n]] + 1 if passing else 0
                rows.append(answer(positions[n], {**records[n], **row, "picture": row["id"]}, file, passing=passing))
            if rows:
                yield pa.Table.from_pylist(rows, schema=LINK_ANSWERS)
        if waiting:
            told = {n: f"not asked: its host failed {SILENT} times in a row ({hosts[n]})" for n in waiting}
            rows = [answer(positions[n], {**records[n], "reason": told[n]}, "", silent=True) for n in waiting]
            yield pa.Table.from_pylist(rows, schema=LINK_ANSWERS)


def answer(position: int, said: Mapping, file: str, *, passing: bool = False, silent: bool = False) -> dict:
    """Return a row of LINK_ANSWERS; `said` has the fields of the table and, as far as known, of sources.csv."""
    row = {name: said.get(name, "") for name in LINK_TEXTS} | {
        name: int(said.get(name) or 0) or None for name in NUMBER_COLUMNS
    }
    error = None if file else said["reason"]
    return row | {"row": position, "file": file, "error": error, "passing": passing or silent, "silent": silent}


def records_of(links: pa.Table, positions: Sequence[int]) -> list[dict[str, str]]:
    """Return the rows of the table at these positions."""
    return links.select(LINK_FIELDS).take(pa.array(positions, pa.int64())).to_pylist()


def unanswered_rows(links: pa.Table, positions: Sequence[int], why: str, *, passing: bool = False) -> pa.Table:
    """Return answers to addresses that no worker answered; those whose reason is a passing one wait for another run."""
    said = zip(positions, records_of(links, positions), strict=True)
    return pa.Table.from_pylist(
        [answer(n, {**each, "reason": why}, "", passing=passing) for n, each in said], schema=LINK_ANSWERS
    )


def note_sources(folder: Path, parts: Path) -> None:
    """Write to sources.csv the rows of all addresses that were asked for and are settled, sorted by id."""
    if list(parts.glob("part-*.parquet")):
        adopt_rows(folder / "sources.csv", _sources_rows(written_rows(parts)))


def _sources_rows(rows: pa.Table) -> Iterator[dict[str, str]]:
    """Yield rows as sources.csv has them."""
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            if row["status"]:
                said = row | {"id": row["picture"], "engine": TABLE, "reason": row["error"] or ""}
                yield {name: str(said.get(name) or "") for name in SOURCES_COLUMNS}
