/** Cleaning a mask (daam_core/masks/morphology.py): Euclidean distances in pixels, exact. Masks are Uint8Array of 0 and 1. */

const FAR = 1e9;

/**
 * Squared distance of each nonzero pixel to the nearest zero one (Felzenszwalb and Huttenlocher); very far without any.
 * @param {Uint8Array} mask @param {number} h @param {number} w @returns {Float64Array}
 */
export function squaredDistance(mask, h, w) {
  const field = new Float64Array(h * w);
  for (let i = 0; i < field.length; i++) field[i] = mask[i] ? FAR * FAR : 0;
  const longest = Math.max(h, w);
  const line = new Float64Array(longest);
  const scratch = { place: new Int32Array(longest), bound: new Float64Array(longest + 1) };
  for (let x = 0; x < w; x++) envelope(field, x, w, h, line, scratch);
  for (let y = 0; y < h; y++) envelope(field, y * w, 1, w, line, scratch);
  return field;
}

/** One line: the lower envelope of a parabola above each pixel. */
function envelope(
  /** @type {Float64Array} */ field, /** @type {number} */ start, /** @type {number} */ stride, /** @type {number} */ count,
  /** @type {Float64Array} */ line, /** @type {{place: Int32Array, bound: Float64Array}} */ { place, bound },
) {
  for (let i = 0; i < count; i++) line[i] = field[start + i * stride];
  let last = -1;
  for (let q = 0; q < count; q++) {
    if (line[q] >= FAR * FAR) continue;
    let meet = -Infinity;
    while (last >= 0) {
      const p = place[last];
      meet = (line[q] + q * q - line[p] - p * p) / (2 * (q - p));
      if (meet > bound[last]) break;
      last--;
    }
    last++;
    place[last] = q;
    bound[last] = last ? meet : -Infinity;
  }
  if (last < 0) return;
  for (let i = 0, k = 0; i < count; i++) {
    while (k < last && bound[k + 1] < i) k++;
    field[start + i * stride] = (i - place[k]) ** 2 + line[place[k]];
  }
}

/** Everything within `radius` of the mask; a negative radius shrinks it. @param {Uint8Array} mask @param {number} radius */
export function grow(mask, h = 0, w = 0, radius = 0) {
  if (!radius) return mask;
  const limit = radius * radius;
  if (radius < 0) return Uint8Array.from(squaredDistance(mask, h, w), (d) => (d > limit ? 1 : 0));
  return Uint8Array.from(squaredDistance(invert(mask), h, w), (d) => (d <= limit ? 1 : 0));
}

/** Soft edges: 0.5 on the edge, linear over `radius` to both sides. @param {Uint8Array} mask @returns {Float32Array} */
export function feather(mask, h = 0, w = 0, radius = 0) {
  const inner = squaredDistance(mask, h, w);
  const outer = squaredDistance(invert(mask), h, w);
  const out = new Float32Array(mask.length);
  for (let i = 0; i < out.length; i++) {
    const depth = mask[i] ? Math.sqrt(inner[i]) - 0.5 : 0.5 - Math.sqrt(outer[i]);
    out[i] = Math.min(Math.max(0.5 + depth / (2 * Math.max(radius, 1e-6)), 0), 1);
  }
  return out;
}

/** @template {Uint8Array | Float32Array} T @param {T} mask @returns {T} the rest of the picture */
export function invert(mask) {
  return /** @type {T} */ (mask.map((v) => 1 - v));
}

/** The mask's pixels beside others (4 neighbours, level 0.5). @param {ArrayLike<number>} mask @returns {Uint8Array} */
export function edge(mask, h = 0, w = 0) {
  const out = new Uint8Array(h * w);
  for (let y = 0, i = 0; y < h; y++) {
    for (let x = 0; x < w; x++, i++) {
      if (mask[i] < 0.5) continue;
      if ((x && mask[i - 1] < 0.5) || (x < w - 1 && mask[i + 1] < 0.5)) out[i] = 1;
      else if ((y && mask[i - w] < 0.5) || (y < h - 1 && mask[i + w] < 0.5)) out[i] = 1;
    }
  }
  return out;
}
