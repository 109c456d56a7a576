"""
Sizes: reducing a picture well, a large one strip by strip, and squishing it as fastai does for validation.
"""

from collections.abc import Callable, Iterator

from PIL import Image

STRIP = 4_000_000  # pixels that are converted at a time: a large picture several times over would be over 1 GB


def strips(image: Image.Image, rows: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in strips from the top: where each begins, and its pixels. Each has a multiple of `rows` rows."""
    width, height = image.size
    each = max(1, STRIP // (width * rows)) * rows
    for top in range(0, height, each):
        yield top, image.crop((0, top, width, min(height, top + each)))


def by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image], factor: int = 1) -> Image.Image:
    """Return an image converted strip by strip, and reduced by a whole number, averaging squares of pixels."""
    whole = None
    for top, strip in strips(image, factor):
        part = convert(strip)
        part = part.reduce(factor) if factor > 1 else part
        if whole is None:
            whole = Image.new(part.mode, (part.width, -(-image.height // factor)))
        whole.paste(part, (0, top // factor))
    return whole


def bounded(image: Image.Image, longest_side: int | None) -> Image.Image:
    """
    Reduce an image so that its longest side is at most `longest_side` pixels; never enlarge.

    First by a whole number, averaging squares of pixels, then the rest by Lanczos: a tenth of the time at half the
    size. Measured on 25 sharp photos at ratios of 1.5 to 5, the result is 37 to 78 dB from that of Lanczos alone, and
    bilinear's 36 to 37.
    """
    if longest_side is None or max(image.size) <= longest_side:
        return image
    scale = longest_side / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)


def squish_and_crop(
    image: Image.Image, size: int, *, extra: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Squish an RGB image to (size + extra)² and cut the middle size², as fastai's ``RandomResizedCrop`` validates."""
    larger = size + extra
    edge = extra // 2
    return image.resize((larger, larger), resample).crop((edge, edge, edge + size, edge + size))
