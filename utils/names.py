"""
Names that every system takes for a folder: those of projects and labels become one.

Foundation of every stage.
"""

import unicodedata

LONGEST_NAME = 100  # bytes of UTF-8: file systems allow 255, and ids and suffixes are added
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories that a reader can't see or a file system can't hold
JOINERS = "\u200c\u200d"  # hidden too, but Persian words and many emoji are spelt with them


def unsafe_name(name: str) -> str | None:
    """
    Return why `name` is no folder name that every system takes, or None if it is one.

    >>> unsafe_name("морской огурец")
    >>> unsafe_name("..")
    'it begins or ends with a dot or a space'
    """
    if not name:
        return "it is empty"
    if name != name.strip(" .") or name != name.strip():
        return "it begins or ends with a dot or a space"
    if bad := sorted(
        {c for c in name if c in '<>:"/\\|?*' or (unicodedata.category(c) in HIDDEN and c not in JOINERS)}
    ):
        return f"it holds {', '.join(map(repr, bad))}"
    if name.split(".")[0].strip().casefold() in RESERVED:
        return "Windows keeps that name for itself"
    if len(name.encode("utf-8")) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return None


def safe_name(name: str) -> str:
    """Return `name` in the one Unicode form used on disk (NFC), or raise ValueError saying why it is not safe."""
    name = unicodedata.normalize("NFC", name)
    if why := unsafe_name(name):
        raise ValueError(f"{name!r} cannot be a folder name: {why}. Choose another name")
    return name


def as_label(name: str) -> str:
    """
    Return the label nearest to a folder's name: the name itself where every system takes it.

    >>> as_label("Penaeus sp."), as_label("ants "), as_label('Q. robur "pedunculata"'), as_label("bees")
    ('Penaeus sp', 'ants', "Q. robur 'pedunculata'", 'bees')
    """
    name = unicodedata.normalize("NFC", name)
    if not unsafe_name(name):
        return name
    name = name.encode("utf-8", "replace").decode("utf-8")  # bytes that are not UTF-8 come as lone surrogates
    plain = [
        "'" if c == '"' else "-" if c in "<>:/\\|?*" or (unicodedata.category(c) in HIDDEN and c not in JOINERS) else c
        for c in name
    ]
    nearest = " ".join("".join(plain).split()).strip(" .")
    return name if unsafe_name(nearest) else nearest
