"""
HEIC files of drawn pictures: no library that may be installed here writes them.

The picture is stored without compression, as blocks of plain samples (PCM) of HEVC, and in the boxes of HEIF.
"""

import struct

import numpy as np
from PIL import Image

BLOCK = 16  # pixels
MOST_BLOCKS = 15  # beyond them the flag that a block is not split would need more states than `LESS_LIKELY` has
# What the arithmetic coder takes of its range for the less likely value, by state and by a quarter of the range.
LESS_LIKELY = (
    *((128, 176, 208, 240), (128, 167, 197, 227), (128, 158, 187, 216), (123, 150, 178, 205), (116, 142, 169, 195)),
    *((111, 135, 160, 185), (105, 128, 152, 175), (100, 122, 144, 166), (95, 116, 137, 158), (90, 110, 130, 150)),
    *((85, 104, 123, 142), (81, 99, 117, 135), (77, 94, 111, 128), (73, 89, 105, 122), (69, 85, 100, 116)),
)
PROFILE = "00" + "0" + "00001" + "0110" + "0" * 28 + "1001" + "0" * 44 + f"{93:08b}"  # Main, level 3.1


def whole(value: int) -> str:
    """Return a number in HEVC's code for whole numbers, as bits."""
    bits = f"{value + 1:b}"
    return "0" * (len(bits) - 1) + bits


def unit(kind: int, bits: str, more: bytes = b"") -> bytes:
    """Return a unit of an HEVC stream, with marks where its bytes would look like the start of another."""
    bits += "" if more else "1"
    bits += "0" * (-len(bits) % 8)
    data, zeros, marked = int(bits, 2).to_bytes(len(bits) // 8) + more, 0, bytearray()
    for byte in data:
        if zeros >= 2 and byte <= 3:
            marked.append(3)
            zeros = 0
        marked.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes([kind << 1, 1]) + bytes(marked)


class Coder:
    """HEVC's arithmetic coder, as far as blocks of plain samples need it."""

    def __init__(self):
        self.data, self.state = bytearray(), 0
        self.begin()

    def begin(self) -> None:
        """Start anew behind plain samples."""
        self.low, self.range, self.bits, self.first, self.waiting = 0, 510, "", True, 0

    def not_split(self) -> None:
        """Write that a block is not split."""
        self.range -= LESS_LIKELY[self.state][self.range >> 6 & 3]
        self.state += 1
        self.renew()

    def end(self, value: int) -> None:
        """Write whether something ends here: a slice, or the part before plain samples."""
        self.range -= 2
        if value:
            self.low += self.range
            self.range = 2
        self.renew()
        if value:
            self.put(self.low >> 9 & 1)
            self.bits += f"{self.low >> 7 & 3 | 1:02b}"
            self.bits += "0" * (-len(self.bits) % 8)
            self.data += int(self.bits, 2).to_bytes(len(self.bits) // 8)

    def renew(self) -> None:
        while self.range < 256:
            if self.low < 256:
                self.put(0)
            elif self.low >= 512:
                self.low -= 512
                self.put(1)
            else:
                self.low -= 256
                self.waiting += 1
            self.range, self.low = self.range << 1, self.low << 1

    def put(self, bit: int) -> None:
        self.bits += "" if self.first else str(bit)
        self.first = False
        self.bits += str(1 - bit) * self.waiting
        self.waiting = 0


def hevc(image: Image.Image) -> tuple[list[bytes], bytes]:
    """Return the parameter sets of a picture, and its pixels as one unit."""
    (width, height), planes = image.size, [np.asarray(plane) for plane in image.convert("YCbCr").split()]
    assert width % BLOCK == height % BLOCK == 0 and width * height <= MOST_BLOCKS * BLOCK**2
    video = (
        "0000" + "11" + "000000" + "000" + "1" + "1" * 16 + PROFILE + "1" + whole(0) * 3 + "000000" + whole(0) + "00"
    )
    sequence = "0000" + "000" + "1" + PROFILE + whole(0) + whole(1) + whole(width) + whole(height) + "0" + whole(0) * 2
    sequence += whole(4) + "1" + whole(0) * 3 + whole(0) + whole(1) + whole(0) + whole(2) + whole(0) * 2 + "000"
    sequence += "1" + "0111" * 2 + whole(0) + whole(1) + "1" + whole(0) + "00000"
    picture = whole(0) * 2 + "00" + "000" + "00" + whole(0) * 3 + "000" + whole(0) * 2 + "0000" + "00" + "0"
    picture += "1" + "0" + "1" + "00" + whole(0) + "00"
    coder = Coder()
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            coder.not_split()
            coder.end(1)  # plain samples follow
            coder.data += planes[0][top : top + BLOCK, left : left + BLOCK].tobytes()
            for plane in planes[1:]:
                block = plane[top : top + BLOCK, left : left + BLOCK].reshape(BLOCK // 2, 2, BLOCK // 2, 2)
                coder.data += block.mean((1, 3)).round().astype(np.uint8).tobytes()
            coder.begin()
            coder.end(int((top + BLOCK, left + BLOCK) == (height, width)))
    slice_head = "1" + "0" + whole(0) + whole(2) + whole(0) + "1"
    return [unit(32, video), unit(33, sequence), unit(34, picture)], unit(
        19, slice_head + "0" * (-len(slice_head) % 8), bytes(coder.data)
    )


def box(name: str, *parts: bytes, version: int | None = None, flags: int = 0) -> bytes:
    """Return a box of HEIF; with a version it is a full one."""
    body = (b"" if version is None else struct.pack(">I", version << 24 | flags)) + b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name.encode()) + body


def heic(image: Image.Image, *, turns: int = 0, colours: tuple[int, int, int] = (1, 13, 6), exif: bytes = b"") -> bytes:
    """
    Return a HEIC file of a picture whose sides are multiples of 16 pixels, at most 15 squares of them.

    `turns` are quarters against the clock by which it is shown; `colours` are the numbers of primaries, transfer and
    matrix; `exif` is a record that begins with II or MM.
    """
    sets, pixels = hevc(image)
    arrays = b"".join(
        struct.pack(">BHH", 0x80 | kind, 1, len(each)) + each for kind, each in zip((32, 33, 34), sets, strict=True)
    )
    configuration = (
        bytes([1, 1])
        + struct.pack(">I", 0x60000000)
        + bytes([0x90, 0, 0, 0, 0, 0, 93, 0xF0, 0, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0, 0x0F, 3])
        + arrays
    )
    properties = [
        box("hvcC", configuration),
        box("ispe", struct.pack(">II", *image.size), version=0),
        box("colr", b"nclx" + struct.pack(">HHHB", *colours, 0x80)),
        box("irot", bytes([turns])),
    ]
    of_image = bytes([len(properties), 0x81, 2, 3, 0x84])
    items = [(b"hvc1", struct.pack(">I", len(pixels)) + pixels), (b"Exif", bytes(4) + exif)][: 2 if exif else 1]
    infos = [
        box("infe", struct.pack(">HH4s", n, 0, kind), b"\0", version=2) for n, (kind, _) in enumerate(items, start=1)
    ]
    refers = [box("iref", box("cdsc", struct.pack(">HHH", 2, 1, 1)), version=0)] if exif else []

    def meta(start: int) -> bytes:
        places = b""
        for number, (_, data) in enumerate(items, start=1):
            places += struct.pack(">HHHII", number, 0, 1, start, len(data))
            start += len(data)
        return box(
            "meta",
            box("hdlr", bytes(4), b"pict", bytes(13), version=0),
            box("pitm", struct.pack(">H", 1), version=0),
            box("iinf", struct.pack(">H", len(items)), *infos, version=0),
            *refers,
            box("iprp", box("ipco", *properties), box("ipma", struct.pack(">IH", 1, 1), of_image, version=0)),
            box("iloc", bytes([0x44, 0]), struct.pack(">H", len(items)), places, version=0),
            version=0,
        )

    head = box("ftyp", b"heic", bytes(4), b"mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + box("mdat", *(data for _, data in items))
