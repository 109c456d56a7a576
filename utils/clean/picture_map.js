// The browser's half of the map; picture_map.py is the kernel's half.
//
// Draws each picture as a point, straight into the pixels of a canvas: so 50,000 move without a stutter, with or without
// a graphics card. What a point is called, the kernel says when it is asked; names are put in as text, never as markup.

const HUES = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"]; // Okabe and Ito's, but for those that white or black hides
const SIGNS_OF = ["●", "✕"]; // after the sixth label the colours begin again, with another sign
const SLOTS = HUES.length * SIGNS_OF.length; // labels that can have a colour at once
const GREY = "#8a8a8a";
const NOWHERE = 65535; // the code of a picture that is not on the map
const NEAR = 12; // pixels from the pointer within which a point is meant
const REST = 60; // milliseconds that the pointer rests on a point before its picture is asked for
const KEPT = 200; // pictures asked for that are kept
const CLOSEST = 400; // times as near as the whole map

const MAP_HELP = [
  ["Drag, wheel or pinch, + −", "move, zoom; 0 shows all"],
  ["Shift + drag", "draw around pictures: the cleaner shows them"],
  ["Arrows", "go to the next point that way, and see it"],
  ["Enter", "the cleaner shows all pictures in view"],
];

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

/** A colour of CSS as a number that a pixel takes. */
function packed(colour) {
  pixel.clearRect(0, 0, 1, 1);
  pixel.fillStyle = colour;
  pixel.fillRect(0, 0, 1, 1);
  return new Uint32Array(pixel.getImageData(0, 0, 1, 1).data.buffer)[0];
}

/** The pixels, as [dx, dy], whose distance from the middle is within [from, to]; of a cross, those on its two bars. */
function shape(from, to, cross = false) {
  const found = [];
  for (let dy = -Math.ceil(to); dy <= to; dy++) {
    for (let dx = -Math.ceil(to); dx <= to; dx++) {
      const inside = cross ? Math.max(Math.abs(dx), Math.abs(dy)) <= to && Math.abs(Math.abs(dx) - Math.abs(dy)) <= to * 0.4 : Math.hypot(dx, dy) <= to;
      if (inside && Math.hypot(dx, dy) >= from) found.push([dx, dy]);
    }
  }
  return found;
}

class PictureMap {
  constructor(model, root) {
    this.model = model;
    this.count = 0;
    this.at = { x: 0.5, y: 0.5, zoom: 1 }; // the middle of the view, in the unit square
    this.pointers = new Map(); // those that are down: id → [x, y]
    this.path = []; // of the lasso, in pixels
    this.cursor = -1; // the point that was moved to
    this.tips = new Map(); // point → what the kernel said, and the picture's address
    this.slots = new Map(); // label's code → its colour and sign
    this.build(root);
    this.onMessage = (message, buffers) => this.receive(message, buffers ?? []);
    model.on("msg:custom", this.onMessage);
    this.onGone = () => this.say(KERNEL_GONE);
    model.on("comm:close", this.onGone);
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.stage);
    this.themes = new MutationObserver(() => this.recolour());
    this.themes.observe(document.body, { attributes: true });
    this.dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.onDark = () => this.recolour();
    this.dark.addEventListener("change", this.onDark);
    this.ask("hello");
  }

  remove() {
    this.sizes.disconnect();
    this.themes.disconnect();
    this.dark.removeEventListener("change", this.onDark);
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm:close", this.onGone);
    cancelAnimationFrame(this.frame);
    clearTimeout(this.resting);
    for (const tip of this.tips.values()) URL.revokeObjectURL(tip.address);
  }

  build(root) {
    const help = { id: `fg-map-${Math.random().toString(36).slice(2)}`, className: "fg-map-help" };
    const keys = MAP_HELP.map(([key, what]) => element("div", {}, element("dt", { textContent: key }), element("dd", { textContent: what })));
    const aria = { role: "application", label: "Map of the pictures", describedby: help.id };
    this.canvas = element("canvas", { tabIndex: 0, aria });
    this.tip = element("div", { className: "fg-tip", hidden: true });
    this.stage = element("div", { className: "fg-stage" }, this.canvas, this.tip);
    this.lasso = button("Lasso", () => this.arm(!this.armed), { title: "Draw around pictures; or Shift + drag", aria: { pressed: "false" } });
    const buttons = [
      this.lasso,
      button("Show these", () => this.fill(this.inView()), { title: "The cleaner shows all pictures in view (Enter)" }),
      button("+", () => this.nearer(2), { ariaLabel: "Zoom in" }),
      button("−", () => this.nearer(1 / 2), { ariaLabel: "Zoom out" }),
      button("All", () => this.whole(), { title: "Show the whole map (0)" }),
    ];
    this.said = element("p", { className: "fg-map-status", textContent: "Waiting for the kernel…", aria: { role: "status" } });
    this.legend = element("div", { className: "fg-legend", aria: { role: "group", label: "Labels that have a colour" } });
    this.wrong = element("p", { className: "fg-map-note" });
    const side = element("div", { className: "fg-map-side" }, this.legend, this.wrong, element("dl", help, ...keys));
    const bar = element("div", { className: "fg-map-bar", aria: { role: "toolbar", label: "Map" } }, ...buttons);
    this.section = element("section", { className: "fieldguide-map", aria: { label: "The map" } }, bar, this.said, element("div", { className: "fg-map-parts" }, this.stage, side));
    root.replaceChildren(this.section);
    const listen = { pointerdown: "press", pointermove: "drag", pointerup: "release", pointercancel: "release", lostpointercapture: "release", pointerleave: "hide", wheel: "turn", keydown: "key" };
    for (const [event, method] of Object.entries(listen)) this.canvas.addEventListener(event, (each) => this[method](each), { passive: false });
    root.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.altKey || event.stopPropagation());
  }

  // --- what the kernel is asked, and what it says ---

  ask(what, details = {}) {
    try {
      this.model.send({ ask: what, ...details });
    } catch (error) {
      console.warn(error);
      this.say(KERNEL_GONE);
    }
  }

  receive(message, buffers) {
    const bytes = (n) => buffers[n].buffer.slice(buffers[n].byteOffset, buffers[n].byteOffset + buffers[n].byteLength);
    if (message.tell === "map" && !this.count) this.begin(message, new Float32Array(bytes(0)), new Uint16Array(bytes(1)), new Uint8Array(bytes(2)));
    if (message.tell === "changed" && this.count) this.change(new Uint32Array(bytes(0)), new Uint16Array(bytes(1)), new Uint8Array(bytes(2)));
    if (message.tell === "point") this.learn(message, buffers[0] ? URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" })) : "");
    if (message.alert) this.say(message.alert);
  }

  begin({ labels, note }, places, codes, marks) {
    Object.assign(this, { labels, places, codes, marks, count: codes.length, note });
    const totals = this.totals();
    const largest = labels.map((_, code) => code).sort((a, b) => totals[b] - totals[a] || a - b).slice(0, SLOTS);
    largest.sort((a, b) => a - b).forEach((code, slot) => this.slots.set(code, slot));
    this.recolour();
    this.resize();
    this.say("");
  }

  change(which, codes, marks) {
    which.forEach((n, place) => {
      this.codes[n] = codes[place];
      this.marks[n] = marks[place];
      this.forget(n);
      if (n === this.shown) this.hide();
    });
    this.recolour();
  }

  forget(n) {
    if (this.tips.has(n)) URL.revokeObjectURL(this.tips.get(n).address);
    this.tips.delete(n);
  }

  learn(message, address) {
    this.forget(message.n);
    this.tips.set(message.n, { ...message, address });
    if (this.tips.size > KEPT) this.forget(this.tips.keys().next().value);
    if (message.n === this.shown) this.show(message.n);
    if (message.n === this.cursor) this.say([message.file, message.told].join(". "));
  }

  say(text) {
    if (this.said.textContent !== text) this.said.textContent = text;
  }

  totals() {
    const totals = new Array(this.labels.length).fill(0);
    for (const code of this.codes) if (code !== NOWHERE) totals[code] += 1;
    return totals;
  }

  // --- colours and legend ---

  recolour() {
    if (!this.count) return;
    const totals = this.totals();
    const focused = [...this.legend.children].indexOf(document.activeElement);
    this.legend.replaceChildren(...this.labels.map((label, code) => this.entry(label, code, totals[code])));
    this.legend.children[focused]?.focus();
    const wrong = this.marks.reduce((sum, mark, n) => sum + (mark && this.codes[n] !== NOWHERE), 0);
    this.wrong.textContent = [`Ringed: looks wrong (${wrong.toLocaleString("en")}).`, this.note].join(" ");
    // Grey points lie below, ringed ones above.
    const height = (n) => (this.marks[n] ? 2 : this.slots.has(this.codes[n]) ? 1 : 0);
    const layers = [[], [], []];
    for (let n = 0; n < this.count; n++) if (this.codes[n] !== NOWHERE) layers[height(n)].push(n);
    this.order = Uint32Array.from(layers.flat());
    this.stamps = null;
    this.redraw();
  }

  entry(label, code, total) {
    const slot = this.slots.get(code);
    const sign = element("span", { className: "fg-sign", textContent: SIGNS_OF[Math.floor((slot ?? 0) / HUES.length)], ariaHidden: "true" });
    sign.style.color = slot === undefined ? GREY : HUES[slot % HUES.length];
    const made = button("", () => this.toggle(code), { title: slot === undefined ? "Give it a colour" : "Make it grey", aria: { pressed: String(slot !== undefined) } });
    made.append(sign, name(label), ` ${total.toLocaleString("en")}`);
    return made;
  }

  toggle(code) {
    const taken = new Set(this.slots.values());
    const free = [...Array(SLOTS).keys()].find((slot) => !taken.has(slot));
    if (!this.slots.delete(code)) {
      if (free === undefined) return this.say(`All ${SLOTS} colours are in use: make another label grey first.`);
      this.slots.set(code, free);
    }
    this.recolour();
  }

  // --- drawing ---

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    this.dense = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * this.dense);
    this.canvas.height = Math.round(height * this.dense);
    this.stamps = null;
    this.redraw();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  /** Pixels of the canvas per unit of the map. */
  scale() {
    return Math.min(this.canvas.width, this.canvas.height) * 0.97 * this.at.zoom;
  }

  /** What is drawn for a point: [offset, colour] pairs, for each colour with and without a ring. */
  makeStamps() {
    const { color, backgroundColor } = getComputedStyle(this.section);
    const [text, ground] = [packed(color), packed(backgroundColor)];
    const size = (this.count > 20_000 ? 1.6 : this.count > 2000 ? 2.4 : 3.6) * Math.min(2, this.at.zoom ** 0.3) * this.dense;
    const offsets = (pairs, colour) => pairs.flatMap(([dx, dy]) => [dy * this.canvas.width + dx, colour]);
    const rings = offsets(shape(size + 1.2 * this.dense, size + 2.8 * this.dense), text);
    const edge = offsets(shape(size, size + this.dense), ground);
    const make = (colour, cross) => [...edge, ...offsets(shape(0, size, cross), packed(colour))];
    const plain = [...Array(SLOTS).keys()].map((slot) => make(HUES[slot % HUES.length], slot >= HUES.length));
    plain.push(make(GREY, false)); // the last one
    this.stamps = { plain: plain.map((each) => Int32Array.from(each)), ringed: plain.map((each) => Int32Array.from([...each, ...rings])) };
    this.stamps.reach = Math.ceil(size + 3 * this.dense);
    this.stamps.zoom = this.at.zoom;
  }

  draw() {
    const { width, height } = this.canvas;
    if (!this.count || !width) return;
    this.canvas.classList.toggle("fg-whole", this.at.zoom <= 1);
    if (!this.stamps || this.stamps.zoom !== this.at.zoom) this.makeStamps();
    const paper = this.canvas.getContext("2d");
    if (this.image?.width !== width || this.image.height !== height) this.image = paper.createImageData(width, height);
    const pixels = new Int32Array(this.image.data.buffer).fill(0);
    const { plain, ringed, reach } = this.stamps;
    const [scale, left, top] = [this.scale(), width / 2 - this.at.x * this.scale(), height / 2 - this.at.y * this.scale()];
    for (const n of this.order) {
      const x = Math.round(this.places[2 * n] * scale + left);
      const y = Math.round(this.places[2 * n + 1] * scale + top);
      if (x < reach || y < reach || x >= width - reach || y >= height - reach) continue;
      const stamp = (this.marks[n] ? ringed : plain)[this.slots.get(this.codes[n]) ?? SLOTS];
      const middle = y * width + x;
      for (let part = 0; part < stamp.length; part += 2) pixels[middle + stamp[part]] = stamp[part + 1];
    }
    paper.putImageData(this.image, 0, 0);
    this.drawOver(paper);
  }

  /** The lasso and the point that was moved to. */
  drawOver(paper) {
    paper.strokeStyle = getComputedStyle(this.section).color;
    paper.lineWidth = 2 * this.dense;
    paper.beginPath();
    for (const [x, y] of this.path) paper.lineTo(x * this.dense, y * this.dense);
    if (this.path.length) paper.closePath();
    paper.stroke();
    if (this.cursor < 0) return;
    const [x, y] = this.spot(this.cursor);
    paper.strokeRect((x - 8) * this.dense, (y - 8) * this.dense, 16 * this.dense, 16 * this.dense);
  }

  /** Where a point is on the stage, in CSS pixels. */
  spot(n) {
    const [scale, { width, height }] = [this.scale(), this.canvas];
    return [((this.places[2 * n] - this.at.x) * scale + width / 2) / this.dense, ((this.places[2 * n + 1] - this.at.y) * scale + height / 2) / this.dense];
  }

  // --- finding points ---

  /** The shown point that a measure of [x, y] makes least, if it makes it finite; -1 if there is none. */
  best(measure) {
    let [found, least] = [-1, Infinity];
    for (const n of this.order ?? []) {
      const value = measure(...this.spot(n), n);
      if (value < least) [found, least] = [n, value];
    }
    return found;
  }

  within(test) {
    return Array.from((this.order ?? []).filter((n) => test(...this.spot(n))));
  }

  inView() {
    const { clientWidth, clientHeight } = this.stage;
    return this.within((x, y) => x >= 0 && y >= 0 && x <= clientWidth && y <= clientHeight);
  }

  inPath() {
    const path = this.path;
    return this.within((x, y) => {
      let inside = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
        const [[ax, ay], [bx, by]] = [path[a], path[b]];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
      }
      return inside;
    });
  }

  fill(points) {
    if (!points.length) return this.say("No pictures there.");
    this.say("");
    this.ask("fill", { points });
  }

  // --- pointer ---

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  arm(armed) {
    this.armed = armed;
    this.lasso.setAttribute("aria-pressed", String(armed));
    this.canvas.classList.toggle("fg-armed", armed);
  }

  press(event) {
    if (event.button) return; // a right click opens the notebook's menu
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.where(event));
    this.drawing = this.pointers.size === 1 && (event.shiftKey || this.armed);
    this.path = this.drawing ? [this.where(event)] : [];
    this.moved = 0;
    this.redraw();
  }

  drag(event) {
    const now = this.where(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.point(this.best((x, y) => within(Math.hypot(x - now[0], y - now[1]))));
    const step = Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (this.drawing && step < 4) return;
    this.moved += step;
    this.hide();
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (this.drawing) this.path.push(now);
    else if (other) this.zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), other);
    else this.pan(before[0] - now[0], before[1] - now[1]);
    this.redraw();
  }

  release(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.drawing && event.type === "pointerup") {
      const points = this.inPath();
      this.arm(false);
      this.fill(points);
    } else if (event.type === "pointerup" && this.moved < 4) {
      const [left, top] = this.where(event);
      this.move(this.best((x, y) => within(Math.hypot(x - left, y - top))));
    }
    this.drawing = false;
  }

  pan(right, down) {
    const scale = this.scale() / this.dense;
    this.at = { ...this.at, x: Math.min(1, Math.max(0, this.at.x + right / scale)), y: Math.min(1, Math.max(0, this.at.y + down / scale)) };
    this.redraw();
  }

  /** Zoom, with the point at [x, y] staying where it is. */
  zoom(factor, [x, y]) {
    const zoom = Math.min(CLOSEST, Math.max(1, this.at.zoom * factor));
    const [right, down] = [x - this.stage.clientWidth / 2, y - this.stage.clientHeight / 2];
    const part = 1 - this.at.zoom / zoom;
    const before = this.scale() / this.dense;
    this.hide();
    this.path = [];
    this.at = { x: this.at.x + (right / before) * part, y: this.at.y + (down / before) * part, zoom };
    this.pan(0, 0);
  }

  /** Zoom around the point that was moved to, if it is in view, else around the middle. */
  nearer(factor) {
    const { clientWidth, clientHeight } = this.stage;
    const [x, y] = this.cursor < 0 ? [-1, -1] : this.spot(this.cursor);
    const seen = x >= 0 && y >= 0 && x <= clientWidth && y <= clientHeight;
    this.zoom(factor, seen ? [x, y] : [clientWidth / 2, clientHeight / 2]);
  }

  whole() {
    this.at = { x: 0.5, y: 0.5, zoom: 1 };
    this.path = [];
    this.redraw();
  }

  turn(event) {
    if (this.at.zoom <= 1 && event.deltaY > 0) return; // the whole map is in view: the page scrolls on
    event.preventDefault();
    this.zoom(2 ** (-event.deltaY / 300), this.where(event));
  }

  key(event) {
    const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const actions = { "+": () => this.nearer(1.5), "=": () => this.nearer(1.5), "-": () => this.nearer(1 / 1.5), 0: () => this.whole(), Enter: () => event.repeat || this.fill(this.inView()), Escape: () => this.move(-1) };
    if (event.ctrlKey || event.metaKey || event.altKey || !(steps[event.key] || actions[event.key])) return;
    if (steps[event.key]) this.step(...steps[event.key]);
    else actions[event.key]();
    event.preventDefault();
  }

  /** Move to the nearest point within 45 degrees of a direction. */
  step(right, down) {
    const { clientWidth, clientHeight } = this.stage;
    const [left, top] = this.cursor < 0 ? [clientWidth / 2, clientHeight / 2] : this.spot(this.cursor);
    const found = this.best((x, y, n) => {
      const [along, aside] = [(x - left) * right + (y - top) * down, Math.abs((x - left) * down) + Math.abs((y - top) * right)];
      if (this.cursor < 0) return Math.hypot(x - left, y - top);
      return n === this.cursor || along <= 0 || aside > along ? Infinity : along + aside;
    });
    if (found < 0) return;
    const [x, y] = this.spot(found);
    if (x < 20 || y < 20 || x > clientWidth - 20 || y > clientHeight - 20) this.pan(x - clientWidth / 2, y - clientHeight / 2);
    this.move(found);
  }

  // --- the picture of a point ---

  move(n) {
    this.cursor = n;
    this.path = [];
    this.redraw();
    if (n < 0) this.hide();
    else this.point(n);
  }

  /** Show a point's picture; it is asked for once the pointer rests. */
  point(n) {
    if (n === this.shown) return;
    clearTimeout(this.resting);
    if (n < 0) return this.hide();
    this.shown = n;
    this.show(n);
    if (!this.tips.has(n)) this.resting = setTimeout(() => this.ask("point", { n }), REST);
    else if (n === this.cursor) this.say([this.tips.get(n).file, this.tips.get(n).told].join(". "));
  }

  show(n) {
    const tip = this.tips.get(n);
    const picture = tip?.address ? [element("img", { src: tip.address, alt: "" })] : [];
    const lines = tip ? [tip.file, tip.told, tip.problem].filter(Boolean) : ["…"];
    this.tip.replaceChildren(...picture, ...lines.map((text) => element("div", {}, name(text))));
    this.tip.hidden = false;
    const [x, y] = this.spot(n);
    const { clientWidth, clientHeight } = this.stage;
    this.tip.style.left = `${Math.max(0, Math.min(x + 14, clientWidth - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${y > clientHeight / 2 ? Math.max(0, y - this.tip.offsetHeight - 14) : y + 14}px`;
  }

  hide() {
    clearTimeout(this.resting);
    this.shown = -1;
    this.tip.hidden = true;
  }
}

/** A distance in pixels, or no number if it is too far to be meant. */
const within = (distance) => (distance <= NEAR ? distance : Infinity);

export default {
  render({ model, el }) {
    const map = new PictureMap(model, el);
    return () => map.remove();
  },
};
