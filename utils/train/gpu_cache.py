"""
Stage 04, ``cache = "gpu"``: each picture is decoded once, and lies, is cropped and is changed on the GPU.

Reads images/; writes nothing. A quick GPU waits for pictures otherwise: one core decodes and crops a few hundred per
second. The crops are those that fastai's ``RandomResizedCrop`` draws; torchvision resizes them, not Pillow, and differs
from it by one level of 255. ``aug_transforms`` run on the GPU in any case.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from math import prod

import numpy as np
import torch
from fastai.data.all import DataLoaders, ToTensor
from fastai.vision.all import RandomResizedCrop, TensorImage
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from utils.errors import FieldguideError
from utils.train.cache import TrainingPictures, decoded

GPUS = ("cuda",)  # kinds of devices; Apple's lacks a step that resizes
OPENED = {"RGB": 3}  # as MODES of `cache`; what ImageBlock opens
INTERPOLATION = {
    Image.Resampling.BILINEAR: InterpolationMode.BILINEAR,
    Image.Resampling.BICUBIC: InterpolationMode.BICUBIC,
}


class GpuArrays:
    """Arrays of uint8 in one piece of a device's memory."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], device: torch.device):
        self.shapes = shapes
        self.begins = [0, *accumulate(map(prod, shapes))]
        self.memory = torch.empty(self.begins[-1], dtype=torch.uint8, device=device)

    def __len__(self) -> int:
        return len(self.shapes)

    def put(self, n: int, pixels: np.ndarray) -> None:
        """Write array `n`."""
        self.tensor(n).copy_(torch.from_numpy(pixels))

    def tensor(self, n: int) -> torch.Tensor:
        """Return array `n`, a view of the device's memory."""
        return self.memory[self.begins[n] : self.begins[n + 1]].view(self.shapes[n])


def keep_on_gpu(dls: DataLoaders) -> None:
    """
    Decode all pictures into the memory of the GPU that trains, and let both loaders take them there, until `give_back`.

    Raises FieldguideError without a GPU, if the pictures need more than half of its free memory, or if the DataBlock
    crops or opens them in another way than `image_block`.
    """
    if dls.device.type not in GPUS:
        raise FieldguideError(
            f'cache = "gpu" needs a GPU that torch can use, and this trains on the device {str(dls.device)!r}. '
            'Set cache = "memory" in the project file.'
        )
    crop = _only_crop(dls)
    arrays = partial(GpuArrays, device=dls.device)
    pictures, tensors = decoded(dls, "gpu", OPENED, arrays, partial(_free_on, dls.device))
    dls.train.do_item, dls.valid.do_item = partial(cropped, pictures, crop), tensors.do_item
    for loader in dls.loaders:  # what lies on the GPU, other processes cannot reach
        loader.workers_before, loader.fake_l.num_workers = loader.fake_l.num_workers, 0


def _only_crop(dls: DataLoaders) -> RandomResizedCrop:
    """Return the crop of training pictures, or refuse item transforms that do anything beside."""
    steps = [step for step in dls.train.after_item.fs if step.split_idx in (None, 0)]
    crops = [step for step in steps if isinstance(step, RandomResizedCrop)]
    found = [type(step).__name__ for step in steps if not isinstance(step, RandomResizedCrop | ToTensor)]
    modes = [Image.Resampling(each.mode) for each in crops]
    found += [f"RandomResizedCrop with {mode.name}" for mode in modes if mode not in INTERPOLATION]
    if found or not crops:
        raise FieldguideError(
            'cache = "gpu" crops pictures with RandomResizedCrop, bilinear or bicubic, and the DataBlock of 04 has '
            f'{", ".join(found) or "none"}. Set cache = "memory" in the project file.'
        )
    return crops[0]


def cropped(pictures: TrainingPictures, crop: RandomResizedCrop, n: int) -> tuple:
    """Return item `n` as the training loader's ``do_item(n)`` does: a picture (3, H, W) of uint8, and its label."""
    pixels = pictures.pixels.tensor(n).permute(2, 0, 1)
    crop.before_call(pixels, split_idx=0)  # draws the crop
    (left, top), (width, height), (across, down) = crop.tl, crop.cp_size, crop.final_size
    values = pixels[:, top : top + height, left : left + width].float()
    for size in ([height, across], [down, across]):  # as Pillow: first one way, rounded, then the other
        values = resize(values, size, INTERPOLATION[crop.mode], antialias=True).round().clamp(0, 255)
    return TensorImage(values.byte()), *pictures.labels(n)


def _free_on(device: torch.device) -> int:
    """Return how many bytes of a GPU's memory are free, once torch has let go of what it no longer needs."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]
