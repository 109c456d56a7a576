"""
What cleanlab's defaults say of labels and probabilities, in a process of an environment of its own.

    python -m venv PEER && PEER/bin/pip install -r benchmarks/peers/cleanlab.txt

`--peer PEER/bin/python` then names it. This file is both sides: the one that asks, and the one that runs there.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LEFT_OUT = "cleanlab is left out: name the Python of an environment with benchmarks/peers/cleanlab.txt by --peer."


def cleanlab_says(peer: str, cases: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return scores (N,), worst lowest, and issues (N,) for each case of labels (N,) and probabilities (N, K)."""
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "asked.npz", Path(folder) / "told.npz"
        arrays = {f"{name}{n}": array for n, case in enumerate(cases) for name, array in zip("lp", case, strict=True)}
        np.savez(asked, **arrays)
        run = subprocess.run([peer, __file__, asked, told], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{run.stdout}{run.stderr}\n{peer} stopped with status {run.returncode}: nothing was measured.")
        with np.load(told) as answers:
            return [(answers[f"s{n}"], answers[f"i{n}"]) for n in range(len(cases))]


def answer(asked: str, told: str) -> None:
    """Write what cleanlab says of all cases."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = {}
    with np.load(asked) as cases:
        for n in range(len(cases.files) // 2):
            labels, probs = cases[f"l{n}"], cases[f"p{n}"]
            found[f"s{n}"] = get_label_quality_scores(labels, probs)
            found[f"i{n}"] = find_label_issues(labels, probs, n_jobs=1)  # so few need no processes
    np.savez(told, **found)


if __name__ == "__main__":
    answer(*sys.argv[1:])
