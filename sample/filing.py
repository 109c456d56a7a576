"""
The sample as 01 files it: drawn once, told in truth.csv, saved like the pictures of any other source.

Drawing takes 20 to 30 seconds. What drew the sample is kept in data/<name>/sample.json, so that a second run need not.
"""

import json
from collections import Counter
from pathlib import Path

from tqdm.auto import tqdm

from sample import drawing, pictures
from sample.pictures import gathered_sample, outline_of, sample_pictures
from sample.truth import read_truth, write_truth
from utils.download import save_pictures
from utils.project import Project
from utils.storage import content_id, write_whole
from utils.tables import SOURCES_COLUMNS, each_row


def save_sample(project: Project) -> bool:
    """Draw the sample that the project asks for and save it; return False, and do nothing, if it is there already."""
    kept, asked = project.data / "sample.json", json.dumps(_asked(project), indent=1) + "\n"
    if kept.is_file() and kept.read_bytes() == asked.encode() and _is_listed(project):
        return False
    drawn = sample_pictures(project.labels, per_label=project.images_per_label, seed=project.seed)
    drawn = list(tqdm(drawn, desc="drawing", unit="picture"))
    write_truth(project, drawn)
    save_pictures(project, gathered_sample(drawn), total=len(drawn))
    write_whole(kept, asked)
    return True


def save_outlines(project: Project, folder: Path, *, per_label: int = 10) -> int:
    """
    Draw the true outlines of the sample as masks, `per_label` of each label, and return how many.

    They are called <id>.png and are white where the creature is: `folder` is a `mask_source` for the project file.
    """
    drawn = sample_pictures(project.labels, per_label=project.images_per_label, seed=project.seed)
    counts: Counter[str] = Counter()
    for picture in tqdm(drawn, desc="drawing outlines", unit="picture"):
        if counts[picture.label] < per_label and (outline := outline_of(picture, seed=project.seed)):
            write_whole(folder / f"{content_id(picture.data)}.png", outline)
            counts[picture.label] += 1
    return counts.total()


def _asked(project: Project) -> dict:
    """Return what the drawn pictures depend on: settings, and the code that draws."""
    code = b"".join(Path(module.__file__).read_bytes() for module in (drawing, pictures))
    settings = {"labels": sorted(project.labels), "per_label": project.images_per_label, "seed": project.seed}
    return settings | {"code": content_id(code)}


def _is_listed(project: Project) -> bool:
    """Return whether every picture of truth.csv has its row in sources.csv, which a person may have deleted."""
    truth = set(read_truth(project).url)
    return bool(truth) and truth <= {row["url"] for row in each_row(project.table("sources"), SOURCES_COLUMNS)}
