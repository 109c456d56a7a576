"""
Numbers, lists and plurals in words.

Foundation of every stage: one way to write a percentage, an interval, a count or a list of labels.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

SETS = {"train": "training set", "valid": "validation set", "test": "test set"}  # what a side of split.csv is called
FEWEST_PHOTOS = 5  # of a label, in all sets together
LABELS_NAMED = 8  # labels in one sentence


def rounded(fraction: float, digits: int = 0) -> str:
    """Return a fraction as a percentage, such as 87 %."""
    return f"{100 * fraction:.{digits}f} %"


def share(fraction: float) -> str:
    """
    Return a fraction as a percentage that never says none or all where it is some or nearly.

    >>> share(0.871), share(0.999), share(0.001), share(0.0)
    ('87 %', 'over 99 %', 'under 1 %', '0 %')
    """
    if 0.99 < fraction < 1:
        return "over 99 %"
    if 0 < fraction < 0.01:
        return "under 1 %"
    return rounded(fraction)


def between(low: float | None, high: float | None, write: Callable[[float], str] = str) -> str:
    """
    Return an interval in words; an end that is None is open.

    >>> between(1, 2), between(1, None), between(None, 2), between(None, None)
    ('1 to 2', 'at least 1', 'at most 2', '')
    """
    if low is not None and high is not None:
        return f"{write(low)} to {write(high)}"
    return f"at least {write(low)}" if low is not None else f"at most {write(high)}" if high is not None else ""


def percent(figure: Mapping, *, told: str = "95 % interval ", digits: int = 1) -> str:
    """
    Return a figure in percent with its interval, or why it is missing.

    >>> percent({"value": 0.8512, "low": 0.7, "high": 0.93, "n": 20})
    '85.1 % (95 % interval 70.0 % to 93.0 %)'
    """
    if figure["value"] is None:
        return f"– ({figure.get('why', 'not known')})"
    span = between(figure["low"], figure["high"], lambda end: rounded(end, digits))
    return rounded(figure["value"], digits) + (f" ({told}{span})" if span else "")


def listed(labels: Iterable[str], *, most: int = LABELS_NAMED) -> str:
    """
    Return labels as a part of a sentence.

    >>> listed(["cat", "dog", "fox"]), listed("abcd", most=3)
    ('“cat”, “dog” and “fox”', '“a”, “b”, “c” and 1 more')
    """
    quoted = [f"“{label}”" for label in labels]
    if len(quoted) > most:
        quoted = [*quoted[:most], f"{len(quoted) - most} more"]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def capitalised(text: str) -> str:
    """Return a text with a capital first letter and the others as they are."""
    return text[:1].upper() + text[1:]


def counted(count: int, noun: str = "picture", plural: str | None = None) -> str:
    """
    Return a number of things in words.

    >>> counted(1), counted(1000), counted(0, "class", "classes")
    ('1 picture', '1,000 pictures', '0 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def few_photos_sentence(labels: Iterable[str]) -> str:
    """
    Return a warning that names the labels of fewer than 5 photos, given the label of each photo; "" if there is none.

    >>> few_photos_sentence(["ant"] * 5 + ["bee"] * 3 + ["fly"])
    'Fewer than 5 photos: “fly” (1), “bee” (3). Luck decides how well such a label does. Gather more of it.'
    """
    few = sorted((count, label) for label, count in Counter(labels).items() if count < FEWEST_PHOTOS)
    if not few:
        return ""
    named = [f"“{label}” ({count})" for count, label in few[:LABELS_NAMED]]
    more = f" and {len(few) - LABELS_NAMED} more" * (len(few) > LABELS_NAMED)
    return (
        f"Fewer than {FEWEST_PHOTOS} photos: {', '.join(named)}{more}. Luck decides how well such a label does. Gather "
        "more of it."
    )


def verdict_sentence(verdict: Mapping) -> str:
    """
    Return a verdict of `utils.intervals.verdict` as the one sentence that stands before all figures.

    >>> verdict_sentence({"right": 23, "n": 36, "guess": 18, "p": 0.066, "better": False, "pictures": 36})
    'Right for 23 of 36 photos; guessing would get 18. On so few photos this cannot be told from guessing.'
    >>> verdict_sentence({"right": 33, "n": 36, "guess": 18, "p": 0.0, "better": True, "pictures": 40})
    'Right for 33 of 36 photos (photos of one group counted once); guessing would get 18. That is better than guessing.'
    """
    right, n, guess = verdict["right"], verdict["n"], verdict["guess"]
    once = " (photos of one group counted once)" if verdict.get("pictures", n) > n else ""
    if verdict["better"]:
        told = "That is better than guessing."
    elif right <= guess:
        told = "That is no better than guessing."
    else:
        told = f"On {'so few' if n < 1000 else 'these'} photos this cannot be told from guessing."
    return f"Right for {right:,} of {counted(n, 'photo')}{once}; guessing would get {guess:,}. {told}"
