"""
A table that says what photos show: a row per photo, with its file or address and its label.

Foundation of the project file and of 01. People write such tables, data sets come with them, and iNaturalist and GBIF
export them. Each column is found by its name. Commas, semicolons and tabs are taken, and UTF-8 as well as UTF-16.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import FieldguideError
from utils.listing import SIDE_NAMES
from utils.names import as_label, unsafe_name
from utils.words import counted

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
MOST_ROWS = 5_000_000  # GBIF's tables of a whole class are that long
IS_VALID = {"true": "valid", "1": "valid", "false": "train", "0": "train"}  # fastai's column is_valid
# What a column is called, the most telling name first.
FILE_NAMES = (
    "file filename file_name path file_path filepath image_path image_file image_name fname image photo img image_id"
)
LABEL_NAMES = "label labels class class_name category species breed target scientific_name common_name"
NAMES = {
    "file": (*FILE_NAMES.split(), "name", "id"),
    "label": tuple(LABEL_NAMES.split()),
    "side": ("side", "split", "set", "subset", "partition", "is_valid"),
    "group": ("group", "group_id"),
    "page_url": ("page_url", "page", "source_url", "references"),
    "title": ("title", "caption"),
    "license": ("license", "licence"),
    "creator": ("creator", "author", "photographer"),
    "rights_holder": ("rights_holder", "rightsholder"),
}
# Of a picture, where no file is named.
ADDRESS_NAMES = "image_url", "photo_url", "picture_url", "url", "link", "identifier"
INATURALIST = {"image_url", "scientific_name", "user_login", "quality_grade", "license"}
GBIF = {"gbifid", "identifier", "rightsholder", "format"}
OCCURRENCES, SPECIES = "occurrence.txt", "species of the find"  # lies beside GBIF's multimedia.txt; its column here
FIELDS = ("file", "url", *[name for name in NAMES if name != "file"])


@dataclass(frozen=True)
class PhotoTable:
    """What a table says. Each row is a mapping of `FIELDS`; "" where its table says nothing."""

    path: Path
    rows: tuple[Mapping[str, str], ...]
    remarks: tuple[str, ...]  # rows that were left out and why, counted

    @property
    def has_files(self) -> bool:
        """Whether the rows name files; else they hold addresses."""
        return any(row["file"] for row in self.rows)

    @property
    def labels(self) -> list[str]:
        """The labels, sorted."""
        return sorted({row["label"] for row in self.rows})


def read_photo_table(path: Path, *, group_by: str = "") -> PhotoTable:
    """
    Read a table of photos and their labels; nothing that it names is opened. It may lie in a ZIP (zipfile.Path).

    What shares a group stands in the column `group`, or in the one that `group_by` names.
    Rows without a label, or with one that no folder can have, are left out and counted. Raises FieldguideError if the
    file is no table in UTF-8 or UTF-16, or lacks a column: it needs one of files or addresses, and one of labels.
    """
    records = _records(path)
    there = next(records)
    if {"gbifid", "scientificname"} <= set(there):
        raise FieldguideError(f"{path} is GBIF's table of finds. Name its table of media, multimedia.txt, beside it.")
    columns = _required_columns(path, there)
    if group_by and (own := column_name(group_by)) in there:
        columns["group"] = own
    rows, remarks = [], []
    if set(there) >= GBIF:
        records = _with_species(path, records, remarks)
    for record in records:
        row = dict.fromkeys(FIELDS, "") | {field: record[name].strip() for field, name in columns.items()}
        if set(there) >= INATURALIST:
            row["creator"] = row["creator"] or record["user_login"]
            row["license"] = row["license"] and f"{row['license']} (of the observation)"
        rows.append(row)
    if set(there) >= INATURALIST:
        remarks.append(
            "iNaturalist's table names the licence of the observation. A photo's own may differ: see its page."
        )
    remarks += _settle_sides(rows, columns.get("side", ""))
    rows, told = _with_safe_labels(rows)
    return PhotoTable(path, tuple(rows), tuple(remarks + told))


def _with_safe_labels(rows: Sequence[Mapping[str, str]]) -> tuple[list[Mapping[str, str]], list[str]]:
    """Return the rows whose label can be a folder's name, under that name, and sentences on the others."""
    counts = Counter(row["label"] for row in rows)
    spelt = {label: as_label(label) for label in counts}
    unfit = {label: why for label, safe in spelt.items() if (why := unsafe_name(safe))}
    told = []
    for label, why in sorted(unfit.items()):
        named = f" with the label {label[:60]!r}; {why}" if label else " without a label"
        told.append(f"Left out: {counted(counts[label], 'row')}{named}.")
    changed = [f"{label!r} is the label {safe!r}" for label, safe in spelt.items() if safe != label not in unfit]
    if changed:
        told.append(f"Some systems do not take every folder name. So {'; '.join(sorted(changed)[:8])}.")
    return [{**row, "label": spelt[row["label"]]} for row in rows if row["label"] not in unfit], told


def _settle_sides(rows: Sequence[dict[str, str]], column: str) -> list[str]:
    """Write the sides of split.csv in place of what a column says, "" for another word, which a sentence counts."""
    names, unknown = IS_VALID if column == "is_valid" else SIDE_NAMES, Counter()
    for row in rows:
        side = names.get(row["side"].casefold(), "")
        unknown[row["side"]] += not side and bool(row["side"])
        row["side"] = side
    if not (count := unknown.total()):
        return []
    example = min(unknown, key=lambda word: (-unknown[word], word))
    told = f"column {column!r} says {example[:40]!r}, which is none of train, valid and test"
    return [f"In {counted(count, 'row')} the {told}. 03 finds a side for them."]


def _records(path: Path) -> Iterator[Sequence[str] | Mapping[str, str]]:
    """Yield the names of a table's columns, in small letters with _ for blanks; then each row by those names."""
    with path.open("rb") as file:
        head = file.read(65_536)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    lines = head.decode(encoding, "ignore").split("\n")
    first = next((line for line in lines if not line.lower().startswith(("sep=", '"sep='))), "")
    mark = max("\t;,|", key=first.count)  # the first of equals
    plain = mark == "\t" and '"' not in first  # as GBIF writes: a quote there is a quote
    how = {"delimiter": mark, "quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL}
    names: list[str] = []
    try:
        with path.open("r", encoding=encoding, newline="") as file:
            reader = csv.reader(file, **how)
            for fields in reader:
                if not names and fields and fields[0].lower().startswith(("sep=", '"sep=')):  # for spreadsheets
                    continue
                if not names:
                    names = [column_name(name) for name in fields]
                    yield names
                elif len(fields) > len(names) and any(fields[len(names) :]):
                    raise FieldguideError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields where the first line has {len(names)}. "
                        "Correct that line."
                    )
                elif fields:
                    yield dict.fromkeys(names, "") | dict(zip(names, fields, strict=False))
                if reader.line_num > MOST_ROWS:
                    raise FieldguideError(f"{path} has more than {MOST_ROWS:,} lines. Cut it into parts.")
    except UnicodeError as error:
        raise FieldguideError(
            f"{path} is not saved as UTF-8 ({error.reason}). Save it again as CSV in UTF-8; spreadsheets offer that."
        ) from error
    except csv.Error as error:
        raise FieldguideError(f"{path}, line {reader.line_num}: {error}. Correct that line.") from error
    if not names:
        raise FieldguideError(f"{path} is empty. Its first line must name the columns, such as file,label.")


def column_name(name: str) -> str:
    """Return a column's name in small letters, with _ for blanks."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def known_columns(there: Sequence[str]) -> dict[str, str]:
    """
    Return field → the column that holds it, of columns in small letters with _ for blanks.

    >>> known_columns(["id", "image_url", "species", "photographer"])
    {'label': 'species', 'creator': 'photographer', 'url': 'image_url'}
    """
    if set(there) >= INATURALIST:
        creator = "user_name" if "user_name" in there else "user_login"
        columns = {"url": "image_url", "label": "scientific_name", "license": "license", "creator": creator}
        columns |= {"page_url": "url", "title": "common_name"}
        return {field: name for field, name in columns.items() if name in there}
    if set(there) >= GBIF:
        columns = {"url": "identifier", "group": "gbifid", "rights_holder": "rightsholder", "page_url": "references"}
        columns |= {name: name for name in ("license", "creator", "title")}
        return {field: name for field, name in columns.items() if name in there} | {"label": SPECIES}
    columns = {field: name for field, names in NAMES.items() if (name := next((n for n in names if n in there), ""))}
    address = next((name for name in ADDRESS_NAMES if name in there), "")
    if address and columns.get("file") in (None, "id", "name", "image_id"):  # a number, not a file
        columns |= {"url": address}
        columns.pop("file", None)
    elif address:
        columns.setdefault("page_url", address)
    return columns


def _required_columns(path: Path, there: Sequence[str]) -> dict[str, str]:
    """Return field → the column that holds it, or say which column is missing."""
    columns = known_columns(there)
    told = f"{path} has the columns {', '.join(there)[:200]}"
    if "file" not in columns and "url" not in columns:
        raise FieldguideError(f"{told}, and none of them names files. Call the one with the file names “file”.")
    if "label" not in columns:
        raise FieldguideError(f"{told}, and none of them holds labels. Call the one with the labels “label”.")
    return columns


def _with_species(path: Path, media: Iterator[Mapping[str, str]], remarks: list[str]) -> Iterator[Mapping[str, str]]:
    """
    Yield the pictures of GBIF's table of media with the species that stands in the table of finds beside it.

    To the `remarks` goes how many rows are no pictures.
    """
    beside = path.parent / OCCURRENCES
    if not beside.is_file():
        raise FieldguideError(
            f"{path} is GBIF's table of media; the species stand in {OCCURRENCES}, which is not beside it. Unpack the "
            "whole archive into one folder."
        )
    kinds: Counter[str] = Counter()
    pictures = []
    for row in media:
        if row.get("type", "") in ("", "StillImage"):
            pictures.append(row)
        else:
            kinds[row["type"]] += 1
    remarks += [f"Left out: {counted(count, 'row')} of the type {name[:40]}." for name, count in sorted(kinds.items())]
    wanted, species = {row["gbifid"] for row in pictures}, {}
    finds = _records(beside)
    names = next(finds)
    if "gbifid" not in names or not {"species", "scientificname"} & set(names):
        raise FieldguideError(f"{beside} has no columns gbifID and species. Unpack the archive again.")
    for row in finds:  # often millions, and few are wanted
        if row["gbifid"] in wanted:
            species[row["gbifid"]] = row.get("species") or row.get("scientificname", "")
    for row in pictures:
        yield {**row, SPECIES: species.get(row["gbifid"], "")}
