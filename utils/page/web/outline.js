/** The outline of the thing on a photo, where the model finds the thing before it tells which one it is. */

const COLOUR = "#e69f00"; // orange, which nearly everybody can tell from what is around it
const IS_THING = 0.5; // of a mask: from here on a place is the thing

/**
 * Return the outline as pieces of straight lines, [x1, y1, x2, y2, …], in fractions of the photo.
 *
 * `mask` holds data, height and width: how much each place of what the network sees is the thing. `recipe` says how much
 * of the photo that is. Between neighbouring places the line runs where their values pass a half (marching squares).
 */
export function outline({ data, height, width }, { size, extra }) {
  const at = (row, column) => (row < 0 || column < 0 || row >= height || column >= width ? 0 : data[row * width + column]);
  const scale = ([seen, more], cells) => (place) => (Math.trunc(more / 2) + ((place + 0.5) / cells) * seen) / (seen + more);
  const [x, y] = [scale([size[1], extra[1]], width), scale([size[0], extra[0]], height)];
  const lines = [];
  for (let row = -1; row < height; row += 1) {
    for (let column = -1; column < width; column += 1) {
      const corners = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
      const ends = [];
      corners.forEach(([r, c], n) => {
        const [r2, c2] = corners[(n + 1) % 4];
        const [one, other] = [at(r, c), at(r2, c2)];
        if (one >= IS_THING === other >= IS_THING) return;
        const part = (IS_THING - one) / (other - one);
        ends.push([inside(x(c + part * (c2 - c))), inside(y(r + part * (r2 - r)))]);
      });
      for (let n = 0; n + 1 < ends.length; n += 2) lines.push(...ends[n], ...ends[n + 1]);
    }
  }
  return new Float32Array(lines);
}

/** Draw an outline on a photo that fills a canvas. */
export function drawOutline(context, lines) {
  const { width, height } = context.canvas;
  context.strokeStyle = COLOUR;
  context.lineWidth = Math.max(1.5, Math.max(width, height) / 200);
  context.lineCap = "round";
  context.beginPath();
  for (let n = 0; n < lines.length; n += 4) {
    context.moveTo(lines[n] * width, lines[n + 1] * height);
    context.lineTo(lines[n + 2] * width, lines[n + 3] * height);
  }
  context.stroke();
}

const inside = (fraction) => Math.min(1, Math.max(0, fraction));
