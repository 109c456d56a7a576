/** The results as a table (CSV), the same as `python -m utils.inference MODEL PHOTOS --csv`. */

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const decimal = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));

// What a spreadsheet runs as a formula: at the start of a cell, which some also begin at semicolons, tabs and line ends.
const FORMULA = /(^|[;\t\r\n])(?='*(?:"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])/g;
const plain = (text) => text.replace(FORMULA, "$1'");

const file = (path) => cell(plain(path.search(FORMULA) === 0 ? `./${path}` : path));
const text = (lines) => lines.map((line) => `${line.join(",")}\n`).join("");

/** Return the table of { path, label, probability }; ./ or an apostrophe stands before what would be a formula. */
export function table(results) {
  const lines = results.map(({ path, label, probability }) => [file(path), cell(plain(label)), probability === null ? "" : decimal(probability)]);
  return text([["file", "label", "probability"], ...lines]);
}

/** Return the table of { path, boxes, error }: a line for each box, one for a photo in which there is none. */
export function boxTable(results, labels) {
  const corners = ["left", "top", "right", "bottom"];
  const lines = results.flatMap(({ path, boxes, error }) => {
    const found = (boxes ?? []).map((box) => [file(path), cell(plain(labels[box.label])), decimal(box.probability), ...corners.map((name) => box[name].toFixed(7)), ""]);
    return found.length ? found : [[file(path), "", "", "", "", "", "", cell(error ?? "")]];
  });
  return text([["file", "label", "probability", ...corners, "error"], ...lines]);
}
