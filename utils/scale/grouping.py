"""
The task of grouping near-duplicates: from what `verify` wrote to one row per picture with its group.

Exact copies have one content. Of the others the hashes tell which pairs to compare, and the pixels decide, as in 03.
Both are handed out: the search among hashes in pieces, the pairs of pictures in blocks. What was answered is kept below
_work/ in the folder of answers, so a run that was killed goes on. Knows nothing of Ray.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from utils.copies import PERCEPTUAL_HASH, HashSearch, search_pieces, versions_of_one
from utils.errors import FieldguideError
from utils.scale.few import FewPairs
from utils.scale.jobs import part_schema
from utils.scale.pairing import BETWEEN, UNREAD_BITS, Comparing, Searching
from utils.scale.parts import FINISHED, Parts, written_rows
from utils.scale.photos import CELLS
from utils.scale.verifying import Verifying
from utils.scale.work import shortly
from utils.words import counted, listed

GROUP_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("pictures", pa.int64()),
        ("keep", pa.bool_()),
        ("error", pa.string()),
    ]
)
CHECKED_SCHEMA = part_schema(Verifying.columns)
CHECKED_COLUMNS = ["id", "content", "hash", "width", "height", "error"]
WRITTEN_TOGETHER = 1_000_000  # rows
FEW_HASHES, FEW_PAIRS = 20_000, 64  # so few are searched and compared here: a second, and some


# A job, its table of ids and places, the folder for its rows, and what one of them is called; yields its rows.
Answered = Callable[[object, pa.Table, Path, str], Iterator[pa.Table]]


@dataclass
class Checked:
    """What `verify` found of N pictures, in the order of their ids."""

    rows: pa.Table  # (N,): CHECKED_COLUMNS
    places: pa.ChunkedArray  # (N,)
    firsts: np.ndarray = field(init=False)  # (C,): the first picture of each content
    of: np.ndarray = field(init=False)  # (N,): which of the firsts has its content; -1 if verify rejected it
    codes: np.ndarray = field(init=False)  # (C,): uint64

    def __post_init__(self):
        good = np.flatnonzero(self.rows["error"].is_null().to_numpy())
        contents = self.rows["content"].take(pa.array(good)).combine_chunks().dictionary_encode()
        _, first, place = np.unique(contents.indices.to_numpy(), return_index=True, return_inverse=True)
        self.firsts, self.of = good[first], np.full(len(self.rows), -1)
        self.of[good] = place
        self.codes = hash_numbers(self.rows["hash"].take(pa.array(self.firsts)))

    @cached_property
    def digest(self) -> str:
        """What tells these pictures from others."""
        told = hashlib.sha256()
        for name in ("id", "content", "hash"):
            told.update(_letters(self.rows[name]))
            told.update(pc.binary_length(self.rows[name]).fill_null(-1).to_numpy())
        return told.hexdigest()


def hash_numbers(texts: pa.ChunkedArray) -> np.ndarray:
    """
    Return perceptual hashes of 16 hex digits as numbers, uint64 (N,); raises ValueError if one is none.

    >>> hash_numbers(pa.chunked_array([["00000000000000ff", "8000000000000000"]])).tolist()
    [255, 9223372036854775808]
    """
    whole = pc.match_substring_regex(texts, f"^{PERCEPTUAL_HASH.pattern}$").fill_null(False)
    if (wrong := pc.index(whole, False).as_py()) >= 0:
        raise ValueError(f"{str(texts[wrong])[:40]!r} is not a hash of 16 hex digits")
    return np.frombuffer(bytes.fromhex(_letters(texts).decode()), dtype=">u8").astype(np.uint64)


def _letters(texts: pa.ChunkedArray) -> bytes:
    """Return all letters of a column in a row."""
    cells = texts.cast(CELLS).fill_null("").combine_chunks()
    if not len(cells):
        return b""
    _, ends, data = cells.buffers()  # where each cell begins, and the letters; of a slice they hold more
    ends = np.frombuffer(ends, dtype=np.int64)[cells.offset : cells.offset + len(cells) + 1]
    return memoryview(data or b"")[ends[0] : ends[-1]].tobytes()


def read_checked(folder: str, table: pa.Table) -> Checked:
    """
    Return what `verify` wrote into a folder of the pictures of a table of ids and places.

    Raises FieldguideError if it is not finished, is the work of another task, or holds other pictures than the table.
    """
    path = Path(folder)
    try:
        made_by = json.loads((path / FINISHED).read_text(encoding="utf-8"))["task"]
        if made_by != "verify":
            raise FieldguideError(f"{folder} holds what {made_by} wrote. Name the folder of verify with --checked.")
        rows = written_rows(path, CHECKED_COLUMNS)
    except FileNotFoundError:
        raise FieldguideError(
            f"{folder} has no {FINISHED}: verify has not finished there. Run it with --out {folder} to its end first."
        ) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FieldguideError):
            raise
        raise FieldguideError(
            f"{folder} cannot be read ({shortly(error)}). Run verify again into that folder."
        ) from error
    if strange := [f"{field.name} is {field.type}" for field in rows.schema if field not in CHECKED_SCHEMA]:
        raise FieldguideError(
            f"{folder} holds other columns than verify writes: {', '.join(strange)}. Remove its parts and run "
            "verify again."
        )
    if doubled := len(rows) - pc.count_distinct(rows["id"]).as_py():
        raise FieldguideError(
            f"{folder} holds {counted(doubled, 'row')} too many: ids stand in more than one. Remove its parts and run "
            "verify again."
        )
    places = pc.index_in(rows["id"].cast(CELLS), value_set=table["id"].combine_chunks())
    if places.null_count:
        others = rows["id"].filter(pc.is_null(places))
        raise FieldguideError(
            f"{folder} holds {counted(len(others))} that the table does not name: {listed(others[:3].to_pylist())}. "
            "Name the table that verify read."
        )
    if len(rows) != len(table):
        raise FieldguideError(
            f"The table names {counted(len(table))}, and {folder} holds {len(rows):,}. Run verify with this table and "
            f"--out {folder} first."
        )
    try:
        return Checked(rows, table["place"].take(places))
    except ValueError as error:
        raise FieldguideError(f"{folder} is damaged: {error}. Remove its parts and run verify again.") from error


@dataclass
class Grouping:
    """The groups of pictures that verify found of use; `answered` hands out work and returns its rows."""

    checked: Checked
    folder: Path
    answered: Answered
    searches: int = 0
    comparisons: int = 0
    uncompared: dict[int, str] = field(default_factory=dict)  # position of a picture → why not, or not with which

    def __post_init__(self):
        self._few = FewPairs(self.folder / "few", self.checked.digest)

    def rows(self) -> pa.Table:
        """Return one row for each of N pictures: GROUP_COLUMNS."""
        checked, alone = self.checked, np.arange(len(self.checked.rows))
        root = alone
        if len(checked.codes):
            try:
                versions = versions_of_one(checked.codes, self.same, self.found)
            finally:
                self._few.keep()
            root = np.where(checked.of < 0, alone, checked.firsts[versions][checked.of])
        _, first, place, sizes = np.unique(root, return_index=True, return_inverse=True, return_counts=True)
        wide, high = (checked.rows[name].fill_null(0).to_numpy().astype(np.int64) for name in ("width", "height"))
        order = np.lexsort((alone, -wide * high, place))
        kept = np.zeros(len(root), dtype=bool)
        kept[order[np.unique(place[order], return_index=True)[1]]] = True
        columns = [
            checked.rows["id"],
            checked.rows["id"].take(pa.array(first[place])),
            sizes[place],
            kept & (checked.of >= 0),
            self.errors(),
        ]
        return pa.table(columns, names=GROUP_COLUMNS.names).cast(GROUP_COLUMNS)

    def told(self, rows: pa.Table) -> str:
        """Return what the rows say, in two sentences."""
        sizes = rows["pictures"].to_numpy()
        groups = int((1 / sizes[sizes > 1]).sum().round())
        kept, errors = int(pc.sum(rows["keep"]).as_py() or 0), len(rows) - rows["error"].null_count
        told = f"{counted(groups, 'group')} of near-duplicates, of {counted(int((sizes > 1).sum()))}; "
        return f"{told}{counted(kept)} to keep, {errors:,} with an error."

    def errors(self) -> pa.ChunkedArray:
        """Return why a picture has no part in this, or was not compared: (N,)."""
        errors = self.checked.rows["error"]
        if not self.uncompared:
            return errors
        places = pa.array(sorted(self.uncompared))
        mask = np.zeros(len(errors), dtype=bool)
        mask[places] = True
        why = [self.uncompared[place] for place in places.to_pylist()]
        return pc.replace_with_mask(errors.combine_chunks(), pa.array(mask), pa.array(why, errors.type))

    def found(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the pairs (M, 2) of distinct hashes that the pieces of the search yield."""
        pieces = search_pieces(len(codes))
        if len(codes) <= FEW_HASHES:
            yield from map(HashSearch(codes).pairs, pieces)
            return
        pieces = [" ".join(map(str, piece)) for piece in pieces]
        self.searches += 1
        table = pa.table({"id": pa.array(pieces, CELLS), "place": pa.array(pieces, CELLS)})
        folder = self.folder / f"search-{self.searches:03}"
        for rows in self.answered(Searching(codes), table, folder, "piece"):
            if wrong := [error for error in rows["error"].unique().to_pylist() if error]:
                raise FieldguideError(
                    f"The search among hashes failed: {wrong[0]}. Remove {folder}, and run this again."
                )
            for pairs in rows["pairs"]:
                yield pairs.values.to_numpy().reshape(-1, 2)

    def same(self, pairs: np.ndarray) -> np.ndarray:
        """Return which pairs (M, 2) of contents are the same picture."""
        positions = self.checked.firsts[pairs]
        both = [self.checked.places.take(pa.array(column)) for column in positions.T]
        joined = pc.binary_join_element_wise(*both, pa.scalar(BETWEEN, CELLS))
        if len(pairs) <= FEW_PAIRS:
            asked = [f"{first} {second}" for first, second in positions.tolist()]
            rows = self._few.answers(asked, joined)
        else:
            self.comparisons += 1
            told = self.checked.digest.encode() + np.ascontiguousarray(positions).tobytes()
            job = Comparing(hashlib.sha256(told).hexdigest())
            table = pa.table({"id": pa.array(np.arange(len(pairs))).cast(CELLS), "place": joined})
            rows = pa.concat_tables(self.answered(job, table, self.folder / f"compare-{self.comparisons:03}", "pair"))
            order = np.argsort(rows["id"].cast(pa.int64()).to_numpy())
            rows = rows.take(pa.array(order))
        for n in np.flatnonzero(rows["error"].is_valid()).tolist():
            self._note(positions[n].tolist(), rows["unread"][n].as_py(), rows["error"][n].as_py())
        return rows["same"].fill_null(False).to_numpy()

    def _note(self, pair: Sequence[int], unread: int | None, error: str) -> None:
        """Note why two pictures were not compared: one cannot be read, or each worker died of the two."""
        for bit, position, other in zip(UNREAD_BITS, pair, pair[::-1], strict=True):
            if not unread:
                told = f"not compared with {self.checked.rows['id'][other]}: {error}"
                self.uncompared.setdefault(position, told)
            elif unread & bit:
                self.uncompared[position] = f"not compared: {error}"


def write_groups(parts: Parts, table_ids: pa.ChunkedArray, rows: pa.Table) -> None:
    """Write the rows of all pictures as parts."""
    positions = pc.index_in(rows["id"].cast(CELLS), value_set=table_ids.combine_chunks()).to_numpy()
    for start in range(0, len(rows), WRITTEN_TOGETHER):
        some = rows.slice(start, WRITTEN_TOGETHER)
        parts.add(positions[start : start + WRITTEN_TOGETHER], some.drop_columns(["id"]))
        parts.settle()
