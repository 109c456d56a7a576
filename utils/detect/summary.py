"""
What `make run` says at the end of a project that finds things: how good the detector is, what was made, where it lies.
"""

from utils.boxes import read_boxes, read_photos
from utils.detect.evaluating import read_box_evaluation
from utils.detect.judging import box_verdict_sentence
from utils.detect.keeping import is_of_today, read_detector
from utils.errors import FieldguideError
from utils.project import Project
from utils.tables import REJECTED_COLUMNS, each_row
from utils.words import counted


def finding_lines(project: Project) -> list[str]:
    """Return one line each: the verdict, whether it still holds, and how many photos and boxes there are."""
    boxes = read_boxes(project.table("boxes"))
    photos = read_photos(project)
    lines = _verdict_lines(photos)
    if len(photos):
        count = counted(sum(map(len, boxes.values())), "box", "boxes")
        lines.append(f"photos     {len(photos):,} with {count}, in {project.images}")
    rejected = {row["id"] for row in each_row(project.table("rejected"), REJECTED_COLUMNS)} - set(photos.dataset.ids)
    if rejected:
        lines.append(f"rejected   {len(rejected):,}, each with its reason in {project.table('rejected')}")
    return lines


def _verdict_lines(photos) -> list[str]:
    """Return the verdict, and whether it is that of today's photos and settings."""
    try:
        evaluation, kept = read_box_evaluation(photos.project), read_detector(photos.project)
    except FieldguideError as error:
        return [f"verdict    {error}"]
    if evaluation is None:
        return ["verdict    none yet: run 3_train and 4_test"]
    side = evaluation["verdict"]["side"]
    ap50 = evaluation[side]["figures"]["ap50"]
    lines = [f"verdict    {box_verdict_sentence(evaluation['verdict'], ap50)}"]
    if evaluation["changed"]:
        lines.append(f"settings   {evaluation['changed']}")
    elif not is_of_today(photos, kept):
        lines.append("stale      Photos, boxes, split or settings changed since that verdict: run 3_train and 4_test")
    return lines
