#!/usr/bin/env bash
# fastai: with several processes, AvgLoss and AvgMetric count each process alike, however many pictures it judged.
#
# With WORLD_SIZE above 1, to_detach, which a Learner passes every figure through, gathers a single number from all
# processes and returns their plain mean. AvgLoss and AvgMetric weigh that mean by the size of the batch in their own
# process. So where processes judge batches of unequal size with a loader of their own, the figure is that of no set of
# pictures. to_detach(x, gather=False) leaves figures where they are.
#
# Seen with fastai 2.8.12, torch 2.14.1, torchvision 0.29.1, two gloo processes, of which one judges 1 picture with a
# loss of 9 and the other 3 pictures with a loss of 1:
#   mean over the pictures: 3.0
#   AvgLoss of process 0: 5.0, of process 1: 5.0
#   with gather=False and sums that are added: 3.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torch==2.14.1 torchvision==0.29.1
cat >"$folder/two.py" <<'PY'
from types import SimpleNamespace

import torch
import torch.distributed as dist
from fastai.learner import AvgLoss
from fastai.torch_core import to_detach

dist.init_process_group("gloo")
losses = [torch.tensor([9.0]), torch.tensor([1.0, 1.0, 1.0])]
own = losses[dist.get_rank()]
told = AvgLoss()
told.reset()
told.accumulate(SimpleNamespace(loss=own.mean(), yb=(own,), to_detach=to_detach))
values = [None, None]
dist.all_gather_object(values, float(told.value))
sums = torch.stack([to_detach(own.sum(), gather=False), torch.tensor(float(len(own)))])
dist.all_reduce(sums)
if dist.get_rank() == 0:
    true, added = float(torch.cat(losses).mean()), float(sums[0] / sums[1])
    print(f"mean over the pictures: {true}")
    print(f"AvgLoss of process 0: {values[0]}, of process 1: {values[1]}")
    print(f"with gather=False and sums that are added: {added}")
    assert values == [5.0, 5.0] and true == added == 3.0, "the behaviour has changed"
dist.destroy_process_group()
PY
"$folder/venv/bin/python" -W ignore -m torch.distributed.run --standalone --nproc-per-node 2 "$folder/two.py"
