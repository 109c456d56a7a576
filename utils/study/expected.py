"""
Stage 09, how long it will take: from runs that are done, of the same setting or of one like it.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from utils.study.runs import RUN_DONE, TrainingRun
from utils.study.settings import Setting

LEAST_SECONDS = 0.1  # seconds
A_DAY, AN_HOUR, A_MINUTE = 86400, 3600, 60  # seconds


def work(setting: Setting) -> float:
    """Return how much a training of a setting has to do, in a unit of its own: pixels times epochs."""
    project = setting.project
    epochs = 1 if project.train == "head" else project.epochs + project.freeze_epochs
    return math.prod(project.height_width) * epochs


def seconds_of(settings: Sequence[Setting], runs: Mapping[tuple[str, int], TrainingRun]) -> dict[str, float | None]:
    """
    Return id → the seconds that a run of each setting is likely to take; None where no run tells.

    Its own runs tell it; else those of settings that train the same network, by pixels and epochs; else any.
    """
    known = {setting.id: setting for setting in settings}
    own: dict[str, list[float]] = {}
    rates: dict[tuple, list[float]] = {}
    for run in runs.values():
        if run.status == RUN_DONE and (setting := known.get(run.setting)):
            own.setdefault(setting.id, []).append(run.seconds)
            for kind in (_family(setting), ()):
                rates.setdefault(kind, []).append(run.seconds / work(setting))
    found: dict[str, float | None] = {}
    for id, setting in known.items():
        rate = rates.get(_family(setting)) or rates.get(())
        found[id] = median(own[id]) if id in own else max(LEAST_SECONDS, median(rate) * work(setting)) if rate else None
    return found


def _family(setting: Setting) -> tuple:
    """Return what settings share that take as long per pixel and epoch."""
    return (setting.project.train, setting.project.arch)


def span(seconds: float) -> str:
    """
    Return a time in words.

    >>> span(3), span(100), span(8000), span(864000)
    ('3 seconds', '2 minutes', '2.2 hours', '10 days')
    """
    if seconds < 1.5 * A_MINUTE:
        return f"{max(1, round(seconds))} second{'s' if round(seconds) > 1 else ''}"
    if seconds < 1.5 * AN_HOUR:
        return f"{round(seconds / A_MINUTE)} minutes"
    return f"{seconds / AN_HOUR:.1f} hours" if seconds < 2 * A_DAY else f"{round(seconds / A_DAY):,} days"
