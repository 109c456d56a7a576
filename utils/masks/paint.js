// The browser's half of the mask painter; painting.py is the kernel's half.
//
// A stroke is drawn here at once, then stored by the kernel, whose picture of the mask replaces ours. Strokes wait in a
// queue until they are stored: the first is sent, and sent again as long as no answer comes. The queue is also kept in
// the browser's memory of this tab, so that the next view takes over what a dead kernel left. Whatever came from a
// file's name or a label is put in as text, never as markup.

const PATIENCE = 10_000; // milliseconds until a silent kernel is reported, and asked again
const GONE = "The kernel is gone. Run the cell again: what is saved is kept, and what is not is sent then.";
const SILENT = "The kernel has not answered for 10 seconds: it is busy with another cell, or was stopped.";
const LOOKING = "Looking for the thing…";
const LAST = "That was the last photo of this list.";
const STORE = "fieldguide-painter";
const FILL = [213, 0, 140, 90]; // red, green, blue, opacity: hardly a photo has this pink
const EDGE = [213, 0, 140, 255];
const RIM = [255, 255, 255, 170]; // around the edge, so that it shows on pink, too
const CLOSE = 9; // pixels of the screen: so near the first corner, a click closes the polygon
const STEP = 0.7; // pixels of the photo between two points of a stroke
const MOST_ZOOM = 16;
const LISTED = { next: "", judge: "", painted: "mask", skipped: "skipped" }; // list → state of the photos in it
const STATES = { "": "no mask yet", mask: "has a mask", skipped: "skipped" };

const TOOLS = [
  ["brush", "Brush", "b", "Paint what belongs to the thing"],
  ["erase", "Erase", "e", "Paint what does not belong to it"],
  ["polygon", "Polygon", "l", "Click the corners; Enter or a double click closes it, Esc drops it"],
  ["box", "Box", "x", "Drag a box around the thing: what stands out in it is taken (GrabCut)"],
];
const HELP = [
  ["b, e, l, x", "brush, erase, polygon, box"],
  ["[ ]", "smaller, larger brush"],
  ["g", "suggest a mask to correct"],
  ["Enter, Esc, Backspace", "close the polygon, drop it, drop its last corner"],
  ["Ctrl + Z, Ctrl + Shift + Z", "undo, redo"],
  ["c", "clear the mask"],
  ["n or →, p or ←", "next, previous photo"],
  ["s", "skip: there is nothing to paint here"],
  ["Wheel, +, −, 0", "zoom in, out, fit; by the wheel once you have clicked into the photo"],
  ["Space or middle button", "drag the photo; on a touch screen two fingers"],
];

function shape(tag, properties = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  return made;
}

const hundredths = (value) => Math.round(value * 100) / 100;
const within = (value, low, high) => Math.min(Math.max(value, low), high);

/** The key that was pressed, as on a Latin keyboard. */
function pressed({ key, code }) {
  if (key.length > 1 || /^[\x21-\x7e]$/.test(key)) return key.length > 1 ? key : key.toLowerCase();
  return /^Key/.test(code) ? code.at(-1).toLowerCase() : key;
}

// --- what a stroke covers: the sums of strokes.py ---

/** Set, in a mask of this width and height, the pixels that a round brush covers on its way from point to point. */
function brush(mask, width, height, points, across, value) {
  const radius = across / 2;
  points.forEach(([ax, ay], n) => {
    const [bx, by] = points[Math.min(n + 1, points.length - 1)];
    const left = Math.max(0, Math.floor(Math.min(ax, bx) - radius));
    const right = Math.min(width, Math.ceil(Math.max(ax, bx) + radius));
    const top = Math.max(0, Math.floor(Math.min(ay, by) - radius));
    const bottom = Math.min(height, Math.ceil(Math.max(ay, by) + radius));
    const [dx, dy] = [bx - ax, by - ay];
    const length = dx * dx + dy * dy;
    for (let row = top; row < bottom; row++) {
      for (let column = left; column < right; column++) {
        const [x, y] = [column + 0.5 - ax, row + 0.5 - ay];
        const along = length ? within((x * dx + y * dy) / length, 0, 1) : 0;
        const [u, v] = [x - along * dx, y - along * dy];
        if (u * u + v * v <= radius * radius) mask[row * width + column] = value;
      }
    }
  });
}

/** Set the pixels that a polygon covers. */
function fill(mask, width, height, points) {
  for (let row = 0; row < height; row++) {
    const y = row + 0.5;
    const crossings = [];
    points.forEach(([ax, ay], n) => {
      const [bx, by] = points[(n + 1) % points.length];
      if (ay <= y !== by <= y) crossings.push(ax + ((y - ay) * (bx - ax)) / (by - ay));
    });
    crossings.sort((a, b) => a - b);
    for (let n = 0; n + 1 < crossings.length; n += 2) {
      for (let column = Math.max(0, Math.floor(crossings[n])); column < width && column + 0.5 < crossings[n + 1]; column++) {
        if (column + 0.5 >= crossings[n]) mask[row * width + column] = 1;
      }
    }
  }
}

function draw(mask, width, height, { do: what, points, size }) {
  if (what === "clear") mask.fill(0);
  if (what === "polygon") fill(mask, width, height, points);
  if (what === "brush" || what === "erase") brush(mask, width, height, points, size, what === "brush" ? 1 : 0);
}

// --- what waits in the tab's memory ---

/** Views that live on this page: what the others left is taken over. */
const living = (globalThis[Symbol.for(STORE)] ??= new Set());

function keep(place, queue) {
  try {
    if (queue.length) sessionStorage.setItem(place, JSON.stringify(queue));
    else sessionStorage.removeItem(place);
  } catch (error) {
    console.info("This page may not keep strokes across a reload.", error);
  }
}

/** Take the strokes that dead views of a project left, in the order in which they were made. */
function takeOver(project) {
  const found = [];
  try {
    for (const place of Object.keys(sessionStorage)) {
      const [store, whose, view] = place.split("/");
      if (store !== STORE || whose !== project || living.has(view)) continue;
      const kept = JSON.parse(sessionStorage.getItem(place));
      sessionStorage.removeItem(place);
      if (Array.isArray(kept)) found.push(...kept.filter((each) => typeof each?.token === "string"));
    }
  } catch (error) {
    console.info("This page keeps no strokes.", error);
  }
  return found;
}

class Painter {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.id = `v${Math.random().toString(36).slice(2)}`;
    this.serial = 0; // of the last request
    this.waiting = new Map(); // serial → timer
    this.opening = 0; // serial of the photo that was asked for last
    this.queue = []; // strokes that are not stored yet, oldest first
    this.made = 0; // strokes of this view
    this.sent = null; // timer of the first in the queue
    this.setup = null;
    this.list = "next";
    this.items = []; // of the strip: { facts, node, address }
    this.total = 0;
    this.photo = null; // as the kernel told it
    this.aim = null; // key of the photo that was asked for
    this.base = this.shown = null; // masks, one byte per pixel: the kernel's, and what is seen
    this.tool = "brush";
    this.size = 24;
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true; // whether the photo is to fit, also when the window changes
    this.stroke = null; // that is being drawn: points
    this.corners = []; // of the polygon
    this.box = null;
    this.pan = null;
    this.fingers = new Map(); // on a touch screen: pointer → place
    this.space = false;
    this.touched = false; // whether the person chose this photo or drew on it
    this.goOn = false; // whether to open the next photo when more of the list are there
    this.reason = ""; // why the first in the queue is not stored
    this.build();
    living.add(this.id);
    this.onMessage = (message, buffers) => this.receive(message, buffers ?? []);
    this.onGone = () => this.gone();
    model.on("msg:custom", this.onMessage);
    model.on("comm:close", this.onGone);
    this.resized = new ResizeObserver(() => this.fitted && this.fit());
    this.resized.observe(this.stage);
    this.ask("hello");
  }

  remove() {
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm:close", this.onGone);
    for (const timer of this.waiting.values()) clearTimeout(timer);
    clearTimeout(this.sent);
    this.resized.disconnect();
    for (const { address } of this.items) URL.revokeObjectURL(address);
    if (this.address) URL.revokeObjectURL(this.address);
    living.delete(this.id);
  }

  // --- the page's parts, made once ---

  build() {
    this.note = element("p", { className: "fp-note" });
    this.alert = element("p", { className: "fp-alert", aria: { role: "alert" } });
    this.saved = element("span", { className: "fp-saved" });
    this.about = element("span");
    this.covered = element("span");
    const status = element("p", { className: "fp-status", aria: { role: "status", live: "polite" } }, this.saved, this.covered);
    this.retry = element(
      "div",
      { className: "fp-group", hidden: true },
      button("Try again", () => this.send()),
      button("Drop this stroke", () => this.drop()),
    );
    const section = { className: "fieldguide-painter", aria: { label: "Mask painter" } };
    const toolbar = this.buildToolbar();
    const where = element("div", { className: "fp-where" }, this.about, status, this.finish);
    const said = element("div", { className: "fp-said" }, this.alert, this.retry);
    const desk = element("div", { className: "fp-desk" }, this.buildStage(), this.buildStrip());
    this.section = element("section", section, this.note, toolbar, where, said, desk, this.buildHelp());
    this.root.replaceChildren(this.section);
    this.section.addEventListener("keydown", (event) => this.key(event));
    this.section.addEventListener("keyup", (event) => event.key === " " && this.holdSpace(false));
    this.section.addEventListener("focusout", () => this.holdSpace(false));
    this.choose(this.tool);
  }

  buildToolbar() {
    this.tools = TOOLS.map(([tool, text, key, title]) => button(`${text} (${key})`, () => this.choose(tool), { title, dataset: { tool }, aria: { pressed: "false" } }));
    this.across = element("input", { type: "range", min: 1, max: 120, value: this.size, id: `${this.id}-size`, title: "Pixels of the photo across the brush ([ and ])" });
    this.across.addEventListener("input", () => this.resize(Number(this.across.value)));
    this.told = element("span", { className: "fp-across" });
    const size = element("div", { className: "fp-group" }, element("label", { htmlFor: this.across.id, textContent: "Size" }), this.across, this.told);
    this.finish = button("Close polygon (Enter)", () => this.close(), { hidden: true });
    this.suggest = button("Suggest (g)", () => this.suggestion(), { title: "Begin with a mask that is suggested, and correct it" });
    this.undo = button("Undo", () => this.step("undo"), { title: "Ctrl + Z" });
    this.redo = button("Redo", () => this.step("redo"), { title: "Ctrl + Shift + Z" });
    this.clear = button("Clear (c)", () => this.step("clear"), { title: "Remove the whole mask; Undo brings it back" });
    const zoom = [
      button("−", () => this.zoom(1 / 1.4), { title: "Smaller (−)", aria: { label: "Zoom out" } }),
      button("+", () => this.zoom(1.4), { title: "Larger (+)", aria: { label: "Zoom in" } }),
      button("Fit (0)", () => this.fit(), { title: "Show the whole photo" }),
    ];
    const go = [
      button("Previous (p)", () => this.go(-1)),
      button("Next (n)", () => this.go(1)),
      button("Skip (s)", () => this.skip(), { title: "There is nothing to paint in this photo: it is not offered again" }),
    ];
    const group = (...parts) => element("div", { className: "fp-group" }, ...parts);
    const parts = [group(...this.tools), size, group(this.suggest, this.undo, this.redo, this.clear), group(...zoom), group(...go)];
    return element("div", { className: "fp-bar", aria: { role: "toolbar", label: "Paint" } }, ...parts);
  }

  buildStage() {
    this.image = element("img", { alt: "", draggable: false });
    this.canvas = element("canvas", { width: 1, height: 1, aria: { hidden: "true" } });
    this.lines = shape("svg", { "aria-hidden": "true" });
    this.circle = shape("circle", { class: "fp-cursor", r: 0 });
    this.outline = shape("polyline", { class: "fp-line" });
    this.frame = shape("rect", { class: "fp-line" });
    this.lines.append(this.outline, this.frame, this.circle);
    this.paper = element("div", { className: "fp-paper" }, this.image, this.canvas, this.lines);
    // An application: its keys are told below the photo, and a screen reader must let them through.
    this.stage = element("div", { className: "fp-stage", tabIndex: 0, aria: { role: "application", label: "Photo to paint on", roledescription: "drawing area" } }, this.paper);
    const on = (type, action, options) => this.stage.addEventListener(type, action.bind(this), options);
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.cancel);
    on("pointerleave", () => this.circle.setAttribute("r", 0));
    on("dblclick", () => this.corners.length && this.close());
    on("wheel", this.wheel, { passive: false });
    for (const type of ["mousedown", "auxclick"]) on(type, (event) => event.button === 1 && event.preventDefault()); // else it scrolls or pastes
    return this.stage;
  }

  buildStrip() {
    this.select = element("select", { id: `${this.id}-list` }, element("option", { textContent: "To paint", value: "next" }));
    this.select.addEventListener("change", () => this.reload(this.select.value));
    this.strip = element("div", { className: "fp-strip", aria: { role: "group", label: "Photos" } });
    this.more = button("More photos", () => this.load(), { hidden: true });
    this.progress = element("progress", { max: 1, value: 0, aria: { label: "Photos that the masker was asked about" } });
    this.judging = element("div", { className: "fp-judging", hidden: true }, "Looking for photos of which the masker is least sure", this.progress);
    const field = element("div", { className: "fp-field" }, element("label", { htmlFor: this.select.id, textContent: "Photos" }), this.select);
    return element("div", { className: "fp-aside" }, field, this.judging, this.strip);
  }

  buildHelp() {
    const lines = HELP.map(([keys, what]) => element("div", {}, element("dt", { textContent: keys }), element("dd", { textContent: what })));
    return element("details", { className: "fp-help" }, element("summary", { textContent: "Keys" }), element("dl", {}, ...lines));
  }

  say(text) {
    if (this.alert.textContent !== text) this.alert.textContent = text;
  }

  // --- talking with the kernel ---

  /** Send a request that only looks; return its serial. */
  ask(what, details = {}) {
    const serial = ++this.serial;
    const late = () => this.say(`${SILENT} The photos show when it is idle; if it was stopped, run the cell again.`);
    this.waiting.set(serial, setTimeout(late, PATIENCE));
    try {
      this.model.send({ ask: what, view: this.id, serial, ...details });
    } catch (error) {
      console.warn(error);
      this.gone();
    }
    return serial;
  }

  gone() {
    for (const timer of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
    clearTimeout(this.sent);
    this.sent = null;
    living.delete(this.id); // the next view takes over what is left
    this.say(GONE);
    this.tellSaved();
  }

  receive(message, buffers) {
    const mine = message.view === this.id;
    if (mine) {
      if (this.waiting.size && this.alert.textContent.startsWith(SILENT)) this.say("");
      for (const [serial, timer] of this.waiting) {
        if (serial > message.serial) continue; // answers come in order: whatever was asked earlier was lost
        clearTimeout(timer);
        this.waiting.delete(serial);
      }
    }
    if (message.note) this.note.textContent = message.note;
    if (message.tell === "saved") this.stored(message, buffers, mine);
    if (!mine) return;
    if (message.tell === "list") this.listed(message, buffers);
    if (message.tell === "photo" && message.serial === this.opening) this.show(message, buffers);
    if (message.tell === "unsaved") this.unstored(message);
    if (message.tell === "judged") this.judged(message);
    if (message.tell === "alert") this.say(message.alert);
    if (message.tell === "alert" && message.serial === this.opening) this.empty();
  }

  // --- strokes, until they are stored ---

  /** Put a stroke into the queue, and show it. */
  add(what, details = {}) {
    if (!this.photo) return;
    const before = this.queue.filter(({ key }) => key === this.photo.key).at(-1);
    const after = before ? before.token : this.photo.last;
    const stroke = { key: this.photo.key, token: `${this.id}-${++this.made}`, do: what, after, ...details };
    this.queue.push(stroke);
    this.touched = true;
    if (this.alert.textContent !== LOOKING) this.say("");
    draw(this.shown, this.photo.width, this.photo.height, stroke);
    this.paint();
    this.keep();
    if (!this.sent) this.send();
  }

  keep() {
    if (this.setup) keep(`${STORE}/${this.setup.project}/${this.id}`, this.queue);
    this.tellSaved();
  }

  /** Send the first stroke of the queue; it is sent again until an answer comes. */
  send() {
    clearTimeout(this.sent);
    this.sent = null;
    if (!this.queue.length || !living.has(this.id)) return;
    this.sent = setTimeout(() => {
      this.reason ||= SILENT;
      this.tellSaved();
      this.send();
    }, PATIENCE);
    try {
      this.model.send({ ask: "stroke", view: this.id, serial: this.serial, ...this.queue[0] });
    } catch (error) {
      console.warn(error);
      this.reason = "The kernel cannot be reached.";
    }
    this.tellSaved();
  }

  stored(message, buffers, mine) {
    const first = mine && this.queue[0]?.token === message.token;
    if (first) this.shift();
    if (first && this.alert.textContent === LOOKING) this.say("");
    this.mark(message.key, message.state);
    if (message.key === this.photo?.key) {
      Object.assign(this.photo, message);
      this.takeMask(buffers[0]);
      if (message.remark) this.say(message.remark);
    }
    if (first) this.send();
  }

  /** The kernel could not store a stroke: it is tried again, unless it is wrong in itself. */
  unstored({ token, again, alert }) {
    if (this.queue[0]?.token !== token) return;
    this.reason = alert;
    if (again) return this.tellSaved();
    const { key } = this.shift();
    this.say(alert);
    if (key === this.photo?.key) this.open(key);
    this.send();
  }

  shift() {
    const stroke = this.queue.shift();
    this.reason = "";
    clearTimeout(this.sent);
    this.sent = null;
    this.keep();
    return stroke;
  }

  /** The person gives up a stroke that cannot be stored. */
  drop() {
    if (!this.queue.length) return;
    const { key } = this.shift();
    if (key === this.photo?.key) this.open(key);
    this.send();
  }

  tellSaved() {
    const count = this.queue.length;
    const strokes = count === 1 ? "1 stroke" : `${count} strokes`;
    const lost = count && (this.reason || !living.has(this.id));
    this.saved.dataset.state = lost ? "unsaved" : count ? "saving" : "saved";
    const text = lost ? `Not saved: ${strokes}. ${this.reason}` : count ? "Saving…" : this.photo?.last ? "Saved" : "";
    if (this.saved.textContent !== text) this.saved.textContent = text;
    this.retry.hidden = !lost || !living.has(this.id);
    this.enable();
  }

  step(what) {
    if (!this.corners.length) this.add(what);
    else if (what === "undo") this.takeCorner();
    else this.busy();
  }

  skip() {
    if (!this.photo || this.busy()) return;
    if (this.shown.some(Boolean)) return this.say("This photo has a mask. To skip it, clear the mask first.");
    this.add("skip");
    this.go(1);
  }

  suggestion() {
    if (this.setup?.masker && !this.photo?.judges) {
      this.say(LOOKING);
      return this.add("masker");
    }
    this.choose("box");
    const why = this.photo?.judges && this.setup?.masker ? "This mask will judge the masker, so it is not asked. " : "";
    this.say(`${why}Drag a box around the thing. Or press Enter: the whole photo is the box.`);
    this.stage.focus();
  }

  enable() {
    const off = (node, disabled) => node.setAttribute("aria-disabled", String(disabled));
    const waits = this.queue.some(({ key }) => key === this.photo?.key);
    off(this.undo, !this.photo || (!waits && !this.photo.undo && !this.corners.length));
    off(this.redo, !this.photo || waits || !this.photo.redo);
    off(this.clear, !this.shown?.some(Boolean));
    this.finish.hidden = this.corners.length < 3;
  }

  // --- the strip ---

  reload(list) {
    this.list = list;
    this.ask("list", { list, from: 0 });
  }

  /** Ask for what follows in the list; those that left it meanwhile no longer count. */
  load() {
    this.ask("list", { list: this.list, from: this.items.filter(({ facts }) => facts.state === LISTED[this.list]).length });
  }

  listed(message, buffers) {
    if (message.setup) this.setUp(message.setup);
    if (message.list !== this.list) return;
    const options = message.lists.map(([value, title, count]) => element("option", { value, textContent: `${title} (${count.toLocaleString("en")})` }));
    this.select.replaceChildren(...options);
    this.select.value = this.list;
    if (message.from === 0) {
      for (const { address } of this.items) URL.revokeObjectURL(address);
      this.items = [];
    }
    const known = new Set(this.items.map(({ facts }) => facts.key));
    message.items.forEach((facts, n) => known.has(facts.key) || this.items.push(this.item(facts, buffers[n])));
    this.total = message.lists.find(([value]) => value === this.list)[2];
    this.more.hidden = message.from + message.items.length >= this.total;
    const none = element("p", { textContent: "No photos in this list." });
    this.strip.replaceChildren(...this.items.map(({ node }) => node), ...(this.items.length ? [this.more] : [none]));
    this.mark(this.photo?.key, this.photo?.state);
    if (this.goOn && message.from) this.go(1);
    else if (this.items.length && (!this.photo || (message.from === 0 && !this.touched))) this.open(this.items[0].facts.key);
    this.goOn = false;
  }

  item(facts, buffer) {
    const address = URL.createObjectURL(new Blob([buffer], { type: "image/jpeg" }));
    const node = button("", () => this.choosePhoto(facts.key), { title: facts.unsure === null ? "" : `Uncertainty ${facts.unsure} (0: the masker is sure of each place, 1: of none)` });
    node.append(element("img", { src: address, alt: "" }), element("span", { className: "fp-caption" }, name(facts.name)), element("span", { className: "fp-mark" }));
    return { facts, node, address };
  }

  /** Let the strip show which photo is open, and which are done. */
  mark(key, state) {
    for (const { facts, node } of this.items) {
      if (facts.key === key) facts.state = state ?? facts.state;
      node.setAttribute("aria-label", `${facts.name}, ${facts.label}, ${STATES[facts.state]}`);
      node.dataset.state = facts.state;
      node.querySelector(".fp-mark").textContent = { mask: "✓ mask", skipped: "skipped" }[facts.state] ?? "";
      if (facts.key === this.aim) node.setAttribute("aria-current", "true");
      else node.removeAttribute("aria-current");
    }
  }

  setUp(setup) {
    this.setup = setup;
    this.across.max = Math.min(setup.largest, 200);
    const left = takeOver(setup.project).filter((each) => !this.queue.some(({ token }) => token === each.token));
    this.queue.unshift(...left);
    if (left.length) this.say(`From before, ${left.length === 1 ? "1 stroke was" : `${left.length} strokes were`} not saved yet. This is done now.`);
    this.keep();
    this.send();
    if (setup.judges) this.ask("judge");
  }

  judged({ done, of }) {
    this.judging.hidden = done >= of;
    this.progress.max = of;
    this.progress.value = done;
    if (done < of) this.ask("judge");
    else if (this.list === "next") this.reload("next");
  }

  choosePhoto(key) {
    if (this.busy()) return;
    this.touched = true;
    this.open(key);
  }

  go(by) {
    if (this.busy()) return;
    const at = this.items.findIndex(({ facts }) => facts.key === this.aim);
    const next = this.items[at + by];
    this.touched = true;
    if (next) {
      this.open(next.facts.key);
      next.node.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    } else if (by > 0 && !this.more.hidden) {
      this.goOn = true;
      this.load();
    } else this.say(by > 0 ? LAST : "That was the first photo of this list.");
  }

  /** Whether something is half drawn, which moving on would lose. */
  busy() {
    if (this.corners.length) this.say("Close the polygon (Enter) or drop it (Esc) first.");
    return Boolean(this.corners.length || this.stroke);
  }

  // --- the photo ---

  open(key) {
    this.aim = key;
    this.opening = this.ask("open", { key });
    this.stage.setAttribute("aria-busy", "true");
  }

  /** There is no photo to show: that which was asked for cannot be read. */
  empty() {
    this.forget();
    this.photo = this.base = this.shown = null;
    this.image.removeAttribute("src");
    this.canvas.width = 1;
    this.about.replaceChildren();
    this.covered.textContent = "";
    this.stage.setAttribute("aria-busy", "false");
    this.mark(this.aim);
    this.enable();
  }

  show(message, buffers) {
    const same = message.key === this.photo?.key;
    this.photo = message;
    const { width, height } = message;
    this.base = this.shown = new Uint8Array(width * height);
    const before = this.address;
    this.address = URL.createObjectURL(new Blob([buffers[1]], { type: "image/jpeg" }));
    this.image.src = this.address;
    if (before) URL.revokeObjectURL(before);
    Object.assign(this.canvas, { width, height });
    for (const part of [this.paper, this.image, this.canvas]) Object.assign(part.style, { width: `${width}px`, height: `${height}px` });
    for (const [attribute, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) this.lines.setAttribute(attribute, value);
    const judges = message.judges ? " Its mask judges the masker, and does not train it." : "";
    this.about.replaceChildren(name(message.name), `, `, name(message.label), `, ${message.set}.${judges}`);
    this.stage.setAttribute("aria-label", `Photo to paint on: ${message.name}, ${message.label}`);
    this.stage.setAttribute("aria-busy", "false");
    this.forget();
    if (message.alert) this.say(message.alert);
    else if (!same && this.alert.textContent === LAST) this.say("");
    if (!same) this.fit();
    this.takeMask(buffers[0]);
    this.mark(message.key, message.state);
  }

  /** Take the kernel's picture of the mask, and draw over it what it does not know yet. */
  takeMask(buffer) {
    const { key, width, height } = this.photo;
    const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    // The first pixel of eight is the highest bit.
    this.base = new Uint8Array(width * height).map((_, n) => (bytes[n >> 3] >> (7 - (n & 7))) & 1);
    this.shown = this.base.slice();
    for (const each of this.queue) if (each.key === key) draw(this.shown, width, height, each);
    if (this.stroke) draw(this.shown, width, height, this.stroke);
    this.paint();
    this.tellSaved();
  }

  /** Show the mask: see-through inside, its edge in full, and a light rim around it. */
  paint() {
    const { width, height } = this.photo;
    const mask = this.shown;
    const image = new ImageData(width, height);
    const pixels = image.data;
    let covered = 0;
    for (let row = 0, n = 0; row < height; row++) {
      for (let column = 0; column < width; column++, n++) {
        const near = (column && mask[n - 1]) + (column < width - 1 && mask[n + 1]) + (row && mask[n - width]) + (row < height - 1 && mask[n + width]);
        covered += mask[n];
        if (mask[n] || near) pixels.set(!mask[n] ? RIM : near === 4 ? FILL : EDGE, 4 * n);
      }
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    const share = (100 * covered) / (width * height);
    this.covered.textContent = covered ? `The mask covers ${share < 1 ? "under 1" : Math.round(share)} % of the photo.` : "No mask yet.";
    this.enable();
  }

  // --- zoom ---

  fit() {
    this.fitted = true;
    if (!this.photo || !this.stage.clientWidth) return;
    const { clientWidth, clientHeight } = this.stage;
    const scale = Math.min(clientWidth / this.photo.width, clientHeight / this.photo.height);
    this.view = { scale, x: (clientWidth - scale * this.photo.width) / 2, y: (clientHeight - scale * this.photo.height) / 2 };
    this.place();
  }

  /** Enlarge around a place of the stage, by default its middle. */
  zoom(by, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.photo) return;
    const least = Math.min(this.stage.clientWidth / this.photo.width, this.stage.clientHeight / this.photo.height, 1) / 2;
    const scale = within(this.view.scale * by, least, MOST_ZOOM);
    const ratio = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * ratio, y: y - (y - this.view.y) * ratio };
    this.fitted = false;
    this.place();
  }

  place() {
    const { scale } = this.view;
    const { width, height } = this.photo;
    const margin = 40; // pixels of the photo that stay in view
    this.view.x = within(this.view.x, margin - scale * width, this.stage.clientWidth - margin);
    this.view.y = within(this.view.y, margin - scale * height, this.stage.clientHeight - margin);
    this.paper.style.transform = `translate(${this.view.x}px, ${this.view.y}px) scale(${scale})`;
    this.image.style.imageRendering = scale >= 4 ? "pixelated" : "auto";
  }

  wheel(event) {
    // Over the page, the wheel scrolls it, until the person works here.
    if (!event.ctrlKey && !this.section.contains(document.activeElement)) return;
    event.preventDefault();
    const [x, y] = this.onStage(event);
    this.zoom(Math.exp(within(-event.deltaY * (event.deltaMode === 1 ? 20 : 1), -200, 200) / 300), x, y);
    this.follow(event);
  }

  onStage({ clientX, clientY }) {
    const { left, top } = this.stage.getBoundingClientRect();
    return [clientX - left - this.stage.clientLeft, clientY - top - this.stage.clientTop];
  }

  /** Where in the photo an event is, in its pixels. */
  at(event) {
    const [x, y] = this.onStage(event);
    const { width, height } = this.photo;
    return [within(hundredths((x - this.view.x) / this.view.scale), -width, 2 * width), within(hundredths((y - this.view.y) / this.view.scale), -height, 2 * height)];
  }

  // --- the pointer ---

  down(event) {
    if (!this.photo || this.stage.getAttribute("aria-busy") === "true") return;
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, this.onStage(event));
      if (this.fingers.size > 1) return this.lift(); // two fingers move the photo
    }
    const [x, y] = this.onStage(event);
    if (event.button === 1 || (event.button === 0 && this.space)) {
      this.pan = { x: x - this.view.x, y: y - this.view.y };
      event.preventDefault();
    } else if (event.button === 0) this.begin(this.at(event));
  }

  begin(point) {
    this.say("");
    if (this.tool === "polygon") return this.corner(point);
    if (this.tool === "box") {
      this.box = [point, point];
      return;
    }
    this.stroke = { do: this.tool, size: this.size, points: [point] };
    draw(this.shown, this.photo.width, this.photo.height, this.stroke);
    this.paint();
  }

  move(event) {
    if (!this.photo) return;
    this.follow(event);
    const [x, y] = this.onStage(event);
    if (this.fingers.size > 1) return this.pinch(event, [x, y]);
    if (this.pan) {
      Object.assign(this.view, { x: x - this.pan.x, y: y - this.pan.y });
      this.fitted = false;
      this.place();
    } else if (this.box) {
      this.box[1] = this.at(event);
      this.sketch();
    } else if (this.stroke) {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const each of all.length ? all : [event]) this.extend(this.at(each));
      this.paint();
    } else if (this.corners.length) this.sketch(this.at(event));
  }

  extend(point) {
    const { points, size, do: what } = this.stroke;
    const last = points.at(-1);
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) < STEP) return;
    points.push(point);
    draw(this.shown, this.photo.width, this.photo.height, { do: what, size, points: [last, point] });
    if (points.length < this.setup.points) return;
    this.up();
    this.stroke = { do: what, size, points: [point] }; // a very long one is stored in parts
  }

  up(event) {
    if (event) this.fingers.delete(event.pointerId);
    this.pan = null;
    const { stroke, box } = this;
    this.stroke = this.box = null;
    this.sketch();
    if (stroke) this.add(stroke.do, { size: stroke.size, points: stroke.points });
    if (box) this.takeBox(box);
  }

  cancel(event) {
    this.fingers.delete(event.pointerId);
    this.lift();
  }

  /** Forget the stroke that was begun. */
  lift() {
    const begun = this.stroke;
    this.stroke = this.box = this.pan = null;
    this.sketch();
    if (!begun) return;
    this.shown = this.base.slice();
    for (const each of this.queue) if (each.key === this.photo.key) draw(this.shown, this.photo.width, this.photo.height, each);
    this.paint();
  }

  pinch(event, place) {
    const before = this.fingers.get(event.pointerId);
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)[1];
    if (!before) return;
    const distance = (from) => Math.max(1, Math.hypot(from[0] - other[0], from[1] - other[1]));
    this.view.x += (place[0] - before[0]) / 2;
    this.view.y += (place[1] - before[1]) / 2;
    this.fingers.set(event.pointerId, place);
    this.zoom(distance(place) / distance(before), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
  }

  /** Let the circle that shows the brush follow the pointer. */
  follow(event) {
    const shows = this.tool === "brush" || this.tool === "erase";
    const [x, y] = this.photo ? this.at(event) : [0, 0];
    for (const [attribute, value] of Object.entries({ cx: x, cy: y, r: shows && event.pointerType !== "touch" ? this.size / 2 : 0 })) this.circle.setAttribute(attribute, value);
  }

  // --- polygon and box ---

  corner(point) {
    const [first] = this.corners;
    const near = first && Math.hypot(point[0] - first[0], point[1] - first[1]) * this.view.scale < CLOSE;
    if (near && this.corners.length >= 3) return this.close();
    const last = this.corners.at(-1);
    if (!last || Math.hypot(point[0] - last[0], point[1] - last[1]) * this.view.scale >= 3) this.corners.push(point);
    this.sketch();
    this.enable();
  }

  takeCorner() {
    this.corners.pop();
    this.sketch();
    this.enable();
  }

  close() {
    if (this.corners.length < 3) return this.say("A polygon needs 3 corners at least.");
    const points = this.corners;
    this.forget();
    this.add("polygon", { points });
  }

  /** Drop what is half drawn. */
  forget() {
    this.corners = [];
    this.lift();
    this.enable();
  }

  takeBox([[ax, ay], [bx, by]]) {
    if (Math.abs(ax - bx) < 4 || Math.abs(ay - by) < 4) return this.say("Drag a box around the thing: press, move, let go.");
    this.say(LOOKING);
    this.add("grabcut", { points: [[Math.min(ax, bx), Math.min(ay, by)], [Math.max(ax, bx), Math.max(ay, by)]] });
  }

  /** Show the corners or the box that are being drawn; `next` is where the pointer is. */
  sketch(next) {
    const points = next && this.corners.length ? [...this.corners, next] : this.corners;
    this.outline.setAttribute("points", points.map((point) => point.join()).join(" "));
    const [[ax, ay], [bx, by]] = this.box ?? [[0, 0], [0, 0]];
    const box = { x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(ax - bx), height: Math.abs(ay - by) };
    for (const [attribute, value] of Object.entries(box)) this.frame.setAttribute(attribute, value);
  }

  // --- tools and keys ---

  choose(tool) {
    if (tool !== this.tool) this.forget();
    this.tool = tool;
    for (const each of this.tools) each.setAttribute("aria-pressed", String(each.dataset.tool === tool));
    this.stage.dataset.tool = tool;
    this.resize(this.size);
  }

  resize(size) {
    this.size = within(Math.round(size), 1, Number(this.across.max));
    this.across.value = this.size;
    this.told.textContent = `${this.size} px`;
    if (Number(this.circle.getAttribute("r"))) this.circle.setAttribute("r", this.size / 2);
  }

  holdSpace(held) {
    this.space = held;
    this.stage.classList.toggle("fp-panning", held);
  }

  key(event) {
    const key = pressed(event);
    const chord = event.ctrlKey || event.metaKey;
    const inside = event.target.closest("button, select, input, summary");
    if (event.target.closest("select") || event.altKey) return event.stopPropagation();
    if (chord && !["z", "y"].includes(key)) return;
    event.stopPropagation(); // where a front-end listens further out, plain keys insert or delete cells
    if (chord) this.step(key === "y" || event.shiftKey ? "redo" : "undo");
    else if (!this.pressedKey(key, inside, event)) return;
    event.preventDefault();
  }

  /** Do what a key is for; return whether it is one of ours. Held down, only those that change a size go on. */
  pressedKey(key, inside, event) {
    const tool = TOOLS.find(([, , letter]) => letter === key)?.[0];
    if (key === "[" || key === "]") this.resize(key === "]" ? Math.max(this.size + 1, this.size * 1.2) : Math.min(this.size - 1, this.size / 1.2));
    else if (key === "+" || key === "=") this.zoom(1.4);
    else if (key === "-" || key === "−") this.zoom(1 / 1.4);
    else if (key === " " && !inside) this.holdSpace(true);
    else if (["ArrowRight", "ArrowLeft", "Enter", " "].includes(key) && inside) return false;
    else if (event.repeat) return /^[a-z0-9]$/.test(key);
    else if (tool) this.choose(tool);
    else if (key === "0") this.fit();
    else if (key === "g") this.suggestion();
    else if (key === "c") this.shown?.some(Boolean) ? this.step("clear") : this.say("There is nothing to clear.");
    else if (key === "n" || key === "ArrowRight") this.go(1);
    else if (key === "p" || key === "ArrowLeft") this.go(-1);
    else if (key === "s") this.skip();
    else if (key === "Enter" && this.tool === "polygon") this.close();
    else if (key === "Enter" && this.tool === "box" && this.photo) this.takeBox([[0, 0], [this.photo.width, this.photo.height]]);
    else if (key === "Backspace" && this.corners.length) this.takeCorner();
    else if (key === "Escape" && (this.corners.length || this.stroke || this.box)) this.forget();
    else return false;
    return true;
  }
}

export default {
  render({ model, el }) {
    const painter = new Painter(model, el);
    return () => painter.remove();
  },
};
