"""
Stage 04, several processes: how those that ``torchrun`` started find each other, agree, and end together.

Reads what torchrun says in the environment; writes nothing. One process alone is a group of one, and needs no network.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from fastai.torch_core import default_device

from utils.errors import FieldguideError
from utils.machine import usable_cores

NO_ANSWER = timedelta(minutes=10)  # for a process that does not answer while all train
PREPARING = timedelta(days=1)  # the first process may compute features of a million pictures; one that dies is noticed
LOST_CONTACT = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed? ?out|timeout|remote process", re.IGNORECASE
)
IN_USE = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
Answer = TypeVar("Answer")


class SharedError(FieldguideError):
    """An error that all processes know; the first one says it."""


@dataclass(frozen=True)
class Group:
    """The processes of one training, and which of them this one is."""

    rank: int = 0  # of this process, from 0
    count: int = 1
    waiting: dist.ProcessGroup | None = None  # the same processes, more patient with each other

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def gather(self, value) -> list:
        """Return what each process gives, in the order of their ranks; all wait for each other."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value, group=self.waiting)
        return values

    def each(self, work: Callable[[], Answer]) -> Answer:
        """
        Return what `work` returns, done by the first process before all others: they find what it downloaded or wrote.

        Where it fails in one process, all raise its sentence as a SharedError.
        """
        answer = told = None
        for turn in (True, False):
            if self.first is turn:
                try:
                    answer = work()
                except FieldguideError as error:
                    told = str(error)
            failed = [(rank, text) for rank, text in enumerate(self.gather(told)) if text]
            if failed:
                rank, text = failed[0]
                raise SharedError(f"Process {rank} of {self.count}: {text}" if rank else text)
            if self.count == 1:
                break
        return answer

    def require_same(self, facts: Mapping[str, object]) -> None:
        """Raise a SharedError that names the first of `facts` in which a process differs from the first one."""
        all_facts = self.gather(dict(facts))
        for rank, theirs in enumerate(all_facts):
            for name, value in all_facts[0].items():
                if theirs[name] != value:
                    raise SharedError(
                        f"Process {rank} of {self.count} has {name} = {theirs[name]!r}, process 0 has {value!r}. Every "
                        "machine needs the same project file, the same pictures and split, and the same models folder."
                    )


def processes_here() -> int:
    """Return how many processes of this training share this machine; torchrun says so."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[Group]:
    """
    Join the processes that torchrun started, each with its share of the cores, or with a GPU of its own.

    Raises FieldguideError if they cannot meet, if there are fewer GPUs than processes, and if another process ended or
    does not answer: the one that is left must not wait for ever.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Group()
        return
    group = Group(int(os.environ["RANK"]), count)
    torch.set_num_threads(max(1, usable_cores() // processes_here()))
    try:
        dist.init_process_group("nccl" if _take_gpu() else "gloo", timeout=NO_ANSWER)
        yield replace(group, waiting=dist.new_group(backend="gloo", timeout=PREPARING))
    except RuntimeError as error:
        raise _connection_error(error, group) from error
    dist.destroy_process_group()


def _take_gpu() -> bool:
    """Take the GPU of this process, or tell fastai to use the processor where the machine has none."""
    gpus = torch.cuda.device_count()
    if not gpus:
        default_device(False)
        return False
    if processes_here() > gpus:
        raise FieldguideError(
            f"{processes_here()} processes and {gpus} GPU{'s' * (gpus > 1)}: start {gpus} here. To train on the "
            "processors, set CUDA_VISIBLE_DEVICES= (to nothing) before the command."
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return True


def _connection_error(error: RuntimeError, group: Group) -> Exception:
    """Return what to say where the connection to another process is the trouble, else the error itself."""
    told, minutes = str(error), NO_ANSWER.seconds // 60
    if IN_USE.search(told):
        port = os.environ.get("MASTER_PORT", "")
        return FieldguideError(
            f"Port {port} is in use, perhaps by another training. Start torchrun with --standalone, or with another "
            "--master-port."
        )
    if "clients joined" in told:
        return FieldguideError(
            f"Not all of the {group.count} processes came within {minutes} minutes. Is the same command running on "
            "every machine, and can they reach the first one?"
        )
    if isinstance(error, dist.DistError) or LOST_CONTACT.search(told):
        return FieldguideError(
            f"Process {group.rank} of {group.count} stops, because another one ended or did not answer for "
            f"{minutes} minutes. What that one said is above or on its machine. Start the same command "
            "again: the training goes on after the last epoch that was done."
        )
    return error
