"""
Stage 01's offline source: drawn pictures of three sea creatures, some of them faulty on purpose.

The planted faults are those of pictures found on the web, each recorded in its `SamplePicture`, so that the stages
that look for faults can be measured against the truth.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from sample.pictures import BROKEN, SHARES, SamplePicture
from utils.project import Project
from utils.storage import content_id, locked
from utils.tables import REJECTED_COLUMNS, SOURCES_COLUMNS, append_rows, each_row, read_rows

SHARES |= {"exact copy": 1 / 60, "copy under another label": 1 / 120, "near-copy": 1 / 30}


# --- Which picture is filed where, and with which fault --------------------------------------------------------------


# --- The truth, kept beside the pictures, and what the stages found of it --------------------------------------------

TRUTH_COLUMNS = ("url", "id", "label", "true_label", "fault", "of")  # of: a copy's original, by its url
SET_ASIDE = (*BROKEN, "exact copy", "copy under another label")  # the faults that 02 should catch


def write_truth(project: Project, pictures: Iterable[SamplePicture]) -> None:
    """Add to truth.csv what each drawn picture shows, and which fault was planted in it; what is there stays."""
    pictures = list(pictures)
    urls = {p.name: p.url for p in pictures}
    rows = [
        {"url": p.url, "id": content_id(p.data), "label": p.label}
        | {"true_label": p.true_label, "fault": p.fault, "of": urls.get(p.of, "")}
        for p in pictures
    ]
    with locked(project.data):
        known = {row["url"] for row in read_rows(project.table("truth"), TRUTH_COLUMNS)}
        append_rows(project.table("truth"), TRUTH_COLUMNS, [row for row in rows if row["url"] not in known])


def read_truth(project: Project) -> pd.DataFrame:
    """Return truth.csv; empty for pictures that were not drawn."""
    return pd.DataFrame(read_rows(project.table("truth"), TRUTH_COLUMNS), columns=list(TRUTH_COLUMNS))


def faults_caught(project: Project) -> pd.DataFrame:
    """Return, for each planted fault that 02 should catch, how many were planted and how many caught."""
    truth = read_truth(project)
    truth = truth[truth.fault.isin(SET_ASIDE)]
    rejected = each_row(project.table("rejected"), REJECTED_COLUMNS)
    aside = {(row["id"], row["label"]) for row in rejected}
    sources = each_row(project.table("sources"), SOURCES_COLUMNS)
    copies = {row["url"] for row in sources if row["status"] == "copy"}
    caught = [(row.id, row.label) in aside or row.url in copies for row in truth.itertuples()]
    table = pd.DataFrame({"fault": truth.fault, "planted": 1, "caught": caught}).groupby("fault", sort=True).sum()
    if len(table):
        table.loc["all"] = table.sum()
    return table


def near_duplicates_together(project: Project, groups: Mapping[str, str]) -> pd.DataFrame:
    """Return how many planted near-duplicates share a group (id → group) with their original."""
    truth = read_truth(project)
    ids = dict(zip(truth.url, truth.id, strict=True))
    pairs = [(row.id, ids.get(row.of)) for row in truth[truth.fault == "near-copy"].itertuples()]
    there = [(copy, original) for copy, original in pairs if copy in groups and original in groups]
    together = sum(groups[copy] == groups[original] for copy, original in there)
    counts = {"planted": len(pairs), "both in the training set": len(there), "in one group": together}
    return pd.DataFrame([counts], index=["near-duplicates"]) if pairs else pd.DataFrame()


def accuracy_against_truth(project: Project, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the share of predictions (columns id, label, predicted) that agree with folder and with truth."""
    from utils.intervals import wilson  # here, for drawing the sample needs no scikit-learn

    shows = {row.id: row.true_label for row in read_truth(project).itertuples()}
    drawn = predictions[predictions.id.isin(shows.keys())]
    if drawn.empty:
        return pd.DataFrame()
    groups = project.groups(drawn.id)
    hits = {
        "what the folders say": drawn.predicted == drawn.label,
        "what the pictures show": drawn.predicted == drawn.id.map(shows),
    }
    figures = {name: wilson(int(right.sum()), len(drawn), groups=groups) for name, right in hits.items()}
    table = pd.DataFrame.from_dict(figures, orient="index")[["value", "low", "high", "n"]].round(3)
    return table.rename(columns={"value": "accuracy against", "low": "95 % from", "high": "to"})


def wrong_labels_found(project: Project, suspects: Sequence[str]) -> pd.DataFrame:
    """
    Return how many of the W wrong labels stand among the first W and 2 W suspects (ids, worst first).

    A picture counts as wrong where it lies now: one that was put right since is wrong no more.
    """
    shows = {row.id: row.true_label for row in read_truth(project).itertuples()}
    lies = {id: path.parent.name for id, path in project.pictures().items()}
    wrong = {id for id in lies if shows.get(id, lies[id]) != lies[id]}
    rows = [
        {"first suspects": first, "wrong labels in all": len(wrong), "among them": len(wrong & set(suspects[:first]))}
        for first in (len(wrong), 2 * len(wrong))
        if wrong
    ]
    return pd.DataFrame(rows)
