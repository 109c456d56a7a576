"""
Stage 06: fastai's ImageClassifierCleaner, with flags that last and belong to pictures instead of places on screen.

Reads images/, split.csv and review.csv; writes review.csv the moment a flag is set, and has the ledger apply it. The
constructor and the calls are fastai's (fastai/vision/widgets.py); what is mended of it is told in the tests. What is
decided lives in `cleaning`; `grid` shows it.
"""

from collections.abc import Iterable, Sequence

from IPython.display import display

from utils.clean.grid import Grid
from utils.clean.session import Cleaning, Suspect, learner_pictures, learner_probs, project_pictures
from utils.errors import FieldguideError
from utils.ledger import DELETE, KEEP
from utils.project import Project


class ImageClassifierCleaner:
    """
    Look at pictures, worst first, and flag each to keep, to delete or to move to another label.

    Without a project it is used as fastai's: ``for idx in cleaner.delete(): cleaner.fns[idx].unlink()``. With one,
    flags are stored as they are set, and the Apply button has the ledger move the files.

    Parameters
    ----------
    learn : fastai Learner, optional
        Gives the probabilities where `probs` does not; without a project also the pictures.
    opts : sequence of str
        More labels to offer than those there are.
    height, width : int
        Pixels of a thumbnail.
    max_n : int
        Pictures a page.
    project : Project, optional
        Gives the pictures (as `project.pictures()` does, sorted by id), and takes the flags.
    probs : array of shape (N, K), optional
        Probabilities in [0, 1]: a row a picture of the project, a column a label, both sorted.
    order : sequence of positions, optional
        The suspects, worst first, shown across labels.
    suspects : sequence of `Suspect`, optional
        Lists of suspects with reasons, worst first within a list; as `utils.suspects` finds them.

    Attributes
    ----------
    fns : tuple of N Path
        The pictures at the start. It never changes, so that a position means one file, always.
    cleaning : Cleaning
        What is decided.
    widget : Grid
        What is shown.
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
        probs=None,
        order: Iterable[int] | None = None,
        suspects: Iterable[Suspect] | None = None,
    ):
        if learn is None and project is None:
            raise FieldguideError("There is nothing to clean: give a learner, or project=project.")
        for name, value in (("height", height), ("width", width), ("max_n", max_n)):
            if value < 1:
                raise FieldguideError(f"{name} = {value}: expected 1 or more.")
        if project and (unknown := sorted(set(opts) - set(project.labels))):
            raise FieldguideError(
                f"opts holds {unknown[0]!r}, no label of {project.name!r}. Add it to its [labels] first."
            )
        if taken := {KEEP, DELETE} & set(opts):
            raise FieldguideError(f"opts holds {min(taken)!r}, a word of the cleaner. Choose another name.")
        pictures = project_pictures(project) if project else learner_pictures(learn)
        labels = list(project.labels) if project else [str(label) for label in learn.dls.vocab]
        if probs is None and learn is not None and pictures:
            probs = learner_probs(learn, [picture.path for picture in pictures], labels)
        self.cleaning = Cleaning(pictures, labels, probs=probs, order=order, suspects=suspects, project=project)
        self.fns = self.cleaning.start
        page = {
            "labels": list(dict.fromkeys([*labels, *map(str, opts)])),
            "height": height,
            "width": width,
            "max_n": max_n,
        }
        self.widget = Grid(self.cleaning, **page)

    def _ipython_display_(self) -> None:
        display(self.widget)

    def delete(self) -> list[int]:
        """Return the positions in `fns` flagged to be deleted, in any notebook, of files still there."""
        return self.cleaning.deletions()

    def change(self) -> list[tuple[int, str]]:
        """Return (position in `fns`, new label) for each file still there that is flagged to move."""
        return self.cleaning.changes()
