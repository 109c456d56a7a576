"""
Stage 06: what a person decided about pictures, carried out by moving files, and taken back when asked.

Reads and writes review.csv (flags set and not yet applied) and corrections.csv (what was applied), and moves files
between images/<label>/ and trash/<label>/ by rename; raw/ is never touched. The idea is a write-ahead log: what is
about to move is written down and synced (pending.json), then the files move, then the rows, then the record goes.
Whatever moment a run is killed at, the next call reads the record and either finishes each move or leaves it undone.
"""

import csv
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path, PurePosixPath

from utils.files import (
    LINE_BREAKS,
    FieldguideError,
    append_rows,
    check_ended,
    explained,
    locked,
    make_folder,
    read_rows,
    write_table,
    write_whole,
)
from utils.project import Project, unsafe_name

KEEP, DELETE = "Keep", "Delete"  # choices in review.csv, where a label may stand too
DELETED, RESTORED = "<Delete>", "<Restore>"  # in the column "new" of corrections.csv, where a label may stand too
UNDONE = "<Undo>"  # in the column "predicted": this row takes an earlier one back. No label can hold "<"
REVIEW_COLUMNS = ("id", "choice", "time")
CORRECTION_COLUMNS = ("time", "id", "old", "new", "predicted", "probability")


@dataclass(frozen=True)
class Outcome:
    """What became of one decision: `old` is the label it was under, `new` a label, "<Delete>" or "<Restore>"."""

    id: str
    old: str
    new: str
    done: bool
    reason: str = ""  # why it was not done, or what else there is to know


# --- flags -----------------------------------------------------------------------------------------------------


def read_review(project: Project) -> dict[str, str]:
    """Return the flags not yet applied, id → "Keep", "Delete" or a label; the last row of an id counts."""
    return {id: row["choice"] for id, row in _flags(project).items()}


def save_flag(project: Project, id: str, choice: str | None) -> None:
    """
    Store the flag of one picture on disk, at once; None takes it back ("not looked at").

    A picture's own label is stored as "Keep".

    Raises
    ------
    FieldguideError
        If there is no such picture in the training set, or `choice` is not "Keep", "Delete" or a label.
    """
    if refused := save_flags(project, {id: choice}):
        raise FieldguideError(refused[id])


def save_flags(project: Project, choices: Mapping[str, str | None]) -> dict[str, str]:
    """Store the flags of several pictures as `save_flag` does, and return those refused, id → reason."""
    stored, withdrawn, refused = [], set(), {}
    with locked(project.data):
        where = _where(project) if len(choices) > 1 else {id: _labels_of(project, id) for id in choices}
        for id, choice in choices.items():
            try:
                if choice is None:
                    withdrawn.add(id)
                else:
                    stored.append(
                        {"id": id, "choice": _checked(project, id, choice, where.get(id, [])), "time": _now()}
                    )
            except FieldguideError as error:
                refused[id] = str(error)
        append_rows(project.table("review"), REVIEW_COLUMNS, stored)
        if withdrawn:
            check_ended(project.table("review"), REVIEW_COLUMNS)
            kept = [row for id, row in _flags(project).items() if id not in withdrawn]
            write_table(project.table("review"), REVIEW_COLUMNS, kept)
    return refused


def read_choices(path: str | Path) -> dict[str, str]:
    """
    Read choices a person made elsewhere: a CSV with the columns id and choice, others are ignored.

    An id may be a file name or a path; of an id that comes twice the last choice counts. Commas or semicolons
    separate, as spreadsheets write either.

    Raises
    ------
    FieldguideError
        If there is no such file, it is not UTF-8, or one of the two columns is missing.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FieldguideError(f"Cannot read the choices in {path}: {error}. Save them as CSV in UTF-8.") from error
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if ";" in header and "," not in header else ",")
    if missing := {"id", "choice"} - set(rows.fieldnames or ()):
        raise FieldguideError(
            f"{path} begins with {header[:80]!r}: the column {' and '.join(sorted(missing))} is missing. "
            "Its first line must name the columns id and choice."
        )
    return {_id_in(row["id"] or ""): (row["choice"] or "").strip() for row in rows}


def save_choices(project: Project, path: str | Path) -> dict[str, str]:
    """
    Merge the choices of a CSV (see `read_choices`) into the review, once; return those refused, id → reason.

    A merged file is renamed to its next free number, such as choices.001.csv: read again, it would redo what was
    undone and beat flags set since. To merge it once more, or what was refused after mending it, name it back.

    Raises
    ------
    FieldguideError
        If the file cannot be read, or not renamed; only in the latter case its choices are in the review.
    """
    path = Path(path)
    refused = save_flags(project, read_choices(path))
    with locked(project.data), explained(path):
        numbered = (path.with_name(f"{path.stem}.{number:03}{path.suffix}") for number in count(1))
        path.rename(next(name for name in numbered if not os.path.lexists(name)))
    return refused


def _id_in(text: str) -> str:
    """
    Return the id in a file name or path.

    >>> _id_in("images/cat/0123456789abcdef.jpg")
    '0123456789abcdef'
    """
    return PurePosixPath(text.strip().replace("\\", "/")).name.removesuffix(".jpg")


def _labels_of(project: Project, id: str) -> list[str]:
    """Return the labels one picture lies under; for many pictures see `_where`."""
    return [label for label in project.labels if _is_name(id) and _picture(project.images, label, id).exists()]


def _checked(project: Project, id: str, choice: str, labels: Sequence[str]) -> str:
    """Return `choice` as review.csv spells it, or raise saying why it cannot be stored."""
    if not labels:
        raise FieldguideError(f"{id!r} is not in the training set {project.images}. Was it moved or deleted?")
    if len(labels) > 1:
        raise FieldguideError(f"{id!r} lies under {' and '.join(map(repr, labels))}. Remove all but one of the files.")
    word = choice.strip().strip("<>").capitalize()  # fastai writes <Keep> and <Delete>
    label = unicodedata.normalize("NFC", choice.strip())
    if word in (KEEP, DELETE):
        return word
    if label not in project.labels:
        raise FieldguideError(
            f"{choice!r} is no choice for {id!r}. Choose {KEEP}, {DELETE} or one of {_few(project.labels)}."
        )
    return KEEP if label == labels[0] else label


def _few(names: Iterable[str], limit: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" … ({len(names)} in all)" if len(names) > limit else "")


def _flags(project: Project) -> dict[str, dict[str, str]]:
    """Return the last row of each id in review.csv."""
    return {row["id"]: row for row in read_rows(project.table("review"), REVIEW_COLUMNS)}


def _now() -> str:
    """Return the time in UTC to the microsecond: it also tells two rows about one picture apart."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


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

    def row(self) -> dict[str, str]:
        return {column: getattr(self, column) for column in CORRECTION_COLUMNS}

    def places(self, project: Project) -> tuple[Path, Path]:
        """Return the paths it leads from and to."""
        source = project.trash if self.new == RESTORED else project.images
        target = project.trash if self.new == DELETED else project.images
        label = self.old if self.new in (DELETED, RESTORED) else self.new
        return _picture(source, self.old, self.id), _picture(target, label, self.id)

    def reversed(self) -> "Move":
        """Return the way back."""
        opposite = {DELETED: RESTORED, RESTORED: DELETED}.get(self.new)
        if opposite:
            return Move(self.id, self.old, opposite, predicted=UNDONE)
        return Move(self.id, self.new, self.old, predicted=UNDONE)

    def outcome(self, reason: str = "", *, done: bool = False) -> Outcome:
        return Outcome(self.id, self.old, self.new, done, reason)


def _picture(root: Path, label: str, id: str) -> Path:
    return root / label / f"{id}.jpg"


def _is_name(id: str) -> bool:
    """Return whether an id is a plain file name that a table holds as it is."""
    return bool(id) and not id.startswith(".") and not set(id) & set("/\\") and not LINE_BREAKS.search(id)


def _obstacle(project: Project, move: Move) -> str:
    """Return why a move cannot be made now, or "" where it can."""
    names = [move.old, *([] if move.new in (DELETED, RESTORED) else [move.new])]
    if not _is_name(move.id) or any(unsafe_name(name) for name in names):
        return f"{move.id!r}, {' → '.join(names)!r} are no names of a picture and labels; was the table edited?"
    source, target = move.places(project)
    if not source.is_file():
        return f"it is no longer at {source}"
    if os.path.lexists(target):
        return f"{target} is taken, and nothing is overwritten: move or delete one of the two files"
    # What comes back must not become a picture's second label. A flag's picture was looked for in all labels already.
    back = move.new == RESTORED or (move.predicted == UNDONE and move.new != DELETED)
    twins = (
        [label for label in _labels_of(project, move.id) if label != move.old or move.new == RESTORED] if back else []
    )
    if twins:
        return f"it lies under {twins[0]!r} as well: remove one of the two files"
    return ""


def _stamp(path: Path) -> list[int]:
    """Return what changes when a file is renamed, even back to its old name: its inode and change time."""
    status = path.stat()
    return [status.st_ino, status.st_ctime_ns]


def _carry_out(project: Project, moves: Sequence[Move], flags: Mapping[str, dict[str, str]]) -> list[Outcome]:
    """Make the moves, log them and drop the flags that asked for them; the caller holds the lock."""
    refused = {move: reason for move in moves if (reason := _obstacle(project, move))}
    time = _now()
    planned = [replace(move, time=time) for move in moves if move not in refused]
    outcomes = [move.outcome(reason) for move, reason in refused.items()]
    if not planned:
        return outcomes
    _write_pending(project, planned, [flags[move.id] for move in planned if move.id in flags])
    done = []
    for move in planned:
        try:
            _rename(*move.places(project))
        except OSError as error:
            outcomes.append(move.outcome(str(error)))
        else:
            done.append(move)
            outcomes.append(move.outcome(done=True))
    for folder in sorted({move.places(project)[1].parent for move in done}):
        _sync(folder)
    _conclude(project, done, [flags[move.id] for move in done if move.id in flags])
    return outcomes


def _write_pending(project: Project, moves: Sequence[Move], flags: Sequence[dict[str, str]]) -> None:
    """Write down, on disk for good, what is about to move and which flags asked for it."""
    entries = [{**move.row(), "stamp": _stamp(move.places(project)[0])} for move in moves]
    write_whole(_pending(project), json.dumps({"moves": entries, "flags": list(flags)}, ensure_ascii=False, indent=1))
    _sync(project.data)


def _rename(source: Path, target: Path) -> None:
    """Rename `source` to `target`, which must not exist; only this process moves files while it holds the lock."""
    make_folder(target.parent)
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is taken, and nothing is overwritten")
    with explained(target):
        source.rename(target)


def _conclude(project: Project, moves: Sequence[Move], flags: Sequence[dict[str, str]]) -> None:
    """Log the moves made, then drop the flags, then the pending record: in this order nothing happens twice."""
    _log(project, moves)
    _drop_flags(project, flags)
    _clear_pending(project)


def _log(project: Project, moves: Sequence[Move]) -> None:
    append_rows(project.table("corrections"), CORRECTION_COLUMNS, [move.row() for move in moves])


def _drop_flags(project: Project, rows: Sequence[dict[str, str]]) -> None:
    """Take these rows out of review.csv; a flag set anew since then has another time and stays."""
    flags = _flags(project)
    kept = [row for row in flags.values() if row not in rows]
    if len(kept) < len(flags):
        write_table(project.table("review"), REVIEW_COLUMNS, kept)


def _clear_pending(project: Project) -> None:
    _pending(project).unlink(missing_ok=True)
    _sync(project.data)


def _pending(project: Project) -> Path:
    return project.data / "pending.json"


def _sync(folder: Path) -> None:
    """Wait until the names in `folder` are on disk, where the system can say so (Windows cannot)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _settle(project: Project) -> list[Outcome]:
    """
    Finish or leave undone what a killed run had begun; the caller holds the lock.

    A picture at its target was moved: it is logged, once. One at its source, unchanged, was not: its flag stays.
    One at its source with another stamp, or somewhere else, was moved by hand since: hands outrank flags.
    """
    check_ended(project.table("review"), REVIEW_COLUMNS)  # both are written only after the files have moved
    check_ended(project.table("corrections"), CORRECTION_COLUMNS)
    path = _pending(project)
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        stamps = {Move(*(entry[column] for column in ("id", "old", "new", "predicted", "probability", "time"))):
                  entry["stamp"] for entry in record["moves"]}  # fmt: skip
        flags = {row["id"]: row for row in record["flags"]}
    except (ValueError, KeyError, TypeError) as error:
        raise FieldguideError(
            f"{path}, the record of an interrupted run, cannot be read ({error!r}). Look whether the pictures you "
            "decided about are where they should be, then delete that file and run this again."
        ) from error
    logged = read_rows(project.table("corrections"), CORRECTION_COLUMNS)
    unlogged, concluded, outcomes = [], [], []
    for move, stamp in stamps.items():
        source, target = move.places(project)
        if move.row() in logged or (target.exists() and not source.exists()):
            if move.row() not in logged:
                unlogged.append(move)
            outcomes.append(move.outcome("begun by an interrupted run, finished now", done=True))
        elif source.exists() and _stamp(source) == stamp:
            continue
        else:
            outcomes.append(move.outcome("an interrupted run was at it, and it was moved by hand since: left as it is"))
        concluded.append(move.id)
    _conclude(project, unlogged, [flags[id] for id in concluded if id in flags])
    return outcomes


# --- the ledger ------------------------------------------------------------------------------------------------


class Ledger:
    """
    The account of all that a person decided about the pictures of a project; opening it does nothing.

    A decision that cannot be carried out (its name is taken, its folder is read-only) is returned with the reason,
    and keeps its flag. Every method holds the lock of the data folder and first finishes what a killed run left.
    """

    def __init__(self, project: Project):
        self.project = project

    def apply(self, predictions: Mapping[str, tuple[str, float]] | None = None) -> list[Outcome]:
        """
        Carry out the flags of review.csv and return what became of each; "Keep" stays as it is.

        A picture moved by hand since it was flagged is moved on from where it is now. A flag whose picture is
        nowhere in the training set is dropped.

        Parameters
        ----------
        predictions : mapping of id to (label, probability in [0, 1]), optional
            What the model said, for corrections.csv.
        """
        with locked(self.project.data):
            outcomes = _settle(self.project)
            flags = _flags(self.project)
            where = _where(self.project)
            moves, dropped, kept = [], [], []
            for id, row in sorted(flags.items()):
                if row["choice"] == KEEP:
                    continue
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
            _drop_flags(self.project, dropped)
            append_rows(self.project.table("review"), REVIEW_COLUMNS, kept)
            return outcomes + _carry_out(self.project, moves, flags)

    def undo(self, n: int = 1) -> list[Outcome]:
        """
        Take back the last `n` corrections that still stand, the latest first.

        Corrections form a stack: an undo takes the top off and is itself nothing to undo, so that calling it again
        goes one further back. A restore is a correction like any other. One whose picture a person has moved since
        is passed over, with a reason; one whose old name is taken counts, and stays. Flags not yet applied stay.
        """
        if n < 1:
            raise FieldguideError(f"undo({n}) takes nothing back. Give the number of corrections, 1 or more.")
        with locked(self.project.data):
            outcomes = _settle(self.project)
            tries = 0
            for move in reversed(_standing(read_rows(self.project.table("corrections"), CORRECTION_COLUMNS))):
                if tries == n:
                    break
                back = move.reversed()
                if back.places(self.project)[0].exists():
                    outcomes += _carry_out(self.project, [back], {})
                    tries += 1
                else:
                    outcomes.append(back.outcome("it was moved by hand since: passed over"))
            return outcomes

    def restore(self, ids: Iterable[str]) -> list[Outcome]:
        """Bring pictures back from the trash to the label they were in; `ids` may be file names."""
        ids = [ids] if isinstance(ids, str) else ids
        with locked(self.project.data):
            outcomes = _settle(self.project)
            labels = sorted(path.name for path in self.project.trash.glob("*") if path.is_dir())
            moves = []
            for id in dict.fromkeys(map(_id_in, ids)):
                found = [label for label in labels if _is_name(id) and _picture(self.project.trash, label, id).exists()]
                if len(found) == 1:
                    moves.append(Move(id, found[0], RESTORED))
                else:
                    reason = "it lies in the trash of several labels: move the right one by hand" if found else ""
                    outcomes.append(Outcome(id, "", RESTORED, False, reason or "it is not in the trash"))
            return outcomes + _carry_out(self.project, moves, {})

    def table(self):
        """
        Return all that was ever decided as a pandas DataFrame, oldest first.

        The columns of corrections.csv and `state`: "applied", "undone" (taken back later), "undo" (the taking back)
        or "restored"; then the flags not yet applied, as "waiting" or "kept".
        """
        import pandas as pd  # here, because saving a flag should not wait for it

        rows = read_rows(self.project.table("corrections"), CORRECTION_COLUMNS)
        standing = {id(row) for row in _standing_rows(rows)}
        states = [_state(row, id(row) in standing) for row in rows]
        where = _where(self.project)
        for row in _flags(self.project).values():
            new = {KEEP: "", DELETE: DELETED}.get(row["choice"], row["choice"])
            rows.append({**row, "old": "".join(where.get(row["id"], [])[:1]), "new": new})
            states.append("waiting" if new else "kept")
        table = pd.DataFrame(rows, columns=list(CORRECTION_COLUMNS)).fillna("")
        table["time"] = pd.to_datetime(table["time"], errors="coerce", utc=True, format="ISO8601")
        table["probability"] = pd.to_numeric(table["probability"], errors="coerce")
        return table.assign(state=states)


def _where(project: Project) -> dict[str, list[str]]:
    """Return id → the labels it lies under, for the training set as it is now."""
    where: dict[str, list[str]] = {}
    for label in project.labels:
        for path in sorted((project.images / label).glob("*.jpg")):
            if _is_name(path.stem):
                where.setdefault(path.stem, []).append(label)
    return where


def _prediction(predictions: Mapping[str, tuple[str, float]] | None, id: str) -> tuple[str, str]:
    """Return what the model said about a picture as the two columns of corrections.csv."""
    if not predictions or id not in predictions:
        return "", ""
    label, probability = predictions[id]
    return label, f"{float(probability):.4f}"


def _standing_rows(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the corrections not taken back, oldest first: each undo takes off the latest one that it reverses."""
    stack: list[dict[str, str]] = []
    for row in rows:
        if row["predicted"] != UNDONE:
            stack.append(row)
            continue
        for position in reversed(range(len(stack))):
            back = _move(stack[position]).reversed()
            if (back.id, back.old, back.new) == (row["id"], row["old"], row["new"]):
                del stack[position]
                break
    return stack


def _standing(rows: Sequence[dict[str, str]]) -> list[Move]:
    return [_move(row) for row in _standing_rows(rows)]


def _move(row: Mapping[str, str]) -> Move:
    return Move(**{column: row[column] for column in CORRECTION_COLUMNS})


def _state(row: Mapping[str, str], stands: bool) -> str:
    if row["predicted"] == UNDONE:
        return "undo"
    if not stands:
        return "undone"
    return "restored" if row["new"] == RESTORED else "applied"
