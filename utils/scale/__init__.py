"""
Many pictures on many machines: `python -m utils.scale` verifies, describes or predicts what a table names, with Ray.

One machine serves a million pictures without it. Needs what stands in requirements-cluster.txt; nothing else here does.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pkgutil import resolve_name

__all__ = ["scale_out"]


def scale_out(arguments: Sequence[str] | None = None) -> int:
    """Run the command line that `commands` describes, and return its exit code; 1 where Ray is not installed."""
    if missing := [name for name in ("ray", "pyarrow") if not find_spec(name)]:
        print(
            f"Not installed: {' and '.join(missing)}, which utils.scale spreads its work with. Install it: "
            f"{sys.executable} -m pip install -r requirements-cluster.txt -c constraints.txt",
            file=sys.stderr,
        )
        return 1
    return resolve_name("utils.scale.commands:run_job")(arguments)
