"""
The table of pictures: ids, and where each picture lies, on a disk that all machines see, in s3:// or in gs://.

Reads CSV and Parquet. Ten million rows take about two gigabytes on the machine that hands out the work.
"""

import io
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from csv import Error as CsvError
from csv import reader as csv_reader
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from utils.errors import FieldguideError
from utils.scale.storages import STORAGES, in_storage, storage_of
from utils.words import counted, listed

PLACE_NAMES = ("path", "file", "address", "url")  # of the column that says where a picture lies; the first one counts
ADDRESS_BEGINS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # one letter and a colon is a disk of Windows
CELLS = pa.large_string()  # a column may hold more than 2 gigabytes
FORMS = (".csv", ".parquet")
# From the table's address and the names of its columns to ours: the name that each of ours has there.
ChosenColumns = Callable[[str, Sequence[str]], Mapping[str, str]]


def read_photo_places(address: str) -> pa.Table:
    """
    Return the ids and places of N pictures as a table of two columns of text, id and place, in the order of the file.

    `address` leads to a CSV or Parquet file with a column id, and one that is called path, file, address or url. A
    relative path is taken from the folder of the table. Raises FieldguideError if the file cannot be read, lacks a
    column, holds an id twice or none, or names a place that is neither a path nor in a storage we know.
    """
    columns = read_texts(address, _place_columns)
    require_ids(address, columns)
    if (empty := _first_empty(columns["place"])) >= 0:
        raise FieldguideError(f"{address}, row {empty + 1}: no place. Each picture needs an id and its place.")
    return pa.table({"id": columns["id"], "place": _anywhere(address, columns["place"])})


def require_ids(address: str, columns: pa.Table) -> None:
    """Refuse a table without rows, or in which an id is missing or stands twice."""
    if not len(columns):
        raise FieldguideError(f"{address} names no picture: it has no row. Write one row per picture.")
    if (empty := _first_empty(columns["id"])) >= 0:
        raise FieldguideError(f"{address}, row {empty + 1}: no id. Each picture needs an id and its place.")
    counts = pc.value_counts(columns["id"])
    doubled = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(doubled):
        raise FieldguideError(
            f"{address} names {counted(len(doubled), 'id')} more than once: {listed(doubled[:9].to_pylist())}. Answers "
            "are kept by id, so give each picture its own."
        )


def _first_empty(column: pa.ChunkedArray) -> int:
    """Return the position of the first cell without a text, or -1."""
    return pc.index(pc.fill_null(pc.equal(column, ""), True), True).as_py()


def read_texts(address: str, wanted: ChosenColumns) -> pa.Table:
    """Return columns of a CSV or Parquet file as text; `wanted` chooses them, or refuses what is there."""
    if not address.lower().endswith(FORMS):
        raise FieldguideError(f"{address} is neither a .csv nor a .parquet file. Save the table as one of them.")
    read = _read_csv if address.lower().endswith(".csv") else _read_parquet
    try:
        return read(address, wanted)
    except FileNotFoundError:
        raise FieldguideError(f"There is no table {address}. Name a .csv or .parquet file.") from None
    except (pa.ArrowException, OSError, UnicodeError) as error:  # FieldguideError is none of them
        raise FieldguideError(f"{address} cannot be read: {str(error).splitlines()[0][:200]}") from error


def _open(address: str) -> pa.NativeFile:
    """Open a table on a disk or in a storage."""
    if not ADDRESS_BEGINS.match(address):
        return pa.OSFile(address)
    storage, path = storage_of(address)
    return storage.open_input_file(path)


def _chosen(address: str, names: Sequence[str], wanted: ChosenColumns) -> Mapping[str, str]:
    """Return which columns are wanted; refuse one whose name stands twice."""
    chosen = wanted(address, names)
    if doubled := sorted({name for name in chosen.values() if names.count(name) > 1}):
        raise FieldguideError(f"{address} has two columns called {doubled[0][:60]}. Rename or remove one of them.")
    return chosen


def _read_csv(address: str, wanted: ChosenColumns) -> pa.Table:
    chosen = _chosen(address, _csv_names(address), wanted)
    columns = sorted(set(chosen.values()))
    texts = csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, CELLS))
    with _open(address) as file:
        found = csv.read_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=texts)
    return pa.table({column: found[name] for column, name in chosen.items()})


def _csv_names(address: str) -> list[str]:
    """Return the heading of a CSV file."""
    # By Python: pyarrow's open_csv goes on reading ahead after its file was closed. The next file that is opened may
    # have got the same number by then, and loses the rows that are taken from it.
    with _open(address) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            return next(csv_reader(text))
        except (CsvError, StopIteration) as error:
            raise pa.ArrowInvalid(str(error) or "it is empty") from error


def _read_parquet(address: str, wanted: ChosenColumns) -> pa.Table:
    with _open(address) as file:
        table = parquet.ParquetFile(file)
        chosen = _chosen(address, table.schema_arrow.names, wanted)
        found = table.read(columns=sorted(set(chosen.values())))
    return pa.table({column: found[name].cast(CELLS) for column, name in chosen.items()})


def _place_columns(address: str, names: Sequence[str]) -> Mapping[str, str]:
    """Return which columns hold id and place, or say what the table lacks."""
    place = next((name for name in PLACE_NAMES if name in names), "")
    if "id" in names and place:
        return {"id": "id", "place": place}
    hint = " Save it with commas between the columns." if len(names) == 1 and re.search("[;\t]", names[0]) else ""
    raise FieldguideError(
        f"{address} has the columns {', '.join(names)[:200]}. It needs one called id, and one called "
        f"{', '.join(PLACE_NAMES[:-1])} or {PLACE_NAMES[-1]}.{hint}"
    )


def _anywhere(address: str, places: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return places as they are found from any folder; refuse addresses that we cannot read from."""
    addressed = pc.match_substring_regex(places, f"^{ADDRESS_BEGINS.pattern}")
    known = pc.match_substring_regex(places, f"^({'|'.join(STORAGES)})://")
    if (wrong := pc.index(pc.and_not(addressed, known), True).as_py()) >= 0:
        raise FieldguideError(
            f"{address}, row {wrong + 1}: {places[wrong].as_py()[:200]} lies neither on a disk nor in "
            f"{' or '.join(f'{name}://' for name in STORAGES)}. Collect pictures of the web first: python -m "
            "utils.scale collect."
        )
    whole = pc.or_(addressed, pc.match_substring_regex(places, r"^(/|\\|[A-Za-z]:[/\\])"))
    if pc.all(whole).as_py():
        return places
    folder = posixpath.dirname(address) if in_storage(address) else str(Path(address).absolute().parent)
    joined = pc.binary_join_element_wise(pa.scalar(folder, CELLS), places, pa.scalar("/", CELLS))
    return pc.if_else(whole, places, joined)
