#!/usr/bin/env bash
# webdataset: two photos whose names differ only behind the first dot become one sample.
#
# A sample's key is the file name up to its FIRST dot. Names with an abbreviated species, "P. monodon 1.jpg" and
# "P. monodon 2.jpg", share the key "P"; the second photo becomes another field of the same sample, and a loader that asks
# for "jpg" finds none. A shard of N such photos holds one sample.
#
# Seen with webdataset 1.0.2, numpy 2.4.6:
#   2 photos, 1 sample(s): key 'P', fields [' monodon 1.jpg', ' monodon 2.jpg']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import io
import sys
import tarfile

import webdataset

shard = f"{sys.argv[1]}/shard.tar"
with tarfile.open(shard, "w") as tar:
    for name in ("P. monodon 1.jpg", "P. monodon 2.jpg"):
        entry = tarfile.TarInfo(name)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"data"))
samples = list(webdataset.WebDataset(shard, shardshuffle=False))
fields = sorted(key for key in samples[0] if not key.startswith("__"))
print(f"2 photos, {len(samples)} sample(s): key {samples[0]['__key__']!r}, fields {fields}")
assert len(samples) == 1 and "jpg" not in samples[0], "the behaviour has changed"
PY
