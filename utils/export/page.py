"""
Stage 07: the page, a folder that runs model.onnx in a visitor's browser.

Reads model.onnx and card.json of models/<name>, and the files of utils/page; writes models/<name>/page. page.json says
what the model is, and comes last: it names the SHA-256 of the model that it was written for, so that a set that a kill
tore apart is known. Files that a person added to the folder stay.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from utils.dataset import read_dataset, read_split, seeded_rank
from utils.errors import FieldguideError
from utils.export.awkward import awkward_pictures
from utils.export.boxpage import box_page_facts, require_boxes_of_page
from utils.export.difference import AGREEMENT, disagreement
from utils.export.placing import EARLIER, INT8, ONNX, README, workshop
from utils.export.plainwords import about
from utils.inference import GALLERY, Classifier, Detector, ModelError, Prediction, load_model
from utils.page import NOTICE, RUNTIME, VERSIONS, PageAnswer, ask_page, cached_runtime, runtime_folder, space_readme
from utils.pictures import format_of, height_and_width
from utils.project import Project
from utils.storage import explained, file_hash, locked, make_folder, sync_folder, write_whole
from utils.words import counted

PAGE_FOLDER, FACTS = "page", "page.json"
ENGINES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
HEIC = "libheif-bundle.mjs"
MOST_ASKED = 40  # held-out photos that the page is asked about; each takes up to a fifth of a second
WIDE_AGREEMENT = 5e-3  # where a browser converts colours by its own rounding
MOST_IN_TITLE, LONGEST_TITLE = 4, 60  # labels in the title, and their letters
CDN = "https://cdn.jsdelivr.net"
WITH_POLICY = ("index.html", "offline.js")
NOT_FOR_BROWSERS = ("TIFF", "JXL")


@dataclass(frozen=True)
class WrittenPage:
    """What `write_page` wrote, and what a browser said of it before."""

    folder: Path
    asked: int | None  # pictures that it gave model.onnx's own answers to; None if no browser was asked
    bytes: int  # of all its files


def write_page(project: Project) -> WrittenPage:
    """
    Write models/<name>/page for the model.onnx that 07 exported; a page that is the same already is left as it is.

    A browser of this machine is asked first, about held-out photos and drawn awkward files. Raises FieldguideError, and
    leaves the page as it was, if there is no model, what the page runs on is not cached, or the page answers otherwise
    than model.onnx.
    """
    notice = {NOTICE: Path(str(files("utils.page") / Path(NOTICE).name))}
    runtime = notice if project.page == "cdn" else cached_runtime()
    if runtime is None:
        raise FieldguideError(f"What the page runs on is not in {runtime_folder()} yet. Type: make page")
    path, folder = model_file(project), project.models / PAGE_FOLDER
    classifier = load_model(path)
    with locked(project.models), workshop(project.models, f".{PAGE_FOLDER}") as staged:
        facts = write_files(staged, project, path, classifier, runtime)
        earlier = facts_of(folder)
        if is_whole(folder, earlier) and earlier["version"] == facts["version"] and earlier.get("asked"):
            return WrittenPage(folder, earlier["asked"], size_of(folder, earlier))
        # A page that loads its runtime from the network is not asked: this machine may have none.
        photos = {} if project.page == "cdn" else held_out_files(project)
        facts["asked"] = None if project.page == "cdn" else require_same_answers(staged, classifier, photos)
        write_facts(staged, facts)
        put_page_in_place(staged, folder, facts)
    return WrittenPage(folder, facts["asked"], size_of(folder, facts))


def model_file(project: Project) -> Path:
    """Return the model that the page gets: the small one where the project asks for it and 07 kept it."""
    small = project.models / INT8
    return small if project.int8 and small.exists() else project.models / ONNX


def write_files(
    folder: Path, project: Project, model: Path, classifier: Classifier | Detector, runtime: Mapping[str, Path]
) -> dict:
    """Write all files of the page into an empty folder, and return what page.json says."""
    for name, data in web_files().items():
        write_whole(folder / name, with_cdn(data) if project.page == "cdn" and name in WITH_POLICY else data)
    facts = page_facts(project, model, classifier)
    for name in [model.name, *([GALLERY] if facts["known"] else [])]:
        write_whole(folder / name, model.with_name(name).read_bytes())
    for name, path in runtime.items():
        make_folder((folder / name).parent)
        write_whole(folder / name, path.read_bytes())
    write_whole(folder / ".nojekyll", "")  # GitHub would take README.md for a template
    write_whole(folder / README, space_readme(facts["title"], facts["verdict"]))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    facts["files"] = {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}
    told = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    facts["version"] = hashlib.sha256(told.encode()).hexdigest()
    write_facts(folder, facts)
    return facts


def write_facts(folder: Path, facts: Mapping) -> None:
    """Write page.json."""
    write_whole(folder / FACTS, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def web_files() -> dict[str, bytes]:
    """Return the page's own files: name → bytes."""
    web = files("utils.page") / "web"
    return {each.name: each.read_bytes() for each in sorted(web.iterdir(), key=lambda each: each.name)}


def page_facts(project: Project, model: Path, classifier: Classifier | Detector) -> dict:
    """Return what page.json says of a model, but for its files and version."""
    verdict, lines = about(model, classifier)
    shared = {
        "name": project.name,
        "labels": list(classifier.labels),
        "threshold": classifier.threshold,
        "verdict": verdict,
        "about": lines,
        "model": as_page_names(model),
        "known": None,
        "runtime": addresses(project.page),
    }
    recipe = classifier.recipe
    if isinstance(classifier, Detector):
        return shared | box_page_facts(classifier, probe([recipe.size, recipe.size]))
    sizes = {name: list(height_and_width(getattr(recipe, name))) for name in ("size", "extra")}
    own = {
        "title": title(classifier.labels),
        "recipe": sizes | {"longest_side": recipe.longest_side, "resample": recipe.resample, "bits": recipe.bits},
        "known": as_page_names(model.with_name(GALLERY)) if shows_known_photos(classifier) else None,
        "probe": classifier.probabilities(probe(sizes["size"])[None])[0].tolist(),
    }
    return shared | own


def as_page_names(path: Path) -> dict:
    """Return by what page.json lets the page know one of its files."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)}


def shows_known_photos(classifier: Classifier) -> bool:
    """Return whether a model has known photos to show; refuse to go without them where it should."""
    try:
        return classifier.network.describes and bool(classifier.gallery)
    except ModelError as error:
        raise FieldguideError(f"The page cannot show the known photos: {error}") from None


def title(labels: Sequence[str]) -> str:
    """
    Return the question that the page answers.

    >>> title(["ants", "bees"]), title(["a", "b", "c", "d", "e"])
    ('Which one is it: ants or bees?', 'Which one is it?')
    """
    if not 2 <= len(labels) <= MOST_IN_TITLE or sum(map(len, labels)) > LONGEST_TITLE:
        return "Which one is it?"
    return f"Which one is it: {', '.join(labels[:-1])} or {labels[-1]}?"


def probe(size: Sequence[int]) -> np.ndarray:
    """
    Return the drawn picture, uint8 (H, W, 3), that the page tries its model on; network.js draws the same.

    >>> probe([2, 2])[1, 1].tolist()
    [20, 49, 78]
    """
    rows, columns, colours = np.indices((*size, 3))
    return ((columns * 7 + rows * 13 + colours * 29) % 256).astype(np.uint8)


def addresses(place: str) -> dict:
    """Return where the page finds its runtime: beside it, each with its SHA-256, or on a public server (jsDelivr)."""

    def address(name: str) -> str:
        pinned = RUNTIME[f"runtime/{name}"]
        if place == "local":
            return f"runtime/{name}?{pinned.sha256}"
        return f"{CDN}/npm/{pinned.package}@{VERSIONS[pinned.package]}/{pinned.member}"

    return {engine: [address(name) for name in names] for engine, names in ENGINES.items()} | {"heic": address(HEIC)}


def with_cdn(data: bytes) -> bytes:
    """Return a file with a policy that lets the page load the runtime from the public server, too."""
    text = data.decode()
    for rule in ("script-src 'self'", "connect-src 'self'"):
        text = text.replace(rule, f"{rule} {CDN}", 1)
    return text.encode()


def held_out_files(project: Project) -> dict[str, bytes]:
    """Return some photos of validation and test set, drawn by the seed: name → bytes; none where they are not here."""
    try:
        if project.task == "detect":  # its photos lie in one folder, for each may show many things
            sides = {id: side for id, (_, side) in read_split(project).items()}
            paths = {id: project.images / f"{id}.jpg" for id, side in sides.items() if side in ("valid", "test")}
        else:
            paths = {picture.id: picture.path for picture in read_dataset(project).on("valid", "test")}
    except FieldguideError:  # a folder of models that was copied without its photos
        return {}
    drawn = sorted((id for id in paths if paths[id].is_file()), key=lambda id: seeded_rank(project.seed, id))
    return {paths[id].name: paths[id].read_bytes() for id in drawn[:MOST_ASKED]}


def require_same_answers(folder: Path, classifier: Classifier | Detector, photos: Mapping[str, bytes]) -> int | None:
    """
    Ask a page about photos and the drawn awkward files, and refuse answers other than model.onnx's.

    Returns how many pictures it was asked about, or None if this machine has no browser to ask with.
    """
    pictures = dict(photos) | awkward_pictures()
    answers = ask_page(folder, pictures)
    if answers is None:
        return None
    within = {
        name: WIDE_AGREEMENT if has_profile(data) else AGREEMENT
        for name, data in pictures.items()
        if format_of(data) not in NOT_FOR_BROWSERS
    }
    if isinstance(classifier, Detector):
        require_boxes_of_page(classifier, pictures, answers, within)
        return len(pictures)
    for name, answer, ours in zip(pictures, answers, classifier.predict(pictures.values()), strict=True):
        if answer.error and (ours.error or name not in within):
            continue
        theirs = said_by_page(answer, classifier.labels)
        if found := disagreement(theirs, ours, within=within.get(name, 0.0)):
            raise FieldguideError(
                f"The page and model.onnx disagree on {name}: {found}. No page was written. Please report it, with the "
                "browser's version."
            )
    return len(pictures)


def has_profile(data: bytes) -> bool:
    """Return whether a picture's file carries a colour profile."""
    with suppress(OSError), Image.open(io.BytesIO(data)) as image:
        return "icc_profile" in image.info
    return False


def said_by_page(answer: PageAnswer, labels: Sequence[str]) -> Prediction:
    """Return what the page said as the classifier would say it."""
    if answer.error:
        return Prediction(error=answer.error)
    probabilities = dict(zip(labels, answer.probabilities, strict=True))
    label = max(probabilities, key=probabilities.get)
    return Prediction(label, probabilities[label], probabilities)


def put_page_in_place(staged: Path, folder: Path, facts: Mapping) -> None:
    """
    Put the files that `facts` names into the page's folder, page.json last, and take away those of an earlier page.

    What a person added stays. README.md stays if a person changed it; another file that was changed is kept, under its
    SHA-256, in exports/page.
    """
    make_folder(folder)
    before, new = facts_of(folder).get("files", {}), facts["files"]
    for name in (*new, FACTS):
        target = folder / name
        there = file_hash(target) if target.is_file() else None
        by_a_person = there is not None and name != FACTS and there != before.get(name)
        if (there and there == new.get(name)) or (by_a_person and name == README):
            continue
        if by_a_person:
            kept = make_folder(folder.parent / EARLIER / PAGE_FOLDER) / f"{there[:16]}-{target.name}"
            write_whole(kept, target.read_bytes())
        make_folder(target.parent)
        with explained(target):
            (staged / name).replace(target)
    for name in before.keys() - new.keys():
        if (folder / name).is_file() and file_hash(folder / name) == before[name]:
            (folder / name).unlink()
    sync_folder(folder)


def facts_of(folder: Path) -> dict:
    """Return a folder's page.json; {} if it is missing or broken, or names files outside the folder."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        inside = all((folder / name).resolve().is_relative_to(folder.resolve()) for name in facts["files"])
        return facts if inside and isinstance(facts["version"], str) else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def is_whole(folder: Path, facts: Mapping) -> bool:
    """Return whether all files of a page are there as page.json names them; a person may have changed README.md."""
    return bool(facts) and all(
        (folder / name).is_file() and (name == README or file_hash(folder / name) == sha256)
        for name, sha256 in facts["files"].items()
    )


def size_of(folder: Path, facts: Mapping) -> int:
    """Return the bytes of a page's files."""
    return sum((folder / name).stat().st_size for name in facts["files"])


def page_sentence(project: Project) -> str:
    """Write the page where what it runs on is cached; return in sentences what was written, or why nothing was."""
    if project.page == "local" and cached_runtime() is None:
        return (
            "No page was written: what it runs on is fetched once per machine. Type “make page” in a terminal; it "
            "fetches that, writes the page and shows it."
        )
    page = write_page(project)
    asked = (
        f"A browser gave the same answers to {counted(page.asked, 'picture')} as model.onnx."
        if page.asked
        else "No browser was asked whether it gives the same answers: "
        + ("its runtime is on a public server." if project.page == "cdn" else "there is no Chromium, Chrome or Edge.")
    )
    return f"The page is in {page.folder} ({page.bytes / 1e6:.0f} MB). {asked} To look at it, type: make page"
