"""What the page says when something is wrong with it: always a sentence, and no photo is judged by a wrong model."""

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from browser.app_project import COLOURS, WARM, photo

from page.conftest import visited
from utils.errors import FieldguideError
from utils.page import ask_page, asking, served
from utils.page.asking import open_page

pytestmark = [pytest.mark.browser, pytest.mark.long]


@pytest.fixture
def copy(colours, tmp_path) -> Path:
    """A copy of the page, to break."""
    return shutil.copytree(colours[0], tmp_path / "page")


def told(browser, folder: Path, classifier) -> str:
    """Return what a page says that does not start."""
    with served(folder) as address, visited(browser, address, folder, classifier) as visit:
        with pytest.raises(FieldguideError) as caught:
            open_page(visit.page, address)
        assert not visit.page.is_visible("#drop")
        return str(caught.value)


def change(folder: Path, **facts) -> None:
    """Change entries of page.json."""
    path = folder / "page.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts), encoding="utf-8")


def test_another_models_file_is_refused(chromium, copy, colours, make_page):
    """A model.onnx that the page was not made for, even one of the same size, judges nothing."""
    data = bytearray((copy / "model.onnx").read_bytes())
    data[-20] ^= 1
    (copy / "model.onnx").write_bytes(data)
    assert "model.onnx is not the file that this page was made for" in told(chromium, copy, colours[1])
    other, _ = make_page(WARM)
    shutil.copy(other / "model.onnx", copy / "model.onnx")
    assert "model.onnx is not the file that this page was made for" in told(chromium, copy, colours[1])


def test_a_model_that_answers_otherwise_is_refused(chromium, copy, colours):
    """The file is right, but the browser's engine gives other numbers than Python did: nothing is judged."""
    change(copy, probe=[0.2, 0.3, 0.5])
    assert "The model answers otherwise than it did when this page was made" in told(chromium, copy, colours[1])


def test_a_file_that_is_no_model_is_a_sentence(chromium, copy, colours):
    """Even if page.json says that it is the right one."""
    data = b"not a model" * 100
    (copy / "model.onnx").write_bytes(data)
    change(copy, model={"file": "model.onnx", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    assert "The model could not be opened: " in told(chromium, copy, colours[1])


@pytest.mark.parametrize("missing", ["model.onnx", "page.json", "runtime", "worker.js", "network.js"])
def test_a_file_that_was_not_copied_is_told(chromium, copy, colours, missing):
    """A folder that lacks a file says so; the page never just waits."""
    path = copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = told(chromium, copy, colours[1])
    assert said.startswith("The page does not start: ") and len(said) > 40


@pytest.mark.parametrize("content", ['{"name": "colo', "[]", "null"])
def test_a_page_json_that_is_broken_is_told(chromium, copy, colours, content):
    """Cut short by a full disk, say, or another program's."""
    (copy / "page.json").write_text(content, encoding="utf-8")
    assert "page.json could not be read" in told(chromium, copy, colours[1])


def test_a_browser_without_webassembly_is_told_what_to_do(chromium, address, colours):
    """A sentence names the browsers that have it."""
    with visited(chromium, address, *colours, service_workers="block") as visit:
        visit.page.context.route("**/worker.js", lambda route: without_webassembly(route, colours[0]))
        with pytest.raises(FieldguideError, match=r"does not run WebAssembly.*Try a current Firefox"):
            open_page(visit.page, address)


def without_webassembly(route, folder: Path) -> None:
    """Answer with worker.js as a browser without WebAssembly would run it."""
    script = "delete globalThis.WebAssembly;\n" + (folder / "network.js").read_text(encoding="utf-8")
    script += (
        "\nonmessage = async ({ data }) => { try { await openModel(data.facts, () => {}); }"
        ' catch (error) { postMessage({ tell: "problem", text: error.message }); } };'
    )
    route.fulfill(body=script, content_type="text/javascript")


def test_opened_as_a_file_it_says_how_to_serve_it(chromium, colours):
    """A browser loads no module from a file: after a moment the page says what to type."""
    folder, classifier = colours
    with visited(chromium, "", folder, classifier) as visit:
        visit.page.goto((folder / "index.html").as_uri())
        visit.page.wait_for_selector("#unserved", state="visible")
        assert "python -m http.server" in visit.text("#unserved")


def test_labels_are_shown_as_text_whatever_they_hold(chromium, make_page):
    """Markup in a label, 200 letters, writing from right to left: the label itself, and nothing runs."""
    labels = ["<img src=x onerror=window.hacked=1>", "א" * 200, "plain"]
    with opened_with(chromium, make_page(dict(zip(labels, COLOURS.values(), strict=True)))) as visit:
        visit.choose(("red.jpg", photo()))
        assert visit.text("#cards .label") == labels[0]
        assert visit.page.evaluate("window.hacked === undefined && document.images.length === 0")
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_name_of_a_file_is_shown_as_text(visit):
    """The visitor's file names are text, too."""
    visit.choose(("<b onclick=alert(1)>x.jpg", photo()))
    assert visit.text("#cards .file") == "<b onclick=alert(1)>x.jpg"
    assert visit.page.locator("#cards b").count() == 0


def test_a_thousand_labels_are_no_trouble(chromium, make_page):
    """The best three are shown, and the page stays in its frame."""
    many = {f"label {n}": (n % 251, n * 7 % 251, n * 13 % 251) for n in range(1000)}
    with opened_with(chromium, make_page(many, threshold=None)) as visit:
        visit.choose(("red.jpg", photo()))
        (ours,) = visit.classifier.predict([photo()])
        assert visit.text("#cards .label") == ours.label
        assert visit.page.locator("#cards .bars li").count() == 3
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@contextmanager
def opened_with(browser, made):
    """Yield the open page of another model."""
    with served(made[0]) as address, visited(browser, address, *made) as visit:
        open_page(visit.page, address)
        yield visit


FETCH = "(address) => fetch(address, { mode: 'no-cors' }).then(() => true, () => false)"


@pytest.mark.parametrize("service_workers", ["allow", "block"])
def test_its_policy_forbids_scripts_and_addresses_of_others(chromium, address, colours, service_workers):
    """Neither an inline script nor a request elsewhere, also from the worker: what a hostile file would need."""
    with visited(chromium, address, *colours, service_workers=service_workers) as visit:
        open_page(visit.page, address)
        ran = visit.page.evaluate(
            """() => {
                const script = Object.assign(document.createElement("script"), { textContent: "window.ran = 1" });
                document.body.append(script);
                return window.ran === 1;
            }"""
        )
        (worker,) = visit.page.workers
        with served(visit.folder) as elsewhere:
            sent = [place.evaluate(FETCH, elsewhere) for place in (visit.page, worker)]
            own = [place.evaluate(FETCH, f"{visit.address}page.json") for place in (visit.page, worker)]
        assert (ran, sent, own) == (False, [False, False], [True, True])


@pytest.fixture
def slow(copy, monkeypatch):
    """Let the server stop half-way through model.onnx, which has 4 MB more here; return how it goes on: `set` it."""
    go_on, path = Event(), copy / "model.onnx"
    data = path.read_bytes() + b"\x32\x80\x80\x80\x02" + b" " * 2**22  # a remark, as ONNX writes one
    path.write_bytes(data)
    change(copy, model={"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    def copyfile(handler, source, target):
        content = source.read()
        half = len(content) // 2 if "model.onnx" in handler.path else len(content)
        target.write(content[:half])
        if half < len(content):
            go_on.wait(60)
        target.write(content[half:])

    monkeypatch.setattr("utils.page.serving._Files.copyfile", copyfile)
    yield go_on
    go_on.set()


def test_progress_is_told_while_the_model_loads(chromium, slow, copy, colours):
    """Before the model is there a bar says how much of it is loaded, and photos cannot be chosen yet."""
    with served(copy) as address, visited(chromium, address, copy, colours[1]) as visit:
        visit.page.goto(address)
        visit.page.wait_for_selector("#loaded-bytes:not(:empty)")
        assert visit.text("#loaded-bytes").endswith("of 4.2\u00a0MB") and not visit.page.is_visible("#drop")
        slow.set()
        visit.page.wait_for_selector("body[data-ready]", timeout=60_000)
        assert not visit.page.is_visible("#loading")


def test_a_connection_that_breaks_is_told(chromium, slow, copy, colours, monkeypatch):
    """Half of model.onnx came: a sentence says so, and the page starts when it is loaded again."""
    with served(copy) as address, visited(chromium, address, copy, colours[1]) as visit:
        with monkeypatch.context() as patch, pytest.raises(FieldguideError, match=r"the connection broke .* Reload"):
            patch.setattr(slow, "wait", lambda seconds: 1 / 0)  # the server's thread ends here
            open_page(visit.page, address)
        slow.set()
        open_page(visit.page, address)


def test_a_server_that_falls_silent_is_told(chromium, slow, copy, colours):
    """Nothing comes for a minute (half a second here): a sentence, instead of a bar that stands still."""
    script = copy / "network.js"
    script.write_text(script.read_text(encoding="utf-8").replace("SILENCE = 60_000", "SILENCE = 500"), encoding="utf-8")
    with served(copy) as address, visited(chromium, address, copy, colours[1]) as visit:
        with pytest.raises(FieldguideError, match=r"the connection broke .* Reload"):
            open_page(visit.page, address)
        slow.set()


def test_a_page_opened_while_it_was_uploaded_is_mended_by_a_reload(chromium, copy, colours):
    """A model.onnx that is not there as a whole yet is refused, and not kept for later visits."""
    model = copy / "model.onnx"
    whole, written = model.read_bytes(), 1_000_000_000
    model.write_bytes(whole[:-9] + bytes(9))
    os.utime(model, (written, written))
    with served(copy) as address, visited(chromium, address, copy, colours[1]) as visit:
        with pytest.raises(FieldguideError, match="not the file that this page was made for"):
            open_page(visit.page, address)
        model.write_bytes(whole)
        os.utime(model, (written, written))  # a server that looks at the time says that nothing changed
        open_page(visit.page, address)


def test_a_browser_that_cannot_try_the_page_is_a_sentence(runtime, copy, monkeypatch):
    """The page waits for ever: notebook 07 says so, without a traceback."""
    (copy / "worker.js").write_text("", encoding="utf-8")
    monkeypatch.setattr(asking, "PATIENCE", 100)
    with pytest.raises(
        FieldguideError, match=r"The browser could not try the page: .*Timeout 100ms exceeded. Try again"
    ):
        ask_page(copy, {})


def test_a_new_model_replaces_what_was_kept_for_offline_use(chromium, copy, colours, make_page):
    """Written again for another model and opened in the same browser, the page judges with the new one, offline too."""
    with served(copy) as address, visited(chromium, address, copy, colours[1]) as visit:
        open_page(visit.page, address)
        other, _ = make_page(WARM)
        shutil.copytree(other, copy, dirs_exist_ok=True)
        open_page(visit.page, address)
        visit.choose(("warm.jpg", photo(WARM["warm"])))
        assert visit.text("#cards .label") == "warm"
        visit.wait_until_kept()
        visit.page.context.set_offline(True)
        open_page(visit.page, address)
