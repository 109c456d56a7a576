"""
Run the notebooks 01–08 one after another, and 03a where there are masks, without a browser, and say what came of it.

    python notebooks/run.py [01_download ...] [--reports FOLDER]

Each notebook runs in a fresh kernel, from top to bottom. While one runs, the kernel of the next starts and does its
imports, which take longer than many a notebook. The executed copies are kept as HTML, by default under
build/<name of the project>. The notebooks themselves stay untouched. On the drawn sample, sample_truth follows 06.
"""

import argparse
import ast
import asyncio
import math
import os
import shlex
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

NOTEBOOKS = Path(__file__).resolve().parent
BOXES = NOTEBOOKS / "boxes"  # the road of projects that find things in photos
REPOSITORY = NOTEBOOKS.parent
sys.path.insert(0, str(REPOSITORY))

from utils.dataset import Dataset, read_dataset, round_fingerprint
from utils.errors import FieldguideError
from utils.ledger import read_review
from utils.project import Project
from utils.settling import SAMPLE
from utils.storage import write_whole
from utils.tables import REJECTED_COLUMNS, each_row
from utils.words import capitalised, counted, verdict_sentence

AFTER_MOVES = ("03_split", "03a_masks", "04_train", "05_evaluate")  # what depends on where the pictures are
TRUTH = NOTEBOOKS / "sample_truth.ipynb"
MASKS = "03a_masks"  # runs where the project file has mask_source
MEND = "5_mend"  # waits for a person
ON_REQUEST = ("00_start", "09_study")  # roads of their own, for who asks for them
# Settings of the project file that 04 keeps as they are.
SETTINGS = (
    "train",
    "arch",
    "size",
    "epochs",
    "seed",
    "schedule",
    "patience",
    "augment",
    "class_weights",
    "freeze_epochs",
)
OF_A_HEAD = ("train", "arch", "size", "seed", "class_weights")  # what counts with train = "head"
PATIENCE = 5.0  # seconds for a kernel to end
WIDGET = "application/vnd.jupyter.widget-view+json"


def main(arguments: list[str]) -> int:
    """Run the named notebooks, by default all that apply; return the exit status."""
    stages = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]*_*.ipynb"))}
    of_boxes = {path.stem: path for path in sorted(BOXES.glob("[0-9]_*.ipynb"))}
    parser = argparse.ArgumentParser(description="Run notebooks one after another, without a browser.")
    told = f"which ones, by default all but {' and '.join(ON_REQUEST)}: {', '.join(stages)}"
    told += f"; of a project that finds things in photos, by default all but {MEND}: {', '.join(of_boxes)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=told)
    parser.add_argument("--reports", type=Path, help="where the executed copies go, by default build/<project>")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in (*stages, *of_boxes, TRUTH.stem)]:
        parser.error(f"there is no notebook {unknown[0]!r}; choose among {', '.join([*stages, *of_boxes])}")
    try:
        project = Project.load()
        finds = project.task == "detect"
        reports = options.reports or REPOSITORY / "build" / project.name
        print(f"{project.name}: {', '.join(project.labels) or 'all labels of the source'}\n")
        road = [name for name in of_boxes if name != MEND] if finds else planned(project, list(stages))
        files = of_boxes if finds else stages | {TRUTH.stem: TRUTH}
        run_all(options.names or road, files, project, reports, again=not options.names and not finds)
        print("\n" + "\n".join(finding_summary(project) if finds else summary(project)))
        print(f"reports    {shown(reports)}: each notebook with its pictures and figures")
    except FieldguideError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What was gathered and trained so far is kept; run the same command again to go on.")
        return 130
    return 0


def planned(project: Project, stages: list[str]) -> list[str]:
    """Return the notebooks of the road: with masks 03a, too; on the drawn sample the truth, after 06."""
    left_out = ON_REQUEST if project.mask_source else (*ON_REQUEST, MASKS)
    names = [stage for stage in stages if stage not in left_out]
    if SAMPLE in project.sources and TRUTH.exists():
        names.insert(names.index("06_clean") + 1, TRUTH.stem)
    return names


def run_all(names: list[str], files: Mapping[str, Path], project: Project, reports: Path, *, again: bool) -> None:
    """Run notebooks one after another; `again`: if 06 moved pictures, what depends on them is made again after it."""
    if foreign := [name for name in names if name not in files]:
        others = ", ".join(files)
        raise FieldguideError(f"{foreign[0]} does not go with task = {project.task!r}. Choose among {others}.")
    waiting, started = deque(names), {}
    try:
        while waiting:
            name = waiting.popleft()
            moves = again and name == "06_clean"
            before = read_dataset(project).fingerprint if moves else None
            execution = started.pop(name, None) or Execution(files[name])
            if waiting and waiting[0] not in started:
                started[waiting[0]] = Execution(files[waiting[0]])
            run_notebook(execution, reports)
            if moves and read_dataset(project).fingerprint != before:
                print("\nPictures were moved: what depends on them is made again.")
                waiting.extendleft(name for name in reversed(AFTER_MOVES) if name in names)
    finally:
        for execution in started.values():
            execution.cancel()


class Execution:
    """A notebook with a kernel of its own, which starts at once and does the imports; the cells wait for `run`."""

    def __init__(self, path: Path):
        self.path, self.notebook = path, nbformat.read(path, as_version=4)
        self.client = NotebookClient(
            self.notebook,
            timeout=None,
            kernel_name="python3",
            extra_arguments=["--Application.log_level=ERROR"],  # else each kernel warns of its own transport
            resources={"metadata": {"path": str(path.parent)}},
        )
        self._begin, self._cancelled, self._failures = threading.Event(), False, []
        # A thread of its own, so that Ctrl-C comes to the main one: there nbclient takes the signal for itself, and
        # ends in an assertion.
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def run(self) -> None:
        """Execute the cells; raise what the notebook raised."""
        self._begin.set()
        while self._worker.is_alive():
            self._worker.join(0.2)  # a join without limit would not let Ctrl-C through on Windows
        if self._failures:
            raise self._failures[0]

    def cancel(self) -> None:
        """End the kernel without running a cell."""
        self._cancelled = True
        self._begin.set()
        self._worker.join(PATIENCE)

    def _work(self) -> None:
        try:
            asyncio.run(self._executed())
        except BaseException as error:  # handed over to the thread that waits
            self._failures.append(error)

    async def _executed(self) -> None:
        client = self.client
        client.create_kernel_manager()
        await client.async_start_new_kernel()
        await client.async_start_new_kernel_client()
        client.kc.execute(imports_of(self.notebook), silent=True)  # an error in it comes again, when its cell runs
        while not self._begin.is_set():
            await asyncio.sleep(0.05)
        if self._cancelled:
            await client.km.shutdown_kernel(now=True)
            return
        if not await client.km.is_alive():  # it died while it waited, which says nothing of this notebook
            client.kc.stop_channels()
            client.km = client.kc = None
        await client.async_execute()


def imports_of(notebook) -> str:
    """Return the imports at the top of a notebook's first code cell, with the line that says where utils lies."""
    source = next((cell.source for cell in notebook.cells if cell.cell_type == "code"), "")
    try:
        lines = [ast.unparse(statement) for statement in ast.parse(source).body]
    except SyntaxError:  # a magic, or a mistake: the cell itself will tell
        return ""
    return "\n".join(line for line in lines if line.startswith(("import ", "from ", "sys.path.insert(")))


def run_notebook(execution: Execution, reports: Path) -> None:
    """Execute one notebook and keep it as HTML, also when it stops with an error."""
    path, notebook = execution.path, execution.notebook
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    started = time.perf_counter()
    done = [0]

    def show_progress(cell, cell_index, **_) -> None:
        done[0] += cell.cell_type == "code"
        if sys.stdout.isatty():
            print(f"\r{path.stem:<14} cell {done[0]} of {count}", end="", flush=True)

    execution.client.on_cell_start = show_progress
    if not sys.stdout.isatty():
        print(f"{path.stem:<14} ", end="", flush=True)
    try:
        execution.run()
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


def finding_summary(project: Project) -> list[str]:
    """Return how good the detector is, what was made and where it lies, one line each."""
    from utils.detect import finding_lines  # here, because it loads torch

    lines = finding_lines(project)
    if (model := project.models / "model.onnx").exists():
        lines.append(
            f"model      {shown(model)} ({model.stat().st_size / 1e6:.0f} MB), described in MODEL_CARD.md beside it"
        )
        command = shlex.join([shown(Path(sys.executable)), "-m", "utils.inference", shown(model)])
        lines.append(f"try it     {command} PHOTO...")
    if (project.models / "page" / "page.json").exists():
        lines.append(f"page       PROJECT=... make page shows {shown(project.models / 'page')}, for any web server")
    return lines


def summary(project: Project) -> list[str]:
    """Return how good the model is, what was made and where it lies, one line each."""
    dataset = read_dataset(project)
    lines = quality(dataset)
    filed = set(zip(dataset.ids, dataset.labels, strict=True))
    rejected = {(row["id"], row["label"]) for row in each_row(project.table("rejected"), REJECTED_COLUMNS)} - filed
    if filed:
        labels = counted(len(project.labels), "label")
        lines.append(f"pictures   {len(filed):,} of {labels}, in {shown(project.images)}")
    if rejected:
        lines.append(f"rejected   {len(rejected):,}, each with its reason in {shown(project.table('rejected'))}")
    if (project.models / "card.json").exists() and (project.models / "model.onnx").exists():
        files = [project.models / name for name in ("export.pkl", "model.onnx")]
        sizes = " and ".join(f"{shown(path)} ({path.stat().st_size / 1e6:.0f} MB)" for path in files if path.exists())
        lines.append(f"model      {sizes}, described in MODEL_CARD.md beside them")
        command = shlex.join([shown(Path(sys.executable)), "-m", "utils.inference", shown(files[1])])
        lines.append(f"try it     {command} PHOTO...")
    named = os.environ.get("PROJECT", "project.toml")  # make always names one
    before = "" if named == "project.toml" else f"PROJECT={shlex.quote(named)} "
    lab = f"{before}make lab"
    if (project.models / "page" / "page.json").exists():
        lines.append(f"page       {before}make page shows {shown(project.models / 'page')}, for any web server")
    if waiting := read_review(project):
        lines.append(f"waiting    {counted(len(waiting), 'choice')} of yours: {lab}, and press Apply in 06_clean")
    elif filed and not project.table("corrections").exists():
        lines.append(f"next       {lab}, and look at the first suspects in 06_clean: some labels may be wrong")
    return lines


def changed_keys(project: Project, settings: Mapping) -> list[str]:
    """Return the keys of the project file that ask for another training than the one with these settings."""
    keys = OF_A_HEAD if project.train == "head" else SETTINGS
    asked = {key: getattr(project, key) for key in keys} | {"weights": project.weights_name}
    changed = [key for key, value in asked.items() if settings.get(key) != value]
    changed += ["mask"] * (settings.get("mask", "none").partition(" ")[0] != project.mask)
    changed += ["ensemble"] * (settings.get("ensemble", 1) != project.ensemble)
    if project.train != "head":  # the record names the optimizer with its numbers, and the rate of the unfrozen phase
        changed += ["optimizer"] * (settings.get("optimizer", "").partition("(")[0].lower() != project.optimizer)
        changed += ["lr"] * (not math.isclose(2 * settings.get("lr", 0), project.base_lr, rel_tol=0.01))
    return changed


def quality(dataset: Dataset) -> list[str]:
    """Return the verdict in a line, and what a reader must know about it."""
    project = dataset.project
    if not (project.models / "evaluation.json").exists():
        return ["verdict    none yet: run 04_train and 05_evaluate"]
    from utils.evaluate import read_evaluation  # here, because it loads torch: the first line of a run comes at once

    try:
        evaluation = read_evaluation(project)
    except FieldguideError as error:
        return [f"verdict    {error}"]
    lines = [f"verdict    {verdict_sentence(evaluation['verdict'])}"]
    if evaluation["changed"]:
        lines.append(f"settings   {evaluation['changed']}")
    settings = evaluation["settings"]
    asked_otherwise = changed_keys(project, settings)
    if round_fingerprint(dataset, settings) != evaluation["fingerprint"]:
        changed = "pictures, labels or sides"
    elif asked_otherwise and not evaluation["changed"]:
        changed = ", ".join(asked_otherwise)
    else:
        return lines
    again = "run 03_split, 04_train and 05_evaluate"
    return [*lines, f"stale      {capitalised(changed)} changed since that verdict: {again}"]


def shown(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # the thread of an interrupted notebook waits for its cell; the kernel ends with this process
