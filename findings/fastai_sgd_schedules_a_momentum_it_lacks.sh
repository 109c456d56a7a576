#!/usr/bin/env bash
# fastai: with opt_func=SGD, fit_one_cycle moves a momentum that the optimizer does not have.
#
# fastai's SGD has momentum only if it is made with one (mom > 0): else it adds no average of gradients. fit_one_cycle
# still sets "mom" in every batch, from .95 to .85 and back, and the recorder plots it. A training with moms of 0 gives
# the same weights, number for number. partial(SGD, mom=0.9) trains otherwise. The word that a person reads (SGD with a
# cycle of momentum, as in Smith's papers) is not what happens.
#
# Seen with fastai 2.8.12, torch 2.14.1, torchvision 0.29.1:
#   SGD: the recorded momentum goes from 0.95 to 0.85
#   SGD: the same weights with moms of 0: True
#   partial(SGD, mom=0.9): the same weights with moms of 0: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torch==2.14.1 torchvision==0.29.1
"$folder/venv/bin/python" -W ignore - <<'PY'
from functools import partial

import torch
from fastai.vision.all import SGD, DataLoader, DataLoaders, Learner, MSELossFlat, no_random

x = torch.linspace(-1, 1, 64)[:, None]
pairs = list(zip(x, 2 * x + 1, strict=True))


def trained(opt_func, moms):
    with no_random(42):
        dls = DataLoaders(DataLoader(pairs, bs=8), DataLoader(pairs, bs=8))
        learn = Learner(dls, torch.nn.Linear(1, 1), loss_func=MSELossFlat(), opt_func=opt_func)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(3, 0.1, moms=moms)
    return learn.model.weight.item(), learn.recorder.hps["mom"]


usual, none = (0.95, 0.85, 0.95), (0.0, 0.0, 0.0)
weight, recorded = trained(SGD, usual)
print(f"SGD: the recorded momentum goes from {max(recorded):.2f} to {min(recorded):.2f}")
same = weight == trained(SGD, none)[0]
print(f"SGD: the same weights with moms of 0: {same}")
with_one = partial(SGD, mom=0.9)
other = trained(with_one, usual)[0] == trained(with_one, none)[0]
print(f"partial(SGD, mom=0.9): the same weights with moms of 0: {other}")
assert same and not other, "the behaviour has changed"
PY
