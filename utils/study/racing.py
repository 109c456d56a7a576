"""
Stage 09, which runs come next: racing drops settings by seeds, not by epochs.

All settings train with the first seed, then with the second, and so on. After each round from the second on, a setting
whose interval against the leader lies below 0 is dropped. Schedules depend on the number of epochs, so that unfinished
trainings of different lengths cannot be compared. What is decided follows from the table alone: killed and begun again,
a study decides the same.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from utils.study.comparing import contrasts, paired
from utils.study.runs import RUN_FAILED, TrainingRun
from utils.study.settings import Setting

FIRST_RACE = 2  # seeds: one alone says nothing of how much seeds differ
TO_DO, COMPLETE, DROPPED, FAILING = "to do", "done", "dropped", "failed"


@dataclass(frozen=True)
class Standing:
    """Where a study stands: which settings are out, and why; which runs are to do now."""

    out: Mapping[str, tuple[str, str]]  # id → DROPPED or FAILING, and the reason in words
    due: Sequence[tuple[Setting, int]]  # runs of the first round that is not complete, each a setting and a seed
    left: int  # runs to do at most, those included
    leader: str | None  # id of the setting in the lead


def standing(
    settings: Sequence[Setting],
    seeds: Sequence[int],
    runs: Mapping[tuple[str, int], TrainingRun],
    groups: Mapping[int, Sequence[Hashable]],
    *,
    race: bool = True,
) -> Standing:
    """Return where a study stands by its runs: setting and seed → run."""
    out: dict[str, tuple[str, str]] = {}
    for n, seed in enumerate(seeds, start=1):
        racing = [setting for setting in settings if setting.id not in out]
        if len(racing) == 1 and len(settings) > 1 and n > FIRST_RACE and race:
            break  # nobody is left to compare it with
        due = [(setting, seed) for setting in racing if (setting.id, seed) not in runs]
        if due:
            left = sum((setting.id, later) not in runs for setting in racing for later in seeds[n - 1 :])
            return Standing(out, due, left, leader_of(racing, seeds[: n - 1], runs))
        for setting in racing:
            if (run := runs[setting.id, seed]).status == RUN_FAILED:
                out[setting.id] = FAILING, run.reason
        racing = [setting for setting in racing if setting.id not in out]
        if race and FIRST_RACE <= n < len(seeds):
            out |= dropped(racing, seeds[:n], runs, groups)
    racing = [setting for setting in settings if setting.id not in out]
    return Standing(out, [], 0, leader_of(racing, seeds, runs))


def leader_of(
    racing: Sequence[Setting], seeds: Sequence[int], runs: Mapping[tuple[str, int], TrainingRun]
) -> str | None:
    """Return the id of the setting with the highest mean accuracy over seeds; of equals the quickest."""
    known = {s.id: [runs[s.id, seed] for seed in seeds if (s.id, seed) in runs] for s in racing}
    ranked = [
        (-sum(run.accuracy for run in found) / len(found), sum(run.seconds for run in found), id)
        for id, found in known.items()
        if found and all(run.status != RUN_FAILED for run in found)
    ]
    return min(ranked)[2] if ranked else None


def dropped(
    racing: Sequence[Setting],
    seeds: Sequence[int],
    runs: Mapping[tuple[str, int], TrainingRun],
    groups: Mapping[int, Sequence[Hashable]],
) -> dict[str, tuple[str, str]]:
    """
    Return which settings fall behind the leader, and why.

    Corrected for the comparisons with the leader, not for all pairs nor for the rounds: to drop one of two equal
    settings costs nothing. What the study says in the end is corrected for all of them (`conclusions`).
    """
    leader = leader_of(racing, seeds, runs)
    of = {setting.id: [runs[setting.id, seed] for seed in seeds] for setting in racing}
    names = {setting.id: setting.name for setting in racing}
    pairs = {(leader, id): paired(of[leader], of[id], groups) for id in of if leader and id != leader}
    found = {}
    for each in contrasts({pair: gain for pair, gain in pairs.items() if gain is not None}):
        if each.differs and each.better == leader:
            points = 100 * each.difference.value
            found[each.worse] = DROPPED, f"{points:.1f} points behind “{names[leader]}” after {len(seeds)} seeds"
    return found
