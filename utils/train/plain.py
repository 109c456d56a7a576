"""
Stage 04, what goes wrong: errors that a person can put right become one sentence instead of a traceback.

Reads pictures that may be spoilt; writes nothing. fastai has no event for an error, so `PlainErrors` runs its passes
inside `plain_errors`.
"""

import errno
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from fastai.vision.all import Callback, DataLoaders, Learner, PILImage

from utils.errors import FieldguideError
from utils.words import counted

JPEG_BEGINS, JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"
NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory|killed by signal: (Killed|Bus error)|shared memory"
    r"|STATUS_ALLOC_FAILED",  # CUDA's libraries, where torch itself had enough
    re.IGNORECASE,
)


class TrainingStopped(KeyboardInterrupt):
    """A person interrupted the training. "Run all" stops here, and a notebook shows the message alone."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback."""
        return [str(self)]


@contextmanager
def plain_errors(dls: DataLoaders, *, stopped: str = "Stopped. Run this cell again.") -> Iterator[None]:
    """Turn what goes wrong while fastai works with pictures, and a person can put right, into a sentence."""
    with spoilt_pictures_named(lambda: [*dls.train_ds.items, *dls.valid_ds.items]):
        try:
            yield
        except KeyboardInterrupt:
            raise TrainingStopped(stopped) from None
        except FieldguideError as error:  # raised in a callback: fastai puts words of its own before the sentence
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


class PlainCallback(Callback):
    """A callback that fails with one sentence."""

    def __call__(self, event_name: str):
        """Run an event as fastai does."""
        with plain_errors(self.dls, stopped=stopped_sentence(self.learn)):
            return super().__call__(event_name)


class PlainErrors(PlainCallback):
    """Fail with one sentence wherever fastai's loop fails, and where a loss is not a number."""

    order = 52  # after History

    def before_epoch(self):
        """Let the training pass run inside `plain_errors`."""
        self.learn.all_batches = partial(plain_batches, self.learn)

    after_train = before_epoch  # the validation pass, too

    def after_epoch(self):
        """Leave nothing behind in the learner."""
        vars(self.learn).pop("all_batches", None)

    def after_batch(self):
        """Stop where the loss is not a number: nothing can be learned from it."""
        if self.training and not torch.isfinite(self.loss):
            raise not_a_number(len(self.history.rows), self.opt.hypers[-1]["lr"])


def not_a_number(epoch: int, rate: float) -> FieldguideError:
    """Return what to say of a training that diverged."""
    return FieldguideError(
        f"The loss of epoch {epoch} is not a number (learning rate {rate:.1e}). Try a base_lr ten times smaller."
    )


def plain_batches(learn: Learner) -> None:
    """Run the learner's own ``all_batches`` inside `plain_errors`."""
    del learn.all_batches
    with plain_errors(learn.dls, stopped=stopped_sentence(learn)):
        learn.all_batches()


def stopped_sentence(learn: Learner) -> str:
    """Say what a person who interrupts the training has, and how it goes on."""
    done = learn.resume.saved if hasattr(learn, "resume") else 0
    if not done:
        return "Stopped. No epoch was done yet: run this cell again, and the training begins anew."
    return f"Stopped. Run this cell again, and the training goes on after epoch {done - 1}, the last that was done."


@contextmanager
def spoilt_pictures_named(pictures: Callable[[], Sequence[Path]]) -> Iterator[None]:
    """Where fastai fails on a picture, which it need not name, look for all that are gone or cannot be read."""
    try:
        yield
    except FieldguideError:
        raise
    except (OSError, SyntaxError) as error:  # what Pillow raises
        paths = pictures()
        if gone := [path for path in paths if not path.exists()]:
            raise FieldguideError(
                f"A picture was moved or deleted while 04 was training, {gone[0]}. Run 04 again."
            ) from error
        _require_readable(paths)
        raise


def require_whole(paths: Sequence[Path]) -> None:
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
        raise FieldguideError(
            f"{counted(len(spoilt))} cannot be read, {spoilt[0]} among them. Delete what cannot be read, or put a "
            "whole copy in its place, and run 04 again."
        )


def _opens(path: Path) -> bool:
    """Return whether fastai can open a picture."""
    try:
        PILImage.create(path)
    except (OSError, SyntaxError):
        return False
    return True
