"""
Workers on a Ray cluster that fetch: each has several blocks in hand, and no host lies in two hands.

A worker that dies is replaced, and what it had in hand is handed out again. Rows come while a block is worked on.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from utils.errors import FieldguideError
from utils.scale.cluster import STALLED, connected, machine_sizes, workers_for
from utils.scale.dealing import HANDS, Deal, next_hand
from utils.scale.fetched import DEADLY, Collected, Fetching, records_of, take_answer, unanswered_rows
from utils.scale.work import shortly
from utils.words import counted

FALLS = 5  # deaths for each worker, in a row and without an answer between them; one address alone causes three


@ray.remote(max_restarts=0)
class Hand:
    """A worker on some machine."""

    def __init__(self, job: Fetching):
        self.job = job

    def refusal(self) -> str:
        """Return why this machine cannot do the work, or ""."""
        return self.job.refusal()

    @ray.method(num_returns="streaming")
    def answers(self, positions: list[int], records: list[dict]) -> Iterator[pa.Table]:
        """Yield answers to a block."""
        yield from self.job.answers(positions, records)


class Crew:
    """Workers, and what each has in hand."""

    def __init__(self, job: Fetching, count: int, cores: int):
        self._job, self._cores, self._most_falls = ray.put(job), cores, FALLS * count
        self._falls = 0  # since the last answer
        self._starting: dict = {}  # question whether it can work → worker
        self._workers: list = []
        self.blocks: dict = {}  # answers to come → worker, positions
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        worker = Hand.options(num_cpus=self._cores, max_concurrency=HANDS + 1).remote(self._job)
        self._starting[worker.refusal.remote()] = worker

    def hands(self) -> list[list[list[int]]]:
        """Return the blocks that each worker has in hand."""
        return [[block for each, block in self.blocks.values() if each is worker] for worker in self._workers]

    def hand(self, n: int, positions: list[int], records: list[dict]) -> None:
        """Give the worker with this number a block."""
        worker = self._workers[n]
        self.blocks[worker.answers.remote(positions, records)] = worker, positions

    def heard(self) -> Iterator[tuple[list[int], pa.Table | None, bool]]:
        """
        Wait until something happens, and yield it: a block's positions, an answer or None if none is left, and whether
        its worker died. Raises FieldguideError if a worker refuses, or none can go on.
        """
        ready, _ = ray.wait([*self.blocks, *self._starting], timeout=STALLED)
        if not ready:
            raise FieldguideError(
                f"Nothing came for {STALLED} seconds. What was fetched is kept. See with ray status which machines are "
                "left, and run this again."
            )
        for each in ready:
            if each in self._starting:
                self._began(each)
                continue
            worker, positions = self.blocks[each]
            try:
                answer = ray.get(next(each))
            except StopIteration:
                del self.blocks[each]
                yield positions, None, False
            except RayTaskError as error:
                raise _as_ours(error.cause) from error
            except RayError as error:
                del self.blocks[each]
                self._replace(worker, error)
                yield positions, None, True
            else:
                self._falls = 0
                yield positions, answer, False

    def _began(self, question) -> None:
        """Take in a worker that has started."""
        worker = self._starting.pop(question)
        self._workers.append(worker)
        try:
            refusal = ray.get(question)
        except RayError as error:
            self._replace(worker, error)
        else:
            if refusal:
                raise FieldguideError(refusal)

    def _replace(self, worker, error: RayError) -> None:
        """Start another in place of a worker that died; each of its blocks tells of it."""
        if not any(worker is each for each in self._workers):
            return
        self._workers = [each for each in self._workers if each is not worker]
        ray.kill(worker)  # where it only could not be reached, it must not go on asking
        self._falls += 1
        if self._falls >= self._most_falls:
            raise FieldguideError(
                f"Workers died {self._falls} times without an answer ({shortly(error)}). What was fetched is kept. See "
                "with ray status which machines are left, and run this again."
            )
        self._start()

    def end(self) -> None:
        """End all workers."""
        for worker in [*self._workers, *self._starting.values()]:
            with suppress(RayError):
                ray.kill(worker)


def _as_ours(cause: Exception) -> FieldguideError:
    """Return what a worker raised, with what to do."""
    if isinstance(cause, FieldguideError):
        return cause
    return FieldguideError(
        f"A worker cannot go on: {shortly(cause)} What was fetched is kept. Put that right, and run this again."
    )


def fetched_by_hands(
    job: Fetching,
    deal: Deal,
    links: pa.Table,
    parts: Collected,
    told: Callable[[int], None],
    left: Callable[[int], None],
    options,
) -> None:
    """Hand out what `deal` holds, and take the answers; `told` hears how many were asked for, `left` how many not."""
    with connected(options.address):
        count = workers_for(machine_sizes(), options.cores)
        print(f"{counted(count, 'worker')} on {counted(len(machine_sizes()), 'machine')}.", file=sys.stderr)
        crew = Crew(job, count, options.cores)
        try:
            while deal.is_waiting or crew.blocks:
                while given := next_hand(deal, crew.hands()):
                    n, block = given
                    crew.hand(n, block, records_of(links, block))
                for positions, answer, died in crew.heard():
                    if answer is not None:
                        asked, others = take_answer(answer, deal, links, parts)
                        left(others)
                        if asked:
                            told(asked)
                    elif lost := deal.take_back(positions, [n for n in positions if died and not parts.has(n)]):
                        told(parts.take(unanswered_rows(links, lost, DEADLY)))
        finally:
            crew.end()
