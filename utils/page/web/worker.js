/**
 * The model, in a thread of its own, so that the page never freezes while a photo is judged.
 *
 * It is asked by messages: { ask: "open", facts }, { ask: "judge", id, file }, { ask: "show", id, file, longest } and
 * { ask: "frame", id, bitmap }. It answers with { tell: "loading" | "ready" | "problem" | "answer" }. One photo is in memory at a time.
 */

import { fromBitmap, opened, PictureError, prepared, setHeicDecoder } from "./pictures.js";
import { GONE } from "./chosen.js";
import { openModel, Problem } from "./network.js";

let network;
let facts;
let turn = Promise.resolve(); // photos are judged one after another, in the order in which they came

onmessage = ({ data }) => {
  turn = turn.then(() => HANDLERS[data.ask](data)).catch((error) => {
    postMessage({ tell: "problem", id: data.id, text: `That did not work: ${error.message}` });
  });
};

const HANDLERS = {
  async open(message) {
    facts = message.facts;
    setHeicDecoder(facts.runtime.heic);
    try {
      network = await openModel(facts, (loaded, total) => postMessage({ tell: "loading", loaded, total }));
      postMessage({ tell: "ready", how: network.how });
    } catch (error) {
      const text = error instanceof Problem ? error.message : `The model could not be opened (${error.message}).`;
      postMessage({ tell: "problem", text });
    }
  },

  async judge({ id, file, withInput }) {
    await answer(id, () => prepared(file, facts.recipe), withInput);
  },

  async show({ id, file, longest }) {
    try {
      const shown = await bitmapOf(await opened(file, { ...facts.recipe, longest_side: longest }));
      postMessage({ tell: "answer", id, shown }, [shown]);
    } catch (error) {
      postMessage({ tell: "answer", id, error: reason(error) });
    }
  },

  async frame({ id, bitmap }) {
    await answer(id, async () => fromBitmap(bitmap, facts.recipe));
  },
};

/** Judge a picture and tell the page; `withInput` also sends what the network saw. */
async function answer(id, prepare, withInput = false) {
  const began = performance.now();
  try {
    const { input, picture } = await prepare();
    const ready = performance.now();
    const answered = await judged(input);
    const milliseconds = { preparing: ready - began, judging: performance.now() - ready };
    const shown = await bitmapOf(picture);
    const more = withInput ? { input: input.data } : {};
    postMessage({ tell: "answer", id, ...answered, shown, milliseconds, ...more }, [shown]);
  } catch (error) {
    postMessage({ tell: "answer", id, error: reason(error) });
  }
}

/** Ask the network; where the graphics card was taken away (a driver's update, a computer that slept), the processor. */
async function judged(input) {
  try {
    return await network.judge(input);
  } catch (error) {
    if (!network.onGraphics) throw error;
    console.warn(error);
    network = await openModel(facts, () => {}, false);
    postMessage({ tell: "ready", how: network.how });
    return network.judge(input);
  }
}

function reason(error) {
  if (error instanceof PictureError) return error.message;
  if (error.name === "NotFoundError" || error.name === "NotReadableError") return GONE;
  console.warn(error);
  return error instanceof RangeError ? "needs more memory than there is" : `this browser could not do it (${error.message})`;
}

async function bitmapOf({ data, width, height }) {
  const pixels = new ImageData(width, height);
  for (let at = 0, from = 0; from < data.length; at += 4) {
    pixels.data[at] = data[from++];
    pixels.data[at + 1] = data[from++];
    pixels.data[at + 2] = data[from++];
    pixels.data[at + 3] = 255;
  }
  return createImageBitmap(pixels);
}
