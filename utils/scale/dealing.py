"""
Which addresses are handed out next: all those of a host lie in one hand at a time, so that politeness holds.

Knows nothing of Ray. A host with many addresses has a block of its own, and waits for its next turn behind the others;
hosts with few share a block.
"""

from collections import deque
from collections.abc import Collection
from itertools import chain, zip_longest

import numpy as np

ADDRESSES_IN_BLOCK = 256
FEW_ADDRESSES = 32  # addresses; a host with more left has a block of its own
DEATHS = 2  # of a worker that had an address in hand; then it is handed out alone, once more


class Deal:
    """
    The addresses at these positions of a table, int64 (M,), some of N.

    `hosts`, int64 (N,), is a number for the host of each address of the table.
    """

    def __init__(self, positions: np.ndarray, hosts: np.ndarray):
        self._hosts = hosts
        self._order = positions[np.argsort(hosts[positions], kind="stable")]
        found, starts = np.unique(hosts[self._order], return_index=True)
        # Per host: where its addresses that were not handed out yet begin and end.
        spans = zip(starts.tolist(), [*starts[1:].tolist(), len(positions)], strict=True)
        self._left = dict(zip(found.tolist(), spans, strict=True))
        self._again: dict[int, list[int]] = {}  # host → addresses that a worker had in hand when it died
        self._deaths: dict[int, int] = {}  # position → workers that died
        self._turns: dict[bool, deque[int]] = {
            True: deque(),
            False: deque(),
        }  # hosts in no hand, by "has a block alone"
        self._alone = False  # whether the last block was of one host
        for host in self._left:
            self._queue(host)

    @property
    def is_waiting(self) -> bool:
        """Whether there is a host in no hand."""
        return any(self._turns.values())

    def next_block(self) -> list[int]:
        """Return positions to hand out now, of hosts that are in no hand; none if all that is left must wait."""
        alone, shared = self._turns[True], self._turns[False]
        self._alone = bool(alone) and not (self._alone and shared)
        if self._alone:
            return self._take(alone.popleft())
        taken, count = [], 0
        while shared and count < ADDRESSES_IN_BLOCK:
            taken.append(self._take(shared.popleft()))
            count += len(taken[-1])
        return [n for n in chain.from_iterable(zip_longest(*taken)) if n is not None]  # a slow host delays no other

    def take_back(self, block: Collection[int], unanswered: Collection[int] = ()) -> list[int]:
        """
        Set the hosts of a block free; what is `unanswered`, as its worker died, is handed out again.

        Return the positions that are not: too many workers died of them.
        """
        lost = []
        for n in unanswered:
            self._deaths[n] = self._deaths.get(n, 0) + 1
            if self._deaths[n] > DEATHS:
                lost.append(n)
            else:
                self._again.setdefault(int(self._hosts[n]), []).append(n)
        for host in dict.fromkeys(self._hosts[list(block)].tolist()):
            self._queue(host)
        return lost

    def give_up(self, position: int) -> list[int]:
        """Hand out no more addresses of the host of this one; return their positions."""
        host = int(self._hosts[position])
        start, stop = self._left[host]
        self._left[host] = stop, stop
        return self._again.pop(host, []) + self._order[start:stop].tolist()

    def _queue(self, host: int) -> None:
        """Let a host wait for its turn, if something is left of it."""
        start, stop = self._left[host]
        again = self._again.get(host, ())
        if count := stop - start + len(again):
            self._turns[count > FEW_ADDRESSES or any(self._deaths[n] >= DEATHS for n in again)].append(host)

    def _take(self, host: int) -> list[int]:
        """Take the next addresses of a host."""
        again = self._again.pop(host, [])
        if deadly := [n for n in again if self._deaths[n] >= DEATHS]:
            if rest := [n for n in again if n != deadly[0]]:
                self._again[host] = rest
            return deadly[:1]
        start, stop = self._left[host]
        middle = min(stop, start + max(0, ADDRESSES_IN_BLOCK - len(again)))
        self._left[host] = middle, stop
        return again + self._order[start:middle].tolist()
