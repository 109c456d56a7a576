#!/usr/bin/env bash
# scikit-learn: permutation_test_score with groups gives p = 1 where every group is one picture.
#
# Whoever passes groups to keep near-duplicates in one fold also changes the null hypothesis: labels are then shuffled within
# groups only. Where each group holds one picture nothing is shuffled at all, every "permuted" score equals the real one,
# and p is exactly 1, however good the model is. With few small groups p is far too large.
#
# Seen with scikit-learn 1.9.1, numpy 2.4.6 (60 points of two classes, one feature that separates them fully):
#   without groups: score 1.00, p 0.0099; each point a group of its own: score 1.00, p 1.0000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from sklearn.model_selection import GroupKFold, KFold, permutation_test_score
from sklearn.tree import DecisionTreeClassifier

labels = np.arange(60) % 2
feature = labels[:, None] + np.random.default_rng(0).normal(0, 0.05, (60, 1))
tree = DecisionTreeClassifier(random_state=0)
plain, _, plain_p = permutation_test_score(tree, feature, labels, cv=KFold(3, shuffle=True, random_state=0), random_state=0)
grouped, _, grouped_p = permutation_test_score(tree, feature, labels, groups=np.arange(60), cv=GroupKFold(3), random_state=0)
print(f"without groups: score {plain:.2f}, p {plain_p:.4f}; each point a group of its own: score {grouped:.2f}, p {grouped_p:.4f}")
assert plain_p < 0.05 and grouped_p == 1.0, "the behaviour has changed"
PY
