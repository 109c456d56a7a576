"""
What the widgets of cleaner, masks and app share, in the browser and in the kernel.

Foundation of these. A widget's script is one text, which can import no other file of ours: so the shared part,
widgets.js, goes before each.
"""

import json
from logging import Logger
from pathlib import Path

SHARED = "widgets.js"


def front_end(script: Path) -> str:
    """Return a widget's script with the shared part before it."""
    return Path(__file__).with_name(SHARED).read_text(encoding="utf-8") + script.read_text(encoding="utf-8")


def sendable(message: dict, *, allow_nan: bool = True) -> dict:
    """Return a message whose texts all are valid: a file's name need not be. ValueError if a number may not be NaN."""
    return json.loads(json.dumps(message, ensure_ascii=False, allow_nan=allow_nan).encode("utf-8", "replace"))


def unforeseen(error: Exception, logger: Logger, who: str) -> str:
    """Return what to tell the person of an error that nobody thought of, and log it; the kernel is none the worse."""
    logger.error("%s could not answer.", who, exc_info=error)
    return f"That did not work: {type(error).__name__}: {error}"
