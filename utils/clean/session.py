"""
Stage 06: what a person decides about pictures, without a widget: which to look at, in which order, and the flags.

Reads images/, split.csv, sources.csv and review.csv; writes review.csv the moment a flag is set, and has the ledger
apply it. Flags belong to keys (a picture's id in a project, else its path) and never to places on a screen, so that
no order of events can make one picture's flag touch another's file. `grid` and `menus` show what is decided here.
"""

import glob
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.addresses import web_host
from utils.errors import FieldguideError
from utils.ledger import DELETE, DELETED, KEEP, Ledger, Outcome, read_review, store_flags
from utils.pictures import PictureError, open_picture
from utils.project import Project
from utils.storage import locked
from utils.tables import SOURCES_COLUMNS, each_row

SUSPECTS = "Suspects"  # the list that an order makes
WORST, NAME, LABEL = "Worst first", "File name", "Label"  # ways to sort
UNDECIDED, DECIDED = "Undecided", "Decided"
SIDES = ("Train", "Valid", "Test")
STEPS = 1000  # that can be taken back; one may hold a whole page
LOOK_FIRST = "Nothing was applied yet: look at what changed, then press Apply again."
CHANGED = "its flag was changed elsewhere since"  # why undo left a picture
TOLD = 5  # refusals that a summary tells in full


@dataclass(frozen=True)
class Picture:
    """One of N pictures: `key` is its id in a project, else its path; `label` is "" once it left the training set."""

    key: str
    path: Path
    label: str
    side: str = ""  # "Train", "Valid", "Test", or "" where the split does not know it


class Suspect(Protocol):
    """A picture worth a look: on which list it stands, and why."""

    position: int  # among the pictures
    list: str
    reason: str  # one line
    figure: float


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
    N pictures, what a model thinks of them, and what a person decided; positions are those of `pictures`.

    Parameters
    ----------
    pictures : sequence of N `Picture`
    labels : sequence of K labels, the columns of `probs`
    probs : array of shape (N, K), optional
        Probabilities in [0, 1]; a row of NaN is a picture that could not be judged.
    order : sequence of positions, optional
        The suspects, worst first; by default the largest loss comes first.
    suspects : sequence of `Suspect`, optional
        Lists of suspects, worst first within a list; one picture may stand in several.
    project : Project, optional
        Where flags are stored; without one they live in memory.

    Attributes
    ----------
    start : tuple of N Path
        Where the pictures were at the start; it never changes.
    moves : int
        How often pictures were found elsewhere than before: where it grew, a selection has to be made again.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        labels: Sequence[str],
        *,
        probs=None,
        order: Iterable[int] | None = None,
        suspects: Iterable[Suspect] | None = None,
        project: Project | None = None,
    ):
        self.pictures = list(pictures)
        self.start = tuple(picture.path for picture in self.pictures)
        self.moves = 0
        self.labels = list(labels)
        if taken := {KEEP, DELETE} & set(self.labels):
            raise FieldguideError(f"{min(taken)!r} is a word of the cleaner and cannot be a label. Rename that label.")
        self.project = project
        self.probs = None if probs is None else _checked_probs(probs, len(self.pictures), len(self.labels))
        order = None if order is None else _checked(order, len(self.pictures), "order")
        self.lists, self.reasons = _lists(order, suspects, len(self.pictures))
        self.positions: dict[str, int] = {}  # of a key
        for n, picture in enumerate(self.pictures):
            self.positions.setdefault(picture.key, n)
        self._rank = np.full(len(self.pictures), len(self.pictures))  # among the suspects
        self._rank[order or []] = np.arange(len(order or []))
        self.lock = threading.RLock()  # front-ends may deliver messages while a cell is running
        self._steps: deque[dict[str, tuple[str | None, str | None]]] = deque(maxlen=STEPS)  # key → before, after
        self._untold: list[str] = []  # what happened elsewhere
        self._seen = self._stamp()
        self.choices: dict[str, str] = read_review(project) if project else {}
        self._index()

    def _index(self) -> None:
        """Compute, once for many switches, what each picture is filtered and sorted by."""
        codes = {label: k for k, label in enumerate(self.labels)}
        self._label = np.array([codes.get(picture.label, -1) for picture in self.pictures], dtype=int)  # (N,)
        self._there = np.array([bool(picture.label) for picture in self.pictures], dtype=bool)
        self._side = np.array([picture.side for picture in self.pictures], dtype=object)
        self._loss = np.zeros(len(self.pictures))
        if self.probs is not None:
            judged = ~np.isnan(self.probs).any(axis=1) & (self._label >= 0)
            given = self.probs[judged, self._label[judged]]
            self._loss[judged] = -np.log(np.maximum(given, 1e-12))
        worst = np.lexsort((-self._loss, self._rank))  # equals keep their order
        named = sorted(range(len(self.pictures)), key=lambda n: self.pictures[n].path.name.casefold())
        self._orders = {
            WORST: worst,
            NAME: np.array(named, dtype=int),
            LABEL: worst[np.argsort(self._label[worst], kind="stable")],
        }

    # --- looking ---

    def select(self, view: View) -> list[int]:
        """Return the positions that a view shows, in its order; pictures that left the training set are left out."""
        wanted = self._there.copy()
        if view.label:
            wanted &= self._label == self.labels.index(view.label)
        if view.side:
            wanted &= self._side == view.side
        if view.show:
            decided = np.array([picture.key in self.choices for picture in self.pictures], dtype=bool)
            wanted &= decided if view.show == DECIDED else ~decided
        order = self._orders[view.sort]
        if view.list:
            suspects = np.array(self.lists[view.list], dtype=int)
            if view.sort == WORST:
                order = suspects
            else:
                wanted &= np.isin(np.arange(len(self.pictures)), suspects)
        return order[wanted[order]].tolist()

    def loss(self, position: int) -> float:
        """Return the cross-entropy of a picture under its present label; 0 where there is no prediction."""
        return float(self._loss[position])

    def predicted(self, position: int) -> tuple[str, float] | None:
        """Return the label the model would give, and its probability; None where it was not asked."""
        if self.probs is None or np.isnan(self.probs[position]).any():
            return None
        best = int(self.probs[position].argmax())
        return self.labels[best], float(self.probs[position, best])

    def choice(self, position: int) -> str | None:
        """Return "Keep", "Delete" or a label; None if a person has not looked at the picture yet."""
        return self.choices.get(self.pictures[position].key)

    def progress(self) -> str:
        """Say how far the person is, over all pictures."""
        flags, there = self.choices, [picture.key for picture in self.pictures if picture.label]
        choices = [choice for choice in map(flags.get, there) if choice]
        deleted, kept = choices.count(DELETE), choices.count(KEEP)
        return (
            f"{len(choices):,} of {len(there):,} looked at: {kept:,} to keep, {deleted:,} to delete, "
            f"{len(choices) - kept - deleted:,} to move"
        )

    # --- deciding ---

    def choose(self, position: int, choice: str | None) -> None:
        """Flag one picture as `flag` does, or raise saying why it cannot be."""
        key = self.pictures[position].key
        if refused := self.flag({key: choice}):
            raise FieldguideError(refused[key])

    def flag(self, choices: Mapping[str, str | None]) -> dict[str, str]:
        """
        Flag pictures as one step, in a project on disk at once; return those refused, key → reason.

        A picture's own label counts as "Keep"; None takes a flag back ("not looked at").
        """
        with self.lock:
            step = self._store(choices)
            done = {key: (before, after) for key, (before, after, reason) in step.items() if not reason}
            if any(before != after for before, after in done.values()):
                self._steps.append(done)
        return {key: reason for key, (_, _, reason) in step.items() if reason}

    def undo(self) -> dict[str, str]:
        """
        Take the last step of flags back, as a whole; return what became of it, key → "" or why it was left.

        A flag that was changed elsewhere since is left: it is no longer the one that was set here.
        """
        with self.lock:
            if not self._steps:
                raise FieldguideError(
                    "There is no flag to take back. What was applied is taken back by Ledger(project).undo()."
                )
            step = self._steps[-1]
            ours = {key: before for key, (before, after) in step.items() if self.choices.get(key) == after}
            stored = self._store(ours)
            self._steps.pop()  # only now: where storing raised, the step can be tried again
        return {key: stored[key][2] if key in stored else CHANGED for key in step}

    def _store(self, choices: Mapping[str, str | None]) -> dict[str, tuple[str | None, str | None, str]]:
        """Store choices, and return key → choice before, choice stored, why it was refused ("" where it was not)."""
        stored, refused = self._save(choices) if self.project else (self._own_kept(choices), {})
        step = {key: (self.choices.get(key), stored.get(key), refused.get(key, "")) for key in choices}
        for key, (_, choice, reason) in step.items():
            if not reason and choice is None:
                self.choices.pop(key, None)
            elif not reason:
                self.choices[key] = choice
        return step

    def _save(self, choices: Mapping[str, str | None]) -> tuple[dict[str, str | None], dict[str, str]]:
        """Have flags stored in the project, and return those stored and those refused, as `store_flags` does."""
        if not choices:
            return {}, {}
        table = self.project.table("review")
        with locked(self.project.data):  # so that a table known before is known afterwards, and not read again
            known, folders = self._seen
            news = _changed(table) != known
            result = store_flags(self.project, choices)
            self._seen = (known if news else _changed(table)), folders
        return result

    def _own_kept(self, choices: Mapping[str, str | None]) -> dict[str, str | None]:
        """Return choices with a picture's own label as "Keep"; in a project, the folders tell what its label is."""
        own = {key: self.pictures[self.positions[key]].label for key in choices}
        return {key: KEEP if choice is not None and choice == own[key] else choice for key, choice in choices.items()}

    def deletions(self) -> list[int]:
        """Return the positions flagged "Delete" whose file is still where it was at the start."""
        return [n for n, choice in self._flagged() if choice == DELETE]

    def changes(self) -> list[tuple[int, str]]:
        """Return (position, new label) for each picture to move whose file is still where it was at the start."""
        return [(n, choice) for n, choice in self._flagged() if choice not in (KEEP, DELETE, self.pictures[n].label)]

    def _flagged(self) -> list[tuple[int, str]]:
        """
        Return (position, flag) of the files still where they were; of one that stands there twice, the first.

        Raises
        ------
        FieldguideError
            If review.csv cannot be read: another notebook may have taken a flag back, and somebody acts on these.
        """
        with self.lock:
            self._look()
            flags = sorted((self.positions[key], flag) for key, flag in self.choices.items() if key in self.positions)
            # Who acts on these does so at the paths of the start: another file may have come there since.
            return [(n, flag) for n, flag in flags if self.pictures[n].path == self.start[n] and self.start[n].exists()]

    # --- what is on disk ---

    def apply(self) -> list[Outcome]:
        """Have the ledger carry out the flags, and take the folders as they are afterwards."""
        with self.lock:
            said = {picture.key: self.predicted(n) for n, picture in enumerate(self.pictures)}
            outcomes = Ledger(self.project).apply({key: guess for key, guess in said.items() if guess})
            self._steps.clear()  # from here on the ledger takes back
            self._seen = self._stamp()
            self._take_folders()
            self.choices = read_review(self.project)
            return outcomes

    def refresh(self) -> str:
        """
        Take over what happened to the project elsewhere, and return what is told to the person, "" if nothing did.

        Elsewhere is another notebook, another cell, or a hand.

        Raises
        ------
        FieldguideError
            If review.csv cannot be read, each time until it can: nothing should be added to such a table.
        """
        with self.lock:
            self._look()
            news, self._untold = dict.fromkeys(self._untold), []
            elsewhere = "This project was changed elsewhere (another notebook, another cell, or by hand)."
            return " ".join([elsewhere, *news]) if news else ""

    def _look(self) -> None:
        """Take over what happened elsewhere; the news wait for who shows them."""
        if not self.project or (stamp := self._stamp()) == self._seen:
            return
        (table, folders), (table_before, folders_before) = stamp, self._seen
        self._seen = (table_before, folders)
        moved, problem = self._take_folders() if folders != folders_before else (0, "")
        if moved:
            lie, they_are = ("lies", "it is") if moved == 1 else ("lie", "they are")
            self._untold.append(f"{_pictures(moved)} {lie} elsewhere than before, shown where {they_are} now.")
        if table != table_before:
            found = read_review(self.project)
            changed = sum(found.get(key) != self.choices.get(key) for key in self.positions)
            self.choices, self._seen = found, stamp
            if changed and not moved:  # flags go with the pictures that were moved
                self._untold.append(f"The flags of {_pictures(changed)} were set or taken back, and are shown now.")
        if problem:
            self._untold.append(problem)

    def _stamp(self) -> tuple | None:
        """Return what changes when another program writes flags or moves pictures: looked up without listing files."""
        if not self.project:
            return None
        folders = tuple(_changed(self.project.images / label) for label in self.project.labels)
        return _changed(self.project.table("review")), folders

    def _take_folders(self) -> tuple[int, str]:
        """Take the folders as they are now; return how many pictures lie elsewhere, and why it could not be done."""
        try:
            now = self.project.pictures()
        except FieldguideError as error:  # such as one picture under two labels, which is no reason to stop
            return 0, str(error)
        before = self.pictures
        self.pictures = [self._placed(picture, now.get(picture.key)) for picture in before]
        self.moves += self.pictures != before
        self._index()
        return sum(old.label != new.label for old, new in zip(before, self.pictures, strict=True)), ""

    def _placed(self, picture: Picture, path: Path | None) -> Picture:
        """Return a picture where it lies now; one that is missing, and not in the trash, stays to be seen as such."""
        if path:
            return replace(picture, path=path, label=path.parent.name)
        trashed = picture.label and (self.project.trash / picture.label / picture.path.name).exists()
        return replace(picture, label="") if trashed else picture


def _pictures(count: int) -> str:
    return f"{count:,} picture{'s' * (count != 1)}"


def _changed(path: Path) -> tuple[int, ...]:
    """Return what is another when a file is written, or a folder gets or loses a file; () where there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _checked_probs(probs, n: int, k: int) -> np.ndarray:
    probs = np.asarray(probs, dtype=float)
    if probs.shape != (n, k):
        raise FieldguideError(
            f"probs has the shape {probs.shape}; expected {(n, k)}: a row a picture and a column a label. "
            "If pictures were added or moved since it was made, run the cells above again."
        )
    return probs


def _checked(positions: Iterable[int], n: int, name: str) -> list[int]:
    """Return positions once each, in their order, or raise where one leads to no picture."""
    positions = [int(position) for position in positions]
    if wrong := [position for position in positions if not 0 <= position < n]:
        raise FieldguideError(f"{name} holds {wrong[0]}, but there are {n} pictures, 0 to {n - 1}. Rank them again.")
    return list(dict.fromkeys(positions))


def _lists(
    order: list[int] | None, suspects: Iterable[Suspect] | None, n: int
) -> tuple[dict[str, list[int]], dict[str, dict[int, str]]]:
    """Return each list's positions, and its reasons by position; lists stand in the order in which they first occur."""
    lists: dict[str, list[int]] = {}
    reasons: dict[str, dict[int, str]] = {}
    for suspect in suspects or ():
        lists.setdefault(suspect.list, []).append(suspect.position)
        reasons.setdefault(suspect.list, {}).setdefault(int(suspect.position), suspect.reason)
    lists = {name: _checked(positions, n, "suspects") for name, positions in lists.items()}
    return ({SUSPECTS: order} if order is not None else {}) | lists, reasons


def summary(outcomes: Sequence[Outcome]) -> str:
    """
    Return what applying did, as a person would say it.

    >>> summary([Outcome("a", "cat", "dog", True), Outcome("b", "cat", "<Delete>", True)])
    'Moved 1 to another label and 1 to the trash. Run 03, 04 and 05 again to train on what is left and compare.'
    >>> summary([])
    'There was nothing to apply: no picture is flagged to be moved or deleted.'
    """
    done = [outcome for outcome in outcomes if outcome.done]
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if not outcome.done:
            reasons.setdefault(outcome.reason, []).append(outcome.id)
    # The most frequent first: a dropped flag has the same reason as all others, and could not be asked for again.
    left = sorted(reasons.items(), key=lambda each: -len(each[1]))
    if not outcomes:
        return "There was nothing to apply: no picture is flagged to be moved or deleted."
    deleted = sum(outcome.new == DELETED for outcome in done)
    moved = f"Moved {len(done) - deleted} to another label and {deleted} to the trash."
    again = ["Run 03, 04 and 05 again to train on what is left and compare."] if done else []
    told = [f"{_few(ids)} {'was' if len(ids) == 1 else 'were'} left: {reason}." for reason, ids in left[:TOLD]]
    more = sum(len(ids) for _, ids in left[TOLD:])
    rest = [f"{more} more left: Ledger(project).apply() tries again, and returns each with its reason."] if more else []
    return " ".join([moved, *told, *rest, *again])


def _few(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - TOLD} more" if len(ids) > TOLD else ""
    return ", ".join(ids[:TOLD]) + more


# --- pictures and probabilities from a project or a learner ------------------------------------------------------


def project_pictures(project: Project) -> list[Picture]:
    """Return the N pictures of a project, sorted by id, with label and side."""
    split = project.split()
    return [
        Picture(id, path, path.parent.name, split[id][1].capitalize() if id in split else "")
        for id, path in project.pictures().items()
    ]


def web_pages(project: Project) -> dict[str, str]:
    """Return id → the web page a picture came from, for those that came from one."""
    pages: dict[str, str] = {}
    for row in each_row(project.table("sources"), SOURCES_COLUMNS):
        if row["id"] and web_host(row["page_url"]):
            pages.setdefault(row["id"], row["page_url"])
    return pages


def original(project: Project, picture: Picture) -> Path:
    """Return the file that a picture was made from, in raw/; its training copy where there is none."""
    labels = sorted(project.labels, key=lambda label: label != picture.label)  # most often under its own
    for label in labels:
        for path in sorted((project.raw / label).glob(f"{glob.escape(picture.key)}.*")):
            if path.stem == picture.key:  # and not of another picture whose name goes on after a dot
                return path
    return picture.path


def learner_pictures(learn) -> list[Picture]:
    """
    Return the N pictures a fastai learner holds, training side first; its items may be paths or DataFrame rows.

    Raises
    ------
    FieldguideError
        If it holds none, as one from load_learner, or an item leads to no file.
    """
    pictures = []
    for number, loader in enumerate(learn.dls.loaders):
        inputs, targets = loader.dataset.tls[:2]
        rows = getattr(inputs.items, "iloc", inputs.items)
        for n in range(len(inputs.items)):
            path = _path_of(rows[n], inputs.tfms.fs)
            pictures.append(Picture(str(path), path, str(learn.dls.vocab[int(targets[n])]), SIDES[min(number, 2)]))
    if not pictures:
        raise FieldguideError(
            "This learner holds no pictures: load_learner brings the model only. Name the project as well: "
            "ImageClassifierCleaner(learn, project=project)."
        )
    return pictures


def _path_of(item, transforms: Iterable) -> Path:
    """Follow a learner's own transforms from an item, such as a DataFrame row, until they give a path."""
    for transform in transforms:
        if isinstance(item, str | os.PathLike):
            break
        item = transform(item)
    if not isinstance(item, str | os.PathLike):
        raise FieldguideError(
            f"This learner's items lead to {type(item).__name__}, not to files; only files can be cleaned."
        )
    return Path(item)


def learner_probs(learn, paths: Sequence[Path], labels: Sequence[str]) -> np.ndarray:
    """
    Return a learner's probabilities for N pictures, columns as `labels`; shape (N, K), rows of unreadable ones NaN.

    The pictures go through the validation transforms: through the training ones each call would give other losses.

    Raises
    ------
    FieldguideError
        If the learner tells other labels apart than these.
    """
    vocab = [str(label) for label in learn.dls.vocab]
    if set(vocab) != set(labels):
        raise FieldguideError(
            f"The learner tells {', '.join(vocab[:10])} apart, the pictures are {', '.join(list(labels)[:10])}. "
            "Train again (04), or use the project the learner was made for."
        )
    probs = np.full((len(paths), len(vocab)), np.nan)
    readable = list(range(len(paths)))
    try:
        probs[readable] = _judge(learn, paths)
    except Exception:  # from Pillow, or from a loader's worker in another dress; only now each file is worth a look
        readable = [n for n in readable if not unreadable(paths[n])]
        if len(readable) == len(paths):
            raise
        if readable:
            probs[readable] = _judge(learn, [paths[n] for n in readable])
    return probs[:, [vocab.index(label) for label in labels]]


def _judge(learn, paths: Sequence[Path]) -> np.ndarray:
    with learn.no_bar():
        return learn.get_preds(dl=learn.dls.test_dl(list(paths)))[0].numpy()


def unreadable(path: Path) -> str:
    """Return why a picture cannot be read, "" where it can."""
    try:
        open_picture(path)
    except (PictureError, OSError) as error:
        return str(error)
    return ""
