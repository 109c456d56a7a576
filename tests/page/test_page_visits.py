"""What a visitor does on the page, and what it does for them: all in a real browser, from a plain web server."""

import csv
import io
import shutil
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.app_project import COLOURS, GREY, WHALES, known_whales, large_photo, photo, red_on_grey
from browser.conftest import SCREENSHOTS
from PIL import Image

from page.conftest import visited
from page.odd_pictures import exact_pictures
from utils.inference.commands import main as predict_command
from utils.page import served
from utils.page.asking import open_page

pytestmark = pytest.mark.browser

RED, BLUE, UNSURE = photo(), photo(COLOURS["blue"], seed=1), photo(GREY, seed=2)
DROP = """([name, bytes, kind]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector("#about").dispatchEvent(event);
}"""

# The box around what is orange on a canvas, in fractions of it: left, top, right, bottom; null if nothing is.
ORANGE = """(selector) => {
    const canvas = document.querySelector(selector);
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const at = [...Array(width * height).keys()].filter((n) =>
        [230, 159, 0].every((wanted, k) => Math.abs(data[4 * n + k] - wanted) < 40));
    const [x, y] = [at.map((n) => (n % width) / width), at.map((n) => Math.floor(n / width) / height)];
    return at.length ? [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)] : null;
}"""


def test_chosen_photos_get_their_labels(visit):
    """Each photo has a card with its name, the best label and the three best as figures, in the order of choosing."""
    visit.choose(("a red one.jpg", RED), ("blue.jpg", BLUE))
    cards = visit.page.locator("#cards > li")
    assert [card.locator(".label").text_content() for card in cards.all()] == ["red", "blue"]
    assert cards.first.locator(".file").text_content() == "a red one.jpg"
    (ours,) = visit.classifier.predict([RED])
    shown = [row.text_content() for row in cards.first.locator(".bars li").all()]
    assert shown == [f"{label}{100 * share:.1f}\u00a0%" for label, share in ours.top()]
    assert visit.text("#summary") == "2 photos: 1 blue, 1 red."


def test_below_the_threshold_it_says_not_sure(visit):
    """A picture that looks like none of the labels is not named, and counts as unknown in the table."""
    visit.choose(("grey.jpg", UNSURE))
    assert visit.text("#cards .label") == "Not sure"
    assert visit.text("#summary") == "1 photo: 1 not sure."


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_photos_can_be_dropped_anywhere_and_pasted(visit, kind):
    """A drop beside the zone does not lead the browser away; what the clipboard holds is judged, too."""
    visit.page.evaluate(DROP, ["dropped.jpg", list(RED), kind])
    visit.page.wait_for_selector("#cards > li")
    assert visit.text("#cards .label") == "red"


def test_a_folder_is_looked_through(visit, tmp_path):
    """Photos at any depth, in the order of their names; hidden files and other kinds are passed over."""
    for name in ("b/2.jpg", "b/10.jpg", "a.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(RED)
    visit.page.set_input_files("#folder", tmp_path / "photos")
    visit.page.locator("#cards > li").nth(2).wait_for()
    names = [each.text_content() for each in visit.page.locator("#cards .file").all()]
    assert names == ["photos/a.jpg", "photos/b/2.jpg", "photos/b/10.jpg"]


def test_the_table_is_the_one_of_the_command_line(visit, tmp_path):
    """Save as CSV gives, byte for byte, what `python -m utils.inference … --csv` gives for the same photos."""
    photos = {"red.jpg": RED, "=sum.jpg": BLUE, "broken.jpg": RED[:900], 'a "b", c.jpg': UNSURE}
    for name, data in photos.items():
        (tmp_path / name).write_bytes(data)
    visit.choose(*photos.items())
    with visit.page.expect_download() as download:
        visit.page.click("#save")
    ours = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    assert download.value.suggested_filename == "predictions.csv"
    paths = [str(tmp_path / name) for name in photos]
    predict_command([str(visit.folder / "model.onnx"), *paths, "--unknown", "--csv", str(tmp_path / "table.csv")])
    theirs = list(csv.DictReader((tmp_path / "table.csv").open(encoding="utf-8")))
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    assert [float(row["probability"] or 0) for row in ours] == pytest.approx(
        [float(row["probability"] or 0) for row in theirs], abs=1e-5
    )
    assert [row["file"] for row in ours] == ["red.jpg", "./=sum.jpg", "broken.jpg", 'a "b", c.jpg']


def test_a_broken_file_stops_nothing(visit):
    """Between two photos a file that is none: its card says why, and the next one is judged."""
    visit.choose(("a.jpg", RED), ("b.jpg", b"%PDF-1.7"), ("c.jpg", BLUE))
    labels = [each.text_content() for each in visit.page.locator("#cards .label").all()]
    assert labels == ["red", "Could not be read", "blue"]
    assert visit.text("#cards li:nth-child(2) .small") == "not a picture but a document (PDF)"
    assert visit.text("#summary") == "3 photos: 1 blue, 1 red, 1 could not be read."


def test_a_photo_of_40_megabytes_is_judged(visit, tmp_path):
    """The page has the limits of a person's own photos, not of a web form."""
    (tmp_path / "large.bmp").write_bytes(large_photo())
    visit.choose(tmp_path / "large.bmp")
    assert visit.text("#cards .label") == "blue"


def test_a_photo_of_100_megapixels_is_judged(visit, tmp_path):
    """It is decoded at an eighth of its size, so that memory does not decide."""
    large = Image.new("RGB", (11_600, 8_700), COLOURS["blue"])
    large.save(tmp_path / "large.jpg", quality=60)
    visit.choose(tmp_path / "large.jpg")
    assert visit.text("#cards .label") == "blue"


def test_two_hundred_photos_are_judged_in_order(visit):
    """Many at once: each gets a card, in the order of choosing."""
    visit.choose(*((f"{n}.jpg", RED if n % 3 else BLUE) for n in range(200)))
    labels = [each.text_content() for each in visit.page.locator("#cards .label").all()]
    assert labels == ["red" if n % 3 else "blue" for n in range(200)]


def test_stop_ends_what_is_under_way_and_keeps_what_is_there(visit):
    """After Stop no further card comes; the next photos are judged as always."""
    files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": RED} for n in range(300)]
    visit.page.set_input_files("#photos", files)
    visit.page.wait_for_selector("#cards > li")
    visit.page.click("#stop")
    stopped = visit.page.locator("#cards > li").count()
    visit.choose(("after.jpg", BLUE))
    assert 0 < stopped < 300
    assert visit.page.locator("#cards > li").count() == stopped + 1
    assert visit.page.locator("#cards .label").last.text_content() == "blue"


def test_clear_ends_what_is_under_way_and_leaves_nothing(visit):
    """No card comes after it, the keyboard stands at the first button, and the next photos are judged as always."""
    files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": RED} for n in range(300)]
    visit.page.set_input_files("#photos", files)
    visit.page.wait_for_selector("#cards > li")
    visit.page.click("#clear")
    assert visit.page.locator("#cards > li").count() == 0 and visit.text("#summary") == ""
    assert visit.page.evaluate("document.activeElement.id") == "choose"
    visit.choose(("after.jpg", BLUE))
    assert visit.text("#summary") == "1 photo: 1 blue."


def test_a_photo_that_is_gone_is_told(visit, tmp_path):
    """Deleted after it was judged, it cannot be shown larger: a sentence says why."""
    (tmp_path / "red.jpg").write_bytes(RED)
    visit.choose(tmp_path / "red.jpg")
    (tmp_path / "red.jpg").unlink()
    visit.page.click("#cards button.thumbnail")
    visit.page.wait_for_selector("#alert:not(:empty)")
    assert visit.text("#alert").startswith(
        "red.jpg cannot be shown: it cannot be read any more: it was moved or changed"
    )


def test_a_link_that_is_dropped_does_not_lead_away(visit):
    """The browser would leave the page, and the results with it."""
    prevented = visit.page.evaluate(
        """() => ["dragover", "drop"].map((kind) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.setData("text/uri-list", "https://example.org/");
            const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
            document.body.dispatchEvent(event);
            return event.defaultPrevented;
        })"""
    )
    assert prevented == [True, True]


def test_a_click_shows_the_photo_larger(visit):
    """The dialog holds the photo at its own size, and Escape closes it."""
    visit.choose(("wide.jpg", photo(size=(900, 600))))
    visit.page.click("#cards button.thumbnail")
    visit.page.wait_for_selector("#larger[open]")
    size = visit.page.evaluate(
        "(() => { const c = document.querySelector('#larger-picture'); return [c.width, c.height]; })()"
    )
    assert size == [900, 600]
    assert visit.text("#larger-name") == "wide.jpg"
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_selector("#larger:not([open])", state="attached")


def test_the_page_says_what_the_model_is_and_how_good(visit):
    """The verdict against guessing stands on top, the card below."""
    assert visit.text("#verdict").startswith("How good is this model? Right for 54 of 60 photos")
    assert "guessing would get 20" in visit.text("#verdict")
    headings = [each.text_content() for each in visit.page.locator("#about dt").all()]
    assert headings[:3] == ["It tells apart", "How often it is right", "When it says “not sure”"]
    assert visit.text("#engine") == "The model runs on the processor (WebAssembly, one thread)."
    assert visit.page.title() == "Which one is it: red, green or blue?"


def test_decoders_and_engines_load_only_where_they_are_needed(visit):
    """No HEIC decoder before the first HEIC photo, and WebGPU's engine never where there is no such card."""
    visit.choose(("red.jpg", RED))
    assert visit.of("heif") == []
    visit.choose(("one.heic", exact_pictures()["drawn.heic"]))
    assert set(visit.of("heif")) == {"/runtime/libheif-bundle.mjs"}
    assert visit.of("webgpu") == visit.of("asyncify") == []


def test_after_the_first_visit_it_works_without_a_network(visit):
    """Opened offline, also by a link with something after a question mark, the page opens its model and judges."""
    visit.wait_until_kept()
    visit.page.context.set_offline(True)
    visit.page.goto(f"{visit.address}?from=a-mail")
    visit.page.wait_for_selector("body[data-ready]", timeout=60_000)
    visit.choose(("red.jpg", RED))
    assert visit.text("#cards .label") == "red"


def test_it_works_below_an_address_and_in_the_frame_of_another_site(chromium, colours, tmp_path):
    """As a Space shows it: all addresses are relative, and a browser that keeps nothing for a frame is no trouble."""
    shutil.copytree(colours[0], tmp_path / "user" / "page")
    with served(tmp_path) as address:
        frame = f'<iframe sandbox="allow-scripts allow-same-origin" src="{address}user/page/?a=1"></iframe>'
        (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
        with visited(chromium, address, *colours) as visit:
            visit.page.goto(address.replace("127.0.0.1", "localhost") + "frame.html")
            frame = visit.page.frame(url="**/user/page/*")
            frame.wait_for_selector("body[data-ready]", timeout=60_000, state="attached")
            frame.set_input_files("#photos", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": RED})
            frame.wait_for_selector("#cards > li")
            assert frame.text_content("#cards .label") == "red"


def test_other_pages_of_the_same_address_are_let_alone(visit, colours):
    """What is kept for offline use is this page's own, not what another program serves at the same address."""
    (colours[0] / "other").mkdir(exist_ok=True)
    (colours[0] / "other" / "private.json").write_text("1")
    visit.page.evaluate("fetch('other/private.json').then((answer) => answer.text())")
    visit.wait_until_kept()
    kept = visit.page.evaluate(
        "async () => (await (await caches.open((await caches.keys())[0])).keys()).map((request) => request.url)"
    )
    assert {"/", "/page.json", "/model.onnx"} <= {urlsplit(url).path for url in kept}
    assert not [url for url in kept if "private" in url]


def test_where_the_server_allows_it_several_threads_are_used(chromium, colours):
    """With the headers of cross-origin isolation WebAssembly runs on more than one thread, with the same answers."""
    with served(colours[0], isolated=True) as address, visited(chromium, address, *colours) as visit:
        open_page(visit.page, address)
        cores = visit.page.evaluate("navigator.hardwareConcurrency")
        told = "one thread" if cores == 1 else f"{min(4, cores)} threads"
        assert visit.text("#engine") == f"The model runs on the processor (WebAssembly, {told})."
        (ours,) = visit.classifier.predict([BLUE])
        assert visit.judge("blue.jpg", BLUE).probabilities == pytest.approx(list(ours.probabilities.values()), abs=1e-5)


def test_the_live_view_names_what_the_camera_sees(camera_visit):
    """The best label lies over the picture; "Keep this picture" makes a card of it; Stop lets the camera go."""
    page = camera_visit.page
    page.click("#live")
    page.wait_for_selector("#seen:not(:empty)")
    assert "%" in camera_visit.text("#seen")
    page.click("#snap")
    page.wait_for_selector("#cards > li")
    assert camera_visit.text("#cards .file") == "camera 1.png"
    page.click("#stop-live")
    assert page.evaluate("document.querySelector('#video').srcObject") is None
    assert not page.is_visible("#viewer")


TRACKS = """() => {
    window.tracks = [];
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await real(wanted);
        window.tracks.push(...stream.getTracks());
        return stream;
    };
}"""


def test_a_double_click_starts_one_camera(camera_visit):
    """Stop lets every camera go that a click started."""
    page = camera_visit.page
    page.evaluate(TRACKS)
    page.dblclick("#live")
    page.wait_for_selector("#seen:not(:empty)")
    page.click("#stop-live")
    assert page.evaluate("tracks.map((track) => track.readyState)") == ["ended"]


def test_a_camera_that_is_unplugged_is_told(camera_visit):
    """The live view ends with a sentence, instead of naming its last picture for ever; it can be started again."""
    page = camera_visit.page
    page.click("#live")
    page.wait_for_selector("#seen:not(:empty)")
    page.evaluate("document.querySelector('#video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
    assert camera_visit.text("#alert").startswith("The camera stopped: ") and not page.is_visible("#viewer")
    page.click("#live")
    page.wait_for_selector("#seen:not(:empty)")
    assert camera_visit.text("#alert") == ""


def test_a_camera_that_is_refused_is_a_sentence(visit):
    """Where the visitor says no, or there is no camera, the page says so and goes on."""
    visit.page.click("#live")
    visit.page.wait_for_selector("#alert:not(:empty)")
    assert visit.text("#alert").startswith("The camera could not be used: ")
    visit.choose(("red.jpg", RED))
    assert visit.text("#cards .label") == "red"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 390])
def test_axe_finds_nothing_to_mend(camera, address, colours, scheme, width):
    """With cards, an error, the live view and the dialog open, no rule of axe-core is broken."""
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with visited(camera, address, *colours, **options) as visit:
        open_page(visit.page, address)
        visit.choose(("red.jpg", RED), ("none.jpg", b"text"), ("grey.jpg", UNSURE))
        visit.page.click("#live")
        visit.page.wait_for_selector("#seen:not(:empty)")
        assert broken_rules(visit.page) == []
        visit.page.click("#stop-live")
        visit.page.click("#cards button.thumbnail")
        visit.page.wait_for_selector("#larger[open]")
        assert broken_rules(visit.page) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def broken_rules(page) -> list[str]:
    """Return the rules of axe-core that a page breaks, each with the first place."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found]


def test_the_keyboard_reaches_everything(visit):
    """Tab goes from the buttons above to the cards' pictures and the model's card, and Enter shows one larger."""
    visit.choose(("red.jpg", RED))
    visit.page.focus("#choose")
    reached = []
    for _ in range(6):
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:4] == ["choose-folder", "live", "save", "clear"] and reached[4] == "thumbnail"
    visit.page.focus("#cards button.thumbnail")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#larger[open]")


def test_the_outline_of_the_thing_is_drawn_on_the_photo(chromium, make_page):
    """Where the model finds the thing, an orange line runs along its border, small and large, and one line says so."""
    folder, classifier = make_page(finds=True)
    with served(folder) as address, visited(chromium, address, folder, classifier) as visit:
        open_page(visit.page, address)
        assert not visit.page.is_visible("#outlined")
        visit.choose(("box.png", red_on_grey()))
        assert visit.page.is_visible("#outlined")
        box = pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.04)
        assert visit.page.evaluate(ORANGE, "#cards canvas") == box
        visit.page.click("#cards button.thumbnail")
        visit.page.wait_for_selector("#larger[open]")
        assert visit.page.evaluate(ORANGE, "#larger-picture") == box


def test_a_model_that_finds_nothing_draws_nothing(visit):
    """The page of a model without a mask says no word of outlines."""
    visit.choose(("box.png", red_on_grey()))
    assert visit.page.evaluate(ORANGE, "#cards canvas") is None and not visit.page.is_visible("#outlined")


def strips(visit) -> list[list[list]]:
    """Return the names, figures and photos' widths of the strip below each answer."""
    return visit.page.locator("#cards > li").evaluate_all("""cards => cards.map(card =>
        [...card.querySelectorAll('.nearest li')].map(each => [each.querySelector('bdi').textContent,
            Number(each.querySelector('.small').textContent), each.querySelector('img').naturalWidth]))""")


def test_the_nearest_known_photos_stand_below_each_answer(chromium, make_page):
    """They are those of `nearest`, by name and similarity, each with its photo; no rule of the page is broken."""
    folder, classifier = make_page(WHALES, knows=known_whales())
    contents = [photo(WHALES["Dot"], seed=7), photo(GREY, seed=8)]
    with served(folder) as address, visited(chromium, address, folder, classifier) as visit:
        open_page(visit.page, address)
        assert visit.page.is_visible("#known")
        visit.choose(("dot.jpg", contents[0]), ("grey.jpg", contents[1]), ("broken.jpg", b"no photo"))
        visit.page.wait_for_function("[...document.querySelectorAll('.nearest img')].every(one => one.complete)")
        *shown, none = strips(visit)
        for strip, answer in zip(shown, classifier.nearest(contents), strict=True):
            assert [(name, width) for name, _, width in strip] == [(known.label, 90) for known in answer.individuals]
            alike = [known.similarity for known in answer.individuals]
            assert [figure for _, figure, _ in strip] == pytest.approx(alike, abs=0.02)
        assert none == [] and len(shown[0]) == 5 and shown[0][0][0] == "Dot"
        assert visit.page.locator(".unsure").text_content() == "Not one of the known ones, or not sure"
        assert "1 not one of the known ones, or not sure" in visit.text("#summary")
        assert [line for line in visit.said if "Content Security Policy" in line] == []
        for width, height in ((390, 844), (1366, 768)):
            visit.page.set_viewport_size({"width": width, "height": height})
            assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert Axe().run(visit.page).response["violations"] == []
        visit.page.screenshot(path=SCREENSHOTS / "page-known-photos.png")


def test_the_known_photos_are_there_without_a_network(chromium, make_page):
    """Kept at the first visit, they stand below answers at the next one, which has no network."""
    folder, classifier = make_page(WHALES, knows=known_whales())
    with served(folder) as address, visited(chromium, address, folder, classifier) as visit:
        open_page(visit.page, address)
        visit.wait_until_kept()
        visit.page.context.set_offline(True)
        open_page(visit.page, address)
        visit.choose(("dot.jpg", photo(WHALES["Dot"])))
        assert len(strips(visit)[0]) == 5


def test_known_photos_that_are_broken_are_told_and_photos_are_judged(chromium, make_page):
    """Cut short on the way to the server: a sentence, and answers as ever."""
    folder, classifier = make_page(WHALES, knows=known_whales())
    (folder / "gallery.safetensors").write_bytes((folder / "gallery.safetensors").read_bytes()[:-9])
    with served(folder) as address, visited(chromium, address, folder, classifier) as visit:
        open_page(visit.page, address)
        assert visit.text("#known").startswith("The known photos cannot be shown: gallery.safetensors is not the file")
        visit.choose(("dot.jpg", photo(WHALES["Dot"])))
        assert strips(visit) == [[]] and visit.text("#cards .label") == "Dot"


def test_a_page_of_kinds_knows_no_photos(visit):
    """No word of known photos, and no strip."""
    visit.choose(("red.jpg", photo()))
    assert not visit.page.is_visible("#known") and strips(visit) == [[]]
