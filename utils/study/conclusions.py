"""
Stage 09, what was learned: sentences, each about two values of one setting.

Two values are compared on all pairs of runs that differ in nothing else. So a value is not praised for what came with
it. The sentences of a study are corrected together for their number (`comparing.contrasts`).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from utils.study.comparing import MOST_MORE, Contrast, Estimate, accuracy_interval, contrasts, paired
from utils.study.runs import RUN_FAILED, TrainingRun
from utils.study.settings import Setting, told
from utils.study.study import Study
from utils.words import counted, rounded

JUST_ENOUGH = 0.97  # of the training pictures named rightly: the network could learn them, whatever was done to them
Value = tuple[str, str]  # a key, and one of its values in words


def conclusions(study: Study) -> str:
    """Return what the study says so far, a sentence per line: the leader, then each key's best value against others."""
    runs = study.runs()
    leads = study.standing(runs).leader
    if leads is None:
        return study.undecided(runs)
    setting = next(setting for setting in study.settings if setting.id == leads)
    done = study.done(setting, runs)
    value, low, high = accuracy_interval(done, study.groups)
    photos = sum(len(run.right) for run in done)
    lines = [
        f"In the lead: {setting.name}, right for {rounded(value, 1)} ({100 * low:.1f} to {100 * high:.1f}) of "
        f"{photos:,} judged photos in {counted(len(done), 'training')}."
    ]
    compared = contrasts(value_pairs(study.settings, runs, study.groups))
    for key in dict.fromkeys(key for setting in study.settings for key in setting.values):
        lines += _about(key, [each for each in compared if each.better[0] == key])
    lines += _just_enough(study, runs, compared)
    failed = [s.name for s in study.settings if any(r.status == RUN_FAILED for r in runs.values() if r.setting == s.id)]
    if failed:
        lines.append(f"Failed, and not compared: {'; '.join(failed)}. study.table() says why.")
    if len(done) < 2:
        lines.append("One training per setting says nothing of how much trainings differ. Take seeds = 3 or more.")
    if len(compared) > 1:
        lines.append(
            f"The intervals hold together: they are corrected for {counted(len(compared), 'comparison')} (Holm)."
        )
    return "\n".join(lines)


def value_pairs(
    settings: Sequence[Setting], runs: Mapping[tuple[str, int], TrainingRun], groups: Mapping[int, Sequence]
) -> dict[tuple[Value, Value], Estimate]:
    """
    Return how much better one value of a key is than another, over all pairs of settings that differ in that alone.

    A key that only one of two settings reads, as a head reads no epochs, does not keep them apart.
    """
    found: dict[tuple[Value, Value], Estimate] = {}
    seeds = sorted({seed for _, seed in runs})
    tried = [setting for setting in settings if any((setting.id, seed) in runs for seed in seeds)]
    pairs: dict[tuple[Value, Value], tuple[list[TrainingRun], list[TrainingRun]]] = {}
    for one, other in combinations(tried, 2):
        apart = [key for key in one.values.keys() & other.values.keys() if one.values[key] != other.values[key]]
        if len(apart) == 1:
            values = tuple((apart[0], told(setting.values[apart[0]])) for setting in (one, other))
            flipped = values[::-1] in pairs
            ours, theirs = pairs.setdefault(values[::-1] if flipped else values, ([], []))
            for seed in seeds:
                if (one.id, seed) in runs and (other.id, seed) in runs:
                    (theirs if flipped else ours).append(runs[one.id, seed])
                    (ours if flipped else theirs).append(runs[other.id, seed])
    for values, (ours, theirs) in pairs.items():
        if (gain := paired(ours, theirs, groups)) is not None:
            found[values] = gain
    return found


def _about(key: str, compared: Sequence[Contrast]) -> list[str]:
    """Return the sentences about one key: its best value against each other one."""
    gains: dict[Value, float] = {}
    for each in compared:
        gains[each.better] = gains.get(each.better, 0) + each.difference.value
        gains[each.worse] = gains.get(each.worse, 0) - each.difference.value
    if not gains:
        return []
    best = max(gains, key=lambda value: gains[value])
    of_best = [each for each in compared if best in (each.better, each.worse)]
    order = list(gains)
    return [sentence(each) for each in sorted(of_best, key=lambda each: order.index(_other(each, best)))]


def _other(each: Contrast, value: Value) -> Value:
    """Return what a value is compared with."""
    return each.worse if each.better == value else each.better


def sentence(each: Contrast) -> str:
    """Return a comparison in words: which is better, by how much; or that nobody can tell, and how many seeds could."""
    (key, better), (_, worse) = each.better, each.worse
    low, high = each.interval
    points = f"{100 * each.difference.value:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
    if each.differs:
        return f"{key}: {better} is better than {worse} by {points}."
    needed = each.difference.seeds_needed(each.level) - each.difference.seeds
    if needed <= MOST_MORE:
        advice = f"About {counted(max(1, math.ceil(needed)), 'more seed')} would do, if the difference stays."
    else:
        advice = f"More than {MOST_MORE} more seeds would be needed: take the quicker one."
    return f"{key}: {better} and {worse} cannot be told apart: {points}. {advice}"


def _just_enough(study: Study, runs: Mapping[tuple[str, int], TrainingRun], compared: Sequence[Contrast]) -> list[str]:
    """
    Return which augmentation is just enough: the most that the network still learns, with no worse validation.

    With too little it learns the training set by heart; with too much it cannot learn it any more.
    """
    shares: dict[str, list[float]] = {}
    for setting in study.settings:
        for run in study.done(setting, runs) if "augment" in setting.values else ():
            if not math.isnan(run.train_accuracy):  # of a run from before augment was part of the study
                shares.setdefault(told(setting.values["augment"]), []).append(run.train_accuracy)
    means = {value: sum(found) / len(found) for value, found in shares.items()}
    worse = {each.worse[1] for each in compared if each.differs and each.better[0] == "augment"}
    fine = [value for value in means if value not in worse and means[value] >= JUST_ENOUGH]
    seen = ", ".join(f"{value} {rounded(mean, 1)}" for value, mean in means.items())
    if not means:
        return []
    if not fine:
        return [
            f"augment, accuracy on the training pictures: {seen}. None reaches {rounded(JUST_ENOUGH)} without losing "
            "on the validation set: train for more epochs, or vary less."
        ]
    most = min(fine, key=lambda value: means[value])
    return [
        f"augment, accuracy on the training pictures: {seen}. Just enough is {most}: the network still learns its "
        "training pictures, and the validation set loses nothing that can be shown."
    ]
