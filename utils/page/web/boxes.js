/**
 * Things found in a photo: the same square, the same choice of boxes as utils.pictures and utils.inference make, and how
 * they are drawn. Numbers are rounded to 32 bits where numpy has 32 bits, so that both choose alike.
 */

import { resize } from "./resample.js";
import { toEven } from "./rounding.js";

const AROUND = 127; // grey, around the photo in its square
const COLOUR = "#e69f00"; // orange, which nearly everybody can tell from what is around it
const EDGE = "#16191c"; // beside the orange line, which then shows on any ground
const f32 = Math.fround;

/** Return a picture { data, width, height } in a square of `size` pixels, as an input of the network with its `place`. */
export function squared(picture, size, filter) {
  const scale = size / Math.max(picture.width, picture.height);
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, toEven(side * scale)));
  const place = { left: Math.trunc((size - width) / 2), top: Math.trunc((size - height) / 2), width, height };
  const { data: inner } = resize(picture, width, height, filter);
  const data = new Uint8Array(size * size * 3).fill(AROUND);
  for (let row = 0; row < height; row += 1) {
    const start = ((place.top + row) * size + place.left) * 3;
    data.set(inner.subarray(row * width * 3, (row + 1) * width * 3), start);
  }
  return { data, width: size, height: size, place };
}

/**
 * Return what is told of one picture, the most probable first: [{ label, probability, corners }], corners in pixels.
 *
 * `boxes` (A × 4) and `scores` (A × K) are flat. A box counts from the score `least` on; one that overlaps a better one
 * of its label by more than `overlap` is dropped; `most` are told.
 */
export function strongest(boxes, scores, { labels, least, overlap, most }) {
  const candidates = [];
  for (let at = 0; at < scores.length; at += 1) {
    if (scores[at] >= f32(least)) candidates.push({ label: at % labels, probability: scores[at], at: Math.trunc(at / labels) });
  }
  candidates.sort((a, b) => b.probability - a.probability); // of equal ones the first stays first
  const kept = [];
  for (const each of candidates) {
    each.corners = boxes.subarray(each.at * 4, each.at * 4 + 4);
    if (kept.some((better) => better.label === each.label && shared(better.corners, each.corners) > overlap)) continue;
    kept.push(each);
    if (kept.length === most) break;
  }
  return kept;
}

/** Return how much two boxes overlap (IoU). */
export function shared([left, top, right, bottom], [left2, top2, right2, bottom2]) {
  const wide = Math.max(0, f32(Math.min(right, right2) - Math.max(left, left2)));
  const high = Math.max(0, f32(Math.min(bottom, bottom2) - Math.max(top, top2)));
  const both = f32(wide * high);
  const area = (w, h) => f32(f32(w) * f32(h));
  return f32(both / f32(f32(area(right - left, bottom - top) + area(right2 - left2, bottom2 - top2)) - both));
}

/** Return corners in pixels of the square as fractions of the photo that lies in it at `place`. */
export function outOf(place, [left, top, right, bottom]) {
  const x = (value) => Math.min(1, Math.max(0, (value - place.left) / place.width));
  const y = (value) => Math.min(1, Math.max(0, (value - place.top) / place.height));
  return { left: x(left), top: y(top), right: x(right), bottom: y(bottom) };
}

/** Draw boxes, in fractions, on a photo that fills a canvas; each with its number, from 1, as the list beside has it. */
export function drawBoxes(context, boxes) {
  const { width, height } = context.canvas;
  const line = Math.max(2, Math.max(width, height) / 250);
  const text = Math.max(13, Math.max(width, height) / 30);
  context.font = `bold ${text}px system-ui, sans-serif`;
  context.textBaseline = "top";
  boxes.forEach(({ left, top, right, bottom }) => {
    const frame = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    for (const [colour, thick] of [[EDGE, line * 2], [COLOUR, line]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.strokeRect(...frame);
    }
  });
  boxes.forEach(({ left, top }, n) => {
    const wide = context.measureText(n + 1).width + text * 0.6;
    const [x, y] = [Math.min(left * width, width - wide), Math.min(top * height, height - text * 1.2)];
    context.fillStyle = COLOUR;
    context.fillRect(x, y, wide, text * 1.2);
    context.fillStyle = EDGE;
    context.fillText(n + 1, x + text * 0.3, y + text * 0.15);
  });
}
