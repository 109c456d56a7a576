"""
The command line: train as 04 does, alone or by several processes.

    python -m utils.train
    torchrun --standalone --nproc-per-node 2 -m utils.train

Takes the project that PROJECT names, after 03. Writes what 04 writes, and goes on where a training stopped. Exit codes:
0 when the model is trained, or stands; 1 if it can't be; 130 after Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence

from fastai.vision.all import Learner, ProgressCallback, noop

from utils.averaging import networks_of
from utils.dataset import Dataset, read_dataset
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import written
from utils.train.callbacks import training_callbacks
from utils.train.checkpoint import training_status
from utils.train.curves import overfitting_sentence
from utils.train.device import device_sentence
from utils.train.distributed import require_enough
from utils.train.processes import Group, SharedError, process_group
from utils.train.quick import keep_quick_model, quick_model
from utils.train.recipe import learner_as_04
from utils.train.schedule import learning_rates

OF_THE_MACHINE = {"data_dir", "models_dir", "source", "mask_source", "weights"}  # paths, which may differ


def train_project(arguments: Sequence[str] | None = None) -> int:
    """Train the project's networks and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.train", description="Train as 04 does.")
    parser.add_argument(
        "--pieces",
        type=int,
        default=1,
        metavar="N",
        help="take each process's part of a batch in N pieces, one after another, where memory holds no more",
    )
    options = parser.parse_args(arguments)
    if options.pieces < 1:
        parser.error(f"--pieces {options.pieces}: write 1 or more")
    group = Group()
    try:
        with process_group() as group:
            dataset = group.each(lambda: checked_dataset(group, options.pieces))
            group.require_same(shared_facts(dataset))
            tell(group, training_status(dataset))
            learners = [train_network(each, group, options.pieces) for each in networks_of(dataset)]
            if dataset.project.train == "all":
                tell(group, overfitting_sentence(learners[0].record.history))
            tell(group, training_status(dataset))
            files = [dataset.project.models / name for name in ("history.csv", "training.png")]
            tell(group, written(*(each.network / "learner.pth" for each in dataset.project.networks), *files))
    except FieldguideError as error:
        if group.first or not isinstance(error, SharedError):
            print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt as stopped:
        tell(group, str(stopped).replace("this cell", "the same command") or "Stopped.")
        return 130
    return 0


def tell(group: Group, text: str) -> None:
    """Print a sentence, once for all processes."""
    if group.first:
        print(text, flush=True)


def checked_dataset(group: Group, pieces: int) -> Dataset:
    """Return the pictures of the project, or refuse what several processes cannot train."""
    dataset = read_dataset(Project.load())
    if group.count * pieces > 1 and dataset.project.train == "all":
        if dataset.project.cache != "none":
            raise FieldguideError(
                f'cache = "{dataset.project.cache}" keeps all pictures in the memory of each process. Set '
                'cache = "none" in the project file.'
            )
        require_enough(dataset, group, pieces=pieces)
    return dataset


def shared_facts(dataset: Dataset) -> dict[str, object]:
    """Return what must be the same in all processes: the project file, the pictures, and how far the training is."""
    settings = dataset.project.model_dump(mode="json", exclude=OF_THE_MACHINE)
    return settings | {"pictures and split": dataset.fingerprint, "state": training_status(dataset)}


def train_network(dataset: Dataset, group: Group, pieces: int) -> Learner:
    """Train one network as 04 does, and return its learner; what was trained before stands."""
    project, learn = dataset.project, group.each(lambda: learner_as_04(dataset))
    tell(group, device_sentence(learn.dls) + (f" {group.count} processes share each batch." if group.count > 1 else ""))
    if project.train == "head":
        if group.first:
            keep_quick_model(dataset, learn, quick_model(dataset))
        group.gather(None)
        return learn
    if not sys.stdout.isatty() or not group.first:  # a bar would fill a log with its steps
        learn.remove_cb(ProgressCallback)
        learn.logger = epoch_line if group.first else noop
    cbs = training_callbacks(dataset, group=group, pieces=pieces)
    learn.fine_tune(project.epochs, cbs=cbs, **learning_rates(project))
    group.gather(None)  # until the first has written the round
    return learn


def epoch_line(log: Sequence) -> None:
    """Print an epoch's figures, which fastai logs: its number, losses, accuracy and time."""
    epoch, train_loss, valid_loss, accuracy, *_, seconds = log
    losses = f"training loss {train_loss:.4f}, validation loss {valid_loss:.4f}"
    print(f"Epoch {epoch}: {losses}, accuracy {accuracy:.1%}, {seconds}.", flush=True)


if __name__ == "__main__":
    sys.exit(train_project())
