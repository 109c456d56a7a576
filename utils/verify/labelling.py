"""
The grid in which photos get their first label: a head proposes one, Enter accepts it, a number corrects it.

A labelled photo moves at once from unsorted/ to raw/<label>/, which takes milliseconds. It is judged as all others when
the person pauses or leaves the list; until then a label can be changed and taken back. A kill leaves each photo in one
of the two folders, and the next run of 02 judges what was filed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from utils.clean import Cleaning, Grid, Outside, Proposals
from utils.errors import FieldguideError
from utils.ledger import KEEP
from utils.project import Project
from utils.storage import explained, locked, make_folder
from utils.verify.judging import verify_images
from utils.verify.verdicts import Tables
from utils.words import counted, share

UNLABELLED = "Without a label"
CERTAIN, UNCERTAIN = "Most certain first", "Least certain first"
NEEDED = "To have labels proposed, give about five photos of each label by its number."
JUDGED_SINCE = (
    "The photos that you labelled were judged since, so this does not take their labels back. To change one in the "
    "training set, press another number, or d to delete it, and then Apply."
)


class LabelGrid(Grid):
    """A grid whose list of photos without a label has proposals by `features` (N, F), or none with None."""

    ASKS = (*Grid.ASKS, "file", "settle")

    def __init__(self, cleaning: Cleaning, *, features: np.ndarray | None, **options):
        self._filed: dict[str, str] = {}  # id → label of the photos that were filed and not judged yet
        self._steps: list[dict[str, str | None]] = []  # id → label before, of what can be taken back
        self._judged = False  # whether anything was, here
        self._total = sum(told.list == UNLABELLED for told in cleaning.outside.values())
        self._labelled = 0
        self._proposals = None if features is None else Proposals(features)
        cleaning.sorts = [*cleaning.sorts, CERTAIN, UNCERTAIN]
        super().__init__(cleaning, **options)
        self._setup |= {"labelling": self._total > 0}
        self._learn()
        self._view = self._fitting(self._view)
        self._selected = self._select(self._view)

    def _fitting(self, view):
        """Return a view with an order that its list has."""
        ours = view.list == UNLABELLED
        if (view.sort in (CERTAIN, UNCERTAIN)) == ours or (ours and view.sort != self.cleaning.sorts[0]):
            return view
        return replace(view, sort=CERTAIN if ours else self.cleaning.sorts[0])

    def _select(self, view) -> list[int]:
        if view.sort not in (CERTAIN, UNCERTAIN):
            return super()._select(view)
        self._learn()
        return self._arranged(super()._select(replace(view, sort=self.cleaning.sorts[0])), view)

    def _arranged(self, positions: Sequence[int], view) -> list[int]:
        if view.list != UNLABELLED:
            return super()._arranged(positions, view)
        self._learn()
        ordered = self._proposals and view.sort in (CERTAIN, UNCERTAIN)
        return self._proposals.arranged(positions, certain=view.sort == CERTAIN) if ordered else list(positions)

    def _select_again(self) -> None:
        """Select what the view shows now; the photos that were shown keep their places, also once they are filed."""
        if self._view.list != UNLABELLED:
            return super()._select_again()
        seen = self._selected[: self._seen]
        before = set(seen)
        self._selected = seen + [n for n in self._select(self._view) if n not in before]

    def _learn(self, *, now: bool = True) -> None:
        """Have the head fitted to the labels of all pictures, with what was decided here."""
        if not self._proposals:
            return
        index, cleaning = {label: k for k, label in enumerate(self.cleaning.labels)}, self.cleaning
        said = [self._choice(picture.id) for picture in cleaning.pictures]
        labels = (
            one.label if flag in (None, KEEP) else flag for one, flag in zip(cleaning.pictures, said, strict=True)
        )
        self._proposals.learn(np.array([index.get(label, -1) for label in labels], dtype=int), now=now)

    def _page(self, request: Mapping) -> tuple[dict, list[bytes]]:
        told = "" if request.get("list") == UNLABELLED else self._judge()
        message, buffers = super()._page(request)
        return message | {"alert": " ".join(filter(None, [told, message["alert"]]))}, buffers

    def _file(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """File photos under the labels that were accepted or chosen for them."""
        sent = request.get("labels")
        labels = dict(zip(self._asked({"keys": list(sent)}), sent.values(), strict=True)) if type(sent) is dict else {}
        if not labels or not set(map(str, labels.values())) <= set(self.cleaning.labels):
            raise FieldguideError("A photo is filed under one of this project's labels. Nothing was stored.")
        if strange := [id for id in labels if not self._is_ours(id)]:
            raise FieldguideError(f"{strange[0]} is not without a label any more. Nothing was stored.")
        before = {id: self._filed.get(id) for id in labels}
        refused = self._put(labels)
        self._steps.append({id: label for id, label in before.items() if id not in refused})
        return self._after_filing(list(labels), refused)

    def _undo(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Take the labels back that were given last; those of photos that were judged since stay."""
        if self._view.list != UNLABELLED or not self._steps:
            try:
                return super()._undo(request)
            except FieldguideError as error:
                raise FieldguideError(
                    JUDGED_SINCE if self._judged and self._view.list == UNLABELLED else error
                ) from error
        step = self._steps.pop()
        message, buffers = self._after_filing(list(step), self._put(step))
        return message | {
            "undone": True,
            "alert": message["alert"] or f"Undone: {counted(len(step), 'label')}.",
        }, buffers

    def _put(self, labels: Mapping[str, str | None]) -> dict[str, str]:
        """File photos or, with None, put them back; return those that were refused, id → reason."""
        cleaning = self.cleaning
        names = {id: cleaning.start[cleaning.positions[id]].name for id in labels}
        moves = {name: (self._filed.get(id), labels[id]) for id, name in names.items()}
        refused = file_photos(cleaning.project, moves)
        for id, label in labels.items():
            if names[id] in refused:
                continue
            self._labelled += (label is not None) - (id in self._filed)
            n = cleaning.positions[id]
            cleaning.pictures[n] = replace(cleaning.pictures[n], path=_folder(cleaning.project, label) / names[id])
            if label is None:
                self._filed.pop(id, None)
            else:
                self._filed[id] = label
        self._learn(now=False)
        return {id: refused[name] for id, name in names.items() if name in refused}

    def _after_filing(self, ids: Sequence[str], refused: Mapping[str, str]) -> tuple[dict, list[bytes]]:
        """Return the labels of the page that is open, and what is proposed now for its other photos."""
        message, buffers = self._flags(ids, alert=" ".join(dict.fromkeys(refused.values())))
        shown = {n: self.cleaning.pictures[n].id for n in self._on_page(self._at)}
        proposed = {self._sent_ids[id]: self._proposed(n) for n, id in shown.items() if id not in self._filed}
        return message | {"proposals": proposed}, buffers

    def _settle(self, request: Mapping) -> tuple[dict, list[bytes]]:
        """Judge what was filed, and show the page with what became of it."""
        return self._show(self._judge())

    def _judge(self) -> str:
        """Have the photos that were filed judged as all others, and return what became of them."""
        if not self._filed:
            return ""
        told = judge_filed(self.cleaning.project, self._filed)
        self._filed, self._steps, self._judged = {}, [], True
        self.cleaning.files_moved()
        self._select_again()
        return told

    def _proposed(self, position: int) -> list[str] | None:
        """Return the label that is proposed for a picture and its probability in words, None without one."""
        if not self._proposals or self._proposals.label[position] < 0:
            return None
        label = self.cleaning.labels[self._proposals.label[position]]
        return [label, share(float(self._proposals.probability[position]))]

    def _is_ours(self, id: str) -> bool:
        told = self.cleaning.outside.get(id)
        return id in self._filed or bool(told and told.list == UNLABELLED)

    def _choice(self, id: str) -> str | None:
        return self._filed.get(id) or super()._choice(id)

    def _card(self, position: int) -> dict:
        card, id = super()._card(position), self.cleaning.pictures[position].id
        if not self._is_ours(id):
            return card
        return card | {
            "outside": asdict(Outside(UNLABELLED, "")),
            "unlabelled": True,
            "proposed": self._proposed(position),
        }

    def _show(self, alert: str = "") -> tuple[dict, list[bytes]]:
        message, buffers = super()._show(alert)
        waits = self._view.list == UNLABELLED and message["cards"] and not (self._proposals and self._any_proposed())
        return message | ({"alert": alert or NEEDED} if waits else {}), buffers

    def _any_proposed(self) -> bool:
        return bool((self._proposals.label >= 0).any())

    def _addressed(self, message: dict, request: Mapping) -> dict:
        message = super()._addressed(message, request) | {"unjudged": len(self._filed)}
        told = f"{self._labelled:,} of {counted(self._total, 'photo')} labelled"
        return message | ({"counts": told} if self._view.list == UNLABELLED else {})


def file_photos(project: Project, moves: Mapping[str, tuple[str | None, str | None]]) -> dict[str, str]:
    """
    Move photos from a label's folder of raw/ to another's; None stands for unsorted/.

    `moves` maps names of files to the label before and after. Return those that were left, name → reason: a photo that
    is gone, or was judged under its label meanwhile.
    """
    refused: dict[str, str] = {}
    with locked(project.data):
        again = any(before for before, _ in moves.values())
        tables = Tables(project) if again else None
        known = tables.settled | tables.accepted if tables else set()
        for name, (before, after) in moves.items():
            source, target = (_folder(project, label) / name for label in (before, after))
            if not source.is_file():
                refused[name] = f"{name} is not in {source.parent} any more: it was moved or deleted elsewhere."
            elif before and (source.stem, before) in known:
                refused[name] = f"{name} was judged under {before} meanwhile. Run the cell again to change it."
            else:
                make_folder(target.parent)
                with explained(target):
                    source.replace(target)  # of the same bytes, if there is one: both are named by their content
    return refused


def judge_filed(project: Project, filed: Mapping[str, str]) -> str:
    """Judge what was filed, id → label, as all other pictures are, and return what became of it in words."""
    verify_images(project)
    aside = {(row["id"], row["label"]): row["reason"] for row in Tables(project).standing()}
    left = [aside[each] for each in filed.items() if each in aside]
    told = f"{counted(len(filed) - len(left), 'photo')} came into the training set."
    reasons = list(dict.fromkeys(left))
    more = f", and {len(reasons) - 2} more reasons" if len(reasons) > 2 else ""
    return f"{told} {counted(len(left), 'photo')} set aside: {'; '.join(reasons[:2])}{more}." if left else told


def _folder(project: Project, label: str | None) -> Path:
    return project.unsorted if label is None else project.raw / label
