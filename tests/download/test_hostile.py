"""
A hostile web, kind by kind: what each answer ends in, in sources.csv after stage 01 and in the tables after stage 02.

Every kind is asked for once, in one project: hosts of this machine directly, all others through a proxy that answers
in their place.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image, features
from standin_host import (
    BLACK_AND_WHITE,
    CLEAR,
    CORNERS,
    GREYS,
    PICTURES,
    drawn,
    picture,
    serving,
    without_proxy,
)

from utils.download.collect import download_images
from utils.project import Project
from utils.tables import PICTURES_COLUMNS, REJECTED_COLUMNS, SOURCES_COLUMNS, read_rows
from utils.verify.judging import verify_images


@dataclass(frozen=True)
class Kind:
    """One row of the table: how a picture is asked for, and what becomes of it."""

    url: str  # below {host}, unless it is a whole address
    status: str = "kept"
    reason: str = ""  # in sources.csv: how it begins
    then: str = "kept"  # by stage 02, or how the reason begins for which it is rejected; "" where no file was kept
    thumbnail: str = ""
    label: str = "cat"
    title: str = ""


def aside(url, then, **rest):
    """A kind whose bytes are kept, and rejected by stage 02."""
    return Kind(url, then=then, **rest)


def failed(url, reason, **rest):
    """A kind that gives no picture."""
    return Kind(url, "failed", reason, "", **rest)


def refused(url, reason, **rest):
    """A kind that our own rules forbid."""
    return Kind(url, "refused", reason, "", **rest)


MOVES, SHORT = "animated or many pages", "truncated or broken inside"
OFF, BUSY = "broken off", "HTTP 503"
NOT_WEB, NO_TRAINING = "not http or https", "the site asks not to be used for training (noai)"

TABLE = {
    # Formats
    "JPEG": Kind("/jpeg"),
    "progressive JPEG": Kind("/progressive"),
    "PNG": Kind("/plain_png"),
    "WebP": Kind("/webp"),
    "GIF": Kind("/gif"),
    "BMP": Kind("/bmp"),
    "TIFF": Kind("/tiff"),
    "AVIF": Kind("/avif"),
    "MPO of a camera": Kind("/mpo"),
    "1600 × 1200 pixels": Kind("/large_photo"),
    # Colours
    "CMYK": Kind("/cmyk"),
    "16-bit PNG": Kind("/deep_png"),
    "16-bit TIFF": Kind("/deep_tiff"),
    "grey": Kind("/grey"),
    "grey, partly transparent": Kind("/grey_clear"),
    "palette": Kind("/palette"),
    "palette, partly transparent": Kind("/palette_clear"),
    "RGBA": Kind("/rgba"),
    "WebP, partly transparent": Kind("/webp_clear"),
    "one bit": Kind("/one_bit"),
    "a profile that swaps red and blue": Kind("/profile"),
    "turned by EXIF": Kind("/turned"),
    "mirrored by EXIF": Kind("/mirrored"),
    # Files that are no good photo
    "animated GIF": aside("/moving_gif", MOVES),
    "animated WebP": aside("/moving_webp", MOVES),
    "animated PNG": aside("/moving_png", MOVES),
    "TIFF of two pages": aside("/pages", MOVES),
    "without its last bytes": aside("/no_tail", SHORT),
    "without the end marker alone": Kind("/no_end_mark"),
    "half a JPEG": aside("/half", SHORT),
    "half a PNG": aside("/half_png", SHORT),
    "half a JPEG, closed with an end marker": aside("/ends_early", "truncated"),
    "a header with nothing behind": aside("/lying_header", SHORT),
    "one flat colour": aside("/flat", "one flat colour"),
    "longer than six to one": aside("/banner", "extreme aspect: 700×100"),
    "six to one": Kind("/widest"),
    "63 pixels": aside("/side_63", "too small: 100×63"),
    "64 pixels": Kind("/side_64"),
    "tracker of one pixel": aside("/tracker", "too small: 1×1"),
    "bomb of 900 million pixels": failed("/bomb_header", "too many pixels"),
    "bomb of 169 million pixels": failed("/bomb_flat", "too many pixels: 13000×13000"),
    "SVG": failed("/svg", "not a picture: image/svg+xml"),
    "PDF": failed("/pdf", "not a picture: application/pdf"),
    "PostScript": failed("/postscript", "not a picture: image/jpeg"),
    "page": failed("/page", "not a picture: text/html"),
    "text": failed("/text", "not a picture: text/plain"),
    "JSON named .jpg": failed("/json/photo.jpg", "not a picture: image/jpeg"),
    "no bytes": failed("/empty", "not a picture: empty"),
    # What is there more than once
    "a photo": Kind("/twice"),
    "the same photo elsewhere": Kind("/twice?again", "copy", "exact copy of", ""),
    "a photo of two labels": aside("/both", "the same picture came under two labels: also 'dog'"),
    "a photo of two labels, again": aside("/both", "the same picture came under two labels: also 'cat'", label="dog"),
    "a photo of the other label": Kind("/photo/80", label="dog"),
    "near-duplicate, first": Kind("/near"),
    "near-duplicate, compressed more": Kind("/near_again"),
    "near-duplicate, smaller": Kind("/near_small"),
    "near-duplicate, cropped": Kind("/near_cropped"),
    "placeholder": aside("http://www.alpha.example/placeholder", "a placeholder: 3 unrelated sites serve it"),
    "placeholder, second site": Kind("http://beta.example/placeholder", "copy", "exact copy of", ""),
    "placeholder, third site": Kind("http://img.gamma.example/placeholder", "copy", "exact copy of", ""),
    "a photo that went round": Kind("http://www.alpha.example/shared_photo"),
    "a photo that went round, second site": Kind("http://beta.example/shared_photo", "copy", "exact copy of", ""),
    "a photo that went round, third site": Kind("http://img.gamma.example/shared_photo", "copy", "exact copy of", ""),
    # Addresses
    "query": Kind("/query?item=81"),
    "another query": Kind("/query?item=82"),
    "spaces": Kind("/photo/83/a photo of a cat.jpg"),
    "+ that was %20": Kind("/spaced+name.jpg"),
    "%20 that was +": Kind("/plus%20name.jpg"),
    "a stray %": Kind("/photo/84/100%.jpg"),
    "other percent forms": Kind("/photo/85/a%2Fb%3F%26.jpg?c=%2B"),
    "letters beyond ASCII": Kind("/photo/86/schön-写真.jpg"),
    "3,000 characters": Kind(f"/photo/87/{'x' * 3000}.jpg"),
    "host beyond ASCII": Kind("http://bücher.example/photo/88"),
    "host in capitals": Kind("HTTP://WWW.Example.ORG/photo/89"),
    "another port": Kind("http://pictures.example:8080/photo/90"),
    "a port of nothing": Kind("http://pictures.example:/photo/91"),
    "a name and password": Kind("http://me:secret@pictures.example/photo/92"),
    "port too large": failed("http://pictures.example:65536/photo/1", "not a valid address (Port out of range"),
    "port 0": refused("http://pictures.example:0/photo/1", "an address without a valid host and port"),
    "port of letters": failed("http://pictures.example:http/photo/1", "not a valid address"),
    "an address without an end": refused(f"http://pictures.example/{'x' * 200_000}", "an address too long to ask for"),
    "no host": refused("http:///photo/1", "an address without a valid host and port"),
    "a space in the host": failed("http://pictures example/photo/1", "not a valid address"),
    "no address": refused("no address", f"no: address, {NOT_WEB}"),
    "file:": refused("file:///etc/passwd", f"file: address, {NOT_WEB}"),
    "ftp:": refused("ftp://pictures.example/photo", f"ftp: address, {NOT_WEB}"),
    "data:": refused("data:image/png;base64,iVBORw0KGgo=", f"data: address, {NOT_WEB}"),
    "javascript:": refused("javascript:alert(1)", f"javascript: address, {NOT_WEB}"),
    # Private ones, in every spelling
    "loopback": refused("http://127.0.0.1/photo/1", "private address 127.0.0.1"),
    "loopback, short": refused("http://127.1/photo/1", "private address 127.1"),
    "loopback, hexadecimal": refused("http://0x7f000001/photo/1", "private address 0x7f000001"),
    "loopback, one number": refused("http://2130706433/photo/1", "private address 2130706433"),
    "loopback, octal": refused("http://0177.0.0.1/photo/1", "private address 0177.0.0.1"),
    "loopback, short octal": refused("http://0177.1/photo/1", "private address 0177.1"),
    "loopback, with a dot behind": refused("http://127.0.0.1./photo/1", "private address 127.0.0.1."),
    "loopback behind a name": refused("http://example.org@127.0.0.1/photo/1", "private address 127.0.0.1"),
    "loopback in wide digits": refused("http://１２７.０.０.１/photo/1", "private address 127.0.0.1"),
    "loopback with wide dots": refused("http://127。0。0。1/photo/1", "private address 127.0.0.1"),
    "loopback in percents": refused("http://127%2e0%2e0%2e1/photo/1", "an address without a valid host"),
    "loopback, IPv6": refused("http://[::1]/photo/1", "private address ::1"),
    "loopback within IPv6": refused("http://[::ffff:127.0.0.1]/photo/1", "private address ::ffff:7f00:1"),
    "loopback in the last bytes": refused("http://[::127.0.0.1]/photo/1", "private address ::7f00:1"),
    "loopback through NAT64": refused("http://[64:ff9b::7f00:1]/photo/1", "private address 64:ff9b::7f00:1"),
    "loopback through 6to4": refused("http://[2002:7f00:1::]/photo/1", "private address 2002:7f00:1::"),
    "no address at all": refused("http://0.0.0.0/photo/1", "private address 0.0.0.0"),
    "a local net": refused("http://192.168.0.1/photo/1", "private address 192.168.0.1"),
    "another local net": refused("http://10.1.2.3/photo/1", "private address 10.1.2.3"),
    "a local net, IPv6": refused("http://[fd12::1]/photo/1", "private address fd12::1"),
    "a provider's net": refused("http://100.64.0.1/photo/1", "private address 100.64.0.1"),
    "link-local": refused("http://[fe80::1]/photo/1", "private address fe80::1"),
    "multicast": refused("http://224.0.0.1/photo/1", "private address 224.0.0.1"),
    "metadata": refused("http://169.254.169.254/latest/meta-data/", "private address 169.254.169.254"),
    "metadata, by name": refused("http://metadata.google.internal/", "private address metadata.google.internal"),
    "metadata at a public address": refused("http://168.63.129.16/metadata", "private address 168.63.129.16"),
    "a name at home": refused("http://NAS.local/photo/1", "private address nas.local"),
    "a name without a dot": refused("http://printer/photo/1", "private address printer"),
    # Statuses
    "204": failed("/no_content", "HTTP 204"),
    "304": failed("/status/304", "HTTP 304"),
    "400": failed("/status/400", "HTTP 400"),
    "401": failed("/status/401", "HTTP 401"),
    "403": failed("/status/403", "HTTP 403"),
    "404": failed("/status/404", "HTTP 404"),
    "410": failed("/status/410", "HTTP 410"),
    "451": failed("/status/451", "HTTP 451"),
    "408": failed("/status/408", "HTTP 408"),
    "425": failed("/status/425", "HTTP 425"),
    "429": failed("/status/429", "HTTP 429"),
    "500": failed("/status/500", "HTTP 500"),
    "503": failed("/status/503", BUSY),
    "busy, then well": Kind("/busy"),
    "busy for no seconds": Kind("/busy_seconds"),
    "busy until a date that is past": Kind("/busy_date"),
    "busy for nobody knows how long": Kind("/busy_nonsense"),
    "busy for an hour": failed("/busy_long", "HTTP 429"),
    "busy until a date in an hour": failed("/busy_long_date", BUSY),
    "busy for ever": failed("/busy_for_ever", "HTTP 429"),
    # Headers
    "a file name that leads out": Kind("/png"),
    "a title without an end": Kind("/photo/101", title="x" * 200_000),
    "a picture told to be a page": Kind("/told_as_page"),
    "a JPEG named .png": Kind("/photo/93/x.png"),
    "noai": refused("/noai", NO_TRAINING),
    "noimageai in a second header": refused("/noimageai", NO_TRAINING),
    "noai for another bot": Kind("/noai_elsewhere"),
    "noindex alone": Kind("/noindex"),
    "no status line": failed("/no_status", OFF),
    "odd status line": failed("/odd_status", OFF),
    "endless header": failed("/endless_header", OFF),
    "header of 100 kB": failed("/long_header", OFF),
    "a type of no letters": failed("/odd_type", "not a picture: text/?"),
    "a type left empty": Kind("/no_type"),
    "a length left empty": failed("/told_nothing", OFF),
    # Bodies
    "no length": Kind("/no_length"),
    "HTTP/1.0": Kind("/old"),
    "chunked": Kind("/chunked"),
    "shorter than told": failed("/cut", OFF),
    "longer than told": failed("/told_short", OFF),
    "longer than told, the rest later": aside("/told_short_later", SHORT),
    "negative length": failed("/told_negative", OFF),
    "length in words": failed("/told_text", OFF),
    "two lengths": failed("/told_twice", OFF),
    "a length beyond measure": failed("/told_huge", "larger than 1 MB"),
    "cut inside a chunk": failed("/cut_chunk", OFF),
    "odd chunk": failed("/odd_chunk", OFF),
    "odd chunk, later": failed("/odd_chunk_later", OFF),
    "endless": failed("/endless", "larger than 1 MB"),
    "endless chunks": failed("/endless_chunks", "larger than 1 MB"),
    "reset at once": failed("/reset", OFF),
    "reset inside": failed("/reset_inside", OFF),
    "dripping body": failed("/dripping", "not whole after 2 s"),
    "dripping header": failed("/dripping_header", "not whole after 2 s"),
    "dripping redirect": failed("/dripping_redirect", "not whole after 2 s"),
    "never begins": failed("/never_begins", "not whole after 2 s"),
    "silent": failed("/hang", "not whole after 2 s"),
    # Compressed, though asked not to be
    "gzip": Kind("/gzip"),
    "deflate": Kind("/deflate"),
    "deflate without a header": Kind("/raw_deflate"),
    "gzip bomb": failed("/gzip_bomb", "larger than 1 MB"),
    "gzip, cut": failed("/gzip_cut", "a compressed body that cannot be read"),
    "gzip by name alone": failed("/gzip_lie", "a compressed body that cannot be read"),
    "gzip in gzip": failed("/gzip_twice", "not a picture: image/jpeg, compressed as gzip, gzip"),
    "brotli": failed("/brotli", "not a picture: image/jpeg, compressed as br"),
    "a compression of no such name": Kind("/odd_encoding"),
    # Redirects
    "redirect, 301": Kind("/moved/301"),
    "redirect, 303": Kind("/moved/303", "copy", "exact copy of", ""),
    "redirect, 307": Kind("/moved/307", "copy", "exact copy of", ""),
    "redirect, 308": Kind("/moved/308", "copy", "exact copy of", ""),
    "redirect, relative": Kind("/redirect?../photo/94"),
    "redirect to another host": Kind("/redirect?http://pictures.example/photo/95"),
    "redirect to bytes": Kind("/redirect_bytes"),
    "redirect without a scheme": Kind("/redirect?//pictures.example/photo/96"),
    "five redirects": Kind("/hops/5"),
    "six redirects": failed("/hops/6", "more than 5 redirects"),
    "redirect in a circle": failed("/loop", "more than 5 redirects"),
    "redirect without a place": failed("/nowhere", "HTTP 302"),
    "redirect to no address": failed("/redirect?http://[::1", "redirects to no valid address"),
    "redirect to loopback": refused("/redirect?http://127.0.0.1/photo/1", "private address 127.0.0.1"),
    "redirect to a local net": refused("/redirect?http://10.0.0.1/photo/1", "private address 10.0.0.1"),
    "redirect to IPv6": refused("/redirect?http://[::1]/photo/1", "private address ::1"),
    "redirect to metadata": refused("/redirect?http://169.254.169.254/", "private address 169.254.169.254"),
    "stranger's redirect to loopback": refused(
        "http://pictures.example/redirect?http://0x7f000001/photo/1", "private address 0x7f000001"
    ),
    "redirect to file:": refused("/redirect?file:///etc/passwd", f"file: address, {NOT_WEB}"),
    "redirect to ftp:": refused("/redirect?ftp://pictures.example/x", f"ftp: address, {NOT_WEB}"),
    "redirect to data:": refused("/redirect?data:image/png;base64,AA", f"data: address, {NOT_WEB}"),
    # Thumbnails
    "good thumbnail": Kind("/gone/1", "thumbnail", "HTTP 404", thumbnail="/photo/97"),
    "thumbnail of a page": Kind(
        "/page?1", "thumbnail", "not a picture: text/html", thumbnail="http://pictures.example/photo/98"
    ),
    "bad thumbnail": failed("/gone/2", "HTTP 404", thumbnail="/page?2"),
    "no thumbnail there": failed("/gone/3", "HTTP 404", thumbnail="/gone/4"),
    "private thumbnail": failed("/gone/5", "HTTP 404", thumbnail="http://10.0.0.1/photo/1"),
    "thumbnail of a private one": refused("http://10.0.0.2/photo", "private address 10.0.0.2", thumbnail="/photo/99"),
    "thumbnail of one not for training": refused("/noai?1", NO_TRAINING, thumbnail="/photo/99"),
    "thumbnail not needed": Kind("/photo/100", thumbnail="/photo/99"),
}
if not features.check("avif"):
    del TABLE["AVIF"]

ASKED = {  # how often
    **dict.fromkeys(["JPEG", "page", "304", "401", "403", "404", "410", "451", "busy for an hour"], 1),
    **dict.fromkeys(["busy until a date in an hour", "busy for ever", "noai", "bad thumbnail", "gzip, cut"], 1),
    **dict.fromkeys(["busy for no seconds", "busy until a date that is past", "busy for nobody knows how long"], 2),
    **dict.fromkeys(["408", "425", "429", "500", "503", "busy, then well", "shorter than told"], 3),
    **dict.fromkeys(["private thumbnail", "thumbnail not needed", "gzip bomb", "tracker of one pixel"], 1),
}
LOOKS = {  # the four corners of the training copy
    **dict.fromkeys(["JPEG", "progressive JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "CMYK"], CORNERS),
    **dict.fromkeys(["palette", "turned by EXIF", "mirrored by EXIF", "1600 × 1200 pixels"], CORNERS),
    "a profile that swaps red and blue": CORNERS,
    **dict.fromkeys(["RGBA", "palette, partly transparent", "WebP, partly transparent"], CLEAR),
    **dict.fromkeys(["16-bit PNG", "16-bit TIFF", "grey"], GREYS),
    "grey, partly transparent": (255, *GREYS[1:]),
    "one bit": BLACK_AND_WHITE,
}


def whole(url: str, host) -> str:
    """A whole address for what the table says."""
    return host.url + url if url.startswith("/") else url


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Ask for every kind once, then verify; what the tables say of each, how often it was asked for, the project."""
    for name in PICTURES:
        drawn(name)  # now, so that no deadline runs meanwhile
    folder = tmp_path_factory.mktemp("hostile")
    labels = {"cat": ["cat"], "dog": ["dog"]}
    folders = {"data_dir": str(folder / "data"), "models_dir": str(folder / "models")}
    project = Project.model_validate({"name": "hostile", "labels": labels, **folders})
    with pytest.MonkeyPatch.context() as patch, serving() as host:
        without_proxy(patch)
        patch.setenv("http_proxy", host.proxy)
        patch.setenv("no_proxy", "localhost")
        patch.setattr("utils.download.fetch.PROBE", f"{host.url}/page")
        patch.setattr("utils.download.fetch.PAUSE", 0.01)
        for label in labels:
            asked = [kind for kind in TABLE.values() if kind.label == label]
            results = [
                SimpleNamespace(
                    url=whole(kind.url, host),
                    thumbnail=kind.thumbnail and whole(kind.thumbnail, host),
                    title=kind.title,
                )
                for kind in asked
            ]
            rules = {"allowed_hosts": [host.name], "deadline": 2.0, "largest": 1_000_000, "per_host": 8}
            download_images(results, project.raw / label, **rules)
        asked = list(host.asked)
    verify_images(project)

    sources = read_rows(project.table("sources"), SOURCES_COLUMNS)
    names = {(kind.label, whole(kind.url, host)[:500]): name for name, kind in TABLE.items()}
    in_order = sorted(names, key=lambda asked: asked[0])
    found = [(row["label"], row["url"][:500]) for row in sources]
    assert found == in_order, "a row for each address, as it was given; of one without an end, its beginning"
    rows = {names[asked]: row for asked, row in zip(found, sources, strict=True)}
    verdicts = {(row["id"], row["label"]): "kept" for row in read_rows(project.table("pictures"), PICTURES_COLUMNS)}
    rejected = read_rows(project.table("rejected"), REJECTED_COLUMNS)
    verdicts |= {(row["id"], row["label"]): row["reason"] for row in rejected}
    return SimpleNamespace(project=project, rows=rows, verdicts=verdicts, asked=asked)


def beginning(found: str, expected: str) -> str:
    """What was found, cut to what is expected where it begins so."""
    return expected if expected and found.startswith(expected) else found


def test_every_kind_ends_as_the_table_says(run):
    """Stage 01: each address has one row, with its status and reason."""
    found = {name: (row["status"], beginning(row["reason"], TABLE[name].reason)) for name, row in run.rows.items()}
    assert found == {name: (kind.status, kind.reason) for name, kind in TABLE.items()}


def test_every_picture_is_judged_as_the_table_says(run):
    """Stage 02: each file is in the training set, or rejected for its reason; what is no file is in neither table."""
    own = {name: row for name, row in run.rows.items() if row["status"] in ("kept", "thumbnail")}
    found = {name: run.verdicts.get((row["id"], row["label"]), "no row") for name, row in own.items()}
    expected = {name: kind.then for name, kind in TABLE.items() if kind.then}
    assert {name: beginning(then, expected.get(name, "")) for name, then in found.items()} == expected
    assert len(run.verdicts) == len(own)


def test_only_what_may_change_is_asked_again(run):
    """Busy and broken answers are asked for thrice, no answer twice where it is final or where the wait is too long."""
    found = {name: run.asked.count(TABLE[name].url) for name in (*ASKED, "reset at once")}
    # Each of the tries over a kept connection looks as if that had ended, and is made once more, uncounted.
    assert found.pop("reset at once") in range(3, 7)
    assert found == ASKED


def test_what_is_refused_is_never_asked(run):
    """The proxy hears of no private host, nor this machine of the thumbnail of a refused picture."""
    heard = {urlsplit(path).netloc for path in run.asked if not path.startswith("/")}
    hosts = ["www.alpha.example", "beta.example", "img.gamma.example", "www.example.org", "xn--bcher-kva.example"]
    assert heard == {*hosts, "pictures.example", "pictures.example:8080"}
    assert "/photo/99" not in run.asked


def test_bytes_are_as_they_came(run):
    """Files hold what the host sent, uncompressed; no name leads out of the folder, no extension lies."""

    def file(name):
        (path,) = (run.project.raw / "cat").glob(f"{run.rows[name]['id']}.*")
        return path.suffix, path.read_bytes()

    found = {name: file(name) for name in ("gzip", "deflate", "deflate without a header", "a file name that leads out")}
    assert found == {
        "gzip": (".jpg", picture(41)),
        "deflate": (".jpg", picture(42)),
        "deflate without a header": (".jpg", picture(43)),
        "a file name that leads out": (".png", picture(1, "PNG")),
    }


@pytest.mark.parametrize("name", [name for name in LOOKS if name in TABLE])
def test_a_training_copy_is_honest(run, name):
    """Upright, RGB, at most 512 pixels, in sRGB, 16 bits scaled, transparency on white: as a viewer shows it."""
    path = run.project.images / "cat" / f"{run.rows[name]['id']}.jpg"
    with Image.open(path) as image:
        assert (image.format, image.mode, image.info.get("icc_profile")) == ("JPEG", "RGB", None)
        assert image.size == ((512, 384) if name == "1600 × 1200 pixels" else (160, 120))
        assert image.getexif().get(0x0112, 1) == 1
        width, height = image.size
        corners = [image.getpixel((int(width * x), int(height * y))) for y in (0.25, 0.75) for x in (0.25, 0.75)]
    expected = [corner if isinstance(corner, tuple) else (corner,) * 3 for corner in LOOKS[name]]
    assert np.abs(np.array(corners) - np.array(expected)).max() <= 8
