"""
A static page that runs model.onnx in the visitor's browser: its third-party runtime, and a server for this machine.

Foundation of stage 07, which puts a model into the page.
"""

from utils.page.asking import PageAnswer, ask_page
from utils.page.runtime import NOTICE, RUNTIME, VERSIONS, Pinned, cached_runtime, fetch_runtime, runtime_folder
from utils.page.serving import has_screen, served
from utils.page.space import space_readme

__all__ = [
    "NOTICE",
    "RUNTIME",
    "VERSIONS",
    "PageAnswer",
    "Pinned",
    "ask_page",
    "cached_runtime",
    "fetch_runtime",
    "has_screen",
    "runtime_folder",
    "served",
    "space_readme",
]
