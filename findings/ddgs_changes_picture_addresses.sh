#!/usr/bin/env bash
# ddgs: a picture's address is not the one that the search engine sent.
#
# Every result passes through a normaliser that decodes percent signs and writes spaces as "+". In a path "+" is a plus sign,
# so "/Penaeus%20monodon.jpg" is asked for as "/Penaeus+monodon.jpg" (404), "%23" becomes "#" and the rest of the
# address is never sent, and "%2F" splits one path segment in two. Museums and wikis, whose files have such names, suffer most.
#
# Seen with ddgs 9.16.1:
#   https://example.org/Penaeus%20monodon.jpg -> https://example.org/Penaeus+monodon.jpg
#   https://example.org/plate%231.jpg         -> https://example.org/plate#1.jpg
#   https://example.org/scans%2F12.jpg        -> https://example.org/scans/12.jpg
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ddgs==9.16.1
"$folder/venv/bin/python" - <<'PY'
from ddgs.results import ImagesResult

expected = {
    "https://example.org/Penaeus%20monodon.jpg": "https://example.org/Penaeus+monodon.jpg",
    "https://example.org/plate%231.jpg": "https://example.org/plate#1.jpg",
    "https://example.org/scans%2F12.jpg": "https://example.org/scans/12.jpg",
}
for sent, changed in expected.items():
    result = ImagesResult()
    result.image = sent
    print(f"{sent:41} -> {result.image}")
    assert result.image == changed, "the behaviour has changed"
PY
