#!/usr/bin/env bash
# datasets: loading <label>/<photo> with "imagefolder" silently drops every photo of a set in which one file is named like a
# split.
#
# Photos of two labels, one of them named val_1.jpg (a valley, a person called Val): datasets takes the word for a split,
# builds a split "validation" of that one photo, and the other photos belong to no split and are gone. Nothing is said.
#
# Seen with datasets 5.2.0, Pillow 12.3.0:
#   plain names: {'train': 6}; one file named val_1.jpg: {'validation': 1}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 Pillow==12.3.0
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from pathlib import Path

from datasets import load_dataset
from PIL import Image


def counts(root, odd_name):
    for label in ("ridge", "valley"):
        (root / label).mkdir(parents=True)
        for n in range(3):
            name = odd_name if (label, n) == ("valley", 1) else f"photo{n}.jpg"
            Image.new("RGB", (8, 8), (80 * n, 90, 30)).save(root / label / name)
    return {split: len(part) for split, part in load_dataset("imagefolder", data_dir=str(root)).items()}


folder = Path(sys.argv[1])
plain, odd = counts(folder / "plain", "photo1.jpg"), counts(folder / "odd", "val_1.jpg")
print(f"plain names: {plain}; one file named val_1.jpg: {odd}")
assert (plain, odd) == ({"train": 6}, {"validation": 1}), "the behaviour has changed"
PY
