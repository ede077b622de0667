/**
 * Steps or layers apart: a further atlas, read when it is asked for.
 *
 * @typedef {import("./upscale.js").Level} Level
 */
import { local } from "./local.js";
import { decodeGreyPng } from "./png.js";
import { checkHeader, checkLayout, PageError, summed, tileLevels } from "./page_data.js";

/** One axis of detail: the maps of some words for each step or layer. */
export class Detail {
  /** @param {any} header @param {import("./page_data.js").Grey} atlas */
  constructor(header, atlas) {
    /** @type {any} */
    this.header = header;
    /** @type {import("./page_data.js").Grey} */
    this.atlas = atlas;
  }

  /** @returns {number} */
  get frames() {
    return this.header.frames;
  }

  /** Whether every word of these is in it. @param {string[]} labels */
  has(labels) {
    return labels.every((label) => this.header.words.includes(label));
  }

  /**
   * A word or phrase, summed over frames.
   * @param {string[]} labels @param {number[]} frames @param {number[]} weights one a label
   * @returns {Level[]}
   */
  levels(labels, frames, weights) {
    const maps = [];
    const factors = [];
    for (const frame of frames) {
      for (const [i, label] of labels.entries()) {
        const tile = frame * this.header.words.length + this.header.words.indexOf(label);
        maps.push(tileLevels(this.atlas, this.header, tile, this.header.scales[tile]));
        factors.push(weights[i]);
      }
    }
    return summed(maps, factors);
  }
}

/** @param {any} header @param {Uint8Array} bytes @returns {Promise<Detail>} @throws {PageError} */
export async function readDetail(header, bytes) {
  checkHeader(header);
  try {
    const atlas = await decodeGreyPng(bytes);
    checkLayout(atlas, header, header.frames * header.words.length);
    return new Detail(header, atlas);
  } catch (error) {
    throw new PageError(local("This part of the picture's maps cannot be read ({0}).", /** @type {Error} */ (error).message));
  }
}
