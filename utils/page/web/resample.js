/**
 * Resizing as Pillow does it, to the last bit: whole-number sums of 22 bits, one pass per direction.
 *
 * A browser's own drawImage resizes in another way, and that moves the probabilities by up to 0.17. Pictures are
 * { data: Uint8ClampedArray or Uint8Array, width, height } with three values (red, green, blue) per pixel. One that comes
 * from a canvas has `step: 4`: a value that is passed over stands behind each three.
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

/** For each of `size` places up to `end`: where it begins among `length` values, how many it takes, and their weights. */
function weights(length, end, size, { support, weight }) {
  const scale = Math.fround(end) / size; // Pillow keeps the box in single precision
  const wider = Math.max(1, scale);
  const reach = support * wider;
  const most = 2 * Math.ceil(reach) + 1;
  const [firsts, counts, whole] = [size, size, size * most].map((each) => new Int32Array(each));
  const shares = new Float64Array(most);
  for (let place = 0; place < size; place += 1) {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const count = Math.min(length, Math.trunc(centre + reach + 0.5)) - first;
    let sum = 0;
    for (let n = 0; n < count; n += 1) {
      shares[n] = weight((first + n - centre + 0.5) * (1 / wider));
      sum += shares[n];
    }
    for (let n = 0; n < count; n += 1) {
      const part = (sum ? shares[n] / sum : shares[n]) * 2 ** BITS;
      whole[place * most + n] = Math.trunc(part < 0 ? part - 0.5 : part + 0.5);
    }
    firsts[place] = first;
    counts[place] = count;
  }
  return { firsts, counts, whole, most };
}

// The sums fit into 32 bits: Math.imul and | 0 tell the browser so, which makes it twice as quick.
function across(picture, width, right, filter) {
  const { data, height, step = CHANNELS } = picture;
  const { firsts, counts, whole, most } = weights(picture.width, right, width, filter);
  const result = new Uint8ClampedArray(width * height * CHANNELS);
  for (let row = 0, out = 0; row < height; row += 1) {
    const start = row * picture.width * step;
    for (let column = 0; column < width; column += 1) {
      let red = 1 << (BITS - 1);
      let green = red;
      let blue = red;
      let at = start + firsts[column] * step;
      const end = column * most + counts[column];
      for (let n = column * most; n < end; n += 1) {
        const share = whole[n];
        red = (red + Math.imul(data[at], share)) | 0;
        green = (green + Math.imul(data[at + 1], share)) | 0;
        blue = (blue + Math.imul(data[at + 2], share)) | 0;
        at += step;
      }
      result[out++] = red >> BITS;
      result[out++] = green >> BITS;
      result[out++] = blue >> BITS;
    }
  }
  return { data: result, width, height };
}

function down(picture, height, bottom, filter) {
  const { data, width } = threefold(picture);
  const { firsts, counts, whole, most } = weights(picture.height, bottom, height, filter);
  const length = width * CHANNELS;
  const result = new Uint8ClampedArray(height * length);
  const sums = new Int32Array(length);
  for (let row = 0; row < height; row += 1) {
    sums.fill(1 << (BITS - 1));
    for (let n = 0; n < counts[row]; n += 1) {
      const share = whole[row * most + n];
      let from = (firsts[row] + n) * length;
      for (let at = 0; at < length; at += 1) sums[at] += Math.imul(data[from++], share);
    }
    for (let at = 0, out = row * length; at < length; at += 1) result[out++] = sums[at] >> BITS;
  }
  return { data: result, width, height };
}

/** Return a picture without what is to be passed over. */
export function threefold({ data, width, height, step = CHANNELS }) {
  if (step === CHANNELS) return { data, width, height };
  const result = new Uint8Array(width * height * CHANNELS);
  for (let at = 0, out = 0; out < result.length; at += step) {
    result[out++] = data[at];
    result[out++] = data[at + 1];
    result[out++] = data[at + 2];
  }
  return { data: result, width, height };
}

/**
 * Resize a picture, or the part of it from its corner to `right` and `bottom`, which may lie between pixels. As in
 * Pillow, the width comes first, but not where a strip of over 100 times its width is made less high.
 */
export function resize(picture, width, height, filter, right = picture.width, bottom = picture.height) {
  if (picture.height > picture.width * 100 && height < picture.height) {
    picture = down(picture, height, bottom, filter);
    bottom = height;
  }
  if (width !== picture.width || right !== picture.width) picture = across(picture, width, right, filter);
  if (height !== picture.height || bottom !== picture.height) picture = down(picture, height, bottom, filter);
  return picture;
}

/** Reduce a picture by whole numbers: each new pixel is the mean of a block, a smaller one at the right and the bottom. */
export function reduce(picture, byX, byY = byX) {
  if (byX === 1 && byY === 1) return picture;
  const { data, step = CHANNELS } = picture;
  const width = Math.ceil(picture.width / byX);
  const height = Math.ceil(picture.height / byY);
  const result = new Uint8Array(width * height * CHANNELS);
  for (let row = 0, out = 0; row < height; row += 1) {
    const rows = Math.min(byY, picture.height - row * byY);
    for (let column = 0; column < width; column += 1) {
      const columns = Math.min(byX, picture.width - column * byX);
      const count = rows * columns;
      let red = count >> 1;
      let green = red;
      let blue = red;
      for (let y = 0; y < rows; y += 1) {
        let at = ((row * byY + y) * picture.width + column * byX) * step;
        for (let x = 0; x < columns; x += 1, at += step) {
          red += data[at];
          green += data[at + 1];
          blue += data[at + 2];
        }
      }
      const multiplier = Math.trunc(2 ** 24 / count);
      result[out++] = (red * multiplier) / 2 ** 24; // an array of bytes drops the fraction
      result[out++] = (green * multiplier) / 2 ** 24;
      result[out++] = (blue * multiplier) / 2 ** 24;
    }
  }
  return { data: result, width, height };
}

/** Reduce a picture so that its longest side is at most `longest` pixels; never enlarge. */
export function bounded(picture, longest) {
  const side = Math.max(picture.width, picture.height);
  if (side <= longest) return threefold(picture);
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
  const { data, width: w, height: h, step = CHANNELS } = picture;
  const [width, height] = stored > 4 ? [h, w] : [w, h];
  const place = (x, y) => storedAt(x, y, w, h).reduce((column, row) => row * w + column) * step;
  const right = place(1, 0) - place(0, 0);
  const result = new Uint8Array(width * height * CHANNELS);
  for (let y = 0, out = 0; y < height; y += 1) {
    for (let x = 0, at = place(0, y); x < width; x += 1, at += right) {
      result[out++] = data[at];
      result[out++] = data[at + 1];
      result[out++] = data[at + 2];
    }
  }
  return { data: result, width, height };
}
