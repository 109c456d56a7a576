"""
What a project file leaves open, settled before its settings are checked: paths, and the labels of its sources.

Foundation of the project file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from utils.errors import FieldguideError
from utils.listing import label_folders
from utils.names import as_label, unsafe_name
from utils.places import is_archive, is_table, labels_in
from utils.refusals import entangled, meant_source

SEARCH, SAMPLE = "duckduckgo", "sample"  # sources, beside places on this computer
OPEN_IMAGES = "open_images"  # … and of photos with boxes
TABLES_OF_BOXES = ("classes", "boxes", "images", "addresses", "hierarchy")  # keys of [open_images]: files or addresses
PAINT = "paint"  # a mask_source: masks are painted in 03a, and no folder holds them


def settled(settings: Mapping, folder: Path, roots: Mapping[str, str], weight_files: Sequence[str]) -> dict:
    """
    Return `settings` with paths made absolute from `folder`, and the labels of the sources where [labels] is missing.

    `roots` are the defaults of data_dir and models_dir; a value of weights that ends in one of `weight_files` is a
    path. What has a wrong type is left as it is, for whoever checks it. Raises FieldguideError if a source without
    [labels] is not there, or this project's own files lie in it.
    """
    whole = dict(settings)
    for key in ("data_dir", "models_dir", "mask_source", "weights"):
        if (
            isinstance(whole.get(key), str)
            and whole[key]
            and (key, whole[key]) != ("mask_source", PAINT)
            and (key != "weights" or whole[key].endswith(tuple(weight_files)))
        ):
            whole[key] = _absolute(whole[key], folder)
    study = whole.get("study")
    if isinstance(study, dict) and isinstance(study.get("weights"), list):
        files = [isinstance(each, str) and each.endswith(tuple(weight_files)) for each in study["weights"]]
        paths = [_absolute(w, folder) if file else w for w, file in zip(study["weights"], files, strict=True)]
        whole["study"] = study | {"weights": paths}
    tables = whole.get("open_images")
    if isinstance(tables, dict):
        whole["open_images"] = {
            key: _located(value, folder) if key in TABLES_OF_BOXES else value for key, value in tables.items()
        }
    source = whole.get("source", SEARCH)
    sources = [source] if isinstance(source, str) else source
    if not isinstance(sources, list) or not all(isinstance(s, str) and s for s in sources):
        return whole
    words, detects = (SEARCH, SAMPLE, OPEN_IMAGES), whole.get("task") == "detect"
    for given in sources:
        if (meant := meant_source(given, *words[:2])) and not (folder / Path(given).expanduser()).exists():
            raise FieldguideError(f'source = {given!r}: there is no such folder; did you mean "{meant}"?')
    sources = [s.lower() if s.lower() in words else str((folder / Path(s).expanduser()).resolve()) for s in sources]
    whole["source"] = sources[0] if isinstance(source, str) else sources
    places, labels = [Path(s) for s in sources if s not in words], whole.get("labels", {})
    folders = {place: label_folders(place) for place in places if place.is_dir() and not detects}
    if labels == {} and not detects:
        raw = _raw(whole, roots)
        whole["labels"] = {label: [] for place in places for label in _labels_of(place, raw)}
    elif isinstance(labels, dict):  # a key may be a name in the sources that is no label as it stands
        there = {path.name for own in folders.values() for paths in own.values() for path in paths}
        tables = any(is_table(place) or is_archive(place) for place in places)
        named = {as_label(label) if tables or label in there else label: value for label, value in labels.items()}
        whole["labels"] = named if len(named) == len(labels) else labels
    _require_apart(whole, {place: folders.get(place) for place in places}, roots, chosen=labels != {})
    return whole


def _absolute(path: str, folder: Path) -> str:
    """Return a path that counts from `folder`, absolute."""
    return str((folder / Path(path).expanduser()).resolve())


def _located(value, folder: Path):
    """Return a path, or each of a list, absolute; an address as it is, and so what is neither."""
    if isinstance(value, list):
        return [_located(each, folder) for each in value]
    return value if not isinstance(value, str) or not value or "://" in value else _absolute(value, folder)


def require_detectable(project) -> None:
    """Raise ValueError if the settings of a project that finds things in photos do not go together."""
    if words := [source for source in project.sources if source in (SEARCH, SAMPLE)]:
        raise ValueError(
            f'task = "detect" takes photos with boxes, and {words[0]!r} has none. Set source to "{OPEN_IMAGES}", or to '
            "a folder of photos with boxes as VOC, YOLO or COCO files"
        )
    if OPEN_IMAGES in project.sources and not project.labels:
        raise ValueError('[labels] is missing. Name the classes of Open Images to find, such as "Boat" = []')
    if project.open_images and OPEN_IMAGES not in project.sources:
        raise ValueError(f'[open_images] goes with source = "{OPEN_IMAGES}". Set it, or remove the section')
    for key, plain in (
        ("train", "all"),
        ("ensemble", 1),
        ("mask", "none"),
        ("mask_source", ""),
        ("individuals", False),
        ("class_weights", False),
        ("cache", "none"),
    ):
        if getattr(project, key) != plain:
            raise ValueError(f'{key} = {getattr(project, key)!r} does not go with task = "detect". Remove it')
    if not isinstance(project.size, int) or project.size % 32:
        raise ValueError(f'size = {project.size}: with task = "detect" it is one multiple of 32, such as 224')


def _require_apart(
    whole: dict, places: Mapping[Path, Mapping[str, list[Path]] | None], roots: Mapping[str, str], *, chosen: bool
) -> None:
    """
    Raise FieldguideError if looking for photos in a source would find what this project itself wrote.

    `places` are the sources, each with its folders by label; None if it is no folder.
    """
    name, labels = whole.get("name"), whole["labels"]
    if not isinstance(name, str) or unsafe_name(name) or not isinstance(labels, dict):
        return
    for key, default in roots.items():
        root = whole.get(key, default)
        for source, there in places.items() if isinstance(root, str) else ():
            own = (Path(root) / normalize("NFC", name)).resolve()
            folders = [source / label for label in labels if not unsafe_name(label)]
            folders += [path for label in labels for path in (there or {}).get(label, ())]
            if told := entangled(source, own, folders, chosen=chosen or there is None):
                raise FieldguideError(f"{told}, or set {key} to another folder.")


def _raw(whole: dict, roots: Mapping[str, str]) -> Path | None:
    """Return the folder of the originals that were gathered, None where the settings do not say."""
    root, name = whole.get("data_dir", roots["data_dir"]), whole.get("name")
    known = isinstance(root, str) and isinstance(name, str) and not unsafe_name(name)
    return Path(root) / normalize("NFC", name) / "raw" if known else None


def _labels_of(place: Path, raw: Path | None) -> list[str]:
    """
    Return the labels that a source without [labels] has.

    Only 01 needs the source. Where its disk is not there, the labels are those that were gathered into `raw`.
    """
    if not place.exists() and raw and raw.is_dir() and (gathered := label_folders(raw)):
        return list(gathered)
    return labels_in(place)
