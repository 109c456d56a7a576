"""
Stage 07, the known photos: gallery.safetensors, for models of single animals.

Holds of training photos what model.onnx makes of them and a small JPEG, so that the nearest known photo can be shown
beside each answer. The same photos and model give the same bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from utils.dataset import Dataset, seeded_rank
from utils.export.quantised import PHOTOS_AT_ONCE, network_pixels
from utils.inference import GALLERY_FORM, THUMBNAIL_SIDE, Classifier, unit_rows
from utils.pictures import jpeg_bytes, open_picture
from utils.storage import file_hash, write_whole
from utils.words import counted

MOST_OF_EACH = 10  # photos of an individual
MOST_IN_ALL = 5000  # photos: about 50 MB
GALLERY_QUALITY = 80  # of JPEG


def save_gallery(dataset: Dataset, classifier: Classifier, path: Path, models: Sequence[Path]) -> dict:
    """
    Write the known photos of the training set, with the features that `classifier`, a model.onnx, makes of them.

    Of each individual there are as many as the seed draws, at most 10. `models` are the files that may use them. The
    dict for the card holds ``photos``, of how many (``of``), and at most how many of an individual (``each``).
    """
    known, features, jpegs = gallery_photos(dataset), [], []
    for start in range(0, len(known), PHOTOS_AT_ONCE):
        paths = known.paths[start : start + PHOTOS_AT_ONCE]
        features.append(classifier.network.features(np.stack([network_pixels(classifier, photo) for photo in paths])))
        small = [open_picture(photo, longest_side=THUMBNAIL_SIDE) for photo in paths]
        jpegs += [jpeg_bytes(each, quality=GALLERY_QUALITY) for each in small]
    facts = {
        "form": GALLERY_FORM,
        "models": [file_hash(model) for model in models],
        "labels": known.labels,
        "ids": known.ids,
        "ends": np.cumsum([len(jpeg) for jpeg in jpegs]).tolist(),
    }
    tensors = {
        "features": unit_rows(np.concatenate(features)).astype(np.float16),  # all that is compared
        "thumbnails": np.frombuffer(b"".join(jpegs), np.uint8),
    }
    write_whole(path, safetensors.numpy.save(tensors, {"gallery": json.dumps(facts, ensure_ascii=False)}))
    each = max(known.labels.count(label) for label in set(known.labels))
    return {"photos": len(known), "of": len(dataset.on("train")), "each": each}


def gallery_photos(dataset: Dataset) -> Dataset:
    """Return the training photos that are shown: of each label the first by a seeded hash of the id."""
    train, seed = dataset.on("train"), dataset.project.seed
    most = max(1, min(MOST_OF_EACH, MOST_IN_ALL // len(dataset.project.labels)))
    taken: dict[str, list[str]] = {}
    for id in sorted(train.ids, key=lambda id: seeded_rank(seed, id)):
        taken.setdefault(train[id].label, []).append(id)
    kept = {id for ids in taken.values() for id in ids[:most]}
    return train.where(lambda picture: picture.id in kept)


def gallery_sentence(facts: dict | None) -> str:
    """
    Return in a sentence what gallery.safetensors shows, and to whom; "" if there is none.

    >>> gallery_sentence({"photos": 80, "of": 106, "each": 10})
    'gallery.safetensors holds small copies of 80 of its 106 training photos, at most 10 of each individual. Whoever \
gets the file, the app or the page sees them: ask whose photos they are before you hand it on.'
    """
    if not facts:
        return ""
    some = "all" if facts["photos"] == facts["of"] else f"{facts['photos']:,} of its"
    return (
        f"gallery.safetensors holds small copies of {some} {counted(facts['of'], 'training photo')}"
        f", at most {facts['each']} of each individual. Whoever gets the file, the app or the page sees them: ask "
        "whose photos they are before you hand it on."
    )
