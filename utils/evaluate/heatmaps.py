"""
Heat maps of stage 05: where the network looked.

Reads a learner and pictures; writes nothing. Grad-CAM (Selvaraju et al. 2017) weighs the channels of the body's last
feature map by how much each one speaks for a label, and shows where they are active.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from utils.averaging import networks_in
from utils.dataset import Dataset
from utils.errors import FieldguideError
from utils.seeing import mask_front_of
from utils.sheets import contact_sheet

COVER = 0.55  # how opaque the hottest place of a heat map is
HEAT_COLOURS = "inferno"  # even steps of brightness, for every kind of eyesight


def heat_maps(learn, paths: Sequence[Path], *, labels: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """
    Return N pictures as the network sees them, and where it finds what speaks for a label (by default its own answer).

    The pictures, uint8 array (N, H, W, 3), come after the validation transforms, which cut off the edges, and after
    the crop or the paint of a network that finds the thing first. The
    heat, float array (N, h, w), runs from 0 to 1, the place that speaks most for the label; all is 0 if no place does.
    The grid is the body's: in a resnet 7×7 at 224 px, 4×4 at 128, and at 32 a single place, which tells nothing.
    Of an ensemble, the first network is shown.
    Raises FieldguideError if the network has no feature map with places, or a picture is gone.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise FieldguideError(f"{missing[0]} is no longer there. Run 04 and 05 again.")
    vocab = list(learn.dls.vocab)
    wanted = None if labels is None else torch.tensor([vocab.index(label) for label in labels])
    shown, heat = [], []
    model = networks_in(learn.model)[0].to(learn.dls.device).eval()  # fastai's own calls set the mode that they need
    if not (isinstance(model, torch.nn.Sequential) and len(model) == 2):
        raise FieldguideError(
            "Where this network looks cannot be shown: it is not made of a body and a head, as by vision_learner."
        )
    loader = learn.dls.test_dl(list(paths), num_workers=0)
    for batch in loader:
        start = sum(map(len, shown))
        chosen = None if wanted is None else wanted[start : start + len(batch[0])]
        heat.append(_batch_heat(model, batch[0], chosen))
        with torch.no_grad():
            batch = (_cut_or_painted(model, batch[0]), *batch[1:])
        pixels = loader.after_batch.decode(batch)[0].detach().cpu().clamp(0, 255)  # (B, 3, H, W)
        shown.append(pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8))
    return np.concatenate(shown), np.concatenate(heat)


def _cut_or_painted(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return a batch (B, 3, H, W) after the layers in front of a network that find the thing, and learn nothing."""
    if (front := mask_front_of(model)) is None:
        return x
    made = front(x)
    return made if made.shape == x.shape else x  # a mask as a fourth channel leaves the picture as it is


def _batch_heat(model: torch.nn.Module, x: torch.Tensor, chosen: torch.Tensor | None) -> np.ndarray:
    """Return Grad-CAM of a batch (B, 3, H, W) as (B, h, w); the gradient goes through the head alone."""
    body, head = model
    with torch.no_grad():
        maps = body(x.as_subclass(torch.Tensor))  # (B, F, h, w)
    if maps.ndim != 4:
        raise FieldguideError(
            f"Where this network looks cannot be shown: its body ends in {'×'.join(map(str, maps.shape[1:]))} numbers "
            "and not in a map of places. Vision transformers are like that. Train a resnet18 to see heat maps."
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


def overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """Return a picture with a heat map (h, w) laid over it: bright places spoke for the label."""
    wide = Image.fromarray(heat.astype(np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    heat = np.asarray(wide).clip(0, 1)  # (H, W)
    colours = matplotlib.colormaps[HEAT_COLOURS](heat)[..., :3] * 255
    cover = COVER * heat[..., None]
    return Image.fromarray(((1 - cover) * np.asarray(picture) + cover * colours).round().astype(np.uint8))


def heat_strip(dataset: Dataset, learn, table, *, side: int = 150) -> Image.Image:
    """Return the pictures of `worst_predictions`, what spoke for the predicted label, and for the own: three rows."""
    if not len(table):
        return contact_sheet([])
    paths = [dataset.project.images / file for file in table.file]
    shown, said = heat_maps(learn, paths, labels=list(table.predicted))
    _, own = heat_maps(learn, paths, labels=list(table.label))
    scale = side / max(shown.shape[1:3])
    fitting = round(shown.shape[2] * scale), round(shown.shape[1] * scale)
    rows = [[Image.fromarray(picture).resize(fitting, Image.Resampling.BICUBIC) for picture in shown]]
    rows += [[overlay(picture, heat) for picture, heat in zip(rows[0], maps, strict=True)] for maps in (said, own)]
    captions = [dataset.records.caption(path, label) for path, label in zip(paths, table.label, strict=True)]
    captions += [*(f"{p:.2f} {name}" for p, name in zip(table.probability, table.predicted, strict=True))]
    captions += [f"for {label}" for label in table.label]
    return contact_sheet([picture for row in rows for picture in row], captions, columns=len(paths), side=side)
