"""
Where the pictures of a model are from: ATTRIBUTION.csv, for stage 07.

Reads images/, split.csv and sources.csv. A picture of which nobody named a licence has the licence "unknown", which is
not a free one. Titles and addresses were written by strangers: only addresses of the web are passed on, no character
that nobody sees, and no text that a spreadsheet would compute.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from utils.addresses import web_host
from utils.project import HIDDEN, JOINERS, Project
from utils.tables import SOURCES_COLUMNS, TAKEN, csv_text, each_row

COLUMNS = ("id", "label", "side", "title", "page_url", "url", "license", "engine", "fetched_at")
UNKNOWN = "unknown"  # the licence of a picture of which nobody named one
FORMULA = re.compile(r"^[=+\-@＝＋－＠]")  # with these a spreadsheet takes a text for something to compute


@dataclass(frozen=True)
class Attribution:
    """
    Where the pictures of a model are from.

    text : ATTRIBUTION.csv
    licences : licence, or "unknown", → number of pictures, the most frequent first
    """

    text: str
    licences: dict[str, int]


def attribution(project: Project) -> Attribution:
    """
    Return where each picture that trained or judged the model is from, and how many there are of each licence.

    A picture found several times has the row of sources.csv that stands for its file: of its label, where there is one.
    What is no address of the web is left out, and with it the folders of this computer.
    """
    sides = project.sides()
    labels = {id: path.parent.name for id, path in project.pictures().items() if id in sides}
    kept: dict[str, Mapping[str, str]] = {}
    for row in each_row(project.table("sources"), SOURCES_COLUMNS):
        id = row["id"]
        if row["status"] in TAKEN and id in labels:
            better = id in kept and kept[id]["label"] != labels[id] == row["label"]
            if id not in kept or better:
                kept[id] = row
    rows, licences = [], Counter()
    for id, label in sorted(labels.items(), key=lambda item: (item[1], item[0])):
        source = kept.get(id, {})
        licence = visible(source.get("license", ""))
        licence = UNKNOWN if licence.casefold() in ("", UNKNOWN) else licence
        licences[licence] += 1
        row = {"id": id, "label": label, "side": sides[id], "license": licence}
        row |= {name: source.get(name, "") for name in ("title", "engine", "fetched_at")}
        row |= {name: web_address(source.get(name, "")) for name in ("page_url", "url")}
        rows.append({name: _cell(text) for name, text in row.items()})
    counted = dict(sorted(licences.items(), key=lambda item: (-item[1], item[0])))
    return Attribution(csv_text(COLUMNS, rows, header=True), counted)


def visible(text: str) -> str:
    """
    Return a text on one line, without the characters that nobody sees.

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


def web_address(text: str) -> str:
    """
    Return an address of the web, without name and password; "" for what is none.

    >>> web_address("https://me:secret@example.org/a b.jpg"), web_address("file:///home/me/a.jpg")
    ('https://example.org/a%20b.jpg', '')
    """
    address = visible(text).replace(" ", "%20")
    if not web_host(address):
        return ""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _cell(text: str) -> str:
    """Return a text for a cell that no spreadsheet computes."""
    return FORMULA.sub(r"'\g<0>", visible(text))
