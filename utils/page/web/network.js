/**
 * model.onnx on onnxruntime-web: on the graphics card where the browser offers one (WebGPU), else on the processor.
 *
 * What an engine answers to a drawn picture is compared with what Python got from the same file, before any photo is
 * judged. So a graphics driver that calculates wrongly is not used, and neither is a file that is another model's.
 */

import { outOf, strongest } from "./boxes.js";
import { outline } from "./outline.js";

const AGREEMENT = 1e-3; // the largest difference of a probability, as between the files of notebook 07
const MOST_THREADS = 4;
const SILENCE = 60_000; // milliseconds

/** Something that keeps the model from working; the message is for the visitor. */
export class Problem extends Error {}

/**
 * Return { how, onGraphics, judge } for the model that page.json describes.
 *
 * `judge` gives { probabilities, outline, features } of a picture; there is an outline where the model finds the thing
 * first, and there are features where it tells single animals. Where the model finds things, it gives { boxes } instead:
 * each with label (its number), probability, left, top, right, bottom (fractions).
 *
 * `progress` is told the bytes loaded, and of how many. Without `graphics` the processor is used in any case.
 */
export async function openModel(facts, progress, graphics = true) {
  if (typeof WebAssembly !== "object") {
    throw new Problem("This browser does not run WebAssembly, which the model needs. Try a current Firefox, Chrome, Edge or Safari.");
  }
  const model = await fetched(facts.model, progress);
  for (const engine of graphics && (await hasGraphics()) ? ["webgpu", "wasm"] : ["wasm"]) {
    try {
      const network = await opened(engine, model, facts);
      if (await network.answersAs(facts.probe, probe(facts.recipe.size))) return network;
      if (engine === "wasm") throw new Problem("The model answers otherwise than it did when this page was made. Write the page again with notebook 07.");
    } catch (error) {
      if (error instanceof Problem) throw error;
      if (engine === "wasm") throw new Problem(`The model could not be opened: ${error.message}. Reload the page; if that does not help, write it again with notebook 07.`);
      console.warn(error);
    }
  }
}

/** Whether there is a graphics card: a browser may also offer one that it imitates, which is slower than WebAssembly. */
async function hasGraphics() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

/** Load the model's file, and refuse one that is not the one that this page was made for. */
export async function fetched(model, progress) {
  try {
    return await downloaded(model, progress, "default");
  } catch (error) {
    if (!error.another) throw error;
    return downloaded(model, progress, "reload"); // the browser may have kept what lay there during an upload
  }
}

async function downloaded({ file, bytes, sha256 }, progress, cache) {
  const response = await fetch(new URL(`${file}?${sha256}`, import.meta.url), { cache }).catch(() => null);
  if (!response?.ok) throw new Problem(`${file} could not be loaded${response ? ` (${response.status})` : ""}. It must lie beside index.html. Check the connection and reload the page.`);
  const data = new Uint8Array(bytes);
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await inTime(reader.read()).catch(() => {
      throw new Problem(`${file} could not be loaded: the connection broke after ${(loaded / 1e6).toFixed(1)} of ${(bytes / 1e6).toFixed(1)} MB. Reload the page.`);
    });
    if (done) break;
    if (loaded + value.length > bytes) throw another(file);
    data.set(value, loaded);
    loaded += value.length;
    progress(loaded, bytes);
  }
  if (loaded !== bytes) throw another(file);
  const digest = await globalThis.crypto?.subtle?.digest("SHA-256", data); // absent where the page came by plain http
  if (digest && [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
    throw another(file);
  }
  return data;
}

/** Give up on a server that is silent for a minute: a bar that stands still says nothing. */
function inTime(promise) {
  const silence = new Promise((_, failed) => setTimeout(failed, SILENCE, new Error("silent")));
  return Promise.race([promise, silence]);
}

const another = (file) => Object.assign(new Problem(`${file} is not the file that this page was made for, or it was cut short. Write the page again with notebook 07, and copy all of its files.`), { another: true });

async function opened(engine, model, facts) {
  const { runtime, recipe } = facts;
  const names = engine === "webgpu" ? runtime.webgpu : runtime.wasm;
  const [entry, mjs, wasm] = names.map((name) => new URL(name, import.meta.url).href);
  const ort = await import(entry);
  const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  Object.assign(ort.env.wasm, { wasmPaths: { mjs, wasm }, numThreads: threads });
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(model, { executionProviders: [engine], logSeverityLevel: 3 });
  const [height, width] = recipe.size;
  const run = ({ data }) => session.run({ pixels: new ort.Tensor("uint8", data, [1, height, width, 3]) });
  return {
    onGraphics: engine === "webgpu",
    how: engine === "webgpu" ? "on the graphics card (WebGPU)" : `on the processor (WebAssembly, ${threads === 1 ? "one thread" : `${threads} threads`})`,
    ...(facts.task === "detect" ? finding(run, facts) : naming(run, facts)),
  };
}

/** How a model that tells photos apart judges a picture, and whether it answers to a drawn one as Python did. */
function naming(run, { labels, recipe }) {
  const judge = async (input) => {
    const { probabilities, mask, features } = await run(input);
    const values = Array.from(probabilities.data);
    const sum = values.reduce((total, value) => total + value, 0);
    if (values.length !== labels.length || !(Math.abs(sum - 1) < 1e-3) || values.some((value) => !(value >= 0))) {
      throw new Error("the model's answer is no probabilities");
    }
    return { probabilities: values.map((value) => value / sum), outline: mask && outline(grid(mask), recipe), features: features?.data.slice() };
  };
  const answersAs = async (wanted, input) => (await judge(input)).probabilities.every((value, n) => Math.abs(value - wanted[n]) <= AGREEMENT);
  return { judge, answersAs };
}

/** The same for a model that finds things. */
function finding(run, { labels, threshold, recipe: { size, overlap, most } }) {
  const raw = async (input) => {
    const { boxes, scores } = await run(input);
    const places = boxes.data.length / 4;
    if (!Number.isInteger(places) || scores.data.length !== places * labels.length || !scores.data.every((value) => value >= 0 && value <= 1)) {
      throw new Error("the model's answer is no boxes with probabilities");
    }
    return { boxes: boxes.data, scores: scores.data };
  };
  const rules = { labels: labels.length, least: threshold, overlap, most };
  const judge = async (input) => {
    const { boxes, scores } = await raw(input);
    const told = strongest(boxes, scores, rules);
    return { boxes: told.map(({ label, probability, corners }) => ({ label, probability, ...outOf(input.place, corners) })) };
  };
  const near = (values, each, at, wanted, within) => wanted.every((value, n) => Math.abs(values[at * each + n] - value) <= within);
  const answersAs = async (wanted, input) => {
    const { boxes, scores } = await raw(input);
    return wanted.places.every(
      (at, n) => near(boxes, 4, at, wanted.boxes[n], AGREEMENT * size[0]) && near(scores, labels.length, at, wanted.scores[n], AGREEMENT),
    );
  };
  return { judge, answersAs };
}

/** Return a mask as the network gives it, of one picture, with its height and width. */
function grid({ data, dims: [, height, width] }) {
  return { data, height, width };
}

/** The drawn picture that the model is tried on; utils/export/page.py draws the same. */
function probe([height, width]) {
  const data = new Uint8Array(height * width * 3);
  for (let at = 0; at < data.length; at += 1) {
    const pixel = Math.trunc(at / 3);
    data[at] = ((pixel % width) * 7 + Math.trunc(pixel / width) * 13 + (at % 3) * 29) % 256;
  }
  return { data };
}
