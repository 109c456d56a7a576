"""
Stage 07: what is taken from an earlier set of files, and the words of a new one, before it is put in place.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from onnx import load_model_from_string

from utils.errors import FieldguideError
from utils.export.card import read_card
from utils.export.modelcard import with_licence
from utils.export.placing import CARD, MODEL_CARD, ONNX, README
from utils.storage import file_hash, write_whole


def earlier_card(folder: Path) -> dict:
    """Return the card that is there; one that is missing or broken is about to be replaced."""
    try:
        return read_card(folder)
    except FieldguideError:
        return {}


def onnx_made_before(earlier: Mapping, path: Path, model: Path, metadata: Mapping[str, str]) -> bytes | None:
    """Return the model.onnx that the earlier card says was made of this very `model`: making it takes a while."""
    known = earlier.get("sha256", {})
    if not path.is_file() or known.get(model.name) != file_hash(model) or known.get(ONNX) != file_hash(path):
        return None
    data = path.read_bytes()
    says = {entry.key: entry.value for entry in load_model_from_string(data).metadata_props}
    return data if says == metadata else None


def stage_words(staged: Path, folder: Path, card: dict, words: str, earlier: Mapping) -> dict:
    """
    Write MODEL_CARD.md, README.md and card.json of a set into the staged folder; return the card.

    `folder` is where the set will be: a licence that a person wrote into the README.md there stays. The same model
    exported again is no newer than its `earlier` card.
    """
    readme = folder / README
    mine = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    write_whole(staged / MODEL_CARD, words)
    write_whole(staged / README, with_licence(words, mine))
    card["sha256"][MODEL_CARD] = file_hash(staged / MODEL_CARD)
    if {**earlier, "created": card["created"]} == card:
        card["created"] = earlier.get("created", card["created"])
    write_whole(staged / CARD, json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return card
