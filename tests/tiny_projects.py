"""Project files of tiny projects, and a way to run the notebooks on them as a person does."""

import os
import subprocess
import sys

from utils.project import REPOSITORY

SETTINGS = """
name = "tiny sea ñ"
{source}
images_per_label = 12
weights = "none"
size = 32
epochs = 1
batch_size = 8
data_dir = "data"
models_dir = "models"
"""
SEA = '\n[labels]\n"penaeus monodon" = ["x"]\n"sea cucumber" = ["y"]\ntilapia = ["z"]\n'


def run(folder, *command):
    """Run a command in the repository with the project of `folder`; return the finished process."""
    environment = os.environ | {"PROJECT": str(folder / "project.toml"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900
    )
