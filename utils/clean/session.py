"""
What a person decides about pictures, without a widget: which to look at, in which order, and the flags.

Reads and writes review.csv: a flag is stored the moment it is set. The ledger moves the files, when it is asked to.
A flag belongs to a picture's id (without a project: its path), never to a place on a screen. So no order of events
can make one picture's flag touch another's file. `grid` shows what is decided here.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.clean.alike import LookAlikes
from utils.clean.given import checked_features, checked_probs, listed_suspects, own_names
from utils.clean.live import LiveOrder
from utils.clean.suspects import DOUBT_LISTS, Suspect
from utils.dataset import Dataset, Picture, read_dataset
from utils.errors import FieldguideError
from utils.ledger import DELETE, KEEP, Ledger, Outcome, read_review, store_flags
from utils.project import Project
from utils.storage import file_stamp, locked
from utils.words import counted

WORST, NAME, LABEL = "Worst first", "File name", "Label"  # ways to sort
UNDECIDED, DECIDED = "Undecided", "Decided"
UNDO_STEPS = 1000  # that can be taken back; one may hold a whole page
CHANGED_SINCE = "its flag was changed elsewhere since"  # why undo left a picture


@dataclass(frozen=True)
class Outside:
    """What is told of a picture that is not in the training set, and may come into it."""

    list: str  # in which the grid shows it
    reason: str  # why it is not in the training set, in a few words
    action: str = ""  # what brings it in under its own label, such as "Take back"; "" if it must be given one


@dataclass(frozen=True)
class View:
    """Which pictures are looked at, and in which order; "" stands for all."""

    list: str = ""
    label: str = ""
    side: str = ""
    show: str = ""  # or "Undecided", "Decided"
    sort: str = WORST


class Cleaning:
    """
    N pictures, what a model says of them, and what a person decided; see `ImageClassifierCleaner`.

    A position is a place in `start`, the N paths of the pictures at the start, which never change. A picture that left
    the training set keeps its position and gets the label "". `choices` maps ids to flags that were not applied yet;
    without a project they live here alone. `applied` counts the pictures of the last Apply that can be taken back,
    whoever pressed it. `moves` grows each time that pictures are found elsewhere: a selection is then made again.

    `outside` takes a project and its data set, and returns id → file and what is told of each picture that is not in
    it. Such pictures join the others, have the label "", too, and each is in one list. `bring` takes their ids and a
    label, or None for their own; it brings them in and says what was done.

    With `features` (N, F) the worst come first by a head that is fitted again as the person decides (`learn`).
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        labels: Sequence[str],
        *,
        probs=None,
        features=None,
        suspects: Iterable[Suspect] | None = None,
        project: Project | None = None,
        outside: Callable[[Project, Dataset], Mapping[str, tuple[Path, Outside]]] | None = None,
        bring: Callable[[list[str], str | None], str] | None = None,
    ):
        self.pictures, self.labels, self.project = list(pictures), list(labels), project
        self.outside: dict[str, Outside] = {}
        self._look_outside, self._bring, self._outside_lists = outside, bring, set()
        found = outside(project, read_dataset(project)) if outside else {}
        self.pictures += [Picture(id, path, "", "", None) for id, (path, _) in found.items()]
        self.start = tuple(picture.path for picture in self.pictures)
        self.names = own_names(self.start, project)  # what the person's files were called, then the ids
        if taken := {KEEP, DELETE} & set(self.labels):
            raise FieldguideError(f"{min(taken)!r} is a word of the cleaner and cannot be a label. Rename that label.")
        self.probs = None if probs is None else checked_probs(probs, len(self.pictures), len(self.labels))
        self.lists, self.reasons = listed_suspects(suspects or (), len(self.pictures))
        ranked = self.lists or probs is not None or features is not None
        self.sorts = [WORST, NAME, LABEL] if ranked else [NAME, LABEL]
        self.positions: dict[str, int] = {}  # of an id
        for n, picture in enumerate(self.pictures):
            self.positions.setdefault(picture.id, n)
        self._list_outside(found)
        self.lock = threading.RLock()  # front-ends may deliver messages while a cell is running
        self._steps: deque[dict[str, tuple[str | None, str | None]]] = deque(maxlen=UNDO_STEPS)  # id → before, after
        self._untold: list[str] = []  # what happened elsewhere
        self.moves, self._seen = 0, self._stamp()
        self.choices: dict[str, str] = read_review(project) if project else {}
        self.applied = len(Ledger(project).last_apply()) if project else 0
        self._index()
        self._began = self._label
        self.live = self.alike = None  # the order that follows what is decided, and what looks alike
        if features is not None:
            features = checked_features(features, len(pictures), len(found))
            self.live, self.alike = LiveOrder(features, self._began), LookAlikes(features)
        self.learn()

    def _index(self) -> None:
        """Compute, once for many switches, what each picture is filtered and sorted by."""
        codes = {label: k for k, label in enumerate(self.labels)}
        self._label = np.array([codes.get(picture.label, -1) for picture in self.pictures], dtype=int)  # (N,)
        self.there = np.array([bool(picture.label) for picture in self.pictures], dtype=bool)
        self._side = np.array([picture.side for picture in self.pictures], dtype=object)
        self._loss = np.zeros(len(self.pictures))
        if self.probs is not None:
            judged = ~np.isnan(self.probs).any(axis=1) & (self._label >= 0)
            given = self.probs[judged, self._label[judged]]
            self._loss[judged] = -np.log(np.maximum(given, 1e-12))
        worst = np.argsort(-self._loss, kind="stable")
        named = sorted(range(len(self.pictures)), key=lambda n: self.names[n].casefold())
        by_label = worst[np.argsort(self._label[worst], kind="stable")]
        self._orders = {WORST: worst, NAME: np.array(named, dtype=int), LABEL: by_label}

    def _believed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes of the labels (N,) with what was decided, −1 for "out", and what is decided (N,)."""
        codes, decided = self._label.copy(), self._label != self._began
        known = {label: k for k, label in enumerate(self.labels)}
        for id, choice in list(self.choices.items()):
            if (n := self.positions.get(id)) is not None:
                decided[n] = True
                if choice != KEEP:
                    codes[n] = -1 if choice == DELETE else known.setdefault(choice, len(known))
        return codes, decided

    def learn(self, *, now: bool = True) -> None:
        """Order the pictures by what is decided; if not `now`, then where it takes long, after a few decisions."""
        if self.live:
            self.live.learn(*self._believed(), now=now)

    def follows(self, view: View) -> bool:
        """Return whether a view's order follows what is decided."""
        return bool(self.live) and view.sort == WORST and view.list in ("", *DOUBT_LISTS)

    def told_at_first(self) -> str:
        """Return what a person should know before the first decision, "" if there is nothing."""
        told = []
        if self.live and (missing := int((self.there & ~self.live.known).sum())):
            look, keep = ("looks", "it keeps its") if missing == 1 else ("look", "they keep their")
            told.append(f"Nothing is known of how {counted(missing)} {look}, so {keep} place in the order.")
        if waiting := len(self.pending()):
            told.append(f"{counted(waiting, 'choice')} made before are shown, and not applied yet.")
        return " ".join(told)

    def select(self, view: View) -> list[int]:
        """Return the positions that a view shows, in its order; pictures that left the training set are left out."""
        wanted = self.there.copy()
        if view.list in self._outside_lists:
            wanted = ~wanted
        if view.label:
            wanted &= self._label == self.labels.index(view.label)
        if view.side:
            wanted &= self._side == view.side
        if view.show:
            decided = np.array([picture.id in self.choices for picture in self.pictures], dtype=bool)
            wanted &= decided if view.show == DECIDED else ~decided
        order = self._orders[view.sort]
        if view.list:
            suspects = np.array(self.lists[view.list], dtype=int)
            if view.sort == WORST:
                order = suspects
            else:
                wanted &= np.isin(np.arange(len(self.pictures)), suspects)
        shown = order[wanted[order]].tolist()
        return self.live.arranged(shown) if self.follows(view) else shown

    def undecided(self) -> np.ndarray:
        """Return which pictures are in the training set and have no choice yet, bool array (N,)."""
        return self.there & [picture.id not in self.choices for picture in self.pictures]

    def loss(self, position: int) -> float:
        """Return the cross-entropy of a picture under its present label; 0 without a prediction."""
        return float(self._loss[position])

    def predicted(self, position: int) -> tuple[str, float] | None:
        """Return the label that the model would give, and its probability; None if it was not asked."""
        if self.probs is None or np.isnan(self.probs[position]).any():
            return None
        best = int(self.probs[position].argmax())
        return self.labels[best], float(self.probs[position, best])

    def progress(self) -> str:
        """Say how far the person is, over all pictures."""
        flags = [self.choices.get(picture.id) for picture in self.pictures if picture.label]
        count = Counter(flags)
        looked, kept, deleted = len(flags) - count[None], count[KEEP], count[DELETE]
        told = (
            f"{looked:,} of {len(flags):,} looked at: {kept:,} to keep, {deleted:,} to delete, "
            f"{looked - kept - deleted:,} to move"
        )
        return f"{told}. {self.live.told(*self._believed())}" if self.live else told

    def flag(self, choices: Mapping[str, str | None]) -> dict[str, str]:
        """Flag pictures as one step, on disk at once; None takes a flag back. Return those refused, id → reason."""
        with self.lock:
            step = self._store(choices)
            done = {id: (before, after) for id, (before, after, reason) in step.items() if not reason}
            if any(before != after for before, after in done.values()):
                self._steps.append(done)
        return {id: reason for id, (_, _, reason) in step.items() if reason}

    def undo(self) -> dict[str, str]:
        """Take the last step of flags back; return what became of it, id → "" or why a flag changed since was left."""
        with self.lock:
            if not self._steps:
                raise FieldguideError(
                    "There is no choice to undo. “Take back the last Apply”, under More, moves files back."
                )
            step = self._steps[-1]
            ours = {id: before for id, (before, after) in step.items() if self.choices.get(id) == after}
            stored = self._store(ours)
            self._steps.pop()  # only now: if storing raises, the step can be tried again
        return {id: stored[id][2] if id in stored else CHANGED_SINCE for id in step}

    def _store(self, choices: Mapping[str, str | None]) -> dict[str, tuple[str | None, str | None, str]]:
        """Store choices, and return id → choice before, choice stored, why it was refused ("" if it was not)."""
        stored, refused = self._save(choices) if self.project else (self._own_kept(choices), {})
        step = {id: (self.choices.get(id), stored.get(id), refused.get(id, "")) for id in choices}
        for id, (_, choice, reason) in step.items():
            if not reason and choice is None:
                self.choices.pop(id, None)
            elif not reason:
                self.choices[id] = choice
        return step

    def _save(self, choices: Mapping[str, str | None]) -> tuple[dict[str, str | None], dict[str, str]]:
        """Have flags stored in the project, and return those stored and those refused, as `store_flags` does."""
        if not choices:
            return {}, {}
        table = self.project.table("review")
        with locked(self.project.data):  # so that a table known before is known afterwards, and not read again
            known, folders = self._seen
            news = file_stamp(table) != known
            result = store_flags(self.project, choices)
            self._seen = (known if news else file_stamp(table)), folders
        return result

    def _own_kept(self, choices: Mapping[str, str | None]) -> dict[str, str | None]:
        """Return choices with a picture's own label as "Keep"; in a project, the folders tell what its label is."""
        own = {id: self.pictures[self.positions[id]].label for id in choices}
        return {id: KEEP if choice == own[id] else choice for id, choice in choices.items()}

    def pending(self) -> list[tuple[int, str]]:
        """Return (position, "Delete" or a label) of the pictures that Apply would move."""
        flags = sorted((self.positions[id], choice) for id, choice in self.choices.items() if id in self.positions)
        return [(n, flag) for n, flag in flags if flag != KEEP and self.pictures[n].label not in ("", flag)]

    def still_there(self) -> list[tuple[int, str]]:
        """Return what is pending, in any notebook, for the files still where they were at the start."""
        with self.lock:
            self.look()
            # The caller acts on the paths of the start: another file may have come there since.
            unmoved = [(n, flag) for n, flag in self.pending() if self.pictures[n].path == self.start[n]]
            return [(n, flag) for n, flag in unmoved if self.start[n].exists()]

    def apply(self) -> list[Outcome]:
        """Have the ledger move the pictures that are pending, and no others."""
        with self.lock:
            ids = {n: self.pictures[n].id for n, _ in self.pending()}
            said = {id: guess for n, id in ids.items() if (guess := self.predicted(n))}
            return self._after(self._ledger().apply(said, only=ids.values()))

    def bring(self, ids: Sequence[str], label: str | None) -> str:
        """Bring pictures from outside into the training set, under a label or their own; return what was done."""
        with self.lock:
            if strange := [id for id in ids if id not in self.outside or self.pictures[self.positions[id]].label]:
                raise FieldguideError(f"{strange[0]} is in the training set already.")
            told = self._bring(list(ids), label)
            self._after([])
            return told

    def files_moved(self) -> None:
        """Take the folders as they are after moves of our own."""
        with self.lock:
            self._after([])

    def take_back(self) -> list[Outcome]:
        """Have the ledger move all pictures back that the last Apply moved, whoever pressed it."""
        with self.lock:
            return self._after(self._ledger().undo_apply())

    def _ledger(self) -> Ledger:
        if not self.project:
            raise FieldguideError("Without a project nothing is moved here. Use cleaner.delete() and cleaner.change().")
        return Ledger(self.project)

    def _after(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Take the tables and folders as they are after moves of our own."""
        self._steps.clear()  # from here on the ledger takes back
        self._seen = self._stamp()
        _, problem = self._take_folders()
        self._untold += [problem] if problem else []
        self.choices = read_review(self.project)
        return outcomes

    def refresh(self) -> str:
        """
        Take over what happened to the project elsewhere, and return what is told to the person, "" if nothing did.

        It raises as long as review.csv cannot be read: nothing should be added to such a table.
        """
        with self.lock:
            self.look()
            news, self._untold = dict.fromkeys(self._untold), []
            elsewhere = "This project was changed elsewhere (another notebook, another cell, or by hand)."
            return " ".join([elsewhere, *news]) if news else ""

    def look(self) -> None:
        """Take over what happened elsewhere, and keep the news for `refresh`."""
        if not self.project or (stamp := self._stamp()) == self._seen:
            return
        (table, folders), (table_before, folders_before) = stamp, self._seen
        self._seen = (table_before, folders)
        moved, problem = self._take_folders() if folders != folders_before else (0, "")
        if moved:
            lie, they_are = ("lies", "it is") if moved == 1 else ("lie", "they are")
            self._untold.append(f"{counted(moved)} {lie} elsewhere than before, shown where {they_are} now.")
        if table != table_before:
            found = read_review(self.project)
            changed = sum(found.get(id) != self.choices.get(id) for id in self.positions)
            self.choices, self._seen = found, stamp
            if changed and not moved:  # flags go with the pictures that were moved
                self._untold.append(f"The flags of {counted(changed)} were set or taken back, and are shown now.")
        if problem:
            self._untold.append(problem)

    def _stamp(self) -> tuple | None:
        """Return what changes when another program writes flags or moves pictures: looked up without listing files."""
        if not self.project:
            return None
        folders = tuple(file_stamp(self.project.images / label) for label in self.project.labels)
        return file_stamp(self.project.table("review")), folders

    def _take_folders(self) -> tuple[int, str]:
        """Take the folders as they are now; return how many pictures lie elsewhere, and why it could not be done."""
        try:
            now = read_dataset(self.project)
            self.applied = len(Ledger(self.project).last_apply())
        except FieldguideError as error:  # such as one picture under two labels, which is no reason to stop
            return 0, str(error)
        before, problem = self.pictures, ""
        try:
            found = self._look_outside(self.project, now) if self._look_outside else {}
            self._list_outside(found)
        except FieldguideError as error:  # such as a table that a spreadsheet saved otherwise; what moved is shown
            found, problem = {}, str(error)
        self.pictures = [self._placed(picture, now, found) for picture in before]
        self.moves += self.pictures != before
        self._index()
        return sum(old.label != new.label for old, new in zip(before, self.pictures, strict=True)), problem

    def _list_outside(self, found: Mapping[str, tuple[Path, Outside]]) -> None:
        """Put each picture outside the training set into its list; a list that has none left stays."""
        self.outside = {id: told for id, (_, told) in found.items()}
        self._outside_lists |= {told.list for told in self.outside.values()}
        for name in self._outside_lists:
            self.lists[name], self.reasons[name] = [], {}
        for id, told in self.outside.items():
            if (n := self.positions.get(id)) is not None:  # else it came since, and is there when the cell is run again
                self.lists[told.list].append(n)
                self.reasons[told.list][n] = told.reason

    def _placed(self, picture: Picture, now: Dataset, outside: Mapping[str, tuple[Path, Outside]]) -> Picture:
        """Return a picture where it lies now; one that is missing, and not in the trash, stays to be seen as such."""
        if picture.id in now:
            return now[picture.id]
        if picture.id in outside:
            return replace(picture, path=outside[picture.id][0], label="", side=None)
        trashed = picture.label and (self.project.trash / picture.label / picture.path.name).exists()
        return replace(picture, label="") if trashed else picture
