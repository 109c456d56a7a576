"""
Stage 08, a submission: the template of a contest, filled with what a model says of the photos in a folder.

Reads a template (`template`) and photos; writes one new table, whole or not at all. Header, order, ids, quotes and line
ends stay as they are in the template. Nothing guards a cell against spreadsheets here: ids must stay exact.
"""

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .classifier import Classifier, Prediction
from .outputs import SHOWN, CannotDo, first_few, tabbed, unclobbered
from .template import Layout, Template, cell_text, find_layout, labels_meant, not_blank, written_as

MANY = 100  # photos of nearly one name: which of them an id means is no longer looked for, which would take long


class Unanswered(Exception):
    """Some id has no answer, so nothing is written."""


@dataclass(frozen=True)
class Asked:
    """A row's id, and the one photo that it means, or why there is none."""

    id: str
    photo: str | None = None
    reason: str = ""


class PhotoNames:
    """The photos that were found, by their names; an id is compared with these alone."""

    def __init__(self, photos: Iterable[str]):
        self.photos = {os.path.abspath(photo): photo for photo in photos}  # noqa: PTH100 (resolve would follow links)
        self.deepest = max((len(Path(place).parts) for place in self.photos), default=0)
        self.by_depth: dict[int, dict[str, list[str]]] = {}

    def meant(self, id: str) -> Asked:
        """Return the photo that an id means: its name, with or without its ending and folders above it."""
        parts = [part for part in id.strip().replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts:
            return Asked(id, reason="the row has no id")
        wanted, depth = "/".join(parts), len(parts)
        near = self._of_depth(depth).get(same_letters(wanted), []) if depth < self.deepest else []
        names = [(place, *_tails(place, depth)) for place in near[: MANY + 1]]
        tiers = (
            [place for place, name, _ in names if name == wanted],
            [place for place, name, _ in names if same_letters(name) == same_letters(wanted)],
            [place for place, _, stem in names if stem == wanted],
            near,
        )
        found = next(filter(None, tiers), []) if len(near) <= MANY else near
        if len(found) == 1:
            return Asked(id, self.photos[found[0]])
        if found:
            first, second = (self.photos[place] for place in found[:2])
            return Asked(id, reason=f"{len(found)} photos have this name, such as {first} and {second}")
        elsewhere = self._of_depth(1).get(same_letters(parts[-1]), []) if depth > 1 else []
        if elsewhere:
            folder = "/".join(parts[:-1])
            return Asked(id, reason=f"there is {self.photos[elsewhere[0]]}, but it is not in a folder {folder}")
        return Asked(id, reason="no photo has this name")

    def _of_depth(self, depth: int) -> dict[str, list[str]]:
        """Return name → the places of photos, by their last `depth` parts, with and without ending."""
        if depth not in self.by_depth:
            index = self.by_depth[depth] = {}
            for place in self.photos:
                for name in dict.fromkeys(map(same_letters, _tails(place, depth))):
                    index.setdefault(name, []).append(place)
        return self.by_depth[depth]


def _tails(place: str, depth: int) -> tuple[str, str]:
    """Return the last `depth` parts of a path with slashes between, with and without the file's ending."""
    name = "/".join(Path(place).parts[-depth:])
    return name, name.removesuffix(Path(place).suffix)


def same_letters(name: str) -> str:
    """Return a name without case, in the one Unicode form: file systems differ in both."""
    return unicodedata.normalize("NFC", name).casefold()


def write_submission(
    template: Template,
    target: Path,
    classifier: Classifier,
    photos: Iterable[str],
    *,
    named: str | None = None,
    fill: str | None = None,
    top: int | None = None,
    **how,
) -> bool:
    """
    Write the template, filled, to the new file `target`, and return whether each id has an answer of the model.

    `named` are the columns as `find_layout` takes them, `fill` is written where there is no answer, `top` labels stand
    in one cell with blanks between, `how` goes to ``Classifier.stream``. Ids without an answer are printed, a line
    each, with the reason; if there are any and `fill` is None, nothing is written.
    """
    layout = find_layout(template, classifier.labels, named)
    names = PhotoNames(photos)
    spelling = _spelling(template, layout, classifier.labels, top)
    _check_fill(template, layout, classifier.labels, fill, top)
    asked = list(_asked(template, layout, names))
    for sentence in _remarks(template, layout, classifier.labels, names, asked):
        print(sentence, file=sys.stderr)
    missing = [each for each in asked if each.reason]
    if missing and len(missing) == len(asked) and fill is not None:
        raise CannotDo(f"No row of {template.path} asks for one of the photos, so nothing is filled in.")
    for each in missing:
        print(tabbed([each.id, "error", each.reason]))
    if missing and fill is None:
        _nothing(len(missing), len(asked), "and no photo was judged")
        return False
    answers = classifier.stream([each.photo for each in asked if each.photo], **how)
    bar = tqdm(answers, total=len(asked) - len(missing), unit=" photos", disable=not sys.stderr.isatty(), leave=False)
    try:
        with closing(answers), closing(bar), unclobbered(target) as temporary:
            with temporary.open("w", encoding=template.encoding, newline="") as file:
                filler = Filler(template, layout, spelling, spelling.get(fill, fill), top or 1)
                file.writelines(filler.lines(asked, bar))
            if filler.unread and fill is None:
                raise Unanswered
    except Unanswered:
        _nothing(filler.unread, len(asked), "")
        return False
    without = len(missing) + filler.unread
    filled = f", {without:,} of them filled with “{fill}”" if without else ""
    print(f"{target}: {len(asked):,} row{'s' * (len(asked) > 1)}{filled}.", file=sys.stderr)
    return not without


def _nothing(without: int, rows: int, judged: str) -> None:
    """Say that nothing was written, and what to do."""
    print(
        f"{without:,} of {rows:,} rows have no answer, so nothing was written{', ' * bool(judged)}{judged}. The lines "
        "above name them. Mend what they say, or give --fill what to write there.",
        file=sys.stderr,
    )


def _asked(template: Template, layout: Layout, names: PhotoNames) -> Iterator[Asked]:
    """Yield for each row of the template which photo it asks for; an id that stood above asks for none."""
    first: dict[str, int] = {}
    for number, cells in template.rows():
        id = cell_text(cells[layout.ids])
        if id in first and id.strip():
            yield Asked(id, reason=f"it stands in line {first[id]} already, and again in line {number}")
        else:
            first[id] = number
            yield names.meant(id)
    if not first:
        raise CannotDo(f"{template.path} has a header and no rows.")


@dataclass
class Filler:
    """Fills the cells of a template, row by row."""

    template: Template
    layout: Layout
    spelling: dict[str, str]  # label → how the template writes it, if otherwise
    fill: str | None
    top: int
    unread: int = 0  # photos that could not be read so far

    def lines(self, asked: Sequence[Asked], answers: Iterator[Prediction]) -> Iterator[str]:
        """Yield the text of the template with its cells filled."""
        records, rows, answers = self.template.records(), iter(asked), iter(answers)
        header = next(records)
        yield self.template.separator.join(header[1]) + header[2]
        for record in records:
            _, cells, end = record
            if not_blank(record):
                each = next(rows)
                prediction = next(answers) if each.photo else Prediction(error=each.reason)
                if each.photo and prediction.error:
                    self.unread += 1
                    with tqdm.external_write_mode():
                        print(tabbed([each.id, "error", prediction.error]))
                self.put(cells, prediction)
            yield self.template.separator.join(cells) + end

    def put(self, cells: list[str], prediction: Prediction) -> None:
        """Fill the cells of one row with what the model says, or with what stands for no answer."""
        for place, label in self.layout.filled.items():
            if prediction.error or (label is None and not self.layout.by_name):
                text = self.fill or ""
            elif label is None:
                text = " ".join(self.spelling.get(name, name) for name, _ in prediction.top(self.top))
            else:
                text = f"{prediction.probabilities[label]:.6g}"
            cells[place] = written_as(cells[place], text, self.template.separator)


def _check_fill(template: Template, layout: Layout, labels: Sequence[str], fill: str | None, top: int | None) -> None:
    """Refuse what cannot be filled in; say what the model does not know."""
    if layout.by_name:
        if fill is not None and fill not in labels:
            print(f"--fill “{fill}” is not a label of the model. It is written as it is.", file=sys.stderr)
        if top and top > 1 and (blank := next((label for label in labels if len(label.split()) > 1), None)):
            raise CannotDo(f"--top {top} puts blanks between labels, and the label {blank!r} holds one itself.")
        return
    if top:
        raise CannotDo("--top is for a template with one column for the label; this one has columns of probabilities.")
    if fill is not None and not _is_fraction(fill):
        raise CannotDo(f"--fill {fill}: columns of probabilities are filled with a number from 0 to 1.")
    unknown = [template.header[place] for place, label in layout.filled.items() if label is None]
    if unknown and fill is None:
        raise CannotDo(
            f"{template.path}: the model has no label for {_examples(unknown, 'column')}. Fill such columns with "
            f"--fill 0, or name those to fill after that of the ids: --columns {template.header[layout.ids]},…"
        )


def _is_fraction(text: str) -> bool:
    """Return whether a text is a number from 0 to 1."""
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _spelling(template: Template, layout: Layout, labels: Sequence[str], top: int | None) -> dict[str, str]:
    """Return label → how the template's own cells write it, and tell of cells that hold no label of the model."""
    if not layout.by_name:
        return {}
    (place,) = layout.filled
    seen: set[str] = set()
    for _, cells in template.rows():
        cell = cell_text(cells[place])
        if len(seen) <= 2 * len(labels) + SHOWN:  # a cell may hold anything: what is looked at is bounded
            seen.update(cell.split() if top and top > 1 else [cell] if cell.strip() else [])
    meant = labels_meant(sorted(seen), labels)
    if unknown := sorted(seen - meant.keys()):
        print(
            f"{template.path} has {_examples(unknown, 'text')} in the column of the label, not known to the model. See "
            f"whether the labels are asked for as it writes them: {_examples(labels, 'label')}.",
            file=sys.stderr,
        )
    exact = {label for name, label in meant.items() if name == label}
    spelling = {label: name for name, label in meant.items() if label not in exact}
    if spelling:
        print(_taken_as_same(sorted((name, label) for label, name in spelling.items())), file=sys.stderr)
    return spelling


def _taken_as_same(pairs: Sequence[tuple[str, str]]) -> str:
    """Return in a sentence which names of the template were taken for which labels."""
    told = "; ".join(f"“{name}” in the template, “{label}” in the model" for name, label in pairs[:SHOWN])
    more = f"; and {len(pairs) - SHOWN:,} more" if len(pairs) > SHOWN else ""
    return f"Taken for the same, but for case, blanks, underscores and dots: {told}{more}."


def _remarks(
    template: Template, layout: Layout, labels: Sequence[str], names: PhotoNames, asked: Sequence[Asked]
) -> Iterator[str]:
    """Yield in sentences what a person should know beside the rows."""
    if not layout.by_name:
        pairs = [(template.header[place], label) for place, label in layout.filled.items()]
        if unknown := [name for name, label in pairs if label is None]:
            yield f"The model has no label for {_examples(unknown, 'column')}: filled as --fill says."
        if loose := [(name, label) for name, label in pairs if label not in (None, name)]:
            yield _taken_as_same(loose)
        if left := sorted(set(labels) - {label for _, label in pairs}):
            yield f"The template has no column for {_examples(left, 'label')}: such probabilities are left out."
    photos = {each.photo for each in asked}
    if unasked := sorted(photo for photo in names.photos.values() if photo not in photos):
        yield f"No row asks for {_examples(unasked, 'photo')}."


def _examples(names: Sequence[str], noun: str) -> str:
    """
    Return how many things there are, and the first of them.

    >>> _examples(["a.png", "b.png"], "photo")
    '2 photos: “a.png”, “b.png”'
    """
    return f"the {noun} {first_few(names)}" if len(names) == 1 else f"{len(names):,} {noun}s: {first_few(names)}"
