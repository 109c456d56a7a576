"""
How large a photo is, and how it is stored: read from its header where that tells.
"""

from pathlib import Path

from utils.pictures import image_file, open_picture, orientation

QUICK = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # formats whose header and EXIF record say how a photo is shown


def stored_size(path: Path) -> tuple[int, int, int]:
    """Return width and height of a photo as it is stored, and EXIF's number for how; zeros if it cannot be read."""
    try:
        with path.open("rb") as file, image_file(file) as image:
            if image.format in QUICK:
                return *image.size, orientation(image)
    except Exception:  # Pillow's parsers raise what they like, and it does not know raw files
        pass
    try:
        return *open_picture(path, first_frame=True).size, 1
    except (ValueError, OSError):
        return 0, 0, 1
