/**
 * The known photos of single animals (gallery.safetensors), and which of them are nearest to a photo.
 *
 * The file is the one whose SHA-256 page.json names; utils/inference/gallery.py says what it holds.
 */

import { fetched, Problem } from "./network.js";

const BEGINS = 8; // bytes, which say how long the head is

/** Load the known photos; the answer's `nearest` says which of them are nearest to a photo's features. */
export async function openKnown(known) {
  const data = await fetched(known, () => {});
  try {
    return read(data);
  } catch (error) {
    console.warn(error);
    throw new Problem(`${known.file} is damaged. Write the page again with notebook 07.`);
  }
}

function read(data) {
  const length = Number(new DataView(data.buffer).getBigUint64(0, true));
  const head = JSON.parse(new TextDecoder().decode(data.subarray(BEGINS, BEGINS + length)));
  const { labels, ends } = JSON.parse(head.__metadata__.gallery);
  const part = ({ data_offsets: [start, end] }) => data.slice(BEGINS + length + start, BEGINS + length + end);
  const [count, size] = head.features.shape;
  const rows = Float32Array.from(new Uint16Array(part(head.features).buffer), fromHalf);
  const photos = part(head.thumbnails);
  if (rows.length !== count * size || labels.length !== count || ends.length !== count || ends.at(-1) !== photos.length) {
    throw new RangeError("the parts do not fit each other");
  }
  for (let n = 0; n < count; n += 1) shorten(rows.subarray(n * size, (n + 1) * size));
  const row = (n) => rows.subarray(n * size, (n + 1) * size);
  return {
    /** The `most` individuals with the nearest photo, the nearest first: { label, similarity, photo }. */
    nearest(features, most) {
      if (features.length !== size) throw new RangeError("the model's features do not fit the known photos");
      const asked = shorten(Float32Array.from(features));
      const alike = labels.map((label, n) => ({ label, n, similarity: row(n).reduce((sum, value, at) => sum + value * asked[at], 0) }));
      const best = new Map();
      for (const each of alike.sort((a, b) => b.similarity - a.similarity)) if (!best.has(each.label)) best.set(each.label, each);
      return [...best.values()].slice(0, most).map(({ n, ...known }) => ({ ...known, photo: address(photos.subarray(n && ends[n - 1], ends[n])) }));
    },
  };
}

/** A JPEG as an address that holds it: the page's policy allows no other. */
const address = (jpeg) => `data:image/jpeg;base64,${btoa(String.fromCharCode(...jpeg))}`;

/** Divide numbers by their length, in place, and return them. */
function shorten(values) {
  const length = Math.hypot(...values) || 1;
  for (let at = 0; at < values.length; at += 1) values[at] /= length;
  return values;
}

/** A number of 16 bits as IEEE 754 writes it. */
function fromHalf(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}
