"""
Which pictures imagededup's defaults call duplicates, in a process of an environment of its own.

    python -m venv PEER && PEER/bin/pip install -r benchmarks/peers/imagededup.txt -c constraints.txt

`--peer PEER/bin/python` then names it. Its CNN gets the packaged network and our pixels. This file is both sides: the
one that asks, and the one that runs there.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

METHODS = ("pHash", "CNN")
LEFT_OUT = "imagededup is left out: name the Python of an environment with benchmarks/peers/imagededup.txt by --peer."


def imagededup_says(peer: str, pictures: dict[str, Path]) -> dict[str, dict[str, set[str]]]:
    """Return method → id → ids of its duplicates, for id → file."""
    with tempfile.TemporaryDirectory() as folder:
        for id, path in pictures.items():
            (Path(folder) / f"{id}.jpg").symlink_to(path)
        run = subprocess.run([peer, __file__, folder], capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{run.stdout}{run.stderr}\n{peer} stopped with status {run.returncode}: nothing was measured.")
        told = json.loads(run.stdout.splitlines()[-1])
    return {
        method: {Path(name).stem: {Path(other).stem for other in others} for name, others in found.items()}
        for method, found in told.items()
    }


def answer(folder: str) -> None:
    """Print what imagededup says of the pictures in a folder, as JSON."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import numpy as np
    import torch
    from imagededup.methods import CNN, PHash
    from imagededup.utils import CustomModel

    from utils.backbone import RESAMPLE, packaged_body
    from utils.pictures import margins, squish_and_crop
    from utils.project import FEATURE_SIZE
    from utils.seeing import folded, network_features

    def pixels(image) -> torch.Tensor:
        extra = margins(FEATURE_SIZE)
        return torch.from_numpy(np.array(squish_and_crop(image, FEATURE_SIZE, extra=extra, resample=RESAMPLE)))

    class Eyes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = folded(packaged_body())

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return network_features(self.network, batch)

    by_network = CNN(verbose=False, model_config=CustomModel("packaged", Eyes(), pixels))
    found = {
        "pHash": PHash(verbose=False).find_duplicates(image_dir=folder, num_enc_workers=0, num_dist_workers=0),
        "CNN": by_network.find_duplicates(image_dir=folder, num_enc_workers=0, num_sim_workers=0),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    answer(sys.argv[1])
