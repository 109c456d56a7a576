"""The command line: ``python -m utils.page`` fetches what the page runs on, and says where it is."""

import argparse
import sys

from utils.errors import FieldguideError
from utils.page import fetch_runtime, runtime_folder

argparse.ArgumentParser(
    prog="python -m utils.page", description="Fetch what the page runs on, once, and say where it is."
).parse_args()
try:
    fetch_runtime()
    print(f"What the page runs on is in {runtime_folder()}")
except FieldguideError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
