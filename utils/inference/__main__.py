"""The command line: ``python -m utils.inference MODEL IMAGE...``; `commands` describes it."""

import sys

from .commands import main

if sys.stdout:  # None where the caller closed it
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
sys.exit(main())
