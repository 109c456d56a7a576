"""A project of four pictures and three labels, and functions that say where they lie and what the ledger holds."""

from pathlib import Path

from utils.project import Project
from utils.tables import CORRECTION_COLUMNS, read_rows

LABELS = ("bird", "cat", "собака")
LABEL_OF = {"a": "cat", "b": "cat", "c": "собака", "d": "собака"}


def make_four(folder: Path) -> Project:
    """Return a project with the pictures a, b under cat and c, d under собака, and their raw bytes."""
    project = Project.model_validate(
        {
            "name": "t",
            "labels": {label: [label] for label in LABELS},
            "data_dir": str(folder / "data"),
            "models_dir": str(folder / "models"),
        }
    )
    for id, label in LABEL_OF.items():
        put(project.images / label / f"{id}.jpg", f"picture {id}")
        put(project.raw / label / f"{id}.png", f"raw {id}")
    return project


def put(path: Path, text: str) -> Path:
    """Write a file, and the folder it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def places(project: Project) -> dict[str, str]:
    """Return where each picture lies: "images/cat/a.jpg" → its bytes."""
    return {
        path.relative_to(project.data).as_posix(): path.read_text()
        for root in (project.images, project.trash)
        for path in sorted(root.glob("*/*.jpg"))
    }


def place_of(project: Project, id: str) -> str:
    return next(place for place in places(project) if place.endswith(f"/{id}.jpg"))


def corrections(project: Project) -> list[tuple[str, str, str]]:
    """Return the rows of corrections.csv as (id, old, new)."""
    rows = read_rows(project.table("corrections"), CORRECTION_COLUMNS)
    return [(row["id"], row["old"], row["new"]) for row in rows]
