"""
Several trained networks as one: the mean of their scores, for ``ensemble`` in the project file.

Foundation of train, evaluate and export. Every network is whole, also the layers in front of it that find the thing:
all hold the same numbers there, and a file with one layer in two places is refused.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from utils.dataset import Dataset
from utils.project import Project
from utils.storage import file_hash


def networks_of(dataset: Dataset) -> list[Dataset]:
    """Return the data set as each network of the ensemble is trained on it: the same pictures, another seed."""
    return [replace(dataset, project=project) for project in dataset.project.networks]


def averaged(networks: Sequence[nn.Module], labels: int) -> nn.Sequential:
    """
    Return one network that gives the mean of the scores (B, K) of others.

    Its last layer is linear, as that of any other: stage 07 divides it by the temperature. All layers are fastai's and
    torch's own.
    """
    from fastai.layers import Cat  # here: it takes seconds, and who reads an evaluation does without

    mean = nn.utils.skip_init(nn.Linear, len(networks) * labels, labels, bias=False)  # draws no random numbers
    with torch.no_grad():
        mean.weight.copy_(torch.eye(labels).repeat(1, len(networks)) / len(networks))
    return nn.Sequential(Cat(networks), mean)  # (B, N·K), then (B, K)


def networks_in(model: nn.Module) -> list[nn.Module]:
    """Return the networks that `averaged` put together; of any other network, itself."""
    several = isinstance(model, nn.Sequential) and len(model) == 2 and isinstance(model[0], nn.ModuleList)
    return list(model[0]) if several else [model]


def model_hash(project: Project) -> str:
    """Return the SHA-256 of the trained model's learner.pth, of several networks that of all; "" where one lacks."""
    paths = [each.network / "learner.pth" for each in project.networks]
    if not all(path.exists() for path in paths):
        return ""
    hashes = [file_hash(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
