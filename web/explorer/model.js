/**
 * What was chosen, and the maps and masks that follow from it. No document here: everything can be tested alone.
 *
 * @typedef {{tau: number, soft: boolean, compete: boolean, grow: number, feather: number, invert: boolean, method: string}} Settings
 * `method` is "" for levels alone, or how a host's server made the words' mask before clean-up (`Model.refined`).
 * @typedef {{axis: "steps"|"layers"|"frames", frames: number[]}|null} Part
 */
import { toBytes } from "./colours.js";
import { competed, extremes, rivals, soft, threshold } from "./masks.js";
import { feather, grow, invert } from "./morphology.js";
import { upscale, upscaleBytes } from "./upscale.js";

/** @type {Settings} */
export const DEFAULTS = { tau: 0.4, soft: false, compete: false, grow: 0, feather: 0, invert: false, method: "" };
/** Longer side of what is drawn, at most and at least; a mask that is taken away always has the picture's own size. */
export const DRAWN_SIDE = 1024;
export const LEAST_SIDE = 512;
const STAGE_STEP = 64;
/** Longer side of heat that is drawn at once, before it is drawn as fine as the screen. */
const QUICK_SIDE = 384;
const KEPT_FLOATS = 12;
const KEPT_BYTES = 96;
const KEPT_FILMS = 3;

/** Maps of one picture, made once and kept while they are wanted. */
export class Model {
  /** @param {import("./page_data.js").Page} page */
  constructor(page) {
    /** @type {import("./page_data.js").Page} */
    this.page = page;
    /** @type {Part} */
    this.part = null;
    /** Whether the maps are of where a word looks, not of which places look at the word. */
    this.looking = false;
    /** The text encoder whose tokens alone are shown, "" for all. */
    this.encoder = "";
    /** @type {Map<string, import("./detail.js").Detail>} */
    this.details = new Map();
    const longer = Math.max(...page.size);
    // Of a small picture each pixel is drawn as a whole block, so that heat is smooth and a mask's edge is thin.
    const scale = longer > DRAWN_SIDE ? DRAWN_SIDE / longer : Math.max(1, Math.floor(LEAST_SIDE / longer));
    /** @type {[number, number]} (height, width) of what is drawn */
    this.drawn = [Math.max(1, Math.round(page.size[0] * scale)), Math.max(1, Math.round(page.size[1] * scale))];
    /** @type {[number, number]} (height, width) of heat as it is drawn: what the screen has place for, see `fit` */
    this.heatSize = this.drawn;
    /** @type {Map<string, Float32Array>} */
    this.floats = new Map();
    /** @type {Map<string, {bytes: Uint8Array|Uint8ClampedArray, low: number, peak: number}>} */
    this.bytes = new Map();
    /** Maps of all frames of a video below each other, by words and size. @type {Map<string, Float32Array>} */
    this.films = new Map();
    /** Masks that a server made, at the picture's own size, by `refinedKey`. @type {Map<string, Uint8Array>} */
    this.refined = new Map();
  }

  /**
   * Heat is smooth: drawn finer than the screen shows it, it would only take longer.
   * @param {number} side pixels of the stage's longer side @returns {boolean} whether the size changed
   */
  fit(side) {
    const scale = Math.min(1, (Math.ceil(side / STAGE_STEP) * STAGE_STEP) / Math.max(...this.drawn));
    const [height, width] = this.drawn.map((length) => Math.max(1, Math.round(length * scale)));
    if (height === this.heatSize[0] && width === this.heatSize[1]) return false;
    this.heatSize = [height, width];
    this.bytes.clear();
    return true;
  }

  /** (height, width) of heat that cannot wait. @returns {[number, number]} */
  get quickSize() {
    const [height, width] = this.heatSize;
    const scale = Math.min(1, QUICK_SIDE / Math.max(height, width));
    return [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
  }

  /** Whether a word's heat has been made at the size of the screen. @param {number[]} members */
  ready(members) {
    return this.bytes.has(this.key(members, this.heatSize, this.part));
  }

  /** The page whose maps are shown. @returns {import("./page_data.js").Page} */
  get source() {
    return (this.looking && this.page.looks) || this.page.encoders.get(this.encoder) || this.page;
  }

  /** @param {number[]} members @param {[number, number]} size @param {Part} part */
  key(members, size, part) {
    return `${this.looking ? "looks " : this.encoder}${members}|${size}|${part ? `${part.axis}${part.frames}` : ""}`;
  }

  /** @param {number[]} members */
  label(members) {
    return members.map((i) => this.page.words[i].text).join(" ");
  }

  /** Native levels, of the chosen steps or layers where some are chosen. @param {number[]} members @param {Part} [part] */
  levels(members, part = this.part) {
    const detail = part && this.details.get(part.axis);
    if (!part || !detail) return this.source.levels(members);
    const labels = members.map((i) => this.page.words[i].label);
    // Only words that can be seen are kept by step and layer; of others, and of the negative prompt, there is the whole.
    if (members.some((i) => this.page.words[i].kind !== "word") || !detail.has(labels)) return this.page.levels(members);
    return detail.levels(labels, part.frames, this.page.phraseWeights(members));
  }

  /** @param {number[]} members @param {[number, number]} [size] @param {Part} [part] @returns {Float32Array} */
  map(members, size = this.drawn, part = this.part) {
    const key = this.key(members, size, part);
    return kept(this.floats, key, KEPT_FLOATS, () => upscale(this.levels(members, part), size));
  }

  /** For drawing: 256 steps between the map's own extremes. @param {number[]} members @param {[number, number]} [size] @param {Part} [part] */
  heat(members, size = this.heatSize, part = this.part) {
    const key = this.key(members, size, part);
    return kept(this.bytes, key, KEPT_BYTES, () => {
      if (members.length === 1 && !part) {
        // The core has measured the whole map of a word already.
        const { low, peak } = this.source.words[members[0]];
        return { bytes: upscaleBytes(this.levels(members, part), size, low, peak), low, peak };
      }
      const map = this.floats.get(key) ?? upscale(this.levels(members, part), size);
      // The frames of a video share one scale, so that a frame with little heat is dark.
      const { low, peak } = extremes(part?.axis === "frames" ? this.film(members, this.filmSize) : map);
      return { bytes: toBytes(map, low, peak), low, peak };
    });
  }

  /**
   * The mask of the kept words together.
   * @param {number[][]} picks @param {Settings} settings @param {[number, number]} [size]
   * @returns {Uint8Array|Float32Array} 0..1
   */
  mask(picks, settings, size = this.drawn) {
    const made = settings.method ? this.refined.get(this.refinedKey(picks, settings)) : undefined;
    /** @type {Uint8Array|Float32Array|null} */
    let all = made ? resampled(made, this.page.size, size) : null;
    for (const members of made ? [] : picks) {
      const one = this.one(members, settings, size);
      all = all ? joined(all, one) : one;
    }
    if (!all) return new Uint8Array(size[0] * size[1]);
    // Lengths are given in the picture's pixels; what is drawn may be smaller.
    const scale = size[0] / this.page.size[0];
    if (all instanceof Uint8Array) all = grow(all, size[0], size[1], settings.grow * scale);
    if (settings.invert) all = invert(all);
    return all instanceof Uint8Array && settings.feather ? feather(all, size[0], size[1], settings.feather * scale) : all;
  }

  /** What a server's mask depends on; the rest of the settings is done here. @param {number[][]} picks @param {Settings} settings */
  refinedKey(picks, settings) {
    return JSON.stringify([picks, settings.method, settings.tau, this.part]);
  }

  /** The mask as it is drawn: of a small picture its own pixels, enlarged. @param {number[][]} picks @param {Settings} settings */
  drawnMask(picks, settings) {
    const { size } = this.page;
    const times = Math.floor(this.drawn[0] / size[0]);
    return times > 1 ? enlarged(this.mask(picks, settings, size), size, times) : this.mask(picks, settings, this.drawn);
  }

  /** (height, width) at which the heat of all frames of a video is held against each other. @returns {[number, number]} */
  get filmSize() {
    return /** @type {[number, number]} */ (this.quickSize.map((length) => Math.max(1, Math.ceil(length / 2))));
  }

  /** A word in every frame of a video, below each other. @param {number[]} members @param {[number, number]} size @returns {Float32Array} */
  film(members, size) {
    return kept(this.films, this.key(members, size, null), KEPT_FILMS, () => {
      const count = this.page.header.frames;
      const all = new Float32Array(count * size[0] * size[1]);
      for (let frame = 0; frame < count; frame++) {
        all.set(upscale(this.levels(members, { axis: "frames", frames: [frame] }), size), frame * size[0] * size[1]);
      }
      return all;
    });
  }

  /** One word's mask before clean-up. @param {number[]} members @param {Settings} settings @param {[number, number]} size */
  one(members, settings, size) {
    const frame = this.part?.axis === "frames" ? this.part.frames[0] : null;
    if (frame !== null && this.details.has("frames")) {
      // All frames decide together which level is the object's, and which words compete (daam_core/masks/video.py).
      const film = this.film(members, size);
      const others = settings.compete ? rivals(this.page.words, members).map((i) => this.film([i], size)) : [];
      const won = settings.compete ? competed([film, ...others], settings.tau) : threshold(film, settings.tau);
      const [from, to] = [frame * size[0] * size[1], (frame + 1) * size[0] * size[1]];
      if (!settings.soft) return won.slice(from, to);
      const grey = soft(film, settings.tau).slice(from, to);
      return settings.compete ? grey.map((v, i) => v * won[from + i]) : grey;
    }
    const map = this.map(members, size);
    if (!settings.compete) return settings.soft ? soft(map, settings.tau) : threshold(map, settings.tau);
    const others = rivals(this.page.words, members).map((i) => this.map([i], size));
    const won = competed([map, ...others], settings.tau);
    return settings.soft ? soft(map, settings.tau).map((v, i) => v * won[i]) : won;
  }
}

/**
 * Every value as a block. @template {Uint8Array|Float32Array} T
 * @param {T} mask @param {[number, number]} size @param {number} times @returns {T}
 */
export function enlarged(mask, [height, width], times) {
  const out = /** @type {any} */ (mask.constructor);
  const wide = new out(height * width * times * times);
  for (let y = 0, i = 0; y < height * times; y++) {
    const row = Math.floor(y / times) * width;
    for (let x = 0; x < width * times; x++, i++) wide[i] = mask[row + Math.floor(x / times)];
  }
  return wide;
}

/**
 * The nearest pixel of each. @param {Uint8Array} mask @param {[number, number]} from @param {[number, number]} to
 * @returns {Uint8Array}
 */
export function resampled(mask, from, to) {
  if (from[0] === to[0] && from[1] === to[1]) return mask;
  const out = new Uint8Array(to[0] * to[1]);
  for (let y = 0, i = 0; y < to[0]; y++) {
    const row = Math.floor(((y + 0.5) * from[0]) / to[0]) * from[1];
    for (let x = 0; x < to[1]; x++, i++) out[i] = mask[row + Math.floor(((x + 0.5) * from[1]) / to[1])];
  }
  return out;
}

/** The larger of both at each pixel. @param {Uint8Array|Float32Array} a @param {Uint8Array|Float32Array} b */
function joined(a, b) {
  return a.map((v, i) => Math.max(v, b[i]));
}

/**
 * A value by key, the longest unused ones forgotten.
 * @template T
 * @param {Map<string, T>} store @param {string} key @param {number} most @param {() => T} make @returns {T}
 */
function kept(store, key, most, make) {
  const value = store.get(key) ?? make();
  store.delete(key);
  store.set(key, value);
  if (store.size > most) store.delete(/** @type {string} */ (store.keys().next().value));
  return value;
}

/** Keeps a word or phrase, or lets it go. @param {number[][]} picks @param {number[]} members @returns {number[][]} */
export function toggled(picks, members) {
  const same = (/** @type {number[]} */ pick) => pick.join() === members.join();
  return picks.some(same) ? picks.filter((pick) => !same(pick)) : [...picks, members];
}

/** The words between two chips that belong to one prompt, both included. @param {import("./page_data.js").Word[]} words @param {number} a @param {number} b */
export function phrase(words, a, b) {
  const [first, last] = [Math.min(a, b), Math.max(a, b)];
  if (words[a].kind !== words[b].kind || words[a].kind === "special" || words[a].kind === "concept") return [b];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
