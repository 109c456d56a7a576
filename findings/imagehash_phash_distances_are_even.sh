#!/usr/bin/env bash
# ImageHash: the distance of two perceptual hashes (phash) is an even number, for photos.
#
# phash compares each of 64 coefficients with their median, so exactly 32 bits are set in nearly every hash. Two numbers
# with equally many set bits differ in an even number of places. A threshold of 5 bits therefore lets through what 4 does,
# and a table of "distance against recall" has a step at every second row only. dhash and average_hash differ: they give
# odd distances too. Pictures whose coefficients tie with the median, such as flat or striped ones, are the exception.
#
# Seen with ImageHash 4.3.2, Pillow 12.3.0, numpy 2.4.6, scipy 1.17.1:
#   phash: 0 of 4950 distances are odd; dhash: 2499 of 4950; bits set in a phash: {32}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ImageHash==4.3.2 Pillow==12.3.0 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
from itertools import combinations

import imagehash
import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
photos = [Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize((240, 180)) for _ in range(100)]


def odd(hashes):
    distances = [first - second for first, second in combinations(hashes, 2)]
    return sum(distance % 2 for distance in distances), len(distances)


perceptual = [imagehash.phash(photo) for photo in photos]
odd_perceptual, pairs = odd(perceptual)
odd_difference, _ = odd([imagehash.dhash(photo) for photo in photos])
bits = {int(one.hash.sum()) for one in perceptual}
print(f"phash: {odd_perceptual} of {pairs} distances are odd; dhash: {odd_difference} of {pairs}; bits set in a phash: {bits}")
assert odd_perceptual == 0 and bits == {32}, "the behaviour has changed"
assert odd_difference > 0, "the behaviour of dhash has changed"
PY
