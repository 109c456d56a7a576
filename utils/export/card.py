"""
card.json: what it holds, and how any program reads it. Needs neither torch nor scikit-learn.

`facts` makes the card, `modelcard` says the same in words.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Required

from pydantic import ConfigDict, FailFast, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from utils.dataset import Dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.tables import one_line

LARGEST_CARD = 3_000_000  # bytes; a card of a thousand labels has a million
STRICT = with_config(ConfigDict(extra="allow", strict=True))  # a text is not a number
ADVICE_07 = "Run 07 first, or 4_test for a detector: it writes the card together with the model."


@STRICT
class CardFigure(TypedDict):
    """A figure as `utils.intervals.figure` makes it; one that cannot be had is None and has a ``why``."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@STRICT
class CardVerdict(TypedDict):
    """The verdict as `utils.intervals.verdict` returns it, with the side that was judged."""

    right: int
    n: int
    guess: int
    p: float
    better: bool
    side: str


@STRICT
class CardUnknown(TypedDict, total=False):
    """When the model says "unknown", as `threshold` certified it."""

    threshold: float | None
    why: str
    target_error: float | None
    reached: bool
    confidence: float
    bound: float | None
    chosen_by: str
    error: CardFigure
    coverage: CardFigure
    curve: Annotated[list[dict], FailFast()]
    unseen: dict


@STRICT
class CardInt8(TypedDict, total=False):
    """What `small_model` found of model.int8.onnx; ``why`` there is none, "" if there is one."""

    why: Required[str]
    bytes: dict[str, int]
    share: float
    agreement: CardFigure
    difference: CardFigure
    gained: int
    lost: int
    p: float


@STRICT
class Card(TypedDict, total=False):
    """The keys of card.json, which models/README.md explains; a card made by an earlier version has fewer."""

    labels: Required[Annotated[list[str], FailFast()]]  # a million wrong ones are one problem
    name: str
    verdict: CardVerdict
    sources: Annotated[list[str], FailFast()]
    counts: dict[str, dict[str, int]]
    licences: dict[str, int]
    valid: dict[str, CardFigure]
    test: dict[str, CardFigure]
    by_label: dict[str, dict[str, dict[str, CardFigure | int]]]
    test_opened: int
    temperature: float
    unknown: CardUnknown
    limits: Annotated[list[str], FailFast()]
    bits: int | None
    int8: CardInt8
    individuals: dict
    gallery: dict
    ensemble: dict
    seed: int | None
    arch: str
    weights: str
    size: int | list[int] | None  # one number of pixels, or height and width
    epochs: int | None
    settings: dict
    changed: str
    versions: dict[str, str]
    sha256: dict[str, str]
    fingerprint: str
    created: str


def read_card(path: str | Path) -> dict:
    """
    Return what a model's card.json holds; `path` is the file, or the folder or the model it lies beside.

    Raises FieldguideError if there is none, or stage 07 did not write it: too large, not JSON, other types.
    """
    path = Path(path)
    card = path / "card.json" if path.is_dir() else path.with_name("card.json")
    try:
        if card.exists() and not card.is_file():
            raise _unusable(card, "is not a file")
        with card.open("rb") as file:
            data = file.read(LARGEST_CARD + 1)
    except FileNotFoundError:
        raise FieldguideError(f"There is no {card}. {ADVICE_07}") from None
    except OSError as error:
        raise FieldguideError(f"{card} cannot be read: {error.strerror or error}. Put that right, or run 07.") from None
    if len(data) > LARGEST_CARD:
        raise _unusable(card, f"is larger than {LARGEST_CARD // 1_000_000} MB; no card is")
    try:
        facts = json.loads(data.decode("utf-8"), parse_constant=_refuse_number, parse_float=_finite)
        json.dumps(facts, ensure_ascii=False).encode("utf-8")  # half a character, "\\ud800", could not be shown
    except (ValueError, RecursionError) as error:
        raise _unusable(card, f"is not readable JSON ({one_line(error)[:200]})") from None
    if not isinstance(facts, dict):
        raise _unusable(card, f"holds {type(facts).__name__}, not the facts expected")
    try:
        TypeAdapter(Card).validate_python(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        place = one_line(".".join(map(str, problem["loc"])))[:100]
        found = f"{place} = {one_line(problem['input'])[:60]!r}: {problem['msg'][:200]}"
        raise _unusable(card, f"was not written by 07: {found}") from None
    return facts


def _unusable(card: Path, why: str) -> FieldguideError:
    """Return what to say of a card that cannot be used."""
    return FieldguideError(f"{card} {why}. Remove it. {ADVICE_07}")


def _refuse_number(text: str):
    """Refuse NaN and Infinity, which Python's JSON takes for numbers."""
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    """Return a number, or refuse one that is too large."""
    number = float(text)
    return number if math.isfinite(number) else _refuse_number(text[:20])


def age_sentence(dataset: Dataset) -> str:
    """Return in a sentence whether the exported model is that of today's pictures, labels and sides."""
    card = read_card(dataset.project.models)
    if "settings" not in card or "fingerprint" not in card:
        return "An earlier version exported this model. Run 07 again to have its card say what it was trained on."
    if round_fingerprint(dataset, card["settings"]) != card["fingerprint"]:
        return (
            "The model is older than the data: pictures, labels or sides changed since it was trained. Run 04, 05 and "
            "07 again for a new one."
        )
    return "The model was trained on the pictures as they are now."
