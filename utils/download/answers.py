"""
What a host's answer says and holds: how long to wait, whether training is allowed, which picture came.

Part of `fetch`. Uses no network and writes nothing.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from PIL import Image

from utils.pictures import MAX_PIXELS, header

NO_TRAINING = {"noai", "noimageai"}
VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # rules with a colon


@dataclass(frozen=True)
class Fetched:
    """What became of one picture."""

    data: bytes = b""
    status: str = "kept"  # or "thumbnail" (in place of the picture), "failed", "refused" (by our own rules)
    reason: str = ""  # why it is not the picture
    unreached: bool = False  # nothing answered: the network may be to blame, not the host
    passing: bool = False  # it failed for the moment: it may be there at another time
    extension: str = ""  # without a dot; from the content, not from the name
    width: int = 0  # pixels, as for `height`
    height: int = 0


class NoPicture(Exception):
    """An address gave no picture; the message is the reason."""

    def __init__(
        self, reason: str, *, status="failed", again=False, late=False, missing=False, offline=False, wait=0.0
    ):
        super().__init__(reason[:200])  # hosts write into it
        self.status = status  # "failed", or "refused" by our own rules
        self.again = again  # worth another try
        self.passing = again or late or offline  # worth asking for at another time
        self.missing = missing  # a 404: the address may have been spoilt on its way here
        self.offline = offline  # nothing answered: the network may be to blame, not the host
        self.wait = wait  # seconds that the host asked for


def seconds_asked(retry_after: str, date: str = "") -> float:
    """
    Return how many seconds a Retry-After header asks to wait, as a number or until a date; 0 if it makes no sense.

    A date is compared with the host's own clock, if the header `date` tells it: this machine's may be wrong.

    >>> seconds_asked("120"), seconds_asked("Thu, 01 Jan 1970 00:00:00 GMT"), seconds_asked("soon"), seconds_asked("-5")
    (120.0, 0.0, 0.0, 0.0)
    >>> seconds_asked("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT")
    30.0
    """
    if (seconds := retry_after.strip()).isdecimal():
        return float(seconds)
    try:
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(retry_after) - now).total_seconds())
    except Exception:  # the parser raises many kinds of errors on hostile text
        return 0.0


def forbids_training(robots: Iterable[str]) -> bool:
    """
    Return whether X-Robots-Tag headers ask everyone, or us by name, not to train on the picture.

    A rule that follows the name of a bot is for that bot alone, up to the end of the header or the next name.

    >>> forbids_training(["noindex, noai"]), forbids_training(["otherbot: noindex, noai"])
    (True, False)
    >>> forbids_training(["otherbot: noai, *: noimageai"]), forbids_training(["nofollow", "Fieldguide: noai"])
    (True, True)
    """
    for rules in robots:
        bot = "*"
        for rule in rules.lower().split(","):
            name, colon, rest = (part.strip() for part in rule.partition(":"))
            if colon and name not in VALUED and re.fullmatch(r"\*|[a-z][\w.+-]*", name):
                bot, rule = name, rest
            if bot in ("*", "fieldguide") and NO_TRAINING & set(re.split(r"[\s;]+", rule)):
                return True
    return False


def inflated(data: bytes, largest: int) -> bytes:
    """Return a gzip or deflate body uncompressed. Stop at `largest` bytes, lest a small body fill the memory."""
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # with either header; some hosts send deflate without any
        inflater = zlib.decompressobj(bits)
        try:
            whole = inflater.decompress(data, largest + 1)
        except zlib.error:
            continue
        if len(whole) > largest:
            raise too_large(largest)
        if inflater.eof:
            return whole
    raise NoPicture("a compressed body that cannot be read")


def too_large(largest: int) -> NoPicture:
    """Return the error for a body of more than `largest` bytes."""
    return NoPicture(f"larger than {largest / 1_000_000:g} MB")


def picture_in(data: bytes, content_type: str) -> Fetched:
    """Return the picture whose header `data` begins with; refuse too many pixels. Nothing is decoded."""
    try:
        extension, width, height = header(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise NoPicture(f"too many pixels: far more than {MAX_PIXELS // 1_000_000} million") from error
    except Exception as error:  # Pillow's parsers raise many kinds of errors on hostile bytes
        raise NoPicture(f"not a picture: {content_type if data else 'empty'}") from error
    if width * height > MAX_PIXELS:
        raise NoPicture(f"too many pixels: {width}×{height}, more than {MAX_PIXELS // 1_000_000} million")
    return Fetched(data, extension=extension, width=width, height=height)
