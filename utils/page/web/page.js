/**
 * The page: photos are taken here, judged one after another by worker.js, and shown. No photo leaves the browser.
 *
 * page.json, which notebook 07 wrote, says what the model is. It and the photos' names are shown as text only.
 */

import { drawBoxes } from "./boxes.js";
import { startCamera } from "./camera.js";
import { fromInput, fromTransfer, GONE, ORDER } from "./chosen.js";
import { byId, element, name, number, percent, several } from "./elements.js";
import { drawOutline } from "./outline.js";
import { boxTable, table } from "./table.js";

const THUMBNAIL = 112; // pixels, as page.css lays it out
const WIDE = 480; // … of a photo with boxes
const SHOWN = 3; // labels of each photo
const LARGER = 1600; // pixels of the longest side
const NEAREST = 5; // individuals whose nearest known photo is shown beside an answer
const UNSURE = "not sure";
const UNKNOWN_ONE = "not one of the known ones, or not sure"; // where each label is a single animal
const PATIENCE = 3000; // milliseconds that the store for offline use gets to start

let worker;
let stopCamera;
let facts;
let known; // photos of single animals, as known.js reads them
let photosOpened = Promise.resolve(); // when they are there, or it is said why not
let run = 0; // changes whenever what is under way is to be dropped
let queue = [];
let done = 0;
let total = 0;
let results = [];
const waiting = new Map(); // the number of a question → what awaits its answer
let asked = 0;
let gone = ""; // why the worker answers no more

// --- start ---

async function start() {
  byId("unserved").remove();
  try {
    const response = await fetch("page.json", { cache: "no-cache" });
    if (!response.ok) throw new Error(`answer ${response.status}`);
    facts = await response.json();
    tellAbout();
  } catch (error) {
    return say(`page.json could not be read (${error.message}). It must lie beside index.html: copy the whole folder.`);
  }
  const policed = await keepForOffline();
  byId("loading").hidden = false;
  worker = new Worker(policed ? "worker.js" : blobOfWorker(), { type: "module" });
  worker.onmessage = ({ data }) => HANDLERS[data.tell](data);
  worker.onerror = (event) => {
    event.preventDefault();
    HANDLERS.problem({ text: `The part of the page that runs the model stopped${event.message ? ` (${event.message})` : ""}. Reload the page.` });
  };
  worker.postMessage({ ask: "open", facts });
  if (facts.known) photosOpened = openPhotos(); // beside the model
}

/** Load the known photos; without them the answers are the same. */
async function openPhotos() {
  byId("known").hidden = false;
  try {
    const { openKnown } = await import("./known.js"); // here, for most pages need none of it
    known = await openKnown(facts.known);
  } catch (error) {
    byId("known").textContent = `The known photos cannot be shown: ${error.message}`;
  }
}

/**
 * Return an address of worker.js under which it keeps to the policy of index.html: a <meta> counts for the page alone, but
 * a blob inherits it. Where offline.js is at work it sends the policy along; it does not see what a blob loads.
 */
function blobOfWorker() {
  const script = `import ${JSON.stringify(new URL("worker.js", location.href).href)};`;
  return URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
}

/** Keep what is loaded for a visit without a network, where the browser lets a page do that; return whether it does. */
async function keepForOffline() {
  try {
    const { serviceWorker } = navigator; // a frame of another page may not even ask for it
    if (!serviceWorker) return false;
    const ours = new URL(`offline.js?${facts.version}`, location.href).href;
    const active = new Promise((settle) => {
      // An earlier version's, or that of a page further up, would keep the model in a store that is not this page's.
      const look = () => serviceWorker.controller?.scriptURL === ours && settle(true);
      serviceWorker.addEventListener("controllerchange", look);
      look();
    });
    const tooLong = new Promise((settle) => setTimeout(settle, PATIENCE, false));
    return await Promise.race([serviceWorker.register(ours).then(() => active), tooLong]);
  } catch (error) {
    console.warn(error); // it works all the same, with a network
    return false;
  }
}

const HANDLERS = {
  loading({ loaded, total: bytes }) {
    byId("loaded").max = bytes;
    byId("loaded").value = loaded;
    byId("loaded-bytes").textContent = `${megabytes(loaded)} of ${megabytes(bytes)}`;
  },
  async ready({ how }) {
    await photosOpened;
    if (gone) return;
    byId("loading").hidden = true;
    byId("drop").hidden = false;
    byId("engine").textContent = `The model runs ${how}.`;
    document.body.dataset.ready = "true";
  },
  problem({ text }) {
    byId("loading").hidden = true;
    byId("drop").hidden = true;
    stopCamera();
    stop();
    gone = text;
    for (const settle of waiting.values()) settle({ error: text });
    waiting.clear();
    say(text);
  },
  answer(message) {
    waiting.get(message.id)?.(message);
    waiting.delete(message.id);
  },
};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)}\u00a0MB`;

function say(text) {
  byId("alert").textContent = text;
}

function tellAbout() {
  document.title = facts.title;
  document.body.classList.toggle("finding", finds());
  byId("title").textContent = facts.title;
  byId("verdict").textContent = facts.verdict && `How good is this model? ${facts.verdict}`;
  byId("verdict").hidden = !facts.verdict;
  for (const [heading, lines] of facts.about) {
    byId("about-lines").append(element("dt", { textContent: heading }));
    byId("about-lines").append(...lines.map((line) => element("dd", {}, name(line))));
  }
  byId("about").hidden = false;
}

// --- photos, one after another ---

/** Ask the worker, and return its answer. */
export function ask(what, details, transfer = []) {
  if (gone) return Promise.resolve({ error: gone });
  asked += 1;
  const id = asked;
  return new Promise((settle) => {
    waiting.set(id, settle);
    worker.postMessage({ ask: what, id, ...details }, transfer);
  });
}

function add(photos) {
  const busy = total > 0;
  say(photos.length ? "" : "There are no photos in there.");
  queue.push(...photos);
  total += photos.length;
  if (!busy && photos.length) work();
}

async function work() {
  const mine = run;
  byId("judging").hidden = false;
  advance();
  for (let photo; (photo = queue.shift()); ) {
    const answer = await askAbout(photo, "judge");
    if (mine !== run) return answer.shown?.close();
    show(photo, answer);
    done += 1;
    advance();
  }
  rest();
}

async function askAbout(photo, what, details) {
  const file = await photo.open().catch(() => null);
  return file ? ask(what, { file, ...details }) : { error: GONE };
}

function advance() {
  byId("judged").max = total;
  byId("judged").value = done;
  byId("judged-count").textContent = `${number(done)} of ${number(total)}`;
}

function rest() {
  if (document.activeElement === byId("stop")) byId("choose").focus();
  byId("judging").hidden = true;
  queue = [];
  done = total = 0;
  count();
}

function stop() {
  run += 1;
  rest();
}

function clear() {
  byId("cards").replaceChildren();
  results = [];
  say("");
  stop();
  byId("choose").focus(); // the button that had it goes
}

// --- results ---

/** Return the label that is said: null where the best probability lies below the model's threshold. */
function best(probabilities) {
  const top = probabilities.map((probability, n) => ({ label: facts.labels[n], probability }));
  top.sort((a, b) => b.probability - a.probability);
  const unsure = facts.threshold !== null && top[0].probability < facts.threshold;
  return { top: top.slice(0, SHOWN), label: unsure ? null : top[0].label, probability: top[0].probability };
}

/** Whether the model finds things in photos, instead of telling photos apart. */
const finds = () => facts.task === "detect";

function show(photo, answer) {
  if (finds()) return showFound(photo, answer);
  const { error, probabilities, shown, outline, features } = answer;
  const { path } = photo;
  const { top, label, probability } = error ? {} : best(probabilities);
  results.push({ path, error, label: error ? "" : label ?? "unknown", probability: error ? null : probability });
  const body = error
    ? unread(error)
    : [element("p", { className: label === null ? "label unsure" : "label" }, label === null ? unsure()[0].toUpperCase() + unsure().slice(1) : name(label)), bars(top)];
  const card = addCard(photo, body, shown, outline && ((context) => drawOutline(context, outline)));
  if (known && features) card.append(strip(known.nearest(features, NEAREST)));
  if (outline) byId("outlined").hidden = false;
}

/** Show a photo with its boxes, and a list of what they are. */
function showFound(photo, { error, boxes, shown }) {
  results.push({ path: photo.path, error, boxes: error ? null : boxes });
  const body = error ? unread(error) : boxes.length ? [foundList(boxes)] : [element("p", { className: "label unsure", textContent: "Nothing found" })];
  addCard(photo, body, shown, boxes?.length ? (context) => drawBoxes(context, boxes) : undefined);
}

const unread = (error) => [element("p", { className: "label broken", textContent: "Could not be read" }), element("p", { className: "small", textContent: error })];

/** A list with a number for each box, the same as on the photo. */
function foundList(boxes) {
  const lines = boxes.map(({ label, probability }) => element("li", {}, name(facts.labels[label]), element("span", { textContent: percent(probability) })));
  return element("ol", { className: "found", aria: { label: "Found in this photo" } }, ...lines);
}

function addCard(photo, body, shown, draw) {
  const file = element("p", { className: "file", title: photo.path }, name(photo.path));
  const card = element("li", {}, thumbnail(photo, shown, draw), element("div", { className: "body" }, file, ...body));
  byId("cards").append(card);
  byId("tools").hidden = false;
  return card;
}

/** A small photo that opens a large one; `draw` draws on both, if it is given. */
function thumbnail(photo, shown, draw) {
  if (!shown) return element("div", { className: "thumbnail" });
  const scale = Math.min(1, ((finds() ? WIDE : THUMBNAIL) * devicePixelRatio) / Math.max(shown.width, shown.height));
  const canvas = element("canvas", { width: Math.max(1, shown.width * scale), height: Math.max(1, shown.height * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(shown, 0, 0, canvas.width, canvas.height);
  shown.close();
  draw?.(context);
  const button = element("button", { type: "button", className: "thumbnail", aria: { label: `Show ${photo.path} larger` } }, canvas);
  button.addEventListener("click", () => showLarger(photo, draw));
  return button;
}

async function showLarger(photo, draw) {
  const { shown, error } = await askAbout(photo, "show", { longest: LARGER });
  if (error) return say(`${photo.path} cannot be shown: ${error}.`);
  const canvas = Object.assign(byId("larger-picture"), { width: shown.width, height: shown.height });
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0);
  shown.close();
  draw?.(context);
  byId("larger-name").replaceChildren(name(photo.path));
  byId("larger").showModal();
}

const unsure = () => (facts.known ? UNKNOWN_ONE : UNSURE);

/** What is written over the live view. */
function bestInFrame(probabilities) {
  const { label, probability } = best(probabilities);
  return `${label ?? "Not sure"} · ${percent(probability)}`;
}

const foundInFrame = (boxes) => boxes.map(({ label, probability }, n) => `${n + 1} ${facts.labels[label]} · ${percent(probability)}`).join(", ") || "Nothing found";

function strip(nearest) {
  const photos = nearest.map(({ label, similarity, photo }) =>
    element("li", {}, element("img", { src: photo, alt: `Known photo of ${label}` }), element("span", {}, name(label)), element("span", { className: "small", textContent: similarity.toFixed(2) })));
  return element("ol", { className: "nearest", aria: { label: "Most similar known photos" } }, ...photos);
}

function bars(top) {
  const lines = top.map(({ label, probability }) => {
    const meter = element("meter", { min: 0, max: 1, value: probability, aria: { hidden: "true" } });
    return element("li", {}, element("span", {}, name(label)), element("span", { textContent: percent(probability) }), meter);
  });
  return element("ol", { className: "bars", aria: { label: "Most probable" } }, ...lines);
}

/** Say in a line what came of the photos. */
function count() {
  const tally = new Map();
  const add = (label) => tally.set(label, (tally.get(label) ?? 0) + 1);
  for (const { error, label, boxes } of results) if (boxes) boxes.forEach((box) => add(facts.labels[box.label])); else if (!error) add(label);
  const parts = [...tally].sort((a, b) => b[1] - a[1] || ORDER.compare(a[0], b[0])).map(([label, times]) => `${number(times)} ${label === "unknown" ? unsure() : label}`);
  const empty = results.filter(({ boxes }) => boxes?.length === 0).length;
  if (empty) parts.push(`nothing found in ${number(empty)}`);
  const broken = results.filter(({ error }) => error).length;
  if (broken) parts.push(`${number(broken)} could not be read`);
  byId("summary").textContent = results.length ? `${several(results.length, "photo")}: ${parts.join(", ")}.` : "";
  byId("tools").hidden = !results.length;
}

function save() {
  const address = URL.createObjectURL(new Blob([finds() ? boxTable(results, facts.labels) : table(results)], { type: "text/csv;charset=utf-8" }));
  element("a", { href: address, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// --- what the visitor does ---

function listen() {
  for (const [button, input] of [["choose", "photos"], ["choose-folder", "folder"], ["take", "camera"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", () => add(fromInput(byId(input))));
  }
  byId("take").hidden = !matchMedia("(pointer: coarse)").matches; // where a telephone opens its camera
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", clear);
  byId("save").addEventListener("click", save);
  const takes = () => !byId("drop").hidden;
  const light = (on) => byId("drop").classList.toggle("dropping", on);
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser would leave the page for a link or a photo that is dropped
      const welcome = takes() && holdsFiles(event);
      event.dataTransfer.dropEffect = welcome ? "copy" : "none";
      light(welcome);
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget || light(false));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    light(false);
    if (takes() && holdsFiles(event)) add(await fromTransfer(event.dataTransfer));
  });
  addEventListener("paste", async (event) => {
    if (takes() && event.clipboardData?.files.length) add(await fromTransfer(event.clipboardData));
  });
  stopCamera = startCamera({
    judge: (bitmap) => ask("frame", { bitmap }, [bitmap]),
    told: ({ probabilities, boxes }) => (boxes ? foundInFrame(boxes) : bestInFrame(probabilities)),
    draw: (context, { boxes }) => boxes && drawBoxes(context, boxes),
    keep: (photo) => add([photo]),
    say,
  });
}

listen();
start();
