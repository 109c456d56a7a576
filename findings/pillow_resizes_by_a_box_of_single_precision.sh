#!/usr/bin/env bash
# Pillow: resize() takes its box in single precision, so thumbnails by reducing_gap are not those of the written formula.
#
# resize(size, filter, box=…) documents a box of floats, and Python's are of 64 bits. Inside, they become 32 bits before
# the weights of the filter are made. A whole box is not touched by that. But resize(…, reducing_gap=1.0), and with it
# thumbnail() and draft-like loading, first reduces by a whole number and then resizes a box that ends between two pixels,
# such as 5003 / 9. Whoever ports Pillow's resampling (to JavaScript, to a GPU) with 64 bits gets a few values wrong.
#
# Seen with Pillow 12.3.0, numpy 2.3.5, on 5003 × 3007 random grey values, reduced by 9 and resized to 512 × 308:
#   values that differ from Pillow's, box of 64 bits: 38 of 157696
#   values that differ from Pillow's, box of 32 bits: 0 of 157696
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Pillow==12.3.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import math

import numpy as np
from PIL import Image

BITS = 22  # of the whole numbers that Pillow's weights become


def lanczos(x):
    return math.sin(math.pi * x) / (math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x / 3) if x else 1.0


def one_way(values, size, end):
    """Resize along the last axis, from 0 to `end`, by the written formula: Pillow's filter, its rounding, its bits."""
    scale = end / size
    reach = 3 * max(scale, 1)
    result = np.empty((*values.shape[:-1], size), np.uint8)
    for place in range(size):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - reach + 0.5))
        last = min(values.shape[-1], int(centre + reach + 0.5))
        raw = [lanczos((at - centre + 0.5) * (1 / max(scale, 1))) for at in range(first, last)]
        whole = [int(w / sum(raw) * 2**BITS + math.copysign(0.5, w)) for w in raw]
        sums = values[..., first:last].astype(np.int64) @ np.array(whole) + 2 ** (BITS - 1)
        result[..., place] = np.clip(sums >> BITS, 0, 255)
    return result


photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3007, 5003), dtype=np.uint8))
theirs = np.asarray(photo.resize((512, 308), Image.Resampling.LANCZOS, reducing_gap=1.0))
small, ends = np.asarray(photo.reduce(9)), (5003 / 9, 3007 / 9)
wrong = {}
for bits, kind in ((64, np.float64), (32, np.float32)):
    right, bottom = (float(kind(end)) for end in ends)
    ours = one_way(one_way(small, 512, right).T, 308, bottom).T
    wrong[bits] = int((ours != theirs).sum())
    print(f"values that differ from Pillow's, box of {bits} bits: {wrong[bits]} of {theirs.size}")
assert wrong[64] > 0 and wrong[32] == 0, "the behaviour has changed"
PY
