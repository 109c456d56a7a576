"""
Stage 04, ``cache = "memory"``: each picture is decoded once, and every epoch takes it from memory.

Reads images/; writes nothing. Training pictures are kept as they are opened, because each epoch crops them anew.
Validation pictures are kept as they leave the crop, which never changes. The processes that load pictures share this
memory. What the network sees is the same to the last digit. `gpu_cache` keeps them in the memory of a GPU.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from mmap import mmap

import numpy as np
import torch
from fastai.data.all import DataLoaders, Datasets, TfmdDL
from fastai.torch_core import no_random
from fastai.vision.core import PILBase
from PIL import Image
from tqdm.auto import tqdm

from utils.errors import FieldguideError
from utils.machine import free_memory, in_threads
from utils.train.plain import PlainCallback
from utils.words import counted, rounded

ROOM_SHARE = 0.5  # of the free memory; the network and the processes that load pictures need the rest
MODES = {"RGB": 3, "L": 1}  # Pillow's names of pictures of 8 bits → channels
CHUNK = 64  # validation pictures that are decoded before they are cropped
GIGABYTE = 1e9


class Cache(PlainCallback):
    """
    Take pictures from memory while a training lasts; `keep` decodes them before the first epoch that trains.

    A training that was stopped keeps them for the next one with the same DataLoaders.
    """

    order = 74  # after Resume: for epochs of an earlier run nothing is decoded

    def __init__(self, keep: Callable[[DataLoaders], None]):
        self.keep = keep

    def before_epoch(self):
        if "do_item" not in vars(self.dls.valid):
            self.keep(self.dls)

    def after_fit(self):
        if self.opt.frozen_idx == 0:
            give_back(self.dls)


class SharedArrays:
    """
    Arrays of uint8 in one piece of memory, which processes that are forked later share.

    The piece belongs to no file: in many containers /dev/shm, where torch would put it, holds no more than 64 MB.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]):
        self.shapes = shapes
        self.begins = [0, *accumulate(map(math.prod, shapes))]
        self.memory = mmap(-1, max(1, self.begins[-1]))

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, n: int) -> np.ndarray:
        """Return array `n`; what is written to it is written to the memory."""
        shape = self.shapes[n]
        return np.frombuffer(self.memory, np.uint8, math.prod(shape), self.begins[n]).reshape(shape)

    def put(self, n: int, pixels: np.ndarray) -> None:
        """Write array `n`."""
        self[n][:] = pixels

    def tensor(self, n: int) -> torch.Tensor:
        """Return array `n` as a tensor of the same memory."""
        return torch.from_numpy(self[n])


class TrainingPictures:
    """The pictures of a training set as they are opened, before any crop, in arrays such as `SharedArrays`."""

    def __init__(self, dataset: Datasets, kind: type[PILBase], pixels: SharedArrays):
        self.dataset, self.kind, self.pixels = dataset, kind, pixels

    def keep(self, n: int) -> None:
        """Decode picture `n` into its place."""
        self.pixels.put(n, np.array(self.dataset.tls[0][n]))

    def labels(self, n: int) -> list:
        """Return what item `n` holds beside its picture."""
        return [part[n] for part in self.dataset.tls[1:]]

    def create_item(self, n: int) -> tuple:
        """Return item `n` as ``dataset[n]`` does."""
        return self.kind.create(self.pixels[n]), *self.labels(n)


class ValidationTensors:
    """The pictures of a validation set as they come out of the transforms that end with the crop."""

    def __init__(self, kind: type[torch.Tensor], pixels: SharedArrays):
        self.kind, self.pixels = kind, pixels
        self.rest: list[tuple] = [()] * len(pixels)

    def keep(self, n: int, tensor: torch.Tensor, *rest) -> None:
        """Put item `n` into its place."""
        self.pixels.put(n, tensor.numpy())
        self.rest[n] = rest

    def do_item(self, n: int) -> tuple:
        """Return item `n` as ``loader.do_item(n)`` does."""
        return self.kind(self.pixels.tensor(n)), *self.rest[n]


def keep_in_memory(dls: DataLoaders) -> None:
    """
    Decode all pictures and let both loaders take them from memory, until `give_back`.

    Raises FieldguideError if they need more than `ROOM_SHARE` of the free memory, or if the DataBlock makes something
    else of a file than a picture of 8 bits per channel.
    """
    pictures, tensors = decoded(dls, "memory", MODES, SharedArrays, free_memory)
    dls.train.create_item, dls.valid.do_item = pictures.create_item, tensors.do_item


def decoded(
    dls: DataLoaders, place: str, modes: Mapping[str, int], arrays: Callable, free: Callable[[], int]
) -> tuple[TrainingPictures, ValidationTensors]:
    """
    Return all pictures of both loaders, decoded into what `arrays` makes of their shapes.

    `place` is the word of the project file, `modes` says which pictures go (as `MODES`), and `free` how many bytes are.
    Raises FieldguideError as `keep_in_memory` does.
    """
    dataset, valid = dls.train.dataset, dls.valid
    valid.before_iter()  # only then fastai's transforms know that they are those of the validation set
    with no_random():
        opened, first = dataset.tls[0][0], valid.do_item(0)[0]
        if getattr(opened, "mode", "") not in modes or getattr(first, "dtype", None) != torch.uint8:
            kinds, other = ("pictures", "none") if modes is MODES else ("colour pictures", "memory")
            raise FieldguideError(
                f'cache = "{place}" keeps {kinds} of 8 bits per channel, and the DataBlock of 04 makes something else '
                f'of them. Set cache = "{other}" in the project file.'
            )
        shapes = [_pixels_shape(side, modes[opened.mode]) for side in in_threads(_size, dataset.items)]
        _require_room(place, sum(map(math.prod, shapes)) + valid.n * first.numel(), len(shapes) + valid.n, free())
        pictures = TrainingPictures(dataset, type(opened), arrays(shapes))
        tensors = ValidationTensors(type(first), arrays([tuple(first.shape)] * valid.n))
        with tqdm(total=len(shapes) + valid.n, desc="decoding pictures into memory", unit="picture") as bar:
            for _ in in_threads(pictures.keep, range(len(shapes))):
                bar.update()
            _fill(tensors, valid, bar)
    return pictures, tensors


def _fill(tensors: ValidationTensors, loader: TfmdDL, bar: tqdm) -> None:
    """Decode validation pictures on all cores; crop them one by one, for fastai's crop remembers its last picture."""
    for start in range(0, loader.n, CHUNK):
        chunk = range(start, min(start + CHUNK, loader.n))
        for n, item in zip(chunk, in_threads(loader.dataset.__getitem__, chunk), strict=True):
            tensors.keep(n, *loader.after_item(item))
            bar.update()


def give_back(dls: DataLoaders) -> None:
    """Let the loaders decode pictures again, and the memory go."""
    for loader in dls.loaders:
        for name in ("create_item", "do_item"):
            vars(loader).pop(name, None)
        loader.fake_l.num_workers = vars(loader).pop("workers_before", loader.fake_l.num_workers)


def _size(path) -> tuple[int, int]:
    """Return the width and height that a file says it has."""
    with Image.open(path) as image:
        return image.size


def _pixels_shape(size: tuple[int, int], channels: int) -> tuple[int, ...]:
    """Return the shape of an array of a picture's pixels, as numpy makes it."""
    width, height = size
    return (height, width, channels) if channels > 1 else (height, width)


def _require_room(place: str, needed: int, count: int, free: int) -> None:
    """Refuse pictures that need too much of the free memory, in bytes."""
    if needed > ROOM_SHARE * free:
        where = "" if place == "memory" else " on the GPU"
        raise FieldguideError(
            f'cache = "{place}" needs {needed / GIGABYTE:.1f} GB for {counted(count)}. Of the {free / GIGABYTE:.1f} GB '
            f"that are free{where}, at most {rounded(ROOM_SHARE)} may hold pictures. "
            'Set cache = "none" in the project file, or close other programs.'
        )
