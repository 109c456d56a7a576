"""
Why a picture cannot be read: the errors, what a foreign file is, and a decoder's own errors turned into reasons.
"""

import codecs
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import UnidentifiedImageError

UNKNOWN, BROKEN = "not a picture in a format known here", "truncated or broken inside"
OF_THE_SYSTEM = {errno.EIO, errno.ENOENT, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ENOTCONN}
# What arrives under a picture's name, by how its first kilobyte begins or what it holds.
FOREIGN = (
    (rb"\A\s*(<\?xml[^>]*>\s*)?(<!doctype svg[^>]*>\s*)?<svg", "but a drawing of shapes (SVG)"),
    (rb"<!doctype html|<html|<head|<body|<script", "but a web page (HTML)"),
    (rb"<svg", "but a drawing of shapes (SVG)"),
    (rb"\A%pdf-", "but a document (PDF)"),
    (rb"\A....ftyp|\A\x1a\x45\xdf\xa3", "but a video"),
    (rb"\Apk\x03\x04|\A\x1f\x8b|\Arar!|\A7z\xbc\xaf", "but an archive (ZIP or the like)"),
)


class PictureError(ValueError):
    """A picture that cannot be read as one; the message is the reason, such as "truncated"."""


class UnreadableError(PictureError):
    """A file that the system did not hand over, such as one without permission: it says nothing of the picture."""


@contextmanager
def decoding(reason: str, head: bytes = b"") -> Iterator[None]:
    """Turn whatever Pillow raises on odd bytes into a `PictureError`: its parsers raise nearly every kind."""
    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(foreign(head) or reason) from error
    except MemoryError as error:  # also what a lying header asks for; one file must not stop thousands
        raise PictureError("needs more memory than there is") from error
    except PermissionError as error:
        raise UnreadableError("this account may not read the file") from error
    except OSError as error:
        if error.errno in OF_THE_SYSTEM:
            raise UnreadableError(f"the file cannot be read ({error.strerror})") from error
        raise PictureError(f"{reason} ({error})") from error  # Pillow's own, or a seek to where a lying header led
    except Exception as error:
        raise PictureError(f"{reason} ({error})") from error


def foreign(head: bytes) -> str:
    """Return what kind of file it is if it is plainly not a picture, from its first bytes; "" where it could be one."""
    for pattern, kind in FOREIGN:
        if re.search(pattern, head, re.IGNORECASE | re.DOTALL):
            return f"not a picture {kind}"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a letter may be cut at the end
    except UnicodeDecodeError:
        return ""
    return "not a picture but text" if text and "".join(text.split()).isprintable() else ""


def shortened(text: str, *, most: int = 100) -> str:
    """Return a text that somebody gave, for a message: if it is longer, its beginning and its end."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"
