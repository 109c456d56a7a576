"""
Does the certified threshold of stage 07 keep its promise? Against the rule that it replaced.

    python benchmarks/threshold.py

Draws projects: a model of three labels that is too confident, its validation set, out-of-fold answers of other models
for a training set 2.5 times as large, and 40,000 fresh photos that tell the true error. The validation set fits the
temperature, as in 05. "Theirs" is the earlier rule: on the validation set alone, the lowest threshold at which one
mistake more would still be 5 %. "Out of fold alone" certifies the share of photos on the out-of-fold answers and takes
it over: it shows why those answers only choose. Each cell: of the projects that got a promise, how many broke it.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import beta

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from utils.evaluate import scale
from utils.export import certify_threshold

PROJECTS, LABELS, FRESH, TOO_SURE = 1000, 3, 40_000, 3
CONFIDENCE, TARGETS = 0.9, (0.2, 0.1, 0.05)
ACCURACY = 0.81


def main() -> None:
    """Print the table."""
    print("| photos in the validation set | out-of-fold models | theirs | out of fold alone | ours | ours promises |")
    print("|---|---|---|---|---|---|")
    for count in (40, 200):
        for judges in (None, 0.70, ACCURACY, 0.92):
            cells = " | ".join(simulated(count, judges))
            print(f"| {count} | {'none' if judges is None else f'right {judges:.0%}'} | {cells} |", flush=True)


def simulated(count: int, judges: float | None) -> list[str]:
    """Return the cells of one row: N photos, and how often the out-of-fold models are right."""
    rng = np.random.default_rng(0)
    signal, theirs = signal_for(ACCURACY), signal_for(judges or ACCURACY)
    fresh, said = answers(rng, FRESH, signal, TOO_SURE)
    promised = {"earlier": [], "alone": [], "ours": []}
    for _ in range(PROJECTS):
        labels, probs = answers(rng, count, signal, TOO_SURE)
        temperature = fitted_temperature(labels, probs)
        probs = scale(probs, temperature)
        others = None if judges is None else (*answers(rng, int(2.5 * count), theirs, 1), range(int(2.5 * count)))
        found = certify_threshold(labels, probs, groups=range(count), others=others)
        now = scale(said, temperature)
        sure, wrong = now.max(1), now.argmax(1) != fresh
        promises = {"earlier": earlier_rule(labels, probs), "ours": (found["threshold"], found["target_error"])}
        promises["alone"] = (None, None) if others is None else out_of_fold_alone(probs, *others[:2])
        for rule, (threshold, target) in promises.items():
            if threshold is not None:
                promised[rule].append((target, wrong[sure >= threshold].mean()))
    shares = " ".join(f"{t:.0%}: {np.mean([target == t for target, _ in promised['ours']]):.0%}" for t in TARGETS)
    return [broken(promised[rule]) for rule in ("earlier", "alone", "ours")] + [shares]


def broken(promises: list[tuple[float, float]]) -> str:
    """Return how many promises were broken: of how many, in percent."""
    if not promises:
        return "–"
    return f"{np.mean([error > target for target, error in promises]):.1%} of {len(promises)}"


def answers(rng: np.random.Generator, count: int, signal: float, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) and probabilities (N, K) of a model; a sharpness above 1 makes it too confident."""
    labels = rng.integers(0, LABELS, count)
    scores = (rng.normal(size=(count, LABELS)) + signal * np.eye(LABELS)[labels]) * signal * sharpness
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return labels, powers / powers.sum(1, keepdims=True)


def signal_for(accuracy: float) -> float:
    """Return the signal with which a model is right that often."""

    def missed(signal: float) -> float:
        labels, probs = answers(np.random.default_rng(1), FRESH, signal, 1)
        return abs((probs.argmax(1) == labels).mean() - accuracy)

    return minimize_scalar(missed, bounds=(0.1, 5), method="bounded").x


def fitted_temperature(labels: np.ndarray, probs: np.ndarray) -> float:
    """Return the temperature at which the labels are most likely; 1 if every photo is right."""
    if (probs.argmax(1) == labels).all():
        return 1.0
    places = np.arange(len(labels)), labels
    loss = minimize_scalar(lambda t: -np.log(scale(probs, np.exp(t))[places] + 1e-12).mean(), bounds=(-3, 3))
    return float(np.exp(loss.x))


def earlier_rule(labels: np.ndarray, probs: np.ndarray, target: float = 0.05) -> tuple[float | None, float]:
    """Return the lowest threshold at which, with one mistake more, the target is kept on the same photos."""
    order = np.argsort(probs.max(1), kind="stable")
    sure, wrong = probs.max(1)[order], (probs.argmax(1) != labels)[order]
    named, mistakes = len(sure) - np.arange(len(sure)), wrong[::-1].cumsum()[::-1]
    good = np.flatnonzero(mistakes + 1 <= target * (named + 1))
    if not len(good):
        return None, target
    return (sure[good[0] - 1] + sure[good[0]]) / 2 if good[0] else 0.0, target


def out_of_fold_alone(probs: np.ndarray, labels: np.ndarray, others: np.ndarray) -> tuple[float | None, float | None]:
    """Return the threshold that names the share of photos which the out-of-fold answers alone certify."""
    wrong = (others.argmax(1) != labels)[np.argsort(-others.max(1), kind="stable")]
    named, mistakes = np.arange(1, len(wrong) + 1), wrong.cumsum()
    bounds = np.where(mistakes < named, beta.ppf(CONFIDENCE, mistakes + 1, np.maximum(named - mistakes, 1e-9)), 1)
    for target in sorted(TARGETS):
        first = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(1 - target)))  # without a mistake, the fewest that certify
        passed = np.cumprod(bounds[first - 1 :] <= target).sum()  # from these on, one photo more at a time
        if passed:
            share = (first - 1 + passed) / len(wrong)
            return float(np.quantile(probs.max(1), 1 - share)), target
    return None, None


if __name__ == "__main__":
    main()
