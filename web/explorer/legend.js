/** What the colours mean, and the ranked words of a place: small lists of elements. */
import { colourTable } from "./colours.js";
import { h, percent } from "./dom.js";
import { listed, local } from "./local.js";

/** Words shown of a place. */
export const LISTED = 8;

/**
 * The colour bar with its numbers, or the words' own colours.
 * @param {import("./model.js").Model} model @param {number[][]} shown
 * @param {{apart: boolean, masked: boolean, map: string, colours: string[], size: [number, number]}} look `size` of the heat
 * @returns {HTMLElement[]}
 */
export function legend(model, shown, look) {
  if (!shown.length) return [h("span", { class: "across" }, local("Point at a word, or at the picture."))];
  if (look.masked) return [h("span", { class: "across" }, local("Mask of {0}", listed(shown.map((m) => model.label(m)))))];
  if (look.apart) {
    const names = shown.map((m, i) => h("span", { style: `--mine:${look.colours[i]}` }, h("i"), model.label(m)));
    return [h("div", { class: "legend across" }, ...names)];
  }
  const { low, peak } = model.heat([...new Set(shown.flat())], look.size);
  // A choice of steps or layers has other numbers of terms: its sums are shown as they are.
  const unit = model.part ? 1 : Math.max(1, model.source.header.terms);
  const number = (/** @type {number} */ v) => model.part ? Math.max(0, v).toPrecision(2) : `${tidy((100 * Math.max(0, v)) / unit)} %`;
  return [
    h("span", {}, number(low)),
    ramp(look.map),
    h("span", {}, number(peak)),
    h("span", {}, model.looking ? local("of the word's attention") : local(model.part ? "attention, summed" : "of the attention")),
  ];
}

/** A colour map from its lowest value to its highest. @param {string} map @returns {HTMLElement} */
export function ramp(map) {
  const stops = colourTable(map).filter((_, i) => i % 15 === 0).map((c) => `rgb(${c.join()})`);
  return h("span", { class: "ramp", style: `background:linear-gradient(90deg,${stops})` });
}

/** Two digits that matter, without an exponent. @param {number} value */
function tidy(value) {
  return String(Number(value.toPrecision(2)));
}

/** @param {import("./ranking.js").Ranked[]|null} rows strongest first @returns {HTMLElement[]} list entries */
export function rankRows(rows) {
  if (!rows) {
    return [h("li", { class: "across" }, h("p", { class: "hint" }, local("Point at the picture; drag for a region. A click chooses the strongest word.")))];
  }
  const top = Math.max(rows[0]?.score ?? 0, 1e-9);
  return rows.slice(0, LISTED).map(({ label, score, lift }) =>
    h("li", { title: local("{0} times its own average", lift.toFixed(2)), "data-word": label }, h("b", {}, label),
      h("span", { class: "track" }, h("i", { style: `--part:${(score / top).toFixed(3)}` })), h("span", {}, percent(score))));
}
