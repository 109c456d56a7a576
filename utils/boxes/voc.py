"""
Pascal VOC: one XML file per photo, corners in pixels.

An XML file from a stranger may expand to gigabytes or name files of this computer: entities are refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException, ElementTree

from utils.boxes.box import Box
from utils.boxes.drawn import Drawn, PhotoBoxes, number_in, said_size
from utils.boxes.finder import PhotoIndex
from utils.boxes.source import BoxNotes, flags_of

LARGEST_XML = 5_000_000  # bytes: of 20,000 boxes
VOC_FLAGS = {name: name for name in ("difficult", "occluded", "truncated")}
VOC_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    folder: Path, texts: Iterable[Path], index: PhotoIndex, notes: BoxNotes
) -> tuple[list[PhotoBoxes], set[Path]]:
    """Return what the XML files in a folder say of its photos, and which files were read."""
    found, files = {}, set()
    for path in (path for path in texts if path.suffix.casefold() == ".xml"):
        where = index.inside(path)
        try:
            root = xml_root(path)
        except ValueError as error:
            notes.left("XML file", str(error), where)
            files.add(path)
            continue
        if root.tag != "annotation":
            continue
        files.add(path)
        photo, problem = index.of_file(path)
        named = (root.findtext("filename") or "").strip()
        if not photo and named:
            photo, problem = index.named(named, path.parent)
        if not photo:
            notes.left("XML file", f"with {problem}", where)
        elif photo in found:
            notes.left("XML file", "on a photo that another is on, too", where)
        else:
            size = said_size(root.findtext("size/width"), root.findtext("size/height"))
            found[photo] = PhotoBoxes(photo, tuple(map(_voc_object, root.iter("object"))), size)
    return list(found.values()), files


def xml_root(path: Path) -> Element:
    """Return the root of an XML file, or raise ValueError with what is wrong with it."""
    try:
        large = path.stat().st_size > LARGEST_XML
        root = None if large else ElementTree.parse(path).getroot()
    except DefusedXmlException:
        raise ValueError("with entities, which could reach out of it") from None
    except OSError as error:
        raise ValueError(f"that cannot be read ({error.strerror or error})") from None
    except (ParseError, LookupError, ValueError):
        raise ValueError("that cannot be read as XML") from None
    if large:
        raise ValueError(f"larger than {LARGEST_XML // 1_000_000} MB")
    return root


def _voc_object(thing: Element) -> Drawn:
    """Return one <object>."""
    corners = [number_in(thing.findtext(f"bndbox/{name}")) for name in VOC_CORNERS]
    said = [(child.tag, child.text) for child in thing]
    return Drawn(thing.findtext("name") or "", tuple(corners), flags_of(said, VOC_FLAGS))


def voc_text(name: str, size: tuple[int, int], boxes: Sequence[Box]) -> str:
    """Return the XML of one photo, whose upright picture has `size` (width, height)."""
    root = Element("annotation")
    SubElement(root, "filename").text = name
    sides = SubElement(root, "size")
    for tag, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        SubElement(sides, tag).text = str(value)
    for box in boxes:
        thing = SubElement(root, "object")
        SubElement(thing, "name").text = box.label
        for flag in VOC_FLAGS:
            SubElement(thing, flag).text = str(int(flag in box.flags))
        place = SubElement(thing, "bndbox")
        for tag, value in zip(VOC_CORNERS, in_pixels(box, size), strict=True):
            SubElement(place, tag).text = value
    indent(root)
    return tostring(root, encoding="unicode") + "\n"


def in_pixels(box: Box, size: tuple[int, int]) -> Iterator[str]:
    """Yield the corners of a box in pixels, with digits enough to come back as they were."""
    for corner, side in zip(box.corners, size * 2, strict=True):
        yield f"{corner * side:.5f}".rstrip("0").rstrip(".")
