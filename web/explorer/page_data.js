/**
 * The page's data: header (JSON) and atlas (PNG), as daam_core/explorer/page_data.py writes them.
 *
 * @typedef {import("./upscale.js").Level} Level
 * @typedef {{label: string, text: string, kind: "word"|"special"|"negative"|"concept", at: [number, number]|null, content: boolean,
 *   share: number|null, weight: number, tokens: number, key: string, mean: number, low: number, peak: number,
 *   scales: number[]}} Word
 * @typedef {{top: number, grids: [number, number][], columns: number[]}} Layout
 * @typedef {{width: number, height: number, pixels: Uint8Array}} Grey
 */
import { decodeGreyPng, fromBase64 } from "./png.js";
import { local } from "./local.js";

export const FORMAT = "daam-lens page";
export const VERSION = 1;

/** A sentence for the person at the screen. */
export class PageError extends Error {}

/** One picture's words and their native maps. */
export class Page {
  /** @param {any} header @param {Grey} atlas */
  constructor(header, atlas) {
    /** @type {any} */
    this.header = header;
    /** @type {[number, number]} (height, width) */
    this.size = header.size;
    /** @type {Word[]} */
    this.words = header.words;
    /** @type {Grey} */
    this.atlas = atlas;
    /** @type {Map<number, Level[]>} */
    this.cache = new Map();
    /** The same words with the maps of where each looks, where these were recorded. @type {Page|null} */
    this.looks = null;
    /** The same words with the maps of the tokens that one text encoder read, by its name. @type {Map<string, Page>} */
    this.encoders = new Map();
  }

  /** Native levels of one word. @param {number} index @returns {Level[]} */
  wordLevels(index) {
    let levels = this.cache.get(index);
    if (!levels) {
      levels = tileLevels(this.atlas, this.header.atlas, index, this.words[index].scales);
      this.cache.set(index, levels);
    }
    return levels;
  }

  /** Native levels of a word or phrase. @param {number[]} members indices of words @returns {Level[]} */
  levels(members) {
    if (members.length === 1) return this.wordLevels(members[0]);
    return summed(members.map((i) => this.wordLevels(i)), this.phraseWeights(members));
  }

  /** A phrase sums its words' tokens, or takes the tokens' mean by castorini's rule. @param {number[]} members */
  phraseWeights(members) {
    if (this.header.rule !== "castorini") return members.map(() => 1);
    const all = members.reduce((sum, i) => sum + this.words[i].tokens, 0);
    return members.map((i) => this.words[i].tokens / all);
  }
}

/**
 * @param {any} header @param {Uint8Array} bytes
 * @returns {Promise<Page>}
 * @throws {PageError} one sentence
 */
export async function readPage(header, bytes) {
  checkHeader(header);
  if (!Array.isArray(header.words) || !Array.isArray(header.size)) throw new PageError(local("This record's page data are incomplete."));
  try {
    const atlas = await decodeGreyPng(bytes);
    checkLayout(atlas, header.atlas, header.words.length);
    const page = new Page(header, atlas);
    if (header.relations?.looks) page.looks = await otherMaps(header, header.relations.looks);
    for (const one of header.encoders ?? []) page.encoders.set(String(one.name), await otherMaps(header, one));
    return page;
  } catch (error) {
    throw new PageError(local("The heat maps of this picture cannot be read ({0}); make the page again.", /** @type {Error} */ (error).message));
  }
}

/** Other maps of the same words: where each looks (text->image), or what one encoder read. @param {any} header @param {any} other @returns {Promise<Page>} @throws {Error} */
async function otherMaps(header, other) {
  const { words, terms, atlas, ...layout } = other;
  const grey = await decodeGreyPng(fromBase64(atlas));
  checkLayout(grey, layout, header.words.length);
  const named = header.words.map((/** @type {Word} */ word, /** @type {number} */ i) => ({ ...word, ...words[i] }));
  return new Page({ ...header, words: named, terms, atlas: layout }, grey);
}

/** @param {any} header @throws {PageError} */
export function checkHeader(header) {
  if (!header || typeof header !== "object") {
    throw new PageError(local("There are no heat maps for this picture yet: record it, and they appear here."));
  }
  if (header.format !== FORMAT) throw new PageError(local("These are not heat maps of DAAM Lens; choose a record that it wrote."));
  if (header.version !== VERSION) {
    throw new PageError(
      local("These heat maps are of version {0} and this page reads version {1}: make the page again.", String(header.version), VERSION),
    );
  }
}

/** @param {Grey} atlas @param {Layout} layout @param {number} tiles */
export function checkLayout(atlas, layout, tiles) {
  const width = (layout.top > 255 ? 2 : 1) * layout.grids.reduce((sum, grid) => sum + grid[1], 0);
  const height = Math.max(1, tiles * Math.max(...layout.grids.map((grid) => grid[0])));
  if (atlas.width !== width || atlas.height !== height) {
    throw new Error(`the atlas is ${atlas.width} x ${atlas.height} where ${width} x ${height} was promised`);
  }
}

/**
 * One tile's levels; resolutions in which it is empty are left out (but one always stays).
 * @param {Grey} atlas @param {Layout} layout @param {number} tile @param {number[]} scales
 * @returns {Level[]}
 */
export function tileLevels(atlas, layout, tile, scales) {
  const { top } = layout;
  const low = atlas.width / 2;
  const levels = [];
  for (const [g, [h, w]] of layout.grids.entries()) {
    if (!scales[g] && (levels.length || g < layout.grids.length - 1)) continue;
    const data = new Float32Array(h * w);
    for (let y = 0, i = 0; y < h; y++) {
      let at = (tile * h + y) * atlas.width + layout.columns[g];
      for (let x = 0; x < w; x++, at++, i++) {
        const value = top > 255 ? atlas.pixels[at] * 256 + atlas.pixels[at + low] : atlas.pixels[at];
        data[i] = (value / top) * scales[g];
      }
    }
    levels.push({ h, w, data });
  }
  return levels;
}

/** A weighted sum of maps, resolution by resolution. @param {Level[][]} maps @param {number[]} [weights] @returns {Level[]} */
export function summed(maps, weights = maps.map(() => 1)) {
  /** @type {Map<string, Level>} */
  const found = new Map();
  maps.forEach((levels, m) => {
    for (const { h, w, data } of levels) {
      const key = `${h}x${w}`;
      const sum = found.get(key) ?? { h, w, data: new Float32Array(h * w) };
      found.set(key, sum);
      for (let i = 0; i < data.length; i++) sum.data[i] += weights[m] * data[i];
    }
  });
  return [...found.values()];
}
