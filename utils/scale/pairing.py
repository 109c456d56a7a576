"""
The jobs of finding near-duplicates: pieces of the search among hashes, and pairs of pictures that are compared.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import pyarrow as pa

from utils.copies import HashSearch, one_thread_per_caller, same_picture, seen_picture
from utils.scale.jobs import abreast
from utils.scale.storages import Unreached, each_picture

BETWEEN = "\0"  # the two places of a pair; no path holds it
AT_HAND = 64  # pictures that a worker keeps: pairs of one picture follow each other
UNREAD_BITS = (1, 2)  # the first, or the second of a pair cannot be read; 3: both


@dataclass(frozen=True)
class Searching:
    """The search among N distinct hashes; a place is a piece of it, such as "16 3 0"."""

    codes: np.ndarray = field(repr=False)  # uint64 (N,), ascending
    columns = pa.schema([("pairs", pa.list_(pa.int64()))])
    complete = True
    most_in_block = 4  # pieces: of ten million hashes each takes ten seconds

    @property
    def facts(self) -> dict[str, str]:
        """What made the rows."""
        return {"task": "search", "hashes": hashlib.sha256(self.codes).hexdigest()}

    @staticmethod
    def read(places: Sequence[str]) -> Iterator[str]:
        """Yield the places as they are."""
        return iter(places)

    def worker(self, cores: int) -> Callable[[Iterator], Iterator[Mapping]]:
        """Return what searches pieces."""
        search = HashSearch(self.codes)

        def searched(place: str) -> Mapping:
            return {"pairs": search.pairs(tuple(map(int, place.split()))).ravel()}

        return lambda places: abreast(searched, places, cores)


@dataclass(frozen=True)
class Comparing:
    """Pairs of pictures to compare by their pixels. A place is the places of both, with a NUL between them."""

    pairs: str  # a digest of all
    columns = pa.schema([("same", pa.bool_()), ("unread", pa.int8())])
    complete = True  # a pair that waits for a storage or for memory must not count as different

    @property
    def facts(self) -> dict[str, str]:
        """What made the rows."""
        return {"task": "compare", "pairs": self.pairs}

    @staticmethod
    def read(places: Sequence[str]) -> Iterator[tuple | Unreached]:
        """Yield two places with what each_picture says of them; Unreached if a storage did not hand over one."""
        both = [place.split(BETWEEN) for place in places]
        pictures = each_picture([each for pair in both for each in pair])
        for pair in both:
            found = (next(pictures), next(pictures))
            late = [each for each in found if isinstance(each, Unreached)]
            yield late[0] if late else tuple(zip(pair, found, strict=True))

    def worker(self, cores: int) -> Callable[[Iterator], Iterator[Mapping]]:
        """Return what compares pairs, as many at a time as there are processors."""
        recent = Recent()

        def judge(pairs: Iterator) -> Iterator[Mapping]:
            with one_thread_per_caller():
                yield from abreast(recent.compared, pairs, cores)

        return judge


class Recent:
    """The last pictures that were opened."""

    def __init__(self):
        self._kept: dict[str, object] = {}
        self._lock = Lock()

    def compared(self, pair: tuple | Unreached) -> Mapping:
        """Return whether the two are the same picture, or why they cannot be compared."""
        if isinstance(pair, Unreached):
            return {"error": str(pair)}
        first, second = (self._seen(place, picture) for place, picture in pair)
        wrong = [(bit, each) for bit, each in zip(UNREAD_BITS, (first, second), strict=True) if isinstance(each, str)]
        if wrong:
            return {"unread": sum(bit for bit, _ in wrong), "error": wrong[0][1]}
        return {"same": same_picture(first, second)}

    def _seen(self, place: str, picture):
        """Return what is compared of a picture, or why it cannot be read."""
        with self._lock:
            if place in self._kept:
                self._kept[place] = self._kept.pop(place)  # now the last to go
                return self._kept[place]
        try:
            if isinstance(picture, Exception):
                raise picture
            found = seen_picture(picture)
        except MemoryError:  # may pass, so the block is tried again
            raise
        except Exception as error:  # decoders raise what they like; one picture must not stop the others
            found = str(error) or type(error).__name__
        with self._lock:
            self._kept[place] = found
            while len(self._kept) > AT_HAND:
                del self._kept[next(iter(self._kept))]
        return found
