/**
 * What a picture's file says of itself, read from its bytes: its format, size, turn and frames. Nothing is decoded.
 *
 * The bytes are hostile until checked: every reader stays inside them and ends.
 */

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
export const big = (bytes, at, count = 2) => bytes.subarray(at, at + count).reduce((sum, byte) => sum * 256 + byte, 0);
const little = (bytes, at, count = 2) => big(Uint8Array.from(bytes.subarray(at, at + count)).reverse(), 0, count);

const BEGINNINGS = [
  ["JPEG", /^\xff\xd8\xff/],
  ["PNG", /^\x89PNG\r\n\x1a\n/],
  ["WEBP", /^RIFF[^]{4}WEBP/],
  ["GIF", /^GIF8[79]a/],
  ["BMP", /^BM/],
  ["TIFF", /^(II\*\0|MM\0\*|II\+\0|MM\0\+)/],
  ["AVIF", /^[^]{4}ftyp([^]{4}){0,12}(avif|avis)/],
  ["HEIC", /^[^]{4}ftyp([^]{4}){0,12}(hei[cxms]|hev[cxms]|mif1|msf1)/],
  ["JXL", /^(\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n)/],
];
const FOREIGN = [
  [/^\s*(<\?xml[^>]*>\s*)?(<!doctype svg[^>]*>\s*)?<svg/i, "but a drawing of shapes (SVG)"],
  [/<!doctype html|<html|<head|<body|<script/i, "but a web page (HTML)"],
  [/<svg/i, "but a drawing of shapes (SVG)"],
  [/^%pdf-/i, "but a document (PDF)"],
  [/^[^]{4}ftyp|^\x1a\x45\xdf\xa3/, "but a video"],
  [/^pk\x03\x04|^\x1f\x8b|^rar!|^7z\xbc\xaf/i, "but an archive (ZIP or the like)"],
];

const BOXES = 1_000_000; // bytes: a file's boxes come first, then its pixels

/** Why a picture cannot be read; the message is for the visitor. */
export class PictureError extends Error {}

/** Return { format, width, height, stored (EXIF's 1 to 8), animated, depth (bits per value), grey } of a file. */
export function inspect(bytes) {
  const head = text(bytes, 0, 1024);
  const format = BEGINNINGS.find(([, begins]) => begins.test(head))?.[0];
  if (!bytes.length) throw new PictureError("empty file");
  if (!format) {
    const kind = FOREIGN.find(([begins]) => begins.test(head))?.[1];
    throw new PictureError(kind ? `not a picture ${kind}` : "not a picture in a format known here");
  }
  const facts = { format, width: 0, height: 0, stored: 1, animated: false, depth: 8, grey: false };
  return Object.assign(facts, READERS[format]?.(bytes));
}

const READERS = { JPEG: ofJpeg, PNG: ofPng, WEBP: ofWebp, GIF: ofGif, BMP: ofBmp, AVIF: ofAvif, HEIC: ofBoxes };

function ofJpeg(bytes) {
  const facts = {};
  const profile = []; // in parts, numbered from 1
  for (let at = 2; at + 4 <= bytes.length; ) {
    if (bytes[at] !== 0xff) {
      at += 1; // fill bytes, or rubbish between segments, which decoders pass over
      continue;
    }
    const marker = bytes[at + 1];
    if (marker === 0xff || marker === 0 || marker === 1 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += marker === 0xff ? 1 : 2;
      continue;
    }
    const length = big(bytes, at + 2);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      facts.height = big(bytes, at + 5);
      facts.width = big(bytes, at + 7);
    }
    if (marker === 0xe1 && !facts.stored && text(bytes, at + 4, at + 10) === "Exif\0\0") {
      facts.stored = orientation(bytes.subarray(at + 10, at + 2 + length));
    }
    if (marker === 0xe2 && text(bytes, at + 4, at + 16) === "ICC_PROFILE\0") {
      profile[bytes[at + 16]] = bytes.subarray(at + 18, at + 2 + length);
    }
    if (marker === 0xda || marker === 0xd9) {
      facts.pixelsAt = at; // or its end
      break;
    }
    at += 2 + length;
  }
  return { stored: 1, profile: joined(profile.filter(Boolean)), ...facts };
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole.length ? whole : null;
}

/** Yield the parts of a PNG: { name, body }. */
export function* chunks(bytes) {
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = big(bytes, at, 4);
    yield { name: text(bytes, at + 4, at + 8), body: bytes.subarray(at + 8, at + 8 + length) };
    at += 12 + length;
  }
}

function ofPng(bytes) {
  const facts = { width: big(bytes, 16, 4), height: big(bytes, 20, 4), depth: bytes[24], grey: bytes[25] === 0 };
  facts.interlaced = bytes[28] === 1;
  for (const { name, body } of chunks(bytes)) {
    if (name === "IDAT") break;
    if (name === "acTL") facts.animated = big(body, 0, 4) > 1;
    if (name === "eXIf") facts.stored = orientation(body);
    if (name === "sBIT") [facts.notedBits] = body;
  }
  return facts;
}

function ofWebp(bytes) {
  const facts = {};
  let frames = 0;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const name = text(bytes, at, at + 4);
    const length = little(bytes, at + 4, 4);
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (name === "VP8X") Object.assign(facts, { width: 1 + little(body, 4, 3), height: 1 + little(body, 7, 3) });
    if (name === "VP8 ") facts.width ??= little(body, 6) & 16383;
    if (name === "VP8 ") facts.height ??= little(body, 8) & 16383;
    if (name === "VP8L") facts.width ??= 1 + (little(body, 1, 4) & 16383);
    if (name === "VP8L") facts.height ??= 1 + ((little(body, 1, 4) >> 14) & 16383);
    if (name === "ICCP") facts.profile = body;
    if (name === "EXIF") facts.stored = orientation(text(body, 0, 6) === "Exif\0\0" ? body.subarray(6) : body);
    frames += name === "ANMF";
    at += 8 + length + (length % 2);
  }
  return { ...facts, animated: frames > 1 };
}

function ofGif(bytes) {
  const facts = { width: little(bytes, 6), height: little(bytes, 8) };
  const table = (flags) => (flags & 128 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + table(bytes[10]);
  for (let frames = 0; at < bytes.length; ) {
    if (bytes[at] === 0x2c) {
      frames += 1;
      if (frames > 1) return { ...facts, animated: true };
      at += 11 + table(bytes[at + 9]);
    } else if (bytes[at] === 0x21) {
      at += 2;
    } else {
      break;
    }
    while (at < bytes.length && bytes[at]) at += 1 + bytes[at];
    facts.whole = frames === 1 && at < bytes.length;
    at += 1;
  }
  return facts;
}

function ofBmp(bytes) {
  const signed = (at) => Math.abs(little(bytes, at, 4) | 0);
  return { width: signed(18), height: signed(22) };
}

function ofAvif(bytes) {
  return { animated: text(bytes, 4, 12) === "ftypavis", ...ofBoxes(bytes) };
}

/** The size and the colours that the boxes of a HEIC or AVIF name: the largest of its parts is the photo. */
function ofBoxes(bytes) {
  const facts = { width: 0, height: 0 };
  const end = Math.min(bytes.length, BOXES);
  for (let at = 4; at + 12 <= end; at += 1) {
    const name = text(bytes, at, at + 4);
    if (name === "ispe" && big(bytes, at + 8, 4) * big(bytes, at + 12, 4) > facts.width * facts.height) {
      facts.width = big(bytes, at + 8, 4);
      facts.height = big(bytes, at + 12, 4);
    }
    if (name !== "colr") continue;
    const kind = text(bytes, at + 4, at + 8);
    if (kind === "prof" || kind === "rICC") facts.profile ??= bytes.subarray(at + 8, at - 4 + big(bytes, at - 4, 4));
    if (kind === "nclx") facts.numbers ??= [big(bytes, at + 8), big(bytes, at + 10)];
  }
  return facts;
}

/** Return whether a file's end is missing: for browsers that decode such a file. AVIF none of them does. */
export function isCut(bytes, facts) {
  return ENDS[facts.format]?.(bytes, facts) === false;
}

const ENDS = {
  JPEG: hasEndMarker,
  PNG: (bytes) => [...chunks(bytes)].some(({ name }) => name === "IEND"),
  GIF: (bytes, { whole }) => whole === true,
  WEBP: (bytes) => 8 + little(bytes, 4, 4) <= bytes.length,
  BMP: hasAllRows,
};

/** Behind where a JPEG's pixels begin, 0xff 0xd9 is its end. */
function hasEndMarker(bytes, { pixelsAt }) {
  for (let at = pixelsAt ?? bytes.length; at >= 0; at = bytes.indexOf(0xd9, at + 1)) {
    if (bytes[at] === 0xd9 && bytes[at - 1] === 0xff) return true;
  }
  return false;
}

function hasAllRows(bytes, { width, height }) {
  const [start, bits, packing] = [little(bytes, 10, 4), little(bytes, 28), little(bytes, 30, 4)];
  const isPlain = packing === 0 || packing === 3; // else the rows are of different lengths
  return !isPlain || start + Math.ceil((width * bits) / 32) * 4 * height <= bytes.length;
}

/** EXIF's note of how a picture is stored, 1 to 8; 1 (upright) where it says nothing or is broken. */
export function orientation(exif) {
  const order = text(exif, 0, 2);
  const read = order === "II" ? little : big;
  if ((order !== "II" && order !== "MM") || read(exif, 2) !== 42) return 1;
  const start = read(exif, 4, 4);
  const count = Math.min(read(exif, start), 1000);
  for (let at = start + 2; at < start + 2 + 12 * count && at + 12 <= exif.length; at += 12) {
    if (read(exif, at) === 0x0112) {
      const value = read(exif, at + 8);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}
