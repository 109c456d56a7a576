#!/usr/bin/env bash
# Pillow: resize(..., box=part) does not give the pixels of resizing the whole picture and cutting that part out.
#
# The scale is the same and the sampling points are the same numbers on paper. But resize hands the box to C in single
# precision. Where its edges are no such numbers, the weights round differently, and pixels differ here and there by a level.
# So a validation transform "squish, then crop" cannot be made quicker by computing only the part, if two programs are to
# agree on the pixels. With edges that single precision holds exactly, nothing differs.
#
# Seen with Pillow 12.3.0, numpy 2.4.6 (pictures of noise; side of the whole, the middle 128 cut out):
#   512x384 to 152x152: 9 of 49152 values differ, by at most 1
#   512x384 to 256x256: 0 of 49152 values differ, by at most 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from PIL import Image

BICUBIC, SIZE, WIDTH, HEIGHT = Image.Resampling.BICUBIC, 128, 512, 384
noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
image = Image.fromarray(noise)
found = {}
for whole in (152, 256):
    edge = (whole - SIZE) // 2
    cut = image.resize((whole, whole), BICUBIC).crop((edge, edge, edge + SIZE, edge + SIZE))
    wide, high = WIDTH / whole, HEIGHT / whole
    box = (edge * wide, edge * high, (edge + SIZE) * wide, (edge + SIZE) * high)
    part = image.resize((SIZE, SIZE), BICUBIC, box=box)
    apart = np.abs(np.asarray(cut, dtype=int) - np.asarray(part))
    found[whole] = int((apart > 0).sum()), int(apart.max())
    print(f"{WIDTH}x{HEIGHT} to {whole}x{whole}: {found[whole][0]} of {apart.size} values differ, by at most {found[whole][1]}")
assert found[152][0] > 0 and found[256] == (0, 0), "the behaviour has changed"
PY
