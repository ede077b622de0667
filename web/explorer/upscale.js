/**
 * Bicubic upscaling as PyTorch does it (align_corners false, a = -0.75), of several levels summed: Eq. 6's last step.
 * A level is {h, w, data}, a box {x, y, w, h} in pixels of the whole picture.
 *
 * @typedef {{h: number, w: number, data: Float32Array}} Level
 * @typedef {{x: number, y: number, w: number, h: number}} Box
 */

const A = -0.75;

/**
 * For each target pixel the four source pixels and their weights along one axis.
 * @param {number} source @param {number} target @param {number} from @param {number} count
 * @returns {{at: Int32Array, weight: Float32Array}} four entries a pixel
 */
export function taps(source, target, from = 0, count = target) {
  const at = new Int32Array(count * 4);
  const weight = new Float32Array(count * 4);
  const scale = Math.fround(source / target);
  for (let i = 0; i < count; i++) {
    const place = scale * (from + i + 0.5) - 0.5;
    const first = Math.floor(place);
    const t = place - first;
    const w = [far(t + 1), near(t), near(1 - t), far(2 - t)];
    for (let k = 0; k < 4; k++) {
      at[i * 4 + k] = Math.min(Math.max(first - 1 + k, 0), source - 1);
      weight[i * 4 + k] = w[k];
    }
  }
  return { at, weight };
}

/** The cubic's inner part, |x| <= 1. @param {number} x */
function near(x) {
  return ((A + 2) * x - (A + 3)) * x * x + 1;
}

/** The cubic's outer part, 1 < |x| < 2. @param {number} x */
function far(x) {
  return ((A * x - 5 * A) * x + 8 * A) * x - 4 * A;
}

/**
 * @param {Level[]} levels
 * @param {[number, number]} size (height, width) of the whole picture
 * @param {Box} [box] the part wanted; all by default
 * @returns {Float32Array} box.h rows of box.w
 */
export function upscale(levels, size, box = { x: 0, y: 0, w: size[1], h: size[0] }) {
  const out = new Float32Array(box.w * box.h);
  const parts = levels.map((level) => prepared(level, size, box));
  // Row by row through all levels, so that a row stays in the processor's nearest cache until it is complete.
  for (let y = 0; y < box.h; y++) addRows(out, y * box.w, box.w, parts, y * 4, 1);
  return out;
}

/**
 * The same for drawing: 256 steps between `low` and `peak`, row by row, so that no map of the whole picture is ever written.
 * @param {Level[]} levels @param {[number, number]} size (height, width) @param {number} low @param {number} peak
 * @returns {Uint8ClampedArray}
 */
export function upscaleBytes(levels, size, low, peak) {
  const [height, width] = size;
  const out = new Uint8ClampedArray(width * height);
  const row = new Float32Array(width);
  const factor = peak > low ? 255 / (peak - low) : 0;
  const parts = levels.map((level) => prepared(level, size, { x: 0, y: 0, w: width, h: height }));
  for (let y = 0; y < height; y++) {
    row.fill(-low * factor);
    addRows(row, 0, width, parts, y * 4, factor);
    for (let x = 0, i = y * width; x < width; x++, i++) out[i] = row[x];
  }
  return out;
}

/** @typedef {{wide: Float32Array, at: Int32Array, weight: Float32Array}} Part a level stretched sideways, and its taps downwards */

/** @param {Level} level @param {[number, number]} size @param {Box} box @returns {Part} */
function prepared(level, size, box) {
  const down = taps(level.h, size[0], box.y, box.h);
  return { ...down, wide: stretched(level, size[1], box, down.at) };
}

/** Adds four weighted rows of each part to a row of `out`; two parts at a time, so that the row is walked half as often. */
function addRows(
  /** @type {Float32Array} */ out, /** @type {number} */ start, /** @type {number} */ w, /** @type {Part[]} */ parts,
  /** @type {number} */ k, /** @type {number} */ factor,
) {
  for (let i = 0; i < parts.length; i += 2) {
    if (i + 1 < parts.length) addTwo(out, start, w, parts[i], parts[i + 1], k, factor);
    else addOne(out, start, w, parts[i], k, factor);
  }
}

function addOne(
  /** @type {Float32Array} */ out, /** @type {number} */ start, /** @type {number} */ w, /** @type {Part} */ { wide, at, weight },
  /** @type {number} */ k, /** @type {number} */ factor,
) {
  const [a, b, c, d] = [at[k] * w, at[k + 1] * w, at[k + 2] * w, at[k + 3] * w];
  const [wa, wb, wc, wd] = [weight[k] * factor, weight[k + 1] * factor, weight[k + 2] * factor, weight[k + 3] * factor];
  for (let x = 0; x < w; x++) out[start + x] += wa * wide[a + x] + wb * wide[b + x] + wc * wide[c + x] + wd * wide[d + x];
}

function addTwo(
  /** @type {Float32Array} */ out, /** @type {number} */ start, /** @type {number} */ w, /** @type {Part} */ p, /** @type {Part} */ q,
  /** @type {number} */ k, /** @type {number} */ factor,
) {
  const [A, B] = [p.wide, q.wide];
  const [a, b, c, d] = [p.at[k] * w, p.at[k + 1] * w, p.at[k + 2] * w, p.at[k + 3] * w];
  const [e, f, g, h] = [q.at[k] * w, q.at[k + 1] * w, q.at[k + 2] * w, q.at[k + 3] * w];
  const [wa, wb, wc, wd] = [p.weight[k] * factor, p.weight[k + 1] * factor, p.weight[k + 2] * factor, p.weight[k + 3] * factor];
  const [we, wf, wg, wh] = [q.weight[k] * factor, q.weight[k + 1] * factor, q.weight[k + 2] * factor, q.weight[k + 3] * factor];
  for (let x = 0; x < w; x++) {
    out[start + x] += wa * A[a + x] + wb * A[b + x] + wc * A[c + x] + wd * A[d + x]
      + (we * B[e + x] + wf * B[f + x] + wg * B[g + x] + wh * B[h + x]);
  }
}

/** The level's rows that are needed, stretched to the box's columns. */
function stretched(/** @type {Level} */ level, /** @type {number} */ width, /** @type {Box} */ box, /** @type {Int32Array} */ rows) {
  const across = taps(level.w, width, box.x, box.w);
  const wide = new Float32Array(level.h * box.w);
  const { at, weight } = across;
  const last = rows.reduce((a, b) => Math.max(a, b), 0);
  for (let y = rows.reduce((a, b) => Math.min(a, b), level.h - 1); y <= last; y++) {
    const line = level.data.subarray(y * level.w, (y + 1) * level.w);
    for (let x = 0, k = 0; x < box.w; x++, k += 4) {
      wide[y * box.w + x] =
        weight[k] * line[at[k]] + weight[k + 1] * line[at[k + 1]] + weight[k + 2] * line[at[k + 2]] + weight[k + 3] * line[at[k + 3]];
    }
  }
  return wide;
}

/** @param {Level[]} levels @param {[number, number]} size @param {number} y @param {number} x @returns {number} one pixel */
export function valueAt(levels, size, y, x) {
  return upscale(levels, size, { x, y, w: 1, h: 1 })[0];
}
