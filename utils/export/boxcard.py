"""
The card of a detector: the facts of card.json, and MODEL_CARD.md, which says the same in words.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from markupsafe import Markup

from utils.dataset import Dataset
from utils.export.facts import as_read, judging_side, kinds_of_source, of_bits, of_licences, versions_now
from utils.export.modelcard import CONTENTS, JUDGED, LICENCE_LINE, SOURCE_NAMES, front_matter, in_markdown
from utils.settling import OPEN_IMAGES
from utils.tables import SIDES
from utils.words import SETS, counted, listed, percent

FEW_TRAINING_BOXES = 50  # of a label, in training
FIGURES = {
    "ap50": "average precision where boxes need to overlap the thing by half (AP50)",
    "ap": "the same, mean over overlaps of 50 to 95 % (AP50:95)",
    "mean_iou": "overlap of each thing with its box, mean (IoU)",
    "recall": "of the things, found (recall)",
    "precision": "of the boxes told, right (precision)",
    "f1": "both in one (F1)",
}
PER_LABEL = ("ap50", "recall", "precision")
HUB_FIGURES = {"ap50": ("mAP@0.5", "AP50"), "ap": ("mAP", "AP50:95")}
BOX_FILES = CONTENTS | {
    "model.onnx": "the detector, for programs",
    "detector.pth": "the trained weights, for the notebooks that made it",
    "boxes.csv": "the boxes that trained and judged it",
}


def box_facts(
    dataset: Dataset,
    evaluation: Mapping,
    counts: Mapping[str, Mapping[str, int]],
    *,
    threshold: float,
    licences: Mapping[str, int],
    sha256: Mapping[str, str],
) -> dict:
    """
    Return the facts of a detector's card.json, or refuse a figure that is not a number.

    `evaluation` is what evaluation.json holds: figures of each set and of each label in it, the settings that training
    used, and the verdict as a sentence. `counts` maps each label to side → number of boxes; `licences` each licence to
    a number of photos.
    """
    project, settings = dataset.project, evaluation.get("settings", {})
    facts = {
        "task": "detect",
        "name": project.name,
        "labels": list(counts),
        "told": evaluation.get("told", ""),
        "sources": kinds_of_source(project),
        "counts": {label: dict(own) for label, own in counts.items()},
        "photos": {side: len(dataset.on(side)) for side in SIDES},
        "licences": dict(licences),
        **{side: dict(evaluation.get(side) or {}) for side in JUDGED},
        "by_label": {side: dict(own) for side, own in evaluation.get("by_label", {}).items()},
        "test_opened": evaluation.get("test_opened", 0),
        "threshold": threshold,
        "bits": dataset.records.bits,
    }
    facts |= {
        "limits": box_limits(facts),
        **{name: getattr(project, name) for name in ("seed", "detector", "arch", "weights", "size", "epochs")},
        "settings": {name: value for name, value in settings.items() if isinstance(value, str | int | float | bool)},
        "changed": evaluation.get("changed", ""),
        "versions": versions_now(project.arch),
        "sha256": dict(sha256),
        "fingerprint": evaluation.get("fingerprint", ""),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return as_read(facts, "Run 4_test again.")


def box_limits(card: Mapping) -> list[str]:
    """Return in sentences what to beware of, from the facts of the card down to ``bits``."""
    said = [f"It finds {listed(card['labels'])} and nothing else. What looks alike may be taken for one of these."]
    few = {
        label: own.get("train", 0) for label, own in card["counts"].items() if own.get("train", 0) < FEW_TRAINING_BOXES
    }
    if few:
        shown = ", ".join(f"{number:,}" for number in few.values())
        said.append(f"Fewer than {FEW_TRAINING_BOXES} boxes trained it to find {listed(few)} ({shown}).")
    if not card["photos"].get("test") or not card["test"]:
        said.append(
            "The test set was never opened. The figures are of the validation set, which chose its best epoch, and "
            "flatter it a little."
        )
    elif card["test_opened"] > 1:
        said.append(
            f"The test set was opened for {card['test_opened']} models: whoever picks the best of several by it is "
            "flattered by it."
        )
    figure = card[judging_side(card)].get("ap50", {})
    if figure.get("low") is not None and figure["high"] - figure["low"] > 0.1:
        said.append(f"How well it finds things is known roughly only: AP50 {percent(figure)}.")
    if OPEN_IMAGES in card["sources"]:
        said.append(
            "Its photos come from Open Images, where some things have no box: a part of what counts as wrong is right."
        )
    return [*said, *of_bits(card.get("bits")), *of_licences(card["licences"])]


def box_card(card: Mapping) -> str:
    """Return MODEL_CARD.md for the facts of a detector's card, without the time: the same card gives the same text."""
    brief, side = partial(percent, told=""), judging_side(card)
    sides = [each for each in JUDGED if card[each]]
    figures = [
        [words, *(brief(card[each][name]) if name in card[each] else "–" for each in sides)]
        for name, words in FIGURES.items()
        if any(name in card[each] for each in sides)
    ]
    labels = [
        [label, own["n"], *(brief(own[name]) if name in own else "–" for name in PER_LABEL)]
        for label, own in card["by_label"].get(side, {}).items()
    ]
    used = [[label, *(own.get(each, 0) for each in SIDES)] for label, own in card["counts"].items()]
    known = ("seed", "detector", "arch", "weights", "size", "epochs")
    settings = {name: card[name] for name in known} | card["settings"]
    return in_markdown(
        "detector.md.j2",
        card=card,
        front=Markup(f"{LICENCE_LINE}\n{front_matter(card, 'object-detection', HUB_FIGURES)}"),
        sets=[SETS[each] for each in sides],
        set_name=SETS[side],
        figures=figures,
        labels=labels if len(labels) > 1 else [],
        counts=[*used, ["photos", *(card["photos"].get(each, 0) for each in SIDES)]],
        settings=[*settings.items(), ["fingerprint of photos, boxes, split and settings", card["fingerprint"]]],
        versions=", ".join(f"{package} {number}" for package, number in card["versions"].items()),
        files=[
            [name, BOX_FILES.get(name, ""), digest] for name, digest in card["sha256"].items() if name[-3:] != ".md"
        ],
        sources=" and ".join(SOURCE_NAMES[source] for source in card["sources"]),
        things=counted(sum(sum(own.values()) for own in card["counts"].values()), "box", "boxes"),
    )
