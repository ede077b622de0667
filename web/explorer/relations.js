/** Which word leans on which (text->text): a table of colours and per cents that one can hover and walk through. */
import { colourTable } from "./colours.js";
import { h } from "./dom.js";
import { ramp } from "./legend.js";
import { local } from "./local.js";

/**
 * @param {import("./page_data.js").Page} page @param {number[]} shown indices of its words @param {string} map
 */
export function matrixSheet(page, shown, map) {
  const { words, text_to_text: values } = page.header.relations;
  const asked = new Set(shown.map((i) => page.words[i]).filter((word) => word.kind === "word").map((word) => word.label));
  /** @type {number[]} */
  const own = [...words.keys()].filter((i) => asked.has(words[i]));
  const top = Math.max(1e-9, ...own.flatMap((a) => own.map((b) => values[a][b])));
  const colours = colourTable(map);
  const said = h("output", { class: "hint", "aria-live": "off" });
  /** @type {HTMLElement[][]} */
  const cells = own.map((a) => own.map((b) => {
    const colour = colours[Math.round((255 * values[a][b]) / top)];
    return h("td", {
      role: "gridcell", tabindex: "-1", "data-pair": `${a},${b}`,
      style: `background:rgb(${colour.join()});color:${light(colour) ? "#000" : "#fff"}`,
    }, share(values[a][b]));
  }));
  const across = own.map((b) => h("th", { scope: "col", role: "columnheader" }, h("span", {}, words[b])));
  const down = own.map((a) => h("th", { scope: "row", role: "rowheader" }, words[a]));
  const table = h("table", {
    class: "matrix", role: "grid", "aria-label": local("Which word leans on which"),
    onpointerover: (/** @type {any} */ event) => point(event.target),
    onpointerleave: () => rest(),
    onfocusin: (/** @type {any} */ event) => point(event.target),
    onfocusout: () => rest(),
    onkeydown: (/** @type {KeyboardEvent} */ event) => walk(event),
  }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, h("td", { role: "gridcell" }), ...across)),
  h("tbody", { role: "rowgroup" }, ...cells.map((row, i) => h("tr", { role: "row" }, down[i], ...row))));
  if (cells.length) cells[0][0].tabIndex = 0;
  rest();
  return h("div", { class: "relations" },
    h("div", { class: "scroll" }, table), said,
    h("div", { class: "bar" }, h("span", {}, "0 %"), ramp(map),
      h("span", {}, `${share(top)} %`), h("span", {}, local("of all that the word of the row attends to"))));

  /** @param {any} target */
  function found(target) {
    const cell = target?.closest?.("[data-pair]");
    const row = cells.findIndex((all) => all.includes(cell));
    return row < 0 ? null : { row, column: cells[row].indexOf(cell) };
  }

  /** Says what a cell means, and marks its two words. @param {any} target */
  function point(target) {
    const at = found(target);
    if (!at) return rest();
    const value = values[own[at.row]][own[at.column]];
    said.textContent = local("“{0}” attends to “{1}” with {2} %", words[own[at.row]], words[own[at.column]], share(value));
    down.forEach((head, i) => head.classList.toggle("lit", i === at.row));
    across.forEach((head, i) => head.classList.toggle("lit", i === at.column));
  }

  function rest() {
    said.textContent = local("A row is a word that attends, a column one that is attended to; the rest goes to the picture, start, end and padding.");
    for (const head of [...down, ...across]) head.classList.remove("lit");
  }

  /** One stop for the Tab key, arrow keys within. @param {KeyboardEvent} event */
  function walk(event) {
    const at = found(event.target);
    const steps = /** @type {Record<string, [number, number]>} */ ({ ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] });
    const step = steps[event.key];
    if (!at || (!step && event.key !== "Home" && event.key !== "End")) return;
    event.preventDefault();
    const last = cells.length - 1;
    const [row, column] = step ? [at.row + step[0], at.column + step[1]] : [at.row, event.key === "Home" ? 0 : last];
    const next = cells[Math.min(Math.max(row, 0), last)][Math.min(Math.max(column, 0), last)];
    cells[at.row][at.column].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

/** Of a hundred, in at most four letters. @param {number} value 0..1 */
function share(value) {
  const hundred = 100 * value;
  return hundred.toFixed(hundred >= 9.95 ? 0 : hundred >= 0.995 ? 1 : 2);
}

/** Whether black is read better than white on it (WCAG's relative luminance). @param {number[]} colour */
function light(colour) {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179;
}
