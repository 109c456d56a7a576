#!/usr/bin/env bash
# Pillow: which side resize() reduces first depends on the picture's shape.
#
# A resize is two passes, and each rounds to 8 bits, so their order shows in the last bit. Pillow reduces the width first.
# But where a picture is over 100 times as high as wide and becomes lower, it reduces the height first, which is quicker.
# Nothing documents this. So a photo that is turned by 90° is not resized like the one that stands, but a strip of more
# than 100:1 is. Scans of sediment cores, gels and growth rings have such shapes. Whoever ports Pillow's resampling with
# one order gets values that are off by one.
#
# Seen with Pillow 12.3.0, numpy 2.3.5, on random grey values, resized to 6 × 64:
#   12 × 1200, width first: equal to Pillow's: True; height first: False
#   the strip of 12 × 1200, turned, and then resized: equal to resized and then turned: False
#   12 × 1201, width first: equal to Pillow's: False; height first: True
#   the strip of 12 × 1201, turned, and then resized: equal to resized and then turned: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check Pillow==12.3.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from PIL import Image

SMALL, TURN = (6, 64), Image.Transpose.TRANSPOSE
same = lambda one, other: bool((np.asarray(one) == np.asarray(other)).all())
seen = []
for height in (1200, 1201):
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, 12), dtype=np.uint8))
    at_once = strip.resize(SMALL, Image.Resampling.BILINEAR)
    width_first = strip.resize((6, height), Image.Resampling.BILINEAR).resize(SMALL, Image.Resampling.BILINEAR)
    height_first = strip.resize((12, 64), Image.Resampling.BILINEAR).resize(SMALL, Image.Resampling.BILINEAR)
    turned = strip.transpose(TURN).resize(SMALL[::-1], Image.Resampling.BILINEAR).transpose(TURN)
    found = same(at_once, width_first), same(at_once, height_first), same(at_once, turned)
    print(f"12 × {height}, width first: equal to Pillow's: {found[0]}; height first: {found[1]}")
    print(f"the strip of 12 × {height}, turned, and then resized: equal to resized and then turned: {found[2]}")
    seen.append(found)
assert seen == [(True, False, False), (False, True, True)], "the behaviour has changed"
PY
