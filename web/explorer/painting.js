/** The overlay of the chosen words (their mask, or each in a colour of its own), and the marks on their chips. */
import { drawMask, drawPartition, WORD_COLOURS } from "./colours.js";
import { area, winners } from "./masks.js";
import { edge } from "./morphology.js";

/** The colour of the i-th kept word. @param {number} i */
export function wordColour(i) {
  return WORD_COLOURS[i % WORD_COLOURS.length];
}

/**
 * The mask of the kept words.
 * @param {Uint32Array} out @param {import("./model.js").Model} model @param {number[][]} picks
 * @param {import("./model.js").Settings} settings @returns {number} part of the picture inside, 0..1
 */
export function drawKeptMask(out, model, picks, settings) {
  const [height, width] = model.drawn;
  const mask = model.drawnMask(picks, settings);
  drawMask(out, mask, edge(mask, height, width), width);
  return area(mask);
}

/** Each word in its own colour, where it is the hottest. @param {Uint32Array} out @param {import("./model.js").Model} model @param {number[][]} shown @param {number} tau */
export function drawApart(out, model, shown, tau) {
  const winner = winners(shown.map((members) => model.map(members, model.heatSize)), tau);
  drawPartition(out, winner, shown.map((members) => model.heat(members).bytes), shown.map((_, i) => wordColour(i)));
}

/** Chips that are kept, and those that are looked at. @param {Map<number, HTMLButtonElement>} chips @param {number[][]} picks @param {number[]|null} hovered */
export function markChips(chips, picks, hovered) {
  for (const [index, chip] of chips) {
    const kept = picks.findIndex((pick) => pick.includes(index));
    chip.setAttribute("aria-pressed", String(kept >= 0));
    chip.style.setProperty("--mine", kept >= 0 && picks.length > 1 ? wordColour(kept) : "var(--accent)");
    chip.classList.toggle("lit", hovered?.includes(index) ?? false);
  }
}
