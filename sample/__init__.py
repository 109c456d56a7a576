"""
The drawn sample: pictures of three sea creatures that need no network, and the truth about them.

`drawing` paints one picture, `pictures` gives it a name and sometimes a fault, `truth` remembers which and counts what
the stages found, `filing` saves them. utils knows nothing of it.
"""

from sample.filing import save_outlines, save_sample
from sample.pictures import BROKEN, FAULTS, LABELS, SamplePicture, gathered_sample, sample_pictures
from sample.truth import (
    accuracy_against_truth,
    faults_caught,
    near_duplicates_together,
    read_truth,
    write_truth,
    wrong_labels_found,
)

__all__ = [
    "BROKEN",
    "FAULTS",
    "LABELS",
    "SamplePicture",
    "accuracy_against_truth",
    "faults_caught",
    "gathered_sample",
    "near_duplicates_together",
    "read_truth",
    "sample_pictures",
    "save_outlines",
    "save_sample",
    "write_truth",
    "wrong_labels_found",
]
