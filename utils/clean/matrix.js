// The browser's half of the matrix; matrix.py is the kernel's half. Names are put in as text, never as markup.

const LONGEST_WAIT = 8000; // milliseconds
const NO_ANSWER = "The kernel has not answered yet. If it is busy, it will; if it was restarted, run all cells above this one, then this one.";

class Matrix {
  constructor(model, root) {
    this.model = model;
    this.said = element("p", { className: "fg-matrix-said", aria: { role: "status" } });
    const help = element("p", { textContent: "Press a number: the cleaner below shows these photos." });
    this.table = element("table", { aria: { label: "Confusion matrix" } });
    const scroller = element("div", { className: "fg-matrix-scroller" }, this.table);
    const note = element("p", { textContent: model.get("table").note });
    root.replaceChildren(element("section", { className: "fieldguide-matrix", aria: { label: "The matrix" } }, help, scroller, note, this.said));
    this.build(model.get("table"));
    this.onMessage = (message) => message.tell === "said" && this.say(message.text);
    model.on("msg:custom", this.onMessage);
    this.onGone = () => this.say(KERNEL_GONE);
    model.on("comm:close", this.onGone);
    this.onTable = () => this.rebuild();
    model.on("change:table", this.onTable);
    // The notebook has keys of its own: those pressed here stay here.
    root.addEventListener("keydown", (event) => this.key(event));
  }

  remove() {
    clearTimeout(this.waiting);
    this.model.off("msg:custom", this.onMessage);
    this.model.off("comm:close", this.onGone);
    this.model.off("change:table", this.onTable);
  }

  /** Show the counts as they are now, and keep the focus on its cell. */
  rebuild() {
    const focus = this.table.contains(document.activeElement) && this.place(document.activeElement);
    this.build(this.model.get("table"));
    if (focus) (this.buttonAt(...focus) ?? this.table.querySelector("button"))?.focus();
  }

  /** The row and the column of a button; that of the labels is column 0. */
  place(button) {
    const cell = button.closest("td");
    return [cell.parentElement.sectionRowIndex, cell.cellIndex];
  }

  buttonAt(row, column) {
    return this.table.tBodies[0].rows[row]?.cells[column]?.querySelector("button");
  }

  build({ labels, counts }) {
    const heads = labels.map((label) => element("th", { scope: "col" }, element("span", {}, name(label))));
    const corner = element("th", { scope: "col", textContent: "Folder ↓ Model →" });
    const rows = labels.map((label, row) => {
      const total = counts[row].reduce((sum, count) => sum + count, 0);
      const cells = labels.map((_, column) => this.cell(labels, row, column, counts[row][column], total));
      return element("tr", {}, element("th", { scope: "row" }, name(label)), ...cells);
    });
    this.table.replaceChildren(element("thead", {}, element("tr", {}, corner, ...heads)), element("tbody", {}, ...rows));
  }

  cell(labels, row, column, count, total) {
    const made = element("td", { className: row === column ? "fg-matrix-right" : "" });
    if (!count) return made;
    made.style.setProperty("--fg-share", `${Math.round((100 * count) / total)}%`);
    const photos = count === 1 ? "1 photo" : `${count} photos`;
    const told = row === column ? `${photos} of ${labels[row]}, right` : `${photos} of ${labels[row]} taken for ${labels[column]}`;
    const aria = { label: told, pressed: String(this.chosen?.[0] === row && this.chosen[1] === column) };
    made.append(button(count.toLocaleString("en"), () => this.open(row, column), { title: told, aria }));
    return made;
  }

  open(row, column) {
    this.chosen = [row, column];
    this.rebuild();
    this.say("…");
    this.waiting = setTimeout(() => this.say(NO_ANSWER), LONGEST_WAIT);
    try {
      this.model.send({ row, column });
    } catch (error) {
      console.warn(error);
      this.say(KERNEL_GONE);
    }
  }

  say(text) {
    clearTimeout(this.waiting);
    this.said.textContent = text;
  }

  /** Arrows go to the next number that way. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || event.target.tagName !== "BUTTON") return;
    event.preventDefault();
    const { rows } = this.table.tBodies[0];
    let [row, column] = this.place(event.target);
    do [row, column] = [row + step[0], column + step[1]];
    while (rows[row]?.cells[column] && !this.buttonAt(row, column));
    this.buttonAt(row, column)?.focus();
  }
}

export default {
  render({ model, el }) {
    const matrix = new Matrix(model, el);
    return () => matrix.remove();
  },
};
