"""
Stage 08, the command line: photos named in a terminal, an answer a line.

    python -m utils.inference MODEL IMAGE... [--json] [--top N] [--unknown] [--batch-size N]
                              [--csv FILE] [--sort-into FOLDER]

Reads a model and photos; writes only what --csv and --sort-into name, and neither changes nor replaces a file that is
there. Exit codes: 0; 1 where nothing could be done (the model, an option, no photo, a full disk); 2 where some photo or
folder could not be read, and the rest was; 130 after Ctrl-C; 141 where the reader of the output went away.

Beside `inference` and its two files it needs tqdm alone, in a package or loose in a folder.
"""

import argparse
import csv
import errno
import filecmp
import glob
import io
import json
import os
import re
import secrets
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import count, tee
from pathlib import Path

from tqdm import tqdm

from .classifier import BATCH_SIZE, Prediction, load_classifier
from .vetting import ModelError

DONE, NOTHING, UNREAD, STOPPED, UNHEARD = 0, 1, 2, 130, 141  # exit codes; the last two as a shell names its signals
PATTERN = re.compile(r"[*?\[]")
UNKNOWN = "unknown"
COLUMNS = ("file", "label", "probability")
# In a folder these count as photos; what is in them decides later. HEIC cannot be read here, and is told one by one.
PICTURES = re.compile(r"\.(jpe?g|jpe|jfif|mpo|png|webp|gif|bmp|dib|tiff?|avifs?|hei[cf])", re.IGNORECASE)
TEMPORARY = f".{'[0-9a-f]' * 16}.part*"  # of `unclobbered`
NO_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # letters that no folder on every system may have
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # what Windows keeps for itself
LONGEST_NAME = 120  # bytes of a folder's name, so that its photos' paths stay short enough
NO_LETTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # which end a line, or tell a terminal what to do


class Refused(ValueError):
    """What was asked for cannot be done; the message says why."""


class PhotoGone(ValueError):
    """A photo that could be judged, but no longer be read to copy it."""


@dataclass
class PassedOver:
    """What was not judged when folders were looked through: files by their extension, folders that stay closed."""

    extensions: Counter = field(default_factory=Counter)
    closed: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """
        Return what to say of it.

        >>> PassedOver(Counter({".txt": 2, "": 1})).sentences()
        ['Left out 3 files that are no photos by their names: 2 .txt, 1 without extension.']
        """
        kinds = ", ".join(f"{n} {kind or 'without extension'}" for kind, n in self.extensions.most_common(6))
        files = self.extensions.total()
        left_out = f"Left out {files} file{'s' * (files > 1)} that are no photos by their names: {kinds}."
        return self.closed + [left_out] * (files > 0)


# Which photos


def each_photo(names: Iterable[str], *, copies: Path | None, passed: PassedOver) -> Iterator[str]:
    """
    Yield the path of each photo meant by the names given, as they are asked for.

    Parameters
    ----------
    names : iterable of str
        Paths, folders (their photos and those below, sorted by name), patterns such as ``*.jpg`` where no file has
        that very name, or "-": the paths on standard input, one a line.
    copies : Path, optional
        A folder that is left out when others are looked through: copies of photos are put there.
    passed : PassedOver
        Is told what was left out.
    """
    for name in names:
        if name == "-":
            for line in _lines(sys.stdin):
                yield from _meant(line, copies, passed)
        elif PATTERN.search(name) and not os.path.lexists(name):
            found = glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no pattern that begins with a disk)
            for path in sorted(found) or [name]:
                yield from _meant(path, copies, passed)
        else:
            yield from _meant(name, copies, passed)


def _lines(stream: io.TextIOBase | None) -> Iterator[str]:
    """Yield the lines of standard input, as file names are written on this system; blank ones left out."""
    binary = getattr(stream, "buffer", None)
    for line in stream or () if binary is None else map(os.fsdecode, binary):  # no stream where the caller closed it
        if name := line.removeprefix("\ufeff").rstrip("\r\n"):
            yield name


def _meant(path: str, copies: Path | None, passed: PassedOver) -> Iterator[str]:
    """Yield a file's path, or the photos in a folder and below it."""
    if not _is_folder(Path(path)):
        yield path
        return
    refuse_copies_among_photos([path], copies)
    visited = {os.path.realpath(copies)} if copies else set()
    waiting = _entries(path, visited, passed)
    while waiting:
        entry = waiting.pop()
        if _is_folder(entry):
            waiting.extend(_entries(entry.path, visited, passed))
        elif PICTURES.fullmatch(extension := Path(entry.name).suffix):
            yield entry.path
        else:
            passed.extensions[extension.lower()] += 1


def _is_folder(place: Path | os.DirEntry) -> bool:
    """Return whether there is a folder; a place that tells nothing, such as a link to itself, counts as a file."""
    try:
        return place.is_dir()
    except OSError:
        return False


def _entries(folder: str, visited: set[str], passed: PassedOver) -> list[os.DirEntry]:
    """Return what is in a folder but hidden, the last name first; nothing if links led here before."""
    place = os.path.realpath(folder)
    if place in visited:
        return []
    visited.add(place)
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        passed.closed.append(f"The folder {folder} cannot be looked through: {error.strerror}.")
        return []
    return sorted(seen, key=lambda entry: entry.name, reverse=True)


def refuse_copies_among_photos(names: Iterable[str], copies: Path | None) -> None:
    """Refuse to put copies into a folder that is itself looked through."""
    for name in names:
        if copies and _is_folder(Path(name)) and os.path.realpath(name) == os.path.realpath(copies):
            raise Refused(f"--sort-into {copies} is the folder of the photos itself. Name another one for the copies.")


# What is said of them


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
        cells = [file, UNKNOWN if prediction.label is None else best, f"{probability:.4f}"]
        cells += [cell for label, probability in others for cell in (label, f"{probability:.4f}")]
    return "\t".join(NO_LETTERS.sub(" ", cell) for cell in cells)


def as_json(file: str, prediction: Prediction, *, top: int | None = None) -> str:
    """Return a prediction as one line for programs: a JSON object."""
    if prediction.error:
        return json.dumps({"file": file, "error": prediction.error})
    facts = {"file": file, "label": prediction.label, "probability": prediction.probability}
    facts["probabilities"] = prediction.probabilities
    return json.dumps(facts if top is None else facts | {"top": prediction.top(top)})


# --csv


@contextmanager
def new_table(path: Path) -> Iterator[Callable[[str, Prediction], None]]:
    """
    Yield what writes a row of predictions.csv; the table is at `path` when the block succeeds, else nowhere.

    A photo that could not be read has a row without label and probability. Labels and names stand in it as they are,
    quotes and line breaks too; a path that a spreadsheet would take for a formula begins with ``./``.
    """
    if os.path.lexists(path):
        raise Refused(f"--csv {path}: this file is there already, and is not written over. Name another.")
    if not path.parent.is_dir():
        raise Refused(f"--csv {path}: there is no folder {path.parent}. Make it first.")
    errors = sys.getfilesystemencodeerrors()  # a file's name may be bytes that are no letters
    with unclobbered(path) as temporary, temporary.open("w", encoding="utf-8", errors=errors, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)

        def write(file: str, prediction: Prediction) -> None:
            label = "" if prediction.error else UNKNOWN if prediction.label is None else prediction.label
            name = os.path.join(".", file) if file.startswith(("=", "+", "-", "@")) else file  # noqa: PTH118
            writer.writerow([name, label, "" if prediction.error else repr(prediction.probability)])

        yield write


@contextmanager
def unclobbered(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there is put at `path` if the block succeeds and nothing is there."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces
        except OSError:  # something is there, or the disk knows no links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "is there already, and is not written over", str(path)) from None
            temporary.rename(path)
    except OSError as error:
        if str(error.filename) == str(temporary):  # which nobody named
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


# --sort-into


def folder_names(labels: Sequence[str]) -> dict[str, str]:
    """
    Return a folder's name for each label: safe on every system, no two alike, and none that of `UNKNOWN`.

    >>> folder_names(["cat", "a/b", "a:b", "..", "CON"])
    {'cat': 'cat', 'a/b': 'a_b', 'a:b': 'a_b (2)', '..': '_', 'CON': '_CON'}
    """
    names: dict[str, str] = {}
    taken = {UNKNOWN}
    for label in labels:
        name = NO_NAMES.sub("_", label).encode()[:LONGEST_NAME].decode(errors="ignore").strip(". ") or "_"
        name = f"_{name}" if RESERVED.match(name) else name
        numbered = (name if n == 1 else f"{name} ({n})" for n in count(1))
        names[label] = next(name for name in numbered if name.casefold() not in taken)
        taken.add(names[label].casefold())
    return names


class Sorter:
    """Copies photos into a folder for each label, and never moves, changes or replaces one."""

    def __init__(self, folder: Path, labels: Sequence[str]):
        self.folder = folder
        self.names = folder_names(labels)
        folder.mkdir(parents=True, exist_ok=True)
        for name in {*self.names.values(), UNKNOWN}:
            for leftover in sorted((folder / name).glob(TEMPORARY)):  # of a run that was killed
                leftover.unlink(missing_ok=True)

    def copy(self, file: str, prediction: Prediction) -> Path | None:
        """Copy a photo that was read into its label's folder, or into "unknown", and return where it is."""
        if prediction.error:
            return None
        name = UNKNOWN if prediction.label is None else self.names[prediction.label]
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return copied(Path(file), folder)


def copied(photo: Path, folder: Path) -> Path:
    """
    Copy a photo into `folder` under its name, or under a number where another photo has that name; return where it is.

    The same photo under that name is not copied again, so that a run that was stopped can be run again.
    """
    for number in count(1):
        target = folder / (photo.name if number == 1 else f"{photo.stem} ({number}){photo.suffix}")
        try:
            with suppress(FileExistsError):
                if not os.path.lexists(target):
                    return _copy(photo, target)
            if target.is_file() and filecmp.cmp(photo, target, shallow=False):
                return target
        except OSError as error:
            if str(error.filename) != str(photo):
                raise
            raise PhotoGone(f"{photo} was judged but not copied: {error.strerror}.") from error
    raise AssertionError("counting does not end")


def _copy(photo: Path, target: Path) -> Path:
    """Copy a photo's bytes and time to a new file, whole or not at all."""
    with unclobbered(target) as temporary:
        with photo.open("rb") as source, temporary.open("xb") as copy:
            shutil.copyfileobj(source, copy)
            times = os.fstat(source.fileno())
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
    return target


# All of it


class Parser(argparse.ArgumentParser):
    """A parser that exits with 1, for 2 says that photos could not be read."""

    def error(self, message: str):
        """Say what is wrong with the options, and exit."""
        self.exit(NOTHING, f"{self.format_usage()}{message[:1].upper()}{message[1:]}.\n")


def _count(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m utils.inference",
        description="Say what photos show.",
        epilog="Exit code 0; 1: nothing could be done; 2: some photo or folder could not be read, and the rest was.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model.onnx or an export.pkl")
    photos = (
        "a photo, a folder with photos in it and below, a pattern such as '*.jpg', or - for paths from standard input"
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help=photos)
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.add_argument("--top", metavar="N", type=_count, help="print the N most probable labels")
    parser.add_argument("--unknown", action="store_true", help="answer “unknown” where the model is unsure")
    parser.add_argument("--batch-size", metavar="N", type=_count, default=BATCH_SIZE, help="photos judged together")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write file, label and probability to a new table")
    copies = "copy each photo into a folder named after its label"
    parser.add_argument("--sort-into", metavar="FOLDER", type=Path, help=copies)
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = _options(arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about a picture: its answer or error says what matters
            return _run(options)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:  # as after `| head`; what Python still holds back for that reader is to go nowhere
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except (ModelError, Refused) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or 'The output'}: {error.strerror or error}.", file=sys.stderr)
    return NOTHING


def _run(options: argparse.Namespace) -> int:
    """Judge the photos, and print, tabulate and sort as the options say."""
    copies = options.sort_into
    refuse_copies_among_photos(options.images, copies)
    if copies and os.path.lexists(copies) and not copies.is_dir():
        raise Refused(f"--sort-into {copies} is a file, not a folder. Name another.")
    with new_table(options.csv) if options.csv else nullcontext() as write_row:
        classifier = load_classifier(options.model)
        passed, photos, troubles = PassedOver(), 0, 0
        files, again = tee(each_photo(options.images, copies=copies, passed=passed))
        answers = classifier.stream(files, batch_size=options.batch_size, unknown=options.unknown)
        sorter = Sorter(copies, classifier.labels) if copies else None
        as_text = as_json if options.json else as_line
        lists = [name for name in options.images if name == "-" or PATTERN.search(name) or _is_folder(Path(name))]
        total = None if lists else len(options.images)
        bar = tqdm(answers, total=total, unit=" photos", disable=not sys.stderr.isatty(), leave=False)
        with closing(answers), closing(bar):
            for prediction, file in zip(bar, again, strict=False):  # `again` ends later, for it is what was asked
                photos += 1
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
                troubles += prediction.error is not None
        for sentence in passed.sentences():
            print(sentence, file=sys.stderr)
        if not photos:
            places = ", ".join("the list on standard input" if name == "-" else name for name in options.images)
            raise Refused(f"There is no photo in {places}.")
    return UNREAD if troubles or passed.closed else DONE
