"""
Stage 07: the page, a folder that runs model.onnx in a visitor's browser.

Reads model.onnx and card.json of models/<name>, and the files of utils/page; writes models/<name>/page. page.json says what
the model is, and comes last: it names the SHA-256 of the model that it was written for, so that a set that a kill
tore apart is known. Files that a person added to the folder stay.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from utils.dataset import Dataset, seeded_rank
from utils.errors import FieldguideError
from utils.export.agreement import AGREEMENT, disagreement
from utils.export.awkward import awkward_pictures
from utils.export.placing import EARLIER, ONNX, README
from utils.export.plainwords import about
from utils.inference import Classifier, Prediction, load_classifier
from utils.page import RUNTIME, VERSIONS, PageAnswer, ask_page, cached_runtime, runtime_folder, space_readme
from utils.pictures import format_of, height_and_width
from utils.project import Project
from utils.storage import explained, file_hash, locked, make_folder, sync_folder, write_whole
from utils.words import counted

FOLDER, FACTS = "page", "page.json"
ENGINES = {
    "wasm": ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
HEIC = "libheif-bundle.mjs"
MOST_ASKED = 40  # held-out photos that the page is asked about; each takes up to a fifth of a second
WIDE_AGREEMENT = 5e-3  # where a browser converts colours by its own rounding
MOST_NAMED, LONGEST_TITLE = 4, 60  # labels in the title, and their letters
CDN = "https://cdn.jsdelivr.net"
NOT_FOR_BROWSERS = ("TIFF", "JXL")


@dataclass(frozen=True)
class WrittenPage:
    """What `write_page` wrote, and whether a browser was asked about pictures before."""

    folder: Path
    asked: int | None  # pictures that a browser gave model.onnx's own answers to; None if there is no browser here
    bytes: int  # of all its files


def write_page(dataset: Dataset) -> WrittenPage | str:
    """
    Write models/<name>/page for the model.onnx that is there; where the runtime is not cached, return how to get it.

    A browser of this machine is asked first, about held-out photos and drawn awkward files. Raises FieldguideError, and
    leaves the page as it was, if it answers otherwise than model.onnx, or if 07 has not exported a model.
    """
    project = dataset.project
    runtime = cached_runtime()
    if runtime is None and project.page == "local":
        return f"No page was written: what it runs on is not in {runtime_folder()} yet. Type: make page"
    path = project.models / ONNX
    classifier = load_classifier(path)
    with locked(project.models):
        staged = make_folder(project.models / f".{FOLDER}")
        try:
            write_files(staged, project, path, classifier, runtime or {})
            asked = require_same_answers(staged, classifier, held_out_files(dataset)) if runtime else None
            folder = put_page_in_place(staged, project.models / FOLDER)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file() and ".git" not in each.parts)
    return WrittenPage(folder, asked, size)


def write_files(
    folder: Path, project: Project, model: Path, classifier: Classifier, runtime: Mapping[str, Path]
) -> None:
    """Write all files of the page into an empty folder."""
    for name, data in web_files().items():
        write_whole(folder / name, data if project.page == "local" else with_cdn(data, name))
    write_whole(folder / ONNX, model.read_bytes())
    if project.page == "local":
        make_folder(folder / "runtime")
        for name, path in runtime.items():
            write_whole(folder / name, path.read_bytes())
    facts = page_facts(project, model, classifier)
    write_whole(folder / README, space_readme(facts["title"], facts["verdict"]))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    facts["files"] = {path.relative_to(folder).as_posix(): file_hash(path) for path in paths}
    told = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    facts["version"] = hashlib.sha256(told.encode()).hexdigest()
    write_whole(folder / FACTS, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def web_files() -> dict[str, bytes]:
    """Return the page's own files: name → bytes."""
    web = files("utils.page") / "web"
    return {each.name: each.read_bytes() for each in sorted(web.iterdir(), key=lambda each: each.name)}


def page_facts(project: Project, model: Path, classifier: Classifier) -> dict:
    """Return what page.json says of a model, but for its files and version."""
    recipe, (verdict, lines) = classifier.recipe, about(model, classifier)
    sizes = {name: list(height_and_width(getattr(recipe, name))) for name in ("size", "extra")}
    shown = {"longest_side": recipe.longest_side, "resample": recipe.resample, "bits": recipe.bits}
    return {
        "name": project.name,
        "title": title(classifier.labels),
        "labels": list(classifier.labels),
        "recipe": sizes | shown,
        "threshold": classifier.threshold,
        "verdict": verdict,
        "about": lines,
        "model": {"file": ONNX, "bytes": model.stat().st_size, "sha256": file_hash(model)},
        "runtime": addresses(project.page),
        "probe": classifier.probabilities(probe(sizes["size"])[None])[0].tolist(),
    }


def title(labels: Sequence[str]) -> str:
    """
    Return the question that the page answers.

    >>> title(["ants", "bees"]), title(["a", "b", "c", "d", "e"])
    ('Which one is it: ants or bees?', 'Which one is it?')
    """
    if not 2 <= len(labels) <= MOST_NAMED or sum(map(len, labels)) > LONGEST_TITLE:
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


def with_cdn(data: bytes, name: str) -> bytes:
    """Let index.html load the runtime from the public server too; other files stay as they are."""
    if name != "index.html":
        return data
    text = data.decode()
    for rule in ("script-src 'self'", "connect-src 'self'"):
        text = text.replace(rule, f"{rule} {CDN}", 1)
    return text.encode()


def held_out_files(dataset: Dataset) -> dict[str, bytes]:
    """Return some photos of validation and test set, drawn by the seed: name → bytes."""
    held_out, seed = dataset.on("valid", "test"), dataset.project.seed
    drawn = sorted(held_out.ids, key=lambda id: seeded_rank(seed, id))[:MOST_ASKED]
    return {dataset[id].path.name: dataset[id].path.read_bytes() for id in drawn}


def require_same_answers(folder: Path, classifier: Classifier, photos: Mapping[str, bytes]) -> int | None:
    """
    Ask a page about photos and the drawn awkward files, and refuse answers other than model.onnx's.

    Returns how many pictures it was asked about, or None if this machine has no browser to ask with.
    """
    pictures = dict(photos) | awkward_pictures()
    answers = ask_page(folder, pictures)
    if answers is None:
        return None
    for (name, data), answer, ours in zip(
        pictures.items(), answers, classifier.predict(pictures.values()), strict=True
    ):
        if answer.error and (ours.error or format_of(data) in NOT_FOR_BROWSERS):
            continue
        theirs = _prediction(answer, classifier.labels)
        within = WIDE_AGREEMENT if has_profile(data) else AGREEMENT
        if found := disagreement(theirs, ours, within=within):
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


def _prediction(answer: PageAnswer, labels: Sequence[str]) -> Prediction:
    """Return what the page said as the classifier would say it."""
    if answer.error:
        return Prediction(error=answer.error)
    probabilities = dict(zip(labels, answer.probabilities, strict=True))
    label = max(probabilities, key=probabilities.get)
    return Prediction(label, probabilities[label], probabilities)


def put_page_in_place(staged: Path, folder: Path) -> Path:
    """
    Put the files of a new page into its folder, page.json last, and take away those of an earlier one; return the folder.

    What a person added stays. README.md stays if a person changed it; another file that was changed is kept, under its
    SHA-256, in exports/page.
    """
    make_folder(folder)
    before = earlier_files(folder)
    new = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
    for name in sorted(new, key=lambda name: name == Path(FACTS)):
        target = folder / name
        there = file_hash(target) if target.is_file() else None
        if there == file_hash(staged / name):
            continue
        changed = there is not None and name != Path(FACTS) and there != before.get(name.as_posix())
        if changed and name == Path(README):
            continue
        if changed:
            kept = make_folder(folder.parent / EARLIER / FOLDER) / f"{there[:16]}-{name.name}"
            write_whole(kept, target.read_bytes())
        make_folder(target.parent)
        with explained(target):
            (staged / name).replace(target)
    for name, sha256 in before.items():
        if Path(name) not in new and (folder / name).is_file() and file_hash(folder / name) == sha256:
            (folder / name).unlink()
    sync_folder(folder)
    return folder


def earlier_files(folder: Path) -> dict[str, str]:
    """Return the files that the page.json of a folder names: path → SHA-256; none where it cannot be read."""
    try:
        named = json.loads((folder / FACTS).read_text(encoding="utf-8"))["files"]
        inside = {name: str(sha256) for name, sha256 in named.items() if (folder / name).resolve().is_relative_to(folder.resolve())}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return inside


def page_sentence(page: WrittenPage | str) -> str:
    """
    Return in sentences what was written, or why nothing was.

    >>> page_sentence(WrittenPage(Path("models/ants/page"), 66, 61_000_000))[:65]
    'The page is in models/ants/page (61 MB). A browser gave the same '
    """
    if isinstance(page, str):
        return page
    asked = (
        f"A browser gave the same answers to {counted(page.asked, 'picture')} as model.onnx."
        if page.asked
        else "It was not asked whether it gives the same answers: there is no Chromium, Chrome or Edge here."
    )
    return f"The page is in {page.folder} ({page.bytes / 1e6:.0f} MB). {asked} Look at it: make page"
