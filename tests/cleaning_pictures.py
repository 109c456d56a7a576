"""Small projects of red cats and blue dogs for the tests of the cleaner, and learners that judge them."""

from pathlib import Path

import numpy as np
from PIL import Image

from utils.project import Project

# --- a project of drawn pictures ---------------------------------------------------------------------------------


def draw(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 64), colour).save(path, "JPEG")
    return path


def make_project(folder: Path, labels=("cat", "dog"), per_label: int = 4, sides=("train", "valid")) -> Project:
    """Return a project of red cats (c0, c1, …), blue dogs (d0, …), on alternating sides."""
    project = Project.model_validate(
        {
            "name": "t",
            "labels": {label: [label] for label in labels},
            "data_dir": str(folder / "data"),
            "models_dir": str(folder / "models"),
        }
    )
    rows = ["id,group,side"]
    project.images.mkdir(parents=True)
    for label, colour in (("cat", (200, 30, 30)), ("dog", (30, 30, 200))):
        for n in range(per_label):
            draw(project.images / label / f"{label[0]}{n}.jpg", colour)
            rows.append(f"{label[0]}{n},{label[0]}{n},{sides[n % len(sides)]}")
    project.table("split").write_text("\n".join(rows) + "\n")
    return project


PROBS = np.array(  # c0 … c3, then d0 … d3; the columns are cat and dog
    [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9], [0.3, 0.7], [0.95, 0.05], [0.4, 0.6]]
)


# --- an untrained fastai learner; it only has to judge ------------------------------------------------------------


def make_learner(
    vision, folder: Path, *, paths=None, table: bool = False, augment: bool = False, per_label: int = 4, valid=()
):
    """Return a learner on red cats and blue dogs (drawn, or `paths`), as paths or table rows; `valid` are stems."""
    import pandas as pd
    import torch

    paths = list(paths or (draw(folder / label / f"{label}{n}.jpg", colour) for label, colour in
                           (("cat", (200, 30, 30)), ("dog", (30, 30, 200))) for n in range(per_label)))  # fmt: skip
    tfms = {"item_tfms": vision.Resize(32), "bs": 4, "num_workers": 0}
    if augment:
        tfms["batch_tfms"] = vision.aug_transforms(max_lighting=0.9, p_lighting=1.0)
    ends = tuple(f"{stem}.jpg" for stem in valid or "13")
    splitter = vision.FuncSplitter(lambda item: str(getattr(item, "file", item)).endswith(ends))
    if table:
        items = pd.DataFrame({"file": [str(path) for path in paths], "label": [path.parent.name for path in paths]})
        valid = [n for n, path in enumerate(paths) if path.stem[-1] in "13"]
        block = vision.DataBlock(
            blocks=(vision.ImageBlock, vision.CategoryBlock), get_x=vision.ColReader("file"),
            get_y=vision.ColReader("label"), splitter=vision.IndexSplitter(valid), item_tfms=tfms["item_tfms"],
        )  # fmt: skip
        dls = block.dataloaders(items, bs=4, num_workers=0)
    else:
        block = vision.DataBlock(
            blocks=(vision.ImageBlock, vision.CategoryBlock), get_y=vision.parent_label, splitter=splitter,
            item_tfms=tfms["item_tfms"], batch_tfms=tfms.get("batch_tfms"),
        )  # fmt: skip
        dls = block.dataloaders(paths, bs=4, num_workers=0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    return vision.Learner(dls, model, loss_func=vision.CrossEntropyLossFlat(), path=folder)
