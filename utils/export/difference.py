"""
Stage 07: whether two answers to a picture are the same. Needs no torch.
"""

from utils.inference import Prediction

AGREEMENT = 1e-3  # the largest difference of a probability between fastai's answers and ours


def disagreement(one: Prediction, other: Prediction, *, within: float = AGREEMENT) -> str:
    """
    Return in what two answers differ, "" if they are the same.

    Probabilities are the same if they differ by at most `within`, errors when they have the same words. Labels must be
    the same too, unless both are so nearly equal in probability (by less than twice that) that the last digits decide.

    >>> disagreement(Prediction("a", 0.9, {"a": 0.9, "b": 0.1}), Prediction("a", 0.8, {"a": 0.8, "b": 0.2}))
    "the probability of 'a' is 0.9000 and 0.8000"
    >>> disagreement(Prediction("a", 0.5002, {"a": 0.5002, "b": 0.4998}), Prediction("b", 0.5, {"a": 0.5, "b": 0.5}))
    ''
    """
    if one.error or other.error:
        return "" if one.error == other.error else f"{one.error or one.label!r} and {other.error or other.label!r}"
    if list(one.probabilities) != list(other.probabilities):
        return f"the labels are {', '.join(one.probabilities)} and {', '.join(other.probabilities)}"
    for label, probability in one.probabilities.items():
        if not abs(probability - other.probabilities[label]) <= within:  # NaN differs from all
            return f"the probability of {label!r} is {probability:.4f} and {other.probabilities[label]:.4f}"
    for answer, label in ((one, other.label), (other, one.label)):
        if answer.probabilities[label] < max(answer.probabilities.values()) - 2 * within:
            return f"the labels are {one.label!r} and {other.label!r}"
    return ""
