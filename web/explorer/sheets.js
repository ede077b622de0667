/** Many small pictures: all words, one word across layers, and two words side by side. */
import { drawHeat } from "./colours.js";
import { canvas, h, percent } from "./dom.js";
import { iou, threshold } from "./masks.js";
import { local } from "./local.js";

const SMALL = 256;

/** One heat map over a small copy of the picture. */
function tile(
  /** @type {import("./model.js").Model} */ model, /** @type {string|null} */ picture, /** @type {Uint32Array} */ table,
  /** @type {number[]} */ members, /** @type {import("./model.js").Part} */ part, side = SMALL,
) {
  const [height, width] = model.page.size;
  const scale = Math.min(1, side / Math.max(height, width));
  const size = /** @type {[number, number]} */ ([Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))]);
  const overlay = canvas(size, "overlay");
  drawHeat(overlay.pixels, model.heat(members, size, part).bytes, table);
  overlay.show();
  return h("span", { class: "thumb", style: `aspect-ratio:${width}/${height}` },
    picture ? h("img", { src: picture, alt: "", loading: "lazy" }) : h("span", { class: "blank" }), overlay.element);
}

/** All words: the contact sheet. */
export function wordSheet(
  /** @type {import("./model.js").Model} */ model, /** @type {string|null} */ picture, /** @type {Uint32Array} */ table,
  /** @type {number[]} */ words, /** @type {(members: number[]) => void} */ pick, /** @type {(members: number[]) => boolean} */ isKept,
) {
  const shares = !model.looking && !model.encoder;
  const scale = shares ? local("Each word on a scale of its own; the number is its share of the attention.") : local("Each word on a scale of its own.");
  const cards = words.map((index) => {
    const word = model.page.words[index];
    return h("button", { type: "button", class: "card", "aria-pressed": String(isKept([index])), onclick: () => pick([index]) },
      tile(model, picture, table, [index], model.part),
      h("span", { class: "name" }, h("b", {}, word.kind === "concept" ? word.text : word.label), h("span", {}, shares && word.share !== null ? percent(word.share) : "")));
  });
  return h("div", {}, h("p", { class: "hint said" }, scale), h("div", { class: "sheet" }, ...cards));
}

/** The same word in every layer. */
export function layerSheet(
  /** @type {import("./model.js").Model} */ model, /** @type {string|null} */ picture, /** @type {Uint32Array} */ table,
  /** @type {number[]} */ members,
) {
  const layers = model.page.header.layers;
  return h("div", {},
    h("p", { class: "hint" }, local("“{0}” in each layer, every map between its own extremes", model.label(members))),
    h("div", { class: "sheet small" }, ...layers.map((/** @type {any} */ layer, /** @type {number} */ i) =>
      h("span", { class: "card", title: layer.name }, tile(model, picture, table, members, { axis: "layers", frames: [i] }, 128),
        h("span", { class: "name" }, h("b", {}, `${layer.place} ${i}`), h("span", {}, `${layer.grid[1]}×${layer.grid[0]}`))))));
}

/** Two words and how much their masks (Eq. 7) overlap. */
export function pair(
  /** @type {import("./model.js").Model} */ model, /** @type {string|null} */ picture, /** @type {Uint32Array} */ table,
  /** @type {number[][]} */ picks, /** @type {number} */ tau,
) {
  if (picks.length < 2) return h("p", { class: "empty" }, local("Click two words to lay them side by side."));
  const two = picks.slice(-2);
  const [first, second] = two.map((members) => threshold(model.map(members), tau));
  const overlap = iou(first, second);
  const side = (/** @type {number[]} */ members) =>
    h("figure", {}, tile(model, picture, table, members, model.part, 512), h("figcaption", {}, model.label(members)));
  return h("div", { class: "pair" }, side(two[0]),
    h("div", { class: "iou" }, h("b", {}, Number.isNaN(overlap) ? "–" : overlap.toFixed(2)), h("span", {}, local("overlap (IoU)")),
      h("span", { class: "hint" }, local("of the masks at level {0}", tau.toFixed(2)))),
    side(two[1]));
}
