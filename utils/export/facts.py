"""
The facts of card.json: what a model is, how good it is and what to beware of.

Made of what earlier stages wrote: evaluation.json, the record of the training, the data set, ATTRIBUTION.csv.
"""

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.evaluate import background_line, individual_sentence, mark_line, shortcut_line
from utils.export.attribution import UNKNOWN_LICENCE
from utils.export.gallery import gallery_sentence
from utils.project import TIMM, Project
from utils.settling import OPEN_IMAGES, SAMPLE, SEARCH
from utils.tables import FOLDER
from utils.words import FEWEST_PHOTOS, SETS, counted, listed, percent

MADE_WITH = ("fastai", "torch", "torchvision", "onnx", "numpy", "Pillow")
SETTINGS_SHOWN = ("seed", "arch", "weights", "size", "epochs")
FEW_TRAINED, FEW_JUDGED = 50, 30  # photos of a label; where 24 of 30 are right, the interval is 28 points wide
WIDE = 0.1  # of the interval of accuracy: more is worth a warning
PAIRS = 3  # of labels, those confused most


def make_card(
    dataset: Dataset,
    evaluation: Mapping,
    *,
    temperature: float,
    unknown: Mapping,
    licences: Mapping[str, int],
    sha256: Mapping[str, str],
    int8: Mapping | None = None,
    gallery: Mapping | None = None,
) -> dict:
    """
    Return the facts of card.json, or refuse a figure that is not a number.

    `evaluation` is what evaluation.json holds: figures of the model before scaling, but for
    ``calibration_error_scaled``, and the settings that training really used. The files' last layer was divided by
    `temperature`. `unknown` is as `certify_threshold` returns it, with ``unseen``. `licences` maps each to a number of
    photos, `sha256` each file name to hex digits. `int8` is as `small_model` returns it, None if nobody asked for it;
    `gallery` as `save_gallery` does.
    """
    project, settings = dataset.project, evaluation["settings"]
    pairs = Counter((label, side) for label, side in zip(dataset.labels, dataset.sides, strict=True) if side)
    counts = {label: {side: pairs[label, side] for side in sorted(SETS)} for label in project.labels}
    by_label = {"valid": evaluation.get("labels"), "test": evaluation.get("test_labels")}
    facts = {
        "name": project.name,
        "labels": list(project.labels),
        "verdict": dict(evaluation["verdict"]),
        "sources": kinds_of_source(project),
        "counts": {label: {side: n for side, n in own.items() if n} for label, own in counts.items()},
        "licences": dict(licences),
        "valid": evaluation["valid"],
        "test": evaluation["test"],
        "by_label": {side: scores for side, scores in by_label.items() if scores},
        "test_opened": evaluation.get("test_opened", 0),
        "temperature": temperature,
        "unknown": dict(unknown),
        "bits": dataset.records.bits,
    }
    facts |= {name: dict(given) for name, given in (("int8", int8), ("gallery", gallery)) if given}
    if project.individuals:
        facts["individuals"] = evaluation.get("individuals", {})
    if "ensemble" in evaluation:
        facts["ensemble"] = evaluation["ensemble"]
    facts |= {
        "limits": limits(facts, confused=evaluation.get("confused", ()), shortcuts=evaluation.get("shortcuts")),
        **{name: settings.get(name) for name in SETTINGS_SHOWN},
        "settings": dict(settings),
        "changed": evaluation.get("changed", ""),
        "versions": versions_now(settings.get("arch")),
        "sha256": dict(sha256),
        "fingerprint": evaluation["fingerprint"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return as_read(facts, "Run 05 again, then this notebook.")


def kinds_of_source(project: Project) -> list[str]:
    """Return what kinds of source a project's photos come from; no paths."""
    named = (SEARCH, SAMPLE, OPEN_IMAGES)
    return list(dict.fromkeys(source if source in named else FOLDER for source in project.sources))


def versions_now(arch: str | None) -> dict[str, str]:
    """Return the versions of what makes a model of this network."""
    made_with = [*MADE_WITH, *(["timm"] if str(arch).startswith(TIMM) else [])]
    return {"python": platform.python_version()} | {package: version(package) for package in made_with}


def as_read(facts: Mapping, advice: str) -> dict:
    """Return facts as card.json will be read: lists, and numbers of Python; refuse a figure that is not a number."""
    try:
        return json.loads(json.dumps(facts, allow_nan=False))
    except ValueError as error:
        raise FieldguideError(f"A figure of the card is not a number ({error}). {advice}") from None


def of_licences(licences: Mapping[str, int]) -> list[str]:
    """Return in a sentence, if so, that the licence of some photos is unknown."""
    unknown, total = licences.get(UNKNOWN_LICENCE, 0), sum(licences.values())
    told = (
        f"The licence of {unknown:,} of its {counted(total, 'photo')} is unknown. That does not mean free to use. "
        "ATTRIBUTION.csv says where each is from."
    )
    return [told] if unknown else []


def judging_side(card: Mapping) -> str:
    """Return the side whose figures say most: test if it was opened for this model, else valid."""
    return "test" if card["test"] else "valid"


def limits(card: Mapping, *, confused: Sequence[Mapping] = (), shortcuts: Mapping | None = None) -> list[str]:
    """Return in sentences what to beware of, from the facts of the card down to ``unknown``, and of evaluation.json."""
    said, threshold = [], card["unknown"]["threshold"]
    if SAMPLE in card["sources"]:
        said.append("Its photos are drawn by a program: its figures say nothing about photos of real things.")
    if SEARCH in card["sources"]:
        said.append(
            "Its photos come from a web search: places, cameras, poses and backgrounds are those that people like to "
            "publish. Expect it to be wrong more often on photos of your own, and try it on some whose names you know."
        )
    said.append(
        f"It knows {listed(card['labels'])} and nothing else: a photo of anything else gets one of these names too"
        + (", unless it is asked to say “unknown” and does." if threshold else ".")
    )
    said += filter(None, [individual_sentence(card.get("individuals")), gallery_sentence(card.get("gallery"))])
    said += [*_of_unknown(card["unknown"]), *_of_counts(card), *_of_figures(card)]
    said += of_bits(card.get("bits"))
    pairs = [f"“{p['label']}” for “{p['predicted']}” ({p['pictures']} of {p['share']['n']})" for p in confused[:PAIRS]]
    if pairs:
        said.append(f"In the validation set it took most often {'; '.join(pairs)}.")
    lines = (shortcut_line(shortcuts), mark_line(shortcuts), background_line(shortcuts)) if shortcuts else ()
    for told in (line.removeprefix("Shortcut! ") for line in lines if line.startswith("Shortcut! ")):
        said.append(f"It may have learned something other than what the photos show. {told}")
    return said + of_licences(card["licences"])


def of_bits(bits: int | None) -> list[str]:
    """Return in a sentence how a model reads 16-bit pictures, if pictures of its project were such."""
    told = (
        f"It reads 16-bit pictures as {bits} bits, as those that trained it: a value of {2 ** (bits or 0) - 1:,} is "
        "white. One with larger values is refused, unless its tags name its bits."
    )
    return [told] if bits else []


def _of_unknown(unknown: Mapping) -> list[str]:
    if unknown["threshold"] is None:
        return [f"It cannot say “unknown”: {unknown['why']}. Go by its confidence."]
    if unknown["threshold"] == 0:
        return ["Its threshold is 0: it never says “unknown”, not even to what it never saw."]
    unseen = unknown["unseen"]
    if "why" in unseen:
        return [f"What it says to a label that it never saw was not measured: {unseen['why']}."]
    told = f"Of the photos of a label that was left out for a trial, {percent(unseen['unknown'])} were called unknown"
    return [f"{told}; the others got one of its names."]


def _of_counts(card: Mapping) -> list[str]:
    sentences, side = [], judging_side(card)
    few_trained = FEWEST_PHOTOS if "individuals" in card else FEW_TRAINED
    kinds = [("train", few_trained, f"Fewer than {few_trained} photos trained it to know")]
    if "individuals" not in card:  # of single animals few photos judge by nature, and all are judged together
        kinds.append((side, FEW_JUDGED, f"Fewer than {FEW_JUDGED} photos of the {SETS[side]} say how well it knows"))
    for name, least, told in kinds:
        numbers = {label: counts.get(name, 0) for label, counts in card["counts"].items()}
        few = sorted((number, label) for label, number in numbers.items() if number < least)
        if few:
            shown = ", ".join(f"{number:,}" for number, _ in few[:8]) + " …" * (len(few) > 8)
            sentences.append(f"{told} {listed(label for _, label in few)} ({shown}).")
    return sentences


def _of_figures(card: Mapping) -> list[str]:
    side, opened, sentences = judging_side(card), card["test_opened"], []
    accuracy = card[side].get("accuracy", {})
    if accuracy.get("low") is not None and accuracy["high"] - accuracy["low"] > WIDE:
        sentences.append(
            f"How often it is right is known roughly only: {percent(accuracy)}, from {counted(accuracy['n'], 'photo')}."
        )
    if side == "valid":
        when = f"opened for other models ({opened} in all), not for this one" if opened else "never opened"
        sentences.append(
            f"The test set was {when}. The figures are of the validation set, which chose its best epoch, and flatter "
            "it a little."
        )
    elif opened > 1:
        sentences.append(
            f"The test set was opened for {opened} models: whoever picks the best of several by it is flattered by it."
        )
    return sentences
