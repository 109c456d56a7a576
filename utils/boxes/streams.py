"""
Large tables, read as a stream of whole lines from a file or an address; nothing of them is put on disk.

A connection that breaks is taken up again where it broke.
"""

import os
import re
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

import certifi
from tqdm.auto import tqdm

from utils.addresses import host_and_ports, host_name, is_local_name
from utils.errors import FieldguideError

PART_READ = 2**21  # bytes read at a time
LONGEST_ROW = 2**20  # bytes; no table has one as long, only a file without line breaks
COMPRESSED = b"\x1f\x8b", b"PK\x03\x04"  # how gzip and ZIP begin
SILENCE = 60.0  # seconds after which a connection counts as broken
TRIES_IN_A_ROW = 5  # without a byte gained
FIRST_WAIT = 1.0  # seconds before the second try; twice that before the third, and so on


def is_address(place: str) -> bool:
    """Return whether a place is an address rather than a file."""
    return "://" in place


def line_blocks(place: str, *, allowed_hosts: Iterable[str] = ()) -> Iterator[bytes]:
    """
    Yield a file, or what an address holds, in blocks of whole lines; only the last one may lack its line break.

    Addresses are https, or of `allowed_hosts`. Raises FieldguideError if it cannot be read to its end.
    """
    parts = _web_parts(place, list(allowed_hosts)) if is_address(place) else _file_parts(Path(place))
    rest, begun = b"", False
    for part in parts:
        if not begun and part.startswith(COMPRESSED):
            raise FieldguideError(f"{place} is compressed. Unpack it, and name the CSV file in [open_images].")
        begun = True
        cut = part.rfind(b"\n") + 1
        if cut:
            yield rest + part[:cut]
            rest = part[cut:]
        else:
            rest += part
        if len(rest) > LONGEST_ROW:
            raise FieldguideError(
                f"{place} has a line of more than {LONGEST_ROW // 2**20} MB: it is not a table of text."
            )
    if rest:
        yield rest


def _file_parts(path: Path) -> Iterator[bytes]:
    """Yield the parts of a file."""
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file, _progress(path.name, size) as bar:
            while part := file.read(PART_READ):
                bar.update(len(part))
                yield part
    except OSError as error:
        raise FieldguideError(f"{path} cannot be read: {error.strerror or error}. Correct [open_images].") from None


def _web_parts(url: str, allowed: list[str]) -> Iterator[bytes]:
    """Yield the parts of what an address holds, over as many connections as it takes."""
    opener = build_opener(HTTPSHandler(context=_trusted_context()))
    done, failures, version, bar = 0, 0, None, None
    while True:
        try:
            with closing(_answer(opener, url, done, allowed)) as answer:
                version = _same_version(url, answer, version)
                skip = done if answer.status != 206 else 0  # a host that cannot go on in the middle begins anew
                length = answer.headers.get("Content-Length", "")
                whole = (int(length) if length.isdecimal() else 0) + done - skip
                bar = bar or _progress(url.rpartition("/")[2], whole)
                while part := answer.read(PART_READ):
                    part, skip = part[skip:], max(0, skip - len(part))
                    if part:
                        done, failures = done + len(part), 0
                        bar.update(len(part))
                        yield part
                if done >= whole:
                    bar.close()
                    return
                error: Exception = OSError("the connection ended early")
        except HTTPError as refused:
            if refused.code < 500:
                raise FieldguideError(f"{url} answers {refused.code}. Correct that address in [open_images].") from None
            error = refused
        except (OSError, HTTPException) as broken:
            error = broken
        except FieldguideError:
            raise
        except ValueError as wrong:  # of urllib, for a port that is no number and the like
            raise FieldguideError(f"{url[:200]} is not a valid address: {wrong}. Correct [open_images].") from None
        failures += 1
        if failures == TRIES_IN_A_ROW:
            told = f"{url} cannot be read: {getattr(error, 'reason', error)}"
            raise FieldguideError(f"{told}. Check the connection and run this cell again; or name a file.") from None
        time.sleep(FIRST_WAIT * 2 ** (failures - 1))


def _answer(opener, url: str, start: int, allowed: list[str]) -> HTTPResponse:
    """Return the answer of an address, from a byte on."""
    _require_public(url, allowed)
    headers = {"User-Agent": "Fieldguide/1.0", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    answer = opener.open(Request(url, headers=headers), timeout=SILENCE)
    try:
        _require_public(answer.geturl(), allowed)  # where redirects led
    except FieldguideError:
        answer.close()
        raise
    return answer


def _trusted_context() -> ssl.SSLContext:
    """Return the authorities that this machine is set to trust, else those that browsers trust."""
    own = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context(cafile=None if own else certifi.where())


def _require_public(url: str, allowed: Iterable[str]) -> None:
    """Refuse an address that is neither https nor of an allowed host, or is private."""
    parts = urlsplit(url)
    host, port = host_name(parts.hostname or ""), parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    if parts.scheme in ("http", "https") and any(
        host == name and port in ports for name, ports in map(host_and_ports, allowed)
    ):
        return
    if parts.scheme != "https" or not host or is_local_name(host):
        raise FieldguideError(
            f"{url[:200]} is not an https address of a public host. Name one, or a file, or add its host to "
            "allowed_hosts."
        )


def _same_version(url: str, answer: HTTPResponse, version: str | None) -> str:
    """Return which version of a table an answer is of, and refuse to join two."""
    told = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if version not in (None, told):
        raise FieldguideError(f"{url} changed while it was read. Run this cell again.")
    return told


def _progress(name: str, size: int):
    """Return a bar of bytes."""
    return tqdm(total=size or None, desc=name[:40], unit="B", unit_scale=True)


def lines_with(blocks: Iterable[bytes], words: Iterable[str], *, between: bytes = b"") -> Iterator[bytes]:
    """
    Yield the lines that hold one of some words, without their ends; `between` stands on both sides of a word.

    A regular expression runs over whole blocks: of a table of 2 GB only the lines that matter are ever made.
    """
    found = re.compile(
        between + b"(?:" + b"|".join(re.escape(word.encode()) for word in sorted(words)) + b")" + between
    )
    for block in blocks:
        at = 0
        while match := found.search(block, at):
            start = block.rfind(b"\n", 0, match.start()) + 1
            end = block.find(b"\n", match.end() - len(between))
            end = len(block) if end < 0 else end
            yield block[start:end].removesuffix(b"\r")
            at = end
