"""
What the widgets of cleaner, masks and app share in the browser.

Foundation of these. A widget's script is one text, which can import no other file of ours: so the shared part,
widgets.js, goes before each.
"""

from pathlib import Path

SHARED = "widgets.js"


def front_end(script: Path) -> str:
    """Return a widget's script with the shared part before it."""
    return Path(__file__).with_name(SHARED).read_text(encoding="utf-8") + script.read_text(encoding="utf-8")
