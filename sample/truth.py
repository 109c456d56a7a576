"""
What the drawn pictures really show, and how much of it the stages found.

`truth.csv` lies beside the other tables of the project. For photos that were not drawn there is none, and every table
here is empty.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from sample.pictures import BROKEN, SamplePicture
from utils.dataset import Dataset, read_dataset
from utils.intervals import wilson
from utils.project import Project
from utils.storage import content_id, locked
from utils.tables import REJECTED_COLUMNS, SOURCES_COLUMNS, append_rows, each_row, read_rows

TRUTH_COLUMNS = ("url", "id", "label", "true_label", "fault", "of")  # of: a copy's original, by its url
CAUGHT = (*BROKEN, "exact copy", "copy under another label")  # the faults that 01 and 02 should catch


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
    """Return how many of each fault were planted, and how many 01 and 02 caught."""
    truth = read_truth(project)
    truth = truth[truth.fault.isin(CAUGHT)]
    rejected = {(row["id"], row["label"]) for row in each_row(project.table("rejected"), REJECTED_COLUMNS)}
    sources = each_row(project.table("sources"), SOURCES_COLUMNS)
    copies = {row["url"] for row in sources if row["status"] == "copy"}
    caught = [(row.id, row.label) in rejected or row.url in copies for row in truth.itertuples()]
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
    """Return the share of predictions (columns id, label, predicted) that agree with the folders and the truth."""
    shows = {row.id: row.true_label for row in read_truth(project).itertuples()}
    drawn = predictions[predictions.id.isin(shows.keys())]
    if drawn.empty:
        return pd.DataFrame()
    dataset = read_dataset(project)
    groups = [dataset[id].group if id in dataset else id for id in drawn.id]
    hits = {
        "what the folders say": drawn.predicted == drawn.label,
        "what the pictures show": drawn.predicted == drawn.id.map(shows),
    }
    figures = {name: wilson(int(right.sum()), len(drawn), groups=groups) for name, right in hits.items()}
    table = pd.DataFrame.from_dict(figures, orient="index")[["value", "low", "high", "n"]].round(3)
    return table.rename(columns={"value": "accuracy against", "low": "95 % from", "high": "to"})


def wrong_labels_found(dataset: Dataset, suspects: Sequence[str]) -> pd.DataFrame:
    """
    Return how many of the W wrong labels stand among the first W and 2 W suspects (ids, worst first).

    What counts is where a picture lies now: a label that was put right is no longer wrong.
    """
    shows = {row.id: row.true_label for row in read_truth(dataset.project).itertuples()}
    lies = dict(zip(dataset.ids, dataset.labels, strict=True))
    wrong = {id for id in lies if shows.get(id, lies[id]) != lies[id]}
    rows = [
        {"first suspects": first, "wrong labels in all": len(wrong), "among them": len(wrong & set(suspects[:first]))}
        for first in (len(wrong), 2 * len(wrong))
        if wrong
    ]
    return pd.DataFrame(rows)
