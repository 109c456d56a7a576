"""
Run the notebooks 01–08 one after another, without a browser, and say what came of it.

    python notebooks/run.py [01_download ...] [--reports FOLDER]

Each notebook runs in a fresh kernel, as a person would run it from top to bottom; the executed copies are kept as
HTML, by default under build/<name of the project>. The notebooks themselves stay untouched.
"""

import argparse
import os
import shlex
import sys
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

NOTEBOOKS = Path(__file__).resolve().parent
REPOSITORY = NOTEBOOKS.parent
sys.path.insert(0, str(REPOSITORY))

from sample.truth import accuracy_against_truth
from utils.errors import FieldguideError
from utils.evaluate import read_evaluation, read_predictions
from utils.project import Project
from utils.storage import write_whole

WIDGET = "application/vnd.jupyter.widget-view+json"


def main(arguments: list[str]) -> int:
    """Run the named notebooks, by default all that have a number; return the exit status."""
    stages = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    parser = argparse.ArgumentParser(description="Run notebooks one after another, without a browser.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones, by default all: {', '.join(stages)}")
    parser.add_argument("--reports", type=Path, help="where the executed copies go, by default build/<project>")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in stages]:
        parser.error(f"there is no notebook {unknown[0]!r}; choose among {', '.join(stages)}")
    try:
        project = Project.load()
        reports = options.reports or REPOSITORY / "build" / project.name
        print(f"{project.name}: {', '.join(project.labels)}\n")
        for name in options.names or stages:
            before = project.fingerprint()
            run_notebook(NOTEBOOKS / f"{name}.ipynb", reports)
            if name == "06_clean" and not options.names and project.fingerprint() != before:
                print("\nPictures were moved: what depends on them is made again.")
                for again in ("03_split", "04_train", "05_evaluate"):
                    run_notebook(NOTEBOOKS / f"{again}.ipynb", reports)
        print("\n" + "\n".join(summary(project)))
        print(f"reports    {shown(reports)}: each notebook with its pictures and figures")
    except FieldguideError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What was gathered and trained so far is kept; run the same command again to go on.")
        return 130
    return 0


def run_notebook(path: Path, reports: Path) -> None:
    """Execute one notebook and keep it as HTML, also when it stops with an error."""
    notebook = nbformat.read(path, as_version=4)
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    started = time.perf_counter()
    done = [0]

    def show_progress(cell, cell_index, **_) -> None:
        done[0] += cell.cell_type == "code"
        if sys.stdout.isatty():
            print(f"\r{path.stem:<14} cell {done[0]} of {count}", end="", flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--Application.log_level=ERROR"],  # else each kernel warns of its own transport
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.on_cell_start = show_progress
    if not sys.stdout.isatty():
        print(f"{path.stem:<14} ", end="", flush=True)
    try:
        execute(client)
    except CellExecutionError as error:
        sentence = f"{path.stem} stopped: {error.evalue}"
        if not is_ours(notebook):
            sentence += f" ({error.ename}; the whole report is in {reports / path.stem}.html)"
        raise FieldguideError(sentence) from None
    except DeadKernelError:
        raise FieldguideError(
            f"{path.stem} stopped: its kernel died, most often because memory ran out. Close other programs, or lower "
            "batch_size or size in the project file, and run the same command again."
        ) from None
    finally:
        write_html(reports / f"{path.stem}.html", notebook)
    start = f"\r{path.stem:<14} " if sys.stdout.isatty() else ""
    print(f"{start}{time.perf_counter() - started:5.0f} s".ljust(40))


def execute(client: NotebookClient) -> None:
    """
    Execute a notebook in a thread of its own, so that Ctrl-C comes to this one.

    In the main thread nbclient takes the signal for itself, and ends in an assertion.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            client.execute()
        except BaseException as error:  # handed over to the thread that waits
            failures.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(0.2)  # a join without limit would not let Ctrl-C through on Windows
    if failures:
        raise failures[0]


def is_ours(notebook) -> bool:
    """Return whether the error that a notebook ended with is a sentence of ours, shown without a traceback."""
    errors = [output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    return bool(errors) and len(errors[-1].traceback) == 1


def write_html(path: Path, notebook) -> None:
    """Write an executed notebook as HTML that reads without a kernel: progress bars and widgets are left out."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [readable(output) for output in cell.outputs if not is_progress_bar(output)]
    write_whole(path, HTMLExporter().from_notebook_node(notebook)[0])


def is_progress_bar(output) -> bool:
    """Return whether an output is a tqdm bar, which stands still at its first state in an executed copy."""
    return WIDGET in output.get("data", {}) and output["data"].get("text/plain", "").rstrip().endswith("/s]")


def readable(output):
    """Return an output with a widget replaced by a sentence."""
    if WIDGET in output.get("data", {}):
        output["data"] = {"text/plain": "(Here stands a widget. Open the notebook to use it.)"}
    return output


def summary(project: Project) -> list[str]:
    """Return what was made, how good it is and where it lies, a line each."""
    lines = []
    card = project.models / "card.json"
    evaluation = read_evaluation(project)
    pictures = project.pictures()
    if pictures:
        lines.append(f"pictures   {len(pictures)} in {len(project.labels)} labels, in {shown(project.images)}")
    if evaluation:
        accuracy = evaluation["valid"]["accuracy"]
        if evaluation["fingerprint"] != project.fingerprint():
            lines.append("(Labels, split or settings changed since the last round: what follows is of that one.)")
        lines.append(
            f"accuracy   {accuracy['value']:.1%} on {accuracy['n']} validation pictures "
            f"(95 % interval {accuracy['low']:.1%} to {accuracy['high']:.1%})"
        )
    shares = accuracy_against_truth(project, read_predictions(project)) if evaluation else ()
    if evaluation:
        guess = read_predictions(project).label.value_counts(normalize=True).max()
        lines.append(f"           {guess:.1%} would be right by always naming the most frequent label")
    if len(shares):
        truth = shares.loc["what the pictures show"]
        told = f"{truth['accuracy against']:.1%} (95 % interval {truth['95 % from']:.1%} to {truth['to']:.1%})"
        lines.append(f"           {told} against what the drawn pictures really show")
    if card.exists() and (project.models / "model.onnx").exists():
        files = [project.models / name for name in ("export.pkl", "model.onnx")]
        sizes = " and ".join(f"{shown(path)} ({path.stat().st_size / 1e6:.0f} MB)" for path in files if path.exists())
        lines.append(f"model      {sizes}, described in MODEL_CARD.md beside them")
        command = shlex.join([shown(Path(sys.executable)), "-m", "utils.inference", shown(files[1])])
        lines.append(f"try it     {command} PHOTO...")
    if evaluation and not project.table("corrections").exists():
        named = os.environ.get("PROJECT", "project.toml")  # make always names one
        same = "" if named == "project.toml" else f"PROJECT={shlex.quote(named)} "
        lines.append(f"next       {same}make lab, and look at the first suspects in 06_clean: some labels may be wrong")
    return lines


def shown(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # the thread of an interrupted notebook waits for its cell; the kernel ends with this process
