"""
Stage 04, augmentation: training pictures change at random, so that no two epochs show the same.

fastai's ``aug_transforms`` turns, flips, warps and lights. The section [augment] may add three steps of ours: a share
of the training pictures loses its colour, is smoothed, or is freed from haze. Validation pictures never change.
"""

from collections.abc import Callable
from functools import partial

import torch
from fastai.vision.all import (
    CropPad,
    RandomResizedCrop,
    RandTransform,
    Resize,
    ResizeMethod,
    TensorImage,
    Transform,
    aug_transforms,
)
from fastcore.basics import store_attr
from torch.nn.functional import avg_pool2d, max_pool2d
from torchvision.transforms.functional import gaussian_blur, rgb_to_grayscale

from utils.errors import FieldguideError
from utils.pictures import margins
from utils.project import Project
from utils.train.networks import preparation

MIN_SCALE = 0.6  # a crop shows at least this share of the picture's area: the animal is often small in it
STRETCH = 4 / 3  # how much wider or narrower than the target a crop may be: fastai's own
STRONG = {"mult": 2.0, "max_zoom": 1.3}  # twice the turning, lighting and warping: 20 degrees, 0.4 and 0.4
KERNEL = 3  # pixels; the width of the Gaussian that smooths
HAZE_PATCH = 1 / 15  # of a picture's side: He et al. look for the darkest value in 15 pixels of about 224
HAZE_REMOVED = 0.95  # of the haze; what stays keeps distant things distant
LEAST_SEEN = 0.1  # of the light from the things themselves; where there is less, noise would be enlarged
AIR_SHARE = 0.001  # of the pixels, the haziest ones, tell the colour of the haze


def crops(project: Project) -> list[Transform]:
    """
    Return the transforms that bring pictures to the project's `size`, for a DataBlock's ``item_tfms``.

    fastai's ``RandomResizedCrop`` does all for a square. For training it cuts out a random part, whose width is to its
    height as in `size`, but for the stretch. For validation it squishes the whole picture to more than `size` and cuts
    out the middle. If height and width differ it would cut more of the short side: there ``Resize`` and ``CropPad``
    take its place.
    """
    height, width = project.height_width
    resamples, shape = preparation(project).resamples, width / height
    ratio = shape / STRETCH, shape * STRETCH
    crop = RandomResizedCrop((height, width), min_scale=MIN_SCALE, ratio=ratio, resamples=resamples)
    if height == width:
        return [crop]
    crop.split_idx = 0  # of training alone
    below, beside = margins(project.size)
    larger = Resize((height + below, width + beside), method=ResizeMethod.Squish, resamples=resamples, split_idx=1)
    return [crop, larger, CropPad((height, width), split_idx=1, order=larger.order + 1)]


def augmentation(project: Project) -> list[Transform]:
    """
    Return the transforms that `augment` asks for, for the end of a DataBlock's ``batch_tfms``.

    ``"standard"`` is fastai's ``aug_transforms()`` as it is, ``"strong"`` the same with `STRONG`. The keys of a table
    are parameters of ``aug_transforms``, and the shares (fractions of the training pictures) of the three steps below.
    """
    if project.augment == "standard":
        return list(aug_transforms())
    if project.augment == "strong":
        return list(aug_transforms(**STRONG))
    options = dict(project.augment)
    steps = [step(share) for name, step in STEPS.items() if (share := options.pop(name, 0))]
    _require_sense(options)
    return [*aug_transforms(**options), *steps]


def _require_sense(options: dict) -> None:
    """Refuse parameters that ``aug_transforms`` takes, and that fail in the first batch."""
    smallest, largest = options.get("min_zoom", 1.0), options.get("max_zoom", 1.1)  # fastai's defaults
    if smallest > largest:
        raise FieldguideError(
            f"[augment] has min_zoom = {smallest} above max_zoom = {largest}. Write a larger max_zoom, or a smaller "
            "min_zoom."
        )
    lighting = options.get("max_lighting", 0.2) * options.get("mult", 1.0)
    if lighting >= 1:
        raise FieldguideError(
            f"[augment] asks for max_lighting × mult = {lighting:g}, which leaves black pictures. Write values whose "
            "product is below 1, such as max_lighting = 0.4."
        )


class SomePictures(RandTransform):
    """Change a random `share` of the pictures in each training batch."""

    def __init__(self, share: float):
        store_attr("share")  # so that it stands in the recipe of a training
        super().__init__(p=1.0)  # fastai's p would take or leave whole batches

    def encodes(self, x: TensorImage):
        """Return the batch (B, 3, H, W), values in [0, 1], with some of its pictures changed."""
        chosen = (torch.rand(len(x)) < self.share).nonzero().flatten().to(x.device)
        if len(chosen) == 0:
            return x
        pixels = x.as_subclass(torch.Tensor).clone()
        pixels[chosen] = self.changed(pixels[chosen])
        return TensorImage(pixels)

    @staticmethod
    def changed(pixels: torch.Tensor) -> torch.Tensor:
        """Return pictures (B, 3, H, W) after the change."""
        raise NotImplementedError


class Greyscale(SomePictures):
    """Take the colour of some pictures away: the network must look at shapes, too."""

    order = 50  # after fastai's lighting (40), before Normalize (99)

    @staticmethod
    def changed(pixels: torch.Tensor) -> torch.Tensor:
        """Return each picture's luminance in all three channels."""
        return rgb_to_grayscale(pixels, num_output_channels=3)


class Denoise(SomePictures):
    """Smooth some pictures with a Gaussian of 3×3 pixels, as a weak camera or strong compression does."""

    order = 21  # after IntToFloatTensor (10) and `Dehaze`, before fastai turns and warps (30)

    @staticmethod
    def changed(pixels: torch.Tensor) -> torch.Tensor:
        """Return each picture smoothed."""
        return gaussian_blur(pixels, [KERNEL, KERNEL])


class Dehaze(SomePictures):
    """
    Free some pictures from haze or murky water.

    He, Sun, Tang 2009, "Single image haze removal using dark channel prior": a clear picture has something dark in
    every patch, and what brightens it is haze. A mean smooths here, in place of their slow matting.
    """

    order = 20

    @staticmethod
    def changed(pixels: torch.Tensor) -> torch.Tensor:
        """Return each picture without its haze."""
        patch = 2 * round(HAZE_PATCH * min(pixels.shape[-2:]) / 2) + 1  # odd, so that it has a middle
        dark = -_pooled(max_pool2d, -pixels.amin(1, keepdim=True), patch)  # (B, 1, H, W)
        haziest = dark.flatten(2).topk(max(1, round(AIR_SHARE * dark[0].numel()))).indices  # (B, 1, P)
        air = pixels.flatten(2).gather(2, haziest.expand(-1, 3, -1)).mean(2)[..., None, None].clamp(min=0.1)
        clear = _pooled(max_pool2d, -(pixels / air).amin(1, keepdim=True), patch)
        hazy = _pooled(partial(avg_pool2d, count_include_pad=False), -clear, patch)
        seen = (1 - HAZE_REMOVED * hazy).clamp(min=LEAST_SEEN)  # the share of light from the things themselves
        return ((pixels - air) / seen + air).clamp(0, 1)


def _pooled(pool: Callable, values: torch.Tensor, patch: int) -> torch.Tensor:
    """Return values pooled over the patch around each place, columns first and then rows, which is quicker."""
    for kernel in ((patch, 1), (1, patch)):
        values = pool(values, kernel, stride=1, padding=(kernel[0] // 2, kernel[1] // 2))
    return values


STEPS = {"greyscale": Greyscale, "denoise": Denoise, "dehaze": Dehaze}
