"""A small project of drawn pictures with everything that a cleaner can meet, and the notebook that shows it."""

import json
from pathlib import Path

import nbformat
from conftest import draw_picture, picture_bytes

from utils.project import Project
from utils.tables import CORRECTION_COLUMNS, SOURCES_COLUMNS, SPLIT_COLUMNS, append_rows, read_rows, write_table

ANT, MARKUP, KANA = "ant", "a &amp; 'b'", "ラベル"  # what a folder may be called
LABELS = [MARKUP, ANT, KANA]  # sorted, as the numbers on the cards count them
COLOURS = {ANT: "tomato", MARKUP: "navy", KANA: "gold"}
NAUGHTY = "<img src=x onerror=window.hacked=1>"  # a file name that a person dropped into a folder
BROKEN = "broken"
PER_LABEL = 13
LINKS = {
    "ant-00": 'https://photos.example/ants?id=1&title="<b>"',
    "ant-01": "javascript:window.hacked=1",
    "ant-02": "file:///etc/passwd",
    "ant-03": "data:text/html,<script>window.hacked=1</script>",
    "ant-04": "http://photos.example/ant",
}
SURE, UNSURE, UNLIKE = "Probably wrong", "Right, but unsure", "Unlike any label"
NOTE = "The judges agree with the folder for 30 of 41 photos; guessing would get 15."
SUSPECTS = {  # list → ids, worst first
    SURE: ["kana-03", "ant-05", "both-01", "ant-02", BROKEN],
    UNSURE: ["ant-06", "kana-04", "ant-05"],
    UNLIKE: [NAUGHTY, "both-07"],
}

CODE = """
import json
from types import SimpleNamespace

import numpy as np

from utils.clean import ImageClassifierCleaner
from utils.dataset import read_dataset
from utils.project import Project

project = Project.load({path!r})
dataset = read_dataset(project)
ids = list(dataset.ids)
probs = np.random.default_rng(0).dirichlet([0.5] * 3, len(ids))
suspects = [
    SimpleNamespace(position=ids.index(id), list=name, reason=f"because of {{id}} & <i>more</i>", figure=1 / (1 + n))
    for name, found in json.loads({suspects!r}).items() for n, id in enumerate(found) if id in ids
]
cleaner = ImageClassifierCleaner(
    project=project, dataset=dataset, probs=probs, suspects=suspects, max_n=12, height=96, width=128, note={note!r}
)
cleaner
"""

BARE = """
from pathlib import Path

files = sorted(Path(project.images, "ant").glob("ant-*.jpg"))[:4]
labels = ["<b>bold</b> & co", "constructor", "<script>window.hacked=1</script>"]
tls = (SimpleNamespace(items=files, tfms=SimpleNamespace(fs=[])), [0, 1, 2, 0])
loader = SimpleNamespace(dataset=SimpleNamespace(tls=tls))
learn = SimpleNamespace(dls=SimpleNamespace(vocab=labels, loaders=[loader]))
bare = ImageClassifierCleaner(learn, probs=np.full((4, 3), 1 / 3), height=96, width=128)
bare
"""  # a learner as fastai has them, on files alone: its labels need be no names of folders

LEARNING = """
seen = np.random.default_rng(0).normal(size=(len(ids), 30))
learning = ImageClassifierCleaner(
    project=project, dataset=dataset, probs=probs, suspects=suspects, features=seen, max_n=6, height=96, width=128
)
learning
"""  # the order follows the person; nothing in these features tells the labels apart


SORTER = """
from utils.dataset import read_dataset
from utils.project import Project
from utils.verify import find_contradictions, find_oddities, picture_grid, verify_images

project = Project.load({path!r})
report = verify_images(project)
dataset = read_dataset(project)
picture_grid(project, report, oddities=find_oddities(dataset), twice=find_contradictions(dataset))
"""  # the grid of 02


def draw_project(folder: Path, data: str = "data") -> Project:
    """
    Write project.toml and, in the subfolder `data`, 41 pictures under three labels, one of them broken.

    The ids are ant-00 … ant-12, both-00 …, kana-00 …, `BROKEN` and `NAUGHTY`, the last two filed as ant.
    """
    lines = ['name = "insects"', f"data_dir = {json.dumps(data)}", f"models_dir = {json.dumps(data)}", "[labels]"]
    lines += [f"{json.dumps(label, ensure_ascii=False)} = [{json.dumps('photo of ' + label)}]" for label in LABELS]
    (folder / "project.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    project = Project.load(folder / "project.toml")
    names = {f"{start}-{n:02}": label for start, label in (("ant", ANT), ("both", MARKUP), ("kana", KANA))
             for n in range(PER_LABEL)} | {NAUGHTY: ANT}  # fmt: skip
    for seed, (id, label) in enumerate(names.items()):
        path = project.images / label / f"{id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(draw_picture(seed, colour=COLOURS[label], size=(320, 240))))
    (project.images / ANT / f"{BROKEN}.jpg").write_bytes(b"no picture at all")
    original = project.raw / ANT / "ant-00.jpg"
    original.parent.mkdir(parents=True)
    original.write_bytes(picture_bytes(draw_picture(0, colour=COLOURS[ANT], size=(2000, 1500))))
    sides = ("train", "train", "valid", "test")
    rows = [{"id": id, "group": id, "side": sides[n % 4]} for n, id in enumerate(names)]
    write_table(project.table("split"), SPLIT_COLUMNS, rows)
    empty = dict.fromkeys(SOURCES_COLUMNS, "")
    links = [{**empty, "id": id, "label": ANT, "page_url": url, "status": "ok"} for id, url in LINKS.items()]
    append_rows(project.table("sources"), SOURCES_COLUMNS, links)
    return project


def write_notebook(path: Path, project_file: Path, source: str = CODE) -> None:
    """Write a notebook of three cells: a heading, the cleaner, and a cell that must stay as it is."""
    code = source.strip().format(path=str(project_file), suspects=json.dumps(SUSPECTS), note=NOTE)
    cells = [nbformat.v4.new_markdown_cell("# Cleaning"), nbformat.v4.new_code_cell(code),
             nbformat.v4.new_code_cell("'the last cell'")]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def files(root: Path) -> dict[str, str]:
    """Return id → label of the pictures below images/ or trash/, as they lie on disk."""
    return {path.stem: path.parent.name for path in sorted(root.glob("*/*.jpg"))}


def corrections(project: Project) -> list[tuple[str, str, str]]:
    """Return (id, old, new) of each row of corrections.csv, sorted."""
    rows = read_rows(project.table("corrections"), CORRECTION_COLUMNS)
    return sorted((row["id"], row["old"], row["new"]) for row in rows)
