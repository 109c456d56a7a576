"""
MODEL_CARD.md: what a model is, how good it is and what to beware of, in plain words.

Stage 07 writes it into models/<name>. It is made of the facts of card.json (see `card`) and of nothing else, after
Mitchell et al. 2019 (Model Cards for Model Reporting); the YAML at its head is what Hugging Face reads. Names and
labels come from outside: they are shown as they are, and no markup comes of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from utils.export.attribution import visible
from utils.project import SAMPLE, SEARCH
from utils.tables import FOLDER, SIDES
from utils.words import capitalised, counted, listed, percent

STEPS = 6  # rows shown of the curve of coverage and error
SOURCES = {SEARCH: "a web search", SAMPLE: "the drawn sample", FOLDER: "folders of the maker's own"}
FILES = {
    "export.pkl": "the model, for fastai and for this project",
    "model.onnx": "the model, for programs without fastai",
    "ATTRIBUTION.csv": "where each picture is from",
    "split.csv": "which pictures trained it and which judged it",
    "corrections.csv": "what a person put right before it was trained",
}
USES = {"train": "trained it (train)", "valid": "chose its best epoch (valid)", "test": "kept for the end (test)"}
MEASURES = {
    "accuracy": "named rightly (accuracy)",
    "balanced_accuracy": "the same, every label weighing alike (balanced accuracy)",
    "macro_f1": "finding and being right, mean over the labels (macro F1)",
}
LICENCE = "# The model's licence is yours to choose. Add it here before you publish, for example: license: apache-2.0"
METRICS = {"accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro F1")}  # key → Hugging Face's name, ours


def model_card(card: Mapping) -> str:
    """
    Return MODEL_CARD.md for what `make_card` returned: the same card gives the same text.

    What would change at each writing stays out: the time, and the hash of this very text.
    """
    sections = {
        "How good it is": _quality(card),
        "How sure it is": _certainty(card),
        "When it says “unknown”": _abstention(card["unknown"]),
        "What it learned from": _learned_from(card),
        "What to beware of": ["\n".join(f"- {escaped(sentence)}" for sentence in card["limits"])],
        "How to use it": _usage(card),
        "How it was made": _making(card),
    }
    blocks = [front_matter(card), f"# {escaped(card['name'])}", f"> {_summary(card)}"]
    for title, paragraphs in sections.items():
        blocks += [f"## {title}", *paragraphs]
    return "\n\n".join(blocks) + "\n"


def front_matter(card: Mapping) -> str:
    """Return the YAML at the head of the card, as Hugging Face reads it: kind of model, and its figures by side."""
    lines = [
        "---",
        LICENCE,
        "library_name: fastai",
        "pipeline_tag: image-classification",
        "tags: [fastai, image-classification, onnx]",
        "metrics: [accuracy, f1]",
    ]
    results = []
    for side, split in (("test", "test"), ("valid", "validation")):
        known = {key: card[side][key] for key in METRICS if card[side].get(key, {}).get("value") is not None}
        if not known:
            continue
        results += [
            "  - task: {type: image-classification, name: Image Classification}",
            f"    dataset: {{type: imagefolder, name: {yaml_text(card['name'])}, split: {split}}}",
            "    metrics:",
        ]
        for key, figure in known.items():
            metric, name = METRICS[key]
            results += [
                f"    - type: {metric}",
                f"      value: {figure['value']:.6f}",
                "      name: " + yaml_text(f"{name}, {percent(figure)}, n = {figure['n']}"),
            ]
    if results:
        lines += ["model-index:", f"- name: {yaml_text(card['name'])}", "  results:", *results]
    return "\n".join([*lines, "---"])


def with_licence(text: str, earlier: str) -> str:
    """Return a card's text with the licence that a person wrote at the head of an earlier one, where there is any."""
    front = earlier.partition("\n---\n")[0] if earlier.startswith("---\n") else ""
    chosen = [line for line in front.splitlines() if line.startswith("license")]  # and license_name, license_link
    return text.replace(LICENCE, "\n".join(chosen), 1) if chosen else text


def yaml_text(text: str) -> str:
    """
    Return any text as a YAML scalar in double quotes, on one line.

    >>> print(yaml_text('a "b": c\\n---'))
    "a \\"b\\": c\\U0000000a---"
    """
    return '"' + "".join(_yaml_character(character) for character in text) + '"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def escaped(text: str) -> str:
    """
    Return a text so that Markdown shows it as it is: no table, link, HTML or list comes of it.

    >>> print(escaped("a|b <i>*c*</i> https://example.org"))
    a\\|b \\<i\\>\\*c\\*\\</i\\> https\\://example.org
    """
    text = re.sub(r"([\\`*_\[\]<>|~$&#]|:(?=//)|(?<=www)\.|^[+=-])", r"\\\1", visible(text), flags=re.IGNORECASE)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)


def table(header: Sequence[str], rows: Iterable[Sequence], *, texts: int = 1) -> str:
    """Return a Markdown table; the first columns are texts, the others are set to the right."""
    marks = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = [[*header], marks, *[[escaped(str(cell)) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def brief(figure: Mapping) -> str:
    """Return a figure as `percent` does, for a table beside which it is said what the brackets hold."""
    return percent(figure, told="")


def _summary(card: Mapping) -> str:
    """Return what the model tells apart, and how often it is right."""
    found = card[judging_side(card)].get("accuracy")
    judged = (
        f" Of {counted(found['n'])} that it did not learn from, it names {percent(found)} rightly." if found else ""
    )
    return escaped(f"Tells {listed(card['labels'])} apart in photos.{judged}")


def _quality(card: Mapping) -> list[str]:
    sides = [side for side in ("test", "valid") if card[side]]
    opened = card["test_opened"]
    told = {
        "test": "The **test** side was kept apart until the end, and opened for "
        + ("this model alone." if opened <= 1 else f"{opened} models, this one among them."),
        "valid": "Pictures of the **valid** side trained nothing, but the best epoch was chosen by them.",
    }
    rows = [
        [words, *(brief(card[side][key]) if key in card[side] else "–" for side in sides)]
        for key, words in MEASURES.items()
        if any(key in card[side] for side in sides)
    ]
    rows.append(["pictures", *(card[side].get("accuracy", {}).get("n", "–") for side in sides)])
    paragraphs = [" ".join(told[side] for side in sides), table(["", *(f"{side} side" for side in sides)], rows)]
    if scores := card["by_label"].get(judging_side(card)):
        header = ["label", "pictures", "of these, named so (recall)", "of those named so, right (precision)"]
        rows = [[label, s["n"], brief(s["recall"]), brief(s["precision"])] for label, s in scores.items()]
        paragraphs += [f"Label by label, on the {judging_side(card)} side:", table(header, rows)]
    return [
        *paragraphs,
        "In brackets stands the 95 % interval: counted on very many pictures of the same kind, the figure would most "
        "likely lie within it.",
    ]


def _certainty(card: Mapping) -> list[str]:
    side, temperature = judging_side(card), card["temperature"]
    if temperature == 1:
        told = "The probabilities are as training left them: no temperature was fitted."
    else:
        told = (
            f"Training left it {'too sure' if temperature > 1 else 'not sure enough'} of itself. Both files put that "
            f"right by a temperature of {temperature:.3f}: it changes how sure the model says it is, and no label."
        )
    error = card[side].get("calibration_error" if temperature == 1 else "calibration_error_scaled")
    if error and error["value"] is None:
        told += f" How well its probabilities fit could not be measured: {escaped(error.get('why', 'not known'))}."
    elif error:
        told += (
            f" On the {side} side, how sure it says it is and how often it is right differ by {percent(error)} in the "
            "mean (calibration error)."
        )
    return [told]


def _abstention(unknown: Mapping) -> list[str]:
    threshold = unknown.get("threshold")
    if threshold is None:
        return [f"It cannot: {escaped(unknown.get('why', 'no threshold was fitted'))}.", *_unseen(unknown)]
    doubt = "" if unknown["reached"] else f" {escaped(capitalised(unknown['why']))}."
    told = (
        f"Asked with `unknown=True`, it gives no label to a picture whose best probability lies below {threshold:.3f}."
        if threshold
        else f"Its threshold is 0: it names every picture{'.' if doubt else ', for that is good enough.'}"
    )
    paragraphs = [
        f"{told} The threshold was fitted on the valid side, so that at most {unknown['target_error']:.1%} of the "
        f"labels given are wrong.{doubt} There, {escaped(percent(unknown['coverage']))} of the pictures get a label, "
        f"and {escaped(percent(unknown['error']))} of these labels are wrong. Both are somewhat optimistic, as these "
        "pictures chose the threshold."
    ]
    if curve := thinned([row for row in unknown.get("curve", ()) if row["error"] is not None]):
        rows = [[f"{row['threshold']:.3f}", f"{row['coverage']:.1%}", f"{row['error']:.1%}"] for row in curve]
        header = ["threshold", "pictures that get a label", "of these labels, wrong"]
        paragraphs += ["Another threshold trades the one for the other:", table(header, rows)]
    return [*paragraphs, *_unseen(unknown)]


def _unseen(unknown: Mapping) -> list[str]:
    found = unknown.get("unseen") or {}
    if "unknown" not in found:
        why = found.get("why", "nobody asked")
        return [f"How well it spots a label that it never saw could not be measured: {escaped(why)}."]
    rows = [[label, share["n"], brief(share)] for label, share in found["labels"].items()]
    return [
        "And a label that it never saw? Each was left out in turn, and a stand-in for the model learned the others. "
        f"It called {escaped(percent(found['unknown']))} of the pictures of the label left out unknown, and with them "
        f"{escaped(percent(found['false_alarms']))} of the pictures whose labels it knew. {escaped(found['note'])}",
        table(["label left out", "pictures", "called unknown"], rows),
    ]


def thinned(rows: Sequence, *, count: int = STEPS) -> list:
    """
    Return at most `count` of the rows, evenly spread, the first and the last among them.

    >>> thinned(range(101)), thinned("abc")
    ([0, 20, 40, 60, 80, 100], ['a', 'b', 'c'])
    """
    if len(rows) <= count:
        return list(rows)
    return [rows[round(k * (len(rows) - 1) / (count - 1))] for k in range(count)]


def _learned_from(card: Mapping) -> list[str]:
    counts, searched = card["counts"], SEARCH in card["sources"]
    rows = [[label, *(by_side.get(side, 0) for side in SIDES)] for label, by_side in counts.items()]
    rows.append(["all", *(sum(row[k] for row in rows) for k in range(1, len(SIDES) + 1))])
    return [
        f"Pictures from {' and '.join(SOURCES[source] for source in card['sources'])}, by label and use:",
        table(["label", *USES.values()], rows),
        "Their licences"
        + (" (a word such as Share is what the search was asked for, no promise by the owner):" if searched else ":"),
        table(["licence", "pictures"], card["licences"].items()),
        "`ATTRIBUTION.csv` says for each picture where it is from.",
    ]


def _usage(card: Mapping) -> list[str]:
    unknown = "" if card["unknown"].get("threshold") is None else ", unknown=True"
    size = card["size"]
    return [
        "With `utils/inference.py` of the project that made it, which also works in any other program when copied "
        "together with `pictures.py` and `vetting.py`:",
        "```python\n"
        "from utils.inference import load_classifier\n\n"
        'classifier = load_classifier("model.onnx")  # or "export.pkl"\n'
        f'for prediction in classifier.predict(["photo.jpg"]{unknown}):\n'
        "    print(prediction.label, prediction.probability)\n"
        "```",
        "With fastai alone:",
        "```python\n"
        "from fastai.learner import load_learner\n\n"
        'label, _, probabilities = load_learner("export.pkl").predict("photo.jpg")\n'
        "```",
        "fastai ignores a camera's turn, transparency and colour profiles, and does not reduce large photos to 512 "
        "pixels first: give it upright 8-bit RGB of that size for the same answers.",
        f"In any other program: `model.onnx` takes `pixels`, uint8 RGB of shape (N, {size}, {size}, 3), and gives "
        "`probabilities`. The labels, and how a photo is resized and cropped, stand in its metadata.",
        "`export.pkl` is a pickle, and a pickle is a program: whoever loads one runs it. `load_classifier` reads it "
        "first and refuses what is no plain model; `load_learner` does not. Load a pickle of others only if you trust "
        "them, or take `model.onnx`, which is no program.",
    ]


def _making(card: Mapping) -> list[str]:
    weights = {"imagenet": "those learned from ImageNet", "none": "none: it began from nothing"}
    facts = {
        "network": card["arch"],
        "weights it began with": weights.get(card["weights"], card["weights"]),
        "size of a picture": f"{card['size']} × {card['size']} pixels",
        "epochs": card["epochs"],
        "seed": card["seed"],
        "temperature": f"{card['temperature']:.3f}",
        "fingerprint of labels, split and settings": card["fingerprint"],
    }
    versions = ", ".join(f"{package} {number}" for package, number in card["versions"].items())
    hashes = {name: hex for name, hex in card["sha256"].items() if name != "MODEL_CARD.md"}
    return [
        table(["", ""], facts.items(), texts=2),
        f"Made with {escaped(versions)}.",
        "The SHA-256 of a file tells whether it is the one this card speaks of:",
        table(["file", "what it is", "SHA-256"], [(n, FILES.get(n, ""), hex) for n, hex in hashes.items()], texts=3),
    ]


def judging_side(card: Mapping) -> str:
    """Return the side whose figures say most: test where it was opened for this model, else valid."""
    return "test" if card["test"] else "valid"
