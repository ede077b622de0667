/** From heat to a mask: the core's levels (daam_core/masks/threshold.py). Masks are Uint8Array of 0 and 1, soft ones 0..1. */

/** @param {Float32Array} map @returns {{low: number, peak: number}} */
export function extremes(map) {
  let low = Infinity;
  let peak = -Infinity;
  for (let i = 0; i < map.length; i++) {
    if (map[i] < low) low = map[i];
    if (map[i] > peak) peak = map[i];
  }
  return { low, peak };
}

/** Stretched to 0..1; a constant map is all zero. @param {Float32Array} map @returns {Float32Array} */
export function minmax(map) {
  const { low, peak } = extremes(map);
  const spread = Math.fround(peak - low);
  return spread > 0 ? map.map((v) => (v - low) / spread) : new Float32Array(map.length);
}

/** As minmax, but a map whose range is less than a tenth of its largest value reaches only that share of 1. @param {Float32Array} map */
export function unlessFlat(map) {
  const { low, peak } = extremes(map);
  const most = 0.1 * Math.max(Math.abs(low), Math.abs(peak));
  const share = most > 0 ? Math.min((peak - low) / most, 1) : 1;
  return share < 1 ? minmax(map).map((v) => v * share) : minmax(map);
}

/** Eq. 7: D >= tau max D; empty where there is no heat. @param {Float32Array} map @param {number} tau @returns {Uint8Array} */
export function threshold(map, tau) {
  const { peak } = extremes(map);
  const level = Math.fround(Math.fround(tau) * peak);
  const mask = new Uint8Array(map.length);
  if (peak > 0) for (let i = 0; i < map.length; i++) mask[i] = map[i] >= level ? 1 : 0;
  return mask;
}

/** A linear ramp around tau of min-max. @param {Float32Array} map @param {number} tau @param {number} width */
export function soft(map, tau, width = 0.3) {
  return minmax(map).map((v) => (v > 0 ? Math.min(Math.max((v - tau) / width + 0.5, 0), 1) : 0));
}

/**
 * Which map is the hottest at each pixel, -1 where none reaches the background; the earlier one wins a tie.
 * @param {Float32Array[]} maps @param {number} background @returns {Int16Array}
 */
export function winners(maps, background) {
  const level = Math.fround(background);
  const best = new Float32Array(maps[0].length);
  const winner = new Int16Array(maps[0].length).fill(-1);
  maps.forEach((map, word) => {
    const scaled = unlessFlat(map);
    for (let i = 0; i < scaled.length; i++) {
      if (scaled[i] > best[i]) {
        best[i] = scaled[i];
        winner[i] = word;
      }
    }
  });
  for (let i = 0; i < best.length; i++) if (best[i] < level) winner[i] = -1;
  return winner;
}

/**
 * Which of the other maps stand for another object than the first (daam_core/masks/rivals.py): of a comparable range, not
 * over half of the picture, and hottest elsewhere. @param {Float32Array[]} maps @returns {Float32Array[]}
 */
export function heatRivals([own, ...others]) {
  const about = (/** @type {Float32Array} */ map) => {
    const { low, peak } = extremes(map);
    return { span: Math.fround(peak - low), scaled: minmax(map) };
  };
  const hot = Math.fround(0.8);
  const count = (/** @type {Float32Array} */ scaled, /** @type {(v: number, i: number) => boolean} */ test) => {
    let sum = 0;
    for (let i = 0; i < scaled.length; i++) if (test(scaled[i], i)) sum++;
    return sum;
  };
  const first = about(own);
  const size = count(first.scaled, (v) => v >= hot);
  return others.filter((map) => {
    const other = about(map);
    if (!(other.span > 0 && other.span <= 3 * first.span && first.span <= 3 * other.span)) return false;
    if (count(other.scaled, (v) => v > 0.5) >= 0.5 * map.length) return false;
    const shared = count(other.scaled, (v, i) => v >= hot && first.scaled[i] >= hot);
    return shared <= 0.5 * Math.max(1, Math.min(size, count(other.scaled, (v) => v >= hot)));
  });
}

/**
 * Eq. 7 for the first map, less the places where one of its rivals is hotter.
 * @param {Float32Array[]} maps @param {number} background @returns {Uint8Array}
 */
export function competed(maps, background) {
  const others = heatRivals(maps);
  const own = threshold(maps[0], background);
  if (!others.length) return own;
  const winner = winners([maps[0], ...others], 0);
  return own.map((inside, i) => (inside && winner[i] === 0 ? 1 : 0));
}

/** Intersection over union; NaN where both are empty. @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function iou(a, b) {
  let both = 0;
  let either = 0;
  for (let i = 0; i < a.length; i++) {
    both += Math.min(a[i], b[i]);
    either += Math.max(a[i], b[i]);
  }
  return either > 0 ? both / either : NaN;
}

/** Part of the picture inside, 0..1. @param {ArrayLike<number>} mask */
export function area(mask) {
  let sum = 0;
  for (let i = 0; i < mask.length; i++) sum += mask[i];
  return mask.length ? sum / mask.length : 0;
}

/**
 * The words that compete with some words for places: the last word of every other noun group, a group being a run of
 * neighbouring content words (the core's `Prompt.rivals`).
 * @param {import("./page_data.js").Word[]} words @param {number[]} members
 * @returns {number[]} indices
 */
export function rivals(words, members) {
  /** @type {number[][]} */
  const groups = [[]];
  words.forEach((word, index) => {
    if (word.kind !== "word") return;
    if (word.content) groups[groups.length - 1].push(index);
    else if (groups[groups.length - 1].length) groups.push([]);
  });
  return groups.filter((group) => group.length && !group.some((i) => members.includes(i))).map((group) => group[group.length - 1]);
}
