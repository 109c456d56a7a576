/**
 * PNG, as far as the browser's own decoder does not do what is needed here.
 *
 * `deepGrey` reads 16-bit grey values; the browser would keep 8 of the bits. `pngOf` writes pixels with a colour profile,
 * and the browser converts them to sRGB.
 */

import { big, chunks, PictureError } from "./files.js";
import { toEven } from "./rounding.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const FULL = 16; // bits
const CRCS = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

const numbered = (number) => [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];

function chunk(name, body) {
  const part = new Uint8Array(8 + body.length + 4);
  part.set(numbered(body.length));
  part.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  part.set(body, 8);
  let crc = ~0;
  for (const byte of part.subarray(4, 8 + body.length)) crc = CRCS[(crc ^ byte) & 255] ^ (crc >>> 8);
  part.set(numbered(~crc >>> 0), 8 + body.length);
  return part;
}

/**
 * Return a PNG file of a picture with three values per pixel.
 *
 * `space` says what its colours mean: { profile } as an ICC profile, or { numbers } as two of H.273's.
 */
export async function pngOf({ data, width, height }, space) {
  const length = width * 3;
  const rows = new Uint8Array((length + 1) * height); // each row begins with 0: stored as it is
  for (let row = 0; row < height; row += 1) {
    rows.set(data.subarray(row * length, (row + 1) * length), row * (length + 1) + 1);
  }
  const header = [...numbered(width), ...numbered(height), 8, 2, 0, 0, 0];
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", header)];
  if (space.profile) {
    const packed = await through(new CompressionStream("deflate"), space.profile);
    parts.push(chunk("iCCP", Uint8Array.from([0x70, 0, 0, ...packed])));
  } else if (space.numbers) {
    parts.push(chunk("cICP", [...space.numbers, 0, 1]));
  }
  parts.push(chunk("IDAT", await through(new CompressionStream("deflate"), rows)), chunk("IEND", []));
  return new Blob(parts, { type: "image/png" });
}

/** Return the ICC profile of a PNG, or null. */
export async function profileOfPng(bytes) {
  for (const { name, body } of chunks(bytes)) {
    if (name === "IDAT") return null;
    if (name === "iCCP") {
      const end = body.indexOf(0);
      return through(new DecompressionStream("deflate"), body.subarray(end + 2)).catch(() => null);
    }
  }
  return null;
}

/**
 * Return a 16-bit grey PNG as a picture of 8 bits: values from 0 to the top of `bits`, where the file notes no others.
 */
export async function deepGrey(bytes, { width, height, interlaced, notedBits }, bits) {
  if (interlaced) throw new PictureError("a 16-bit PNG that is interlaced; save it without interlacing");
  const values = await deepValues(bytes, width, height);
  let high = 0;
  let used = 0;
  for (const value of values) {
    high = Math.max(high, value);
    used |= value;
  }
  const depth = ownBits(notedBits, used, high) ?? bits ?? FULL;
  const top = 2 ** depth - 1;
  if (high > top) throw new PictureError(`too bright for ${depth} bits: a value of ${high}, the most is ${top}`);
  const data = new Uint8Array(width * height * 3);
  values.forEach((value, n) => data.fill(toEven(Math.fround(Math.fround(value / top) * 255)), 3 * n, 3 * n + 3));
  return { data, width, height };
}

/** How many bits a file's own note says, as utils/pictures/depth.py reads it. */
function ownBits(noted, used, high) {
  if (noted === undefined) return undefined;
  const asTheyAre = [8, 10, 12, 14, 16].includes(noted) && used < 2 ** noted && used & (2 ** (FULL - noted) - 1);
  const own = asTheyAre ? noted : FULL;
  return high < 2 ** own ? own : undefined;
}

async function deepValues(bytes, width, height) {
  const parts = [...chunks(bytes)].filter(({ name }) => name === "IDAT").map(({ body }) => body);
  const length = width * 2;
  let rows;
  try {
    rows = await through(new DecompressionStream("deflate"), new Blob(parts));
  } catch {
    throw new PictureError("truncated or broken inside");
  }
  if (rows.length < (length + 1) * height) throw new PictureError("truncated or broken inside");
  const values = new Uint16Array(width * height);
  let above = new Uint8Array(length);
  for (let row = 0; row < height; row += 1) {
    const start = row * (length + 1);
    const line = rows.subarray(start + 1, start + 1 + length);
    unfilter(rows[start], line, above);
    for (let column = 0; column < width; column += 1) values[row * width + column] = big(line, 2 * column);
    above = line;
  }
  return values;
}

/** Undo what was done to a row to make it smaller: each byte was written as its difference from its neighbours. */
function unfilter(kind, line, above) {
  for (let at = 0; at < line.length; at += 1) {
    const left = at >= 2 ? line[at - 2] : 0;
    const corner = at >= 2 ? above[at - 2] : 0;
    const guesses = [0, left, above[at], (left + above[at]) >> 1, nearest(left, above[at], corner)];
    line[at] += guesses[kind] ?? 0;
  }
}

function nearest(left, up, corner) {
  const guess = left + up - corner;
  const [fromLeft, fromUp, fromCorner] = [left, up, corner].map((each) => Math.abs(guess - each));
  if (fromLeft <= fromUp && fromLeft <= fromCorner) return left;
  return fromUp <= fromCorner ? up : corner;
}
