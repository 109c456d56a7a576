"""
Stage 04, the machine: what trains, in which precision, and how many processes load the pictures.

Reads and writes nothing. fastai itself takes a GPU where torch finds one; this module says so and makes use of it.
"""

import sys

import torch
from fastai.callback.channelslast import ChannelsLast
from fastai.vision.all import Callback, DataLoaders, MixedPrecision

from utils.machine import keep_freed_memory, usable_cores
from utils.train.processes import processes_here
from utils.words import counted

TENSOR_CORES = (7, 0)  # the first CUDA capability that calculates faster in half precision


def worker_count(*, kept: int = 0) -> int:
    """Return how many processes may load pictures: one per core not `kept`, none where notebooks can't start any."""
    if sys.platform != "linux":
        return 0  # macOS and Windows start workers anew, which costs more than it gives on sets of this size
    return min(8, max(0, usable_cores() // processes_here() - kept))


def speed_callbacks(dls: DataLoaders) -> list[Callback]:
    """
    Return the callbacks that make the device at hand train faster, for ``vision_learner(cbs=...)``.

    Pictures lie in memory pixel by pixel (8 % faster on a CPU at 224 pixels). A CUDA device with tensor cores
    calculates in half precision. A CPU does not: without the units for it, it is slower.
    """
    if dls.device.type == "cuda":
        return [ChannelsLast(), MixedPrecision()] if has_tensor_cores(dls.device) else []
    return [ChannelsLast()] if dls.device.type == "cpu" else []


class KeepMemory(Callback):
    """Keep the memory of one step for the next while a training runs: the packaged network learns faster by it."""

    def before_epoch(self):
        keep_freed_memory(True)

    def after_fit(self):
        keep_freed_memory(False)


def has_tensor_cores(device: torch.device) -> bool:
    """Return whether a CUDA device is faster in half precision."""
    return torch.cuda.get_device_capability(device) >= TENSOR_CORES


def device_sentence(dls: DataLoaders) -> str:
    """Say on which device this trains and why, in which precision, and how many processes load the pictures."""
    workers = dls.train.fake_l.num_workers
    loading = f"{counted(workers, 'process loads', 'processes load')} the pictures"
    loading = loading if workers else "pictures are loaded in between"
    if dls.device.type == "cuda":
        half = "half" if has_tensor_cores(dls.device) else "full"
        return f"Trains on the GPU {torch.cuda.get_device_name(dls.device)}, in {half} precision; {loading}."
    if dls.device.type == "cpu":
        why = "fastai was told to use it" if torch.cuda.is_available() else "torch found no GPU"
        return f"Trains on the processor, because {why}, in full precision; {loading}."
    return f"Trains on the device {dls.device.type!r}, in full precision; {loading}."
