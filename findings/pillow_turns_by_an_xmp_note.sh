#!/usr/bin/env bash
# Pillow: ImageOps.exif_transpose turns a picture by its XMP note too, where its EXIF record says nothing of a turn.
#
# getexif() reads "tiff:Orientation" from the XMP note of a JPEG, PNG or WebP and hands it out as if EXIF had said so. No
# browser heeds the note. Editors turn the pixels, set or drop the EXIF tag, and leave the note as it was. Such a photo is
# upright on every web page and lies on its side for whoever trains with exif_transpose, or loads it so for prediction.
#
# Seen with Pillow 12.3.0 (a picture of 40x20 pixels without EXIF, whose note says 6):
#   JPEG: getexif says 6, exif_transpose gives 20x40
#   PNG: getexif says 6, exif_transpose gives 20x40
#   WEBP: getexif says 6, exif_transpose gives 20x40
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
import io

from PIL import Image, ImageOps, PngImagePlugin

NOTE = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
text = PngImagePlugin.PngInfo()
text.add_itxt("XML:com.adobe.xmp", NOTE)
for name, options in {"JPEG": {"xmp": NOTE.encode()}, "PNG": {"pnginfo": text}, "WEBP": {"xmp": NOTE.encode()}}.items():
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, name, **options)
    with Image.open(file) as image:
        image.load()
        assert "exif" not in image.info
        said, turned = image.getexif().get(0x0112), ImageOps.exif_transpose(image).size
    print(f"{name}: getexif says {said}, exif_transpose gives {turned[0]}x{turned[1]}")
    assert (said, turned) == (6, (20, 40)), "the behaviour has changed"
PY
