"""
Stage 08, the command line: photos named in a terminal, one answer per line.

    python -m utils.inference MODEL IMAGE... [--json] [--top N] [--unknown] [--tta] [--batch-size N]
                              [--csv FILE] [--sort-into FOLDER]
    python -m utils.inference DETECTOR IMAGE... [--json] [--threshold P] [--csv FILE] [--yolo FOLDER] [--coco FILE]
                              [--crops FOLDER] [--batch-size N]
    python -m utils.inference MODEL IMAGE... --submission TEMPLATE [--csv FILE] [--columns ID,NAME...] [--fill TEXT]
                              [--top N] [--tta] [--batch-size N]

Reads a model and photos; a model.onnx that finds things says so itself. Writes only what --csv, --sort-into, --yolo,
--coco and --crops name (with --submission also submission.csv), and never changes or replaces a file. Needs tqdm beside
what the rest of `inference` needs. Exit codes: 0; 1 if nothing could be done (the model, an option, no photo, a full
disk); 2 if some photo or folder could not be read, some file not be written, or some row of a template not answered;
130 after Ctrl-C; 141 if the reader of the output went away.
"""

import argparse
import glob
import io
import json
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from pathlib import Path

from tqdm import tqdm

from .classifier import Classifier, Prediction, load_classifier
from .detector import is_detector, load_detector
from .finding import box_json, box_lines, box_outputs, box_table
from .outputs import CannotDo, NotWritten, as_cells, new_csv, refuse_taken, tabbed
from .sorting import UNSURE, Sorter
from .streaming import BATCH_SIZE
from .submission import write_submission
from .template import read_template
from .vetting import ModelError

if "." in __package__:
    from ..pictures import PHOTO_SUFFIXES
else:  # inference/ and pictures/ lie loose in another program's folder
    from pictures import PHOTO_SUFFIXES

DONE, NOTHING, UNREAD, STOPPED, UNHEARD = 0, 1, 2, 130, 141  # exit codes; the last two as a shell names its signals
PATTERN = re.compile(r"[*?\[]")
SUBMISSION = Path("submission.csv")  # unless --csv names another
ALONE = ("json", "unknown", "sort_into")  # options that say nothing of a template
OF_CLASSIFIERS, OF_DETECTORS = ("top", "unknown", "tta", "sort_into"), ("threshold", "yolo", "coco", "crops")


@dataclass
class PassedOver:
    """What was not judged in folders: files by their extension, and folders that could not be opened."""

    extensions: Counter = field(default_factory=Counter)
    closed: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """
        Return what to say of it.

        >>> PassedOver(Counter({".txt": 2, "": 1})).sentences()
        ['Left out 3 files whose names are not those of photos: 2 .txt, 1 without extension.']
        """
        kinds = ", ".join(f"{n} {kind or 'without extension'}" for kind, n in self.extensions.most_common(6))
        files = self.extensions.total()
        left_out = f"Left out {files} file{'s' * (files > 1)} whose names are not those of photos: {kinds}."
        return self.closed + [left_out] * (files > 0)


def each_photo(names: Iterable[str], *, copies: Path | None, passed: PassedOver) -> Iterator[str]:
    """
    Yield the path of each photo meant by the names given, as they are asked for.

    A name is a path, a folder (its photos and those below, sorted by name), a pattern such as ``*.jpg`` unless a file
    has that very name, or "-": the paths on standard input, one per line. The folder for `copies` is left out when
    others are looked through. `passed` is told what was left out.
    """
    for name in names:
        if name == "-":
            paths = _lines(sys.stdin)
        elif PATTERN.search(name) and not os.path.lexists(name):
            paths = sorted(glob.glob(name, recursive=True)) or [name]  # noqa: PTH207 (Path.glob wants relative patterns)
        else:
            paths = [name]
        for path in paths:
            yield from _photos_at(path, copies, passed)


def _lines(stream: io.TextIOBase | None) -> Iterator[str]:
    """Yield the lines of standard input, as file names are written on this system; blank ones left out."""
    binary = getattr(stream, "buffer", None)
    for line in stream or () if binary is None else map(os.fsdecode, binary):  # no stream where the caller closed it
        if name := line.removeprefix("\ufeff").rstrip("\r\n"):
            yield name


def _photos_at(path: str, copies: Path | None, passed: PassedOver) -> Iterator[str]:
    """Yield a file's path, or the photos in a folder and below it."""
    if not _is_folder(path):
        yield path
        return
    refuse_copies_among_photos([path], copies)
    visited = {os.path.realpath(copies)} if copies else set()
    waiting = [path]
    while waiting:
        place = waiting.pop()
        if _is_folder(place):
            waiting += _entries(place, visited, passed)
        elif (extension := Path(place).suffix.lower()) in PHOTO_SUFFIXES:
            yield place
        else:
            passed.extensions[extension] += 1


def _is_folder(path: str | Path) -> bool:
    """Return whether there is a folder; a place that cannot be looked at counts as a file."""
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises in a closed folder)


def _entries(folder: str, visited: set[str], passed: PassedOver) -> list[str]:
    """Return the paths in a folder but hidden ones, the last name first; nothing if links led here before."""
    place = os.path.realpath(folder)
    if place in visited:
        return []
    visited.add(place)
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.path for entry in entries if not entry.name.startswith(".")), reverse=True)
    except OSError as error:
        passed.closed.append(f"The folder {folder} cannot be looked through: {error.strerror}.")
        return []


def refuse_copies_among_photos(names: Iterable[str], copies: Path | None) -> None:
    """Refuse to put copies into a folder that is itself looked through."""
    for name in names:
        if copies and _is_folder(name) and os.path.realpath(name) == os.path.realpath(copies):
            raise CannotDo(f"{copies} is the folder of the photos itself. Name another one for the copies.")


def as_line(file: str, prediction: Prediction, *, top: int | None = None) -> str:
    """
    Return a prediction as one line for people: file, label and probability (of the `top` best) between tabs.

    >>> as_line("a.jpg", Prediction("cat", 0.75, {"cat": 0.75, "dog": 0.25}), top=2)
    'a.jpg\\tcat\\t0.7500\\tdog\\t0.2500'
    """
    if prediction.error:
        cells = [file, "error", prediction.error]
    else:
        (best, probability), *others = prediction.top(top or 1)
        cells = [file, UNSURE if prediction.label is None else best, f"{probability:.4f}"]
        cells += [cell for label, probability in others for cell in (label, f"{probability:.4f}")]
    return tabbed(cells)


def as_json(file: str, prediction: Prediction, *, top: int | None = None) -> str:
    """Return a prediction as one line for programs: a JSON object."""
    if prediction.error:
        return json.dumps({"file": file, "error": prediction.error})
    facts = {"file": file, "label": prediction.label, "probability": prediction.probability}
    facts["probabilities"] = prediction.probabilities
    return json.dumps(facts if top is None else facts | {"top": prediction.top(top)})


@contextmanager
def new_table(path: Path) -> Iterator[Callable[[str, Prediction], None]]:
    """
    Yield a function that writes a row of predictions.csv; the table is at `path` if the block succeeds, else nowhere.

    A photo that could not be read has a row without label and probability.
    """
    with new_csv(path, ("file", "label", "probability")) as write_row:

        def write(file: str, prediction: Prediction) -> None:
            label = "" if prediction.error else UNSURE if prediction.label is None else prediction.label
            write_row([*as_cells(file, label), "" if prediction.error else repr(prediction.probability)])

        yield write


class Parser(argparse.ArgumentParser):
    """A parser that exits with 1, as 2 says that photos could not be read."""

    def error(self, message: str):
        """Say what is wrong with the options, and exit."""
        self.exit(NOTHING, f"{self.format_usage()}{message[:1].upper()}{message[1:]}.\n")


def _above_zero(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _probability(text: str) -> float:
    """Return a number from 0 to 1."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=f"python -m {__package__}",
        description="Say what photos show, or with a detector also where.",
        epilog="Exit code 0; 1: nothing could be done; 2: some photo or folder could not be read, the rest was judged; "
        "or some row of a template has no answer, and nothing was written unless --fill says what.",
    )
    photos = "a photo, a folder with photos in it and below, a pattern such as '*.jpg', or - to read paths from stdin"
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model.onnx or an export.pkl")
    add("images", metavar="IMAGE", nargs="+", help=photos)
    add("--json", action="store_true", help="print one JSON object per line")
    add(
        "--top",
        metavar="N",
        type=_above_zero,
        help="print the N most probable labels; in a template, put them into one cell",
    )
    add("--unknown", action="store_true", help="answer “unknown” where the model is unsure")
    add("--tta", action="store_true", help="look at each photo also mirrored, in twice the time (05 says if it helps)")
    add("--batch-size", metavar="N", type=_above_zero, default=BATCH_SIZE, help="photos per step of the network")
    add("--csv", metavar="FILE", type=Path, help="the new table: file, label, probability; or the filled template")
    add("--sort-into", metavar="FOLDER", type=Path, help="copy each photo into a folder named after its label")
    add("--threshold", metavar="P", type=_probability, help="of a detector: boxes from this probability on")
    add("--yolo", metavar="FOLDER", type=Path, help="of a detector: write a text file of its boxes for each photo")
    add("--coco", metavar="FILE", type=Path, help="of a detector: the new JSON file of all photos and boxes")
    add("--crops", metavar="FOLDER", type=Path, help="of a detector: cut what was found into a folder per label")
    add("--submission", metavar="TEMPLATE", type=Path, help="fill the rows of this table, as a contest asks for it")
    add("--columns", metavar="ID,NAME", help="of the template: the column of the ids, and that or those to fill")
    add("--fill", metavar="TEXT", help="what to write in rows of the template that cannot be answered")
    options = parser.parse_intermixed_args(arguments)
    if options.submission and (others := [name for name in ALONE if getattr(options, name)]):
        parser.error(f"--submission does not go with --{others[0].replace('_', '-')}")
    if not options.submission and (options.columns or options.fill is not None):
        parser.error("--columns and --fill go with --submission")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = _options(arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about a picture: its answer or error says what matters
            return _submit(options) if options.submission else _run(options)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:  # as after `| head`; what Python still holds back for that reader goes nowhere
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except (ModelError, CannotDo) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or 'The output'}: {error.strerror or error}.", file=sys.stderr)
    return NOTHING


def _run(options: argparse.Namespace) -> int:
    """Judge the photos, or look for things in them, and print, tabulate and copy as the options say."""
    detects = is_detector(options.model)
    for name in OF_CLASSIFIERS if detects else OF_DETECTORS:
        if getattr(options, name):
            told = "finds things in photos" if detects else "tells photos apart"
            raise CannotDo(f"--{name.replace('_', '-')} does not go with {options.model}, which {told}.")
    copies = options.crops or options.sort_into
    refuse_copies_among_photos(options.images, copies)
    with ExitStack() as stack:
        return (_find if detects else _classify)(options, copies, stack)


def _classify(options: argparse.Namespace, copies: Path | None, stack: ExitStack) -> int:
    """Say of each photo which label it has."""
    if copies and os.path.lexists(copies) and not copies.is_dir():
        raise CannotDo(f"--sort-into {copies} is a file, not a folder. Name another.")
    table = [stack.enter_context(new_table(options.csv))] if options.csv else []
    classifier = _loaded(options)
    ask = partial(classifier.stream, unknown=options.unknown, **_how(options))
    as_text = partial(as_json if options.json else as_line, top=options.top)
    return _each_answer(
        options, copies, ask, as_text, lambda: [*table, Sorter(copies, classifier.labels).copy] if copies else table
    )


def _find(options: argparse.Namespace, copies: Path | None, stack: ExitStack) -> int:
    """Say of each photo what is in it, and where."""
    detector = load_detector(options.model)
    table = [stack.enter_context(box_table(options.csv))] if options.csv else []
    outputs = box_outputs(options, detector.labels, detector.recipe.bits, stack) + table
    ask = partial(detector.stream, threshold=options.threshold, batch_size=options.batch_size)
    return _each_answer(options, copies, ask, box_json if options.json else box_lines, lambda: outputs)


def _each_answer(
    options: argparse.Namespace, copies: Path | None, ask: Callable, as_text: Callable, opened: Callable
) -> int:
    """Ask the model about each photo, hand its answer to the outputs that `opened` gives, and print it as a text."""
    passed, photos, troubles = PassedOver(), 0, 0
    files, again = tee(each_photo(options.images, copies=copies, passed=passed))
    answers = ask(files)
    outputs = opened()  # only now: a question that the model refuses leaves no folder behind
    lists = [name for name in options.images if name == "-" or PATTERN.search(name) or _is_folder(name)]
    total = None if lists else len(options.images)
    bar = tqdm(answers, total=total, unit=" photos", disable=not sys.stderr.isatty(), leave=False)
    with closing(answers), closing(bar):
        for answer, file in zip(bar, again, strict=False):  # `again` ends later: the bar is asked first
            photos += 1
            troubles += answer.error is not None
            with tqdm.external_write_mode():
                for output in outputs:
                    try:
                        output(file, answer)
                    except NotWritten as missed:
                        print(missed, file=sys.stderr)
                        troubles += 1
                print(as_text(file, answer), flush=True)
    for sentence in passed.sentences():
        print(sentence, file=sys.stderr)
    if not photos:
        raise _no_photo(options)
    return UNREAD if troubles or passed.closed else DONE


def _submit(options: argparse.Namespace) -> int:
    """Fill the template as the options say."""
    target = options.csv or SUBMISSION
    refuse_taken(target)
    template, classifier, passed = read_template(options.submission), _loaded(options), PassedOver()
    photos = list(each_photo(options.images, copies=None, passed=passed))
    for sentence in passed.sentences():
        print(sentence, file=sys.stderr)
    if not photos:
        raise _no_photo(options)
    what = {"named": options.columns, "fill": options.fill, "top": options.top}
    answered = write_submission(template, target, classifier, photos, **what, **_how(options))
    return DONE if answered and not passed.closed else UNREAD


def _loaded(options: argparse.Namespace) -> Classifier:
    """Return the model; say if nothing tells whether it may be asked about mirror images."""
    classifier = load_classifier(options.model)
    if options.tta and classifier.recipe.mirrored is None:
        told = "does not say whether its training mirrored photos. If left and right matter in yours, leave out --tta."
        print(f"{options.model} {told}", file=sys.stderr)
    return classifier


def _how(options: argparse.Namespace) -> dict[str, int | bool]:
    """Return how the model is to be asked."""
    return {"batch_size": options.batch_size, "tta": options.tta}


def _no_photo(options: argparse.Namespace) -> CannotDo:
    """Return the refusal of places without photos."""
    places = ", ".join("the list on standard input" if name == "-" else name for name in options.images)
    return CannotDo(f"There is no photo in {places}.")
