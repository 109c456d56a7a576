"""
From what is missing to rows in parts: blocks are handed out until every picture has its row.

A block that came to nothing is handed out again in smaller ones. A picture that fails even alone gets a row with an
error, so one that kills its worker stops nothing. Knows nothing of Ray.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from utils.errors import FieldguideError
from utils.scale.parts import Parts

HANDED_OUT_AT_ONCE = 1_000_000  # pictures handed out at once: as many places lie in memory on all machines
FEWEST_IN_BLOCK, MOST_IN_BLOCK = 32, 256  # pictures in a block; what a worker had in hand when it died is judged again
BLOCKS_EACH = 20  # at least as many blocks for each worker, so that all end at about the same time
TIMES_SMALLER = 16  # times, of a block that came to nothing
HALTS = 3  # in a row, without an answer between them

# From positions (M,), their places and the size of a block to tables of answers; raises Halted.
HandOut = Callable[[np.ndarray, pa.Array, int], Iterator[pa.Table]]


class Halted(RuntimeError):
    """The cluster cannot go on as it is; the message says why. What is missing is handed out anew."""


def block_size(count: int, workers: int) -> int:
    """
    Return how many pictures to hand out in a block.

    >>> block_size(100, 2), block_size(5000, 2), block_size(10_000_000, 2)
    (32, 125, 256)
    """
    return min(MOST_IN_BLOCK, max(FEWEST_IN_BLOCK, count // (BLOCKS_EACH * workers)))


def judge_missing(
    parts: Parts,
    places: pa.ChunkedArray,
    hand_out: HandOut,
    told: Callable[[int], None],
    *,
    workers: int,
    pause: float,
    complete: bool = False,
) -> None:
    """
    Hand out every picture that has no row, and give it one.

    `told` hears how many rows came. After the cluster halted, what is missing is handed out again `pause` seconds
    later. Raises FieldguideError if a worker refuses the work, no picture of many can be judged, or the cluster keeps
    halting; if the rows must be `complete`, also if one failed each time for a reason that may pass.
    """
    while len(missing := parts.missing[:HANDED_OUT_AT_ONCE]):
        _judge_all(parts, missing, places, hand_out, told, block_size(len(missing), workers), pause, complete)


def _judge_all(
    parts: Parts,
    positions: np.ndarray,
    places: pa.ChunkedArray,
    hand_out: HandOut,
    told: Callable[[int], None],
    block: int,
    pause: float,
    complete: bool,
) -> None:
    """Give each of these pictures its row."""
    halts, why = 0, {}  # position → what went wrong last
    while len(left := positions[~parts.known[positions]]):
        halt = ""
        try:
            for answers in hand_out(left, places.take(pa.array(left)).combine_chunks(), block):
                told(_taken(parts, answers, why))
        except Halted as error:
            halt = str(error)
        after = int((~parts.known[left]).sum())
        if halt:
            halts = halts + 1 if after == len(left) else 1
            if halts == HALTS:
                raise FieldguideError(
                    f"The cluster stopped {HALTS} times without an answer ({halt}). What was judged is kept. See with "
                    "ray status which machines are left, and run this again."
                )
            time.sleep(pause)
        elif after == len(left) > MOST_IN_BLOCK:
            raise FieldguideError(
                f"None of {after:,} pictures could be judged: {next(iter(why.values()), 'each worker died')}. Put that "
                "right, and run this again."
            )
        elif after and block == 1:
            passing = [why[each] for each in left[~parts.known[left]].tolist() if each in why]
            if passing and complete:
                raise FieldguideError(
                    f"{len(passing):,} of {len(positions):,} failed each time: {passing[0]}. Put that right, and run "
                    "this again: what was judged is kept."
                )
            told(_given_up(parts, left[~parts.known[left]], why))
        else:
            block = max(1, block // TIMES_SMALLER)


def _taken(parts: Parts, answers: pa.Table, why: dict[int, str]) -> int:
    """Keep the answers that are ones; return how many. Raises FieldguideError if a worker refused the work."""
    if refusals := [text for text in answers["refused"].unique().to_pylist() if text]:
        raise FieldguideError(refusals[0])
    failed = answers["failed"].is_valid()
    for row in answers.filter(failed).select(["row", "failed"]).to_pylist():
        why[row["row"]] = row["failed"]
    answers = answers.filter(answers["failed"].is_null())
    return parts.add(answers["row"].to_numpy(), answers.drop_columns(["row", "failed", "refused"]))


def _given_up(parts: Parts, positions: np.ndarray, why: dict[int, str]) -> int:
    """Give these pictures a row that says why they have no answer; return how many."""
    errors = [why.get(position, "its worker died each time it was judged") for position in positions.tolist()]
    rows = [{"error": error, **parts.constant} for error in errors]
    columns = parts.schema.remove(parts.schema.get_field_index("id"))
    return parts.add(positions, pa.Table.from_pylist(rows, schema=columns))
