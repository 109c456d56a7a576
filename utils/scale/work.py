"""
A worker on some machine: made once, it answers one block of the table after another. Knows nothing of Ray.

What goes wrong comes back as data. `error` is the answer for a picture that cannot be read. `failed` says that the
block may be tried again, and `refused` that the whole run must stop.
"""

import socket
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from utils.scale.jobs import part_schema
from utils.scale.storages import Unreached, blindness, each_picture
from utils.tables import one_line

REASON_LETTERS = 500  # letters
TROUBLE = [("failed", pa.string()), ("refused", pa.string())]


class Worker:
    """Answers blocks of a table, on so many processors; `seen` are places that must be visible from here."""

    def __init__(self, job, cores: int, seen: Sequence[str]):
        self.seen, self.refusal, self.judge = seen, blindness(seen), None
        self.read = getattr(job, "read", each_picture)  # not each place is one of a picture
        columns = part_schema(job.columns)
        self.schema = pa.schema([("row", pa.int64()), *columns.remove(columns.get_field_index("id")), *TROUBLE])
        try:
            self.judge: Callable = job.worker(cores)
        except Exception as error:  # such as a library that this machine lacks
            told = f"The machine {socket.gethostname()} cannot do the work: {shortly(error)}"
            self.refusal = self.refusal or f"{told} Put that right there, and run this again."

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return the answers to a block with the columns row and place, as many as it has rows."""
        places, late, failed = block["place"].to_pylist(), {}, None
        try:
            rows = [] if self.refusal else list(self.judge(noting(self.read(places), late)))
        except Exception as error:  # such as memory that did not suffice; a smaller block may do
            rows, failed = [], shortly(error)
        refused = self.refusal or (any(row.get("error") for row in rows) and blindness(self.seen)) or None
        rows = rows or [{"failed": failed}] * len(places)
        found = [
            {**row, "row": position, "refused": refused, **({"failed": late[n]} if n in late else {})}
            for n, (position, row) in enumerate(zip(block["row"].to_pylist(), rows, strict=True))
        ]
        for row in found:
            row["error"] = row.get("error") and one_line(row["error"])[:REASON_LETTERS]
        return pa.Table.from_pylist(found, schema=self.schema)


def noting(pictures: Iterator, late: dict[int, str]) -> Iterator:
    """Yield pictures, and note the positions of those that a storage did not hand over."""
    for n, picture in enumerate(pictures):
        if isinstance(picture, Unreached):
            late[n] = str(picture)
        yield picture


def shortly(error: Exception | str) -> str:
    """Return what an exception says, in one line of bounded length."""
    return one_line(str(error) or type(error).__name__)[:REASON_LETTERS]
