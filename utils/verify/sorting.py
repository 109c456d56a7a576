"""
All pictures of stage 02 in one grid: the training set, what was set aside, the trash, and photos without a label.

The grid is that of 06; no model is needed. What is outside the training set comes into it at the press of a button.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from utils.clean import Cleaning, Ledger, Outside, Suspect
from utils.dataset import Dataset, Picture, read_dataset
from utils.errors import FieldguideError
from utils.features import picture_features
from utils.ledger import save_flags
from utils.project import Project
from utils.verify.byhand import take_back
from utils.verify.contradictions import Contradictions
from utils.verify.labelling import UNLABELLED, LabelGrid
from utils.verify.oddities import Oddities
from utils.verify.report import VerifyReport
from utils.verify.verdicts import Tables, kind, raw_files, trashed, unlabelled
from utils.words import counted, listed

TRASH, ASIDE = "In the trash", "Set aside"
TWICE, ODD = "One photo under two labels", "Not like the rest of their folder"
ON_PAGE, SIDE_SHOWN = 48, 150  # pictures, and pixels of the longer side


def picture_grid(
    project: Project,
    report: VerifyReport,
    *,
    oddities: Oddities,
    twice: Contradictions,
    propose: bool = True,
    note: str = "",
) -> LabelGrid:
    """
    Return the grid of a project's pictures, with a list for each thing that 02 found.

    A choice for a picture of the training set is stored at once, and carried out by Apply. A picture outside of it is
    brought in at once. With `propose` the packaged network looks at each photo without a label once, and a head
    proposes a label for it. `note` stands above the pictures.
    """
    dataset = read_dataset(project)
    cleaning = Cleaning(
        list(dataset),
        list(project.labels),
        suspects=list(_hints(dataset, report, oddities, twice)),
        project=project,
        outside=outside_pictures,
        bring=partial(bring_in, project),
    )
    first = [UNLABELLED, TWICE, ODD]  # in the menu; then the dubious, what was set aside, the trash
    names = sorted(cleaning.lists, key=lambda name: (name == TRASH, name.startswith(ASIDE), (*first, name).index(name)))
    cleaning.lists = {name: cleaning.lists[name] for name in names}
    size = {"height": SIDE_SHOWN, "width": SIDE_SHOWN, "max_n": ON_PAGE}
    features = seen_features(dataset, cleaning) if propose else None
    return LabelGrid(cleaning, labels=list(project.labels), features=features, note=note, **size)


def seen_features(dataset: Dataset, cleaning: Cleaning) -> np.ndarray | None:
    """Return features (N, F) of a grid's N pictures, NaN for what has a list of its own; None if all have a label."""
    places = [cleaning.positions[id] for id, told in cleaning.outside.items() if told.list == UNLABELLED]
    if not places:
        return None
    rows = sorted((cleaning.pictures[n] for n in places), key=lambda picture: picture.id)
    features = picture_features(dataset)
    found = np.full((len(cleaning.pictures), features.shape[1]), np.nan, dtype=np.float32)
    found[: len(features)] = features
    found[[cleaning.positions[row.id] for row in rows]] = picture_features(_loose(dataset, rows))
    return found


def _loose(dataset: Dataset, rows: Sequence[Picture]) -> Dataset:
    """Return pictures outside of a data set as one of their own."""
    columns = zip(*(vars(row).values() for row in rows), strict=True)
    return replace(dataset, **dict(zip(Dataset.COLUMNS, columns, strict=True)))


def outside_pictures(project: Project, dataset: Dataset) -> dict[str, tuple[Path, Outside]]:
    """Return id → file and what is told of each picture outside the training set, those without a label first."""
    waiting = {path.stem: (path, Outside(UNLABELLED, "")) for path in unlabelled(project)}
    aside: dict[str, tuple[Path, Outside]] = {}
    files = {(path.stem, path.parent.name): path for path in raw_files(project)}
    deleted = trashed(project, dataset)
    under: dict[str, list[Mapping[str, str]]] = {}
    for row in Tables(project).standing():
        if (row["id"], row["label"]) in files and row["id"] not in dataset and row["id"] not in deleted:
            under.setdefault(row["id"], []).append(row)
    for id, rows in under.items():
        labels = sorted({row["label"] for row in rows})
        reason = rows[0]["reason"].removeprefix(kind(rows[0]["reason"])).removeprefix(":").strip()
        told = " ".join(filter(None, [f"Came as {listed(labels)}.", reason]))
        action = "Take back" if len(labels) == 1 else ""
        aside[id] = files[id, labels[0]], Outside(f"{ASIDE}: {kind(rows[0]['reason'])}", told, action)
    trash = {
        id: (path, Outside(TRASH, f"Was {path.parent.name}.", "Restore"))
        for id, path in sorted(deleted.items())
        if path.parent.name in project.labels
    }
    aside = dict(sorted(aside.items(), key=lambda each: (each[1][1].list, each[0])))
    return {id: found for kinds in (waiting, aside, trash) for id, found in kinds.items()}


def bring_in(project: Project, ids: Sequence[str], label: str | None) -> str:
    """Bring pictures into the training set, under a label or, with None, their own; return what was done."""
    outside, told = outside_pictures(project, read_dataset(project)), []
    if strange := [id for id in ids if id not in outside]:
        raise FieldguideError(f"{strange[0]} is not outside the training set any more. Run the cell again.")
    kinds = (ASIDE, TRASH)
    of_kind = {name: [id for id in ids if outside[id][1].list.startswith(name)] for name in kinds}
    if label is None and (vague := [id for id in ids if not outside[id][1].action]):
        raise FieldguideError(f"Which label has {vague[0]}? Choose one for it.")
    if own := of_kind[ASIDE]:
        take_back(project, own, label=label)
        told.append(f"Took back {counted(len(own))}.")
    if own := of_kind[TRASH]:
        outcomes = Ledger(project).restore(own)
        if moves := [id for id in own if label not in (None, outside[id][0].parent.name)]:
            save_flags(project, dict.fromkeys(moves, label))
            Ledger(project).apply(only=moves)
        left = [outcome for outcome in outcomes if not outcome.done]
        told.append(f"Restored {counted(len(own) - len(left))}.")
        told += [f"{left[0].id} was left: {left[0].reason}."] if left else []
    return " ".join(told)


def _hints(dataset: Dataset, report: VerifyReport, oddities: Oddities, twice: Contradictions) -> Iterator[Suspect]:
    """Yield what 02 found that a person should look at, as entries of lists."""
    for photo in twice.photos:
        for picture in photo:
            others = [other.label for other in photo if other.label != picture.label]
            yield Suspect(dataset.position[picture.id], TWICE, f"also under {listed(sorted(set(others)))}", 0.0)
    for odd in oddities.found.values():
        for oddity in odd:
            yield Suspect(dataset.position[oddity.picture.id], ODD, oddity.reason, 0.0)
    for name, paths in report.dubious.items():
        for path in paths:
            if path.stem in dataset:
                yield Suspect(dataset.position[path.stem], name.capitalize(), name, 0.0)
