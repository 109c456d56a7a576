/**
 * Resizing as Pillow does it, to the last bit: whole-number sums of 22 bits, one pass per direction.
 *
 * A browser's own drawImage resizes in another way, and that moves the probabilities by up to 0.17. Pictures are
 * { data: Uint8ClampedArray or Uint8Array, width, height } with three values (red, green, blue) per pixel.
 */

import { toEven } from "./rounding.js";

const BITS = 22;
const CHANNELS = 3;

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
const cubic = (x, a = -0.5) => {
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
};

/** The filters by the names that a model's recipe uses: how far each reaches, and its weight at a distance. */
export const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** For each of `size` places, where its weights begin among `length` values, and the weights as whole numbers. */
function weights(length, from, to, size, { support, weight }) {
  const scale = (Math.fround(to) - from) / size; // Pillow keeps the box in single precision
  const wider = Math.max(1, scale);
  const reach = support * wider;
  return Array.from({ length: size }, (_, place) => {
    const centre = from + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const shares = [];
    let sum = 0;
    for (let at = first; at < end; at += 1) {
      const share = weight((at - centre + 0.5) * (1 / wider));
      shares.push(share);
      sum += share;
    }
    const whole = shares.map((share) => {
      const part = (sum ? share / sum : share) * 2 ** BITS;
      return Math.trunc(part < 0 ? part - 0.5 : part + 0.5);
    });
    return { first, whole: Int32Array.from(whole) };
  });
}

const clipped = (sum) => Math.min(255, Math.max(0, sum >> BITS));

function across(picture, width, from, to, filter) {
  const { data, height } = picture;
  const columns = weights(picture.width, from, to, width, filter);
  const result = new Uint8Array(width * height * CHANNELS);
  for (let row = 0, out = 0; row < height; row += 1) {
    const start = row * picture.width * CHANNELS;
    for (const { first, whole } of columns) {
      let red = 1 << (BITS - 1);
      let green = red;
      let blue = red;
      for (let n = 0, at = start + first * CHANNELS; n < whole.length; n += 1, at += CHANNELS) {
        red += data[at] * whole[n];
        green += data[at + 1] * whole[n];
        blue += data[at + 2] * whole[n];
      }
      result[out++] = clipped(red);
      result[out++] = clipped(green);
      result[out++] = clipped(blue);
    }
  }
  return { data: result, width, height };
}

function down(picture, height, from, to, filter) {
  const { data, width } = picture;
  const rowLength = width * CHANNELS;
  const result = new Uint8Array(height * rowLength);
  const sums = new Int32Array(rowLength);
  weights(picture.height, from, to, height, filter).forEach(({ first, whole }, row) => {
    sums.fill(1 << (BITS - 1));
    whole.forEach((share, n) => {
      const start = (first + n) * rowLength;
      for (let at = 0; at < rowLength; at += 1) sums[at] += data[start + at] * share;
    });
    for (let at = 0; at < rowLength; at += 1) result[row * rowLength + at] = clipped(sums[at]);
  });
  return { data: result, width, height };
}

/** Resize a picture, or the part of it from its corner to `right` and `bottom`, which may lie between pixels. */
export function resize(picture, width, height, filter, right = picture.width, bottom = picture.height) {
  if (width !== picture.width || right !== picture.width) picture = across(picture, width, 0, right, filter);
  if (height !== picture.height || bottom !== picture.height) picture = down(picture, height, 0, bottom, filter);
  return picture;
}

/** Reduce a picture by whole numbers: each new pixel is the mean of a block, a smaller one at the right and the bottom. */
export function reduce(picture, byX, byY = byX) {
  if (byX === 1 && byY === 1) return picture;
  const width = Math.ceil(picture.width / byX);
  const height = Math.ceil(picture.height / byY);
  const data = new Uint8Array(width * height * CHANNELS);
  const sums = new Uint32Array(width * CHANNELS);
  for (let row = 0; row < height; row += 1) {
    const rows = Math.min(byY, picture.height - row * byY);
    sums.fill(0);
    for (let y = 0; y < rows; y += 1) {
      let at = (row * byY + y) * picture.width * CHANNELS;
      for (let x = 0; x < picture.width; x += 1) {
        const out = Math.trunc(x / byX) * CHANNELS;
        sums[out] += picture.data[at++];
        sums[out + 1] += picture.data[at++];
        sums[out + 2] += picture.data[at++];
      }
    }
    for (let column = 0; column < width; column += 1) {
      const count = rows * Math.min(byX, picture.width - column * byX);
      const multiplier = Math.trunc(2 ** 24 / count);
      for (let n = 0; n < CHANNELS; n += 1) {
        const sum = sums[column * CHANNELS + n] + Math.trunc(count / 2);
        data[(row * width + column) * CHANNELS + n] = Math.trunc((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return { data, width, height };
}

/** Reduce a picture so that its longest side is at most `longest` pixels; never enlarge. */
export function bounded(picture, longest) {
  const side = Math.max(picture.width, picture.height);
  if (side <= longest) return picture;
  const scale = longest / side;
  const [width, height] = [picture.width, picture.height].map((each) => Math.max(1, toEven(each * scale)));
  const byX = Math.trunc(picture.width / width) || 1;
  const byY = Math.trunc(picture.height / height) || 1;
  const smaller = reduce(picture, byX, byY);
  return resize(smaller, width, height, FILTERS.lanczos, picture.width / byX, picture.height / byY);
}

/** Squish a picture to a size and `extra` beyond it, both [height, width], and cut out the middle. */
export function squishAndCrop(picture, [height, width], [below, beside], filter) {
  const larger = resize(picture, width + beside, height + below, filter);
  const [top, left] = [Math.trunc(below / 2), Math.trunc(beside / 2)];
  const data = new Uint8Array(width * height * CHANNELS);
  for (let row = 0; row < height; row += 1) {
    const start = ((top + row) * larger.width + left) * CHANNELS;
    data.set(larger.data.subarray(start, start + width * CHANNELS), row * width * CHANNELS);
  }
  return { data, width, height };
}

/** Where a pixel of the upright picture stands in one that is stored in one of EXIF's eight ways. */
const STORED_AT = {
  2: (x, y, w) => [w - 1 - x, y],
  3: (x, y, w, h) => [w - 1 - x, h - 1 - y],
  4: (x, y, w, h) => [x, h - 1 - y],
  5: (x, y) => [y, x],
  6: (x, y, w, h) => [y, h - 1 - x],
  7: (x, y, w, h) => [w - 1 - y, h - 1 - x],
  8: (x, y, w) => [w - 1 - y, x],
};

/** Turn a picture upright that is stored in one of EXIF's eight ways. */
export function turned(picture, stored) {
  const storedAt = STORED_AT[stored];
  if (!storedAt) return picture;
  const { width: w, height: h } = picture;
  const [width, height] = stored > 4 ? [h, w] : [w, h];
  const data = new Uint8Array(width * height * CHANNELS);
  for (let y = 0, out = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, out += CHANNELS) {
      const [column, row] = storedAt(x, y, w, h);
      const at = (row * w + column) * CHANNELS;
      data[out] = picture.data[at];
      data[out + 1] = picture.data[at + 1];
      data[out + 2] = picture.data[at + 2];
    }
  }
  return { data, width, height };
}
