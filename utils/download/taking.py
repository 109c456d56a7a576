"""
Stage 01 for the sources on this computer: take the photos, note what the source says of them, and tell what was left.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.dataset import require_labels_apart, seeded_rank
from utils.download.collect import download_images, save_pictures
from utils.download.folders import read_source, source_pictures
from utils.download.sources import Source
from utils.project import Project
from utils.storage import locked
from utils.tables import FOLDER, GIVEN_COLUMNS, SOURCES_COLUMNS, TABLE, each_row, one_line, read_rows, write_table
from utils.words import counted


def read_places(project: Project) -> list[Source]:
    """List the sources of a project that lie on this computer, without reading a photo; see `read_source`."""
    require_labels_apart(project)
    return [read_source(project, place) for place in project.places]


def take_photos(project: Project, place: Path | Source) -> Counter:
    """
    Take the photos of a source on this computer, at most images_per_label of each label, drawn with the seed.

    `place` is its path, or what `read_places` listed. Files are copied to raw/<label>/, those without a label to
    unsorted/; addresses in a table are fetched as those of a search are. given.csv keeps the sides, groups and authors
    that the source names. Return how many rows of sources.csv were added, by label, status and kind of reason. Raises
    FieldguideError if the source is not there or a label has no photos in it.
    """
    source = place if isinstance(place, Source) else read_source(project, place)
    drawn = {"limit": project.images_per_label, "seed": project.seed, "taken": taken_addresses(project)}
    rules = {"complete": len(project.sources) == 1, "follow_links": project.follow_links, "license": project.license}
    pictures = source_pictures(source, **drawn, **rules)
    note_given(project, source)  # first: a run that is interrupted must not lose which photos may not train
    tally = save_pictures(project, pictures) if any(source.photos.values()) or source.unsorted else Counter()
    rules = {"allowed_hosts": project.allowed_hosts, "honour_noai": project.honour_noai}
    for label, rows in source.links.items():
        asked = sorted(rows, key=lambda row: seeded_rank(project.seed, row["url"]))
        results = [{**row, "engine": TABLE} for row in asked]
        tally += download_images(results, project.raw / label, wanted=project.images_per_label, **rules)
    return tally


def note_given(project: Project, source: Source) -> None:
    """Write to given.csv what a source says of its photos now, in place of what it said of them before."""
    if project.table("given").exists() or any(source.links.values()) or _says_more(source):
        save_given(project, _said(source))


def save_given(project: Project, told: Iterable[tuple[str, str, Mapping[str, str]]]) -> None:
    """Write to given.csv what is told of photos, label, address and columns, in place of what was told before."""
    table, there, rows = project.table("given"), set(), []
    for label, url, said in told:
        there.add((url, label))
        row = {name: one_line(said.get(name, "")) for name in GIVEN_COLUMNS[2:]}
        rows += [{"url": url, "label": label, **row}] if any(row.values()) else []
    with locked(project.data):
        known = read_rows(table, GIVEN_COLUMNS)
        rows = [row for row in known if (row["url"], row["label"]) not in there] + rows
        if rows != known:
            write_table(table, GIVEN_COLUMNS, rows)


def _says_more(source: Source) -> bool:
    """Return whether a source says anything of its photos beside their labels."""
    return any(any(photo.given.values()) for photos in source.photos.values() for photo in photos if photo.given)


def _said(source: Source) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield the label and the address of each photo of a source, and what the source says of it."""
    for label, photos in source.photos.items():
        yield from ((label, one_line(source.address(photo)), photo.given) for photo in photos)
    for label, links in source.links.items():
        yield from ((label, one_line(row["url"]), row) for row in links)


def taken_addresses(project: Project) -> set[str]:
    """Return the addresses of the photos of sources on this computer that were taken."""
    return {url for url, _, id in _asked_addresses(project) if id}


def _asked_addresses(project: Project) -> list[tuple[str, str, str]]:
    """Return address, label and id ("" if it was not taken) of each photo of a source on this computer with a row."""
    rows = each_row(project.table("sources"), SOURCES_COLUMNS)
    return [(row["url"], row["label"], row["id"]) for row in rows if row["engine"] in (FOLDER, TABLE)]


@dataclass(frozen=True)
class PlacesReport:
    """What became of the photos in the sources on this computer."""

    table: pd.DataFrame  # per label: how many photos lie there, and how many of them were taken
    remarks: list[str]  # names that changed, what was left out and why, in sentences


def places_report(project: Project, places: Iterable[Source] | None = None) -> PlacesReport:
    """Compare what the sources on this computer hold, by default as they are now, with what was taken of it."""
    asked: dict[str, dict[str, str]] = {}  # address → label → id, "" if it was not taken
    for url, label, id in sorted(_asked_addresses(project)):
        asked.setdefault(url, {})[label] = id
    counts: dict[str, dict[str, int]] = {}
    waiting, remarks = Counter(), []
    for source in read_places(project) if places is None else places:
        remarks += source.remarks
        known = asked | {source.file(url): labels for url, labels in asked.items()}  # files are told from addresses
        changed = []
        for label, photos in source.photos.items():
            there = [*(photo.key for photo in photos), *(row["url"] for row in source.links.get(label, ()))]
            seen = [(each, known[each]) for each in there if each in known]
            row = counts.setdefault(label, {"photos there": 0, "taken": 0})
            row["photos there"] += len(there)
            row["taken"] += sum(bool(labels.get(label)) for _, labels in seen)
            waiting[label] += len(there) - sum(label in labels for _, labels in seen)
            for each, labels in seen:
                others = [old for old in labels if old not in ("", label)]
                lying = [old for old in others if (project.images / old / f"{labels[old]}.jpg").exists()]
                changed += [(each, old, label) for old in lying]
        remarks += [_changed_sentence(changed)] if changed else []
    for label, more in waiting.items():
        if more and counts[label]["taken"] >= project.images_per_label:
            remarks.append(
                f"{label}: {counted(more, 'more photo')} {'lies' if more == 1 else 'lie'} there. images_per_label = "
                f"{project.images_per_label} takes no more of them; raise it to take them."
            )
    return PlacesReport(pd.DataFrame.from_dict(counts, orient="index"), remarks)


def _changed_sentence(changed: list[tuple[str, str, str]]) -> str:
    """Return what becomes of photos that were taken under another label: key, label then, label now."""
    file, old, new = changed[0]
    return (
        f"Taken before under another label: {counted(len(changed), 'photo')}, such as {Path(file).name}: {old!r} then, "
        f"{new!r} now. What lies in the training set stays as it is. Move it in 02's grid."
    )
