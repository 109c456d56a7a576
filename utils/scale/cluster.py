"""
Ray: a cluster of this machine or a running one, and blocks of the table judged on it.

Ray Data starts workers, hands them blocks and begins a block again when its worker dies. It keeps no order, so each row
carries its position.
"""

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import ray
from ray.data.exceptions import ExecutionTimeoutError, SystemException
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from utils.errors import FieldguideError
from utils.machine import usable_cores
from utils.project import REPOSITORY
from utils.scale.running import Halted
from utils.scale.work import Worker, shortly

START_TRIES = 3  # Ray waits 30 seconds for a part of itself, which is too short on a busy machine
REACHED_WITHIN = 5  # seconds
STALLED = 300  # seconds without an answer: workers wait for processors of a machine that is gone
RETRIES = 2  # of a block whose worker died; after that it comes back in smaller blocks
QUIET = {  # what Ray reads when it starts; what goes wrong comes back as data
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_TQDM_PATCH_PRINT": "0",  # else Ray's print takes the place of Python's, and learn.export() pickles that one
}
QUIETLY = {"log_to_driver": False, "logging_level": logging.CRITICAL}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a running cluster, or start one of this machine's processors that ends with the block."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address:
        _join(address)
    else:
        _start()
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False  # ours counts pictures
    settings.execution_no_progress_timeout_s = STALLED
    settings.max_errored_blocks = -1  # what is missing in the end is judged again
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _start() -> None:
    """Start a cluster of this machine alone."""
    for attempt in range(1, START_TRIES + 1):
        try:
            ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, **QUIETLY)
            return
        except Exception as error:  # Ray raises Exception itself where it waited in vain
            ray.shutdown()
            if attempt == START_TRIES:
                raise FieldguideError(
                    f"Ray did not start, {START_TRIES} times: {shortly(error)} It needs a machine that is not busy "
                    "with other work, and space in /tmp. Try again later."
                ) from error


def _join(address: str) -> None:
    """Connect to a cluster that runs already, and bring our own code along to its machines."""
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdecimal() and "/" not in address):
        raise FieldguideError(
            f"--address {address} is neither auto nor HOST:PORT. On a machine of the cluster, write --address auto."
        )
    if address != "auto":
        try:
            socket.create_connection((host, int(port)), timeout=REACHED_WITHIN).close()
        except (OSError, OverflowError) as error:
            raise FieldguideError(
                f"--address {address} does not answer: {shortly(error)}. See that the cluster runs there (ray start "
                "--head says its address), and that no firewall keeps this machine out."
            ) from error
    try:
        # The other machines may lack this repository; its libraries they must have.
        ray.init(address=address, runtime_env={"py_modules": [str(REPOSITORY / "utils")]}, **QUIETLY)
    except Exception as error:  # of a dozen kinds
        raise FieldguideError(
            f"--address {address}: there is no cluster to join ({shortly(error)}). Start one with ray start --head, "
            "join each machine to it, this one too, and use the same versions of Python and Ray on all; or leave out "
            "--address to use this machine alone."
        ) from error


def machine_sizes() -> list[int]:
    """Return how many processors each machine of the cluster lends."""
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def workers_for(sizes: Sequence[int], cores: int) -> int:
    """
    Return how many workers of so many cores to start on machines that lend so many processors.

    A whole processor of each machine stays free, for Ray's own reading and writing, and for the workers of a machine
    that dies. Where all have only one, one of them stays free.

    >>> workers_for([2, 2], 1), workers_for([16, 16], 4), workers_for([1, 1], 1), workers_for([1], 1)
    (2, 6, 1, 1)
    >>> workers_for([0, 4], 1)  # the first machine only hands out
    3
    """
    if max(sizes, default=0) < cores:
        raise FieldguideError(
            f"--cores {cores}: no machine of the cluster lends so many processors; the largest lends "
            f"{max(sizes, default=0)}. Ask for fewer."
        )
    beside = sum(max(0, size - 1) // cores for size in sizes)
    return beside or max(1, sum(size // cores for size in sizes) - 1)


class Actor(Worker):
    """A worker that takes its job out of Ray's memory."""

    def __init__(self, job: ray.ObjectRef, cores: int, seen: Sequence[str]):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # many workers share a machine, and Ray lent them none of its GPUs
        super().__init__(ray.get(job), cores, seen)


def answers_to(
    job: ray.ObjectRef, positions: np.ndarray, places: pa.Array, *, seen: Sequence[str], cores: int, block: int
) -> Iterator[pa.Table]:
    """
    Yield answers to pictures at these positions of the table, as they come, in blocks of at most so many.

    Blocks that came to nothing are missing without a word. Raises Halted where the cluster cannot go on.
    """
    table = pa.table({"row": positions, "place": places})
    # Unlike from_arrow, it starts no task per block to look at it.
    blocks = ray.data.from_blocks([table.slice(start, block) for start in range(0, len(table), block)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # it has no other way yet to limit the retries
        answers = blocks.map_batches(
            Actor,
            fn_constructor_args=(job, cores, seen),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers_for(machine_sizes(), cores)),
            num_cpus=cores,
            max_task_retries=RETRIES,
        )
    try:
        yield from answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except (RayError, ExecutionTimeoutError, SystemException) as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise Halted(shortly(last[0])) from error  # above the last line stands a traceback of some worker
