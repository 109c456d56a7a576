"""What a person does on the page, in their words: the notebook, and the grid found by roles and names alone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from browser.servers import Server

# What JupyterLab, Notebook and Voila report about themselves: modules and files that they look for in vain.
THEIRS = re.compile(r"RUNTIME-012|reading 'schema'|'filebrowser:open-path' not registered|ResizeObserver loop")
expect.set_options(timeout=15_000)  # milliseconds, for slow machines: a test that passes does not wait
LATE = "new Promise((_, refuse) => setTimeout(() => refuse(new Error('the front-end hangs')), 30000))"
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
IDLE = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.status === 'idle';
}"""

FAILURES = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
    .flatMap(cell => cell.outputs ?? []).filter(output => output.output_type === 'error')
    .map(output => `${output.ename}: ${output.evalue}`)"""


def watched(page: Page) -> list[str]:
    """Return a list that takes up each error of the page that is not the front-end's own."""
    errors: list[str] = []

    def note(text: str) -> None:
        if not THEIRS.search(text):
            errors.append(text)

    def said(message: ConsoleMessage) -> None:
        fetched = message.location["url"].startswith("http") and "Failed to load resource" in message.text
        if message.type == "error" and not fetched:
            note(message.text)

    page.on("console", said)
    page.on("pageerror", lambda error: note(f"{error} {error.stack or ''}"))
    return errors


class Grid:
    """A cleaner on a page, the first or another one."""

    def __init__(self, page: Page, number: int = 0):
        self.page = page
        self.root = page.get_by_role("region", name="Picture cleaner", exact=True).nth(number)
        self.list = self.root.get_by_role("grid", name="Pictures", exact=True)
        self.cards = self.list.get_by_role("gridcell")
        self.status = self.root.get_by_role("status")
        self.alert = self.root.get_by_role("alert")

    def card(self, key: str) -> Locator:
        return self.list.locator(f'[data-key="{key}"]')

    def shown(self) -> list[str]:
        """Return the keys of the cards on the page, in their order."""
        return self.cards.evaluate_all("cards => cards.map(card => card.dataset.key)")

    def choices(self) -> dict[str, str]:
        """Return key → choice of the cards on the page that have one."""
        pairs = self.cards.evaluate_all("cards => cards.map(card => [card.dataset.key, card.dataset.choice])")
        return {key: choice for key, choice in pairs if choice}

    def button(self, name: str) -> Locator:
        """Return a button of the toolbar, or of its menu "More", which opens."""
        if name.startswith(("Take back", "Select all")):
            self.open_menu("More")
        return (
            self.root.get_by_role("button", name=name, exact=True)
            .locator("visible=true")
            .and_(self.root.locator("button:not([role=grid] *)"))
        )

    def open_menu(self, name: str) -> None:
        """Open one of the two menus of the toolbar, as a keyboard does: the other one closes."""
        menu = self.root.locator("details.fg-menu").filter(has_text=name)
        if menu.get_attribute("open") is None:
            menu.locator("summary").focus()
            menu.locator("summary").press("Enter")

    def choose(self, menu: str, option: str) -> None:
        """Choose in one of the menus; the count behind an option's name need not be said."""
        if menu != "List":
            self.open_menu("Filter")
        select = self.root.get_by_role("combobox", name=menu, exact=True)
        wanted = select.locator("option").filter(has_text=re.compile(f"^{re.escape(option)}")).first
        wanted.wait_for(state="attached")
        select.select_option(label=wanted.text_content())
        self.settle()

    def settle(self) -> None:
        """Wait until the page that was asked for is there."""
        expect(self.list).to_have_attribute("aria-busy", "false")

    def show_all(self) -> None:
        """Show every picture, sorted by file name, from the first page."""
        self.choose("List", "All pictures")
        self.choose("Sort", "File name")
        self.expect_status("41 pictures")

    def focus(self, key: str) -> Locator:
        card = self.card(key)
        card.focus()
        return card

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def expect_status(self, text: str) -> None:
        expect(self.status.filter(has_text=text)).to_be_visible()

    def expect_choice(self, key: str, choice: str) -> None:
        expect(self.card(key)).to_have_attribute("data-choice", choice)

    def expect_cards(self, *keys: str) -> None:
        """Wait until exactly these cards are on the page, in this order."""
        expect(self.cards).to_have_count(len(keys))
        for card, key in zip(self.cards.all(), keys, strict=True):
            expect(card).to_have_attribute("data-key", key)


class Notebook:
    """A notebook open in JupyterLab or, with `at` = "notebooks", in Notebook 7."""

    def __init__(self, page: Page, server: Server, name: str, *, at: str = "lab/tree"):
        self.page, self.path = page, server.folder / name
        query = "?reset" if at == "lab/tree" else ""
        page.goto(f"{server.url}/{at}/{name}{query}")
        self.wait_until_idle()
        self.sources = [source for _, source in self.cells()]

    def wait_until_idle(self) -> None:
        self.page.wait_for_function(IDLE)

    def command(self, id: str) -> None:
        """Have the front-end carry out a command of its menus, and wait until it has."""
        self._do(f"window.jupyterapp.commands.execute({id!r})")

    def _do(self, promise: str):
        """Wait for what a promise of the front-end gives; a front-end that hangs fails the test, not the whole run."""
        return self.page.evaluate(f"() => Promise.race([({promise}).then(value => value ?? null), {LATE}])")

    def run_all(self) -> Grid:
        """Run all cells, none of which may fail; return the cleaner that they show."""
        self.command("notebook:run-all-cells")
        self.wait_until_idle()
        assert self.page.evaluate(FAILURES) == []
        return Grid(self.page)

    def restart(self) -> None:
        self._do(f"{KERNEL}.restart()")
        self.wait_until_idle()

    def save(self) -> None:
        self.command("docmanager:save")

    def reload(self) -> None:
        self.page.reload()
        self.wait_until_idle()

    def start_anew(self) -> None:
        """Load the page anew and restart the kernel, whatever either of them is at."""
        self.page.reload()
        self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel")
        self.restart()

    def revert(self) -> None:
        """Take the cells back to what the file holds."""
        self._do("window.jupyterapp.shell.currentWidget.context.revert()")

    def write_last_cell(self, code: str) -> None:
        self.page.evaluate(
            "code => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.at(-1).setSource(code)", code
        )

    def cells(self) -> list[tuple[str, str]]:
        """Return (type, source) of each cell, as the front-end holds it now."""
        cells = self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
            ".map(cell => [cell.cell_type, Array.isArray(cell.source) ? cell.source.join('') : cell.source])"
        )
        return [tuple(cell) for cell in cells]

    @contextmanager
    def kernel_at_work(self, *, silent: bool = False) -> Iterator[None]:
        """Keep the kernel busy with a cell until the end of the block; `silent`: so that the cleaner cannot answer."""
        # Files say when the cell begins and may end, its own answer when it has: the kernel's status also changes with
        # each message of a widget, before the cell and beside it, and a gate taken away too early is never seen.
        # Fresh names each time: what a failed test left behind must open no later gate.
        begun, gate = (self.path.with_name(f"{name}-{uuid4().hex}") for name in ("begun", "gate"))
        held = "cleaner.cleaning.lock" if silent else "contextlib.nullcontext()"
        code = (
            f"import contextlib, pathlib, time\nwith {held}:\n    pathlib.Path({str(begun)!r}).touch()\n"
            f"    while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
        )
        request = f"{KERNEL}.requestExecute({{code, store_history: false}}).done.catch(() => null)"  # a killed kernel's
        self.page.evaluate(f"code => {{ window.atWork = {request}; }}", code)
        try:
            self._wait_for(begun)
            yield
        finally:
            gate.touch()
            self._do("window.atWork")
            self.wait_until_idle()
            for mark in (begun, gate):
                mark.unlink(missing_ok=True)

    def _wait_for(self, path: Path) -> None:
        """Wait until a file is there, while the page goes on."""
        for _ in range(1000):
            if path.exists():
                return
            self.page.wait_for_timeout(20)
        raise TimeoutError(f"{path} is not there after 20 seconds: the kernel does not begin the cell")

    def execute(self, code: str) -> str:
        """Run code in the kernel beside the notebook and return what it printed."""
        return self.page.evaluate(
            f"""async code => {{
                const future = {KERNEL}.requestExecute({{code, store_history: false}});
                let said = '';
                future.onIOPub = message => {{ said += message.content.text ?? message.content.evalue ?? ''; }};
                await future.done;
                return said;
            }}""",
            code,
        )
