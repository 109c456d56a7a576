"""The command line: ``python -m utils.scale TASK TABLE --out FOLDER``; `commands` describes it."""

import sys

from utils.scale import scale_out

if __name__ == "__main__":
    sys.exit(scale_out())
