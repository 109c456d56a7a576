"""
Asking a page as a visitor's browser would: in a browser without a window, through a server for this machine.
"""

import base64
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utils.errors import FieldguideError
from utils.page.serving import served

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
INSTALLED_AS = ("chrome", "msedge")  # where a program stands that is not on the PATH
# No sandbox: in a container none can be made, and the page is our own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)
PATIENCE = 120_000  # milliseconds until the model must be loaded
ASK = """async ([name, content]) => {
    const { ask } = await import(new URL("page.js", location.href).href);
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const answer = await ask("judge", { file: new File([bytes], name), withInput: true });
    let input = "";
    for (const byte of answer.input ?? []) input += String.fromCharCode(byte);
    const { probabilities, boxes, error, milliseconds } = answer;
    return { probabilities, boxes, error, milliseconds, input: btoa(input) };
}"""


@dataclass(frozen=True)
class PageAnswer:
    """What the page says of one picture: probabilities in the order of the labels, or boxes; or an error."""

    probabilities: tuple[float, ...] | None
    error: str | None
    input: bytes  # what the network saw: uint8 (H, W, 3)
    milliseconds: Mapping[str, float] | None  # "preparing" and "judging"
    # Of a detector: each with label (a number), probability, left, top, right, bottom (fractions).
    boxes: Sequence[Mapping[str, float]] | None = None


def ask_page(folder: Path, pictures: Mapping[str, bytes]) -> list[PageAnswer] | None:
    """
    Return what the page in a folder answers to pictures, name → bytes, in their order; None if there is no browser.

    Raises FieldguideError, with the page's own words, if it does not start.
    """
    # Playwright's simple interface refuses to work in a thread with an event loop, as a notebook's is.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_answers, folder, pictures).result()


def _answers(folder: Path, pictures: Mapping[str, bytes]) -> list[PageAnswer] | None:
    with windowless_browser() as browser, served(folder) as address:
        if browser is None:
            return None
        page = browser.new_page()
        open_page(page, address)
        return [asked(page, name, content) for name, content in pictures.items()]


def open_page(page, address: str) -> None:
    """Open the page in a Playwright page and wait for its model, or raise with what it says instead."""
    page.goto(address)
    page.wait_for_selector("body[data-ready], #alert:not(:empty)", timeout=PATIENCE, state="attached")
    if said := page.text_content("#alert"):
        raise FieldguideError(f"The page does not start: {said}")


def asked(page, name: str, content: bytes) -> PageAnswer:
    """Return the answer of an open page to a picture."""
    found = page.evaluate(ASK, [name, base64.b64encode(content).decode()])
    probabilities = found.get("probabilities")
    return PageAnswer(
        tuple(probabilities) if probabilities else None,
        found.get("error"),
        base64.b64decode(found["input"]),
        found.get("milliseconds"),
        found.get("boxes"),
    )


@contextmanager
def windowless_browser() -> Iterator:
    """Yield a browser of the Chromium family without a window; None if there is none, or no Playwright."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        yield None
        return
    with sync_playwright() as playwright:
        browser = None
        for choice in _choices():
            try:
                browser = playwright.chromium.launch(args=FLAGS, **choice)
                break
            except Error:
                continue
        try:
            yield browser
        except Error as error:  # it waited too long, or the browser ended, of too little memory say
            reason = error.message.partition("\n")[0].rstrip(".")
            raise FieldguideError(f"The browser could not try the page: {reason}. Try again.") from error
        finally:
            if browser:
                browser.close()


def _choices() -> Sequence[dict[str, str]]:
    found = [{"executable_path": path} for name in BROWSERS if (path := shutil.which(name))]
    return [*found, *({"channel": channel} for channel in INSTALLED_AS)]
