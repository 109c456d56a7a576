"""
Stage 08, the command line: photos named in a terminal, one answer per line.

    python -m utils.inference MODEL IMAGE... [--json] [--top N] [--unknown] [--tta] [--batch-size N]
                              [--csv FILE] [--sort-into FOLDER]
    python -m utils.inference MODEL IMAGE... --submission TEMPLATE [--csv FILE] [--columns ID,NAME...] [--fill TEXT]
                              [--top N] [--tta] [--batch-size N]

Reads a model and photos. Writes only what --csv and --sort-into name (with --submission also submission.csv), and never
changes or replaces a file. Needs tqdm beside what the rest of `inference` needs. Exit codes: 0; 1 if nothing could be
done (the model, an option, no photo, a full disk); 2 if some photo or folder could not be read, or some row of a
template not answered; 130 after Ctrl-C; 141 if the reader of the output went away.
"""

import argparse
import csv
import glob
import io
import json
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path

from tqdm import tqdm

from .classifier import Classifier, Prediction, load_classifier
from .outputs import CannotDo, refuse_taken, tabbed, unclobbered
from .sorting import UNSURE, PhotoGone, Sorter
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
# What a spreadsheet runs as a formula: at the start of a cell, which some also begin at semicolons, tabs and line ends.
RUN_AS_FORMULA = re.compile(r"(^|[;\t\r\n])(?='*(?:\"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])")


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
            raise CannotDo(f"--sort-into {copies} is the folder of the photos itself. Name another one for the copies.")


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

    A photo that could not be read has a row without label and probability. Labels and names stand in it as they are,
    quotes and line breaks too, unless a spreadsheet would take them for a formula: then the path begins with ``./``,
    and an apostrophe precedes the label, as in the tables of a project.
    """
    refuse_taken(path)
    errors = sys.getfilesystemencodeerrors()  # a file's name may hold bytes that are not letters
    with unclobbered(path) as temporary, temporary.open("w", encoding="utf-8", errors=errors, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label", "probability"))

        def write(file: str, prediction: Prediction) -> None:
            label = "" if prediction.error else UNSURE if prediction.label is None else prediction.label
            name = os.path.join(".", file) if RUN_AS_FORMULA.match(file) else file  # noqa: PTH118
            cells = [RUN_AS_FORMULA.sub(r"\1'", text) for text in (name, label)]
            writer.writerow([*cells, "" if prediction.error else repr(prediction.probability)])

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


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=f"python -m {__package__}",
        description="Say what photos show.",
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
    add("--csv", metavar="FILE", type=Path, help="the new table: file, label and probability; or the filled template")
    add("--sort-into", metavar="FOLDER", type=Path, help="copy each photo into a folder named after its label")
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
    """Judge the photos, and print, tabulate and sort as the options say."""
    copies = options.sort_into
    refuse_copies_among_photos(options.images, copies)
    if copies and os.path.lexists(copies) and not copies.is_dir():
        raise CannotDo(f"--sort-into {copies} is a file, not a folder. Name another.")
    with new_table(options.csv) if options.csv else nullcontext() as write_row:
        classifier = _loaded(options)
        passed, photos, troubles = PassedOver(), 0, 0
        files, again = tee(each_photo(options.images, copies=copies, passed=passed))
        answers = classifier.stream(files, unknown=options.unknown, **_how(options))
        sorter = Sorter(copies, classifier.labels) if copies else None
        as_text = as_json if options.json else as_line
        lists = [name for name in options.images if name == "-" or PATTERN.search(name) or _is_folder(name)]
        total = None if lists else len(options.images)
        bar = tqdm(answers, total=total, unit=" photos", disable=not sys.stderr.isatty(), leave=False)
        with closing(answers), closing(bar):
            for prediction, file in zip(bar, again, strict=False):  # `again` ends later: the bar is asked first
                photos += 1
                troubles += prediction.error is not None
                with tqdm.external_write_mode():
                    try:
                        if sorter:
                            sorter.copy(file, prediction)
                    except PhotoGone as gone:
                        print(gone, file=sys.stderr)
                        troubles += 1
                    if write_row:
                        write_row(file, prediction)
                    print(as_text(file, prediction, top=options.top), flush=True)
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
