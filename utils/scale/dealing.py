"""
Which addresses are handed out next: all those of a host lie in one hand at a time, so that politeness holds.

Knows nothing of Ray. A host with many addresses has a block of its own, and waits for its next turn behind the others;
hosts with few share a block.
"""

from collections import deque
from collections.abc import Collection, Sequence
from itertools import chain, zip_longest

import numpy as np

ADDRESSES_IN_BLOCK = 256
FEW_ADDRESSES = 32  # addresses; a host with more left has a block of its own
HANDS = 4  # blocks that a worker has at a time: most of the time it waits for hosts far away
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
        self._deadly: deque[int] = deque()  # … of which an address may be what its workers died of
        self._alone = False  # whether the last block was of one host
        for host in self._left:
            self._queue(host)

    @property
    def is_waiting(self) -> bool:
        """Whether there is a host in no hand."""
        return bool(self._deadly) or self.is_harmless

    @property
    def is_deadly(self) -> bool:
        """Whether an address waits that may be what its workers died of."""
        return bool(self._deadly)

    @property
    def is_harmless(self) -> bool:
        """Whether other hosts wait."""
        return any(self._turns.values())

    def may_kill(self, block: Sequence[int]) -> bool:
        """Return whether a block is an address that its workers may have died of."""
        return len(block) == 1 and self._deaths.get(block[0], 0) >= DEATHS

    def next_deadly(self) -> list[int]:
        """Return the position of an address that its workers may have died of, for one that has nothing else."""
        return self._take(self._deadly.popleft())

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
            deadly = any(self._deaths[n] >= DEATHS for n in again)
            (self._deadly if deadly else self._turns[count > FEW_ADDRESSES]).append(host)

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


def next_hand(deal: Deal, hands: Sequence[Sequence[Sequence[int]]]) -> tuple[int, list[int]] | None:
    """
    Return the number of a worker and the block that it gets next, or None if all must wait; `hands` are their blocks.

    What may kill its worker goes to one that has nothing else in hand, and gets nothing more meanwhile. Until one is
    that far, the one with the fewest blocks gets no other; at most half of the workers are kept so.
    """
    free = [n for n, blocks in enumerate(hands) if not any(map(deal.may_kill, blocks))]
    free.sort(key=lambda n: len(hands[n]))
    apart = len(hands) - len(free)
    if free and deal.is_deadly and (not deal.is_harmless or apart < max(1, len(hands) // 2)):
        if not hands[free[0]]:
            return free[0], deal.next_deadly()
        free = free[1:]
    if free and deal.is_harmless and len(hands[free[0]]) < HANDS:
        return free[0], deal.next_block()
    return None
