"""
The outline of a mask, drawn on its picture.
"""

import numpy as np
from PIL import Image, ImageFilter

OUTLINE = 230, 159, 0  # orange, which nearly everybody can tell from what is around it
THICK = 3  # pixels: of the square that widens an outline


def outlined(image: Image.Image, mask: np.ndarray, colour: tuple[int, int, int] = OUTLINE) -> Image.Image:
    """Return a copy of an RGB picture with the outline of a mask, bool (H, W), which may be of another size."""
    shown = image.copy()
    area = Image.fromarray(mask.astype(np.uint8) * 255).resize(shown.size, Image.Resampling.NEAREST)
    wider, narrower = area.filter(ImageFilter.MaxFilter(THICK)), area.filter(ImageFilter.MinFilter(THICK))
    edge = Image.fromarray((np.asarray(wider) != np.asarray(narrower)).astype(np.uint8) * 255)
    shown.paste(colour, mask=edge)
    return shown
