"""
How long, how much memory and how good: the whole road on the shipped sample, from nothing, in one run.

    python benchmarks/road.py [PROJECT_FILE]

Runs notebooks 01–08 on a copy of the project file in a fresh folder and prints, as a table for the README: seconds a
notebook and in all, peak memory of the run and all it starts, faults caught, suspects found and accuracy.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
RUNNER = str(REPOSITORY / "notebooks" / "run.py")
sys.path.insert(0, str(REPOSITORY))

from utils.evaluate import read_evaluation, read_predictions  # noqa: E402
from utils.files import read_rows  # noqa: E402
from utils.project import Project  # noqa: E402
from utils.sample import accuracy_against_truth, faults_caught, wrong_labels_found  # noqa: E402
from utils.suspects import rank_suspects  # noqa: E402
from utils.verify import report_of  # noqa: E402


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
        seconds, peak, output = measured([sys.executable, RUNNER, "--reports", f"{folder}/reports"], path)
        print(output)
        print("\n".join(figures(Project.load(path), seconds, peak)))


def measured(command: list[str], project: Path) -> tuple[float, float, str]:
    """Run a command; return seconds, the peak memory of its process tree (GB, shared pages once), output."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | {"PROJECT": str(project)}, stdout=subprocess.PIPE, text=True)
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = process.communicate()[0]
    watcher.join()
    if process.returncode:
        sys.exit(f"{output}\nThe run stopped with status {process.returncode}; nothing was measured.")
    return time.perf_counter() - started, peak, output


def tree_memory(pid: int) -> float:
    """Return the proportional set size of a process and its children in GB; workers share most of their pages."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for process in processes:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 1e9


def figures(project: Project, seconds: float, peak: float) -> list[str]:
    """Return the rows of the table."""
    rows = [("01–08, from nothing", f"{seconds:.0f} s"), ("peak memory", f"{peak:.1f} GB")]
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
        rows.append(("… against the true labels", f"{truth.loc['what the pictures show', 'accuracy against']:.1%}"))
        found = wrong_labels_found(project, suspects(project)).iloc[-1]
        counted = f"{found['among them']} of {found['wrong labels in all']}"
        rows.append((f"wrong labels among the first {found['first suspects']} suspects", counted))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def suspects(project: Project) -> list[str]:
    """Return the ids in 06's order, from the probabilities that it kept."""
    labels = list(project.labels)
    rows = read_rows(project.models / "out_of_fold.csv", ("id", "fingerprint", *labels))
    pictures = project.pictures()
    codes = [labels.index(pictures[row["id"]].parent.name) for row in rows]
    order = rank_suspects(codes, [[float(row[label]) for label in labels] for row in rows])
    return [rows[n]["id"] for n in order]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else REPOSITORY / "project.toml")
