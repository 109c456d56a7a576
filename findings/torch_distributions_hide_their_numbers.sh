#!/usr/bin/env bash
# torch and fastai: two MixUps with different strengths print alike, so what a learner prints does not tell how it trained.
#
# fastai's MixUp keeps its strength in a torch Beta distribution and nowhere else. Printing a distribution shows only the
# parameters that lie in its __dict__. Beta computes both of its own from a Dirichlet inside, so it prints as "Beta()".
# Whoever compares two trainings by the printed form of their parts takes them for the same.
#
# Seen with fastai 2.8.12, torch 2.14.1:
#   MixUp(0.1): Beta()   MixUp(0.4): Beta()   the same text: True, the same numbers: False
#   Normal(0, 0.1): Normal(loc: 0.0, scale: 0.10000000149011612)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torch==2.14.1 torchvision==0.29.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from fastai.vision.all import MixUp

weak, strong = MixUp(0.1).distrib, MixUp(0.4).distrib
same_text, same_numbers = repr(weak) == repr(strong), bool(weak.concentration1 == strong.concentration1)
print(f"MixUp(0.1): {weak}   MixUp(0.4): {strong}   the same text: {same_text}, the same numbers: {same_numbers}")
print(f"Normal(0, 0.1): {torch.distributions.Normal(0.0, 0.1)}")
assert (repr(weak), same_text, same_numbers) == ("Beta()", True, False), "the behaviour has changed"
assert "scale" in repr(torch.distributions.Normal(0.0, 0.1)), "the behaviour has changed"
PY
