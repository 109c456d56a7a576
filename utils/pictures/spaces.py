"""
Colours that a file names by numbers instead of a profile, as sRGB: wide gamut, other gammas, HDR. So browsers do.

The numbers are those of ITU-T H.273 in AVIF and HEIC (nclx) and PNG (cICP); a PNG may also note a gamma and primaries.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

# Red, green, blue and white as x and y, by H.273's numbers. Those of television (5 to 7) are shown like sRGB's.
D65 = (0.3127, 0.329)
SRGB = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, *D65)
PRIMARIES = {1: SRGB, 2: SRGB, 5: SRGB, 6: SRGB, 7: SRGB, 9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, *D65)}
PRIMARIES |= {11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351), 12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *D65)}
PQ, HLG, AS_SRGB = 16, 18, 13
LIKE_SRGB = (1, 2, 6, 13, 14, 15)  # transfers that browsers show like sRGB's
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
SMALLEST_TRIANGLE = 0.01  # twice the area of primaries that are points of their own
GAMMA_RANGE = (0.1, 10)  # beyond it a PNG's gamma is a mistake
USUAL_GAMMA = (0.4, 0.5)  # what a PNG notes that means sRGB: 1/2.2, rounded in many ways
WHITE_NITS, PEAK_NITS = 203, 1000  # of HDR: what white paper has (BT.2408), and HLG's screen
HDR, UNKNOWN_COLOURS = "hdr", "unknown-colours"  # remarks: highlights are cut off; the numbers are not known here
LEVELS = 4096  # steps of light that sRGB's levels are looked up by


@dataclass(frozen=True)
class Space:
    """A space of colours: its primaries, and how its levels become light: one of H.273's numbers, or a gamma."""

    primaries: tuple[float, ...] = SRGB
    transfer: int = AS_SRGB
    gamma: float | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of it gets lost, each in a word."""
        known = self.gamma or self.transfer in (*LIKE_SRGB, *GAMMAS, PQ, HLG)
        return (HDR,) * (self.transfer in (PQ, HLG)) + (UNKNOWN_COLOURS,) * (not known or not self.primaries)


def space_of(image: Image.Image, data: bytes) -> Space | None:
    """Return the space that a file names by numbers; None where that is sRGB, or a profile or nothing says it."""
    profiled = "icc_profile" in image.info
    if data[4:8] == b"ftyp":
        at = data.find(b"colrnclx")
        space = _by_numbers(*struct.unpack_from(">HH", data, at + 8)) if at >= 0 and not profiled else Space()
    elif data[:4] == b"\x89PNG":
        at = data.find(b"\0\0\0\x04cICP", 0, data.find(b"IDAT"))
        gamma = None if profiled or "srgb" in image.info else image.info.get("gamma")
        if at >= 0:
            space = _by_numbers(data[at + 8], data[at + 9])
        elif gamma:
            usual = USUAL_GAMMA[0] <= gamma <= USUAL_GAMMA[1]
            noted = image.info.get("chromaticity", (*D65, *SRGB[:6]))
            white, *colours = zip(*[iter(noted if len(noted) == 8 else [0] * 8)] * 2, strict=True)
            sane = GAMMA_RANGE[0] <= gamma <= GAMMA_RANGE[1] and _spans_colours(white, colours)
            space = Space(tuple(sum((*colours, white), ())), gamma=None if usual else 1 / gamma) if sane else Space()
        else:
            space = Space()
    else:
        space = Space()
    near = len(space.primaries) == 8 and np.allclose(space.primaries, SRGB, atol=0.002)
    return None if near and space.gamma is None and space.transfer in LIKE_SRGB else space


def _spans_colours(white: tuple[float, float], colours: Sequence[tuple[float, float]]) -> bool:
    """Return whether the white lies within the triangle of three primaries; else no colours can be made of them."""
    (ax, ay), (bx, by), (cx, cy) = colours
    if abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) < SMALLEST_TRIANGLE or min(ay, by, cy, white[1]) <= 0:
        return False
    return bool(np.linalg.solve([[ax, bx, cx], [ay, by, cy], [1, 1, 1]], [*white, 1]).min() > 0)


def _by_numbers(primaries: int, transfer: int) -> Space:
    """Return a space by two of H.273's numbers."""
    return Space(PRIMARIES.get(primaries, ()), transfer, GAMMAS.get(transfer))


@lru_cache(maxsize=8)
def from_space(space: Space) -> Callable[[Image.Image], Image.Image]:
    """Return what converts parts of an RGB image from a space to sRGB; what is brighter than white is cut off."""
    light = _light(space)  # (256,)
    matrix = np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(space.primaries) if space.primaries else np.eye(3)
    steps = np.linspace(0, 1, LEVELS)
    levels = np.where(steps <= 0.0031308, 12.92 * steps, 1.055 * steps ** (1 / 2.4) - 0.055)
    levels = (levels * 255).round().astype(np.uint8)

    def converted(part: Image.Image) -> Image.Image:
        linear = light[np.asarray(part)]  # (H, W, 3)
        if space.transfer == HLG:  # whose screen makes bright scenes brighter
            linear = linear * (linear @ _to_xyz(space.primaries or SRGB)[1].astype(np.float32))[..., None] ** 0.2
            linear *= PEAK_NITS / WHITE_NITS
        linear = (linear @ matrix.T.astype(np.float32)).clip(0, 1)
        return Image.fromarray(levels[(linear * (LEVELS - 1)).round().astype(np.uint16)])

    return converted


def _light(space: Space) -> np.ndarray:
    """Return how much light each of 256 levels is, 1 being white, float32 (256,)."""
    level = np.arange(256) / 255
    if space.gamma:
        light = level**space.gamma
    elif space.transfer == PQ:  # SMPTE ST 2084
        root = level ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        light *= 10_000 / WHITE_NITS
    elif space.transfer == HLG:  # ARIB STD-B67
        light = np.where(level <= 0.5, level**2 / 3, (np.exp((level - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    else:
        light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _to_xyz(primaries: tuple[float, ...]) -> np.ndarray:
    """Return the matrix (3, 3) from light in three primaries to XYZ; their white becomes that of sRGB."""
    x, y = np.array(primaries).reshape(4, 2).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])  # (3, 4)
    matrix = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    white = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    return matrix * (white / xyz[:, 3])[:, None]
