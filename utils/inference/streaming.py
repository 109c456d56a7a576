"""
Stage 08: pictures in, answers out, in their order: threads open pictures while the network works on others.

A classifier and a detector are both asked in this way; what they make of a picture is their own.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

from PIL import Image

from .given import ADDRESS, at_hand, file_state, is_path, readable, reason
from .onnx_file import cores
from .vetting import ModelError, in_one_line

BATCH_SIZE = 16  # pictures per step of the network; more gains nothing on a CPU, and takes more memory
DECODERS = 16  # at most so many threads open pictures while the network works
CHANGED = "the file changed while it was read"
ALONE_OPENED = threading.Lock()  # a PIL image may be given twice, and two threads must not decode it at once


class NoModel(ModelError, FileNotFoundError):
    """There is no model file at this path."""


def streamed(
    source: Iterator,
    batch_size: int,
    lanes: int,
    prepare: Callable,
    judge: Callable[[Sequence], Sequence],
    *,
    lent: int | None = None,
) -> Iterator:
    """
    Yield an answer for each picture of `source`, in their order, made as they are asked for.

    `prepare` makes of a picture what `judge` takes, or a text: the reason why it cannot. `judge` is given a batch of
    what was prepared, reasons among it, and returns as many answers. At most `lanes` batches are judged at once. If
    `source` itself fails, the pictures before are judged first, and then its exception is raised. `lent` is the number
    of processors, where they are fewer than the machine has.
    """
    threads = min(DECODERS, cores(lent))
    lanes = min(lanes, batch_size)  # who asks for small batches wants answers soon
    openers = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    judges = ThreadPoolExecutor(lanes, thread_name_prefix="pictures judged")
    in_memory: deque[Future] = deque()
    judged: deque[Future] = deque()
    failure = None
    try:
        while failure is None or judged:
            batch: list[Future] = []
            while len(batch) < batch_size and failure is None:
                try:
                    picture = next(source)
                except Exception as error:  # also StopIteration: the end is one reason of many to stop
                    failure = error
                    break
                picture = at_hand(picture)
                batch.append(openers.submit(prepare, picture))
                if not is_path(picture):
                    in_memory.append(batch[-1])
                if len(in_memory) > 2 * threads:  # a photo takes a hundred times the memory of its pixels here
                    in_memory.popleft().result()
            if batch:
                judged.append(judges.submit(lambda batch: judge([each.result() for each in batch]), batch))
            if judged and (len(judged) > lanes or failure is not None):
                yield from judged.popleft().result()
    finally:
        openers.shutdown(wait=True, cancel_futures=True)
        judges.shutdown(wait=True, cancel_futures=True)
    if not isinstance(failure, StopIteration):
        raise failure


def prepared(picture, bgr: bool, pixels: Callable):
    """Return what `pixels` makes of a picture, or the reason why it makes nothing."""
    before = file_state(picture)
    try:
        picture = readable(picture, bgr=bgr)
        with ALONE_OPENED if isinstance(picture, Image.Image) else nullcontext():
            made = pixels(picture)
        return made if file_state(picture) == before else CHANGED
    except Exception as error:  # decoders raise what they like on broken bytes; none of it may stop the others
        return reason(error) if file_state(picture) == before else CHANGED


def require_batch(batch_size: int) -> None:
    """Refuse batches without a picture."""
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: a batch holds at least one picture.")


def model_path(path: str | os.PathLike) -> Path:
    """Return the path of a model's file, or say in a ModelError what else is there."""
    if ADDRESS.match(str(path)):
        raise ModelError(f"{path} is an address, not a file. Download the model, and name the file on this computer.")
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a model. Name the file in it, such as {path / 'model.onnx'}.")
    if not path.exists():
        raise NoModel(f"There is no model {path}. Make one with the notebooks 01 to 07, or name another file.")
    if not path.is_file():
        raise ModelError(f"{path} is not a regular file, so it is not a model.")
    return path


@contextmanager
def tried(path: Path, maker: str) -> Iterator[None]:
    """Try a model on drawn pictures in this block: a network that does not fit its file fails in ways of its own."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"{path} does not work: {in_one_line(error)}. It was not made by {maker}, or memory is short."
        ) from error
