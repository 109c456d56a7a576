"""
The command line: write a model's static page and show it in a browser of this machine.

    python -m utils.export [--no-browser] [--port N]

Takes the project that PROJECT names, as exported by stage 07. Fetches what the page runs on, once per machine. Exit
codes: 0 after Ctrl-C; 1 if there is no page to show.
"""

import argparse
import os
import sys
import time
import webbrowser
from collections.abc import Sequence

from utils.errors import FieldguideError
from utils.export.page import write_page
from utils.page import fetch_runtime, has_screen, served
from utils.project import Project


def show_page(arguments: Sequence[str] | None = None) -> int:
    """Write the page, serve it until Ctrl-C, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.export", description="Write a model's page and show it.")
    parser.add_argument("--no-browser", action="store_true", help="open no browser, only print the address")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="serve on this port, by default on any free one"
    )
    options = parser.parse_args(arguments)
    try:
        project = Project.load()
        if project.page == "local":
            fetch_runtime()
        folder = write_page(project).folder
        with served(folder, isolated=True, port=options.port) as address:
            print(f"The page is in {folder}. Its README.md says how to publish it.")
            print(f"On this machine it is at {address} until you press Ctrl-C.", flush=True)
            if not options.no_browser and has_screen(os.environ):
                webbrowser.open(address)
            while True:
                time.sleep(1)
    except FieldguideError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()  # below the ^C that the terminal shows
        return 0


if __name__ == "__main__":
    sys.exit(show_page())
