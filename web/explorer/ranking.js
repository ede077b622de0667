/**
 * Which words drive a place: the core's `rank_region` (daam_core/maps/statistics.py).
 *
 * @typedef {{index: number, label: string, score: number, lift: number}} Ranked
 * @typedef {import("./upscale.js").Box} Box
 */
import { upscale, valueAt } from "./upscale.js";

/** The words that are ranked: what can be seen in a picture, or all where there are none of these. */
export function candidates(/** @type {import("./page_data.js").Page} */ page) {
  const typed = page.words.map((word, index) => ({ word, index })).filter(({ word }) => word.kind === "word");
  const content = typed.filter(({ word }) => word.content);
  return (content.length ? content : typed).map(({ index }) => index);
}

/** @param {import("./page_data.js").Page} page @param {number} y @param {number} x @returns {Ranked[]} strongest first */
export function rankPixel(page, y, x) {
  return ranked(page, (index) => Math.max(0, valueAt(page.wordLevels(index), page.size, y, x)));
}

/**
 * @param {import("./page_data.js").Page} page
 * @param {Box} box whole pixels inside the picture, not empty
 * @param {Uint8Array} [inside] of the box's pixels, those that count (1); all by default
 * @returns {Ranked[]} strongest first
 */
export function rankBox(page, box, inside) {
  const count = inside ? inside.reduce((sum, one) => sum + one, 0) : box.w * box.h;
  return ranked(page, (index) => {
    const heat = upscale(page.wordLevels(index), page.size, box);
    let sum = 0;
    for (let i = 0; i < heat.length; i++) if (heat[i] > 0 && (!inside || inside[i])) sum += heat[i];
    return count ? sum / count : 0;
  });
}

/** Each word's heat here over its own mean, and that as a share. */
function ranked(/** @type {import("./page_data.js").Page} */ page, /** @type {(index: number) => number} */ heat) {
  const rows = candidates(page).map((index) => {
    const { label, mean } = page.words[index];
    return { index, label, score: 0, lift: mean > 0 ? heat(index) / mean : 0 };
  });
  const total = rows.reduce((sum, row) => sum + row.lift, 0);
  if (total > 0) for (const row of rows) row.score = row.lift / total;
  return rows.sort((a, b) => b.score - a.score);
}

/**
 * The pixels inside a lasso: even-odd rule at pixel centres.
 * @param {[number, number][]} points (x, y) in pixels
 * @param {[number, number]} size (height, width)
 * @returns {{box: Box, inside: Uint8Array}|null} null where nothing is inside
 */
export function lassoRegion(points, size) {
  const xs = points.map((p) => p[0]);
  const ys = points.map((p) => p[1]);
  const x = Math.max(0, Math.floor(Math.min(...xs)));
  const y = Math.max(0, Math.floor(Math.min(...ys)));
  const w = Math.min(size[1], Math.ceil(Math.max(...xs))) - x;
  const h = Math.min(size[0], Math.ceil(Math.max(...ys))) - y;
  if (!(w > 0 && h > 0)) return null;
  const inside = new Uint8Array(w * h);
  for (let row = 0; row < h; row++) {
    const crossings = crossed(points, y + row + 0.5);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.max(0, Math.ceil(crossings[i] - x - 0.5));
      const to = Math.min(w, Math.ceil(crossings[i + 1] - x - 0.5));
      if (to > from) inside.fill(1, row * w + from, row * w + to);
    }
  }
  return inside.includes(1) ? { box: { x, y, w, h }, inside } : null;
}

/** Where the closed outline crosses a horizontal line, from left to right. */
function crossed(/** @type {[number, number][]} */ points, /** @type {number} */ y) {
  const found = [];
  for (let i = 0; i < points.length; i++) {
    const [x0, y0] = points[i];
    const [x1, y1] = points[(i + 1) % points.length];
    if (y0 <= y !== y1 <= y) found.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
  }
  return found.sort((a, b) => a - b);
}

/** @param {[number, number]} a @param {[number, number]} b @param {[number, number]} size @returns {Box} both corners' pixels */
export function boxBetween(a, b, size) {
  const clamp = (/** @type {number} */ v, /** @type {number} */ top) => Math.min(Math.max(Math.floor(v), 0), top - 1);
  const [x0, x1] = [clamp(Math.min(a[0], b[0]), size[1]), clamp(Math.max(a[0], b[0]), size[1])];
  const [y0, y1] = [clamp(Math.min(a[1], b[1]), size[0]), clamp(Math.max(a[1], b[1]), size[0])];
  return { x: x0, y: y0, w: x1 - x0 + 1, h: y1 - y0 + 1 };
}
