/**
 * From a picture's file to what the network sees, the same numbers as utils.pictures and utils.inference give.
 *
 * The browser decodes and brings colours to sRGB; turning, reducing and squishing are done here (resample.js).
 */

import { squared } from "./boxes.js";
import { inspect, isCut, PictureError } from "./files.js";
import { deepGrey, pngOf, profileOfPng } from "./png.js";
import { bounded, FILTERS, reduce, squishAndCrop, threefold, turned } from "./resample.js";
import { toEven } from "./rounding.js";
import { givesDrafts, takesCutFiles } from "./trials.js";

export { PictureError };

const LARGEST_FILE = 400e6; // bytes
const MOST_PIXELS = { JPEG: 200e6, WEBP: 40e6, AVIF: 40e6, HEIC: 50e6 };
const MAX_PIXELS = 80e6;
const LARGE = 16e6; // pixels; such a picture is first reduced by a whole number
const STRIP = 4e6; // pixels that are read at a time
const DRAFTS = [8, 4, 2]; // the fractions at which a JPEG can be decoded
const STEPS = 18; // levels of each colour that a profile is tried on
const AS_SRGB = [0, 1, 2]; // numbers of primaries (H.273) that are sRGB's, or say nothing
const SRGB_CURVE = 13; // H.273's number
const NOT_HERE = { TIFF: "TIFF", JXL: "JPEG XL" };

let heic; // the decoder, once it was asked for
let heicAddress; // where it is loaded from
let lastProfile;
let lastAnswer;

export function setHeicDecoder(address) {
  heicAddress = new URL(address, import.meta.url).href;
}

/**
 * Return { input: { data, width, height }, picture }: what the network sees, and the upright, reduced picture.
 *
 * `recipe` is the model's: longest_side, size and extra as [height, width], resample, bits. A model that finds things has
 * no extra.
 */
export async function prepared(file, recipe) {
  return framed(await opened(file, recipe), recipe);
}

/** Return a file as an upright picture of at most `longest_side` pixels. */
export async function opened(file, { longest_side: longest, bits }) {
  if (file.size > LARGEST_FILE) throw new PictureError(`larger than ${LARGEST_FILE / 1e6} MB: ${megabytes(file.size)}`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const facts = inspect(bytes);
  const { format, width, height } = facts;
  if (format in NOT_HERE) {
    throw new PictureError(`${NOT_HERE[format]} files cannot be read by browsers; save it as JPEG or PNG`);
  }
  if (facts.animated) throw new PictureError("animated or many pages");
  if ((await takesCutFiles()) && isCut(bytes, facts)) throw broken();
  const most = MOST_PIXELS[format] ?? MAX_PIXELS;
  if (width * height > most) throw tooMany(width, height, most);
  if (format === "HEIC") return bounded(await fromHeic(bytes, facts), longest);
  if (format === "PNG" && facts.grey && facts.depth === 16) return bounded(await deepGrey(bytes, facts, bits), longest);
  const draft = format === "JPEG" ? DRAFTS.find((by) => Math.min(width, height) >= 2 * longest * by) : undefined;
  if (draft) return bounded(await drafted(bytes, facts, draft), longest);
  return bounded(await decoded(bytes, facts, longest), longest);
}

const tooMany = (width, height, most) =>
  new PictureError(`too many pixels: ${width}×${height}, more than ${most / 1e6} million`);
const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;

/** Decode with the browser's own decoder, at full size. */
async function decoded(bytes, facts, longest) {
  const { format, stored } = facts;
  const blob = new Blob([bytes], { type: `image/${format.toLowerCase()}` });
  const reducing = ({ width, height }) =>
    width * height > LARGE ? Math.max(1, Math.trunc(Math.max(width, height) / (2 * longest))) : 1;
  const picture = await pixelsOfBlob(blob, await conversion(bytes, facts), reducing);
  return format === "WEBP" ? turned(picture, stored) : picture; // browsers turn the other formats, not this one
}

/** Decode a JPEG at a fraction of its size: exactly where the browser can, else from the means of its pixels. */
async function drafted(bytes, facts, by) {
  const { width, height, stored } = facts;
  const colours = await conversion(bytes, facts);
  if (await givesDrafts()) {
    const size = { desiredWidth: Math.ceil(width / by), desiredHeight: Math.ceil(height / by) };
    const decoder = new ImageDecoder({ data: bytes, type: "image/jpeg", ...colours, ...size });
    try {
      const { image } = await decoder.decode();
      const { codedWidth, codedHeight, displayWidth, displayHeight } = image;
      const exact = codedWidth === size.desiredWidth && codedHeight === size.desiredHeight;
      const picture = exact && pixelsOf(image, displayWidth, displayHeight); // drawn upright where the frame knows its turn
      const upright = image.rotation || image.flip;
      image.close();
      if (picture) return upright ? picture : turned(picture, stored);
    } catch (error) {
      if (error.name !== "NotSupportedError") throw broken(error);
    } finally {
      decoder.close();
    }
  }
  if (width * height > MAX_PIXELS) throw tooMany(width, height, MAX_PIXELS);
  return pixelsOfBlob(new Blob([bytes], { type: "image/jpeg" }), colours, () => by);
}

/** Decode HEIC, which few browsers can, by libheif, which is loaded when the first such photo comes. */
async function fromHeic(bytes, { profile, numbers }) {
  heic ??= import(heicAddress).then(({ default: start }) => start());
  let library;
  try {
    library = await heic;
  } catch (error) {
    heic = undefined; // the next photo tries again
    throw new PictureError(`HEIC files need a decoder, which could not be loaded (${error.message})`);
  }
  const images = new library.HeifDecoder().decode(bytes);
  const image = images.find((each) => each.is_primary?.()) ?? images[0];
  if (!image) throw new PictureError("truncated or broken inside");
  const [width, height] = [image.get_width(), image.get_height()];
  const shown = { data: new Uint8ClampedArray(width * height * 4), width, height };
  const done = await new Promise((settle) => image.display(shown, settle));
  images.forEach((each) => each.free?.());
  if (!done) throw new PictureError("truncated or broken inside");
  const plain = { data: onWhite(shown), width, height };
  if (profile ? await changesNothing(profile) : !numbers || AS_SRGB.includes(numbers[0])) return plain;
  return pixelsOfBlob(await pngOf(plain, profile ? { profile } : { numbers: [numbers[0], SRGB_CURVE] }));
}

/** How the browser is to treat a file's colour profile: not at all where it changes nothing, as most photos'. */
async function conversion(bytes, { format, profile }) {
  const own = format === "PNG" ? await profileOfPng(bytes) : profile;
  return own && (await changesNothing(own)) ? { colorSpaceConversion: "none" } : {};
}

/** Return whether a profile moves no colour by over one of 255 levels: it then is sRGB itself, but for rounding. */
async function changesNothing(profile) {
  if (lastProfile?.length === profile.length && lastProfile.every((byte, n) => byte === profile[n])) return lastAnswer;
  const levels = Array.from({ length: STEPS }, (_, n) => toEven((n * 255) / (STEPS - 1)));
  const data = new Uint8Array(STEPS ** 3 * 3);
  data.forEach((_, n) => {
    const colour = Math.trunc(n / 3);
    data[n] = levels[Math.trunc(colour / STEPS ** (n % 3)) % STEPS];
  });
  const colours = { data, width: STEPS, height: STEPS ** 2 };
  let moved = 0;
  try {
    const shown = threefold(await pixelsOfBlob(await pngOf(colours, { profile })));
    moved = data.reduce((most, value, n) => Math.max(most, Math.abs(value - shown.data[n])), 0);
  } catch {
    moved = 0; // a broken profile counts as none
  }
  [lastProfile, lastAnswer] = [profile.slice(), moved <= 1];
  return lastAnswer;
}

async function pixelsOfBlob(blob, colours = {}, reducing = () => 1) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", ...colours });
  } catch (error) {
    throw broken(error);
  }
  try {
    return pixelsOf(bitmap, bitmap.width, bitmap.height, reducing(bitmap));
  } finally {
    bitmap.close();
  }
}

function broken(error) {
  if (error instanceof RangeError) return new PictureError("needs more memory than there is");
  return new PictureError("truncated or broken inside");
}

/**
 * Return the pixels of something that can be drawn, on white where it is transparent.
 *
 * With `by`, squares of so many pixels become their mean. It goes strip by strip, so that a large photo fits in memory.
 */
function pixelsOf(drawable, width, height, by = 1) {
  const rows = Math.max(1, Math.trunc(STRIP / (width * by))) * by;
  const canvas = new OffscreenCanvas(width, Math.min(rows, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new PictureError("needs more memory than there is");
  context.fillStyle = "#fff";
  const strip = (top, part) => {
    context.fillRect(0, 0, width, part);
    context.drawImage(drawable, 0, -top);
    return { data: context.getImageData(0, 0, width, part).data, width, height: part, step: 4 };
  };
  if (by === 1 && rows >= height) return strip(0, height);
  const whole = { width: Math.ceil(width / by), height: Math.ceil(height / by) };
  whole.data = new Uint8Array(whole.width * whole.height * 3);
  for (let top = 0; top < height; top += rows) {
    const part = threefold(reduce(strip(top, Math.min(rows, height - top)), by));
    whole.data.set(part.data, (top / by) * whole.width * 3);
  }
  return whole;
}

/** Return four values per pixel as three, on white where they are transparent. */
function onWhite({ data, width, height }) {
  const result = threefold({ data, width, height, step: 4 }).data;
  for (let at = 0; at < data.length; at += 4) {
    const share = data[at + 3];
    if (share === 255) continue;
    for (let n = 0; n < 3; n += 1) {
      result[(at / 4) * 3 + n] = Math.round((result[(at / 4) * 3 + n] * share) / 255) + 255 - share;
    }
  }
  return result;
}

/** The same as `prepared` for a picture of the camera. */
export function fromBitmap(bitmap, recipe) {
  const picture = bounded(pixelsOf(bitmap, bitmap.width, bitmap.height), recipe.longest_side);
  bitmap.close();
  return framed(picture, recipe);
}

/** A recipe without `extra` is of a model that finds things: the whole photo lies in a square. */
function framed(picture, { size, extra, resample = "bilinear" }) {
  const filter = FILTERS[resample];
  return { input: extra ? squishAndCrop(picture, size, extra, filter) : squared(picture, size[0], filter), picture };
}
