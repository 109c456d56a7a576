#!/usr/bin/env bash
# Ray with fastai: once Ray has shown a line of a worker, what learn.export() writes can be loaded where Ray is alone.
#
# The driver of a Ray cluster listens to its workers' output, also for progress bars. With the first bar it puts a
# function of its own in the place of the builtin print. A fastai Learner keeps print as its logger, and pickles it by
# name. RAY_TQDM_PATCH_PRINT=0 in the environment leaves print alone.
#
# Seen with ray 2.60.0, fastai 2.8.12, torch 2.14.1, torchvision 0.29.1:
#   before: builtins print
#   after a worker's progress bar: ray.experimental.tqdm_ray safe_print
#   names ray in the export: True
#   with RAY_TQDM_PATCH_PRINT=0: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "ray[data]==2.60.0" fastai==2.8.12 torch==2.14.1 torchvision==0.29.1
cat >"$folder/export.py" <<'PY'
import os
import sys
import time
import zipfile

import fastai.callback.progress  # no_bar
import ray
from fastai.data.all import Datasets
from fastai.learner import Learner
from ray.experimental import tqdm_ray
from torch import nn, tensor

quiet = os.environ.get("RAY_TQDM_PATCH_PRINT") == "0"
say = print
if not quiet:
    say("before:", print.__module__, print.__name__)


def number(n):
    return tensor([float(n)])


@ray.remote
def count():
    for _ in tqdm_ray.tqdm(range(3)):
        time.sleep(0.2)


ray.init("local", num_cpus=1, include_dashboard=False)
ray.get(count.remote())
time.sleep(2)
if not quiet:
    say("after a worker's progress bar:", print.__module__, print.__name__)
sets = Datasets(range(4), [[number], [number]], splits=[[0, 1, 2], [3]])
learn = Learner(sets.dataloaders(bs=2, num_workers=0), nn.Linear(1, 1), loss_func=nn.MSELoss(), path=sys.argv[1])
with learn.no_bar(), learn.no_logging():
    learn.fit(1)
learn.export("export.pkl")
with zipfile.ZipFile(f"{sys.argv[1]}/export.pkl") as parts:
    pickled = parts.read(next(name for name in parts.namelist() if name.endswith("data.pkl")))
found = b"ray.experimental.tqdm_ray" in pickled
say("with RAY_TQDM_PATCH_PRINT=0:" if quiet else "names ray in the export:", found)
assert found is not quiet, "the behaviour has changed"
ray.shutdown()
PY
"$folder/venv/bin/python" -W ignore "$folder/export.py" "$folder" 2>"$folder/log" || { cat "$folder/log"; exit 1; }
RAY_TQDM_PATCH_PRINT=0 "$folder/venv/bin/python" -W ignore "$folder/export.py" "$folder" 2>"$folder/log"
