"""
The card: what a model is, how good it is and what to beware of.

Reads what earlier stages wrote and found out; stage 07 writes it into models/<name> as card.json, and the same in plain
words (`modelcard`) and where the pictures are from (`attribution`) beside it. Needs neither torch nor fastai.
"""

import json
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Required

from pydantic import ConfigDict, FailFast, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from utils.errors import FieldguideError
from utils.export.attribution import UNKNOWN
from utils.export.modelcard import capitalised, counted, judging_side, listed, percent
from utils.project import SAMPLE, SEARCH, Project
from utils.tables import FOLDER, one_line

PACKAGES = ("fastai", "torch", "torchvision", "onnx", "numpy", "Pillow")
LARGEST = 3_000_000  # bytes of a card.json; one of a thousand labels has a million
FEW_TRAINED, FEW_JUDGED = 50, 30  # pictures of a label; where 24 of 30 are right, the interval is 28 points wide
WIDE = 0.1  # of the interval of accuracy: more is worth a warning
TOLD = 3  # pairs of labels, of those confused most


class Figure(TypedDict):
    """A figure as `scores.figure` makes it; one that cannot be had is None and has a ``why``."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    value: float | None
    low: float | None
    high: float | None
    n: int


class Unknown(TypedDict, total=False):
    """When the model says "unknown", as `abstain` fitted it."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    threshold: float | None
    why: str
    target_error: float
    reached: bool
    error: Figure
    coverage: Figure
    curve: Annotated[list[dict], FailFast()]
    unseen: dict


class Card(TypedDict, total=False):
    """The keys of card.json, which models/README.md explains; a card made by an earlier version has fewer."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    labels: Required[Annotated[list[str], FailFast()]]  # a million wrong ones are one problem
    name: str
    sources: Annotated[list[str], FailFast()]
    counts: dict[str, dict[str, int]]
    licences: dict[str, int]
    valid: dict[str, Figure]
    test: dict[str, Figure]
    by_label: dict[str, dict[str, dict[str, Figure | int]]]
    test_opened: int
    temperature: float
    unknown: Unknown
    limits: Annotated[list[str], FailFast()]
    seed: int
    arch: str
    weights: str
    size: int
    epochs: int
    versions: dict[str, str]
    sha256: dict[str, str]
    fingerprint: str
    created: str


def read_card(path: str | Path) -> dict:
    """
    Return what a model's card.json holds; `path` is the file, or the folder or the model it lies beside.

    Raises
    ------
    FieldguideError
        If there is none, or it is no card that stage 07 wrote: too large, no JSON, numbers that are none, other types.
    """
    path = Path(path)
    card = path / "card.json" if path.is_dir() else path.with_name("card.json")
    advice = "Run 07 first: it writes the card together with the model."
    try:
        if card.exists() and not card.is_file():
            raise FieldguideError(f"{card} is no file. Remove it. {advice}")
        with card.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise FieldguideError(f"There is no {card}. {advice}") from None
    except OSError as error:
        raise FieldguideError(f"{card} cannot be read: {error.strerror or error}. Put that right, or run 07.") from None
    if len(data) > LARGEST:
        raise FieldguideError(f"{card} is larger than {LARGEST // 1_000_000} MB, which no card is. Remove it. {advice}")
    try:
        facts = json.loads(data.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
        json.dumps(facts, ensure_ascii=False).encode("utf-8")  # half a character, "\\ud800", could not be shown
    except (ValueError, RecursionError) as error:
        told = one_line(error)[:200]
        raise FieldguideError(f"{card} is not readable JSON ({told}). Remove it. {advice}") from None
    if not isinstance(facts, dict):
        raise FieldguideError(f"{card} holds {type(facts).__name__}, not the facts expected. Remove it. {advice}")
    try:
        TypeAdapter(Card).validate_python(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        place = one_line(".".join(map(str, problem["loc"])))[:100]
        raise FieldguideError(
            f"{card} is no card that 07 wrote: {place} = {one_line(problem['input'])[:60]!r}: {problem['msg'][:200]}. "
            f"Remove it. {advice}"
        ) from None
    return facts


def _no_number(text: str):
    """Refuse NaN and Infinity, which Python's JSON takes for numbers."""
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    """Return a number, or refuse one that is too large to be any."""
    number = float(text)
    return number if math.isfinite(number) else _no_number(text[:20])


def make_card(
    project: Project,
    evaluation: Mapping,
    *,
    temperature: float,
    unknown: Mapping,
    licences: Mapping[str, int],
    sha256: Mapping[str, str],
) -> dict:
    """
    Return the facts of card.json.

    Parameters
    ----------
    project : Project
    evaluation : mapping
        What evaluation.json holds; its figures are of the model before scaling, but for ``calibration_error_scaled``.
    temperature : float
        What the files' last layer was divided by; 1 where none could be fitted.
    unknown : mapping
        When the model says "unknown", as `abstain` fitted it, with ``unseen``.
    licences : mapping of licence to number of pictures
        As `attribution` counts them.
    sha256 : mapping of file name to hex digits

    Raises
    ------
    FieldguideError
        If one of the figures is no number.
    """
    sides = project.sides()
    counts = {label: Counter() for label in project.labels}
    for id, path in project.pictures().items():
        if id in sides:
            counts[path.parent.name][sides[id]] += 1
    facts = {
        "name": project.name,
        "labels": list(project.labels),
        "sources": list(dict.fromkeys(s if s in (SEARCH, SAMPLE) else FOLDER for s in project.sources)),  # no paths
        "counts": {label: dict(sorted(by_side.items())) for label, by_side in counts.items()},
        "licences": dict(licences),
        "valid": evaluation.get("valid", {}),
        "test": evaluation.get("test", {}),
        "by_label": {"valid": evaluation.get("labels", {}), "test": evaluation.get("test_labels", {})},
        "test_opened": evaluation.get("test_opened", 0),
        "temperature": temperature,
        "unknown": dict(unknown),
    }
    facts["by_label"] = {side: scores for side, scores in facts["by_label"].items() if scores}
    facts |= {
        "limits": limits(facts, confused=evaluation.get("confused", ()), shortcuts=evaluation.get("shortcuts")),
        "seed": project.seed,
        "arch": project.arch,
        "weights": project.weights,
        "size": project.size,
        "epochs": project.epochs,
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "sha256": dict(sha256),
        "fingerprint": evaluation["fingerprint"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        return json.loads(json.dumps(facts, allow_nan=False))  # as it will be read: lists, and numbers of Python
    except ValueError as error:
        raise FieldguideError(
            f"A figure of the card is no number ({error}). Run 05 again, then this notebook."
        ) from None


# ---------------------------------------------------------------------------------------------------------------
# What to beware of
# ---------------------------------------------------------------------------------------------------------------


def limits(card: Mapping, *, confused: Sequence[Mapping] = (), shortcuts: Mapping | None = None) -> list[str]:
    """
    Return in sentences what to beware of, each from a fact of the card.

    Parameters
    ----------
    card : mapping
        The facts of `make_card` down to ``unknown``.
    confused : sequence of mappings
        Of evaluation.json: label, predicted, pictures, share; most often first.
    shortcuts : mapping, optional
        Of evaluation.json: what `shortcuts.find_shortcuts` returned.
    """
    return [
        *_of_sources(card),
        f"It knows {listed(card['labels'])} and nothing else: a photo of anything else gets one of these names too"
        + (", unless it is asked to say “unknown” and does." if card["unknown"].get("threshold") else "."),
        *_of_unknown(card["unknown"]),
        *_of_counts(card),
        *_of_figures(card),
        *_of_pairs(confused),
        *_of_shortcuts(shortcuts),
        *_of_licences(card["licences"]),
    ]


def _of_sources(card: Mapping) -> list[str]:
    sentences = []
    if SAMPLE in card["sources"]:
        sentences.append("Its pictures are drawn by a program: its figures say nothing about photos of real things.")
    if SEARCH in card["sources"]:
        sentences.append(
            "Its pictures come from a web search: places, cameras, poses and backgrounds are those that people like to "
            "publish. Expect it to be wrong more often on photos of your own, and try it on some whose names you know."
        )
    return sentences


def _of_counts(card: Mapping) -> list[str]:
    sentences, side = [], judging_side(card)
    for name, least, told in (
        ("train", FEW_TRAINED, f"Fewer than {FEW_TRAINED} pictures trained it to know"),
        (side, FEW_JUDGED, f"Fewer than {FEW_JUDGED} pictures of the {side} side say how well it knows"),
    ):
        few = [label for label, counts in card["counts"].items() if counts.get(name, 0) < least]
        few = sorted(few, key=lambda label: (card["counts"][label].get(name, 0), label))
        if few:
            numbers = ", ".join(f"{card['counts'][label].get(name, 0):,}" for label in few[:8])
            sentences.append(f"{told} {listed(few)} ({numbers}{' …' if len(few) > 8 else ''}).")
    return sentences


def _of_figures(card: Mapping) -> list[str]:
    side, opened, sentences = judging_side(card), card["test_opened"], []
    accuracy = card[side].get("accuracy", {})
    if accuracy.get("low") is not None and accuracy["high"] - accuracy["low"] > WIDE:
        sentences.append(
            f"How often it is right is known roughly only: {percent(accuracy)}, from {counted(accuracy['n'])}."
        )
    if side == "valid":
        never = "never" if not opened else f"opened for other models ({opened} in all), for this one not"
        sentences.append(
            f"The test side was {never}{' opened' if not opened else ''}: the figures are of the valid side, by which "
            "its best epoch was chosen, and flatter it a little."
        )
    elif opened > 1:
        sentences.append(
            f"The test side was opened for {opened} models: who picks the best of several by it is flattered by it."
        )
    return sentences


def _of_pairs(confused: Sequence[Mapping]) -> list[str]:
    pairs = [
        f"“{pair['label']}” for “{pair['predicted']}” ({pair['pictures']} of {pair['share']['n']})"
        for pair in confused[:TOLD]
    ]
    return [f"On the valid side it took most often {'; '.join(pairs)}."] if pairs else []


def _of_shortcuts(shortcuts: Mapping | None) -> list[str]:
    from utils.evaluate import shortcut_line  # here, because reading a card needs no scikit-learn

    line = shortcut_line(shortcuts) if shortcuts else ""
    told = line.removeprefix("Shortcut! ")
    return [f"It may have learned something other than what the pictures show. {told}"] if told != line else []


def _of_unknown(unknown: Mapping) -> list[str]:
    sentences, threshold = [], unknown.get("threshold")
    if threshold is None:
        sentences.append(f"It cannot say “unknown”: {unknown.get('why', 'no threshold was fitted')}.")
    elif threshold == 0:
        sentences.append("Its threshold is 0: it never says “unknown”, not even to what it never saw.")
    if threshold is not None and not unknown["reached"]:
        sentences.append(
            f"Whether its mistakes are as rare as was asked is not certain. {capitalised(unknown['why'])}."
        )
    unseen = unknown.get("unseen") or {}
    if "unknown" in unseen:
        sentences.append(
            f"Of pictures of a label that was left out for a trial, {percent(unseen['unknown'])} were called unknown; "
            f"the others got one of its names.{' That is optimistic.' if unseen.get('optimistic') else ''}"
        )
    else:
        why = unseen.get("why", "nobody asked")
        sentences.append(f"How well it spots a label that it never saw could not be measured: {why}.")
    return sentences


def _of_licences(licences: Mapping[str, int]) -> list[str]:
    unknown, total = licences.get(UNKNOWN, 0), sum(licences.values())
    if not unknown:
        return []
    return [
        f"The licence of {unknown:,} of its {counted(total)} is unknown: that is not a free one. ATTRIBUTION.csv "
        "says where each is from."
    ]
