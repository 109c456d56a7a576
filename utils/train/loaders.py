"""
Stage 04, the pictures: fastai's DataLoaders with the sides that split.csv decided, and the loss that fits them.

Reads images/; writes nothing.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from fastai.data.all import CategoryBlock, DataBlock, DataLoaders, IndexSplitter, Normalize, no_random, parent_label
from fastai.vision.all import CrossEntropyLossFlat, ImageBlock
from PIL import Image

from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.project import Project
from utils.tables import REJECTED_COLUMNS, read_rows
from utils.train.augment import augmentation, crops
from utils.train.device import worker_count
from utils.train.networks import preparation
from utils.train.plain import require_readable
from utils.words import counted

LEAST_TO_LEARN = 2  # pictures of a label: from one alone a network learns that picture


def image_block(project: Project) -> DataBlock:
    """Return the DataBlock that 04 shows: the one way pictures become batches."""
    wants = preparation(project)
    return DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(project.labels))),
        get_y=parent_label,
        item_tfms=crops(project),
        batch_tfms=[*augmentation(project), Normalize.from_stats(*wants.stats)],
    )


def image_dataloaders(
    dataset: Dataset, block: DataBlock | None = None, *, sides: Mapping[str, str] | None = None
) -> DataLoaders:
    """
    Return fastai's DataLoaders with the training and validation sets that split.csv decided.

    `block` says how a picture becomes a batch, by default `image_block`; its splitter is replaced. `sides`, id → side,
    stand in for split.csv's in cross-validation.
    """
    project = dataset.project
    decided = sides is None
    if decided:
        _require_sides(dataset)
    else:
        dataset = dataset.with_split({id: (id, side) for id, side in sides.items()})
    train, valid = dataset.on("train"), dataset.on("valid")
    for name, pictures in (("training", train), ("validation", valid)):
        if not len(pictures):
            raise FieldguideError(f"The {name} set of {project.name!r} is empty. Run 02 and 03 first.")
    if decided:
        _require_every_label(train)
    block = block or image_block(project)
    paths = [*train.paths, *valid.paths]
    # In place: a copied DataBlock goes on loading through the original, whose splitter is random.
    block.splitter = IndexSplitter(range(len(train), len(paths)))
    require_readable(paths)
    how = {"path": project.models, "bs": min(project.batch_size, len(train)), "num_workers": worker_count()}
    try:
        with no_random(project.seed):
            dls = block.dataloaders(paths, **how)
    except (OSError, SyntaxError):  # fastai opens the first picture
        require_readable(paths, fully=True)
        raise
    dls.fingerprint = dataset.fingerprint
    return dls


def _require_sides(dataset: Dataset) -> None:
    """Refuse pictures that 03 has not seen; those that it rejected have no side for good."""
    without = [picture.id for picture in dataset if picture.side is None]
    if without and len(without) < len(dataset):
        rows = read_rows(dataset.project.table("rejected"), REJECTED_COLUMNS)
        rejected = {row["id"] for row in rows if row["stage"] == "split"}
        if new := [id for id in without if id not in rejected]:
            raise FieldguideError(f"{counted(len(new))} without a side, {new[0]} among them. Run 03 first.")


def _require_every_label(train: Dataset) -> None:
    """Refuse to train where a label has too few training pictures to be learned."""
    counts = Counter(train.labels)
    if few := [label for label in train.project.labels if counts[label] < LEAST_TO_LEARN]:
        raise FieldguideError(
            f"Nothing can be learned of {', '.join(f'{label} ({counts[label]} in the training set)' for label in few)}:"
            f" {LEAST_TO_LEARN} pictures are the least. Gather more (01 to 03), put back what was taken out (06), or "
            "take the label out of the project file."
        )


def training_loss(dataset: Dataset) -> CrossEntropyLossFlat:
    """
    Return fastai's cross-entropy; with ``class_weights`` a picture of a rare label counts for more.

    A label of n of the N training pictures has the weight N / (K · n). Validation losses are weighted alike: the
    epoch that is kept is good for the rare labels, too.
    """
    project, labels = dataset.project, dataset.on("train").labels
    if not project.class_weights:
        return CrossEntropyLossFlat()
    counts, share = Counter(labels), len(labels) / len(project.labels)
    return CrossEntropyLossFlat(weight=torch.tensor([share / max(1, counts[label]) for label in project.labels]))


def validation_view(dls: DataLoaders) -> torch.Tensor:
    """Return how a test card reaches the network through the validation transforms: float tensor (C, H, W)."""
    grey, disc = Image.linear_gradient("L"), Image.radial_gradient("L")
    card = Image.merge("RGB", (grey, disc, grey.transpose(Image.Transpose.ROTATE_90))).resize((400, 300))
    with TemporaryDirectory() as folder, no_random():
        path = Path(folder) / "card.png"
        card.save(path)
        return dls.test_dl([path], num_workers=0).one_batch()[0][0].cpu().as_subclass(torch.Tensor)
