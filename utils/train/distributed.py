"""
Stage 04, one training by several processes: what each takes of every batch, and how they learn as one.

Reads and writes nothing. A batch of the project file is divided among the processes; PyTorch's DistributedDataParallel
adds up what they learn. So `batch_size`, rates and epochs mean the same for one process and for many. fastai's own
DistributedDL needs a GPU, and repeats pictures where they cannot be divided evenly.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from fastai.callback.core import CancelBatchException
from fastai.data.core import TfmdDL
from fastai.torch_core import set_seed, to_detach
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.train.loaders import training_loss
from utils.train.plain import PlainCallback
from utils.train.processes import Group
from utils.words import counted

LEAST_AT_ONCE = 2  # pictures that a process needs at once: batch norm needs a variance, and one picture has none
Steps = list[list[np.ndarray]]  # step → process → positions of its pictures


def divided(order: Sequence[int], *, size: int, count: int, pieces: int = 1) -> Steps:
    """
    Divide N pictures into batches of up to `size`, and each batch among `count` processes, in `pieces` steps.

    Each picture stands there once. There is no small last batch: all batches differ by at most one picture, and so do
    the parts of a batch.

    >>> [[part.tolist() for part in step] for step in divided(range(9), size=5, count=2)]
    [[[0, 1, 2], [3, 4]], [[5, 6], [7, 8]]]
    """
    steps = []
    for batch in np.array_split(np.asarray(order), math.ceil(len(order) / size)):
        parts = np.array_split(batch, count * pieces)
        steps += [parts[n : n + count] for n in range(0, len(parts), count)]
    return steps


def in_turns(order: Sequence[int], *, size: int, count: int) -> Steps:
    """
    Deal batches of `size`, those of one process, to `count` processes in turn; at the end some may go without.

    >>> [[part.tolist() for part in step] for step in in_turns(range(5), size=2, count=2)]
    [[[0, 1], [2, 3]], [[4]]]
    """
    batches = [np.asarray(order[n : n + size]) for n in range(0, len(order), size)]
    return [batches[n : n + count] for n in range(0, len(batches), count)]


class PartsDL(TfmdDL):
    """A DataLoader of fastai that loads only what one process takes of each step."""

    @classmethod
    def of(cls, dl: TfmdDL, divide: Callable[[Sequence[int]], Steps], rank: int) -> "PartsDL":
        """Return a loader of the same pictures, in the order that `dl` would show them."""
        parts = dl.new(cls=cls)
        parts.rng, parts.divide, parts.rank = dl.rng, divide, rank
        parts.length = len(parts.own(divide(range(dl.n))))
        return parts

    def own(self, steps: Steps) -> list[np.ndarray]:
        """Return the parts of this process."""
        return [step[self.rank] for step in steps if self.rank < len(step)]

    def __len__(self) -> int:
        return self.length

    def get_idxs(self) -> Steps:
        """Return this epoch's steps; the order comes from a seed that all processes share."""
        self.steps = self.divide(super().get_idxs())
        return self.steps

    def sample(self):
        """Yield the parts that this loading process prepares."""
        return (part for n, part in enumerate(self.own(self.steps)) if n % self.num_workers == self.offs)

    def create_batches(self, samps):
        """Yield a batch for each part."""
        for part in samps:
            yield self.do_batch([self.do_item(int(n)) for n in part])

    def to_detach(self, b, cpu: bool = True, gather: bool = True):
        """Leave figures with their process: fastai would average over processes, however many pictures each judged."""
        return to_detach(b, cpu, gather=False)


class ShareBatches(PlainCallback):
    """
    Let each process learn from its part of every batch, and judge its share of the validation set.

    The loss of a part counts by its pictures, with ``class_weights`` by their weights, so that all parts together have
    the mean loss of the batch. Validation batches are those of one process, and each is judged once.
    """

    order = 5  # before MixedPrecision and fastai's Recorder

    def __init__(self, dataset: Dataset, group: Group, *, pieces: int = 1):
        self.group, self.pieces = group, pieces
        train, weight = dataset.on("train"), training_loss(dataset).func.weight
        self.weights = np.ones(len(train)) if weight is None else weight.numpy().astype(float)[np.array(train.codes)]

    def before_train(self):
        size, count, pieces = self.dl.bs, self.group.count, self.pieces
        divide = partial(divided, size=size, count=count, pieces=pieces)
        self.learn.dl = PartsDL.of(self.dl, divide, self.group.rank)

    def after_train(self):
        self.dls.train.rng = self.dl.rng  # has moved on by one epoch

    def before_validate(self):
        divide = partial(in_turns, size=self.dl.bs, count=self.group.count)
        self.learn.dl = PartsDL.of(self.dl, divide, self.group.rank)

    def after_loss(self):
        """Weigh the loss to learn from; the one to show, and to stop by, is that of all processes."""
        if not self.training:
            return
        first = self.iter - self.iter % self.pieces
        batch = [[self.weights[part].sum() for part in step] for step in self.dl.steps[first : first + self.pieces]]
        step = batch[self.iter % self.pieces]
        own = step[self.group.rank]
        self.learn.loss_grad = self.loss_grad * (own / np.sum(batch) * self.group.count)  # DDP takes the mean
        self.learn.loss = added(self.loss.detach().float() * (own / np.sum(step)), self.group)

    def before_step(self):
        if (self.iter + 1) % self.pieces:
            raise CancelBatchException  # the gradients of a batch's pieces add up

    def after_validate(self):
        for metric in (self.recorder.loss, *self.metrics):
            told = torch.tensor([float(metric.total), metric.count], dtype=torch.float64, device=self.dls.device)
            total, count = added(told, self.group).tolist()
            metric.total, metric.count = total, int(count)


class ShareGradients(PlainCallback):
    """
    Let the network learn in all processes as one, by PyTorch's DistributedDataParallel.

    Only the forward pass of a training batch goes through it; all else sees the network itself, and what is saved has
    the names of one process. On GPUs batch norm sees the whole batch; PyTorch has no such layer for processors.
    """

    order = 74  # after Resume

    def __init__(self, seed: int, group: Group, *, pieces: int = 1):
        self.seed, self.group, self.pieces, self.whole = seed, group, pieces, None

    def before_fit(self):
        if self.group.count > 1:
            if self.dls.device.type == "cuda":
                nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.bare, self.whole = self.model, DistributedDataParallel(self.model)

    def before_epoch(self):
        """Draw other random numbers in each process and epoch, the same whenever the training is begun again."""
        text = f"{self.seed}:{len(self.history.rows)}:{self.group.rank}"
        set_seed(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))

    def before_batch(self):
        if self.training and self.whole:
            self.whole.require_backward_grad_sync = (self.iter + 1) % self.pieces == 0  # once per batch is enough
            self.learn.model = self.whole

    def after_pred(self):
        if self.whole:
            self.learn.model = self.bare

    def before_validate(self):
        """Give all processes the batch norm figures of the first, as DistributedDataParallel does for each batch."""
        if self.whole:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, 0)

    def after_fit(self):
        self.whole = None


def added(value: torch.Tensor, group: Group) -> torch.Tensor:
    """Return the sum of a tensor over all processes."""
    value = value.as_subclass(torch.Tensor).clone()
    if group.count > 1:
        dist.all_reduce(value)
    return value


def require_enough(dataset: Dataset, group: Group, *, pieces: int = 1) -> None:
    """Refuse more processes, or pieces, than there are pictures in a batch."""
    pictures, size = len(dataset.on("train")), dataset.project.batch_size
    batch = pictures // max(1, math.ceil(pictures / size))  # the smallest one
    if batch // (group.count * pieces) < LEAST_AT_ONCE:
        told = f"{group.count} processes" + (f" with {pieces} pieces each" if pieces > 1 else "")
        most = f"{batch // LEAST_AT_ONCE}" + (" in all" if pieces > 1 else "")
        raise FieldguideError(
            f"{counted(pictures)} in batches of up to {size} are too few for {told}: each needs {LEAST_AT_ONCE} at a "
            f"time. Start at most {most}, or set a larger batch_size in the project file."
        )
