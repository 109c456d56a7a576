"""
Stage 02: open every picture for real, reject what is broken or a copy, make the training copies.

Reads raw/, the addresses in sources.csv and the folders of images/ as they are. Writes images/, pictures.csv and
rejected.csv, and to sources.csv the names of dropped photos. A picture that was accepted once is never brought back:
what a person removed or moved stays as the person left it.
"""

from utils.errors import FieldguideError
from utils.project import Project
from utils.storage import locked, remove_leftovers
from utils.tables import SOURCES_COLUMNS, each_row
from utils.verify.byhand import take_in_by_hand
from utils.verify.depths import bits_of_set
from utils.verify.opening import in_batches, judged_in_order, keep
from utils.verify.quality import served_by_many
from utils.verify.report import VerifyReport, report_of
from utils.verify.verdicts import (
    KNOWN,
    Run,
    Tables,
    already_under,
    by_id,
    lying,
    raw_files,
    trashed,
    two_labels,
    unlabelled,
)


def verify_images(project: Project) -> VerifyReport:
    """
    Judge every picture that is new in raw/ or dropped into images/, and make the training copies.

    Run it again at any time: it does what is missing and nothing twice. A label without a picture is no error but the
    report's first remark, so that its rejected pictures can be looked at. Raises FieldguideError if nothing was
    gathered yet, or a file cannot be read or written.
    """
    with locked(project.data):
        remove_leftovers(project.data)
        tables, run = Tables(project), Run()
        take_in_by_hand(project, tables, run)
        judge_new(project, tables, run)
    report = report_of(project, tables, run)
    if not report.counts.pictures.any() and not raw_files(project) and not unlabelled(project):
        raise FieldguideError(
            f"There is no picture in {project.data}: nothing was gathered. Run 01, or put photos into "
            f"{project.images / '<label>'}, and run this cell again."
        )
    return report


def judge_new(project: Project, tables: Tables, run: Run) -> None:
    """Judge what the tables don't know yet. What could not be read stays unknown, and the next run tries it again."""
    files, there = raw_files(project), lying(project)
    same, deleted = by_id(files), trashed(project, there)
    seen, known = tables.settled | tables.accepted, {}
    fresh = [path for path in files if (path.stem, path.parent.name) not in seen]
    for path in fresh:
        id, label = path.stem, path.parent.name
        if id in tables.label_of:
            now = [path.parent.name for path in there.get(id, ())]
            known[id, label] = already_under(now[0]) if now else f"{KNOWN}was under {tables.label_of[id]!r} before"
        elif others := [other for other in dict.fromkeys(path.parent.name for path in same[id]) if other != label]:
            known[id, label] = two_labels(others)
    served = served_by_many(each_row(project.table("sources"), SOURCES_COLUMNS)) if fresh else {}
    before = len(tables.settled)
    bits = bits_of_set(tables) if fresh else None
    for batch in in_batches(judged_in_order(fresh, known=known, served=served, bits=bits)):
        run.added += keep(tables, [judged for judged in batch if not judged.unread], there, deleted)
        run.unread += [judged for judged in batch if judged.unread]
    run.rejected += len(tables.settled) - before
