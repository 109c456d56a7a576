"""
The job of describing: what the packaged pretrained network makes of each picture, as `utils.features` keeps it.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import torch

from utils.features import FEATURES_NAME
from utils.pictures import open_picture
from utils.project import FEATURES
from utils.scale.jobs import abreast
from utils.seeing import BATCH, image_pixels, network_features, one_thread_each, packaged_network


@dataclass(frozen=True)
class Looking:
    """The packaged network at its own size: 1280 numbers per picture."""

    columns = pa.schema([("features", pa.list_(pa.float16(), FEATURES))])

    @property
    def facts(self) -> dict[str, str]:
        """What made the rows."""
        return {"task": "features", "network": FEATURES_NAME}

    def worker(self, cores: int) -> Callable[[Iterator], Iterator[Mapping]]:
        """Return what describes pictures, on so many processors; the network is loaded here."""
        network = packaged_network()

        def judge(pictures: Iterator) -> Iterator[Mapping]:
            batches = iter(lambda: list(islice(pictures, BATCH)), [])
            with one_thread_each():
                for rows in abreast(partial(batch_rows, network), batches, cores):
                    yield from rows

        return judge


def looking(options: argparse.Namespace) -> Looking:
    """Return the job."""
    return Looking()


def batch_rows(network: torch.nn.Module, batch: Sequence) -> list[Mapping]:
    """Return the features of each picture of a batch, or why it has none."""
    opened = [pixels_of(picture) for picture in batch]
    pixels = [each for each in opened if not isinstance(each, str)]
    seen = iter(network_features(network, torch.from_numpy(np.stack(pixels))).numpy() if pixels else ())
    return [
        {"error": each} if isinstance(each, str) else {"features": next(seen).astype(np.float16)} for each in opened
    ]


def pixels_of(picture) -> np.ndarray | str:
    """Return a picture as the network gets it, uint8 (H, W, 3), or the reason why it cannot be read."""
    try:
        if isinstance(picture, Exception):
            raise picture
        return image_pixels(open_picture(picture))
    except Exception as error:  # decoders raise what they like; one picture must not stop the others
        return str(error) or type(error).__name__
