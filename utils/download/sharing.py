"""
Many machines fetch into one folder: pictures are written as `collect` writes them, and their rows are handed over.

Whoever hands out the addresses keeps the rows, and adds them to sources.csv with `adopt_rows`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from utils.download.answers import Fetched
from utils.download.collect import WINDOW, as_gathered
from utils.download.collection import ROWS_AT_ONCE, Gathered, sources_row
from utils.download.fetch import Rules
from utils.download.queue import fetching
from utils.storage import Shelf, content_id
from utils.tables import TAKEN

# Of a record: its number, its row of sources.csv, its file, whether it failed for the moment.
FetchOutcome = tuple[int, dict[str, str], str, bool]


def fetch_rows(
    records: Iterable[Mapping], root: Path, rules: Rules, *, window: int = 0
) -> Iterator[list[FetchOutcome]]:
    """
    Fetch pictures into raw/<label>/ below `root`, those without a label into unsorted/; yield a few outcomes at a time.

    A record has a url and a label ("" for none), and any of page_url, title, license, … Records are numbered from 0 on
    as they are read, which goes on while pictures are fetched. An outcome comes once its picture is on disk; its file
    is named from `root` on, "" if there is none. At most `window` pictures are under way or wait for their turn. Raises
    FieldguideError if there is no network or a picture cannot be written.
    """
    shelf, done, under_way = Shelf(), [], deque()  # batches that are being put on disk: the wait, the outcomes
    with ThreadPoolExecutor(1) as writer:
        try:
            with fetching(_addresses(records), rules, window=window or WINDOW * rules.workers) as outcomes:
                for (n, picture), fetched in outcomes:
                    done.append((n, *_shelved(picture, fetched, root, shelf), fetched.passing))
                    if len(done) >= ROWS_AT_ONCE:
                        under_way.append((writer.submit(shelf.settle), done))
                        shelf, done = Shelf(), []
                    while under_way and (len(under_way) > 1 or under_way[0][0].done()):
                        yield _settled(*under_way.popleft())
        finally:
            under_way.append((writer.submit(shelf.settle), done))
        while under_way:
            yield _settled(*under_way.popleft())


def _settled(wait: Future, done: list[FetchOutcome]) -> list[FetchOutcome]:
    """Return outcomes once their pictures are on disk; raises what went wrong there."""
    wait.result()
    return done


def _addresses(records: Iterable[Mapping]) -> Iterator[tuple[tuple[int, Gathered], str, str]]:
    """Yield for each record its number and itself as a picture without bytes, its address and that of its thumbnail."""
    for n, record in enumerate(records):
        picture, url, thumbnail = as_gathered(record, record["label"], n)
        yield (n, picture), url, thumbnail


def _shelved(picture: Gathered, fetched: Fetched, root: Path, shelf: Shelf) -> tuple[dict[str, str], str]:
    """Put what was fetched on the shelf, unless it lies there; return its row and its file."""
    found = {"status": fetched.status, "reason": fetched.reason}
    if fetched.status not in TAKEN:
        return sources_row(picture, **found), ""
    id = content_id(fetched.data)
    folder = f"raw/{picture.label}" if picture.label else "unsorted"
    file = f"{folder}/{id}.{fetched.extension}"
    if not (root / file).exists():
        shelf.add(root / file, fetched.data)
    found |= {"id": id, "bytes": len(fetched.data), "width": fetched.width, "height": fetched.height}
    return sources_row(picture, **found), file
