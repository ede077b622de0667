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
  for (const level of levels) addLevel(out, level, size, box);
  return out;
}

/** @param {Float32Array} out @param {Level} level @param {[number, number]} size @param {Box} box */
function addLevel(out, level, size, box) {
  const down = taps(level.h, size[0], box.y, box.h);
  const wide = stretched(level, size[1], box, down.at);
  const { at, weight } = down;
  for (let y = 0; y < box.h; y++) {
    const k = y * 4;
    const [w0, w1, w2, w3] = [weight[k], weight[k + 1], weight[k + 2], weight[k + 3]];
    const row = (/** @type {number} */ i) => wide.subarray(at[i] * box.w, (at[i] + 1) * box.w);
    const [a, b, c, d] = [row(k), row(k + 1), row(k + 2), row(k + 3)];
    const target = out.subarray(y * box.w, (y + 1) * box.w);
    for (let x = 0; x < target.length; x++) target[x] += w0 * a[x] + w1 * b[x] + w2 * c[x] + w3 * d[x];
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
