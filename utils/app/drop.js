// The app, the browser's half: photos are taken here, sent one at a time, and shown as page.py judges them.
//
// A photo is read and sent in parts, the next when the kernel has answered the last, so that hundreds need no more memory
// than one. Names and folders stay here; whatever came from a file's name or from the kernel is put in as text, never as
// markup. A run that was stopped or cleared is dropped whole: its number is no longer the page's.

const PATIENCE = 20_000; // milliseconds until a silent kernel is reported
const SILENT = "No answer for 20 seconds: the computer that judges the photos is busy, or was stopped. Wait, or save the results and reload the page.";
const GONE = "The connection to the model is gone. Save the results, then reload the page.";
const LOST = "It cannot be read any more: it was moved or changed after you chose it";
const UNSURE = "not sure";
const UNKNOWN_ONE = "not one of the known ones, or not sure"; // where each label is a single animal

// What counts as a photo inside a folder: by its name, as nothing is opened to find out.
const PICTURE = /\.(jpe?g|jpe|jfif|mpo|png|webp|gif|bmp|dib|tiff?|avif|heic|heif|jxl|svg)$/i;
const ORDER = new Intl.Collator("en", { numeric: true }); // IMG_2 before IMG_10, on every machine alike

/** A JPEG that the kernel sent. */
const picture = (jpeg, alt) => element("img", { src: URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" })), alt });

const percent = (fraction) => `${(100 * fraction).toFixed(1)}\u00a0%`;
const several = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

// --- what was dropped or chosen ---

/** Every file below some entries of a drop, as { path, open }; `found` is told how many there are so far. */
async function walk(entries, found) {
  const files = [];
  const waiting = entries.map((entry) => ({ entry, inside: false }));
  while (waiting.length) {
    const { entry, inside } = waiting.pop();
    const path = entry.fullPath.replace(/^\//, "");
    if (entry.isFile) {
      files.push({ path, inside, open: () => new Promise((done, failed) => entry.file(done, failed)) });
      if (files.length % 200 === 0) found(files.length);
    } else {
      const reader = entry.createReader();
      // A reader gives a folder's entries by the hundred, and an empty list at their end.
      for (let more = [null]; more.length; ) {
        more = await new Promise((done, failed) => reader.readEntries(done, failed)).catch((error) => {
          files.push({ path, inside: false, open: () => Promise.reject(error) }); // so that it is told
          return [];
        });
        for (const each of more) waiting.push({ entry: each, inside: true });
      }
    }
  }
  return files.sort((a, b) => ORDER.compare(a.path, b.path));
}

const chosen = (file, inside) => ({ path: inside ? file.webkitRelativePath || file.name : file.name, inside, open: async () => file });

function isPhoto({ path, inside }) {
  return !inside || (PICTURE.test(path) && !path.split("/").slice(1).some((part) => part.startsWith(".")));
}

// --- the table ---

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const number = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));

// What a spreadsheet runs as a formula: at the start of a cell, which some also begin at semicolons, tabs and line ends.
const FORMULA = /(^|[;\t\r\n])(?='*(?:"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])/g;
const plain = (text) => text.replace(FORMULA, "$1'");

const file = (path) => cell(plain(path.search(FORMULA) === 0 ? `./${path}` : path));
const lined = (lines) => lines.map((line) => `${line.join(",")}\n`).join("");

/** The same table as the command line's --csv, with ./ or an apostrophe before what would be a formula. */
function table(results) {
  const lines = results.map(({ path, label, probability }) => [file(path), cell(plain(label)), probability === null ? "" : number(probability)]);
  return lined([["file", "label", "probability"], ...lines]);
}

/** The same of a model that finds things: a line for each box, one for a photo without any. */
function boxTable(results) {
  const lines = results.flatMap(({ path, boxes, error }) => {
    const found = boxes.map(([label, probability, ...corners]) => [file(path), cell(plain(label)), number(probability), ...corners.map((corner) => corner.toFixed(7)), ""]);
    return found.length ? found : [[file(path), "", "", "", "", "", "", cell(error ?? "")]];
  });
  return lined([["file", "label", "probability", "left", "top", "right", "bottom", "error"], ...lines]);
}

// --- what was found ---

const unread = (error) => [element("p", { className: "fd-verdict fd-broken" }, "Could not be read"), element("p", { className: "fd-small", textContent: error })];

/** A box on a photo, with its number from 1; the list beside the photo says what it is. */
function boxFrame([, , left, top, right, bottom], n) {
  const frame = element("div", { className: "fd-box", aria: { hidden: "true" } }, element("span", { textContent: n + 1 }));
  const part = (fraction) => `${100 * fraction}%`;
  Object.assign(frame.style, { left: part(left), top: part(top), width: part(right - left), height: part(bottom - top) });
  return frame;
}

function foundList(boxes) {
  const lines = boxes.map(([label, probability]) => element("li", {}, name(label), element("span", { textContent: percent(probability) })));
  return element("ol", { className: "fd-found", aria: { role: "list", label: "Found in this photo" } }, ...lines);
}

/** Return whether this is a page of its own, as Voila makes it, and not a cell of a notebook. */
const isAlone = () => document.body.dataset.voila !== undefined;

class Page {
  constructor(model, root) {
    this.model = model;
    this.id = `v${Math.random().toString(36).slice(2)}`;
    this.serial = 0; // of the last request
    this.waiting = new Map(); // serial → what awaits its answer
    this.run = 0; // changes whenever what is under way is to be dropped
    this.queue = []; // photos to send
    this.done = 0;
    this.total = 0;
    this.results = []; // { path, label, probability, error } of each card
    this.skipped = 0;
    this.busy = false;
    this.listeners = new AbortController();
    this.build(root);
    this.onMessage = (message, buffers) => this.receive(message, buffers ?? []);
    this.onGone = () => this.fail(GONE);
    model.on("msg:custom", this.onMessage);
    model.on("comm:close", this.onGone);
    this.open("hello");
  }

  remove() {
    this.run += 1;
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm:close", this.onGone);
    this.listeners.abort();
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.empty();
  }

  // --- the page's parts, made once ---

  build(root) {
    this.picker = element("select", { id: `${this.id}-model` });
    this.picker.addEventListener("change", () => this.choose());
    this.pickers = element("p", { className: "fd-models", hidden: true }, element("label", { htmlFor: this.picker.id, textContent: "Model" }), this.picker);
    this.drop = this.buildDrop();
    this.heading = element("h1", { textContent: "\u00a0" }); // what is asked of photos, once the model is known
    this.verdict = element("p", { className: "fd-verdict", hidden: true });
    this.alert = element("p", { className: "fd-alert", aria: { role: "alert" } });
    this.bar = element("progress", { max: 1, value: 0, aria: { label: "Photos judged" } });
    this.place = element("span", { className: "fd-place" });
    this.stopper = button("Stop", () => this.stop());
    this.progress = element("div", { className: "fd-progress", hidden: true }, this.bar, this.place, this.stopper);
    this.summary = element("p", { className: "fd-summary", textContent: "Opening the model…", aria: { role: "status", live: "polite" } });
    this.saver = button("Save as CSV", () => this.save(), { title: "A table of file, label and probability, for a spreadsheet" });
    this.clearer = button("Clear", () => this.clear(), { title: "Take all results off the page" });
    this.tools = element("div", { className: "fd-tools", hidden: true }, this.saver, this.clearer);
    this.outlined = element("p", { className: "fd-small", hidden: true, textContent: "The orange outline on a photo is what the model takes for the thing." });
    this.known = element("p", { className: "fd-small", hidden: true });
    this.cards = element("ul", { className: "fd-cards", aria: { label: "Results", role: "list" } });
    this.about = element("section", { className: "fd-about", hidden: true, aria: { label: "About this model" } });
    this.root = element(
      "section",
      { className: "fieldguide-app", aria: { label: "Photo classifier", busy: "true" } },
      this.heading, this.pickers, this.verdict, this.alert, this.drop, this.progress, this.summary, this.outlined, this.known, this.tools, this.cards, this.about,
    );
    this.root.dataset.lmSuppressShortcuts = "true";
    root.replaceChildren(this.root);
    this.listen();
  }

  buildDrop() {
    this.photos = element("input", { type: "file", multiple: true, accept: "image/*", hidden: true });
    this.folder = element("input", { type: "file", webkitdirectory: true, hidden: true });
    for (const input of [this.photos, this.folder]) {
      input.addEventListener("change", () => {
        const files = [...input.files].map((file) => chosen(file, input === this.folder));
        if (input === this.folder) files.sort((a, b) => ORDER.compare(a.path, b.path));
        input.value = ""; // so that the same photos can be chosen again
        this.add(files);
      });
    }
    const choosePhotos = button("Choose photos", () => this.photos.click(), { className: "fd-first" });
    const chooseFolder = button("Choose a folder", () => this.folder.click(), { hidden: !("webkitdirectory" in this.folder) });
    this.limit = element("p", { className: "fd-small" });
    return element(
      "div",
      { className: "fd-drop", hidden: true },
      element("p", { className: "fd-invitation", textContent: "Drop photos or folders here" }),
      element("div", { className: "fd-choose" }, choosePhotos, chooseFolder),
      this.limit,
      this.photos,
      this.folder,
    );
  }

  /** On a page of its own a photo may be dropped anywhere: beside the zone, the browser would leave the page for it. */
  listen() {
    const target = isAlone() ? window : this.root;
    const options = { signal: this.listeners.signal };
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    const light = (on) => this.drop.classList.toggle("fd-over", on);
    for (const kind of ["dragenter", "dragover"]) {
      target.addEventListener(kind, (event) => {
        if (!holdsFiles(event)) return;
        event.preventDefault();
        event.stopPropagation();
        event.dataTransfer.dropEffect = this.drop.hidden ? "none" : "copy";
        light(true);
      }, options);
    }
    target.addEventListener("dragleave", (event) => (!event.relatedTarget || event.target === target) && light(false), options);
    target.addEventListener("drop", (event) => {
      light(false);
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      if (!this.drop.hidden) this.dropped(event.dataTransfer);
    }, options);
  }

  // --- talking with the kernel ---

  /** Send a request; the answer comes as { message, buffers }, and never where the page has gone on to something else. */
  ask(what, details = {}, buffers = []) {
    const serial = ++this.serial;
    return new Promise((done) => {
      const timer = setTimeout(() => this.say(SILENT), PATIENCE);
      this.waiting.set(serial, { done, timer });
      try {
        this.model.send({ ask: what, view: this.id, serial, ...details }, undefined, buffers);
      } catch (error) {
        console.warn(error);
        this.fail(GONE);
      }
    });
  }

  receive(message, buffers) {
    const request = message.view === this.id && this.waiting.get(message.serial);
    if (!request) return;
    clearTimeout(request.timer);
    this.waiting.delete(message.serial);
    if (this.alert.textContent === SILENT) this.say("");
    request.done({ message, buffers });
  }

  /** The kernel is lost: what is shown stays, and nothing more can be judged. */
  fail(why) {
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
    this.halt();
    this.drop.hidden = true;
    this.picker.disabled = true;
    this.say(why);
    this.count();
  }

  say(text) {
    this.alert.textContent = text;
  }

  // --- the model ---

  async open(what, details) {
    this.root.setAttribute("aria-busy", "true");
    this.drop.hidden = true;
    this.picker.disabled = true;
    const { message } = await this.ask(what, details);
    this.root.setAttribute("aria-busy", "false");
    this.picker.disabled = false;
    if (message.tell !== "model") return this.say(message.alert);
    this.largest = message.largest;
    this.part = message.part;
    this.limit.textContent = `Photos up to ${this.megabytes(message.largest)}. They are judged one by one and not kept.`;
    this.picker.replaceChildren(...message.models.map((each) => element("option", { textContent: each, value: each })));
    this.picker.value = message.model;
    this.pickers.hidden = message.models.length < 2;
    this.drop.hidden = message.problem !== "";
    this.summary.textContent = "";
    this.say(message.problem);
    this.tell(message);
  }

  async choose() {
    const cleared = this.results.length;
    const model = this.picker.value;
    this.clear();
    this.summary.textContent = `Opening ${model}…`;
    await this.open("model", { model });
    if (cleared && !this.drop.hidden) {
      this.summary.textContent = `Now ${model} judges. ${several(cleared, "result")} of the other model ${cleared === 1 ? "was" : "were"} cleared: choose the photos again.`;
    }
  }

  /** How good the model is, on top; its card at the foot. */
  tell({ model, heading, verdict, about, finds, detects, known }) {
    this.detects = detects;
    this.heading.textContent = heading;
    if (isAlone()) document.title = heading;
    this.root.classList.toggle("fd-finding", detects);
    this.root.setAttribute("aria-label", detects ? "Things in photos" : "Photo classifier");
    this.outlined.hidden = !finds;
    this.unsure = known.shown ? UNKNOWN_ONE : UNSURE;
    this.known.textContent = known.shown ? "Below each answer: the known individuals with the most similar photo. 1.00 is the same photo; the number is no probability." : known.problem;
    this.known.hidden = !this.known.textContent;
    this.verdict.textContent = verdict && `How good is this model? ${verdict}`;
    this.verdict.hidden = !verdict;
    const parts = about.flatMap(([heading, lines]) => [
      element("dt", { textContent: heading }),
      ...lines.map((line) => element("dd", {}, name(line))),
    ]);
    this.about.replaceChildren(element("h2", {}, "About this model: ", name(model)), element("dl", {}, ...parts));
    this.about.hidden = parts.length === 0;
  }

  megabytes(bytes) {
    return `${Math.round(bytes / 2 ** 20)}\u00a0MB`;
  }

  // --- photos, one after another ---

  async dropped(transfer) {
    // All at once and now: after the first pause the browser hands nothing more over.
    const items = [...transfer.items].filter((item) => item.kind === "file").map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
    const loose = items.filter(([entry]) => !entry).map(([, file]) => chosen(file, false));
    const run = this.run;
    const looking = (count) => run === this.run && (this.summary.textContent = `Looking through the folder: ${several(count, "file")} so far…`);
    const files = await walk(items.map(([entry]) => entry).filter(Boolean), looking);
    if (run === this.run) this.add([...files, ...loose]);
  }

  add(files) {
    const photos = files.filter(isPhoto);
    this.skipped += files.length - photos.length;
    this.total += photos.length;
    for (const photo of photos) this.queue.push(photo);
    this.say(photos.length ? "" : "There are no photos in that folder.");
    this.count();
    if (!this.busy && photos.length) this.work();
  }

  async work() {
    const run = this.run;
    this.busy = true;
    this.progress.hidden = false;
    this.summary.classList.add("fd-unseen");
    this.picker.disabled = true;
    this.advance();
    for (let at = 0; at < this.queue.length; at += 1) {
      const photo = this.queue[at];
      this.queue[at] = null; // its file can go
      const { message, buffers } = await this.judge(photo, run);
      if (run !== this.run) return;
      this.show(photo, message, buffers);
      this.done += 1;
      this.advance();
    }
    this.rest();
    this.count();
  }

  /** Send one photo, part by part; the kernel's last answer, or why it was not sent. */
  async judge(photo, run) {
    const refused = (error) => ({ message: { error }, buffers: [] });
    try {
      const file = await photo.open();
      if (file.size > this.largest) return refused(`it has ${this.megabytes(file.size)}, more than ${this.megabytes(this.largest)}, and was not sent`);
      for (let at = 0; ; ) {
        const part = await file.slice(at, at + this.part).arrayBuffer();
        if (run !== this.run) return refused("");
        const { message, buffers } = await this.ask("part", { size: file.size, at }, [part]);
        if (message.tell === "result") return { message, buffers };
        if (message.tell !== "more") return refused(message.alert);
        at += part.byteLength;
      }
    } catch (error) {
      console.warn(error);
      return refused(LOST);
    }
  }

  advance() {
    this.bar.max = this.total;
    this.bar.value = this.done;
    this.place.textContent = `${this.done.toLocaleString("en")} of ${this.total.toLocaleString("en")}`;
    // Read out ten times in all, however many photos there are; seen beside the bar, at each.
    if (this.done % Math.ceil(this.total / 10) === 0) this.summary.textContent = `Judged ${this.place.textContent}`;
  }

  /** End what is under way: the rest is dropped, the results stay. */
  halt() {
    this.run += 1;
    this.rest();
  }

  /** All is judged; a folder that is still looked through goes on. */
  rest() {
    const focused = this.stopper === document.activeElement;
    this.busy = false;
    this.queue = [];
    this.progress.hidden = true;
    this.summary.classList.remove("fd-unseen");
    this.picker.disabled = false;
    this.done = this.total = 0;
    if (focused) this.drop.querySelector("button").focus();
  }

  stop() {
    const { done, total } = this;
    this.halt();
    this.ask("stop");
    this.count(`Stopped after ${done.toLocaleString("en")} of ${total.toLocaleString("en")}. `);
  }

  clear() {
    const busy = this.busy;
    this.halt();
    if (busy) this.ask("stop");
    this.empty();
    this.say("");
    this.count();
  }

  empty() {
    for (const image of this.cards.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    this.cards.replaceChildren();
    this.results = [];
    this.skipped = 0;
  }

  // --- results ---

  show(photo, message, buffers) {
    if (this.detects) return this.showFound(photo, message, buffers);
    const { label, probability, top, nearest, error } = message;
    const text = error ? "" : label ?? this.unsure;
    this.results.push({ path: photo.path, label: error ? "" : label ?? "unknown", probability: error ? null : probability, text, error });
    const body = error
      ? unread(error)
      : [element("p", { className: label === null ? "fd-verdict fd-unsure" : "fd-verdict" }, label === null ? this.unsure[0].toUpperCase() + this.unsure.slice(1) : name(label)), this.bars(top)];
    const card = this.addCard(photo, buffers[0] ? [picture(buffers[0], "")] : [], body);
    if (nearest?.length) card.append(this.strip(nearest, buffers.slice(1)));
  }

  /** Show a photo with its boxes, and a list of what they are, with the same numbers. */
  showFound(photo, { boxes, error }, buffers) {
    this.results.push({ path: photo.path, boxes: error ? [] : boxes, error });
    const body = error ? unread(error) : boxes.length ? [foundList(boxes)] : [element("p", { className: "fd-verdict fd-unsure" }, "Nothing found")];
    const shown = buffers[0] ? [element("div", { className: "fd-shown" }, picture(buffers[0], ""), ...(boxes ?? []).map(boxFrame))] : [];
    this.addCard(photo, shown, body);
  }

  addCard(photo, shown, body) {
    const thumbnail = element("div", { className: "fd-thumbnail" }, ...shown);
    const card = element("li", {}, thumbnail, element("div", { className: "fd-body" }, element("p", { className: "fd-file", title: photo.path }, name(photo.path)), ...body));
    this.cards.append(card);
    this.tools.hidden = false;
    return card;
  }

  /** The individuals with the nearest known photos, which come as JPEGs in the same order. */
  strip(nearest, photos) {
    const known = nearest.map(([label, similarity], n) =>
      element("li", {}, picture(photos[n], `Known photo of ${label}`), element("span", {}, name(label)), element("span", { className: "fd-small", textContent: similarity.toFixed(2) })));
    return element("ol", { className: "fd-nearest", aria: { role: "list", label: "Most similar known photos" } }, ...known);
  }

  bars(top) {
    const lines = top.map(([label, probability]) => {
      const filled = element("div");
      filled.style.width = `${100 * probability}%`;
      const bar = element("div", { className: "fd-bar", aria: { hidden: "true" } }, filled);
      return element("li", {}, element("span", {}, name(label)), element("span", { textContent: percent(probability) }), bar);
    });
    return element("ol", { className: "fd-bars", aria: { role: "list", label: "Most probable" } }, ...lines);
  }

  /** Say in a line what came of the photos. */
  count(before = "") {
    if (this.busy) return;
    const tally = new Map();
    const add = (text) => tally.set(text, (tally.get(text) ?? 0) + 1);
    for (const { text, boxes } of this.results) if (boxes) boxes.forEach(([label]) => add(label)); else if (text) add(text);
    const parts = [...tally].sort((a, b) => b[1] - a[1] || ORDER.compare(a[0], b[0])).map(([text, count]) => `${count.toLocaleString("en")} ${text}`);
    const empty = this.results.filter(({ boxes, error }) => boxes?.length === 0 && !error).length;
    if (empty) parts.push(`nothing found in ${empty.toLocaleString("en")}`);
    const broken = this.results.filter(({ error }) => error).length;
    if (broken) parts.push(`${broken.toLocaleString("en")} could not be read`);
    const skipped = this.skipped ? ` ${several(this.skipped, "file that is no photo", "files that are no photos")} skipped.` : "";
    this.summary.textContent = before + (this.results.length ? `${several(this.results.length, "photo")}: ${parts.join(", ")}.` : "") + skipped;
    this.tools.hidden = !this.results.length;
  }

  save() {
    const address = URL.createObjectURL(new Blob([this.detects ? boxTable(this.results) : table(this.results)], { type: "text/csv;charset=utf-8" }));
    element("a", { href: address, download: "predictions.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}

export default {
  render({ model, el }) {
    const page = new Page(model, el);
    return () => page.remove();
  },
};
