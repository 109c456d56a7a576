"""
What the app's page tells of a photo in which a detector looks for things: the boxes, and the photo to draw them on.
"""

from utils.inference import Detector
from utils.pictures import OWN_BITS, jpeg_bytes, open_picture

SHOWN_SIDE, SHOWN_QUALITY = 640, 85  # pixels of the longest side, and of JPEG


def found_in(detector: Detector, content: bytes) -> tuple[dict, list[bytes]]:
    """
    Return what the page tells of one photo, and a JPEG of it; there is none where the photo cannot be read.

    A box is its label, its probability, then left, top, right, bottom as fractions of the photo.
    """
    (found,) = detector.predict([content])
    boxes = [[box.label, box.probability, *box.corners] for box in found.boxes]
    message = {"tell": "result", "boxes": boxes, "error": found.error, "alert": ""}
    if found.error:
        return message, []
    shown = open_picture(content, longest_side=SHOWN_SIDE, bits=OWN_BITS)
    return message, [jpeg_bytes(shown, quality=SHOWN_QUALITY)]
