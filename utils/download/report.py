"""
What became of every address that stage 01 asked for, as tables. Reads sources.csv and the names in raw/.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from utils.project import Project
from utils.storage import visible_files
from utils.tables import HAND, SOURCES_COLUMNS, TAKEN, each_row

# What differs from picture to picture within one kind of reason: an id, a host, a library's own words, a size.
DETAILS = re.compile(r" (\(|of [0-9a-f]{16}\b|behind ).*|(?<=private address ).*|^\d+×\d+ (?=pixels)")


def kind_of_reason(reason: str) -> str:
    """
    Return a reason without its details.

    >>> kind_of_reason("exact copy of e3b0c44298fc1c14"), kind_of_reason("private address 10.0.0.1 behind a.org")
    ('exact copy', 'private address')
    """
    return DETAILS.sub("", reason).strip()


def sources_table(project: Project) -> pd.DataFrame:
    """Return how many addresses were asked for: one row per label, one column per status."""
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    rows = [(row["label"] or "(none yet)", row["status"]) for row in rows]
    table = pd.DataFrame(rows, columns=["label", "status"])
    return pd.crosstab(table.label, table.status)


def reasons_table(project: Project) -> pd.DataFrame:
    """Return why addresses gave no picture of their own, most frequent first: status, reason, count, one example."""
    rows = [row for row in each_row(project.table("sources"), SOURCES_COLUMNS) if row["reason"]]
    found = [(row["status"], kind_of_reason(row["reason"]), row["url"]) for row in rows]
    kinds = pd.DataFrame(found, columns=["status", "reason", "example"]).groupby(["status", "reason"]).example
    table = pd.DataFrame({"count": kinds.size(), "example": kinds.first()}).reset_index()
    return table.sort_values(["count", "status", "reason"], ascending=[False, True, True], ignore_index=True)


def kept_count(project: Project, label: str) -> int:
    """Return how many different pictures of a label lie in raw/<label> and have a row that says where from."""
    good = {id for id, known in ids_in(project.raw / label).items() if known}
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    return len(good & {row["id"] for row in rows if row["label"] == label and was_taken(row)})


def ids_in(folder: Path) -> dict[str, bool]:
    """Return the ids of the files in a folder, and whether each has a known picture format; 02 judges how good."""
    return {path.stem: path.suffix not in (".bin", ".csv") for path in visible_files(folder)}


def was_taken(row: Mapping[str, str]) -> bool:
    """Return whether a row of sources.csv is of a file that 01 took, not of one that a person put there."""
    return row["status"] in TAKEN and row["engine"] != HAND
