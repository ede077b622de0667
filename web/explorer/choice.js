/**
 * What was chosen, as a host stores it: words by kind and label, settings, steps, layers or a frame
 * (daam_core/explorer/selection.py reads it).
 *
 * @typedef {{words: string[][], settings: import("./model.js").Settings, part?: import("./model.js").Part}} Choice
 * @typedef {import("./page_data.js").Page} Page
 */

/** @param {Page} page @param {number} index */
function nameOf(page, index) {
  return `${page.words[index].kind}:${page.words[index].label}`;
}

/** @param {Page} page @param {number[][]} picks @returns {string[][]} */
export function named(page, picks) {
  return picks.map((pick) => pick.map((index) => nameOf(page, index)));
}

/**
 * The stored words in this prompt. @param {Page} page @param {string[][]} words
 * @returns {{picks: number[][], missing: string[]}} what is there, and the labels of what is not
 */
export function found(page, words) {
  const names = page.words.map((_, index) => nameOf(page, index));
  return {
    picks: words.map((pick) => pick.map((name) => names.indexOf(name))).filter((pick) => !pick.includes(-1)),
    missing: words.flat().filter((name) => !names.includes(name)).map((name) => name.slice(name.indexOf(":") + 1)),
  };
}

/** Whether this picture has the stored steps, layers or frame. @param {Page} page @param {NonNullable<import("./model.js").Part>} part */
export function fits({ header }, part) {
  const count = { steps: header.steps, layers: header.layers.length, frames: header.frames ?? 1 }[part.axis];
  return header.detail[part.axis] && part.frames.length > 0 && part.frames.every((frame) => frame < count);
}
