/** The results as a table (CSV), the same as `python -m utils.inference MODEL PHOTOS --csv`. */

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const decimal = (value) => (Number.isInteger(value) ? value.toFixed(1) : String(value));

// What a spreadsheet runs as a formula: at the start of a cell, which some also begin at semicolons, tabs and line ends.
const FORMULA = /(^|[;\t\r\n])(?='*(?:"|[^\S\t\r\n])*[=+\-@\uff1d\uff0b\uff0d\uff20])/g;
const plain = (text) => text.replace(FORMULA, "$1'");

/** Return the table of { path, label, probability }; ./ or an apostrophe stands before what would be a formula. */
export function table(results) {
  const lines = results.map(({ path, label, probability }) => [
    cell(plain(path.search(FORMULA) === 0 ? `./${path}` : path)),
    cell(plain(label)),
    probability === null ? "" : decimal(probability),
  ]);
  return [["file", "label", "probability"], ...lines].map((line) => `${line.join(",")}\n`).join("");
}
