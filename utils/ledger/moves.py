"""
The ledger: a person's decisions about pictures, carried out by moving files, and taken back when asked.

Reads review.csv (flags not yet applied), writes corrections.csv (what was applied), and moves files between
images/<label>/ and trash/<label>/ by rename; raw/ is never touched. It is a write-ahead log: what is about to move is
written down and synced (pending.json), then the files move, then their rows are written, then the record is removed.
Whenever a run is killed, the next call reads the record and either finishes each move or leaves it undone.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from utils.errors import FieldguideError
from utils.ledger.flags import DELETE, KEEP, Review, id_in, is_id, labels_of, now, read_flags
from utils.names import unsafe_name
from utils.project import Project
from utils.storage import explained, file_stamp, locked, make_folder, sync_folder, write_whole
from utils.tables import CORRECTION_COLUMNS, REVIEW_COLUMNS, append_rows, check_ended, csv_text, mend_log, read_rows

DELETED, RESTORED = "<Delete>", "<Restore>"  # in the column "new" of corrections.csv, where a label may stand too
UNDONE = "<Undo>"  # in the column "predicted": this row takes an earlier one back. No label can hold "<"


@dataclass(frozen=True)
class Outcome:
    """What became of one decision: `old` is the label it was under, `new` a label, "<Delete>" or "<Restore>"."""

    id: str
    old: str
    new: str
    done: bool
    reason: str = ""  # why it was not done, or what else there is to know


class Ledger:
    """
    The account of all that a person decided about the pictures of a project; opening it does nothing.

    A decision that cannot be carried out (its name is taken, its folder is read-only) is returned with the reason,
    and keeps its flag. Every method holds the lock of the data folder and first finishes what a killed run left.
    """

    def __init__(self, project: Project):
        self.project = project

    def apply(
        self, predictions: Mapping[str, tuple[str, float]] | None = None, *, only: Iterable[str] | None = None
    ) -> list[Outcome]:
        """
        Carry out the flags of review.csv and return what became of each; "Keep" stays as it is.

        A picture moved by hand since it was flagged is moved on from where it is now. A flag whose picture is nowhere
        in the training set is dropped. `predictions` are what the model said, id → (label, probability in [0, 1]), for
        corrections.csv. With `only`, the flags of all other pictures stay.
        """
        only = None if only is None else set(only)
        with locked(self.project.data):
            review = Review(self.project)
            outcomes = _settle(self.project, review)
            wanted = review.flags if only is None else {id: review.flags[id] for id in only if id in review.flags}
            flags = dict(sorted((id, row) for id, row in wanted.items() if row["choice"] != KEEP))
            where = labels_of(self.project.images, self.project.labels, flags)
            moves, dropped, kept = [], [], []
            for id, row in flags.items():
                labels, new = where.get(id, []), DELETED if row["choice"] == DELETE else row["choice"]
                if not labels:
                    dropped.append(row)
                    outcomes.append(Outcome(id, "", new, False, "it is not in the training set: flag dropped"))
                elif len(labels) > 1:
                    twice = f"it lies under {' and '.join(map(repr, labels))}: remove all but one of the files"
                    outcomes.append(Outcome(id, labels[0], new, False, twice))
                elif new == labels[0]:
                    kept.append({**row, "choice": KEEP})
                elif new != DELETED and new not in self.project.labels:
                    unknown = f"{new!r} is not among the project's labels: choose again"
                    outcomes.append(Outcome(id, labels[0], new, False, unknown))
                else:
                    moves.append(Move(id, labels[0], new, *_prediction(predictions, id)))
            review.change(gone=dropped, new=kept)
            return outcomes + _carry_out(self.project, review, moves, flags)

    def undo(self, n: int = 1) -> list[Outcome]:
        """
        Take back the last `n` corrections that still stand, the latest first; all of them if there are fewer.

        Corrections form a stack: an undo takes the top off and is itself nothing to undo, so that calling it again
        goes one further back. A restore is a correction like any other. One whose picture a person has moved since
        is passed over, with a reason; one whose old name is taken counts, and stays. Flags not yet applied stay.
        """
        if n < 1:
            raise FieldguideError(f"undo({n}) takes nothing back. Give the number of corrections, 1 or more.")
        return self._take_back(lambda standing: standing, n)

    def last_apply(self) -> list[dict[str, str]]:
        """Return the rows of the last apply of which a move can be taken back; those of one apply share their time."""
        return _last_apply(self.project, _standing(_corrections(self.project)))

    def undo_apply(self) -> list[Outcome]:
        """Take back, as `undo` does, all that the last apply moved and that still stands."""
        return self._take_back(lambda standing: _last_apply(self.project, standing), math.inf)

    def _take_back(self, among: Callable[[list[dict[str, str]]], list[dict[str, str]]], n: float) -> list[Outcome]:
        """Take back the last `n` of the corrections that `among` chooses from those that stand."""
        with locked(self.project.data):
            review = Review(self.project)
            outcomes = _settle(self.project, review)
            stack = [Move.of(row) for row in among(_standing(_corrections(self.project)))]
            while stack and n > 0:
                moves: dict[str, Move] = {}  # together as long as no picture comes twice: then one waits for the other
                while stack and n > 0 and stack[-1].id not in moves:
                    back = stack.pop().reversed()
                    if back.places(self.project)[0].exists():
                        moves[back.id] = back
                        n -= 1
                    else:
                        outcomes.append(back.outcome("it was moved by hand since: passed over"))
                outcomes += _carry_out(self.project, review, moves.values())
            return outcomes

    def restore(self, ids: Iterable[str]) -> list[Outcome]:
        """Bring pictures back from the trash to the label they were in; `ids` may be file names."""
        ids = dict.fromkeys(map(id_in, [ids] if isinstance(ids, str) else ids))
        with locked(self.project.data):
            review = Review(self.project)
            outcomes = _settle(self.project, review)
            labels = sorted(path.name for path in self.project.trash.glob("*") if path.is_dir())
            trashed = labels_of(self.project.trash, labels, ids)
            twice = "it lies in the trash of several labels: move the right one by hand"
            for id in ids:
                if len(found := trashed.get(id, [])) != 1:
                    outcomes.append(Outcome(id, "", RESTORED, False, twice if found else "it is not in the trash"))
            moves = [Move(id, found[0], RESTORED) for id, found in trashed.items() if len(found) == 1]
            return outcomes + _carry_out(self.project, review, moves)

    def table(self):
        """
        Return all that was ever decided as a pandas DataFrame, oldest first: corrections.csv with a column `state`.

        It says applied, undone, undo (the taking back) or restored; flags not yet applied are waiting or kept.
        """
        import pandas as pd  # here, because saving a flag should not wait for it

        rows, flags = _corrections(self.project), read_flags(self.project)
        standing = {id(row) for row in _standing(rows)}
        states = [_state(row, id(row) in standing) for row in rows]
        where = labels_of(self.project.images, self.project.labels, flags)
        for key, row in flags.items():
            new = {KEEP: "", DELETE: DELETED}.get(row["choice"], row["choice"])
            rows.append({**row, "old": "".join(where.get(key, [])[:1]), "new": new})
            states.append("waiting" if new else "kept")
        table = pd.DataFrame(rows, columns=list(CORRECTION_COLUMNS)).fillna("")
        table["time"] = pd.to_datetime(table["time"], errors="coerce", utc=True, format="ISO8601")
        table["probability"] = pd.to_numeric(table["probability"], errors="coerce")
        return table.assign(state=states)


def _prediction(predictions: Mapping[str, tuple[str, float]] | None, id: str) -> tuple[str, str]:
    """Return what the model said about a picture as the two columns of corrections.csv."""
    if not predictions or id not in predictions:
        return "", ""
    label, probability = predictions[id]
    return label, f"{float(probability):.4f}"


def _corrections(project: Project) -> list[dict[str, str]]:
    return read_rows(project.table("corrections"), CORRECTION_COLUMNS)


def _standing(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the corrections not taken back, oldest first: each undo takes off the latest one that it reverses."""
    ways: dict[tuple[str, str, str], list[int]] = defaultdict(list)  # the way back → positions of what stands
    for position, row in enumerate(rows):
        if row["predicted"] != UNDONE:
            back = Move.of(row).reversed()
            ways[back.id, back.old, back.new].append(position)
        elif reversible := ways[row["id"], row["old"], row["new"]]:
            reversible.pop()
    return [rows[position] for position in sorted(chain.from_iterable(ways.values()))]


def _last_apply(project: Project, standing: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows of the last apply of which any picture still lies where it was moved to; [] if there is none."""
    for row in reversed(standing):
        if row["new"] != RESTORED and Move.of(row).reversed().places(project)[0].exists():
            return [other for other in standing if other["time"] == row["time"]]
    return []


def _state(row: Mapping[str, str], stands: bool) -> str:
    if row["predicted"] == UNDONE:
        return "undo"
    if not stands:
        return "undone"
    return "restored" if row["new"] == RESTORED else "applied"


# --- moves -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """One picture's way: from where `old` says to where `new` says, as a row of corrections.csv does."""

    id: str
    old: str
    new: str
    predicted: str = ""
    probability: str = ""
    time: str = ""

    @classmethod
    def of(cls, row: Mapping[str, str]) -> "Move":
        return cls(**{column: row[column] for column in CORRECTION_COLUMNS})

    def row(self) -> dict[str, str]:
        return {column: getattr(self, column) for column in CORRECTION_COLUMNS}

    def places(self, project: Project) -> tuple[Path, Path]:
        """Return the paths it leads from and to."""
        source = project.trash if self.new == RESTORED else project.images
        target = project.trash if self.new == DELETED else project.images
        label = self.old if self.new in (DELETED, RESTORED) else self.new
        return source / self.old / f"{self.id}.jpg", target / label / f"{self.id}.jpg"

    def reversed(self) -> "Move":
        """Return the way back."""
        opposite = {DELETED: RESTORED, RESTORED: DELETED}.get(self.new)
        return Move(self.id, *((self.old, opposite) if opposite else (self.new, self.old)), predicted=UNDONE)

    def comes_back(self) -> bool:
        """Return whether it brings into the training set what was taken out of its place before."""
        return self.new == RESTORED or (self.predicted == UNDONE and self.new != DELETED)

    def misnamed(self) -> str:
        """Return why these are no names of a picture and labels, or "" where they are: tables can be edited."""
        names = [self.old, *([] if self.new in (DELETED, RESTORED) else [self.new])]
        if is_id(self.id) and not any(map(unsafe_name, names)):
            return ""
        told = " → ".join(map(repr, names))
        return f"{self.id!r}, {told} are no names of a picture and labels; was the table edited?"

    def outcome(self, reason: str = "", *, done: bool = False) -> Outcome:
        return Outcome(self.id, self.old, self.new, done, reason)


def _carry_out(
    project: Project, review: Review, moves: Iterable[Move], flags: Mapping[str, dict[str, str]] = MappingProxyType({})
) -> list[Outcome]:
    """Make the moves, log them and drop the flags (rows by id) that asked for them; the caller holds the lock."""
    time = now()
    moves = [replace(move, time=time) for move in moves]
    planned = {move: move.places(project) for move in moves}
    # What comes back must not become a picture's second label. A flag's picture was looked for in all labels already.
    where = labels_of(project.images, project.labels, [move.id for move in planned if move.comes_back()])
    reasons = {move: _obstacle(move, *places, where.get(move.id, [])) for move, places in planned.items()}
    refused = {move: reason for move, reason in reasons.items() if reason}
    outcomes = [move.outcome(reason) for move, reason in refused.items()]
    planned = {move: places for move, places in planned.items() if move not in refused}
    if not planned:
        return outcomes
    _write_pending(project, planned, [flags[move.id] for move in planned if move.id in flags])
    done = []
    for move, (source, target) in planned.items():
        try:
            _rename(source, target)
        except OSError as error:
            outcomes.append(move.outcome(str(error)))
        else:
            done.append(move)
            outcomes.append(move.outcome(done=True))
    for folder in sorted({place.parent for move in done for place in planned[move]}):
        sync_folder(folder)
    _conclude(project, review, done, [flags[move.id] for move in done if move.id in flags])
    return outcomes


def _obstacle(move: Move, source: Path, target: Path, labels: Sequence[str]) -> str:
    """Return why a move cannot be made, or "" where it can; `labels` are those its picture lies under already."""
    if reason := move.misnamed():
        return reason
    if not source.is_file():
        return f"it is no longer at {source}"
    if os.path.lexists(target):
        return f"{target} is taken, and nothing is overwritten: move or delete one of the two files"
    if twins := [label for label in labels if label != move.old or move.new == RESTORED]:
        return f"it lies under {twins[0]!r} as well: remove one of the two files"
    return ""


def _rename(source: Path, target: Path) -> None:
    """Rename `source` to `target`, which must not exist; only this process moves files while it holds the lock."""
    make_folder(target.parent)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is taken, and nothing is overwritten")
    with explained(target):
        source.rename(target)


def _conclude(project: Project, review: Review, moves: Iterable[Move], flags: Iterable[dict[str, str]]) -> None:
    """Log the moves made, then drop the flags, then the pending record: in this order nothing happens twice."""
    append_rows(project.table("corrections"), CORRECTION_COLUMNS, [move.row() for move in moves])
    review.change(gone=flags)
    _pending(project).unlink(missing_ok=True)
    sync_folder(project.data)


# --- the record of what is about to move ---------------------------------------------------------------------------


def _pending(project: Project) -> Path:
    return project.data / "pending.json"


def _write_pending(project: Project, planned: Mapping[Move, tuple[Path, Path]], flags: list[dict[str, str]]) -> None:
    """Write down, on disk for good, what is about to move and which flags asked for it."""
    entries = [{**move.row(), "stamp": file_stamp(source)} for move, (source, _) in planned.items()]
    write_whole(_pending(project), json.dumps({"moves": entries, "flags": flags}, ensure_ascii=False))
    sync_folder(project.data)


def _read_pending(project: Project) -> tuple[dict[Move, list[int]], dict[str, dict[str, str]]]:
    """Return what a killed run was about to move, each with its stamp, and the flags that asked for it, by id."""
    path = _pending(project)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        stamps = {Move.of(entry): entry["stamp"] for entry in record["moves"]}
        flags = {row["id"]: {column: row[column] for column in REVIEW_COLUMNS} for row in record["flags"]}
        for move in stamps:
            if reason := move.misnamed():
                raise ValueError(reason)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FieldguideError(
            f"{path}, the record of an interrupted run, cannot be read ({error!r}). Look whether the pictures you "
            "decided about are where they should be, then delete that file and run this again."
        ) from error
    return stamps, flags


def _settle(project: Project, review: Review) -> list[Outcome]:
    """
    Finish or leave undone what a killed run had begun; the caller holds the lock.

    A picture at its target was moved: it is logged, once. One at its source, unchanged, was not: its flag stays.
    One at its source with another stamp, or somewhere else, was moved by hand since: hands outrank flags.
    """
    if not _pending(project).exists():
        check_ended(project.table("corrections"), CORRECTION_COLUMNS)  # it is written only after the files have moved
        return []
    stamps, flags = _read_pending(project)
    _mend_corrections(project, stamps)
    logged = {Move.of(row) for row in _corrections(project)}
    unlogged, concluded, outcomes = [], [], []
    for move, stamp in stamps.items():
        source, target = move.places(project)
        if move in logged or (target.exists() and not source.exists()):
            unlogged += [move] * (move not in logged)
            outcomes.append(move.outcome("begun by an interrupted run, finished now", done=True))
        elif stamp == file_stamp(source):
            continue
        else:
            outcomes.append(move.outcome("an interrupted run was at it, and it was moved by hand since: left as it is"))
        concluded.append(move.id)
    _conclude(project, review, unlogged, [flags[id] for id in concluded if id in flags])
    return outcomes


def _mend_corrections(project: Project, moves: Iterable[Move]) -> None:
    """Cut off a row that the kill tore, be it in its last field: the record holds it, and it is written again."""
    path = project.table("corrections")
    if path.exists():
        torn = path.read_bytes().rpartition(b"\n")[2]
        rows = csv_text(CORRECTION_COLUMNS, [move.row() for move in moves], header=False).encode("utf-8")
        if torn and any(row.startswith(torn) for row in rows.splitlines()):
            mend_log(path, CORRECTION_COLUMNS)
    check_ended(path, CORRECTION_COLUMNS)
