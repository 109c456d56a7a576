"""
2_photos: take the photos of sources with boxes, or fetch them, make the training copies, and write boxes.csv.

Writes raw/<id>.<ext>, sources.csv, given.csv, images/<id>.jpg, pictures.csv, copies.csv, rejected.csv and boxes.csv.
Each step does what is missing and nothing twice. given_boxes.csv keeps the boxes as the sources had them when boxes.csv
was last written: where both differ, a person was at work, and that photo's boxes are not touched. What given_boxes.csv
will hold is written first, as given_pending.csv, so that a run killed between the two is completed.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from utils.boxes.box import Box, corner_array, read_boxes, write_boxes
from utils.boxes.byhand import file_by_hand, note_copies
from utils.boxes.corrections import BoxLedger
from utils.boxes.photos import NO_BOX
from utils.boxes.sizes import stored_size
from utils.boxes.source import STORED_AS, BoxSource, SourcePhoto, given_rows
from utils.dataset import pictures_in, seeded_rank
from utils.download import Gathered, download_images, file_bytes, save_given, save_pictures
from utils.errors import FieldguideError
from utils.inference import box_overlaps
from utils.project import Project
from utils.storage import locked, remove_leftovers, visible_files, write_whole
from utils.tables import FOLDER, SOURCES_COLUMNS, TABLE, TAKEN, each_row
from utils.verify import Tables, bits_of_set, in_batches, judged_in_order, keep
from utils.words import counted

COPY_SIDE = 640  # pixels of the longer side of a training copy, at most
# From which overlap on (intersection over union) two boxes of one label are of one thing, drawn by two people: of the
# four raccoon photos that lie twice in their set, they overlap by 0.80 to 0.94.
SAME_THING = 0.7
GONE_REASONS = ("HTTP 404", "HTTP 410", "gone: ")  # how reasons begin of photos that are not there any more
OTHER_BYTES = "not the bytes that the table describes (MD5)"
PENDING = "given_pending"  # there as long as boxes.csv and given_boxes.csv are not both written
TWO_TURNS = "turned one way by its EXIF record and another way by the table"


def take_boxed_photos(project: Project, sources: Iterable[BoxSource]) -> list[str]:
    """
    Take the photos of sources with boxes, at most images_per_label of each label, drawn with the seed.

    A photo counts for each label in it; those without a thing count as a label of their own. Addresses are fetched;
    where some fail, others are asked for in their place. What a person put into images/ is taken in, too. Run it again
    at any time. Return sentences: what became of the photos and boxes. Raises FieldguideError if no photo could be
    taken, or there is no network.
    """
    sources = list(sources)
    save_given(project, (("", address, said) for source in sources for address, said in given_rows(source)))
    photos: dict[str, SourcePhoto] = {}
    for photo in (photo for source in sources for photo in source.photos):
        first = photos.setdefault(photo.address, photo)
        if first is not photo:  # several rows of a table name one address
            photos[photo.address] = replace(first, boxes=joined_boxes(first.boxes, photo.boxes))
    roots = {photo.address: source.root for source in sources for photo in source.photos if source.root}
    chosen, before, by_hand, ids, failed = None, [], set(), *_rows_by_address(project)
    failed = {url: engine for url, engine in failed.items() if engine != FOLDER}  # files are tried again, once
    while chosen != before or chosen is None:
        rejected = _rejected(project)
        useless = {*failed, *(url for url, id in ids.items() if id in rejected)}
        kept = [photo for url, photo in photos.items() if url not in useless]
        before, chosen = chosen, chosen_photos(kept, project.images_per_label, project.seed, ids.keys())
        if chosen != before:
            _gather(project, chosen, roots)
            by_hand |= _judge_photos(project, photos)
            ids, failed = _rows_by_address(project)
    if not pictures_in(project.images):
        raise FieldguideError(
            f"No photo could be taken. {' '.join(_why(project))} sources.csv and rejected.csv in {project.data} hold "
            "the reason of each."
        )
    told = [*_write_boxes(project, photos, ids), *_by_hand_sentence(project, by_hand)]
    told += _more_sentences(project, kept, ids)
    return [f"{counted(len(pictures_in(project.images)), 'photo')} in {project.images}.", *_why(project), *told]


def chosen_photos(
    photos: Sequence[SourcePhoto], most: int, seed: int, taken: Collection[str] = ()
) -> list[SourcePhoto]:
    """
    Return the photos to take: those `taken` before first, then drawn with the seed, until each label has `most`.

    A photo is chosen if one of its labels has room, and counts for all of them. Each side of a ready split gets its
    share.
    """
    ranked = sorted(photos, key=lambda photo: seeded_rank(seed, photo.title or photo.address))
    sizes, place = Counter(photo.given.get("side", "") for photo in photos), Counter()
    order = []
    for n, photo in enumerate(ranked):
        side = photo.given.get("side", "")
        order.append((photo.address not in taken, place[side] / sizes[side], n))
        place[side] += 1
    counts, chosen = Counter(), []
    for *_, n in sorted(order):
        labels = {box.label for box in ranked[n].boxes} or {NO_BOX}
        if any(counts[label] < most for label in labels):
            counts.update(labels)
            chosen.append(ranked[n])
    return chosen


def _gather(project: Project, chosen: Sequence[SourcePhoto], roots: Mapping[str, Path]) -> None:
    """Copy the files to raw/, and fetch the addresses, that have no row yet."""
    files = [photo for photo in chosen if photo.path]
    if files:
        save_pictures(project, _gathered_files(project, files, roots), total=len(files))
    results = [
        {
            "url": photo.address,
            "engine": TABLE,
            "title": photo.title,
            "license": photo.given.get("license", ""),
            "page_url": photo.given.get("page_url", ""),
            "thumbnail": photo.thumbnail,
        }
        for photo in chosen
        if not photo.path
    ]
    if results:
        rules = {"allowed_hosts": project.allowed_hosts, "honour_noai": project.honour_noai}
        download_images(results, project.raw, flat=True, **rules)


def _gathered_files(project: Project, photos: Iterable[SourcePhoto], roots: Mapping[str, Path]) -> Iterator[Gathered]:
    """Read files of sources on this computer, one after the other."""
    for photo in photos:
        data, problem = file_bytes(photo.path, roots[photo.address], follow_links=project.follow_links)
        said = {"title": photo.title, "license": photo.given.get("license") or project.license or "unknown"}
        yield Gathered("", photo.address, data, engine=FOLDER, problem=problem, **said)


def _rows_by_address(project: Project) -> tuple[dict[str, str], dict[str, str]]:
    """Return address → id of the photos that were taken, the last row of each; and address → engine of the others."""
    ids: dict[str, str] = {}
    failed: dict[str, str] = {}
    for row in each_row(project.table("sources"), SOURCES_COLUMNS):
        if row["id"]:
            ids[row["url"]] = row["id"]
            failed.pop(row["url"], None)
        elif row["url"] not in ids:
            failed[row["url"]] = row["engine"]
    return ids, failed


def _rejected(project: Project) -> set[str]:
    """Return the ids of photos that were set aside."""
    return {row["id"] for row in Tables(project).standing()}


def _judge_photos(project: Project, photos: Mapping[str, SourcePhoto]) -> set[str]:
    """
    Open what is new in raw/, make the training copies, and note what is rejected and why.

    Photos that a person put into images/ are filed in raw/ first; return their ids. One that was rejected or taken out
    before, and is there again, is wanted after all.
    """
    with locked(project.data):
        remove_leftovers(project.data)
        tables = Tables(project)
        made = {path.stem for path in visible_files(project.raw)} - {id for id, _ in tables.settled}
        by_hand = {*file_by_hand(project, {*tables.label_of, *made})}
        seen = tables.settled | tables.accepted
        there = {name.removesuffix(".jpg") for name in pictures_in(project.images)}
        files = visible_files(project.raw)
        fresh = [path for path in files if (path.stem, "") not in seen]
        back = [path for path in files if (path.stem, "") in seen and path.stem in by_hand - there]
        deleted = {path.stem: path for path in visible_files(project.trash) if path.stem not in there}
        stored, known = _turns_and_problems(project, fresh + back, photos)
        options = {"stored": stored, "label": "", "longest_side": COPY_SIDE, "bits": bits_of_set(tables, fresh + back)}
        for judged in judged_in_order(back, asked=True, **options):
            if not judged.reason:
                write_whole(project.images / f"{judged.id}.jpg", judged.copy)
                tables.add([judged])
        for batch in in_batches(judged_in_order(fresh, known=known, **options)):
            keep(tables, [judged for judged in batch if not judged.unread], there, deleted)
        note_copies(project, [path.stem for path in fresh + back])
    return by_hand


def _by_hand_sentence(project: Project, by_hand: Collection[str]) -> Iterator[str]:
    """Yield what became of photos that a person put into images/."""
    here = [id for id in sorted(by_hand) if (project.images / f"{id}.jpg").exists()]
    if here:
        boxes = read_boxes(project.table("boxes"))
        yield (
            f"{counted(len(here), 'photo')} put into images/ by hand, {sum(id not in boxes for id in here)} without "
            "boxes: those count as photos without a thing. If a thing is in one, draw its box: BoxEditor(photos) in "
            "5_mend shows photos without boxes first."
        )


def _turns_and_problems(
    project: Project, fresh: Iterable[Path], photos: Mapping[str, SourcePhoto]
) -> tuple[dict[str, int], dict[tuple[str, str], str]]:
    """
    Return id → how a photo is stored beyond what its EXIF record says, and (id, "") → why a photo is not taken.

    Where the record turns the photo as the table does, it is turned once.
    """
    rows = {
        row["id"]: row
        for row in each_row(project.table("sources"), SOURCES_COLUMNS)
        if row["status"] in TAKEN and row["url"]
    }
    stored, problems = {}, {}
    for path in fresh:
        row = rows.get(path.stem, {})
        photo = photos.get(row.get("url", ""))
        if photo and photo.md5 and row["status"] == "kept" and photo.md5 != _md5(path):
            problems[path.stem, ""] = OTHER_BYTES
        elif photo and photo.rotation:
            said, own = STORED_AS[photo.rotation], stored_size(path)[2]
            if own == 1:
                stored[path.stem] = said
            elif own != said:
                problems[path.stem, ""] = TWO_TURNS
    return stored, problems


def _md5(path: Path) -> str:
    """Return the MD5 of a file's bytes in base64, as Open Images writes it."""
    return base64.b64encode(hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()).decode("ascii")


def _more_sentences(project: Project, kept: Iterable[SourcePhoto], ids: Mapping[str, str]) -> Iterator[str]:
    """Yield how many photos more there are that the cap of a label leaves out."""
    if left := sum(photo.address not in ids for photo in kept):
        yield (
            f"{counted(left, 'more photo')} there. images_per_label = {project.images_per_label} takes no more of "
            "them; raise it to take them."
        )


def _write_boxes(project: Project, photos: Mapping[str, SourcePhoto], ids: Mapping[str, str]) -> list[str]:
    """Write the boxes of the photos that were taken, but for those that a person changed; return sentences."""
    there = project.table("boxes").exists()  # if it is gone, nobody took each box out by hand: they come back
    judged = BoxLedger(project).looked_at() if there else set()
    with locked(project.data):
        accepted, target, joined = {id for id, _ in Tables(project).accepted}, {}, set()
        for url, photo in photos.items():
            if (id := ids.get(url)) in accepted:
                joined |= {id} & target.keys()
                target[id] = joined_boxes(target.get(id, ()), photo.boxes)
        now = read_boxes(project.table("boxes")) if there else {}
        last = _settled_given(project, now) if there else {}
        mine = [
            id
            for id in target
            if (id in judged or _differ(now.get(id, ()), last.get(id, ()))) and _differ(now.get(id, ()), target[id])
        ]
        written = {id: own for id, own in (now | {id: target[id] for id in target if id not in mine}).items() if own}
        given = {id: own for id, own in (last | target).items() if own}
        if _all_differ(written, now) or _all_differ(given, last) or not there:
            write_boxes(project.table(PENDING), given)
            write_boxes(project.table("boxes"), written)
            project.table(PENDING).replace(project.table("given_boxes"))
    counts = Counter(box.label for own in written.values() for box in own)
    told = [f"Boxes: {', '.join(f'{label} {count:,}' for label, count in sorted(counts.items())) or 'none'}."]
    if joined:
        told.append(f"{counted(len(joined), 'photo')} there more than once, as the same file: their boxes were joined.")
    if changed := [id for id in mine if _differ(target[id], last.get(id, ()))]:
        told.append(f"{counted(len(changed), 'photo')} with other boxes in the source now keep those of your own.")
    return told


def _settled_given(project: Project, now: Mapping[str, Sequence[Box]]) -> dict[str, tuple[Box, ...]]:
    """
    Return given_boxes.csv, after completing it if a run was killed while it wrote: `now` is boxes.csv.

    Photos whose boxes are those that the killed run was writing follow their source; the others were not reached, or
    a person changed them before or since.
    """
    table, pending = project.table("given_boxes"), project.table(PENDING)
    given = read_boxes(table)
    if pending.exists():
        coming = read_boxes(pending)
        reached = [id for id in {*given, *coming} if not _differ(now.get(id, ()), coming.get(id, ()))]
        given = {id: own for id, own in (given | {id: coming.get(id, ()) for id in reached}).items() if own}
        write_boxes(table, given)
        pending.unlink()
    return given


def joined_boxes(boxes: Sequence[Box], more: Sequence[Box]) -> tuple[Box, ...]:
    """Return the boxes that two people drew in one photo: the first ones, and of the second what has no like there."""
    overlaps = box_overlaps(corner_array(more), corner_array(boxes)) >= SAME_THING
    labels = np.array([box.label for box in boxes], dtype=str)
    new = [box for box, near in zip(more, overlaps, strict=True) if not (near & (labels == box.label)).any()]
    return (*boxes, *new)


def _differ(own: Sequence[Box], other: Sequence[Box]) -> bool:
    """Return whether two photos' boxes differ in anything, flags and by whom they are included."""
    return [(box, box.flags, box.by) for box in own] != [(box, box.flags, box.by) for box in other]


def _all_differ(own: Mapping[str, Sequence[Box]], other: Mapping[str, Sequence[Box]]) -> bool:
    return own.keys() != other.keys() or any(_differ(own[id], other[id]) for id in own)


def _why(project: Project) -> list[str]:
    """Return how many photos were not taken, in a sentence for each kind of reason."""
    ids, _ = _rows_by_address(project)
    rows = {row["url"]: row for row in each_row(project.table("sources"), SOURCES_COLUMNS) if row["url"] not in ids}
    gone = [row for row in rows.values() if row["reason"].startswith(GONE_REASONS)]
    others = [row for row in rows.values() if not row["reason"].startswith(GONE_REASONS)]
    told = [f"{counted(len(gone), 'photo')} gone from the web."] if gone else []
    if others:
        first = f"{others[0]['url'][:120]}: {others[0]['reason']}"
        told.append(f"{counted(len(others), 'photo')} could not be taken, such as {first}.")
    if rejected := Tables(project).standing():
        first = f"{rejected[0]['id']}: {rejected[0]['reason']}"
        told.append(f"{counted(len(rejected), 'photo')} rejected, such as {first}.")
    return told


def boxed_photos_table(project: Project, sources: Iterable[BoxSource]) -> pd.DataFrame:
    """Return what became of the photos of sources: one row per label, and one for photos without a thing."""
    ids, _ = _rows_by_address(project)
    fates = {id: "taken" for id, _ in Tables(project).accepted} | dict.fromkeys(_rejected(project), "rejected")
    of_address = {url: fates.get(id, "not opened") for url, id in ids.items()}
    for row in each_row(project.table("sources"), SOURCES_COLUMNS):
        of_address.setdefault(row["url"], "gone" if row["reason"].startswith(GONE_REASONS) else "failed")
    rows = [
        (label, of_address.get(photo.address, "not asked for"))
        for source in sources
        for photo in source.photos
        for label in sorted({box.label for box in photo.boxes} or {NO_BOX})
    ]
    table = pd.DataFrame(rows, columns=["label", "photos"])
    return pd.crosstab(table.label, table.photos)
