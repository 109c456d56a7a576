"""
What layers of a network leave while a learner judges: caught in passing, so that nothing is calculated twice.
"""

from collections.abc import Sequence

import torch


class Caught:
    """
    A context in which whatever a learner judges leaves, for each of some layers, what reaches it or what it makes.

    `batches` holds a list for each layer, with a tensor for each batch.
    """

    def __init__(self, layers: Sequence[torch.nn.Module], *, made: bool):
        self._layers, self._made = layers, made
        self.batches: list[list[torch.Tensor]] = []

    def __enter__(self):
        self.batches, self._hooks = [[] for _ in self._layers], []
        for layer, own in zip(self._layers, self.batches, strict=True):
            if self._made:
                hook = layer.register_forward_hook(lambda _, given, made, own=own: own.append(made.detach().cpu()))
            else:
                hook = layer.register_forward_pre_hook(lambda _, given, own=own: own.append(given[0].detach().cpu()))
            self._hooks.append(hook)
        return self

    def __exit__(self, *raised) -> None:
        for hook in self._hooks:
            hook.remove()
