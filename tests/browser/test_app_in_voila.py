"""The app on the page that `make app` serves: photos chosen and dropped, results, models, and what is closed."""

import os
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from drawn_detector import save_detector, things
from playwright.sync_api import Locator, Page, expect

from browser.app_project import (
    COLOURS,
    GREY,
    SVG,
    WARM,
    WHALES,
    animation,
    known_whales,
    large_photo,
    photo,
    save_model,
    write_project,
)
from browser.pages import watched
from browser.servers import Server, _serving
from browser.test_cleaner_on_screen import CONTRASTS, NAMELESS, OUTSIDE
from utils.inference import load_detector
from utils.inference.classifier import load_classifier
from utils.inference.commands import new_table
from utils.project import REPOSITORY

pytestmark = pytest.mark.browser

NOTEBOOK = REPOSITORY / "notebooks" / "app.ipynb"
NAUGHTY = "<img src=x onerror=window.hacked=1>.jpg"
FORMULA = '=1+1, "x".jpg'
MIB = 2**20
SECRET = "top secret"

# Code sent to the page's own kernel; the answer to a harmless question after it shows that it was looked at.
EXECUTE = """async code => {
    const config = JSON.parse(document.getElementById('jupyter-config-data').textContent);
    const socket = new WebSocket(`ws://${location.host}/api/kernels/${config.kernelId}/channels?session_id=stranger`);
    await new Promise(done => { socket.onopen = done; });
    const send = (msg_type, content) => socket.send(JSON.stringify({
        channel: 'shell', content, parent_header: {}, metadata: {}, buffers: [],
        header: {msg_id: msg_type, username: '', session: 'stranger', msg_type, version: '5.3'}}));
    const answers = [];
    const answered = new Promise(done => {
        socket.onmessage = ({data}) => {
            const {msg_type} = JSON.parse(data);
            answers.push(msg_type);
            if (msg_type === 'kernel_info_reply') done();
        };
    });
    send('execute_request', {code, silent: false, store_history: false, allow_stdin: false, user_expressions: {}});
    send('kernel_info_request', {});
    await answered;
    socket.close();
    return answers;
}"""


@dataclass(frozen=True)
class App:
    """The page that a person sees, by roles and names, and the server and files behind it."""

    page: Page
    server: Server
    project: Path  # its file
    photos: Path  # a folder

    @property
    def root(self) -> Locator:
        return self.page.get_by_role("region", name="Photo classifier", exact=True)

    @property
    def cards(self) -> Locator:
        return self.root.get_by_role("list", name="Results", exact=True).locator("> li")

    @property
    def status(self) -> Locator:
        return self.root.get_by_role("status")

    @property
    def about(self) -> Locator:
        return self.page.get_by_role("region", name="About this model", exact=True)

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def card(self, name: str) -> Locator:
        """Return the card of a file."""
        return self.cards.filter(has=self.page.locator(".fd-file").get_by_text(name, exact=True))

    def path(self, name: str) -> Path:
        """Return where a photo is; the large one is not in the folder, which is taken whole more than once."""
        return self.photos.with_name(name) if name == "large.bmp" else self.photos / name

    def open(self) -> None:
        self.page.goto(self.server.url)
        expect(self.root).to_have_attribute("aria-busy", "false")

    def choose(self, button: str, *paths: Path) -> None:
        """Press a button that opens the system's dialog, and choose there."""
        with self.page.expect_file_chooser() as chooser:
            self.button(button).click()
        chooser.value.set_files(paths[0] if len(paths) == 1 else list(paths))

    def drop(self, *paths: Path) -> None:
        """Drop files or folders as a hand does it, on the page's middle."""
        session = self.page.context.new_cdp_session(self.page)
        at = {"x": 300, "y": 200}
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})
        session.detach()

    def expect_done(self, text: str) -> None:
        """Wait until the line that sums up begins with this."""
        expect(self.status).to_have_text(re.compile("^" + re.escape(text)))

    def shown(self) -> dict[str, tuple[str, list[tuple[str, str]]]]:
        """Return file → verdict, and the bars' labels and percentages, of each card."""
        found = self.cards.evaluate_all("""cards => cards.map(card => [
            card.querySelector('.fd-file').textContent, card.querySelector('.fd-verdict').textContent,
            [...card.querySelectorAll('.fd-bars li')].map(
                bar => [...bar.querySelectorAll('span')].map(at => at.textContent.replace('\\u00a0', ' ')))])""")
        return {file: (verdict, [tuple(bar) for bar in bars]) for file, verdict, bars in found}

    def clear(self) -> None:
        if self.button("Clear").is_visible():
            self.button("Clear").click()


def app_options(*settings: str) -> list[str]:
    """Return the options that `make app` gives to Voila, with settings such as APP_PAGES=1."""
    printed = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/installed", "app", *settings],
        cwd=REPOSITORY, env=os.environ | {"MAKEFLAGS": ""}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    words = shlex.split(next(line for line in printed.replace("\\\n", " ").splitlines() if "-m voila" in line))
    return words[words.index("notebooks/app.ipynb") + 1 :]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of photos, good and bad, with a folder in it, and a large one beside it."""
    folder = tmp_path_factory.mktemp("photos") / "field trip"
    (folder / "day 2").mkdir(parents=True)
    red = photo(seed=1)
    files = {
        "red.jpg": red,
        "sky.webp": photo(COLOURS["blue"], format="WEBP"),
        "nothing.png": photo(GREY, format="PNG"),
        "../large.bmp": large_photo(),
        "cut.jpg": red[: len(red) // 2],
        "jumping.gif": animation(),
        "drawing.svg": SVG,
        "really a jpeg.png": photo(COLOURS["green"]),
        "really a text.jpg": b"a letter",
        NAUGHTY: red,
        FORMULA: red,
        "empty.jpg": b"",
        "notes.txt": b"seen at noon",
        ".hidden.jpg": red,
        "day 2/leaf.jpg": photo(COLOURS["green"], seed=2),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with (folder / "day 2" / "huge.tif").open("wb") as file:
        file.truncate(50 * MIB + 1)
    return folder


@pytest.fixture(scope="module")
def served(chromium, photos, tmp_path_factory) -> Iterator[App]:
    """The page as `make app` serves it, on two models; one page for all tests."""
    folder = tmp_path_factory.mktemp("app")
    project = write_project(folder)
    save_model(folder / "models" / "colours", "colours", COLOURS)
    save_model(folder / "models" / "another", "another", WARM, threshold=None, card=False)
    save_model(folder / "models" / "whales", "whales", WHALES, knows=known_whales())
    save_detector(folder / "models" / "things" / "model.onnx")
    (folder / "data").mkdir()
    (folder / "data" / "secret.png").write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROJECT", str(project))
        options = (str(NOTEBOOK), "--no-browser", *app_options())
        with _serving("voila", folder, "/voila/static/voila.js", *options, port="--Voila.port={}") as server:
            page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.set_default_timeout(20_000)
            errors = watched(page)
            app = App(page, server, project, photos)
            app.open()
            yield app
            page.context.close()
            assert errors == []


@pytest.fixture
def app(served) -> App:
    """The page without results."""
    served.clear()
    return served


@pytest.fixture(scope="module")
def classifier(served):
    return load_classifier(served.project.parent / "models" / "colours" / "model.onnx")


def as_shown(prediction) -> tuple[str, list[tuple[str, str]]]:
    """Return a prediction as a card shows it."""
    bars = [(label, f"{100 * probability:.1f} %") for label, probability in prediction.top(3)]
    return ("Could not be read" if prediction.error else prediction.label or "Not sure"), bars


def saved(app: App, folder: Path) -> str:
    """Press Save as CSV, and return what was saved."""
    with app.page.expect_download() as download:
        app.button("Save as CSV").click()
    assert download.value.suggested_filename == "predictions.csv"
    download.value.save_as(folder / "predictions.csv")
    return (folder / "predictions.csv").read_text(encoding="utf-8")


# --- photos --------------------------------------------------------------------------------------------------------


def test_photos_of_every_kind_at_once(app, classifier, tmp_path, screenshot):
    """Labels and bars are those of predict; what is broken is named with the reason; the CSV is the command line's."""
    names = ["red.jpg", "cut.jpg", "large.bmp", "sky.webp", "jumping.gif", "drawing.svg", "really a jpeg.png",
             "really a text.jpg", NAUGHTY, FORMULA, "nothing.png", "empty.jpg"]  # fmt: skip
    app.choose("Choose photos", *(app.path(name) for name in names))
    app.expect_done("12 photos: 3 red, 2 blue, 1 green, 1 not sure, 5 could not be read.")
    answers = [classifier.predict(app.path(name).read_bytes(), unknown=True)[0] for name in names]
    assert app.shown() == {name: as_shown(answer) for name, answer in zip(names, answers, strict=True)}
    for name, reason in (("cut.jpg", "truncated"), ("jumping.gif", "animated"), ("drawing.svg", "a drawing of shapes"),
                         ("really a text.jpg", "not a picture but text"), ("empty.jpg", "empty file")):  # fmt: skip
        expect(app.card(name)).to_contain_text(reason)
    sizes = app.cards.locator("img").evaluate_all("all => all.map(at => [at.naturalWidth, at.naturalHeight])")
    assert len(sizes) == 7 and {max(size) for size in sizes} == {160}
    screenshot(app.page, "app")
    app.card("drawing.svg").scroll_into_view_if_needed()
    screenshot(app.page, "app-broken")
    with new_table(tmp_path / "wanted.csv") as write_row:
        for name, answer in zip(names, answers, strict=True):
            write_row(name, answer)
    assert saved(app, tmp_path) == (tmp_path / "wanted.csv").read_text(encoding="utf-8")
    assert app.page.evaluate("() => window.hacked") is None
    assert app.cards.locator("script, .fd-file img").count() == 0


FOLDER = "13 photos: 3 red, 2 green, 1 blue, 1 not sure, 6 could not be read. 2 files that are no photos skipped."
IN_ORDER = [NAUGHTY, FORMULA, "cut.jpg", "day 2/huge.tif", "day 2/leaf.jpg", "drawing.svg", "empty.jpg", "jumping.gif",
            "nothing.png", "really a jpeg.png", "really a text.jpg", "red.jpg", "sky.webp"]  # fmt: skip


def test_a_folder_is_taken_whole(app):
    """Photos in it and below it, in the order of their names, with their folder; what is no photo is skipped."""
    app.choose("Choose a folder", app.photos)
    app.expect_done(FOLDER)
    assert list(app.shown()) == [f"field trip/{name}" for name in IN_ORDER]


def test_photos_and_folders_are_dropped(app):
    """Dropped anywhere on the page, a folder counts as one that was chosen, and the page is not left for a photo."""
    app.drop(app.photos, app.photos / "red.jpg")
    app.expect_done(FOLDER.replace("13 photos: 3", "14 photos: 4"))
    assert list(app.shown()) == [*(f"field trip/{name}" for name in IN_ORDER), "red.jpg"]


def test_a_folder_still_looked_through_is_not_lost(app):
    """Photos chosen and judged while a dropped folder is slow to list: the folder's photos follow."""
    app.page.evaluate("""() => {
        const { prototype } = DataTransferItem;
        const give = prototype.webkitGetAsEntry;
        prototype.webkitGetAsEntry = function () {
            prototype.webkitGetAsEntry = give;
            const entry = give.call(this);
            const reader = entry.createReader();
            const readEntries = (...args) => {
                const read = () => reader.readEntries(...args);
                window.goOn ? read() : (window.goOn = read);
            };
            return { fullPath: entry.fullPath, createReader: () => ({ readEntries }) };
        };
    }""")
    app.drop(app.photos)
    app.page.wait_for_function("() => window.goOn")
    app.choose("Choose photos", app.photos / "red.jpg")
    app.expect_done("1 photo: 1 red.")
    app.page.evaluate("() => window.goOn()")
    app.expect_done(FOLDER.replace("13 photos: 3", "14 photos: 4"))


def test_over_50_megabytes_is_refused_by_name_before_sending(app):
    """The card says how large it is; nothing but small messages went out."""
    sent = []
    count = sent.append
    app.page.once("websocket", lambda socket: socket.on("framesent", lambda data: count(len(data))))
    app.page.reload()  # so that its connection is seen from the beginning
    expect(app.root).to_have_attribute("aria-busy", "false")
    app.choose("Choose photos", app.photos / "day 2" / "huge.tif")
    app.expect_done("1 photo: 1 could not be read.")
    expect(app.card("huge.tif")).to_contain_text("more than 50\u00a0MB")
    assert 0 < sum(sent) < 100_000
    app.choose("Choose photos", app.path("large.bmp"))
    app.expect_done("2 photos: 1 blue")
    size = app.path("large.bmp").stat().st_size
    assert size < sum(sent) < size + 500_000 and max(sent) < 2 * MIB


def test_many_photos_come_one_by_one_and_can_be_stopped(app, photos, screenshot, tmp_path):
    """Cards appear while others wait; Stop keeps what is there; more can be added, and Clear takes all away."""
    many = tmp_path / "many"
    many.mkdir()
    for n in range(400):
        (many / f"{n:03}.jpg").hardlink_to(photos / "red.jpg")
    app.choose("Choose a folder", many)
    expect(app.card("many/020.jpg")).to_be_visible()
    progress = app.root.get_by_role("progressbar", name="Photos judged")
    expect(progress).to_be_visible()
    screenshot(app.page, "app-at-work")
    expect(app.root.get_by_text(re.compile(r"^\d+ of 400$"))).to_be_visible()
    app.button("Stop").focus()
    app.page.keyboard.press("Enter")
    app.expect_done("Stopped after")
    expect(progress).to_be_hidden()
    expect(app.button("Choose photos")).to_be_focused()
    kept = app.cards.count()
    assert 20 < kept < 400
    app.choose("Choose photos", photos / "sky.webp")
    app.expect_done(f"{kept + 1} photos: {kept} red, 1 blue.")
    app.button("Clear").click()
    expect(app.cards).to_have_count(0)
    expect(app.button("Save as CSV")).to_be_hidden()


# --- the model -----------------------------------------------------------------------------------------------------


def test_the_model_is_described_in_plain_words(app):
    """What it knows, of how many pictures, how good it is with interval and n, when it is unsure, limits and date."""
    for words in ("red (120 pictures)", "Of 60 photos", "90 %", "81 % to 95 %", "less than 60 %", "daylight",
                  "CC BY 4.0: 300 pictures", "2026-11-21"):  # fmt: skip
        expect(app.about).to_contain_text(words)


def test_another_model_is_picked(app):
    """The picker lists the project's own first; another one clears the results with a word, and judges from then on."""
    picker = app.root.get_by_role("combobox", name="Model", exact=True)
    assert picker.locator("option").all_text_contents() == ["colours", "another", "things", "whales"]
    app.choose("Choose photos", app.photos / "red.jpg", app.photos / "nothing.png")
    app.expect_done("2 photos: 1 not sure, 1 red.")
    picker.select_option("another")
    expect(app.status).to_contain_text("2 results of the other model were cleared")
    expect(app.cards).to_have_count(0)
    expect(app.about).to_contain_text("There is no")
    app.choose("Choose photos", app.photos / "red.jpg", app.photos / "nothing.png")
    app.expect_done("2 photos: ")
    assert {verdict for verdict, _ in app.shown().values()} <= set(WARM)
    picker.select_option("colours")
    expect(app.about).to_contain_text("red (120 pictures)")


def test_what_a_detector_finds_is_drawn_and_listed(app, screenshot, tmp_path):
    """Each thing has a box on the photo and a line below with the same number; keyboard and screen reader reach all."""
    picker = app.page.get_by_role("combobox", name="Model", exact=True)
    picker.select_option("things")
    found = app.page.get_by_role("region", name="Things in photos", exact=True)
    try:
        expect(found).to_have_attribute("aria-busy", "false")
        expect(found.get_by_role("heading", level=1)).to_have_text("Where is “ball” or “block” in the photo?")
        assert app.page.title() == "Where is “ball” or “block” in the photo?"
        things((640, 400)).save(tmp_path / "things.jpg", quality=95)
        model = app.project.parent / "models" / "things" / "model.onnx"
        (ours,) = load_detector(model).predict(tmp_path / "things.jpg")
        with app.page.expect_file_chooser() as chooser:
            found.get_by_role("button", name="Choose photos", exact=True).press("Enter")
        chooser.value.set_files([tmp_path / "things.jpg", app.photos / "nothing.png", app.photos / "cut.jpg"])
        status = found.get_by_role("status")
        expect(status).to_have_text(re.compile("^3 photos: .* nothing found in 1, 1 could not be read"))
        card = found.get_by_role("list", name="Results", exact=True).locator("> li").first
        lines = card.get_by_role("list", name="Found in this photo").locator("li").all_text_contents()
        assert lines == [f"{box.label}{100 * box.probability:.1f}\u00a0%" for box in ours.boxes]
        drawn = card.evaluate("""card => {
            const photo = card.querySelector('img').getBoundingClientRect();
            return [...card.querySelectorAll('.fd-box')].map(box => {
                const {left, top, right, bottom} = box.getBoundingClientRect();
                return [(left - photo.left) / photo.width, (top - photo.top) / photo.height,
                    (right - photo.left) / photo.width, (bottom - photo.top) / photo.height];
            });
        }""")
        assert np.array(drawn) == pytest.approx(np.array([box.corners for box in ours.boxes]), abs=0.005)
        with app.page.expect_download() as download:
            found.get_by_role("button", name="Save as CSV").click()
        rows = download.value.path().read_text(encoding="utf-8").splitlines()
        assert rows[0] == "file,label,probability,left,top,right,bottom,error" and len(rows) == 3 + len(ours.boxes)
        broken = [each["id"] for each in Axe().run(app.page, context=".fieldguide-app").response["violations"]]
        assert found.evaluate(NAMELESS) == [] and broken == []
        screenshot(app.page, "app-finds")
        app.page.set_viewport_size({"width": 360, "height": 740})
        assert found.evaluate(OUTSIDE) == []
        screenshot(app.page, "app-finds-phone")
    finally:
        app.page.set_viewport_size({"width": 1280, "height": 900})
        picker.select_option("colours")
    expect(app.root).to_have_attribute("aria-busy", "false")


def test_the_nearest_known_photos_stand_below_each_answer(app, screenshot):
    """Of single animals five are shown by name, each with its photo; unsure means that it may be none of them."""
    picker = app.root.get_by_role("combobox", name="Model", exact=True)
    picker.select_option("whales")
    expect(app.root).to_contain_text("Below each answer: the known individuals with the most similar photo.")
    app.choose("Choose photos", app.photos / "red.jpg", app.photos / "nothing.png", app.photos / "cut.jpg")
    app.expect_done("3 photos: ")
    strip = app.card("red.jpg").get_by_role("list", name="Most similar known photos").locator("li")
    expect(strip).to_have_count(5)
    names = strip.locator("bdi").all_text_contents()
    assert names[0] == "Ada" and set(names) < set(WHALES)
    shown = strip.locator("img").evaluate_all("each => each.map(one => [one.alt, one.naturalWidth])")
    assert shown == [[f"Known photo of {name}", 90] for name in names]
    alike = [float(text) for text in strip.locator(".fd-small").all_text_contents()]
    assert alike == sorted(alike, reverse=True) and 0.9 < alike[0] <= 1
    assert app.shown()["nothing.png"][0] == "Not one of the known ones, or not sure"
    assert app.card("cut.jpg").locator(".fd-nearest").count() == 0
    assert app.root.evaluate(NAMELESS) == []
    assert [(text, ratio) for text, ratio in app.root.evaluate(CONTRASTS) if ratio < 4.5] == []
    try:
        app.page.set_viewport_size({"width": 360, "height": 740})
        assert app.root.evaluate(OUTSIDE) == []
        screenshot(app.page, "app-known-photos-phone")
    finally:
        app.page.set_viewport_size({"width": 1280, "height": 900})
        screenshot(app.page, "app-known-photos")
        picker.select_option("colours")
    expect(app.root).not_to_contain_text("most similar photo")


def test_a_missing_or_broken_project_is_told_in_a_sentence(served, chromium, screenshot):
    """No model, no project or a wrong setting: what to do stands on the page, and no traceback."""
    page = chromium.new_context(viewport={"width": 800, "height": 500}).new_page()
    app = App(page, served.server, served.project, served.photos)
    before = served.project.read_text(encoding="utf-8")
    try:
        served.project.write_text(before + "\n[colour]\n", encoding="utf-8")
        app.open()
        screenshot(page, "app-broken-project")
        expect(app.root.get_by_role("alert")).to_contain_text("project.toml: colour")
        expect(app.button("Choose photos")).to_be_hidden()
        assert not re.search(r"Traceback|Error|File \"|show_tracebacks", page.locator("body").inner_text())
    finally:
        served.project.write_text(before, encoding="utf-8")
        page.context.close()


# --- for everyone ----------------------------------------------------------------------------------------------------


def test_a_phone_shows_it_whole_and_everyone_can_read_it(app, screenshot):
    """At 360 pixels nothing scrolls sideways; words have contrast, controls a name; Tab reaches the buttons."""
    app.choose("Choose photos", *(app.photos / name for name in ("red.jpg", NAUGHTY, "cut.jpg", "nothing.png")))
    app.expect_done("4 photos")
    assert app.root.evaluate(NAMELESS) == []
    assert [(text, ratio) for text, ratio in app.root.evaluate(CONTRASTS) if ratio < 4.5] == []
    try:
        app.page.set_viewport_size({"width": 360, "height": 740})
        screenshot(app.page, "app-phone")
        assert app.root.evaluate(OUTSIDE) == []
        assert app.page.evaluate("() => document.scrollingElement.scrollWidth") <= 360
        assert app.root.evaluate("at => at.getBoundingClientRect().right") <= 360
        app.about.scroll_into_view_if_needed()
        app.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        screenshot(app.page, "app-phone-model")
    finally:
        app.page.set_viewport_size({"width": 1280, "height": 900})
    app.root.get_by_role("combobox", name="Model").focus()
    for name in ("Choose photos", "Choose a folder", "Save as CSV", "Clear"):
        app.page.keyboard.press("Tab")
        expect(app.button(name)).to_be_focused()


# --- what is closed --------------------------------------------------------------------------------------------------

CLOSED = ["project.toml", "secret.png", "data/secret.png", "models/colours/model.onnx", "app.ipynb",
          "01_download.ipynb", "run.py", "..", "../project.toml", "../README.md", "../data/secret.png",
          "..%2fproject.toml", "%2e%2e/project.toml", "/etc/passwd", "%2fetc%2fpasswd",
          "../../../../../../etc/passwd", ".", ""]  # fmt: skip
WAYS = ["/", "/voila/files/", "/files/", "/view/", "/api/contents/", "/voila/api/contents/", "/voila/static/",
        "/static/", "/voila/templates/", "/voila/templates/lab/static/", "/voila/templates/../static/",
        "/voila/labextensions/", "/voila/api/themes/", "/voila/tree/", "/voila/render/", "/nbconvert/html/",
        "/lab/tree/", "/edit/"]  # fmt: skip


def asked(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Return the status and the body that a path gives, sent letter by letter as it stands here."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(server.url + path, method=method, headers=headers)
        with opener.open(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_no_file_of_the_machine_is_served(app):
    """Whatever the way, files are 403 or 404; only Voila's own are served, and the page itself."""
    found = {}
    for way in WAYS:
        for path in CLOSED:
            if way + path in ("/", "//", "/.", "/.."):
                continue  # the page
            status, body = asked(app.server, way + path)
            if status not in (400, 403, 404, 500):  # 500: Voila stumbles over the name of a template that is none
                found[way + path] = (status, body[:60])
            assert SECRET.encode() not in body and b"root:" not in body and b"data_dir" not in body, way + path
    assert found == {}
    assert asked(app.server, "/voila/files/photo.png")[0] == 403  # not 404: whether it is there or not


def test_no_template_or_theme_is_chosen_by_the_address(app):
    """A template's name in the address would lead to other folders; it is not heeded."""
    status, body = asked(app.server, "/?template=../../../../tmp&theme=dark")
    assert status == 200 and b'data-jp-theme-name="JupyterLab Light"' in body


def test_the_page_runs_no_code(app, tmp_path):
    """The connection to the kernel takes messages of widgets, and nothing to execute."""
    mark = tmp_path / "ran"
    answers = app.page.evaluate(EXECUTE, f"open({str(mark)!r}, 'w')")
    assert "kernel_info_reply" in answers and "execute_reply" not in answers
    assert not mark.exists()


def test_it_is_served_on_this_machine_alone():
    """`make app` binds 127.0.0.1, shows no tracebacks, and takes another address only when told."""
    assert "--Voila.ip=127.0.0.1" in app_options()
    assert not [option for option in app_options() if "traceback" in option or "debug" in option]


# --- who may come, and how many --------------------------------------------------------------------------------------

KERNEL = "/api/kernels/00000000-0000-0000-0000-000000000000/channels"


@pytest.mark.parametrize("host", ["evil.example", "EVIL.example.:80", "localhost.evil.example", "192.168.1.5", "[::2]"])
def test_a_name_that_is_not_this_machines_is_refused(app, host):
    """Neither the page nor the connection to a kernel answers a site that lets its own name lead here."""
    for path, how in (("/", {}), (KERNEL, {"Upgrade": "websocket", "Connection": "Upgrade"})):
        status, body = asked(app.server, path, Host=host, **how)
        assert status == 403 and b"The app does not answer to this name" in body and b"APP_HOSTS" in body


def test_a_name_may_hold_no_markup(app):
    """A host is a stranger's text: on the page that refuses it, it is shown letter by letter."""
    status, body = asked(app.server, "/", Host="a'<script>")
    assert status == 400 or (status == 403 and b"<script>" not in body)


@pytest.fixture
def small(served, monkeypatch) -> Iterator[Server]:
    """
    The app with room for one visitor, known as lab-pc too; who is gone is noticed in 15 seconds, not a minute.

    A page that loads has to connect within these seconds, on a busy machine as well.
    """
    monkeypatch.setenv("PROJECT", str(served.project))
    options = app_options("APP_PAGES=1", "APP_HOSTS=lab-pc other.example")
    quick = {"cull_idle_timeout=60": "cull_idle_timeout=15", "cull_interval=10": "cull_interval=1"}
    for option, instead in quick.items():
        assert [option for each in options if each.endswith(option)] == [option]
        options = [each.replace(option, instead) for each in options]
    folder = served.project.parent / "small"
    options = (str(NOTEBOOK), "--no-browser", *options)
    with _serving("voila", folder, "/voila/static/voila.js", *options, port="--Voila.port={}") as server:
        yield server


@pytest.mark.long
def test_one_too_many_is_told_to_wait(small, served, chromium, screenshot):
    """Full: a plain page says when to try again. A reload keeps its place; who closes the browser leaves it free."""
    first, second = (chromium.new_context(viewport={"width": 800, "height": 500}).new_page() for _ in range(2))
    app = App(first, small, served.project, served.photos)
    app.open()
    app.open()  # the kernel of the page before is on its way out
    answer = second.goto(small.url)
    screenshot(second, "app-busy")
    assert (answer.status, answer.headers["retry-after"]) == (503, "60")
    text = "The app is busy\n\nIt has room for 1 visitor at a time, and is full. Try again in a minute."
    assert second.locator("body").inner_text().strip() == text
    first.wait_for_timeout(20_000)  # connected and idle: it stays
    app.choose("Choose photos", app.photos / "red.jpg")
    app.expect_done("1 photo: 1 red.")
    first.context.close()  # as if the browser were killed: it says no goodbye
    for _ in range(60):  # each answer takes a few seconds
        if second.goto(small.url).status == 200:
            break
    again = App(second, small, served.project, served.photos)
    expect(again.root).to_have_attribute("aria-busy", "false")
    expect(again.button("Choose photos")).to_be_visible()
    second.context.close()


def test_a_name_that_the_person_gave_is_answered(small):
    """APP_HOSTS names this machine as others know it; with any port, and beside its own names."""
    names = ["lab-pc:8866", "Other.example", "LOCALHOST.", "[::1]:1", "x.localhost", "127.0.0.1"]
    assert [asked(small, KERNEL, Host=name)[0] for name in names] == [404] * len(names)
