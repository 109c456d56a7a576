"""What the cleaner looks like: readable by everyone, in both themes, and never fooled by a name or an address."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from browser.pages import Grid
from browser.project import ANT, BARE, BROKEN, KANA, MARKUP, NAUGHTY, NOTE, UNLIKE, files
from utils.dataset import read_dataset
from utils.ledger import read_review
from utils.words import share

pytestmark = pytest.mark.browser

# Contrast of each element's own text with what lies behind it, by the formula of WCAG 2; large text is not excepted.
CONTRASTS = """root => {
    const parse = colour => {
        const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour[3] > 250) return colour;
        }
        return [255, 255, 255, 255];
    };
    const found = [];
    for (const element of root.querySelectorAll('*')) {
        const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').trim();
        if (!text || !element.checkVisibility() || element.closest('datalist, :disabled, option')) continue;
        const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
        found.push([text.slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
    }
    return found;
}"""
NAMELESS = """root => [...root.querySelectorAll('button, select, input, a, img')].filter(at => at.checkVisibility()
    && !(at.ariaLabel || at.innerText.trim() || at.labels?.length || at.hasAttribute('alt')))
    .map(at => at.outerHTML.slice(0, 80))"""
OUTSIDE = """root => [...root.querySelectorAll('*')].filter(at => at.checkVisibility()
    && at.getBoundingClientRect().right > root.getBoundingClientRect().right + 1)
    .map(at => at.outerHTML.slice(0, 80))"""
FRAME = """at => {
    const style = getComputedStyle(at);
    return [style.outlineStyle, style.outlineWidth, style.outlineColor, style.boxShadow, style.borderStyle,
            style.borderWidth, style.borderColor].join();
}"""


def low_contrasts(grid) -> list:
    found = grid.root.evaluate(CONTRASTS)
    assert len(found) > 50
    return [(text, round(ratio, 2)) for text, ratio in found if ratio < 4.5]


def decide_some(grid) -> None:
    """Keep ant-00, delete ant-01, move ant-02, select ant-04, leave the rest."""
    grid.show_all()
    grid.focus("ant-00")
    grid.press("k", "d", "3")
    grid.expect_choice("ant-02", KANA)
    grid.focus("ant-04")
    grid.press("Space")
    expect(grid.card("ant-04")).to_have_attribute("aria-selected", "true")


# --- for everyone ------------------------------------------------------------------------------------------------


def test_a_choice_is_told_in_words(desk, screenshot):
    """Nothing by colour alone: a badge says what was chosen, and an undecided card has none."""
    decide_some(desk.grid)
    for key, badge in (("ant-00", "✓ keep"), ("ant-01", "✕ delete"), ("ant-02", f"→ {KANA}")):
        expect(desk.grid.card(key)).to_contain_text(badge)
    text = desk.grid.card("ant-03").inner_text()
    assert not {"✓", "✕"} & set(text) and "→ " + KANA not in text.replace("\n", " ").split(ANT)[0]
    screenshot(desk.page, "decided")


def test_a_card_says_what_the_model_thinks(desk):
    """File, folder, prediction with its confidence, loss and set stand on each card; the note stands above all."""
    expect(desk.grid.root.get_by_text(NOTE, exact=True)).to_be_visible()
    desk.grid.show_all()
    guess, loss = json.loads(
        desk.notebook.execute(
            "n = ids.index('ant-07')\nprint(json.dumps([cleaner.cleaning.predicted(n), cleaner.cleaning.loss(n)]))"
        )
    )
    side = {"train": "training set", "valid": "validation set", "test": "test set"}[
        read_dataset(desk.project)["ant-07"].side
    ]
    said = f"Folder: {ANT}. Model: {guess[0]} ({share(guess[1])})."
    for text in ("ant-07.jpg", said, f"loss {loss:.2f}", side):
        expect(desk.grid.card("ant-07")).to_contain_text(text)


def test_names_for_screen_readers(desk):
    """Each card, button, menu, link and picture has a name; a card's says file, label and choice."""
    decide_some(desk.grid)
    for key, words in (("ant-00", "keep"), ("ant-01", "delete"), ("ant-02", KANA), ("ant-03", "not looked at")):
        name = desk.grid.card(key).get_attribute("aria-label")
        assert name.startswith(f"{key}.jpg, filed as {ANT}, ") and words in name.lower(), name
    desk.grid.open_menu("Filter")
    assert desk.grid.root.evaluate(NAMELESS) == []
    for menu in ("List", "Label", "Set", "Show", "Sort"):
        expect(desk.grid.root.get_by_role("combobox", name=menu, exact=True)).to_be_visible()
        expect(desk.grid.root.get_by_text(menu, exact=True).first).to_be_visible()
    expect(desk.grid.list).to_have_attribute("aria-multiselectable", "true")


def test_focus_and_selection_are_visible(desk):
    """The focused card and a selected one have another frame than the others, and one another's."""
    decide_some(desk.grid)
    desk.grid.focus("ant-06")
    plain, focused, chosen = (desk.grid.card(key).evaluate(FRAME) for key in ("ant-07", "ant-06", "ant-04"))
    assert len({plain, focused, chosen}) == 3


def test_both_themes_can_be_read(desk, screenshot):
    """Every word has a contrast of at least 4.5 with what lies behind it, in JupyterLab's light and dark theme."""
    decide_some(desk.grid)
    shown = "light => document.body.dataset.jpThemeLight === light"
    screenshot(desk.page, "light")
    light = low_contrasts(desk.grid)
    try:
        desk.page.evaluate(THEME, "JupyterLab Dark")
        desk.page.wait_for_function(shown, arg="false")
        desk.page.locator("#jupyterlab-splash").wait_for(state="detached")
        screenshot(desk.page, "dark")
        dark = low_contrasts(desk.grid)
    finally:
        desk.page.evaluate(THEME, "JupyterLab Light")
        desk.page.wait_for_function(shown, arg="true")
    assert (light, dark) == ([], [])


def test_buttons_have_an_edge_where_the_theme_draws_none(desk):
    """VS Code's dark theme gives borders the ground's colour: the edge of a button keeps a contrast of 1.5 with it."""
    desk.grid.show_all()
    edges = desk.grid.root.evaluate(
        """root => {
            const theme = {border: '#2b2b2b', layout: '#313131', 'ui-font': '#cccccc'};
            for (const [part, colour] of Object.entries(theme))
                for (let n = 0; n < 4; n++) root.parentElement.style.setProperty(`--jp-${part}-color${n}`, colour);
            const paper = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
            const light = colour => {
                paper.fillStyle = '#313131';
                paper.fillRect(0, 0, 1, 1);
                paper.fillStyle = colour;
                paper.fillRect(0, 0, 1, 1);
                return (paper.getImageData(0, 0, 1, 1).data[0] / 255) ** 2.2 + 0.05;
            };
            return [...root.querySelectorAll('[role=toolbar] button, [role=gridcell]')]
                .map(at => light(getComputedStyle(at).borderTopColor) / light('#313131'));
        }"""
    )
    assert len(edges) > 20 and min(edges) > 1.5


ROWS = """root => new Set([...root.querySelectorAll('[role=toolbar] :is(button, select, input, summary)')]
    .filter(at => at.checkVisibility()).map(at => Math.round(at.getBoundingClientRect().top / 8))).size"""
IN_VIEW = """root => {
    const panel = root.closest('.jp-WindowedPanel-outer').getBoundingClientRect();
    const inside = at => {
        const box = at.getBoundingClientRect();
        return box.top >= panel.top - 1 && box.bottom <= panel.bottom + 1;
    };
    const scrolls = at => at.checkVisibility() && at.scrollHeight > at.clientHeight + 1
        && /auto|scroll/.test(getComputedStyle(at).overflowY);
    const cards = [...root.querySelectorAll('[role=gridcell]')].filter(inside).length;
    const toolbar = inside(root.querySelector('[role=toolbar]'));
    return [cards, toolbar, [...root.querySelectorAll('*')].filter(scrolls).length];
}"""
OVERLAPS = """root => [...root.querySelectorAll('.fg-help dt')].filter(at => {
    const range = document.createRange();
    range.selectNodeContents(at);
    return range.getBoundingClientRect().right > at.nextSibling.getBoundingClientRect().left;
}).map(at => at.textContent)"""
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name}).then(() => null)"


@pytest.fixture
def sized(desk):
    """Return a function that gives the window a size, and waits until the cards fit it; afterwards it is as before."""

    def give(width: int, height: int) -> None:
        desk.page.set_viewport_size({"width": width, "height": height})
        desk.page.wait_for_timeout(1000)  # the page is asked for anew when the size has settled
        desk.grid.settle()

    yield give
    give(1280, 1300)


def test_a_small_laptop_shows_all_of_it_and_six_cards(desk, sized, screenshot):
    """At 1366 × 768 the toolbar is one row; with six cards it is in view, and nothing in it scrolls by itself."""
    desk.grid.show_all()
    desk.grid.choose("Label", KANA)
    desk.grid.root.evaluate("root => root.querySelectorAll('details').forEach(each => { each.open = false; })")
    sized(1366, 768)
    desk.grid.root.evaluate("root => root.scrollIntoView({block: 'start'})")
    screenshot(desk.page, "laptop")
    assert desk.grid.root.evaluate(ROWS) == 1
    shown, toolbar, scrolling = desk.grid.root.evaluate(IN_VIEW)
    assert (shown >= 6, toolbar, scrolling) == (True, True, 0)


@pytest.mark.parametrize("size", [(390, 844), (683, 384)], ids=["a telephone", "a laptop at 200 %"])
def test_small_windows_leave_it_usable(desk, sized, screenshot, size):
    """Nothing sticks out sideways, no reason is cut, and a picture can be flagged."""
    desk.grid.show_all()
    desk.grid.root.evaluate("root => root.querySelectorAll('details').forEach(each => { each.open = false; })")
    desk.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
    sized(*size)
    screenshot(desk.page, f"window-{size[0]}")
    assert desk.grid.root.evaluate(OUTSIDE) == []
    cut = "root => [...root.querySelectorAll('.fg-reason')].filter(at => at.scrollHeight > at.clientHeight + 1).length"
    assert desk.grid.root.evaluate(cut) == 0
    desk.grid.card("ant-00").get_by_role("button", name="Delete", exact=True).click()
    desk.grid.expect_choice("ant-00", "Delete")


def test_a_toolbar_that_takes_another_line_turns_no_page(desk):
    """What comes above the cards may grow by a line: the page stays, as the next key is for one of its pictures."""
    desk.grid.show_all()
    desk.grid.card("ant-00").evaluate("card => { card.dataset.seen = 'yes'; }")
    bar = desk.grid.root.get_by_role("toolbar", name="Decide", exact=True)
    bar.evaluate("bar => { bar.style.paddingBottom = '90px'; }")
    desk.page.set_viewport_size({"width": 1280, "height": 1305})  # so that the view measures itself
    desk.page.wait_for_timeout(700)  # a window that is being resized has its size after 300 ms
    expect(desk.grid.card("ant-00")).to_have_attribute("data-seen", "yes")
    desk.page.set_viewport_size({"width": 1280, "height": 1300})
    bar.evaluate("bar => { bar.style.paddingBottom = ''; }")


def test_a_menu_closes_when_the_other_opens(desk):
    """An open menu lies over the toolbar: a click, or the focus, elsewhere closes it."""
    desk.grid.show_all()
    menus = desk.grid.root.locator("details.fg-menu[open]")
    desk.grid.open_menu("Filter")
    desk.grid.open_menu("More")
    expect(menus).to_have_count(1)
    desk.grid.focus("ant-00")
    expect(menus).to_have_count(0)


def test_no_rule_of_axe_is_broken(desk, screenshot):
    """axe-core finds nothing, light or dark, with menus and help open; no word of the help lies on another."""
    decide_some(desk.grid)
    desk.grid.root.evaluate("root => root.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert desk.grid.root.evaluate(OVERLAPS) == []
    found = {}
    try:
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            desk.page.evaluate(THEME, theme)
            desk.page.wait_for_function(
                "light => document.body.dataset.jpThemeLight === light", arg=str(theme.endswith("Light")).lower()
            )
            desk.page.locator("#jupyterlab-splash").wait_for(state="detached")
            broken = Axe().run(desk.page, context=".fieldguide-cleaner").response["violations"]
            found |= {f"{theme}, {each['id']}": each["nodes"][0]["html"][:100] for each in broken}
            screenshot(desk.page, "menus-" + theme.split()[1].lower())
    finally:
        desk.page.evaluate(THEME, "JupyterLab Light")
    assert found == {}


def test_a_narrow_window_cuts_nothing_off(desk, screenshot):
    """At 600 pixels the cards wrap and nothing sticks out of the cleaner."""
    decide_some(desk.grid)
    try:
        desk.page.set_viewport_size({"width": 600, "height": 900})
        desk.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        desk.page.wait_for_function("() => document.querySelector('.fieldguide-cleaner').clientWidth < 600")
        screenshot(desk.page, "narrow")
        outside = desk.grid.root.evaluate(OUTSIDE)
    finally:
        desk.page.set_viewport_size({"width": 1280, "height": 1300})
    assert outside == []


# --- the full picture and the page it came from ------------------------------------------------------------------


def test_zoom_shows_the_full_picture_and_takes_keys(desk, screenshot):
    """Enter, z or a click opens the picture large, from its original; keys decide and lead on; Escape closes it."""
    desk.grid.show_all()
    dialog = desk.grid.root.get_by_role("dialog")
    desk.grid.focus("ant-00")
    desk.grid.press("Enter")
    zoom = desk.page.get_by_role("dialog", name="ant-00.jpg", exact=True)
    expect(zoom).to_be_visible()
    desk.page.wait_for_function(
        "at => at.complete && at.naturalWidth > 0", arg=zoom.get_by_role("img").element_handle()
    )
    assert zoom.get_by_role("img").evaluate("at => [at.naturalWidth, at.naturalHeight]") == [1600, 1200]
    screenshot(desk.page, "zoom")
    desk.grid.press("d")
    desk.grid.expect_choice("ant-00", "Delete")
    expect(desk.page.get_by_role("dialog", name="ant-01.jpg", exact=True)).to_be_visible()
    desk.grid.press("ArrowRight")
    expect(desk.page.get_by_role("dialog", name="ant-02.jpg", exact=True)).to_be_visible()
    desk.grid.press("3")
    desk.grid.expect_choice("ant-02", KANA)
    desk.grid.press("Escape")
    expect(dialog).to_have_count(0)
    assert read_review(desk.project) == {"ant-00": "Delete", "ant-02": KANA}
    focused = desk.grid.list.locator("[role=gridcell]:focus")
    expect(focused).to_have_count(1)
    desk.grid.card("ant-05").get_by_role("button", name="Zoom", exact=True).click()
    expect(desk.page.get_by_role("dialog", name="ant-05.jpg", exact=True)).to_be_visible()
    desk.grid.press("Escape")
    expect(desk.grid.card("ant-05")).to_be_focused()


def test_in_the_zoom_a_refusal_and_the_last_picture_are_said(desk, screenshot):
    """What cannot be stored is said where the person looks, and stays when the next picture comes; so does the end."""
    desk.grid.show_all()
    (desk.project.images / ANT / "ant-08.jpg").unlink()
    desk.grid.focus("ant-08")
    desk.grid.press("z", "d")
    zoom = desk.page.get_by_role("dialog", name="ant-09.jpg", exact=True)
    expect(zoom.get_by_role("img", name="ant-09.jpg", exact=True)).to_be_visible()  # the answer after the refusal
    expect(zoom.get_by_role("alert").filter(has_text="Not stored")).to_be_in_viewport()
    screenshot(desk.page, "zoom-refused")
    desk.grid.press("k", "k", "d")
    zoom = desk.page.get_by_role("dialog", name="ant-10.jpg", exact=True)
    expect(zoom.get_by_role("alert").filter(has_text="the last picture")).to_be_in_viewport()
    assert "n turns" not in zoom.get_by_role("alert").inner_text()
    desk.grid.press("Escape", "d")
    expect(desk.grid.alert.filter(has_text="n turns the page")).to_be_visible()
    desk.grid.expect_choice("ant-10", "Keep")
    assert read_review(desk.project) == {"ant-09": "Keep", "ant-10": "Keep"}


def test_the_page_a_picture_came_from_is_a_link_only_if_it_is_a_web_page(desk):
    """http and https addresses are links that tell the page nothing of us; no other address is one."""
    desk.grid.show_all()
    link = desk.grid.card("ant-00").get_by_role("link", name="Page", exact=True)
    expect(link).to_have_attribute("href", 'https://photos.example/ants?id=1&title="<b>"')
    expect(link).to_have_attribute("target", "_blank")
    assert set(link.get_attribute("rel").split()) >= {"noopener", "noreferrer"}
    expect(desk.grid.card("ant-04").get_by_role("link")).to_have_attribute("href", "http://photos.example/ant")
    for key in ("ant-01", "ant-02", "ant-03", "ant-05"):
        expect(desk.grid.card(key).get_by_role("link")).to_have_count(0)


# --- what is not as it should be ---------------------------------------------------------------------------------


def test_a_broken_or_missing_file_is_a_grey_card_that_can_be_decided(desk, screenshot):
    """Each says why in words, the cards around it show their pictures, and a flag on it counts."""
    desk.grid.show_all()
    (desk.project.images / MARKUP / "both-12.jpg").unlink()
    desk.grid.focus("ant-00")
    desk.grid.press("n")
    desk.grid.expect_status("Page 2 of 4")
    desk.grid.press("n")
    desk.grid.expect_status("Page 3 of 4")
    expect(desk.grid.card(BROKEN).get_by_role("img")).to_have_count(0)
    expect(desk.grid.card(BROKEN)).to_contain_text("not a picture")
    images = desk.grid.list.locator("img")
    desk.page.wait_for_function(
        "n => document.querySelectorAll('.fieldguide-cleaner [role=gridcell] img').length >= n", arg=10
    )
    expect(images.first).to_be_visible()
    assert all(images.evaluate_all("all => all.map(at => at.complete && at.naturalWidth > 0)"))
    screenshot(desk.page, "broken")
    desk.grid.focus(BROKEN)
    desk.grid.press("d")
    desk.grid.expect_choice(BROKEN, "Delete")
    assert read_review(desk.project) == {BROKEN: "Delete"}


def test_names_are_text_and_never_markup(desk):
    """A label, a file name or a reason that looks like HTML is shown letter by letter, and runs nothing."""
    desk.grid.show_all()
    expect(desk.grid.card(NAUGHTY)).to_contain_text(f"{NAUGHTY}.jpg")
    expect(desk.grid.card("ant-00").get_by_role("button", name=f"1 {MARKUP}", exact=True)).to_be_visible()
    desk.grid.focus(NAUGHTY)
    desk.grid.press("1")
    desk.grid.expect_choice(NAUGHTY, MARKUP)
    expect(desk.grid.card(NAUGHTY)).to_contain_text(f"→ {MARKUP}")
    desk.grid.choose("List", UNLIKE)
    expect(desk.grid.card(NAUGHTY)).to_contain_text(f"because of {NAUGHTY} & <i>more</i>")
    desk.grid.focus(NAUGHTY)
    desk.grid.press("Enter")
    expect(desk.page.get_by_role("dialog", name=f"{NAUGHTY}.jpg", exact=True)).to_be_visible()
    desk.grid.press("Escape")
    assert desk.page.evaluate("() => window.hacked") is None
    assert desk.grid.root.locator('img[src="x"], i, b').count() == 0


def test_without_a_project_labels_are_text_too_and_nothing_is_moved(desk):
    """Of a learner alone, any label is text; flags are read by delete() and change(), and there is no Apply."""
    before = files(desk.project.images)
    desk.notebook.write_last_cell(BARE)
    try:
        desk.notebook.run_all()
        bare = Grid(desk.page, 1)
        bare.choose("Sort", "File name")
        bare.expect_status("Page 1 of 1, 4 pictures")
        first, second, third = bare.shown()[:3]
        expect(bare.card(first)).to_contain_text("<b>bold</b> & co")
        bare.focus(first)
        bare.press("3", "d", "2")
        bare.expect_choice(second, "Delete")
        bare.expect_choice(third, "constructor")
        expect(bare.card(third)).to_contain_text("→ constructor")
        expect(bare.card(first)).to_contain_text("→ <script>window.hacked=1</script>")
        for name in ("Apply (2)", "Take back the last Apply (0)"):
            expect(bare.button(name)).to_have_count(0)
        said = desk.notebook.execute("print(bare.delete(), bare.change())")
    finally:
        desk.notebook.revert()
    assert said.strip() == "[1] [(0, '<script>window.hacked=1</script>'), (2, 'constructor')]"
    assert desk.page.evaluate("() => window.hacked") is None
    assert files(desk.project.images) == before


def test_the_saved_notebook_holds_no_pictures(desk):
    """With the state of its widgets saved, the notebook stays small, and no thumbnail is in it."""
    desk.grid.show_all()
    desk.grid.focus("ant-00")
    desk.grid.press("n")
    desk.grid.expect_status("Page 2 of 4")
    desk.notebook.save()
    saved = json.loads(desk.notebook.path.read_text(encoding="utf-8"))
    assert "widgets" in saved["metadata"], "JupyterLab saved no widget state: this test would prove nothing"
    models = saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    state = [model["state"] | {"_esm": "", "_css": ""} for model in models if model["model_module"] == "anywidget"]
    shown = [cell.get("outputs") for cell in saved["cells"]]
    assert state and len(json.dumps([state, shown])) < 20_000
    assert "/9j/" not in json.dumps([state, shown])  # how a JPEG begins in base64
