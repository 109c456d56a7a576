"""
Stage 04: fine-tune a pretrained network on the train side, keeping the best epoch by the valid side.

Reads images/ and split.csv; writes the round, through `checkpoint`. fastai does the work; this module adds what it
lacks: the split that split.csv decided, one best epoch over both phases of ``fine_tune`` (fastai forgets the frozen
phase's), a training that can be stopped and goes on, a seed that holds, and sentences where it ends in a traceback.
"""

import errno
import io
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from fastai.vision.all import (  # the course's import: it also gives Learner its fine_tune and no_bar
    Callback,
    CancelValidException,
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    DataLoaders,
    ImageBlock,
    IndexSplitter,
    Learner,
    Normalize,
    PILImage,
    RandomResizedCrop,
    TerminateOnNaNCallback,
    accuracy,
    imagenet_stats,
    no_random,
    parent_label,
    vision_learner,
)
from IPython.display import Image as InlineImage
from IPython.display import display

from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import remove_leftovers, require_writable
from utils.tables import REJECTED_COLUMNS, read_rows
from utils.train.augment import augmentation
from utils.train.checkpoint import (
    BrokenState,
    TrainingRecord,
    broken_state,
    goes_on,
    is_current,
    load_weights,
    read_checkpoint,
    read_state,
    remove_state,
    save_state,
    save_training,
)
from utils.train.curves import training_curve
from utils.train.device import speed_callbacks, worker_count
from utils.train.networks import architecture, download_weights
from utils.train.schedule import fit_phases, learning_rates

MIN_SCALE = 0.6  # a crop shows at least this share of the picture's area: the animal is often small in it
LEAST_TO_LEARN = 2  # pictures of a label: from one alone a network learns that picture
JPEG_BEGINS, JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"
# The weights before `fine_tune`. As an attribute of the learner they would stand in what learn.export() writes.
STARTS: WeakKeyDictionary[Learner, dict[str, torch.Tensor]] = WeakKeyDictionary()
NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory|killed by signal: (Killed|Bus error)|shared memory"
    r"|STATUS_ALLOC_FAILED",  # CUDA's libraries, where torch itself had enough
    re.IGNORECASE,
)


def image_block(project: Project) -> DataBlock:
    """Return the DataBlock that 04 shows: the one way pictures become batches."""
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(project.labels))),
        get_y=parent_label,
        item_tfms=RandomResizedCrop(project.size, min_scale=MIN_SCALE),
        batch_tfms=[*augmentation(project), Normalize.from_stats(*imagenet_stats)],
    )


def image_dataloaders(
    project: Project, block: DataBlock | None = None, *, sides: Mapping[str, str] | None = None
) -> DataLoaders:
    """
    Return fastai's DataLoaders with the train and valid sides that split.csv decided.

    Parameters
    ----------
    project : Project
    block : DataBlock, optional
        How a picture becomes a batch; by default `image_block`. Its splitter is replaced.
    sides : mapping of id to side, optional
        Other sides than split.csv's, for cross-validation.

    Raises
    ------
    FieldguideError
        If 03 has not run, a side is empty, a picture has no side yet or cannot be read, or a label has nothing to
        learn from.
    """
    fingerprint = project.fingerprint()
    pictures = project.pictures()
    decided = sides is None
    if decided:
        sides = project.sides()
        bridges = {
            row["id"] for row in read_rows(project.table("rejected"), REJECTED_COLUMNS) if row["stage"] == "split"
        }
        if sides and (new := sorted(set(pictures) - set(sides) - bridges)):
            raise FieldguideError(f"{len(new)} pictures have no side yet, {new[0]} among them. Run 03 first.")
    items = {side: [path for id, path in pictures.items() if sides.get(id) == side] for side in ("train", "valid")}
    for side, paths in items.items():
        if not paths:
            raise FieldguideError(f"No picture stands on the {side} side of {project.name!r}. Run 02 and 03 first.")
    if decided:
        _require_every_label(project, items["train"])
    block = block or image_block(project)
    paths = items["train"] + items["valid"]
    # In place: a copied DataBlock goes on loading through the original, whose splitter is random.
    block.splitter = IndexSplitter(range(len(items["train"]), len(paths)))
    with no_random(project.seed), spoilt_pictures_named(paths):
        _require_whole(paths)
        dls = block.dataloaders(
            paths,
            path=project.models,
            bs=min(project.batch_size, len(items["train"])),
            num_workers=worker_count(),
        )
    dls.fingerprint = fingerprint
    return dls


def _require_every_label(project: Project, paths: Sequence[Path]) -> None:
    """Refuse to train where a label has too few training pictures to be learned."""
    counts = Counter(path.parent.name for path in paths)
    if few := [label for label in project.labels if counts[label] < LEAST_TO_LEARN]:
        raise FieldguideError(
            f"Nothing can be learned of {', '.join(f'{label} ({counts[label]} on the train side)' for label in few)}: "
            f"{LEAST_TO_LEARN} pictures are the least. Gather more (01 to 03), put back what was taken out (06), or "
            "take the label out of the project file."
        )


def training_loss(project: Project, dls: DataLoaders) -> CrossEntropyLossFlat:
    """
    Return fastai's cross-entropy; with ``class_weights`` a picture of a rare label counts for more.

    A label of n of the N training pictures has the weight N / (K · n). Validation losses, by which the best epoch is
    chosen, are weighted alike: the epoch that is kept is good for the rare labels, too.
    """
    if not project.class_weights:
        return CrossEntropyLossFlat()
    counts = Counter(path.parent.name for path in dls.train_ds.items)
    share = len(dls.train_ds) / len(project.labels)
    return CrossEntropyLossFlat(weight=torch.tensor([share / max(1, counts[label]) for label in project.labels]))


def make_learner(
    project: Project, dls: DataLoaders, *, pretrained: bool, cbs: Sequence[Callback] = (), loss_func: object = None
) -> Learner:
    """Return 04's vision_learner with the project's seed behind every weight that is drawn."""
    options = {"loss_func": loss_func, "cbs": list(cbs), "metrics": accuracy}
    with no_random(project.seed):
        return vision_learner(dls, architecture(project), pretrained=pretrained, **options)


@contextmanager
def undisturbed(learn: Learner, *, seed: int = 42) -> Iterator[None]:
    """
    Let fastai's ``lr_find`` train for a moment, and leave everything that the training depends on as it was.

    fastai puts the weights back, unless it fails. Beside them, it leaves gradients behind; it uses up random numbers;
    it needs a folder; and it may fail after ``fine_tune``.
    """
    weights = _copied_weights(learn)
    loader = learn.dls.train
    before = learn.opt, learn.path, learn.model_dir, loader.rng
    with tempfile.TemporaryDirectory() as folder, no_random(seed), plain_errors(learn.dls):
        learn.opt, learn.path, learn.model_dir = None, Path(folder), "."
        loader.rng = random.Random(seed)
        try:
            yield
        finally:
            learn.opt, learn.path, learn.model_dir, loader.rng = before
            _put_back(learn, weights)


def _copied_weights(learn: Learner) -> dict[str, torch.Tensor]:
    """Return the network's weights as they are now, whatever becomes of them."""
    return {name: value.detach().clone() for name, value in learn.model.state_dict().items()}


def _put_back(learn: Learner, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the network these weights and no gradients: by those of zero, too, weight decay shrinks frozen layers."""
    learn.model.load_state_dict(weights)
    for parameter in learn.model.parameters():
        parameter.grad = None


@contextmanager
def plain_errors(dls: DataLoaders) -> Iterator[None]:
    """Turn what goes wrong while fastai works with pictures, and a person can put right, into a sentence."""
    with spoilt_pictures_named([*dls.train_ds.items, *dls.valid_ds.items]):
        try:
            yield
        except FieldguideError as error:  # from a callback, where fastai sets words of its own before it
            raise FieldguideError(str(error).rpartition("\n\t")[2]) from error
        except Exception as error:
            full = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
            if not full and not NO_MEMORY.search(str(error)):
                raise
            size = dls.train.bs
            advice = f"Set batch_size = {size // 2}" if size >= 4 else "Set a smaller size"
            raise FieldguideError(
                f"Memory ran out with batch_size = {size}. {advice} in the project file, restart the kernel and run "
                "04 again."
            ) from error


@contextmanager
def spoilt_pictures_named(paths: Sequence[Path]) -> Iterator[None]:
    """Where fastai fails on a picture, which it need not name, look for all that are gone or cannot be read."""
    try:
        yield
    except FieldguideError:
        raise
    except (OSError, SyntaxError) as error:  # what Pillow raises
        if gone := [path for path in paths if not path.exists()]:
            raise FieldguideError(
                f"A picture was moved or deleted while 04 was training, {gone[0]}. Run 04 again."
            ) from error
        _require_readable(paths)
        raise


def _require_whole(paths: Sequence[Path]) -> None:
    """Refuse pictures that cannot be read; a JPEG with beginning and end is believed, a hundred times as quick."""
    _require_readable([path for path in paths if not _looks_whole(path)])


def _looks_whole(path: Path) -> bool:
    """Return whether a file begins and ends as a JPEG does."""
    with path.open("rb") as file:
        begins = file.read(2) == JPEG_BEGINS
        file.seek(max(0, file.seek(0, io.SEEK_END) - len(JPEG_ENDS)))
        return begins and file.read() == JPEG_ENDS


def _require_readable(paths: Sequence[Path]) -> None:
    """Refuse pictures that fastai cannot open, with their number and one of them."""
    if spoilt := [path for path in paths if not _opens(path)]:
        count = f"{len(spoilt)} pictures" if len(spoilt) > 1 else "1 picture"
        raise FieldguideError(
            f"{count} cannot be read, {spoilt[0]} among them. Delete what cannot be read, or put a whole copy in its "
            "place, and run 04 again."
        )


def _opens(path: Path) -> bool:
    """Return whether fastai can open a picture."""
    try:
        PILImage.create(path)
    except (OSError, SyntaxError):
        return False
    return True


def fine_tune(
    learn: Learner,
    epochs: int,
    *,
    base_lr: float = 2e-3,
    lr_mult: float = 100,
    schedule: str = "one-cycle",
    patience: int = 0,
    seed: int = 42,
    project: Project | None = None,
) -> pd.DataFrame:
    """
    Run fastai's ``learn.fine_tune`` and end with the best epoch of both its phases.

    One frozen epoch trains the head, then `epochs` train all layers. The epoch with the lowest validation loss,
    frozen one included, is what `learn` holds afterwards. On few validation pictures that choice is noisy. Called
    again, it begins with the weights that `learn` had at first: a cell that was run twice gives the same figures.

    Parameters
    ----------
    learn : Learner with the metric ``accuracy``
    epochs : int
        Epochs after the frozen one.
    base_lr, lr_mult : float
        As in fastai: the head's learning rate, and how many times slower the first layers learn.
    schedule : str
        "one-cycle" is ``learn.fine_tune`` itself; see `schedule.whole_phase` for "cyclic" and "smooth".
    patience : int
        Stop after so many epochs without a lower validation loss; 0 never does.
    seed : int
        The same seed on the same machine gives the same batches, augmentations and figures.
    project : Project, optional
        Where to save learner.pth, history.csv and training.png. If the round saved there is current, it is
        loaded and nothing is trained; if this training was stopped there, it goes on after its last epoch.

    Returns
    -------
    DataFrame
        A row an epoch, with the columns of history.csv; losses are cross-entropies, accuracy a fraction.

    Raises
    ------
    FieldguideError
        If a loss is no number, memory runs out, a picture disappears or cannot be read, or a file of an earlier run
        is broken.
    """
    recipe = training_recipe(
        learn, epochs=epochs, base_lr=base_lr, lr_mult=lr_mult, seed=seed, schedule=schedule, patience=patience
    )
    kept = save = None
    if project is not None:
        checkpoint = read_checkpoint(project)
        if is_current(project, checkpoint) and checkpoint["recipe"] == recipe:
            return loaded_round(project, learn, checkpoint)
        require_writable(project.models)  # better said now than after an hour of training
        remove_leftovers(project.models)
        kept = read_state(project, learn, recipe)
        save = partial(save_state, project, learn, recipe=recipe)
    title = f"The training was stopped and {goes_on(kept, epochs)}" if kept else ""
    record = TrainingRecord(kept=kept, save=save, patience=patience, title=title)
    cbs = [TerminateOnNaNCallback(), record]
    _put_back(learn, STARTS.setdefault(learn, _copied_weights(learn)))
    with no_random(seed), plain_errors(learn.dls):
        learn.dls.train.rng = random.Random(seed)  # its own generator was seeded when the loader was made
        try:
            fit_phases(learn, epochs, schedule=schedule, base_lr=base_lr, lr_mult=lr_mult, cbs=cbs)
        except BrokenState as error:
            raise broken_state(project) from error
    if len(record.rows) <= epochs and not record.has_waited():
        raise FieldguideError(
            f"The loss of epoch {len(record.rows)} is no number (learning rate {base_lr}). Try a base_lr ten times "
            "smaller."
        )
    learn.model.load_state_dict(record.best)
    if project is not None:
        save_training(project, learn, record, recipe)
    return pd.DataFrame(record.rows)


def training_recipe(learn: Learner, **options) -> dict[str, str]:
    """Return as text what a training depends on beside the project: options of `fine_tune`, transforms, weights."""
    loader = learn.dls.train
    steps = [*loader.after_item.fs, *loader.after_batch.fs]
    recipe = {name: str(value) for name, value in options.items() if LATER_OPTIONS.get(name) != value}
    recipe |= {"transforms": "; ".join(map(str, steps))}
    weight = getattr(getattr(learn.loss_func, "func", learn.loss_func), "weight", None)
    return recipe if weight is None else recipe | {"weight": str(weight.tolist())}


# Left out of a recipe as long as they are the default, so that rounds trained before there were such still stand.
LATER_OPTIONS = {"schedule": "one-cycle", "patience": 0}


def loaded_round(project: Project, learn: Learner, checkpoint: dict) -> pd.DataFrame:
    """Load a round that stands into the learner, show its curve, and return its history."""
    load_weights(project, learn, checkpoint)
    remove_state(project)
    rates = checkpoint.get("rates")  # rounds trained before there was a third curve have none
    display(InlineImage(training_curve(checkpoint["history"], None if rates is None else rates.numpy())))
    return pd.DataFrame(checkpoint["history"])


class NoValidation(Callback):
    """Skip the validation after each epoch: a fold is judged once, when it is trained."""

    order = 5  # before anything is set up for the pass

    def before_validate(self):
        """Leave before the first batch."""
        raise CancelValidException


def load_trained(project: Project) -> Learner:
    """
    Return the learner that 04 trained, with the DataLoaders of today's sides.

    Raises
    ------
    FieldguideError
        If there is none, or labels, split or settings changed since.
    """
    learn = make_learner(project, image_dataloaders(project), pretrained=False)
    checkpoint = read_checkpoint(project)
    load_weights(project, learn, checkpoint)
    if not is_current(project, checkpoint):
        raise FieldguideError("Labels, split or settings changed since the model was trained. Run 04 again.")
    return learn


def train_fold(project: Project, sides: Mapping[str, str]) -> Learner:
    """Return a learner of the same recipe as 04's, trained on other sides; shows and saves nothing."""
    dls = image_dataloaders(project, sides=sides)
    how = {"cbs": speed_callbacks(dls), "loss_func": training_loss(project, dls)}
    learn = make_learner(project, dls, pretrained=download_weights(project), **how)
    with learn.no_bar(), learn.no_logging(), no_random(project.seed), plain_errors(dls):
        dls.train.rng = random.Random(project.seed)
        rates = learning_rates(project)
        fit_phases(learn, project.epochs, schedule=project.schedule, **rates, cbs=[NoValidation()])
    return learn
