"""Where Ray is not installed, pytest looks for no examples here: the modules could not be imported."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("ray") and find_spec("pyarrow") else ["*.py"]
