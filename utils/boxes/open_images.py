"""
Open Images: which photos have boxes of some classes, from its tables; files, or addresses that are read as a stream.

The class table names each class and its code, the box table has one row per box, the image table one row per photo.
Tables of all releases are taken, with their columns in any order.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from utils.boxes.box import GROUP, Box
from utils.boxes.drawn import number_in
from utils.boxes.source import STORED_AS, BoxNotes, BoxSource, SourcePhoto, checked_boxes, is_set, turned_box
from utils.boxes.streams import line_blocks
from utils.boxes.table_rows import cells_of, wanted_rows
from utils.errors import FieldguideError
from utils.listing import SIDE_NAMES
from utils.project import Project
from utils.tables import one_line
from utils.words import counted, listed

OPEN_IMAGES_NAME = "Open Images"
CODE = re.compile(r"/[a-z]/\w+")
MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")
CLASS_COLUMNS = ("labelname", "id", "mid"), ("displayname", "name", "display_name")
BOX_TABLE_COLUMNS = ("ImageID", "XMin", "YMin", "XMax", "YMax")
FLAG_COLUMNS = {
    "isoccluded": "occluded",
    "istruncated": "truncated",
    "isgroupof": GROUP,
    "isdepiction": "depiction",
    "isinside": "inside",
}
URL_LIST = b"TsvHttpData-1.0"  # how a list for Google's Storage Transfer begins
LARGEST_SMALL_TABLE = 50_000_000  # bytes of the class table and the hierarchy
SHOWN_SUBCLASSES = 12


def read_open_images(project: Project) -> BoxSource:
    """
    List the photos of Open Images with boxes of the project's labels, as [open_images] says.

    Boxes are turned as the photo will be (Rotation). Raises FieldguideError if a table is missing, cannot be read, or
    is another one, or a label is not among the classes.
    """
    asked, notes, told = project.open_images, BoxNotes(), []
    for key in ("classes", "boxes", "images"):
        if not asked.get(key):
            raise FieldguideError(f"[open_images] does not name its table {key}. Write {key} = a file or an address.")
    labels = _labels_by_code(project, told)
    boxes = _boxes_by_photo(project, labels, notes, told)
    if not boxes:
        told = (f"The box tables have no box of {listed(project.labels)}.", *notes.sentences())
        raise FieldguideError(f"{' '.join(told)} Name the tables of the same release, or other labels.")
    photos = _with_address(project, _photos(project, boxes, notes, told), notes)
    counts = f"{counted(len(photos), 'photo')} can be fetched."
    remarks = (counts, *told, *notes.sentences())
    names = tuple(sorted({box.label for photo in photos for box in photo.boxes}))
    return BoxSource(
        OPEN_IMAGES_NAME, OPEN_IMAGES_NAME, tuple(sorted(photos, key=lambda photo: photo.address)), remarks, names
    )


def as_list(value: str | list[str] | None) -> list[str]:
    """Return one table, or several, as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def _small_table(project: Project, place: str) -> bytes:
    """Return a whole table that is small."""
    parts, size = [], 0
    for block in line_blocks(place, allowed_hosts=project.allowed_hosts):
        parts.append(block)
        size += len(block)
        if size > LARGEST_SMALL_TABLE:
            raise FieldguideError(f"{place} is larger than {LARGEST_SMALL_TABLE // 10**6} MB: it is another table.")
    return b"".join(parts)


def _labels_by_code(project: Project, told: list[str]) -> dict[str, str]:
    """Return code → label of the classes that the project asks for, with those below them if it says so."""
    names = class_names(_small_table(project, project.open_images["classes"]), project.open_images["classes"])
    labels: dict[str, str] = {}
    for label in project.labels:
        codes = [code for code, name in names.items() if name == label]
        if not codes:
            near = get_close_matches(label, names.values(), n=3, cutoff=0.5)
            near += [name for name in names.values() if name.casefold() == label.casefold() and name not in near]
            hint = f" Is it {listed(near)}?" if near else ""
            raise FieldguideError(f"Open Images has no class {label!r}.{hint} Correct [labels] in the project file.")
        labels |= dict.fromkeys(codes, label)
    if project.open_images.get("subclasses"):
        if not project.open_images.get("hierarchy"):
            raise FieldguideError("subclasses = true needs the hierarchy: write hierarchy = a file or an address.")
        below = subclasses(_small_table(project, project.open_images["hierarchy"]), labels)
        named = [names.get(code, code) for code in below if code not in labels]
        labels = below | labels
        told.append(
            f"Classes below those of [labels] that count for them: {listed(named, most=SHOWN_SUBCLASSES) or 'none'}."
        )
    return labels


def class_names(table: bytes, place: str) -> dict[str, str]:
    """
    Return code → name of a class table, with or without a first line of column names, in any order.

    >>> class_names(b"name,id\\nBoat,/m/019jd\\n", "classes.csv"), class_names(b"/m/019jd,Boat\\n", "classes.csv")
    ({'/m/019jd': 'Boat'}, {'/m/019jd': 'Boat'})
    """
    names: dict[str, str] = {}
    rows = [cells_of(line) for line in table.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    code_at, name_at = (next((header.index(n) for n in known if n in header), None) for known in CLASS_COLUMNS)
    for cells in rows:
        at = (
            code_at
            if code_at is not None
            else next((n for n, c in enumerate(cells) if CODE.fullmatch(c.strip())), None)
        )
        if at is None or at >= len(cells) or not CODE.fullmatch(code := cells[at].strip()):
            continue
        others = [cell for n, cell in enumerate(cells) if n != at]
        name = cells[name_at] if name_at is not None and name_at < len(cells) else (others or [""])[0]
        names.setdefault(code, name.strip())
    if not names:
        shown = table[:200].decode("utf-8", "replace")
        raise FieldguideError(
            f"{place} names no class of Open Images; it begins with {shown!r}. Correct [open_images]."
        )
    return names


def subclasses(hierarchy: bytes, labels: Mapping[str, str]) -> dict[str, str]:
    """
    Return code → label of the classes of `labels` and of all below them; one below two has the nearest.

    Parts, such as the wheel of a car, do not count as subclasses.
    """
    try:
        top = json.loads(hierarchy)
    except (ValueError, RecursionError):
        raise FieldguideError("The hierarchy of [open_images] cannot be read as JSON. Download it again.") from None
    found: dict[str, tuple[int, str]] = {}
    waiting = [(top, None, 0)]
    while waiting:
        node, label, depth = waiting.pop()
        if not isinstance(node, Mapping):
            continue
        code = str(node.get("LabelName", ""))
        label, depth = (labels[code], 0) if code in labels else (label, depth)
        if label is not None:
            found[code] = min(found.get(code, (depth, label)), (depth, label))
        below = node.get("Subcategory")
        waiting += [(each, label, depth + 1) for each in below] if isinstance(below, list) else []
    return {code: label for code, (_, label) in sorted(found.items())}


def _boxes_by_photo(
    project: Project, labels: Mapping[str, str], notes: BoxNotes, told: list[str]
) -> dict[str, tuple[Box, ...]]:
    """Return id in Open Images → boxes of the wanted classes, as they are in the tables."""
    found: dict[str, list[Box]] = defaultdict(list)
    for place in as_list(project.open_images["boxes"]):
        kept = wanted_rows(project, place, "LabelName", labels.keys(), notes, needed=BOX_TABLE_COLUMNS)
        for id, box in _boxes_of_table(kept, labels, notes):
            found[id].append(box)
        if missing := sorted(flag for name, flag in FLAG_COLUMNS.items() if name not in kept.columns):
            told.append(f"{place} has no column for {listed(missing)}: no box has that flag.")
    left_groups, depictions = [], 0
    kept_boxes: dict[str, tuple[Box, ...]] = {}
    for id, boxes in sorted(found.items()):
        real = [box for box in boxes if project.open_images.get("depictions") or "depiction" not in box.flags]
        depictions += len(boxes) - len(real)
        if project.open_images.get("groups") == "leave out" and any(GROUP in box.flags for box in real):
            left_groups.append(id)
        elif own := checked_boxes(real, notes, f"photo {id}"):
            kept_boxes[id] = own
    if depictions:
        drawings = counted(depictions, "box", "boxes")
        told.append(f"Left out: {drawings} around drawings and the like. depictions = true takes them.")
    if left_groups:
        told.append(f"Left out: {counted(len(left_groups), 'photo')} with a box around many things (groups).")
    return kept_boxes


def _boxes_of_table(kept, labels: Mapping[str, str], notes: BoxNotes) -> Iterator[tuple[str, Box]]:
    """Yield the id of a photo and a box, for each row."""
    at = kept.columns
    corners = [at[name] for name in ("xmin", "ymin", "xmax", "ymax")]
    flags = [(at[name], flag) for name, flag in sorted(FLAG_COLUMNS.items()) if name in at]
    id_at, label_at = at["imageid"], at["labelname"]
    for cells in kept.rows(notes):
        own = tuple(sorted(flag for n, flag in flags if cells[n] == "1" or is_set(cells[n])))
        yield cells[id_at], Box(labels[cells[label_at]], *(number_in(cells[n]) for n in corners), own)


def _photos(
    project: Project, boxes: Mapping[str, tuple[Box, ...]], notes: BoxNotes, told: list[str]
) -> list[SourcePhoto]:
    """Return the photos of the image tables that have boxes and are not gone."""
    photos: dict[str, SourcePhoto | None] = {}
    for place in as_list(project.open_images["images"]):
        kept = wanted_rows(project, place, "ImageID", boxes.keys(), notes, needed=("OriginalURL",))
        if "rotation" not in kept.columns:
            told.append(f"{place} has no column Rotation: its photos are taken as their files say.")
        for cells in kept.rows(notes):
            row = {name: one_line(cells[n]).strip() for name, n in kept.columns.items()}
            if row["imageid"] not in photos:
                photos[row["imageid"]] = _photo_of_row(row, boxes[row["imageid"]], notes)
    for id in boxes:
        if id not in photos:
            notes.left("photo", "with boxes and without a row in the image tables", id)
    return [photo for photo in photos.values() if photo]


def _photo_of_row(row: Mapping[str, str], boxes: tuple[Box, ...], notes: BoxNotes) -> SourcePhoto | None:
    """Return one photo of an image table, its boxes turned; None if it cannot be fetched, or not be turned."""
    id, url, turn = row["imageid"], row["originalurl"], row.get("rotation", "0")
    if turn.casefold() in ("", "nan"):
        notes.left("photo", "gone from Flickr when the table was made (no Rotation)", id)
        return None
    rotation = number_in(turn)
    if rotation not in (0, *STORED_AS):
        notes.left("photo", "with a Rotation other than 0, 90, 180 or 270", f"{id}: {turn}")
        return None
    if not url.startswith(("https://", "http://")):
        notes.left("photo", "without a web address", f"{id}: {url}")
        return None
    given = {
        "side": SIDE_NAMES.get(row.get("subset", "").casefold(), ""),
        "creator": row.get("author", ""),
        "license": row.get("license", ""),
        "page_url": row.get("originallandingurl", ""),
    }
    smaller = row.get("thumbnail300kurl", "") if not rotation else ""  # it may be turned already
    md5 = row.get("originalmd5", "")
    return SourcePhoto(
        url,
        tuple(turned_box(box, STORED_AS.get(rotation, 1)) for box in boxes),
        title=row.get("title", ""),
        given=given,
        thumbnail=smaller if smaller.startswith(("https://", "http://")) else "",
        rotation=int(rotation),
        md5=md5 if MD5.fullmatch(md5) else "",
    )


def _with_address(project: Project, photos: Iterable[SourcePhoto], notes: BoxNotes) -> list[SourcePhoto]:
    """Return the photos that stand in a list of addresses, if there is such a list; all photos if there is none."""
    photos, found = list(photos), set()
    places = as_list(project.open_images.get("addresses"))
    if not places:
        return photos
    wanted = {photo.address.encode() for photo in photos}
    for place in places:
        for n, block in enumerate(line_blocks(place, allowed_hosts=project.allowed_hosts)):
            if n == 0 and not block.removeprefix(b"\xef\xbb\xbf").startswith(URL_LIST):
                raise FieldguideError(
                    f"{place} is not a list of addresses: such a list begins with {URL_LIST.decode()}."
                )
            found |= wanted & {line.partition(b"\t")[0] for line in block.splitlines()}
    for photo in photos:
        if photo.address.encode() not in found:
            notes.left("photo", "whose address is in none of the lists", photo.address)
    return [photo for photo in photos if photo.address.encode() in found]
