"""Writes a benchmark's untrained network as 07 writes a trained one."""

import json
from pathlib import Path


def write_onnx(learn, path: Path, size: int) -> None:
    """Write model.onnx of a learner that was trained at `size` pixels, with what 07 says of a model."""
    from utils.export import save_onnx
    from utils.pictures import LONGEST_SIDE

    recipe = {"longest_side": LONGEST_SIDE, "size": size, "extra": size // 7}
    metadata = {"labels": list(learn.dls.vocab), "recipe": recipe, "name": "benchmark", "threshold": 0.5}
    save_onnx(learn, path, metadata={key: json.dumps(value) for key, value in metadata.items()})
