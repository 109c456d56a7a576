"""
Errors that a person can put right.

Foundation of every stage: what happened, with which value, and what to do.
"""


class FieldguideError(ValueError):
    """
    Something a person can put right; the message says what happened, with which value, and what to do.

    In a notebook only the message is shown: a traceback would hide the one sentence that helps.
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class WriteError(FieldguideError, OSError):
    """A file or folder could not be written."""
