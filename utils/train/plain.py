"""
Stage 04, what goes wrong: errors that a person can put right become one sentence instead of a traceback.

Reads pictures that may be spoilt; writes nothing. fastai has no event for an error: `PlainErrors` takes its place.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from errno import ENOMEM
from functools import partial
from io import SEEK_END
from pathlib import Path

from fastai.vision.all import Callback, DataLoaders, Learner, PILImage

from utils.errors import FieldguideError
from utils.machine import keep_freed_memory
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
def plain_errors(
    dls: DataLoaders,
    *,
    stopped: str = "Stopped. Run this cell again.",
    notebook: str = "04",
    smaller: str = "Set a smaller size",
) -> Iterator[None]:
    """
    Turn what goes wrong while fastai works with pictures, and a person can put right, into a sentence.

    `notebook` is the one to run again; `smaller` what to do if memory runs out and batches are small.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise TrainingStopped(stopped) from None
    except FieldguideError as error:  # raised in a callback: fastai puts words of its own before the sentence
        told = str(error).rpartition("\n\t")[2].rpartition("FieldguideError: ")[2]  # of a process that loads pictures
        raise FieldguideError(told.strip()) from error
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == ENOMEM or NO_MEMORY.search(str(error)):
            size = dls.train.bs
            advice = f"Set batch_size = {size // 2}" if size >= 4 else smaller
            raise FieldguideError(
                f"Memory ran out with batch_size = {size}. {advice} in the project file, restart the kernel and run "
                f"{notebook} again."
            ) from error
        if isinstance(error, OSError | SyntaxError):  # what Pillow raises; fastai need not name the picture
            require_readable([*dls.train_ds.items, *dls.valid_ds.items], fully=True)
        raise


def require_readable(paths: Sequence[Path], *, fully: bool = False) -> None:
    """Refuse pictures that are gone or unreadable. A JPEG with beginning and end is believed, unless read `fully`."""
    if gone := [path for path in paths if not path.exists()]:
        raise FieldguideError(f"A picture was moved or deleted while 04 was training, {gone[0]}. Run 04 again.")
    if spoilt := [path for path in paths if (fully or not _looks_whole(path)) and not _opens(path)]:
        raise FieldguideError(
            f"{counted(len(spoilt))} cannot be read, {spoilt[0]} among them. Delete what cannot be read, or put a "
            "whole copy in its place, and run 04 again."
        )


def _looks_whole(path: Path) -> bool:
    """Return whether a file begins and ends as a JPEG does: found out a hundred times as quickly as by reading it."""
    with path.open("rb") as file:
        begins = file.read(2) == JPEG_BEGINS
        file.seek(max(0, file.seek(0, SEEK_END) - len(JPEG_ENDS)))
        return begins and file.read() == JPEG_ENDS


def _opens(path: Path) -> bool:
    """Return whether fastai can open a picture."""
    try:
        PILImage.create(path)
    except (OSError, SyntaxError):
        return False
    return True


class PlainCallback(Callback):
    """A callback that fails with one sentence."""

    def __call__(self, event_name: str):
        """Run an event as fastai does."""
        with plain_errors(self.dls, stopped=stopped_sentence(self.learn)):
            return super().__call__(event_name)


class PlainErrors(PlainCallback):
    """Let fastai's passes run inside `plain_errors`."""

    order = 52  # after History

    def before_epoch(self):
        self.learn.all_batches = partial(batches_told_plainly, self.learn, self._told)

    after_train = before_epoch  # for the validation pass

    def after_epoch(self):
        vars(self.learn).pop("all_batches", None)

    def _told(self) -> AbstractContextManager:
        return plain_errors(self.dls, stopped=stopped_sentence(self.learn))


def batches_told_plainly(learn: Learner, told: Callable[[], AbstractContextManager]) -> None:
    """
    Run the learner's own ``all_batches``, and tell in a sentence what a person can put right.

    `told` makes a context of `plain_errors`. Memory that a training keeps is given back if this fails, or is stopped:
    fastai calls no ``after_fit`` then.
    """
    del learn.all_batches
    try:
        with told():
            learn.all_batches()
    except BaseException:
        keep_freed_memory(False)
        raise


def stopped_sentence(learn: Learner) -> str:
    """Say what a person who interrupts the training has, and how it goes on."""
    done = learn.resume.saved if hasattr(learn, "resume") else 0
    if not done:
        return "Stopped. No epoch was done yet: run this cell again, and the training begins anew."
    return f"Stopped. Run this cell again, and the training goes on after epoch {done - 1}, the last that was done."
