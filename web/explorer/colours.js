/** Colours as 32-bit pixels (little endian RGBA), and the drawing of heat, partition and mask into a canvas's buffer. */
import { TABLES } from "./tables.js";

/** Okabe and Ito's colours for all kinds of colour vision, ordered so that the first few are as far apart as they can be. */
export const WORD_COLOURS = ["#d55e00", "#56b4e9", "#f0e442", "#0072b2", "#cc79a7", "#e69f00", "#009e73"];

const DUSK = [14, 13, 26];
const RISE = [0.12, 0.8];

/** @param {string} name @returns {[number, number, number][]} 256 colours, lowest value first */
export function colourTable(name) {
  const digits = TABLES[name];
  return Array.from({ length: 256 }, (_, i) => rgb(digits.slice(i * 6, i * 6 + 6)));
}

/** @param {string} hex six digits, with or without # @returns {[number, number, number]} */
export function rgb(hex) {
  const value = parseInt(hex.replace("#", ""), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** @param {number[]} colour @param {number} alpha 0..1 */
export function pixel([r, g, b], alpha) {
  return ((Math.round(alpha * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** Heat 0..255 to a pixel over the picture: no heat leaves it as it is, much heat takes its colour. @param {string} name */
export function heatPixels(name) {
  return Uint32Array.from(colourTable(name), (colour, i) => {
    const t = rise(i / 255);
    const mixed = colour.map((c, k) => Math.round(DUSK[k] + (c - DUSK[k]) * t));
    return pixel(mixed, 0.86 * t);
  });
}

/** How much of its colour a heat of 0..1 shows. @param {number} value */
function rise(value) {
  const t = Math.min(Math.max((value - RISE[0]) / (RISE[1] - RISE[0]), 0), 1);
  return t * t * (3 - 2 * t);
}

/** A map in 256 steps between its extremes. @param {Float32Array} map @param {number} low @param {number} peak */
export function toBytes(map, low, peak) {
  const bytes = new Uint8Array(map.length);
  const factor = peak > low ? 255 / (peak - low) : 0;
  for (let i = 0; i < map.length; i++) {
    const value = (map[i] - low) * factor + 0.5;
    bytes[i] = value < 0 ? 0 : value > 255 ? 255 : value;
  }
  return bytes;
}

/** @param {Uint32Array} out @param {Uint8Array|Uint8ClampedArray} heat @param {Uint32Array} table */
export function drawHeat(out, heat, table) {
  for (let i = 0; i < out.length; i++) out[i] = table[heat[i]];
}

/** Each pixel in its winner's colour. @param {Uint32Array} out @param {Int16Array} winner @param {(Uint8Array|Uint8ClampedArray)[]} heat @param {string[]} colours */
export function drawPartition(out, winner, heat, colours) {
  const tables = colours.map((colour) => {
    const base = rgb(colour);
    return Uint32Array.from({ length: 256 }, (_, i) => pixel(base, 0.35 + 0.4 * (i / 255)));
  });
  const rest = pixel(DUSK, 0.45);
  for (let i = 0; i < out.length; i++) out[i] = winner[i] < 0 ? rest : tables[winner[i]][heat[winner[i]][i]];
}

/** What is outside the mask is veiled, its edge drawn light on dark. @param {Uint32Array} out @param {ArrayLike<number>} mask @param {Uint8Array} rim @param {number} width */
export function drawMask(out, mask, rim, width) {
  const veil = Uint32Array.from({ length: 256 }, (_, i) => pixel(DUSK, (0.72 * i) / 255));
  const line = pixel([255, 255, 255], 1);
  const shade = pixel([0, 0, 0], 0.85);
  for (let i = 0; i < out.length; i++) out[i] = veil[Math.round(255 * (1 - mask[i]))];
  for (let i = 0; i < out.length; i++) {
    if (!rim[i]) continue;
    for (const j of [i - 1, i + 1, i - width, i + width]) if (j >= 0 && j < out.length && !rim[j] && mask[j] < 0.5) out[j] = shade;
    out[i] = line;
  }
}
