"""
Open pictures for real, several at a time; write the training copies of the good ones, and the rows of all.
"""

import warnings
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from utils.pictures import LONGEST_SIDE, PictureError, UnreadableError, jpeg_bytes, open_with_facts, turned
from utils.storage import Shelf, file_stamp
from utils.verify.quality import grey_reduction, perceptual_hash, quality_warnings, useless
from utils.verify.verdicts import Judged, Tables

AT_A_TIME = 32  # pictures between two writes of the tables, and judged ahead meanwhile; their copies wait in memory
OPENED_TOGETHER = 2  # threads: Pillow decodes outside Python's lock. Of large pictures, `open_with_facts` opens one


def judge(
    path: Path,
    *,
    known: Mapping | None = None,
    served: Mapping | None = None,
    bits: int | None = None,
    asked: bool = False,
    label: str | None = None,
    longest_side: int = LONGEST_SIDE,
    stored: Mapping[str, int] | None = None,
) -> Judged:
    """
    Open a gathered file in full and decide: a training copy, or a reason to reject it.

    `known` maps (id, label) to why a good picture is rejected all the same: it is known under another label. `served`
    maps ids to numbers of unrelated sites; a drawing that many serve is rejected. If a person `asked` for this very
    picture, everything that can be decoded is good, also an animation. `bits` are those of the set's 16-bit pictures.
    The label is the name of the folder, if no other is given. `stored` maps ids to how their pictures lie beyond what
    their files say (EXIF's numbers).
    """
    before = file_stamp(path)
    label = path.parent.name if label is None else label
    turn = (stored or {}).get(path.stem, 1)
    sites, rules = (served or {}).get(path.stem, 0), {"bits": bits, "asked": asked, "longest_side": longest_side}
    judged = judged_picture(path, path.stem, label, known=known or {}, sites=sites, stored=turn, **rules)
    if file_stamp(path) != before:  # what was read is neither the old picture nor the new one
        return Judged(judged.id, judged.label, reason="it changed while it was read", unread=True)
    return judged


def judged_picture(
    picture: Path | bytes,
    id: str,
    label: str = "",
    *,
    known: Mapping | None = None,
    sites: int = 0,
    bits: int | None = None,
    asked: bool = False,
    longest_side: int = LONGEST_SIDE,
    stored: int = 1,
    copied: bool = True,
) -> Judged:
    """Return what `judge` does, of bytes or of a file that nobody writes to; without its copy if not `copied`."""
    try:
        opened = open_with_facts(picture, longest_side=longest_side, first_frame=asked, bits=bits)
    except (UnreadableError, OSError) as error:
        return Judged(id, label, reason=str(error), unread=True)
    except PictureError as error:
        return Judged(id, label, reason=str(error))
    image, size = turned(opened.image, stored), (opened.width, opened.height)
    grey = grey_reduction(image)
    if not asked and (reason := useless(opened, grey, sites=sites)):
        return Judged(id, label, reason=reason)
    found = quality_warnings(np.asarray(grey), *size)
    found += ["unfinished"] * (opened.coarse or opened.missing > 0) + list(opened.remarks)
    reason = (known or {}).get((id, label), "")
    deep = (bits or opened.bits) if opened.bits else ""
    copy = jpeg_bytes(image) if copied else b""
    return Judged(id, label, reason, copy, perceptual_hash(grey), *size, " ".join(found), deep)


def judged_in_order(paths: list[Path], **options) -> Iterator[Judged]:
    """Judge pictures in the order given, a few of them ahead of whoever takes them; options as for `judge`."""
    with warnings.catch_warnings(), ThreadPoolExecutor(OPENED_TOGETHER) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what counts is whether the pixels decode
        waiting: deque = deque()
        with tqdm(total=len(paths), desc="opening", unit="picture", disable=not paths) as bar:
            for path in [*paths, *[None] * AT_A_TIME]:
                if path is not None:
                    waiting.append(pool.submit(judge, path, **options))
                if waiting and (path is None or len(waiting) > AT_A_TIME):
                    yield waiting.popleft().result()
                    bar.update()


def in_batches(judged: Iterable[Judged]) -> Iterator[list[Judged]]:
    """Yield what was judged in lists of `AT_A_TIME`."""
    judged = iter(judged)
    while batch := list(islice(judged, AT_A_TIME)):
        yield batch


def keep(tables: Tables, batch: list[Judged], there: Container[str], deleted: Mapping[str, Path]) -> int:
    """
    Write the training copies of a batch, then its rows; return how many pictures were added.

    Copies first: after a kill, a copy without a row is found again, but a row without a copy is not. A copy that lies
    in images/ already is left from a killed run, and a person may have moved it since. One in trash/ was taken out by
    a person: it gets its row and no copy.
    """
    shelf, images = Shelf(), tables.project.images
    good = {judged.id: judged for judged in batch if not judged.reason}
    for judged in good.values():
        target = images / judged.label / f"{judged.id}.jpg"
        if judged.id not in there and judged.id not in deleted and not target.is_file():
            shelf.add(target, judged.copy)
    shelf.settle()
    tables.add(batch)
    return len(good.keys() - deleted.keys())
