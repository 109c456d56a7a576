"""Pictures and probabilities of a fastai learner."""

from types import SimpleNamespace

import numpy as np
import pytest
from cleaning_pictures import make_learner

from utils.clean.learner import learner_probs
from utils.errors import FieldguideError


def test_a_learner_of_other_labels_is_refused():
    """A learner that tells other labels apart cannot judge these pictures."""
    learn = SimpleNamespace(dls=SimpleNamespace(vocab=["cat", "cow"]))
    with pytest.raises(FieldguideError, match="cat, cow"):
        learner_probs(learn, [], ["cat", "dog"])


def test_columns_follow_the_labels(tmp_path):
    """Probabilities are returned in the order of the labels asked for, whatever the learner's vocabulary is."""
    learn = make_learner(pytest.importorskip("fastai.vision.all"), tmp_path)
    paths = [tmp_path / "cat" / "cat0.jpg", tmp_path / "dog" / "dog0.jpg"]
    np.testing.assert_array_equal(
        learner_probs(learn, paths, ["dog", "cat"]), learner_probs(learn, paths, ["cat", "dog"])[:, ::-1]
    )
