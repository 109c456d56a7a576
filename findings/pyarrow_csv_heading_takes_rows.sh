#!/usr/bin/env bash
# pyarrow: who reads the heading of a large CSV file with open_csv, and then the rows of the same open file, loses rows.
#
# open_csv reads ahead in a thread of its own. Closing the reader does not wait for it, so it moves the position of the
# file while the next reader is at work: seek(0) and read_csv then return fewer rows without an error, or take a row for
# the heading, or find columns of unequal number. Small files are read ahead at once and never show it. A file opened anew
# for the rows, while the first is still open, was whole each time. Where the first had been closed, reads went wrong now
# and then (not part of this script): read the heading without open_csv.
#
# Seen with pyarrow 26.0.1, numpy 2.4.6, a table of 300,000 rows, read 200 times each way, on 2 processors:
#   the same open file: {'an error': 28, 'too short': 55, 'whole': 117}
#   opened anew: {'whole': 200}
# The numbers differ from run to run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
cat >"$folder/twice.py" <<'PY'
import sys
from collections import Counter

import pyarrow as pa
from pyarrow import csv

path, ROWS, TIMES = sys.argv[1], 300_000, 200
with open(path, "w") as file:
    file.write("id,path,note\n")
    file.writelines(f"{n},photos/{n}.jpg,{'x' * 40}\n" for n in range(ROWS))


def outcome(again):
    with pa.OSFile(path) as file:
        with csv.open_csv(file) as reader:
            assert reader.schema.names == ["id", "path", "note"]
        try:
            if again:
                with pa.OSFile(path) as other:
                    found = len(csv.read_csv(other))
            else:
                file.seek(0)
                found = len(csv.read_csv(file))
        except pa.ArrowException:
            return "an error"
    return "whole" if found == ROWS else "too short"


same, anew = (Counter(outcome(again) for _ in range(TIMES)) for again in (False, True))
print("the same open file:", dict(sorted(same.items())))
print("opened anew:", dict(sorted(anew.items())))
assert same["too short"] and anew == {"whole": TIMES}, "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/twice.py" "$folder/table.csv"
