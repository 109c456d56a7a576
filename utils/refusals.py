"""
What is wrong with a project file, in plain words: the line, and the one thing to change.

Foundation of `utils.project`. A line that is no TOML is mended in one way after another, such as with straight quotes
for curly ones; the first way that makes it readable is told, with the line as it should be. So the advice works.
`sections` maps the name of each section, "" for the top, to the keys that it may hold, each with its type.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import get_args, get_origin

from pydantic import ValidationError

Sections = Mapping[str, Mapping[str, object]]

LONGEST_LINE = 200  # characters of a line that a message shows
STRING = r"""(?:"[^"\n]*"|'[^'\n]*')"""
LAST = r"(?=\s*(?:#[^\n]*)?\Z)"  # nothing follows but a remark
HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
BACKSLASHES = r'"([^"\n]*\\[^"\n]*)"'
ESCAPES = re.compile(r'"[^"\n]*\\[bfnrt][^"\n]*"')  # a backslash that TOML takes for a line break, a tab, …
CURLY = str.maketrans(dict.fromkeys("“”„‟«»＂", '"') | dict.fromkeys("‘’‚‛‹›`´", "'"))
LOOKALIKES = str.maketrans(
    dict(zip("＝［］，：", "=[],:", strict=True)) | dict.fromkeys("\u00a0\u200b\u202f\u3000\ufeff", " ")
)

# What people call a search; "images" is no such word: many folders are called so.
WEB = {"bing", "ddg", "google", "googleimages", "internet", "online", "search", "web", "websearch"}

HINTS = {
    "missing": 'it is missing; add it, such as name = "birds"',
    "int_type": "write a whole number, without quotes",
    "float_type": "write a number such as 0.2, without quotes",
    "string_type": "write text in quotes",
    "list_type": 'write a list, such as ["tilapia alive in water"]',
    "dict_type": "write it as a section of its own: [labels]",
    "bool_type": "write true or false, without quotes",
}
HINTS_OF_KEYS = {
    "source": "write text in quotes, or a list of such texts",
    "arch": "write the name of a torchvision model, such as resnet18, or timm/NAME for a network of timm",
    "augment": 'write "standard" or "strong", or a section of its own: [augment]',
    "filters": "write it as a section of its own: [filters]",
    "filters.region": 'write country-language, such as "uk-en"; "wt-wt" is the whole world',
    "allowed_hosts": 'write a list, such as ["photos.local"]',
}


def in_quotes(text: str) -> str:
    """
    Return a text as TOML writes it: in single quotes where it has backslashes or double quotes.

    >>> print(in_quotes("Penaeus sp."), in_quotes("C:\\\\fish"))
    "Penaeus sp." 'C:\\fish'
    """
    if not re.search(r'["\\]', text):
        return f'"{text}"'
    return f"'{text}'" if "'" not in text else '"' + text.replace("\\", "/").replace('"', "'") + '"'


def as_key(name: str) -> str:
    """Return a name as TOML writes it before =, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else in_quotes(name)


def _items(found: re.Match) -> str:
    """Return a list whose texts lack their quotes, with them."""
    return f"{found[1]}[{', '.join(in_quotes(item.strip()) for item in found[2].split(','))}]"


# What to do, what to look for, what to put there. `re.sub` applies a row; earlier rows win over later ones.
MENDINGS: list[tuple[str, str, str | Callable[[re.Match], str]]] = [
    ("put text with backslashes in single quotes (in a path, / works too)", BACKSLASHES, lambda m: in_quotes(m[1])),
    ("write straight quotes, not curly ones", r"[^\n]+", lambda m: m[0].translate(CURLY)),
    ("write plain blanks and a plain = [ ] , here", r"[^\n]+", lambda m: m[0].translate(LOOKALIKES)),
    ("begin a section with its name in brackets", r"\A\s*(labels|filters|augment|study)\s*[=:]?\s*\{?\s*\Z", r"[\1]"),
    ("begin a remark with #", r"\A\s*(?://|--|;|%|\*)", "#"),
    ("write = between a name and its value", rf"""\A(\s*(?:{STRING}|[^"'=:\[\]]+?))\s*(?:==|:=|=>|:)\s*""", r"\1 = "),
    (
        "write = between a name and its value",
        rf"""\A(\s*(?:{STRING}|[^\s"'=\[#][^"'=\[]*?))\s+(?=["'\[]|(?:[\d.,]+|true|false)\s*\Z)""",
        r"\1 = ",
    ),
    (
        "put the name in quotes (only a to z, 0 to 9, _ and - go without)",
        r"""\A(\s*)([^\s"'=\[#][^=\n]*?)(\s*=)""",
        lambda m: m[1] + as_key(m[2]) + m[3],
    ),
    ("write _ for the blank", r"\A\s*(\w+) +(\w+)(?: +(\w+))?(?=\s*=)", lambda m: "_".join(filter(None, m.groups()))),
    (
        "put a comma between two texts",
        rf"({STRING})(?:(\s*);?(\s*)(?=[\"']))?",
        lambda m: m[1] if m[2] is None else f"{m[1]},{m[2] + m[3] or ' '}",
    ),
    ("write true or false in small letters", r"(=\s*)(?:[Tt]rue|TRUE|[Yy]es)\b", r"\1true"),
    ("write true or false in small letters", r"(=\s*)(?:[Ff]alse|FALSE|[Nn]o)\b", r"\1false"),
    ("write a fraction, not percent", r"(=\s*)(\d+)\s*%", lambda m: f"{m[1]}{int(m[2]) / 100:g}"),
    ("write height and width in square brackets", r"(=\s*)(\d+)\s*[xX×*]\s*(\d+)(?=\s*(?:#|\Z))", r"\1[\2, \3]"),
    ("write several values in square brackets", r"(=\s*)(\d[\d.]*(?:,\s+\d[\d.]*)+)(?=\s*(?:#|\Z))", r"\1[\2]"),
    ("write a number without a comma or a blank in it", r"(=\s*[1-9]\d{0,2})[, ](\d{3})(?!\d)", r"\1\2"),
    ("write a number with a point, such as 0.2", r"(=\s*-?\d+),(\d+)", r"\1.\2"),
    ("write a number with a point, such as 0.2", r"(=\s*-?)[.,](\d)", r"\g<1>0.\2"),
    ("write a number without a zero in front", r"(=\s*)0+(?=\d)", r"\1"),
    ("write a number without its unit", rf"(=\s*\d[\d.]*)\s*[A-Za-zµ]+{LAST}", r"\1"),
    ("end the line after the value", rf"\s*[;,]+{LAST}", ""),
    (
        "put text in quotes",
        rf"""(=\s*)([^\s"'\[\]{{}}#=,][^"'\[\]{{}}#=,\n]*?){LAST}""",
        lambda m: m[1] + in_quotes(m[2]),
    ),
    ("put text in quotes", r"""(=\s*)\[([^"'\[\]\n]+)\]""", _items),
    ("add the quote that is missing", rf"(?=\s*\]{LAST})", '"'),
    ("add the quote that is missing", r"""(=\s*\[?)\s*(?!["'\[{\s])""", r'\1"'),
    ("add the quote that is missing", LAST, '"'),
    ("add the quote that is missing", LAST, "'"),
    ("put what to search for in square brackets", rf"(=\s*)({STRING}(?:\s*,\s*{STRING})*){LAST}", r"\1[\2]"),
    ("close the bracket", LAST, "]"),
    ("remove the bracket that is too many", rf"\]{LAST}", ""),
]


def mistake(path: Path, text: str, sections: Sections) -> str:
    """Return what is wrong with the first line of a project file that cannot be read."""
    lines = text.split("\n")
    start, end = _broken(text, lines)
    header = HEADER.match(lines[start])
    section = next((found[1] for found in map(HEADER.match, reversed(lines[:start])) if found and not header), "")
    statement = "\n".join(lines[start:end])
    if alone := _toml(statement, ""):  # what stands before it says the same
        name = next(iter(alone))
        first = _line(lines[:start], (section, name) if section else (name,))
        place = f"line {first}" if first else "a line before"
        told = "put these lines below that one" if header else "keep one of the two lines"
        return _shown(path, start + 1, lines[start], f"{place} has “{name}” already: {told}")
    if re.search(r"=\s*(?:#.*)?$", lines[start]):
        return _shown(path, start + 1, lines[start], "write a value after =, or remove the line")
    ends = [start + 1]
    if re.search(r"=\s*\[", lines[start]):  # a list, which may go on; an open one is noticed in the line after it
        closed = _closed(lines, start)
        ends = [closed] if closed else [end, max(end - 1, start + 1)]
    for last in ends:
        statement = "\n".join(lines[start:last])
        if found := _mended(statement, section, sections):
            told, better = found
            pairs = enumerate(zip(statement.split("\n"), better.split("\n"), strict=False), start + 1)
            number, (line, new) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            return _shown(path, number, line, told, new)
    if len(statement.split("\n")) > 1:
        told = "the list cannot be read here: put each text in quotes, with a comma between two"
        return _shown(path, end, lines[end - 1], told)
    told = "this line cannot be read: write one name = value per line, with text in quotes, or begin a remark with #"
    return _shown(path, start + 1, lines[start], told)


def _closed(lines: list[str], start: int) -> int | None:
    """Return the number of the line that closes the list which begins in `lines[start]`, or None."""
    for number, line in enumerate(lines[start:], start + 1):
        if number > start + 1 and (HEADER.match(line) or re.match(r"""\s*[^\s"'\[\]#=]+\s*=""", line)):
            return None
        if "]" in line:
            return number
    return None


def hidden_escape(path: Path, text: str, settings: Mapping, keys: Collection[str]) -> str | None:
    """Return what is wrong where a path among `settings` has a line break or a tab that nobody meant, or None."""
    lines = text.split("\n")
    for key in keys:
        values = settings[key] if isinstance(settings.get(key), list) else [settings.get(key)]
        if any(isinstance(value, str) and re.search(r"[\0-\x1f]", value) for value in values):
            start = _line(lines, (key,)) or 1
            told, pattern, change = MENDINGS[0]
            for number, line in enumerate(lines[start - 1 :], start):
                if ESCAPES.search(line):
                    return _shown(path, number, line, told, re.sub(pattern, change, line))
            return _shown(path, start, lines[start - 1], "remove the line break or the tab inside the quotes")
    return None


def refusal(path: Path, text: str, error: ValidationError, sections: Sections) -> str:
    """Return what pydantic found as one sentence per setting: file, key, value, line, what to do."""
    lines, sentences, meant = text.split("\n"), {}, set()
    for problem in error.errors():
        loc = tuple(str(part) for part in problem["loc"] if part not in ("a word", "a table"))
        if loc[:1] == ("source",) and problem["type"] in ("string_type", "list_type"):  # neither a text nor a list
            loc = loc[:1]
        told, setting = _told(problem, loc, lines, sections)
        meant.add(setting)
        key = ".".join(loc)
        value = "" if problem["type"] in ("missing", "value_error") else f" = {repr(problem['input'])[:60]}"
        place = f" (line {number})" if loc and (number := _line(lines, loc)) else ""
        sentences[f"{key}{value}{place}: {told}" if key else told] = key if problem["type"] == "missing" else ""
    unique = [sentence for sentence, missing in sentences.items() if not missing or missing not in meant]
    return f"{path}: " + "; and ".join(unique).removesuffix("?") + ("?" if unique[-1].endswith("?") else ".")


def entangled(source: Path, own: Path, folders: Iterable[Path], *, chosen: bool) -> str | None:
    """
    Return why looking for photos in a source would find what the project wrote to its `own` folder, or None.

    Both paths are resolved. Photos are looked for in `folders` of the source. If the labels were not `chosen` in
    [labels], every folder in it is one.
    """
    if source.is_relative_to(own):
        return f"source = {str(source)!r} lies in {own}, where this project keeps its own files. Move your photos out"
    places = [folder.resolve() for folder in folders]
    within = own.is_relative_to(source) and not own.relative_to(source).parts[0].startswith(".")
    if (within and not chosen) or any(own.is_relative_to(place) or place.is_relative_to(own) for place in places):
        return (
            f"source = {str(source)!r} holds {own}, where this project keeps its own files: they would become "
            "photos of yours. Move your photos to a folder of their own"
        )
    return None


def meant_source(given: str, search: str, sample: str) -> str | None:
    """Return the word that a source was meant to be, if it is near one and is not it."""
    bare = re.sub(r"[\s._-]", "", given.lower())
    if given.lower() in (search, sample):
        return None
    near = bare in WEB or get_close_matches(bare, [search], cutoff=0.75)
    return sample if bare == sample else search if near else None


def _broken(text: str, lines: list[str]) -> tuple[int, int]:
    """Return where the first statement that cannot be read begins, and the end of what was read of it."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.findall(r"at line (\d+), column", str(error))
        end = int(found[-1]) if found else len(lines)
    return next(start for start in range(end - 1, -1, -1) if _toml("\n".join(lines[:start]), "") is not None), end


def _toml(text: str, section: str) -> dict | None:
    """Return what a text of TOML says below the header of a section, or None where it cannot be read."""
    try:
        return tomllib.loads(f"[{section}]\n{text}" if section else text)
    except tomllib.TOMLDecodeError:
        return None


def _mended(statement: str, section: str, sections: Sections) -> tuple[str, str] | None:
    """Return what to do about a statement and how it reads then, by as few mendings as help, at most three."""
    for count in (1, 2, 3):
        for rows in combinations(MENDINGS, count):
            better, told = statement, []
            for advice, pattern, change in rows:
                before, better = better, re.sub(pattern, change, better, count=1 if LAST in pattern else 0)
                told += [advice] if before != better else []
            if len(told) == count and _fits(_toml(better, section), section, sections):
                return " and ".join(dict.fromkeys(told)), better
    return None


def _fits(settings: dict | None, section: str, sections: Sections) -> bool:
    """Return whether settings were read, are known, hold numbers where these are wanted, and give labels lists."""
    if settings is None or not settings.keys() - {section} <= set(sections[""]):
        return False
    wanted = {name: getattr(field, "annotation", None) for name, field in dict(sections[""]).items()}
    if any(_is_of_another_kind(value, wanted.get(name)) for name, value in settings.items()):
        return False
    labels = settings.get("labels", {})
    return not isinstance(labels, dict) or all(isinstance(searches, list) for searches in labels.values())


def _is_of_another_kind(value, wanted) -> bool:
    """Return whether a value is a text or a list, where a number, true or false, or a list of numbers is wanted."""
    kinds = {get_origin(kind) or kind for kind in get_args(wanted) or (wanted,)}
    return isinstance(value, str | list) and kinds <= {int, float, bool, list} and type(value) not in kinds


def _line(lines: list[str], loc: tuple[str, ...]) -> int | None:
    """Return the number of the line that sets what pydantic calls `loc`, or that begins the section `loc`."""
    section, name, current = "" if len(loc) == 1 else loc[0], loc[min(len(loc) - 1, 1)], ""
    for number, line in enumerate(lines, start=1):
        if header := HEADER.match(line):
            current = header[1]
            if not section and current == name:
                return number
        elif current == section and re.match(rf"""\s*["']?{re.escape(name)}["']?\s*[=.]""", line):
            return number
    return None


def _shown(path: Path, number: int, line: str, told: str, better: str = "") -> str:
    """Return a message of a line as it stands, what to do, and the line as it should be."""
    shown, told = line.strip()[:LONGEST_LINE], told[:1].upper() + told[1:]
    return f"{path}, line {number}:\n    {shown}\n{told}" + (f":\n    {better.strip()}" if better else ".")


def _told(problem: Mapping, loc: tuple[str, ...], lines: list[str], sections: Sections) -> tuple[str, str]:
    """Return what to do about a problem, and which setting a key was meant to be, if that can be told."""
    kind, value, message = problem["type"], problem["input"], problem["msg"]
    if kind == "value_error":
        return message.removeprefix("Value error, "), ""
    key, section, name = ".".join(loc), loc[0] if len(loc) > 1 else "", loc[-1]
    label = section == "labels" and kind == "list_type"
    as_list = f"write a list: {as_key(name)} = [{in_quotes(value)}]" if label and isinstance(value, str) else ""
    if kind == "extra_forbidden" or label:
        others = [other for other, names in sections.items() if other != section and name in names]
        others = [other for other in others if other != "study" or "" not in others]  # it repeats settings
        first = next((found[1] for found in map(HEADER.match, lines) if found), section)
        if named := next(filter(None, others), ""):
            also = f", or above [{first}]" if "" in others else ""
            return f"did you mean {name} in the section [{named}]{also}?", name
        if others:
            told = f"{name} is a setting: move it above [{first}]"
            return (f"{told}; for a label {as_list}" if as_list else told), name
    if kind == "extra_forbidden":
        near = get_close_matches(name.casefold(), sections.get(section, ()), n=1)
        if near:
            return f"this key is unknown; did you mean {near[0]}?", near[0]
        return "this key is unknown; correct its spelling, or remove it; projects/README.md lists the keys", ""
    if label and isinstance(value, dict):
        dotted = f'a dot divides names; write "{name}.{next(iter(value), "")}" = ["what to look for"]'
        return dotted if _line(lines, loc) else f'write {as_key(name)} = ["what to look for"] below [labels]', ""
    if label and (near := get_close_matches(name.casefold(), sections[""], n=1, cutoff=0.8)) and not as_list:
        return f"{HINTS[kind]}; or did you mean the setting {near[0]}?", near[0]
    message = message.replace("Input should be", "write" if kind == "literal_error" else "it must be")
    if meant := _meant(problem, key):
        return ("" if isinstance(value, str) else f"{message}; ") + f"did you mean {meant}?", ""
    return as_list or HINTS_OF_KEYS.get(key) or HINTS.get(kind) or message, ""


def _meant(problem: Mapping, key: str) -> str:
    """Return the one value that a wrong one can be meant to be, or ""."""
    value, context = problem["input"], problem.get("ctx", {})
    bound = context.get("lt", context.get("le"))
    if bound == 1 and 5 <= value < 100:  # percent; 2 may be 0.2 as well as 0.02
        return f"{value / 100:g}"
    if not isinstance(value, str):
        return ""
    bare = value.strip().lower()
    if problem["type"] == "literal_error":
        choices = {choice.lower(): choice for choice in re.findall("'([^']*)'", context["expected"])}
        near = get_close_matches(bare, choices, n=1)
        return f'"{choices[near[0]]}"' if near else ""
    if problem["type"] == "string_pattern_mismatch":
        arch = re.sub(r"[\s-]+", "_", re.sub(r"[\s-]+(?=\d)", "", bare))
        guess = re.sub(r"[\s_]+", "-", bare) if key == "filters.region" else arch
        return f'"{guess}"' if re.fullmatch(context["pattern"], guess) else ""
    return ""
