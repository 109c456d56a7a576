"""
MODEL_CARD.md: what a model is, how good it is and what to beware of, in plain words.

Made of the facts of card.json and of nothing else, after Mitchell et al. 2019 (Model Cards for Model Reporting). The
words stand in card.md.j2; huggingface_hub writes the YAML at the head. Labels, titles and names come from outside. The
template shows whatever it is given as it is, so no markup comes of it.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.evaluate import ensemble_sentence
from utils.export.attribution import visible
from utils.export.facts import judging_side
from utils.export.quantised import small_model_sentence
from utils.export.threshold import CHOSEN_BY
from utils.pictures import height_and_width, size_text
from utils.settling import OPEN_IMAGES, SAMPLE, SEARCH
from utils.tables import FOLDER, SIDES
from utils.words import SETS, listed, percent, share, verdict_sentence

CURVE_ROWS = 6  # shown of the curve of coverage and error
SOURCE_NAMES = {
    SEARCH: "a web search",
    SAMPLE: "the drawn sample",
    FOLDER: "the maker's own folders",
    OPEN_IMAGES: "Open Images",
}
CONTENTS = {
    "export.pkl": "the model, for fastai and for this project",
    "model.onnx": "the model, for programs without fastai",
    "model.int8.onnx": "the same, smaller: in whole numbers of eight bits",
    "gallery.safetensors": "small copies of known photos, to show the nearest beside an answer",
    "ATTRIBUTION.csv": "where each photo is from",
    "split.csv": "which photos trained it and which judged it",
    "corrections.csv": "what a person put right before it was trained",
}
JUDGED = ("test", "valid")
MEASURES = {
    "accuracy": "named rightly (accuracy)",
    "balanced_accuracy": "the same, every label weighing alike (balanced accuracy)",
    "macro_f1": "finding and being right, mean over the labels (macro F1)",
}
METRICS = {"accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro F1")}  # key → Hugging Face's name, ours
LICENCE_LINE = (
    "# The model's licence is yours to choose. Add it here before you publish, for example: license: apache-2.0"
)


def model_card(card: Mapping) -> str:
    """Return MODEL_CARD.md for the facts of card.json, without the time: the same card gives the same text."""
    side = judging_side(card)
    height, width = height_and_width(card["size"]) if card["size"] else ("H", "W")
    scaled = "" if card["temperature"] == 1 else "_scaled"
    return in_markdown(
        "card.md.j2",
        card=card,
        front=Markup(f"{LICENCE_LINE}\n{front_matter(card)}"),
        rows=_tables(card),
        sets=[SETS[side] for side in JUDGED if card[side]],
        set_names=SETS,
        set_name=SETS[side],
        calibration=card[side].get(f"calibration_error{scaled}"),
        chosen_by=CHOSEN_BY.get(card["unknown"].get("chosen_by"), ""),
        sources=" and ".join(SOURCE_NAMES[source] for source in card["sources"]),
        searched=SEARCH in card["sources"],
        height=height,
        width=width,
        several=ensemble_sentence(card["ensemble"]) if "ensemble" in card else "",
        small=small_model_sentence(card["int8"]) if "int8" in card else "",
        share=share,
        verdict_sentence=verdict_sentence,
    )


def in_markdown(template: str, **values) -> str:
    """Return a template beside this file, filled with values of the card, as Markdown that shows them as they are."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # a macro's result is Markup; any other value goes through `finalize`
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escaped(str(value))),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(template).render(listed=listed, percent=percent, **values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _tables(card: Mapping) -> dict:
    """Return the rows of the card's tables."""
    brief = partial(percent, told="")  # beside a table it is said what the brackets hold
    sides, counts = [side for side in JUDGED if card[side]], card["counts"]
    quality = [
        [words, *(brief(card[side][key]) if key in card[side] else "–" for side in sides)]
        for key, words in MEASURES.items()
        if any(key in card[side] for side in sides)
    ]
    per_label = card["by_label"].get(judging_side(card), {})
    used = [[label, *(own.get(side, 0) for side in SIDES)] for label, own in counts.items()]
    points = card["unknown"]["curve"]
    shown = np.linspace(0, len(points) - 1, min(len(points), CURVE_ROWS)).round().astype(int)
    curve = [[points[n][key] for key in ("threshold", "coverage", "error")] for n in shown]
    left_out = card["unknown"]["unseen"].get("labels", {})
    hashes = {name: digest for name, digest in card["sha256"].items() if name != "MODEL_CARD.md"}
    return {
        "quality": [*quality, ["photos", *(card[side].get("accuracy", {}).get("n", "–") for side in sides)]],
        "labels": [[name, s["n"], brief(s["recall"]), brief(s["precision"])] for name, s in per_label.items()],
        "curve": [[f"{sure:.3f}", f"{100 * named:.1f} %", f"{100 * wrong:.1f} %"] for sure, named, wrong in curve],
        "unseen": [[label, share["n"], brief(share)] for label, share in left_out.items()],
        "counts": [*used, ["all", *(sum(row[k] for row in used) for k in range(1, len(SIDES) + 1))]],
        "settings": [
            *(card["settings"] | ({"size": size_text(card["size"])} if card["size"] else {})).items(),
            ["temperature", f"{card['temperature']:.3f}"],
            ["fingerprint of photos, labels, split and settings", card["fingerprint"]],
        ],
        "versions": ", ".join(f"{package} {number}" for package, number in card["versions"].items()),
        "files": [[name, CONTENTS.get(name, ""), digest] for name, digest in hashes.items()],
    }


def front_matter(
    card: Mapping, task: str = "image-classification", metrics: Mapping[str, tuple[str, str]] = METRICS
) -> str:
    """
    Return the YAML at the head of the card as Hugging Face reads it: kind of model, and its figures by set.

    `task` is Hugging Face's name of it; `metrics` maps a figure's name to Hugging Face's and ours.
    """
    name = visible(card["name"])  # PyYAML writes some invisible characters so that it reads others
    results = [
        EvalResult(
            task_type=task,
            task_name=task.replace("-", " ").title(),
            dataset_type="imagefolder",
            dataset_name=name,
            dataset_split=split,
            metric_type=metrics[key][0],
            metric_value=figure["value"],
            metric_name=f"{metrics[key][1]}, {percent(figure)}, n = {figure['n']}",
        )
        for side, split in zip(JUDGED, ("test", "validation"), strict=True)
        for key in metrics
        if (figure := card[side].get(key, {"value": None}))["value"] is not None
    ]
    return ModelCardData(
        library_name="fastai",
        pipeline_tag=task,
        tags=["fastai", task, "onnx"],
        metrics=[name for name, _ in metrics.values()],
        model_name=name,
        eval_results=results or None,
    ).to_yaml()


def with_licence(text: str, earlier: str) -> str:
    """Return a card's text with the licence that a person wrote at the head of an earlier one, if there is any."""
    front = earlier.partition("\n---\n")[0] if earlier.startswith("---\n") else ""
    chosen = [line for line in front.splitlines() if line.startswith("license")]  # and license_name, license_link
    return text.replace(LICENCE_LINE, "\n".join(chosen), 1) if chosen else text


def escaped(text: str) -> str:
    """
    Return a text so that Markdown shows it as it is: no table, link, HTML or list comes of it.

    >>> print(escaped("a|b <i>*c*</i> https://example.org"))
    a\\|b \\<i\\>\\*c\\*\\</i\\> https\\://example.org
    """
    text = re.sub(r"([\\`*_\[\]<>|~$&#]|:(?=//)|(?<=www)\.|^[+=-])", r"\\\1", visible(text), flags=re.IGNORECASE)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)
