"""
fastai's ImageClassifierCleaner, with flags that last and belong to pictures instead of places on screen.

The constructor and the calls are fastai's (fastai/vision/widgets.py); the tests tell what is mended of it. `session`
holds what is decided, `grid` shows it.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from IPython.display import display

from utils.clean.applying import RUN_AGAIN, summary
from utils.clean.grid import Grid
from utils.clean.layout import kept_layout, picture_layout
from utils.clean.learner import learner_pictures, learner_probs
from utils.clean.matrix import ConfusionMatrix
from utils.clean.picture_map import PictureMap
from utils.clean.session import Cleaning
from utils.clean.suspects import Suspect
from utils.dataset import Dataset, read_dataset
from utils.errors import FieldguideError
from utils.ledger import DELETE, KEEP
from utils.project import Project
from utils.words import counted


class ImageClassifierCleaner:
    """
    Look at pictures, worst first, and flag each to keep, to delete or to move to another label.

    Without a project it is used as fastai's: ``for idx in cleaner.delete(): cleaner.fns[idx].unlink()``. With one,
    a flag is stored when it is set. Files move only when a person presses Apply or calls `apply`.

    `fns` holds the N paths of the pictures at the start. It never changes, so that a position means one file, always.

    Parameters
    ----------
    learn, opts, height, width, max_n
        As fastai's: a learner, more labels to offer, pixels of a thumbnail, pictures per page. The learner gives the
        pictures if there is no project, and the probabilities if `probs` does not.
    project, dataset : Project and Dataset, optional
        Who takes the flags, and its pictures as they were read already.
    probs : array of shape (N, K), optional
        Probabilities in [0, 1]: one row per picture of the data set, one column per label of the project.
    features : array of shape (N, F), optional
        What a network sees in the pictures, as `picture_features` returns it. With it, what was not looked at yet is
        put into a new order as you decide, and the page says about how many wrong labels are left.
    suspects : iterable of `Suspect`, optional
        Lists of suspects with reasons, worst first within a list, as `find_suspects` returns them.
    note : str
        A sentence that stands above the pictures.
    """

    def __init__(
        self,
        learn=None,
        opts: Sequence[str] = (),
        height: int = 128,
        width: int = 256,
        max_n: int = 30,
        *,
        project: Project | None = None,
        dataset: Dataset | None = None,
        probs=None,
        features=None,
        suspects: Iterable[Suspect] | None = None,
        note: str = "",
    ):
        if project and dataset is None:
            dataset = read_dataset(project)
        if learn is None and dataset is None:
            raise FieldguideError("There is nothing to clean: give a learner, or project=project.")
        project = dataset.project if dataset is not None else None
        for name, value in (("height", height), ("width", width), ("max_n", max_n)):
            if value < 1:
                raise FieldguideError(f"{name} = {value}: expected 1 or more.")
        if project and (unknown := sorted(set(opts) - set(project.labels))):
            raise FieldguideError(
                f"opts holds {unknown[0]!r}, which is not a label of {project.name!r}. Add it to its [labels] first."
            )
        if taken := {KEEP, DELETE} & set(opts):
            raise FieldguideError(f"opts holds {min(taken)!r}, a word of the cleaner. Choose another name.")
        pictures = list(dataset) if project else learner_pictures(learn)
        labels = list(project.labels) if project else [str(label) for label in learn.dls.vocab]
        if probs is None and learn is not None and pictures:
            probs = learner_probs(learn, [picture.path for picture in pictures], labels)
        self.cleaning = Cleaning(pictures, labels, probs=probs, features=features, suspects=suspects, project=project)
        self.fns = self.cleaning.start
        offered = list(dict.fromkeys([*labels, *map(str, opts)]))
        self.widget = Grid(self.cleaning, labels=offered, height=height, width=width, max_n=max_n, note=note)
        self._map: PictureMap | None = None  # one for all cells and tabs

    def _ipython_display_(self) -> None:
        display(self.widget)

    def matrix(self) -> ConfusionMatrix:
        """Return the folders against the answers of `probs` as a matrix; its cells show their pictures in the grid."""
        if self.cleaning.probs is None:
            raise FieldguideError("There is no matrix without a model's answers: give the cleaner probs.")
        return ConfusionMatrix(self.widget)

    def map(self) -> PictureMap | str:
        """Return all pictures as points, alike ones together, to draw around what the grid shows; or why not."""
        if self.cleaning.alike is None:
            return "No map: this cleaner was given no features, so it does not know which pictures look alike."
        if self._map is None:
            features, project = self.cleaning.alike.features, self.cleaning.project
            ids = [picture.id for picture in self.cleaning.pictures]
            known = project and project.data / "features"
            self._map = PictureMap(
                self.widget, kept_layout(known, ids, features) if known else picture_layout(features)
            )
        return self._map

    def delete(self) -> list[int]:
        """Return the positions in `fns` flagged to be deleted, in any notebook, of files still there."""
        return [n for n, choice in self.cleaning.still_there() if choice == DELETE]

    def change(self) -> list[tuple[int, str]]:
        """Return (position in `fns`, new label) for each file still there that is flagged to move."""
        return [(n, choice) for n, choice in self.cleaning.still_there() if choice != DELETE]

    def planned(self) -> pd.DataFrame:
        """Return what Apply would move, one row per picture: its file, its label now, and where it would go."""
        with self.cleaning.lock:
            self.cleaning.look()
            moves = self.cleaning.pending()
            names, pictures = self.cleaning.names, self.cleaning.pictures
        rows = [(names[n], pictures[n].label, "trash" if to == DELETE else to) for n, to in moves]
        return pd.DataFrame(rows, columns=["picture", "from", "to"])

    def next_step(self) -> str:
        """Return whether to look at more pictures, and what there is to do now, in words."""
        advice = self.cleaning.live.advice() if self.cleaning.live else ""
        return " ".join(filter(None, [advice, self._next_move()]))

    def _next_move(self) -> str:
        if count := len(self.planned()):
            return f"{counted(count)} would move. Nothing moves until you press Apply ({count}) or run cleaner.apply()."
        if any(picture.path != path for picture, path in zip(self.cleaning.pictures, self.fns, strict=True)):
            return f"Pictures were moved. {RUN_AGAIN}"
        return "No picture is flagged to be moved or deleted, so there is nothing to apply."

    def apply(self) -> str:
        """Have the flagged files moved, and return what was done, in words."""
        return self.widget.tell(summary(self.cleaning.apply()))

    def take_back(self) -> str:
        """Have all files moved back that the last Apply moved, and return what was done, in words."""
        return self.widget.tell(summary(self.cleaning.take_back(), undone=True))
