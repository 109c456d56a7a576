"""
Pictures of stage 05: where the network looked, and how far its probabilities can be trusted.

Reads a learner, or figures of evaluation.json; writes nothing. Grad-CAM (Selvaraju et al. 2017) weighs the channels of
the body's last feature map by how much each one speaks for a label, and shows where they are active.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from utils.errors import FieldguideError
from utils.project import Project
from utils.sheets import contact_sheet

COVER = 0.55  # how opaque the hottest place of a heat map is
COLOURS = "inferno"  # even steps of brightness, for every kind of eyesight


def heat_maps(learn, paths: Sequence[Path], *, labels: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Return what the network is shown of N pictures, and where it finds what speaks for a label.

    Parameters
    ----------
    learn : Learner of ``vision_learner``: a body that makes feature maps, and a head
    paths : sequence of N paths
    labels : sequence of N labels, optional
        By default what the network itself says of each picture.

    Returns
    -------
    shown : uint8 array (N, size, size, 3)
        The picture after the validation transforms, which cut off the edges.
    heat : float array (N, h, w)
        0 to 1, where 1 is the place that speaks most for the label, in the body's coarse grid (in a resnet 7×7 at
        224 px, 4×4 at 128, and at 32 one place, which tells nothing); all 0 where nothing does.

    Raises
    ------
    FieldguideError
        If the network has no feature map with places in it, or a picture is gone.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise FieldguideError(f"{missing[0]} is no longer there. Run 04 and 05 again.")
    vocab = list(learn.dls.vocab)
    wanted = None if labels is None else torch.tensor([vocab.index(label) for label in labels])
    shown, heat = [], []
    with _evaluating(learn.model.to(learn.dls.device)):
        loader = learn.dls.test_dl(list(paths), num_workers=0)
        for batch in loader:
            start = sum(map(len, shown))
            chosen = None if wanted is None else wanted[start : start + len(batch[0])]
            heat.append(_batch_heat(learn.model, batch[0], chosen))
            pixels = loader.after_batch.decode(batch)[0].detach().cpu()  # (B, 3, size, size), 0 to 255
            shown.append(pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8))
    return np.concatenate(shown), np.concatenate(heat)


def _batch_heat(model: torch.nn.Module, x: torch.Tensor, chosen: torch.Tensor | None) -> np.ndarray:
    """Return Grad-CAM of a batch (B, 3, H, W) as (B, h, w); the gradient is that of the head, from the map on."""
    body, head = model
    with torch.no_grad():
        maps = body(x.as_subclass(torch.Tensor))  # (B, F, h, w)
    if maps.ndim != 4:
        raise FieldguideError(
            f"Where this network looks cannot be shown: its body ends in {'×'.join(map(str, maps.shape[1:]))} numbers "
            "and not in a map of places, as a vision transformer's does. Train a resnet18 to see heat maps."
        )
    with torch.enable_grad():
        maps = maps.detach().requires_grad_()
        scores = head(maps)  # (B, K)
        chosen = scores.argmax(1) if chosen is None else chosen.to(scores.device)
        (slope,) = torch.autograd.grad(scores.gather(1, chosen[:, None]).sum(), maps)
    weights = slope.mean((2, 3), keepdim=True)  # (B, F, 1, 1)
    heat = (weights * maps).sum(1).clamp(min=0).detach().double()  # (B, h, w)
    hottest = heat.amax((1, 2), keepdim=True)
    return (heat / torch.where(hottest > 0, hottest, 1)).cpu().numpy()


@contextmanager
def _evaluating(model: torch.nn.Module):
    """Hold a network of two parts in its evaluating state, and put back the one it had."""
    if not (isinstance(model, torch.nn.Sequential) and len(model) == 2):
        raise FieldguideError(
            "Where this network looks cannot be shown: it is not made of a body and a head, as vision_learner makes it."
        )
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """Return a picture with a heat map (h, w) laid over it: bright is what spoke for the label."""
    wide = Image.fromarray(heat.astype(np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    heat = np.asarray(wide).clip(0, 1)  # (H, W)
    colours = matplotlib.colormaps[COLOURS](heat)[..., :3] * 255
    cover = COVER * heat[..., None]
    return Image.fromarray(((1 - cover) * np.asarray(picture) + cover * colours).round().astype(np.uint8))


def heat_strip(project: Project, learn, table, *, side: int = 150) -> Image.Image:
    """
    Return N pictures in a row, below each what spoke for the predicted label, and below that for its own.

    Parameters
    ----------
    table : DataFrame with the columns file, label, predicted and probability
        As `worst_predictions` makes it.
    """
    if not len(table):
        return contact_sheet([])
    paths = [project.images / file for file in table.file]
    shown, said = heat_maps(learn, paths, labels=list(table.predicted))
    _, own = heat_maps(learn, paths, labels=list(table.label))
    rows = [[Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC) for picture in shown]]
    rows += [[overlay(picture, heat) for picture, heat in zip(rows[0], maps, strict=True)] for maps in (said, own)]
    captions = [*table.label, *(f"{p:.2f} {name}" for p, name in zip(table.probability, table.predicted, strict=True))]
    captions += [f"for {label}" for label in table.label]
    return contact_sheet([picture for row in rows for picture in row], captions, columns=len(paths), side=side)


def reliability_diagram(evaluation: Mapping) -> Image.Image:
    """
    Return how often the model is right (with 95 % intervals) against how sure it is, before and after scaling.

    Parameters
    ----------
    evaluation : mapping
        As evaluation.json holds it.
    """
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    value, low, high = (evaluation["temperature"][key] for key in ("value", "low", "high"))
    span = "" if low is None else f", {low:.2f} to {high:.2f}"
    titles = {
        "before": "before scaling",
        "after": "no scaling" if value is None else f"after scaling (temperature {value:.2f}{span})",
    }
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        bins = evaluation["reliability"][name]
        sure, right = [b["sure"] for b in bins], [b["right"]["value"] for b in bins]
        spans = [[b["right"]["value"] - b["right"]["low"] for b in bins]]
        spans += [[b["right"]["high"] - b["right"]["value"] for b in bins]]
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="as sure as right")
        if bins:
            axes.errorbar(sure, right, yerr=np.clip(spans, 0, 1), fmt="o", color="#0072b2", capsize=3)
        for b in bins:  # below the points, in the middle of the bin: points may stand close together
            place = (b["from"] + b["to"]) / 2, -0.12
            axes.annotate(f"{b['right']['n']:,}", place, ha="center", fontsize=8)
        axes.set(title=title, xlabel="how sure the model was (just above: how many pictures)", xlim=(0, 1.04))
        axes.set(ylim=(-0.15, 1.04), yticks=np.linspace(0, 1, 6))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("how often it was right")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return Image.open(buffer)
