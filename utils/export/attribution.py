"""
Where the photos of a model are from: ATTRIBUTION.csv, for stage 07.

Reads sources.csv and given.csv. If no licence is known we write "unknown". That does not mean free to use. Titles and
addresses come from strangers: we pass on web addresses only, and no invisible character.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlsplit

from utils.addresses import web_host
from utils.dataset import Dataset
from utils.names import HIDDEN, JOINERS
from utils.tables import ATTRIBUTION_COLUMNS, SOURCES_COLUMNS, TAKEN, csv_text, each_row

UNKNOWN_LICENCE = "unknown"


def attribution(dataset: Dataset) -> tuple[str, dict[str, int]]:
    """
    Return ATTRIBUTION.csv and the licences: licence, or "unknown", → number of photos, the most frequent first.

    Every photo that trained or judged the model has a row. A photo found several times has the row of sources.csv that
    stands for its file, the one of its label if there is one. Only web addresses are kept, no folder of this computer.
    """
    split = [picture for picture in dataset if picture.side]
    labels = {picture.id: picture.label for picture in split}
    kept: dict[str, Mapping[str, str]] = {}
    for row in each_row(dataset.project.table("sources"), SOURCES_COLUMNS):
        id = row["id"]
        if row["status"] in TAKEN and id in labels:
            better = id in kept and kept[id]["label"] != labels[id] == row["label"]
            if id not in kept or better:
                kept[id] = row
    rows, licences = [], Counter()
    for picture in sorted(split, key=lambda picture: (picture.label, picture.id)):
        source = kept.get(picture.id, {})
        licence = visible(source.get("license", ""))
        licence = UNKNOWN_LICENCE if licence.casefold() in ("", UNKNOWN_LICENCE) else licence
        licences[licence] += 1
        row = {"id": picture.id, "label": picture.label, "side": picture.side, "license": licence}
        row |= {name: source.get(name, "") for name in ("title", "engine", "fetched_at")}
        said = dataset.records.said.get(picture.id, {})
        row |= {name: said.get(name, "") for name in ("creator", "rights_holder")}
        row |= {name: safe_address(source.get(name, "")) for name in ("page_url", "url")}
        rows.append({name: visible(text) for name, text in row.items()})
    counted = dict(sorted(licences.items(), key=lambda item: (-item[1], item[0])))
    return csv_text(ATTRIBUTION_COLUMNS, rows, header=True), counted


def visible(text: str) -> str:
    """
    Return a text on one line, without invisible characters.

    >>> visible(" two\\nlines\\x00 and a \\u202etrick")
    'two lines and a trick'
    """
    shown = []
    for character in str(text):
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            shown.append(" ")
        elif category not in HIDDEN or character in JOINERS:
            shown.append(character)
    return " ".join("".join(shown).split())


def safe_address(text: str) -> str:
    """
    Return a web address without name and password, or "" for anything else.

    >>> safe_address("https://me:secret@example.org/a b.jpg"), safe_address("file:///home/me/a.jpg")
    ('https://example.org/a%20b.jpg', '')
    """
    address = visible(text).replace(" ", "%20")
    if not web_host(address):
        return ""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
