"""
Stage 09, the study itself: what is planned, what is done, and the work in between.

Reads images/ and split.csv, but no picture of the test set; writes models/<name>/study/<data>/runs.csv. <data> stands
for pictures, labels and groups: after they changed, a new study begins, and the old one stays.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from tqdm.auto import tqdm

from utils.dataset import Dataset, read_dataset
from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import MINUTE, remove_leftovers, require_writable
from utils.study.comparing import accuracy_interval
from utils.study.expected import seconds_of, span
from utils.study.racing import COMPLETE, TO_DO, Standing, standing
from utils.study.runs import MOST_DEATHS, RUN_DONE, RUN_FAILED, TrainingRun, add_run, claimed, mend_runs, read_runs
from utils.study.settings import Setting, combinations, settings_of
from utils.study.training import pool_of, run_setting, with_sides
from utils.train import download_weights
from utils.words import counted, rounded

MOST_COMBINATIONS = 100_000
MANY_SETTINGS = 1000  # combinations: then the plan says how long they would take, and how to try fewer
ROWS_SHOWN = 50  # rows of a table
BAR = "{l_bar}{bar}| {n_fmt} of {total_fmt} runs{postfix}"  # tqdm's own time to go takes all runs for equally long
WAIT = 2.0  # seconds between two looks at what another notebook is doing


@dataclass(frozen=True)
class Study:
    """Settings tried on one data set: `plan` shows them, `run` trains them, as long as you like and again."""

    project: Project
    pool: Dataset  # the training and validation set; of the test set nothing is known here
    settings: tuple[Setting, ...]

    @cached_property
    def folder(self) -> Path:
        """Return the folder of this study: models/<name>/study/<16 hex digits of the data>."""
        rows = [list(row) for row in zip(self.pool.ids, self.pool.labels, self.pool.groups, strict=True)]
        share = self.project.valid / (1 - self.project.test)
        facts = json.dumps([list(self.project.labels), rows, round(share, 6)])
        return self.project.models / "study" / hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds: the project's and those after it."""
        return tuple((self.project.seed + n) % 2**32 for n in range(self.project.study["seeds"]))

    @cached_property
    def groups(self) -> Mapping[int, tuple[str, ...]]:
        """Return seed → the group of each picture in its validation set."""
        return {seed: with_sides(self.pool, seed).on("valid").groups for seed in self.seeds}

    def runs(self) -> dict[tuple[str, int], TrainingRun]:
        """Return the runs of these settings and seeds: (id of the setting, seed) → run."""
        wanted = {(setting.id, seed) for setting in self.settings for seed in self.seeds}
        return {key: run for key, run in read_runs(self.folder).items() if key in wanted}

    def standing(self, runs: Mapping[tuple[str, int], TrainingRun] | None = None) -> Standing:
        """Return what the runs decide: who is out, what is due, who leads."""
        runs = self.runs() if runs is None else runs
        return standing(self.settings, self.seeds, runs, self.groups, race=self.project.study["race"])

    def done(self, setting: Setting, runs: Mapping[tuple[str, int], TrainingRun]) -> list[TrainingRun]:
        """Return the runs of a setting that ended well, by seed."""
        found = [runs[setting.id, seed] for seed in self.seeds if (setting.id, seed) in runs]
        return [run for run in found if run.status == RUN_DONE]

    def plan(self) -> Styler:
        """Return a table of all settings with what is done, what is to do, and how long it will take; print the sum."""
        runs = self.runs()
        print(self.outlook(runs))
        return self.table(runs)

    def outlook(self, runs: Mapping[tuple[str, int], TrainingRun] | None = None) -> str:
        """Return in words what is done, what is to do, and how long that is expected to take."""
        runs = self.runs() if runs is None else runs
        now, expected = self.standing(runs), seconds_of(self.settings, runs)
        total = len(self.settings) * len(self.seeds)
        settings, seeds = counted(len(self.settings), "setting"), counted(len(self.seeds), "seed")
        told = f"{settings} × {seeds} = {counted(total, 'run')}: {len(runs):,} done"
        if now.left:
            seconds = self._seconds_left(now, expected)
            if seconds is None:
                long = f"how long that takes is known after the first; at a minute each it is {span(60 * now.left)}"
            else:
                long = f"about {span(seconds)}"
            races = self.project.study["race"] and len(self.seeds) > 2 and len(self.settings) > 1
            race = ", fewer if settings drop out" if races else ""
            told += f", {now.left:,} to do ({long}{race})."
        else:
            dropped = f"; {total - len(runs):,} were not needed" if total > len(runs) else ""
            told += f"{dropped}. The study is complete."
        if len(self.settings) > MANY_SETTINGS:
            told += " That is a lot: vary two or three keys first, with two or three values each."
        return told

    def _seconds_left(self, now: Standing, expected: Mapping[str, float | None]) -> float | None:
        """Return how long the runs to do are expected to take; None as long as no run tells."""
        if None in expected.values():
            return None
        later = [expected[setting.id] for setting in self.settings if setting.id not in now.out]
        due = sum(expected[setting.id] for setting, _ in now.due)
        return due + (now.left - len(now.due)) * float(np.mean(later))

    def undecided(self, runs: Mapping[tuple[str, int], TrainingRun]) -> str:
        """Return in words why no setting leads."""
        if not runs:
            return "No run is done yet: study.run() begins."
        if not self.standing(runs).left:
            return "Every setting failed: study.table() says why. study.run(retry=True) tries them again."
        tried = f"{len({setting for setting, _ in runs}):,} of {len(self.settings):,}"
        return f"No setting leads before all have trained once: {tried} have. Go on with study.run()."

    def table(self, runs: Mapping[tuple[str, int], TrainingRun] | None = None) -> Styler:
        """Return the settings as a table to show, the best first: accuracy, time, what became of them."""
        runs = self.runs() if runs is None else runs
        now, expected = self.standing(runs), seconds_of(self.settings, runs)
        rows = []
        for setting in self.settings:
            done = self.done(setting, runs)
            state, why = now.out.get(
                setting.id, (COMPLETE if len(done) == len(self.seeds) or not now.left else TO_DO, "")
            )
            value, low, high = accuracy_interval(done, self.groups) if done else (np.nan,) * 3
            seconds = expected[setting.id]
            rows.append(
                {
                    "setting": setting.name,
                    "accuracy": "" if not done else f"{rounded(value, 1)} ({100 * low:.1f} to {100 * high:.1f})",
                    "runs": f"{len(done)} of {len(self.seeds)}",
                    "time per run": "" if seconds is None else span(seconds),
                    "state": "leads" if setting.id == now.leader and done else f"{state}: {why}" if why else state,
                    "rank": -value if done else 1.0,
                }
            )
        table = pd.DataFrame(rows).sort_values("rank", kind="stable").drop(columns="rank").head(ROWS_SHOWN)
        left = {"selector": "th, td", "props": "text-align: left"}
        style = table.style.hide(axis="index").set_table_styles([left])
        style = style.set_properties(subset=["accuracy", "runs", "time per run"], **{"white-space": "nowrap"})
        more = f"the first {ROWS_SHOWN} of {len(rows):,} settings" if len(rows) > ROWS_SHOWN else ""
        return style.set_caption(more) if more else style

    def run(self, minutes: float | None = None, *, retry: bool = False) -> None:
        """
        Train what is due until all is done, the time is over or Ctrl-C is pressed; call it again to go on.

        `minutes` are those of [study] by default. No run begins that is expected to end later; one under way is
        finished. With `retry`, runs that failed are done again.
        """
        limit = 60 * (self.project.study["minutes"] if minutes is None else minutes)
        require_writable(self.folder)
        remove_leftovers(self.folder, older=MINUTE)
        mend_runs(self.folder)
        ended = time.monotonic() + limit
        wanted = {(setting.project.arch, setting.project.weights): setting.project for setting in self.settings}
        for project in wanted.values():
            if project.train != "head":
                download_weights(project)  # what cannot be had would fail every run
        again = {key for key, run in self.runs().items() if run.status == RUN_FAILED} if retry else set()
        try:
            with tqdm(total=0, desc="study", bar_format=BAR) as bar:
                stopped = self._run_until(ended, again, bar)
        except KeyboardInterrupt:
            stopped = "Stopped. The run under way is lost; those before it are kept. study.run() goes on."
        if stopped:
            print(stopped)
        print(self.outlook())

    def _run_until(self, ended: float, again: set, bar: tqdm) -> str:
        """Train what is due; return why it stopped before the end, or ""."""
        began_any = False
        while True:
            runs = self.runs()
            now = self.standing({key: run for key, run in runs.items() if key not in again})
            expected = seconds_of(self.settings, runs)
            if bar.total != len(runs) + now.left:
                bar.reset(len(runs) + now.left)  # in a notebook this draws the bar anew, at its full width
            bar.n, seconds = len(runs), self._seconds_left(now, expected)
            bar.set_postfix_str(f"about {span(seconds)} to go" if now.left and seconds is not None else "")
            if not now.due:
                return ""
            for setting, seed in now.due:
                lasts = expected[setting.id] or 0
                if time.monotonic() + lasts > ended:
                    if not began_any and lasts:
                        return f"A run of “{setting.name}” takes about {span(lasts)}: allow more minutes."
                    if lasts and ended > time.monotonic():
                        return f"The time left is too short for “{setting.name}”, {span(lasts)}. study.run() goes on."
                    return "The time is over. study.run() goes on."
                with claimed(self.folder, (setting.id, seed)) as deaths:
                    if deaths is None or ((setting.id, seed) in self.runs() and (setting.id, seed) not in again):
                        continue  # another notebook is at it, or was
                    bar.set_description(f"{setting.name}, seed {seed}")
                    add_run(self.folder, self._trained(setting, seed, deaths), again=(setting.id, seed) in again)
                    again.discard((setting.id, seed))
                    began_any = True
                break
            else:  # others are at all of them
                if time.monotonic() + WAIT > ended:
                    return "The time is over. Another notebook is still at the last runs."
                time.sleep(WAIT)

    def _trained(self, setting: Setting, seed: int, deaths: int) -> TrainingRun:
        """Return a run, trained now unless that ended the whole process several times."""
        if deaths >= MOST_DEATHS:
            reason = (
                f"the notebook ended {deaths} times in the middle of this run: memory may be short for it. "
                "study.run(retry=True) tries it again"
            )
            return TrainingRun(setting.id, seed, setting.name, RUN_FAILED, reason)
        return run_setting(self.pool, setting, seed, look_back="augment" in setting.values)


def read_study(project: Project) -> Study:
    """Return the study that [study] in the project file describes, of the pictures as they are now."""
    if (count := combinations(project)) > MOST_COMBINATIONS:
        raise FieldguideError(
            f"[study] names {count:,} combinations. With {counted(project.study['seeds'], 'seed')} and a minute each "
            f"they would take {span(60 * count * project.study['seeds'])}. Name fewer values: {MOST_COMBINATIONS:,} "
            "combinations are the most."
        )
    return Study(project, pool_of(read_dataset(project)), tuple(settings_of(project)))
