"""
A model's card in plain words, for those who use the model: headings with lines.

The app and the page in the browser show it. Needs no torch.
"""

from collections.abc import Mapping
from pathlib import Path

from utils.errors import FieldguideError
from utils.export.card import read_card
from utils.inference import Classifier, Detector
from utils.pictures import size_text
from utils.storage import file_hash
from utils.words import counted, percent, share, verdict_sentence


def about(path: Path, classifier: Classifier | Detector) -> tuple[str, list[tuple[str, list[str]]]]:
    """Return the verdict of the card beside a model, and the card as headings with lines; why there is none, if so."""
    knows = ("It finds" if isinstance(classifier, Detector) else "It tells apart", [", ".join(classifier.labels)])
    try:
        card = read_card(path)
        if (card.get("sha256") or {}).get(path.name) != file_hash(path):
            raise FieldguideError(f"The card beside {path.name} describes another file. Run 07_export again.")
        told = card.get("told", "") if card.get("task") == "detect" else ""
        return verdict_sentence(card["verdict"]) if "verdict" in card else told, card_in_words(card)
    except (FieldguideError, OSError) as error:
        return "", [knows, ("No card", [f"How good it is, is not known here: {error}"])]


def card_in_words(card: Mapping) -> list[tuple[str, list[str]]]:
    """
    Return a model's card, as `read_card` checked it, as headings with lines of plain words.

    >>> figure = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50}
    >>> card_in_words({"labels": ["ant", "bee"], "test": {"accuracy": figure}})[1][1][0]
    'Of 50 photos kept apart until the end, it named 90 % rightly. For new photos like these, expect 80 % to 95 %.'
    """
    of_task = (
        [
            ("It finds", _labels(card, "boxes")),
            ("How well it finds them", _average_precision(card)),
            ("Which boxes it shows", _told_boxes(card)),
        ]
        if card.get("task") == "detect"
        else [
            ("It tells apart", _labels(card)),
            ("How often it is right", _accuracy(card)),
            ("When it says “not sure”", _unsure(card.get("unknown", {}))),
        ]
    )
    licences = [f"{name}: {counted(count)}" for name, count in card.get("licences", {}).items()]
    parts = [
        *of_task,
        ("What to beware of", card.get("limits", [])),
        ("Licences of its pictures", licences),
        ("Made", _made(card)),
    ]
    return [(heading, list(lines)) for heading, lines in parts if lines]


def _labels(card: Mapping, things: str = "pictures") -> list[str]:
    totals = {label: sum(sides.values()) for label, sides in card.get("counts", {}).items()}
    one = things[:-2] if things == "boxes" else things[:-1]
    numbers = {label: counted(total, one, things) for label, total in totals.items()}
    return [", ".join(f"{name} ({numbers[name]})" if name in totals else name for name in card["labels"])]


def _average_precision(card: Mapping) -> list[str]:
    for side, seen in (("test", "kept apart until the end"), ("valid", "that it did not learn from")):
        figure = card.get(side, {}).get("ap50", {})
        if figure.get("value") is not None:
            told = f"Average precision (AP50) in photos {seen}: {percent(figure, digits=0)}. 100 % is perfect."
            return [told] if side == "test" else [told, "They helped to choose the model, so expect a little less."]
    return ["That was not measured."]


def _told_boxes(card: Mapping) -> list[str]:
    threshold = card.get("threshold")
    return [f"Those with a probability of {share(threshold)} or more."] if isinstance(threshold, float) else []


def _accuracy(card: Mapping) -> list[str]:
    for side, seen in (("test", "kept apart until the end"), ("valid", "that it did not learn from")):
        figure = card.get(side, {}).get("accuracy", {})
        if figure.get("value") is None:
            continue
        told = f"Of {figure['n']:,} photos {seen}, it named {share(figure['value'])} rightly."
        if figure["low"] is not None and figure["high"] is not None:
            told += f" For new photos like these, expect {share(figure['low'])} to {share(figure['high'])}."
        return [told] if side == "test" else [told, "They helped to choose the model, so expect a little less."]
    return ["That was not measured."]


def _unsure(unknown: Mapping) -> list[str]:
    threshold = unknown.get("threshold")
    if threshold is None:
        return ["Never: it gives every photo a label. Go by its confidence.", *filter(None, [unknown.get("why")])]
    told = [f"When even its best label has less than {share(threshold)}." if threshold else "Never: it names all."]
    coverage, error = unknown.get("coverage", {}), unknown.get("error", {})
    if coverage.get("value") is not None and error.get("value") is not None:
        told.append(
            f"With {coverage['n']:,} photos that it did not learn from, it was sure of {share(coverage['value'])}, "
            f"and wrong in {share(error['value'])} of these."
        )
    return told


def _made(card: Mapping) -> list[str]:
    network = f"{card['arch']}, at {size_text(card['size'])} pixels" if card.get("arch") and card.get("size") else ""
    return [text for text in (card.get("created", "")[:10], network) if text]
