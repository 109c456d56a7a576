"""
A picture host on this machine that answers well, badly or with malice, as the address asks; also a proxy.

The first part of the path names the answer: a picture of `PICTURES`, or the method of that name in `Host`. As a proxy
it answers for every host by itself, and notes the whole address.
"""

import gzip
import io
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

# ---------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------

# What a viewer sees: top left, top right, bottom left, bottom right.
CORNERS = ((200, 40, 40), (40, 160, 60), (40, 70, 190), (230, 200, 60))
GREYS = (30, 90, 150, 220)
CLEAR = ((255, 255, 255), *CORNERS[1:])  # with a transparent top left
BLACK_AND_WHITE = (0, 255, 255, 0)


def quarters(corners=CORNERS, size=(160, 120)) -> Image.Image:
    """A picture of four flat quarters, grey where they are numbers."""
    values = np.array(corners, dtype=np.uint8).reshape(2, 2, -1)
    small = Image.fromarray(values.squeeze(-1) if values.shape[2] == 1 else values)
    return small.resize(size, Image.Resampling.NEAREST)


def photo(seed: int, size=(160, 120)) -> Image.Image:
    """A picture with blended colours and grain, like a photo. Another seed gives another picture."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray((smooth + random.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8))


def bytes_of(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def picture(seed: int, kind: str = "JPEG", side: int = 64) -> bytes:
    """A small picture as the bytes of a file. Another seed gives another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
    return bytes_of(Image.fromarray(pixels), kind)


def _turned(orientation: int, method: Image.Transpose) -> bytes:
    """A picture stored rotated, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return bytes_of(quarters().transpose(method), exif=exif, quality=95)


def _several(kind: str, count: int, **options) -> bytes:
    """A file of several pictures."""
    frames = [photo(100 + n) for n in range(count)]
    return bytes_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def _transparent(mode: str) -> Image.Image:
    """Four quarters, the top left one transparent."""
    image = quarters().convert("RGBA") if mode == "RGBA" else quarters(GREYS).convert("LA")
    image.paste((0,) * len(mode), (0, 0, 80, 60))
    return image


def _transparent_palette() -> bytes:
    """A palette of four colours, of which the first is declared transparent."""
    image = Image.new("P", (160, 120))
    image.putpalette([part for colour in CORNERS for part in colour])
    image.putdata([(x >= 80) + 2 * (y >= 60) for y in range(120) for x in range(160)])
    return bytes_of(image, "PNG", transparency=0)


def _swapped_profile() -> bytes:
    """A colour profile whose first channel is blue and whose third is red."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142)
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(2.2 * 256))
    text = b"text\0\0\0\0none\0\0\0\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"none\0" + bytes(78 + 5)
    tags = {b"desc": described, b"cprt": text, b"wtpt": xyz(0.9642, 1, 0.8249)}
    tags |= {b"rXYZ": xyz(*blue), b"gXYZ": xyz(*green), b"bXYZ": xyz(*red)}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    head = struct.pack(
        ">I4xI4s4s4s12x4s", 132 + 12 * len(tags) + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + body


def _swapped_channels() -> bytes:
    """Four quarters with red and blue exchanged, and the profile that exchanges them back."""
    swapped = Image.fromarray(np.asarray(quarters())[:, :, ::-1])
    return bytes_of(swapped, "PNG", icc_profile=_swapped_profile())


def _deep(kind: str) -> bytes:
    """Four quarters in 16-bit grey."""
    values = np.asarray(quarters(GREYS)).astype(np.uint16) * 257
    return bytes_of(Image.fromarray(values), kind)


def _png_header(width: int, height: int) -> bytes:
    """A PNG that promises width × height pixels and holds none."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _placeholder() -> Image.Image:
    """The placeholder that a site shows for a deleted photo: a sign on a plain ground."""
    image = Image.new("RGB", (240, 180), (238, 238, 238))
    image.paste((170, 170, 170), (90, 60, 150, 120))
    image.paste((238, 238, 238), (100, 70, 140, 110))
    return image


# Each is drawn when it is first needed, and then kept.
PICTURES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: bytes_of(quarters(), quality=95),
    "plain_png": lambda: bytes_of(quarters(), "PNG"),
    "webp": lambda: bytes_of(quarters(), "WEBP", lossless=True),
    "gif": lambda: bytes_of(quarters(), "GIF"),
    "bmp": lambda: bytes_of(quarters(), "BMP"),
    "tiff": lambda: bytes_of(quarters(), "TIFF"),
    "avif": lambda: bytes_of(quarters(), "AVIF", quality=95),
    "mpo": lambda: _several("MPO", 2),
    "progressive": lambda: bytes_of(quarters(), progressive=True, quality=95),
    "large_photo": lambda: bytes_of(quarters(size=(1600, 1200)), quality=90),
    "cmyk": lambda: bytes_of(quarters().convert("CMYK"), quality=95),
    "deep_png": lambda: _deep("PNG"),
    "deep_tiff": lambda: _deep("TIFF"),
    "grey": lambda: bytes_of(quarters(GREYS), quality=95),
    "grey_clear": lambda: bytes_of(_transparent("LA"), "PNG"),
    "palette": lambda: bytes_of(quarters().quantize(4), "PNG"),
    "palette_clear": _transparent_palette,
    "rgba": lambda: bytes_of(_transparent("RGBA"), "PNG"),
    "webp_clear": lambda: bytes_of(_transparent("RGBA"), "WEBP", lossless=True),
    "one_bit": lambda: bytes_of(quarters(BLACK_AND_WHITE).convert("1"), "PNG"),
    "profile": _swapped_channels,
    "turned": lambda: _turned(6, Image.Transpose.ROTATE_90),
    "mirrored": lambda: _turned(2, Image.Transpose.FLIP_LEFT_RIGHT),
    "moving_gif": lambda: _several("GIF", 3),
    "moving_webp": lambda: _several("WEBP", 3),
    "moving_png": lambda: _several("PNG", 3),
    "pages": lambda: _several("TIFF", 2),
    "no_tail": lambda: bytes_of(photo(1))[:-40],
    "no_end_mark": lambda: bytes_of(photo(13))[:-2],
    "half": lambda: (data := bytes_of(photo(2)))[: len(data) // 2],
    "half_png": lambda: (data := bytes_of(photo(3), "PNG"))[: len(data) // 2],
    "ends_early": lambda: (data := bytes_of(photo(4)))[: len(data) // 2] + b"\xff\xd9",
    "flat": lambda: bytes_of(Image.new("RGB", (160, 120), (200, 200, 200))),
    "banner": lambda: bytes_of(photo(5, (700, 100))),
    "widest": lambda: bytes_of(photo(6, (600, 100))),
    "side_63": lambda: bytes_of(photo(7, (100, 63))),
    "side_64": lambda: bytes_of(photo(8, (100, 64))),
    "tracker": lambda: bytes_of(Image.new("RGBA", (1, 1)), "GIF"),
    "bomb_header": lambda: _png_header(30_000, 30_000),
    "bomb_flat": lambda: bytes_of(Image.new("1", (13_000, 13_000)), "PNG"),
    "lying_header": lambda: _png_header(200, 100),
    "svg": lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "pdf": lambda: b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n",
    "json": lambda: b'{"error": "no such picture"}',
    "text": lambda: b"not a picture\n",
    "page": lambda: b"<html>not here</html>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n",
    "empty": lambda: b"",
    "near": lambda: bytes_of(photo(9, (320, 240)), quality=92),
    "near_again": lambda: bytes_of(photo(9, (320, 240)), quality=60),
    "near_small": lambda: bytes_of(photo(9, (320, 240)).resize((200, 150))),
    "near_cropped": lambda: bytes_of(photo(9, (320, 240)).crop((4, 3, 316, 237))),
    "twice": lambda: bytes_of(photo(10)),
    "both": lambda: bytes_of(photo(11)),
    "placeholder": lambda: bytes_of(_placeholder(), "PNG"),
    "shared_photo": lambda: bytes_of(photo(12)),
}
KINDS = {"svg": "image/svg+xml", "pdf": "application/pdf", "page": "text/html; charset=utf-8", "text": "text/plain"}


@cache
def bomb() -> bytes:
    """30 kB that unpack to 30 MB."""
    return gzip.compress(bytes(30_000_000))


@cache
def drawn(name: str) -> bytes:
    """The bytes of one of `PICTURES`."""
    return PICTURES[name]()


# ---------------------------------------------------------------------------------------------------------------
# The host
# ---------------------------------------------------------------------------------------------------------------


class Host(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    used = False  # earlier, over this connection

    def do_GET(self):
        self.note(self.path)
        self.connection.settimeout(10)
        self.within = urlsplit(self.path)._replace(scheme="", netloc="").geturl()  # also as a proxy
        kind = self.within.split("?")[0].split("/")[1].split("%")[0].split("+")[0]
        with suppress(OSError):
            if kind in PICTURES:
                self.give(drawn(kind), kind=KINDS.get(kind, "image/jpeg"))
            else:
                getattr(self, kind, self.gone)()

    def do_CONNECT(self):  # a tunnel; this host is also its other end
        self.note(f"CONNECT {self.path}")
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def log_message(self, *args):
        pass

    def note(self, asked: str):
        """Remember a request and its headers."""
        self.server.asked.append(asked)
        self.server.heads.append(dict(self.headers))

    def give(self, data=b"", *, status=200, kind="image/jpeg", told=None, **headers):
        """Answer in full. `told` replaces the true length in the head; "" leaves it out."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if told != "":
            self.send_header("Content-Length", str(len(data) if told is None else told))
        for name, value in headers.items():
            for each in [value] if isinstance(value, str) else value:
                self.send_header(name.replace("_", "-"), each)
        if told is not None:
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def write(self, *parts):
        """Send raw bytes, and hang up."""
        self.close_connection = True
        for part in parts:
            self.wfile.write(part)

    def often(self) -> int:
        """How often this address was asked for."""
        return self.server.asked.count(self.path)

    def drip(self, head, *, drop=b"x"):
        """Send a head, and then a drop at a time without an end."""
        self.write(head)
        while not self.server.closing.wait(0.05):
            self.wfile.write(drop)

    # -- good answers

    def photo(self):  # /photo/7: each number is another picture; the rest of the path does not matter
        self.give(picture(int(self.within.split("/")[2].split("?")[0])))

    def query(self):
        self.give(picture(int(self.within.split("=")[1])))

    def png(self):
        disposition = 'attachment; filename="../../x"'
        self.give(picture(1, "PNG"), kind="application/octet-stream", Content_Disposition=disposition)

    def told_as_page(self):
        self.give(picture(21), kind="text/html")

    def no_length(self):
        self.give(picture(22), told="")

    def hangs_up(self):  # on the second request over one connection
        if self.used:
            self.close_connection = True
        else:
            self.give(picture(59))
        self.used = True

    def old(self):
        self.write(b"HTTP/1.0 200 OK\r\n\r\n", picture(23))

    def chunked(self):
        data = picture(24)
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(0, len(data), 1000):
            part = data[n : n + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def spaced(self):  # only the address with %20 is right
        self.give(picture(2)) if self.within == "/spaced%20name.jpg" else self.gone()

    def plus(self):  # only the address with + is right
        self.give(picture(25)) if self.within == "/plus+name.jpg" else self.gone()

    def together(self):  # only when four are here at once
        with self.server.lock:
            self.server.inside += 1
            self.server.crowd = max(self.server.crowd, self.server.inside)
        with suppress(threading.BrokenBarrierError):
            self.server.four.wait(10)
        self.server.closing.wait(0.1)  # so that a fifth would show
        with self.server.lock:
            self.server.inside -= 1
        self.give(picture(71))

    # -- statuses

    def gone(self):
        self.give(status=404)

    def table(self):  # /table/NAME: bytes that a test put into server.tables, from the byte on that is asked for
        data = self.server.tables[self.within.split("/")[2]]
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        self.give(data[start:], status=206 if start else 200, kind="text/csv", ETag=f'"{len(data)}"')

    def table_that_breaks(self):  # hangs up after two thirds of what is left, three times
        data = self.server.tables[self.within.split("/")[2]]
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        rest = data[start:]
        whole = self.often() > 3
        self.give(rest if whole else rest[: 2 * len(rest) // 3], status=206 if start else 200, told=len(rest))

    def to_placeholder(self):  # as Flickr answers for a photo that was deleted
        self.give(status=302, Location="/placeholder/photo_unavailable.png")

    def status(self):  # /status/410
        self.give(status=int(self.within.split("/")[2]))

    def no_content(self):
        self.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def busy(self):  # busy twice, then well
        self.give(picture(3)) if self.often() > 2 else self.give(status=503)

    def busy_seconds(self):  # busy once, for 0 seconds
        self.give(picture(26)) if self.often() > 1 else self.give(status=429, Retry_After="0")

    def busy_seven(self):  # once busy, for seven seconds
        self.give(picture(54)) if self.often() > 1 else self.give(status=429, Retry_After="7")

    def busy_date(self):  # once busy, until a time that is past
        self.give(picture(27)) if self.often() > 1 else self.give(status=503, Retry_After=formatdate(usegmt=True))

    def busy_nonsense(self):
        self.give(picture(28)) if self.often() > 1 else self.give(status=503, Retry_After="in a while")

    def busy_long(self):
        self.give(status=429, Retry_After="3600")

    def busy_long_date(self):
        self.give(status=503, Retry_After=formatdate(time.time() + 3600, usegmt=True))

    def busy_for_ever(self):
        self.give(status=429, Retry_After="9" * 400)

    # -- bodies

    def cut(self):
        self.give(picture(4)[:500], told=5000)

    def told_short(self):
        self.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(picture(29)) - 100) + picture(29))

    def told_short_later(self):
        self.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(picture(39)) - 100))
        self.server.closing.wait(0.1)
        self.wfile.write(picture(39))

    def told_negative(self):
        self.give(picture(30), told=-5)

    def told_text(self):
        self.give(picture(31), told="many")

    def told_twice(self):
        self.give(picture(32), told=len(picture(32)), Content_length="7")

    def told_nothing(self):
        self.give(picture(56), told=" ")

    def told_huge(self):
        self.give(picture(33), told=10**15)

    def cut_chunk(self):
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + picture(34)[:1000])

    def odd_chunk(self):
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n" + picture(35))

    def odd_chunk_later(self):
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.server.closing.wait(0.1)
        self.wfile.write(b"many\r\n" + picture(35))

    def large(self):
        self.give(b"\xff" * 60_000)

    def endless(self):
        self.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not self.server.closing.is_set():
                self.wfile.write(b"\xff" * 60_000)
        finally:
            self.server.left.set()

    def endless_chunks(self):
        self.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            self.wfile.write(b"ea60\r\n" + b"\xff" * 60_000 + b"\r\n")

    def dripping(self):  # a good picture, after three seconds
        self.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for n in range(60):
            self.wfile.write(picture(6)[n : n + 1])
            self.server.closing.wait(0.05)
        self.wfile.write(picture(6)[60:])

    def dripping_header(self):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")

    def dripping_redirect(self):
        self.drip(b"HTTP/1.1 302 Found\r\nLocation: /photo/")

    def never_begins(self):
        self.drip(b"", drop=b"HTTP/1.1 102 Processing\r\n\r\n")

    def hang(self):
        self.server.closing.wait(300)

    def endless_header(self):
        self.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            self.wfile.write(b"x" * 60_000)

    def long_header(self):  # and a picture behind it
        self.give(picture(72), X_Long="x" * 100_000)

    def no_status(self):
        self.write(picture(36))

    def odd_status(self):
        self.write(b"HTTP/1.1 OK 200\r\n\r\n", picture(37))

    def reset(self):
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def reset_inside(self):
        self.give(picture(38)[:500], told=5000)
        self.reset()

    # -- compressed, although the client forbids it

    def gzip(self):
        self.give(gzip.compress(picture(41)), Content_Encoding="gzip")

    def deflate(self):
        self.give(zlib.compress(picture(42)), Content_Encoding="deflate")

    def raw_deflate(self):
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self.give(packer.compress(picture(43)) + packer.flush(), Content_Encoding="deflate")

    def gzip_bomb(self):
        self.give(bomb(), Content_Encoding="gzip")

    def gzip_cut(self):
        self.give(gzip.compress(picture(44))[:-200], Content_Encoding="gzip")

    def gzip_lie(self):
        self.give(picture(45), Content_Encoding="gzip")

    def gzip_twice(self):
        self.give(gzip.compress(gzip.compress(picture(46))), Content_Encoding="gzip, gzip")

    def brotli(self):
        self.give(b"\x0b\x05\x80" + picture(47)[20:400], Content_Encoding="br")

    def odd_encoding(self):  # a picture all the same
        self.give(picture(48), Content_Encoding="utf-8")

    def odd_type(self):
        self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/\xff\r\n\r\n", b"text")

    def no_type(self):
        self.give(picture(57), kind="")

    # -- what the site asks for

    def noai(self):
        self.give(picture(5), X_Robots_Tag="noai, noimageai")

    def noimageai(self):
        self.give(picture(51), X_Robots_Tag=["noindex", "nofollow, NoImageAI"])

    def cookie(self):  # and a redirect
        self.give(status=302, Location="/photo/60", Set_Cookie="who=me; Path=/")

    def noai_elsewhere(self):
        self.give(picture(52), X_Robots_Tag="otherbot: noindex, noai")

    def noindex(self):
        self.give(picture(53), X_Robots_Tag="noindex, unavailable_after: 25 Jun 2030 15:00:00 GMT")

    # -- elsewhere

    def redirect(self):  # /redirect?<where to>
        self.give(status=302, Location=self.within.split("?", 1)[1])

    def redirect_bytes(self):  # in Latin-1; the client must send these very bytes
        self.write(b"HTTP/1.1 302 Found\r\nLocation: /latin/sch\xf6n.jpg\r\n\r\n")

    def latin(self):
        self.give(picture(58)) if self.within == "/latin/sch%F6n.jpg" else self.gone()

    def moved(self):  # /moved/308: to /photo/61
        self.give(status=int(self.within.split("/")[2]), Location=f"/photo/61?{self.within}")

    def hops(self):  # /hops/5: a picture after five redirects
        left = int(self.within.split("/")[2])
        self.give(status=302, Location=f"{left - 1}") if left else self.give(picture(62))

    def loop(self):
        self.give(status=302, Location=self.within)

    def nowhere(self):
        self.give(status=302)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None):
        super().__init__(("127.0.0.1", 0), Host)
        self.tls = tls
        self.asked: list[str] = []
        self.heads: list[dict[str, str]] = []
        self.left = threading.Event()  # set when a client has hung up on an endless body
        self.closing = threading.Event()
        self.lock, self.four = threading.Lock(), threading.Barrier(4)
        self.inside = self.crowd = 0  # requests answered at the same time: now, and the most so far
        self.connections = 0

    def verify_request(self, request, client_address):
        self.connections += 1
        return True

    def handle_error(self, request, client_address):
        """Print nothing about clients that hang up or do not trust us."""


SERVED: list[str] = []  # "localhost:port" of each host that runs now: what a fetch is allowed to ask


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[SimpleNamespace]:
    """
    Run the host; with `tls` also at the far end of tunnels.

    Yields url = "http://localhost:port", name = "localhost:port", proxy = "http://127.0.0.1:port", asked = the
    requests, heads = their headers, server = everything else.
    """
    server = _Server(tls)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    port = server.server_address[1]
    url, proxy = f"http://localhost:{port}", f"http://127.0.0.1:{port}"
    told = {"asked": server.asked, "heads": server.heads, "name": f"localhost:{port}"}
    SERVED.append(told["name"])
    yield SimpleNamespace(url=url, proxy=proxy, port=port, server=server, **told)
    SERVED.remove(told["name"])
    server.closing.set()
    server.shutdown()
    server.server_close()


def without_proxy(monkeypatch) -> None:
    """Fetch without a proxy, whatever this machine is set to."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
