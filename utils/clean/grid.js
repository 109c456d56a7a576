// The browser's half of the cleaner's grid; grid.py is the kernel's half.
//
// Asks the kernel, and shows what it answers: nothing is decided here, and a choice shows once it is stored. Each
// request carries the view's name and a serial, so that an answer to an older request is dropped. Whatever came from
// a file's name, a label or the web is put in as text, never as markup.

const SETTLED = 300; // milliseconds after which a window that is being resized has its size
const BESIDE = 60; // pixels that a notebook and the help need around the cards
const LOW = 400; // pixels: a frame of fewer grows with what is in it, as Colab's does, and says nothing of the screen
const PATIENCE = 10_000; // milliseconds until a silent kernel is reported
const SILENT = "The kernel has not answered for 10 seconds: it is busy with another cell, or was stopped.";
const AGAIN = "run all cells above this one, then this one";
const GONE = `The kernel is gone. To go on, ${AGAIN}. Every choice that is shown here is stored, and nothing was applied by itself.`;

// Why the next key decides nothing until the person has moved to a picture.
const LAST = "That was the last picture of this page";
const CHANGED = "The page has changed";

const HELP = [
  ["Arrows, Home, End", "move"],
  ["Shift + arrows", "select a range"],
  ["Space, Ctrl + A, Esc", "select one, all, none"],
  ["k, d, 1–9", "keep (or take back), delete, move to that label"],
  ["0, u", "not looked at, undo the last choice"],
  ["n, p", "next, previous page"],
  ["Enter or z, o", "zoom, open its web page"],
];
const MORE = [ // where the kernel knows what looks alike
  ["m, b", "more pictures like this one, back to where you were"],
];
const FILING = [ // where a list of photos without a label may be offered
  ["Enter, Shift + Enter", "without a label: accept what is proposed for the photo, for all shown"],
];
const PAGES = ["page", "hello", "like", "leave"]; // requests that are answered by a page
const PAUSE = 5_000; // milliseconds without a label given, after which the filed photos are judged
const UNPROPOSED = "Nothing is proposed for this photo: press the number of its label, or z to see it in full.";
const COMPLETE = "Every photo of this page has its label";

// Choices in words and as signs; any other choice is a label, which may be called like a method of an object.
const WORDS = new Map([["", "not looked at"], ["Keep", "keep"], ["Delete", "delete"]]);
const SIGNS = new Map([["", ""], ["Keep", "✓ keep"], ["Delete", "✕ delete"]]);

const inWords = (choice) => WORDS.get(choice) ?? `move to ${choice}`;
const badge = (choice) => (SIGNS.has(choice) ? [SIGNS.get(choice)] : ["→ ", name(choice)]);

/** The key that was pressed, as on a Latin keyboard: k is where it is on any, and 1 too where it needs Shift. */
function pressed({ key, code, shiftKey }) {
  if (key.length > 1 || /^[a-z0-9]$/i.test(key)) return key.length > 1 ? key : key.toLowerCase();
  if (/^Digit/.test(code) && !shiftKey) return code.at(-1);
  return /^Key/.test(code) && /^[^\x00-\x7f]/.test(key) ? code.at(-1).toLowerCase() : key;
}

const SETS = { train: "training set", valid: "validation set", test: "test set" };

/** Folder and model, in bold where they differ; the reason, as far as it says more; loss and set. */
function facts(card) {
  if (card.outside) {
    const { list, reason } = card.outside;
    if (card.unlabelled) return [looksLike(card)];
    return [
      element("div", { className: "fg-label fg-differs", textContent: `${list}.` }),
      element("div", { className: "fg-small fg-reason", textContent: reason, title: reason }),
    ];
  }
  const confidence = element("span", { className: "fg-whole", textContent: `(${card.confidence}).` });
  const said = card.predicted === null ? [] : [" Model: ", name(card.predicted), " ", confidence];
  const differs = card.predicted !== null && card.predicted !== card.label;
  const loss = card.loss === null ? [] : [`loss ${card.loss.toFixed(2)}`];
  const line = element("div", { className: differs ? "fg-label fg-differs" : "fg-label" }, "Folder: ", name(card.label), ".", ...said);
  const more = card.reason.startsWith(line.textContent) ? card.reason.slice(line.textContent.length).trim() : card.reason;
  return [
    line,
    element("div", { className: "fg-small fg-reason", textContent: more, title: more }),
    element("div", { className: "fg-small", textContent: [...loss, SETS[card.side] ?? "in no set yet"].join(" · ") }),
  ];
}

/** What is proposed for a photo without a label. */
function looksLike({ proposed }) {
  const said = proposed ? ["Looks like ", name(proposed[0]), " ", element("span", { className: "fg-whole", textContent: `(${proposed[1]})` })] : ["Without a label."];
  return element("div", { className: "fg-label" }, ...said);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function link(card) {
  if (!/^https?:\/\//i.test(card.page)) return [];
  const title = `Open ${card.page} in a new tab`;
  return [element("a", { href: card.page, target: "_blank", rel: "noopener noreferrer", textContent: "Page", title, tabIndex: -1 })];
}

class Grid {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.id = `v${Math.random().toString(36).slice(2)}`;
    this.serial = 0; // of the last request
    this.turn = 0; // of the last request for a page: older pages are dropped
    this.waiting = new Map(); // serial → what was asked, and the keys of the cards that are being saved
    this.cards = []; // { facts, node, thumbnail } of the page, in its order
    this.active = 0; // the card that the keys are for
    this.offered = ""; // the key of the picture whose look-alikes are offered
    this.offering = 0; // serial of the choice that may be answered by an offer: the person has done nothing since
    this.past = ""; // why the next key must not decide for the active card, or ""
    this.looking = false; // whether the zoom is open, or about to give the focus back
    this.silent = false; // whether the alert is that the kernel is silent: its next answer ends that
    this.anchor = 0; // where a range began
    this.before = []; // keys that were selected then
    this.selected = new Set(); // keys
    this.page = { page: 0, pages: 1 }; // as the kernel told it
    this.movable = { apply: 0, back: 0 }; // how many pictures each button would move
    this.aim = 0; // the page asked for last: n pressed twice in haste turns two
    this.labels = [];
    this.build();
    this.onMessage = (message, buffers) => this.receive(message, buffers ?? []);
    this.onGone = () => {
      for (const serial of [...this.waiting.keys()]) this.settle(serial);
      this.say(GONE);
    };
    model.on("msg:custom", this.onMessage);
    model.on("comm:close", this.onGone);
    this.framed = null; // width of the list and height of its frame, in pixels, when a page was last asked to fit
    this.room = null; // width and height, in pixels, that the cards have
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(this.list);
    this.onResize = () => this.measure();
    window.addEventListener("resize", this.onResize);
  }

  remove() {
    this.observer.disconnect();
    window.removeEventListener("resize", this.onResize);
    for (const event of ["pointerdown", "focusin"]) document.removeEventListener(event, this.onOutside);
    clearTimeout(this.resizing);
    clearTimeout(this.settling);
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm:close", this.onGone);
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.zoom.close();
    this.forget();
  }

  // --- the room that the cards have ---

  /** Return the width of the list and the height of the window or panel that it lies in. */
  frame() {
    const panel = this.root.closest(".jp-WindowedPanel-outer, .jp-Notebook");
    const height = panel?.clientHeight || window.innerHeight;
    return { width: this.list.clientWidth, height: height < LOW ? screen.availHeight * 0.7 : height };
  }

  /** Return width and height of what is left for the cards, below the toolbar as it is now. */
  left({ width, height }) {
    const above = this.list.getBoundingClientRect().top - this.section.getBoundingClientRect().top;
    return [width, Math.round(height - above - BESIDE)];
  }

  /**
   * Ask for a page that fits: at once when the view comes to its place, later when its size has settled. A toolbar or
   * a sentence that takes another line is no reason: the page would change under the next key.
   */
  measure() {
    const frame = this.frame();
    const room = this.left(frame);
    if (room[0] <= 0 || room[1] <= 0) return;
    const before = this.framed;
    if (before && Math.abs(before.width - frame.width) < 20 && Math.abs(before.height - frame.height) < 40) return;
    this.framed = frame;
    this.room = room;
    if (!before) this.ask("hello", { room });
    else {
      clearTimeout(this.resizing);
      this.resizing = setTimeout(() => this.open(this.page.page), SETTLED);
    }
  }

  /** The kernel's first answer has filled the toolbar: if that took another line, ask for a page that still fits. */
  fit() {
    const room = this.left(this.frame());
    if (room[1] <= 0 || Math.abs(room[1] - this.room[1]) < 20) return;
    this.room = room;
    this.open(this.page.page);
  }

  // --- the page's parts, made once ---

  build() {
    const toolbar = this.buildToolbar(this.buildFilters());
    this.counts = element("span", { textContent: "Waiting for the kernel…" });
    this.place = element("span");
    this.picked = element("span");
    const status = element("p", { className: "fg-status", aria: { role: "status", live: "polite" } }, this.counts, this.place, this.picked);
    // Twice: what is said outside a dialog is neither seen nor read out while it is open.
    this.alerts = [0, 1].map(() => element("p", { className: "fg-alert", aria: { role: "alert" } }));
    this.buildList();
    this.buildZoom();
    this.note = element("p", { className: "fg-note" });
    const section = { className: "fieldguide-cleaner", dataset: { lmSuppressShortcuts: "true" }, aria: { label: "Picture cleaner" } };
    this.section = element("section", section, this.note, toolbar, status, this.alerts[0], this.list, this.buildHelp(), this.zoom);
    this.root.replaceChildren(this.section);
    this.onOutside = (event) => this.menus.forEach((menu) => event.composedPath().includes(menu) || (menu.open = false));
    for (const event of ["pointerdown", "focusin"]) document.addEventListener(event, this.onOutside);
    this.root.addEventListener("keydown", (event) => {
      // A key that is held down must not press a button again and again: each time it would decide for the next card.
      if (event.repeat && event.key === "Enter" && event.target.closest("button")) event.preventDefault();
      // Plain keys are the grid's own: where a front-end listens further out, they insert or delete cells.
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
  }

  buildFilters() {
    const all = { list: "All pictures", label: "All labels", side: "All sets", show: "All", sort: "Worst first" };
    this.selects = Object.fromEntries(
      Object.entries(all).map(([part, textContent]) => [
        part,
        element("select", { id: `${this.id}-${part}`, disabled: true }, element("option", { textContent, value: "" })),
      ]),
    );
    return Object.entries(this.selects).map(([part, select]) => {
      select.addEventListener("change", () => this.open(0));
      const text = capital(part === "side" ? "set" : part);
      return element("div", { className: "fg-field" }, element("label", { htmlFor: select.id, textContent: text }), select);
    });
  }

  /** A menu that opens below its name; Escape, or a click or the focus elsewhere, closes it. */
  buildMenu(text, ...parts) {
    const menu = element("details", { className: "fg-menu" }, element("summary", { textContent: text }), element("div", { className: "fg-drop" }, ...parts));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      menu.open = false;
      menu.firstChild.focus();
    });
    return menu;
  }

  buildToolbar([list, ...filters]) {
    this.previous = button("‹", () => this.open(this.aim - 1), { ariaLabel: "Previous page", title: "Previous page (p)" });
    this.next = button("›", () => this.open(this.aim + 1), { ariaLabel: "Next page", title: "Next page (n)" });
    this.undo = button("Undo", () => this.awaits("undo") || this.ask("undo"), {
      ariaLabel: "Undo last choice",
      title: "Take back the last choice made here (u). Files that were moved stay where they are",
    });
    this.apply = button("Apply (0)", () => this.moveFiles("apply"), {
      className: "fg-apply",
      hidden: true,
      title: "Move the files as flagged: to another label's folder, or to the trash",
    });
    this.back = button("Take back the last Apply (0)", () => this.moveFiles("back"), {
      hidden: true,
      title: "Move the files of the last Apply back to where they were; choose again afterwards",
    });
    const all = button("Select all on this page", () => this.select(this.cards.map((card) => card.facts.key)));
    const keep = button("Keep", () => this.decide("Keep"), { title: "Keep what is selected, or the picture in focus (k)" });
    const remove = button("Delete", () => this.decide("Delete"), { title: "Delete what is selected, or the picture in focus (d)" });
    this.return = button("←", () => this.goBack(), { className: "fg-return", hidden: true });
    const group = (...parts) => element("div", { className: "fg-group" }, ...parts);
    this.menus = [this.buildMenu("Filter", ...filters), this.buildMenu("More", all, this.back)];
    return element(
      "div",
      { className: "fg-bar", aria: { role: "toolbar", label: "Decide" } },
      group(this.return, list, this.menus[0]),
      group(this.previous, this.next),
      group(keep, remove, this.buildAccept(keep, remove), this.buildMove()),
      group(this.undo, this.apply, this.menus[1]),
    );
  }

  /** A button in place of Keep and Delete, where photos have no label yet. */
  buildAccept(...instead) {
    this.acceptAll = button("Accept all shown", () => this.accept(this.unfiled()), {
      hidden: true,
      title: "File every photo of this page that has no label yet under the one proposed for it (Shift + Enter)",
    });
    this.instead = instead;
    return this.acceptAll;
  }

  buildMove() {
    this.target = element("input", { id: `${this.id}-move`, autocomplete: "off", placeholder: "Move to …", ariaLabel: "Move to" });
    this.target.addEventListener("keydown", (event) => event.key === "Enter" && !event.repeat && this.move());
    this.offers = element("datalist", { id: `${this.id}-labels` });
    this.target.setAttribute("list", this.offers.id);
    const title = "Move what is selected, or the picture in focus, to this label";
    return element("div", { className: "fg-field" }, this.target, this.offers, button("Move", () => this.move(), { title }));
  }

  buildList() {
    // Cells of a grid may hold buttons, options of a list may not. To a screen reader all cards are one row.
    this.row = element("div", { className: "fg-row", aria: { role: "row" } });
    this.list = element("div", { className: "fg-grid", aria: { role: "grid", multiselectable: "true", label: "Pictures" } }, this.row);
    // Not as properties of the element: there, a handler that returns false would swallow the event.
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("click", (event) => this.click(event));
    this.list.addEventListener("dblclick", (event) => event.target.closest(".fg-picture") && this.look(this.active));
    this.list.addEventListener("focusin", (event) => this.follow(event));
  }

  buildHelp() {
    this.keys = element("dl");
    this.explain(HELP);
    return element("details", { className: "fg-help" }, element("summary", { textContent: "Keys, with the focus on a picture" }), this.keys);
  }

  explain(keys) {
    this.keys.append(...keys.map(([key, what]) => element("div", {}, element("dt", { textContent: key }), element("dd", { textContent: what }))));
  }

  buildZoom() {
    this.large = element("div", { className: "fg-large" });
    this.about = element("div", { className: "fg-about" });
    this.decisions = element("div", { className: "fg-buttons" });
    const step = (by) => () => this.look(this.active + by);
    this.zoom = element(
      "dialog",
      { className: "fg-zoom", tabIndex: -1 },
      this.large,
      element(
        "div",
        { className: "fg-aside" },
        this.about,
        this.decisions,
        element("div", { className: "fg-group" }, button("Previous picture", step(-1)), button("Next picture", step(1)), button("Close", () => this.zoom.close())),
        this.alerts[1],
      ),
    );
    this.zoom.addEventListener("keydown", (event) => this.keyInZoom(event));
    this.zoom.addEventListener("close", () => this.leave());
  }

  // --- talking with the kernel ---

  /** Send a request; return whether it could be sent. What was said before is done with, unless this is only to look. */
  ask(what, details = {}, keys = []) {
    const serial = ++this.serial;
    if (PAGES.includes(what)) {
      this.turn = serial;
      this.list.setAttribute("aria-busy", "true");
    }
    if (what !== "hello" && what !== "zoom") this.withdraw();
    if (what === "flag") this.offering = serial;
    const timer = setTimeout(() => this.tooLong(serial), PATIENCE);
    this.waiting.set(serial, { what, keys, timer });
    this.mark(keys, true);
    this.disable();
    try {
      this.model.send({ ask: what, view: this.id, serial, ...details });
    } catch (error) {
      this.settle(serial);
      this.aim = this.page.page;
      console.warn(error);
      this.say(`The kernel cannot be reached, and nothing was stored now. To go on, ${AGAIN}; what was stored before is kept.`);
      return false;
    }
    return true;
  }

  awaits(what) {
    return [...this.waiting.values()].some((request) => request.what === what);
  }

  /** Have files moved, unless there are none to move or the last request of this kind is not answered yet. */
  moveFiles(what) {
    if (this.movable[what] && !this.awaits("apply") && !this.awaits("back")) this.ask(what);
  }

  /** These buttons wait for their answer; only in name, as a button that is really disabled loses the focus. */
  disable() {
    const moving = this.awaits("apply") || this.awaits("back");
    const disabled = { undo: this.awaits("undo"), apply: moving || !this.movable.apply, back: moving || !this.movable.back };
    for (const [part, off] of Object.entries(disabled)) this[part].setAttribute("aria-disabled", String(off));
  }

  /** Let the two buttons that move files say how many. */
  countMoves({ pending, applied }) {
    this.movable = { apply: pending, back: applied };
    this.write(this.apply, `Apply (${pending.toLocaleString("en")})`);
    this.write(this.back, `Take back the last Apply (${applied.toLocaleString("en")})`);
    this.disable();
  }

  tooLong(serial) {
    const { what } = this.waiting.get(serial);
    this.aim = this.page.page;
    if (!["undo", "apply", "back", "bring"].includes(what)) this.settle(serial);
    if (what === "flag") this.say(`${SILENT} Your last choice shows once it is stored. If the kernel was stopped or restarted, ${AGAIN}.`);
    else if (what === "hello") this.say(`${SILENT} The pictures show when it is idle; if it was stopped or restarted, ${AGAIN}.`);
    else this.say(`${SILENT} It will be done when the kernel is idle.`);
    this.silent = true;
  }

  /** A request is answered, or given up: its cards show what they hold. */
  settle(serial) {
    const { keys, timer } = this.waiting.get(serial);
    clearTimeout(timer);
    this.waiting.delete(serial);
    const still = new Set([...this.waiting.values()].flatMap((request) => request.keys));
    this.mark(keys.filter((key) => !still.has(key)), false);
    this.disable();
    this.list.setAttribute("aria-busy", String(this.waiting.has(this.turn)));
  }

  receive(message, buffers) {
    const mine = message.view === this.id;
    const asked = mine && [...PAGES, "apply", "back", "bring", "settle"].includes(this.waiting.get(message.serial)?.what);
    // Answers come in order: whatever was asked earlier was lost, as when a cell failed before its turn.
    for (const serial of [...this.waiting.keys()]) if (mine && serial <= message.serial) this.settle(serial);
    if (message.tell === "page" && mine && message.serial < this.turn) return;
    if (message.tell === "page" && message.setup) this.setUp(message.setup);
    if (message.tell === "page") this.show(message, buffers, asked);
    if (message.tell === "flags") this.flagged(message, mine);
    if (mine && message.offer && message.serial === this.offering) this.offered = message.offer;
    if (message.tell === "zoom" && mine) this.enlarge(message, buffers);
    this.write(this.counts, message.counts);
    this.write(this.place, message.place);
    this.countMoves(message);
    this.settleLater(message.unjudged ?? 0);
    // An answer with nothing to say leaves what an earlier one said.
    if (message.alert || this.silent) this.say(message.alert ?? "");
    if (message.tell === "page" && message.setup) this.fit();
  }

  setUp(setup) {
    this.labels = setup.labels;
    if (setup.alike && !this.alike) this.explain(MORE);
    this.alike = setup.alike;
    if (setup.labelling && !this.labelling) this.explain(FILING);
    this.labelling = setup.labelling;
    this.write(this.note, setup.note);
    this.offer("label", setup.labels.map((each) => [each, each]));
    this.offer("side", setup.sides.map((each) => [capital(SETS[each]), each]));
    this.offer("show", setup.shows.map((each) => [each, each]));
    this.selects.sort.replaceChildren(...setup.sorts.map((each) => element("option", { textContent: each, value: each })));
    for (const select of Object.values(this.selects)) select.disabled = false;
    this.offers.replaceChildren(...setup.labels.map((value) => element("option", { value })));
    for (const moving of [this.apply, this.back]) moving.hidden = !setup.project;
    this.list.style.setProperty("--fg-width", `${Math.max(setup.width, 160)}px`);
  }

  /** Let a menu offer all, which is its first option, and these texts with their values. */
  offer(part, entries) {
    const [all] = this.selects[part].options;
    this.selects[part].replaceChildren(all, ...entries.map(([textContent, value]) => element("option", { textContent, value })));
  }

  // --- showing ---

  open(page) {
    if (page < 0 || page >= this.page.pages) return;
    this.aim = page;
    const chosen = Object.fromEntries(Object.entries(this.selects).map(([part, select]) => [part, select.value]));
    this.ask("page", { ...chosen, page, ...(this.room ? { room: this.room } : {}) });
  }

  /** Show a page, `asked` for by this view; on another one, the keys wait until the person has seen it. */
  show(page, buffers, asked) {
    const before = document.activeElement;
    const first = !this.cards.length;
    const again = page.page === this.page.page && page.cards.map((each) => each.key).join() === this.cards.map((each) => each.facts.key).join();
    if (this.zoom.open && !again) this.zoom.close();
    this.page = page;
    this.aim = page.page;
    this.offer("list", page.lists.map(([each, count]) => [`${each} (${count.toLocaleString("en")})`, each]));
    for (const [part, select] of Object.entries(this.selects)) select.value = page.chosen[part];
    for (const option of this.selects.sort.options) this.write(option, (option.value === "Worst first" && page.order) || option.value);
    this.return.hidden = !page.back;
    this.return.title = `${page.back} (b)`;
    this.return.setAttribute("aria-label", page.back);
    const inGrid = this.list.contains(before) || before === this.return;
    const turning = [this.previous, this.next];
    this.forget();
    const pictures = [...buffers];
    this.cards = page.cards.map((each, place) => this.card(each, place, each.problem ? null : pictures.shift()));
    this.list.style.setProperty("--fg-height", `${page.height}px`);
    this.row.replaceChildren(...this.cards.map((card) => card.node));
    const filing = this.cards.some((card) => card.facts.unlabelled);
    this.acceptAll.hidden = !filing;
    for (const each of this.instead) each.hidden = filing;
    this.previous.disabled = page.page === 0;
    this.next.disabled = page.page === page.pages - 1;
    this.select(again ? [...this.selected] : []);
    for (const { keys } of this.waiting.values()) this.mark(keys, true);
    const focus = page.focus ? this.cards.findIndex((card) => card.facts.key === page.focus) : -1;
    if (!again) this.begin(Math.max(focus, 0));
    const past = again ? this.past : asked || first ? "" : CHANGED;
    this.go(focus >= 0 ? focus : again ? this.active : 0, { focus: inGrid || (turning.includes(before) && before.disabled), past });
  }

  card(each, place, buffer) {
    const thumbnail = buffer ? URL.createObjectURL(new Blob([buffer], { type: "image/jpeg" })) : null;
    const picture = thumbnail
      ? element("img", { src: thumbnail, alt: "", draggable: false })
      : element("div", { className: "fg-broken", textContent: each.problem });
    const about = `${this.id}-about-${place}`;
    const node = element(
      "div",
      { className: "fg-card", tabIndex: -1, aria: { role: "gridcell", selected: "false", describedby: about }, dataset: { key: each.key } },
      element("div", { className: "fg-picture" }, picture, element("span", { className: "fg-badge" }), ...this.moreLike(each, -1), ...(thumbnail ? [button("Zoom", () => this.look(place), { tabIndex: -1 })] : [])),
      element("div", { className: "fg-file" }, element("bdi", { textContent: each.file, title: each.file }), ...link(each)),
      element("div", { id: about }, ...facts(each)),
      element("div", { className: "fg-buttons" }, ...this.buttons(each)),
    );
    const card = { facts: each, node, thumbnail };
    this.label(card, each.choice);
    return card;
  }

  moreLike(each, tabIndex) {
    if (!this.alike || each.outside) return [];
    const title = "Show the pictures that look most like this one (m)";
    return [button("Like this", () => this.like(each.key), { ariaLabel: "More like this", className: "fg-alike", tabIndex, title })];
  }

  /** Keep, Delete, and the first nine labels but its own, by their numbers. */
  buttons(each, tabIndex = -1) {
    const make = (choice, title, ...text) => {
      const made = button("", () => this.decide(choice, [each.key]), { tabIndex, title, dataset: { choice } });
      made.append(...text);
      return made;
    };
    const moves = this.labels.slice(0, 9).map((label, place) => make(label, `Move to ${label} (${place + 1})`, `${place + 1} `, name(label)));
    if (each.unlabelled) return this.proposing(each, moves, make);
    if (each.outside) {
      const { action } = each.outside;
      return [...(action ? [make("Keep", `${action} (k)`, action)] : []), ...moves];
    }
    return [make("Keep", "Keep (k)", "Keep"), make("Delete", "Delete (d)", "Delete"), ...moves.filter((made) => made.dataset.choice !== each.label)];
  }

  /** Open a list of what looks like a picture. */
  like(key) {
    this.ask("like", { key, from: this.cards[this.active]?.facts.key });
  }

  /** Show what the open list was opened from; pressed twice in haste, this goes back once. */
  goBack() {
    if (!this.awaits("leave")) this.ask("leave");
  }

  /** What was said is done with, and so is an offer. */
  withdraw() {
    this.offered = "";
    this.offering = 0;
    this.say("");
  }

  /** An offer is for the next key; whatever else the person does, m is for the picture in focus again. */
  unoffer(key) {
    if (key === "m" || ["Shift", "Control", "Alt", "Meta"].includes(key)) return;
    this.offering = 0;
    if (this.offered) this.withdraw();
  }

  /** Mark the button of the proposed label; one beyond the first nine gets a button, too. */
  proposing({ proposed }, moves, make) {
    if (!proposed) return moves;
    const [label] = proposed;
    const known = moves.find((made) => made.dataset.choice === label);
    const mine = known ?? make(label, "", name(label));
    mine.title = `Accept ${label} (Enter)`;
    mine.classList.add("fg-proposed");
    return known ? moves : [mine, ...moves];
  }

  /** Let cards show what is proposed by now; not the one in focus: Enter accepts what the person reads there. */
  propose(proposals) {
    const focused = this.cards[this.active];
    for (const card of this.cards) {
      const { facts: each, node } = card;
      if (!Object.hasOwn(proposals, each.key) || each.choice || (card === focused && each.proposed)) continue;
      each.proposed = proposals[each.key];
      node.querySelector(".fg-label").replaceWith(looksLike(each));
      node.querySelector(".fg-buttons").replaceChildren(...this.buttons(each));
    }
  }

  /** Let a card show a choice. */
  label(card, choice) {
    const { facts, node } = card;
    facts.choice = choice ?? "";
    node.dataset.choice = facts.choice;
    node.setAttribute("aria-label", `${facts.file}, ${facts.outside ? facts.outside.list : `filed as ${facts.label}, ${inWords(facts.choice)}`}`);
    node.querySelector(".fg-badge").replaceChildren(...badge(facts.choice));
    this.press(node, facts.choice);
  }

  /** Let the buttons within a part of the page show a choice. */
  press(part, choice) {
    for (const each of part.querySelectorAll("button[data-choice]")) each.setAttribute("aria-pressed", String(each.dataset.choice === choice));
  }

  flagged(message, mine) {
    for (const card of this.cards) {
      if (Object.hasOwn(message.choices, card.facts.key)) this.label(card, message.choices[card.facts.key]);
    }
    if (mine && message.proposals) this.propose(message.proposals);
    const undone = this.cards.findIndex((card) => card.facts.key === message.first);
    if (mine && message.undone && undone >= 0) this.go(undone, { focus: this.list.contains(document.activeElement) });
    if (this.zoom.open) this.describe();
  }

  mark(keys, saving) {
    for (const card of this.cards) {
      if (keys.includes(card.facts.key)) card.node.classList.toggle("fg-saving", saving);
    }
  }

  /** Release the pictures of the page that is left. */
  forget() {
    for (const card of this.cards) if (card.thumbnail) URL.revokeObjectURL(card.thumbnail);
    this.drop();
  }

  say(text) {
    this.silent = false;
    for (const alert of this.alerts) this.write(alert, text);
  }

  write(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  // --- focus and selection ---

  go(place, { focus = true, past = "" } = {}) {
    if (!this.cards.length) return;
    this.active = Math.min(Math.max(place, 0), this.cards.length - 1);
    this.past = past;
    this.cards.forEach(({ node }, n) => (node.tabIndex = n === this.active ? 0 : -1));
    const { node } = this.cards[this.active];
    if (focus) node.focus();
  }

  select(keys) {
    this.selected = new Set(keys);
    for (const { facts, node } of this.cards) node.setAttribute("aria-selected", String(this.selected.has(facts.key)));
    this.write(this.picked, this.selected.size ? `${this.selected.size} selected` : "");
  }

  /** Let a range begin at a card, beside what is selected already. */
  begin(place) {
    this.anchor = place;
    this.before = [...this.selected];
  }

  extend(place) {
    const range = this.cards.slice(Math.min(this.anchor, place), Math.max(this.anchor, place) + 1);
    this.select([...this.before, ...range.map((card) => card.facts.key)]);
  }

  toggle(place) {
    const { key } = this.cards[place].facts;
    const rest = [...this.selected].filter((each) => each !== key);
    this.select(rest.length < this.selected.size ? rest : [...rest, key]);
    this.begin(place);
  }

  placeOf(node) {
    const card = node.closest?.(".fg-card");
    return this.cards.findIndex((each) => each.node === card);
  }

  follow(event) {
    const place = this.placeOf(event.target);
    // A dialog that closes gives the focus back to where it was opened, not to the picture that was looked at last.
    if (place >= 0 && place !== this.active && !this.looking) this.go(place, { focus: false });
  }

  click(event) {
    const place = this.placeOf(event.target);
    if (place < 0 || event.target.closest("button, a")) return;
    if (this.offered) this.withdraw();
    if (event.shiftKey) this.extend(place);
    else if (event.ctrlKey || event.metaKey) this.toggle(place);
    else {
      this.select([]);
      this.begin(place);
    }
    this.go(place);
  }

  // --- deciding ---

  /** Ask for one choice for some cards, and go on to the next. */
  decide(choice, keys = this.subject()) {
    if (!keys.length) return;
    const places = keys.map((key) => this.cards.findIndex((card) => card.facts.key === key));
    const outside = places.map((place) => this.cards[place].facts.outside).filter(Boolean);
    if (places.every((place) => this.cards[place].facts.unlabelled)) return this.file(choice, keys, places);
    if (outside.length) return this.bring(choice, keys, outside);
    if (this.ask("flag", { keys, choice }, keys)) this.onward(keys, places);
  }

  /** Go on to the next card after a decision for some. */
  onward(keys, places) {
    const inGrid = this.list.contains(document.activeElement);
    this.select([...this.selected].filter((key) => !keys.includes(key)));
    const next = Math.max(...places) + 1;
    const last = this.cards.length - 1;
    this.begin(Math.min(next, last));
    if (!this.zoom.open) this.go(Math.min(next, last), { focus: inGrid });
    else if (next <= last) this.look(next);
    if (next > last) this.past = LAST;
    this.cards[this.active].node.scrollIntoView({ block: "nearest" });
  }

  // --- photos without a label ---

  /** The cards of this page whose photos have no label yet, nor one on its way. */
  unfiled() {
    return this.cards.filter(({ facts, node }) => facts.unlabelled && !facts.choice && !node.classList.contains("fg-saving"));
  }

  file(choice, keys, places) {
    if (choice === null) this.say("The label given last is taken back by u.");
    else if (!this.labels.includes(choice)) this.say("Which label? Press its number, or write it under “Move to”.");
    else if (this.ask("file", { labels: Object.fromEntries(keys.map((key) => [key, choice])) }, keys)) this.onward(keys, places);
  }

  /** Accept what is proposed for cards, and go on to the next one without a label. */
  accept(cards) {
    if (this.waiting.has(this.turn)) return this.say("The page is being turned: nothing was decided.");
    if (this.past === CHANGED) return this.say(`${CHANGED}: nothing was decided. Move to a picture first.`);
    const ready = cards.filter(({ facts }) => facts.proposed);
    const keys = ready.map(({ facts }) => facts.key);
    if (!keys.length) return this.say(this.unfiled().length ? UNPROPOSED : `${COMPLETE}.`);
    if (!this.ask("file", { labels: Object.fromEntries(ready.map(({ facts }) => [facts.key, facts.proposed[0]])) }, keys)) return;
    this.select([...this.selected].filter((key) => !keys.includes(key)));
    this.toUnfiled();
  }

  /** Move to the next card whose photo has no label; where all have one, the next Enter turns the page. */
  toUnfiled() {
    const left = this.unfiled().map((card) => this.cards.indexOf(card));
    const next = left.find((place) => place > this.active) ?? left[0] ?? this.active;
    this.go(next, { focus: this.list.contains(document.activeElement), past: left.length ? "" : LAST });
    this.begin(this.active);
    this.cards[this.active].node.scrollIntoView({ block: "nearest" });
  }

  /** Carry out Enter where photos have no label; return whether it was for that. Held down, it decides once. */
  entered({ shiftKey, repeat }) {
    const card = this.cards[this.active];
    if (!this.cards.some(({ facts }) => facts.unlabelled)) return false;
    const left = this.unfiled();
    if (repeat) return true;
    if (shiftKey) this.accept(left);
    else if (left.includes(card)) this.accept([card]);
    else if (left.length) this.toUnfiled();
    else if (this.aim + 1 < this.page.pages) this.open(this.aim + 1);
    else this.say(`${COMPLETE}, and it is the last.`);
    return true;
  }

  /** Have filed photos judged when the person pauses: it may take a second, and ends what u can take back. */
  settleLater(unjudged) {
    clearTimeout(this.settling);
    const settle = () => (this.zoom.open ? this.settleLater(unjudged) : this.ask("settle"));
    if (unjudged) this.settling = setTimeout(settle, PAUSE);
  }

  /** Have pictures brought into the training set, unless the choice is none for pictures outside of it. */
  bring(choice, keys, outside) {
    if (outside.length < keys.length) this.say("Some of these are in the training set and some are not: select one kind.");
    else if (choice === "Keep" && outside.some(({ action }) => !action)) this.say("Which label? Press its number, or write it under “Move to”.");
    else if (choice === "Delete" || choice === null) this.say("These are not in the training set: there is nothing to delete or to take back.");
    else this.ask("bring", { keys, choice }, keys);
  }

  /** Return the keys of what a decision is for: in the zoom its picture, else what is selected, else the card in focus. */
  subject() {
    if (this.waiting.has(this.turn)) this.say("The page is being turned: nothing was decided.");
    else if (this.selected.size && !this.zoom.open) return [...this.selected];
    else if (this.past === CHANGED) this.say(`${CHANGED}: nothing was decided. Move to a picture first.`);
    else if (this.past) this.say(`${LAST}: ${this.zoom.open ? "Esc leads back to the page" : "n turns the page"}, u takes the choice back.`);
    else return this.cards.slice(this.active, this.active + 1).map((card) => card.facts.key);
    return [];
  }

  move() {
    const wanted = this.target.value.trim().normalize("NFC");
    const label = this.labels.find((each) => each === wanted) ?? this.labels.find((each) => each.toLowerCase() === wanted.toLowerCase());
    if (!label) return this.say(wanted ? `There is no label “${wanted}”. Choose one of the list.` : "Choose a label to move to first.");
    this.decide(label);
    this.target.value = "";
  }

  /** Carry out the keys that decide; return whether this was one of them. Held down, a key decides once. */
  decided(key, repeat) {
    if (!/^[0-9kdu]$/.test(key)) return false;
    if (repeat) return true;
    if (key === "u") this.ask("undo");
    else if (key === "0") this.decide(null);
    else if (key === "k") this.decide("Keep");
    else if (key === "d") this.decide("Delete");
    else if (this.labels[key - 1]) this.decide(this.labels[key - 1]);
    else this.say(`There is no label ${key}: this project has ${this.labels.length}.`);
    return true;
  }

  columns() {
    const top = this.cards[0].node.offsetTop;
    const second = this.cards.findIndex((card) => card.node.offsetTop > top);
    return second < 0 ? this.cards.length : second;
  }

  key(event) {
    const key = pressed(event);
    const chord = event.ctrlKey || event.metaKey;
    const inside = event.target.closest("button, a"); // a card's own button keeps Enter and Space
    if (!this.cards.length || event.altKey || (chord && key !== "a") || (inside && ["Enter", " "].includes(key))) return;
    this.unoffer(key);
    const rtl = getComputedStyle(this.list).direction === "rtl" ? -1 : 1;
    const steps = { ArrowRight: rtl, ArrowLeft: -rtl, ArrowDown: this.columns(), ArrowUp: -this.columns(), Home: -Infinity, End: Infinity };
    if (Object.hasOwn(steps, key)) {
      const place = this.active + steps[key];
      const stays = Math.abs(steps[key]) !== Infinity && (place < 0 || place >= this.cards.length);
      if (!stays) this.go(place);
      else if (this.past === CHANGED) this.past = "";
      if (event.shiftKey) this.extend(this.active);
      else this.begin(this.active);
    } else if (chord) this.select(this.cards.map((card) => card.facts.key));
    else if (key === " ") this.toggle(this.active);
    else if (key === "Escape") {
      this.select([]);
      this.begin(this.active);
    }
    else if (key === "n") this.open(this.aim + 1);
    else if (key === "p") this.open(this.aim - 1);
    else if (key === "Enter" && this.entered(event));
    else if (key === "Enter" || key === "z") this.look(this.active);
    else if (key === "m" && this.alike) this.like(this.offered || this.cards[this.active].facts.key);
    else if (key === "b" && !this.return.hidden) this.goBack();
    else if (key === "o") this.cards[this.active].node.querySelector("a")?.click();
    else if (!this.decided(key, event.repeat)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  // --- the picture in full ---

  look(place) {
    if (place < 0 || place >= this.cards.length) return;
    this.go(place, { focus: false });
    this.describe();
    this.drop();
    const { facts, thumbnail } = this.cards[place];
    if (thumbnail) this.large.replaceChildren(element("img", { src: thumbnail, alt: "", className: "fg-coming" }));
    else this.large.replaceChildren(element("div", { className: "fg-broken", textContent: facts.problem }));
    if (!this.zoom.open) {
      this.looking = true;
      this.zoom.showModal();
      this.zoom.focus(); // not its first button: pressed twice, Enter would decide
    }
    this.ask("zoom", { key: facts.key });
  }

  describe() {
    const each = this.cards[this.active].facts;
    this.zoom.setAttribute("aria-label", each.file);
    this.about.replaceChildren(
      element("div", { className: "fg-file" }, name(each.file), ...link(each)),
      ...facts(each),
      element("div", { className: "fg-state", dataset: { choice: each.choice } }, ...(each.choice ? badge(each.choice) : ["not looked at"])),
    );
    const place = this.decisions.contains(document.activeElement) ? [...this.decisions.children].indexOf(document.activeElement) : -1;
    this.decisions.replaceChildren(...this.buttons(each, 0), ...this.moreLike(each, 0));
    this.press(this.decisions, each.choice);
    if (place >= 0) this.decisions.children[Math.min(place, this.decisions.children.length - 1)].focus();
  }

  enlarge(message, buffers) {
    const { facts } = this.cards[this.active] ?? {};
    if (!this.zoom.open || facts?.key !== message.key) return;
    this.drop();
    if (message.problem) return this.large.replaceChildren(element("div", { className: "fg-broken", textContent: message.problem }));
    this.full = URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
    this.large.replaceChildren(element("img", { src: this.full, alt: facts.file }));
  }

  /** Release the full picture. */
  drop() {
    if (this.full) URL.revokeObjectURL(this.full);
    this.full = null;
  }

  leave() {
    this.drop();
    this.large.replaceChildren();
    this.looking = false;
    this.go(this.active, { past: this.past });
  }

  keyInZoom(event) {
    const key = pressed(event);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    this.unoffer(key);
    if (Object.hasOwn(steps, key)) this.look(this.active + steps[key]);
    else if (key === "m" && this.alike) this.like(this.offered || this.cards[this.active].facts.key);
    else if (key === "z" || key === "Escape" || (key === "Enter" && !event.target.closest("button, a"))) this.zoom.close();
    else if (!this.decided(key, event.repeat)) return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default {
  render({ model, el }) {
    const grid = new Grid(model, el);
    return () => grid.remove();
  },
};
