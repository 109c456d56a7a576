"""
How long, how much memory and how good: the whole road on the shipped sample, from nothing, in one run.

    python benchmarks/road.py [PROJECT_FILE]

Runs notebooks 01–08 on a copy of the project file in a fresh folder and prints, as a table for the README: seconds a
notebook and in all, peak memory of the run and all it starts, faults caught, suspects found and accuracy.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

from _process import Run, measured

REPOSITORY = Path(__file__).resolve().parents[1]
RUNNER = str(REPOSITORY / "notebooks" / "run.py")
sys.path.insert(0, str(REPOSITORY))

from sample.truth import accuracy_against_truth, faults_caught, wrong_labels_found
from utils.clean import rank_suspects
from utils.evaluate import read_evaluation, read_predictions
from utils.project import Project
from utils.tables import read_rows
from utils.verify import report_of


def main(source: Path) -> None:
    """Run the road in a temporary folder and print what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "project.toml"
        roots = f'data_dir = "{folder}/data"\nmodels_dir = "{folder}/models"\n'
        if folder_source := re.search(r'^source *= *"(\.\.?/[^"]*|[^"]*/[^"]*)"', source.read_text(), flags=re.M):
            moved = (source.parent / folder_source[1]).resolve()
            text = source.read_text().replace(folder_source[0], f'source = "{moved}"')
        else:
            text = source.read_text()
        path.write_text(roots + text, encoding="utf-8")
        command = [sys.executable, RUNNER, "--reports", f"{folder}/reports"]
        run = measured(command, os.environ | {"PROJECT": str(path)})
        print(run.output)
        print("\n".join(figures(Project.load(path), run)))


def figures(project: Project, run: Run) -> list[str]:
    """Return the rows of the table."""
    rows = [("01–08, from nothing", f"{run.seconds:.0f} s"), ("peak memory", f"{run.memory / 1e9:.1f} GB")]
    report = report_of(project)
    rows.append(("pictures kept / set aside", f"{report.counts.pictures.sum()} / {report.counts['set aside'].sum()}"))
    caught = faults_caught(project)
    if len(caught):
        all_of_them = caught.loc["all"]
        rows.append(("planted broken files and copies caught", f"{all_of_them.caught} of {all_of_them.planted}"))
    accuracy = read_evaluation(project)["valid"]["accuracy"]
    interval = f"{accuracy['low']:.1%} to {accuracy['high']:.1%}, n = {accuracy['n']}"
    rows.append(("validation accuracy (95 % interval)", f"{accuracy['value']:.1%} ({interval})"))
    truth = accuracy_against_truth(project, read_predictions(project))
    if len(truth):
        shows = truth.loc["what the pictures show"]
        interval = f"{shows['95 % from']:.1%} to {shows['to']:.1%}"
        rows.append(("… against the true labels", f"{shows['accuracy against']:.1%} ({interval})"))
        found = wrong_labels_found(project, suspects(project)).iloc[-1]
        counted = f"{found['among them']} of {found['wrong labels in all']}"
        rows.append((f"wrong labels among the first {found['first suspects']} suspects", counted))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def suspects(project: Project) -> list[str]:
    """Return the ids in 06's order, from the probabilities that it kept."""
    labels = list(project.labels)
    rows = read_rows(project.models / "out_of_fold.csv", ("id", "fingerprint", "distance", *labels))
    pictures = project.pictures()
    codes = [labels.index(pictures[row["id"]].parent.name) for row in rows]
    order = rank_suspects(codes, [[float(row[label]) for label in labels] for row in rows])
    return [rows[n]["id"] for n in order]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else REPOSITORY / "project.toml")
