"""
Many pictures at a time: as many under way as are still wanted, handed over in the order of their addresses.

`fetching` is the way in. The fetches run on an event loop in a thread of their own. Writes nothing.
"""

import asyncio
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from math import inf
from typing import TypeVar

from PIL import Image

from utils.download.answers import Fetched
from utils.download.fetch import PROBE, Fetcher, Rules
from utils.errors import FieldguideError

HELD = 100_000_000  # bytes of pictures that wait for their turn behind a slow one
DOUBTFUL = 12  # addresses in a row that cannot be reached: a reason to doubt the network

T = TypeVar("T")


@contextmanager
def fetching(
    addresses: Iterable[tuple[T, str, str]],
    rules: Rules,
    *,
    window: int = 32,
    wanted: Callable[[], float] = lambda: inf,
) -> Iterator[Iterator[tuple[T, Fetched]]]:
    """
    Yield an iterator over pictures and what became of them; leaving the context drops what is still under way.

    `addresses` gives (anything, address, address of the thumbnail or ""). It is read as needed, and what it raises is
    raised here, after the outcomes of all addresses before. At most `window` pictures are under way or wait for their
    turn, and no more than are `wanted` now, so that none is thrown away.

    Raises FieldguideError if the proxy or the certificates set for this machine cannot be used, and while iterating if
    there is no network; addresses that could not be reached are then not among the outcomes.
    """
    with warnings.catch_warnings(), _running(rules) as (fetcher, start):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a picture too large has a reason of its own
        trouble: list[Exception] = []
        addresses = _until_trouble(addresses, trouble)
        outcomes = _in_order(addresses, lambda url, small: start(fetcher.fetched(url, small)), window, wanted)
        yield believed(outcomes, lambda: start(fetcher.online()).result(), trouble)


@contextmanager
def _running(rules: Rules) -> Iterator[tuple[Fetcher, Callable]]:
    """Yield a fetcher and what starts its coroutines, on a loop in a thread: a notebook's own loop runs the cell."""
    fetcher = Fetcher(rules)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(4 * rules.workers))  # a slow look-up of a name delays no other
    thread = threading.Thread(target=loop.run_forever, name="fetch", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(fetcher.open(), loop).result()
        yield fetcher, lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop)
    finally:
        asyncio.run_coroutine_threadsafe(fetcher.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _until_trouble(addresses: Iterable[T], trouble: list[Exception]) -> Iterator[T]:
    """Pass addresses on; if their source fails half-way, end there and note why."""
    try:
        yield from addresses
    except Exception as error:
        trouble.append(error)


def _in_order(
    addresses: Iterator[tuple[T, str, str]], start: Callable, window: int, wanted: Callable[[], float]
) -> Iterator[tuple[T, Fetched]]:
    """Yield what became of each picture, in the order of the addresses, while the next ones are under way."""
    under_way: deque = deque()
    while True:
        while _has_room([future for _, future in under_way], window, wanted()) and (asked := next(addresses, None)):
            under_way.append((asked[0], start(*asked[1:])))
        if not under_way:
            return
        item, first = under_way[0]
        if first.done():
            under_way.popleft()
            yield item, first.result()
        else:  # a failure further back makes room too
            wait([future for _, future in under_way if not future.done()], return_when=FIRST_COMPLETED)


def _has_room(futures: list, window: int, wanted: float) -> bool:
    """Return whether another picture may be asked for: fewer than wanted are there or may still come."""
    sizes = [len(future.result().data) for future in futures if future.done()]
    promising = len(futures) - sizes.count(0)
    return len(futures) < window and promising < wanted and sum(sizes) <= HELD


def believed(
    outcomes: Iterable[tuple[T, Fetched]], is_online: Callable[[], bool], trouble: Sequence[Exception] = ()
) -> Iterator[tuple[T, Fetched]]:
    """Pass outcomes on, those not reached only once it is clear that there is a network; then raise the trouble."""
    held: list[tuple[T, Fetched]] = []
    for item, outcome in outcomes:
        held.append((item, outcome))
        silent = outcome.unreached or (outcome.status == "refused" and held[0][1].unreached)  # by our rules: no sign
        if silent and len(held) < DOUBTFUL:
            continue
        if silent:
            _require_network(held, is_online)
        yield from held
        held = []
    _require_network(held, is_online)
    yield from held
    if trouble:
        raise trouble[0]


def _require_network(held: list[tuple[T, Fetched]], is_online: Callable[[], bool]) -> None:
    """Raise a `FieldguideError` if something is held back and there is no network."""
    if held and not is_online():
        dead = [outcome.reason for _, outcome in held if outcome.unreached]
        raise FieldguideError(
            f"There seems to be no network: the last {len(dead)} addresses could not be reached "
            f"({dead[-1]}), nor could {PROBE}. Check the connection and run this cell again; "
            "everything fetched so far is kept."
        )
