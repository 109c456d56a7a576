"""
Which pictures are versions of one photo, wherever they stand: for who asks about labels, not about sides.
"""

from collections.abc import Mapping

from utils.copies.groups import find_copies
from utils.dataset import Dataset


def same_photos(dataset: Dataset) -> Mapping[str, str]:
    """
    Return id → the photo that a picture is a version of; the photos of a burst are several.

    A picture that is new to 02 stands alone. So does every picture while a label has none: then 03 cannot run either.
    """
    known = dataset.where(lambda picture: picture.id in dataset.records.hashes)
    complete = set(dataset.project.labels) <= set(known.labels)
    return {id: id for id in dataset.ids} | (dict(find_copies(known).photos) if complete else {})
