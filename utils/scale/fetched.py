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
import pyarrow.compute as pc
from pyarrow import parquet

from utils.download import Rules, adopt_rows, fetch_rows
from utils.scale.dealing import Deal
from utils.scale.jobs import part_schema
from utils.scale.links import LINK_FIELDS, host_of
from utils.scale.parts import FINISHED, Parts, part_paths, write_rows, written_rows
from utils.scale.photos import CELLS
from utils.storage import make_folder, visible_files, write_whole
from utils.tables import HAD, HAND, SOURCES_COLUMNS, TABLE, TAKEN, each_row, one_line

LATER_NAME, LEFT_NAME, RULES_NAME, TOKEN_NAME = "later.parquet", "left-out.parquet", "rules.json", ".collecting"
DEADLY = "its worker died each time it was fetched"
SOURCES_NAME = "sources.csv"
MOST_TABLES = 500  # of a few rows each; then they become one, as an empty table alone takes kilobytes
SILENT = 12  # addresses of a host in a row that fail for the moment; then its others wait for another run
ALONE_WINDOW = 24  # addresses of one host that are under way or wait for their turn: all too many for a silent one
LINK_TEXTS = ("file", *LINK_FIELDS, "picture", "status", "fetched_at")
NUMBER_COLUMNS = ("bytes", "width", "height")
LINK_COLUMNS = pa.schema([(name, pa.string()) for name in LINK_TEXTS] + [(name, pa.int64()) for name in NUMBER_COLUMNS])
LINK_ANSWERS = pa.schema(
    [("row", pa.int64()), *LINK_COLUMNS, ("error", pa.string()), ("passing", pa.bool_()), ("silent", pa.bool_())]
)


class Collected(Parts):
    """
    Rows of addresses. What failed for the moment stands apart, in later.parquet, and is missing in the next run; so
    does what is not asked for, in left-out.parquet, as a corrected table may change that.
    """

    def __init__(self, folder: Path, ids: pa.ChunkedArray):
        super().__init__(make_folder(folder), ids, part_schema(LINK_COLUMNS), {"task": "collect"})
        self.later = np.zeros(len(ids), dtype=bool)  # (N,): whether the row of an address waits for another run
        self._apart: dict[str, list[pa.Table]] = {LATER_NAME: [], LEFT_NAME: []}  # rows, with positions in "row"

    def outdated(self, links: pa.Table, rules: Rules) -> dict[Path, np.ndarray]:
        """
        Return part → which of its rows, bool, no longer hold: another address or label in the table, a row that was
        not asked for, one that was refused by other rules. An address that killed its workers is none of them.
        """
        urls, labels = links["url"].combine_chunks(), links["label"].combine_chunks()
        kept_rules, found = self._rules_are(rules), {}
        for path, places in self.places.items():
            rows = parquet.read_table(path, columns=["url", "label", "status", "error"])
            old = _differs(rows["url"], urls.take(pa.array(places))) | _differs(
                rows["label"], labels.take(pa.array(places))
            )
            old |= _is(rows["status"], "") & ~_is(rows["error"], DEADLY)
            if not kept_rules:
                old |= _is(rows["status"], "refused")
            if old.any():
                found[path] = old
        return found

    def forget(self, outdated: Mapping[Path, np.ndarray]) -> None:
        """Take rows out of their parts, so that their addresses are asked for anew."""
        for path, old in outdated.items():
            rows = parquet.read_table(path)
            self.known[self.places[path][old]] = False
            self.errors -= int(old.sum()) - rows["error"].filter(pa.array(old)).null_count
            self.places[path] = self.places[path][~old]
            write_rows(path, rows.filter(pa.array(~old)))

    def _rules_are(self, rules: Rules) -> bool:
        """Return whether these are the rules of the run before."""
        path = self.folder / RULES_NAME
        return path.is_file() and path.read_text(encoding="utf-8") == _rules_text(rules)

    def note_rules(self, rules: Rules) -> None:
        """Note the rules of this run; what others refused is forgotten before."""
        if not self._rules_are(rules):
            write_whole(self.folder / RULES_NAME, _rules_text(rules))

    def begin(self) -> None:
        """Take away _DONE, and what is asked for or left out again."""
        super().begin()
        for name in self._apart:
            (self.folder / name).unlink(missing_ok=True)

    def has(self, position: int) -> bool:
        """Return whether there is a row for the address at this position of the table."""
        return bool(self.known[position] or self.later[position])

    def take(self, answers: pa.Table) -> int:
        """Take the answers of a worker; return how many are new."""
        passing, positions = answers["passing"].to_numpy(), answers["row"].to_numpy()
        waits = passing & ~self.later[positions]
        self.later[positions[waits]] = True
        self._put(LATER_NAME, answers.filter(pa.array(waits)))
        final = answers.filter(pa.array(~passing))
        return self.add(positions[~passing], final.select([*LINK_COLUMNS.names, "error"])) + int(waits.sum())

    def leave_out(self, answers: pa.Table) -> None:
        """Take rows of addresses that are not asked for."""
        self.known[answers["row"].to_numpy()] = True
        self.errors += len(answers)
        self._put(LEFT_NAME, answers)

    def _put(self, name: str, answers: pa.Table) -> None:
        """Keep rows that stand apart."""
        tables = self._apart[name]
        if len(answers):
            tables.append(answers)
        if len(tables) > MOST_TABLES:
            tables[:] = [pa.concat_tables(tables).combine_chunks()]

    def finish(self) -> None:
        """Write what waits, what stands apart, and _DONE if every address has its row."""
        self.settle()
        for name, tables in self._apart.items():
            if tables:
                rows = pa.concat_tables(tables).sort_by("row")
                rows = rows.add_column(0, "id", self.ids.take(rows["row"]).cast(pa.string()))
                write_rows(self.folder / name, rows.select(self.schema.names).cast(self.schema))
        later = int(self.later.sum())
        if len(self.missing) == later:
            told = {"addresses": len(self.ids), "errors": self.errors, "later": later, **self.facts}
            write_whole(self.folder / FINISHED, json.dumps(told, indent=1) + "\n")


def _rules_text(rules: Rules) -> str:
    """Return the rules that decide what is refused, as text."""
    return json.dumps({"allow_host": sorted(rules.allowed_hosts), "ignore_noai": not rules.honour_noai}) + "\n"


def _is(column: pa.ChunkedArray, text: str) -> np.ndarray:
    """Return where a column holds this text, bool."""
    return pc.fill_null(pc.equal(column, text), False).to_numpy()


def _differs(column: pa.ChunkedArray, table: pa.Array) -> np.ndarray:
    """Return where a column of rows, bool, is not what the table says; rows are of one line each."""
    differs = pc.fill_null(pc.not_equal(column.cast(CELLS), table), True).to_numpy().copy()
    for n in np.flatnonzero(differs).tolist():
        differs[n] = column[n].as_py() != one_line(table[n].as_py())
    return differs


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


def unanswered_rows(
    links: pa.Table, positions: Sequence[int], why: str | Sequence[str], *, passing: bool = False
) -> pa.Table:
    """Return answers to addresses that no worker answered; those whose reason is a passing one wait for another run."""
    count = len(positions)
    said = links.select(LINK_FIELDS).take(pa.array(positions, pa.int64()))
    columns = dict.fromkeys(LINK_TEXTS, pa.repeat("", count)) | {name: said[name] for name in LINK_FIELDS}
    columns |= dict.fromkeys(NUMBER_COLUMNS, pa.nulls(count, pa.int64()))
    columns |= {"row": pa.array(positions, pa.int64()), "error": [why] * count if isinstance(why, str) else why}
    columns |= {"passing": pa.repeat(passing, count), "silent": pa.repeat(False, count)}
    return pa.table({name: columns[name] for name in LINK_ANSWERS.names}).cast(LINK_ANSWERS)


def take_answer(answer: pa.Table, deal: Deal, links: pa.Table, parts: Collected) -> tuple[int, int]:
    """
    Take an answer, and leave the other addresses of hosts that are silent for another run.

    Return how many rows that makes of addresses that were asked for, and how many of others.
    """
    silent = answer.filter(answer["silent"])
    asked, left = parts.take(answer.filter(pc.invert(answer["silent"]))), parts.take(silent)
    for row in silent.select(["row", "error"]).to_pylist():
        if others := deal.give_up(row["row"]):
            left += parts.take(unanswered_rows(links, others, row["error"], passing=True))
    return asked, left


def taken_before(folder: Path, links: pa.Table, positions: np.ndarray) -> pa.Table:
    """Return answers to the addresses at these positions whose picture notebook 01 took and that lies there."""
    if not (folder / SOURCES_NAME).exists():
        return LINK_ANSWERS.empty_table()
    records = records_of(links, positions)
    wanted = {(each["label"], one_line(each["url"])): n for n, each in enumerate(records)}
    files, found = {}, []
    for row in each_row(folder / SOURCES_NAME, SOURCES_COLUMNS):
        n = wanted.get((row["label"], row["url"])) if row["status"] in HAD and row["engine"] != HAND else None
        if n is None:
            continue
        place = f"raw/{row['label']}" if row["label"] else "unsorted"
        if place not in files:
            files[place] = {path.stem: path.name for path in visible_files(folder / place)}
        if name := files[place].get(row["id"]):
            del wanted[row["label"], row["url"]]
            said = {each: row[each] for each in NUMBER_COLUMNS if row[each].isdecimal() and len(row[each]) < 16}
            status = row["status"] if row["status"] in TAKEN else "kept"  # of equal pictures, each has its file
            said |= {"picture": row["id"], "status": status, "fetched_at": row["fetched_at"]}
            found.append(answer(int(positions[n]), records[n] | said, f"{place}/{name}"))
    return pa.Table.from_pylist(found, schema=LINK_ANSWERS)


def note_sources(folder: Path, parts: Path) -> None:
    """Write to sources.csv the rows of all addresses that were asked for and are settled, sorted by id."""
    if part_paths(parts):
        adopt_rows(folder / SOURCES_NAME, _sources_rows(written_rows(parts)))


def _sources_rows(rows: pa.Table) -> Iterator[dict[str, str]]:
    """Yield rows as sources.csv has them."""
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            if row["status"]:
                said = row | {"id": row["picture"], "engine": TABLE, "reason": row["error"] or ""}
                yield {name: str(said.get(name) or "") for name in SOURCES_COLUMNS}
