"""What applying did, in words, and the choices that come from choices.csv; the ledger does the rest."""

from collections.abc import Sequence

from utils.ledger import DELETED, Ledger, Outcome, read_choices, save_choices
from utils.project import Project
from utils.storage import locked, remove_leftovers
from utils.words import counted

MOST_REASONS = 5  # and pictures per reason, that a summary tells in full
RUN_AGAIN = "Next: run 03, 04 and 05 again (make run does it). 05 then says whether the changes helped."


def apply_choices(project: Project) -> str:
    """
    Take over choices.csv (see `save_choices`), carry out these choices and no others, and say what was done.

    What a killed run left behind is removed first.
    """
    path = project.table("choices")
    if project.data.is_dir():
        with locked(project.data):
            remove_leftovers(project.data, below=False)
    if not path.exists():
        return f"No choices to take over: there is no {path}."
    chosen = read_choices(path)
    refused = save_choices(project, path)
    outcomes = Ledger(project).apply(only=[id for id in chosen if id not in refused])
    taken = f"Took over {counted(len(chosen) - len(refused), 'choice')} from {path.name}."
    left = _left({reason: [id] for id, reason in refused.items()})
    return " ".join([taken, *left, *([summary(outcomes)] if outcomes else [])])


def summary(outcomes: Sequence[Outcome], *, undone: bool = False) -> str:
    """
    Return what applying did, or taking back (`undone`), as a person would say it.

    >>> summary([Outcome("a", "cat", "dog", True), Outcome("b", "cat", "<Delete>", True)]).removesuffix(RUN_AGAIN)
    'Moved 1 to another label and 1 to the trash. '
    >>> summary([])
    'There was nothing to apply: no picture is flagged to be moved or deleted.'
    """
    if not outcomes and undone:
        return "There is no Apply to take back."
    if not outcomes:
        return "There was nothing to apply: no picture is flagged to be moved or deleted."
    done = [outcome for outcome in outcomes if outcome.done]
    deleted = sum(outcome.new == DELETED for outcome in done)
    moved = f"Moved {len(done) - deleted} to another label and {deleted} to the trash."
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if not outcome.done:
            reasons.setdefault(outcome.reason, []).append(outcome.id)
    first = f"Took back the last Apply: {counted(len(done))} moved back." if undone else moved
    return " ".join([first, *_left(reasons), *([RUN_AGAIN] if done else [])])


def _left(reasons: dict[str, list[str]]) -> list[str]:
    """Return a sentence per reason, the most frequent first, with the ids that were left for it."""
    told = []
    for why, ids in sorted(reasons.items(), key=lambda each: -len(each[1])):
        more = f" and {len(ids) - MOST_REASONS} more" if len(ids) > MOST_REASONS else ""
        was = "was" if len(ids) == 1 else "were"
        told.append(f"{', '.join(ids[:MOST_REASONS])}{more} {was} left: {why.rstrip('.')}.")
    if len(told) > MOST_REASONS:
        rest = f"{counted(len(told) - MOST_REASONS, 'more reason')}: Ledger(project).apply() returns each picture's."
        return [*told[:MOST_REASONS], rest]
    return told
