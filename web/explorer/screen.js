/** What is on the screen: overlay, legend, chips, sheets and ranking are drawn here from what a person has chosen. */
import { drawHeat, heatPixels } from "./colours.js";
import { percent } from "./dom.js";
import { VIEWS } from "./layout.js";
import { legend, rankRows } from "./legend.js";
import { drawApart, drawKeptMask, markChips, wordColour } from "./painting.js";
import { candidates } from "./ranking.js";
import { matrixSheet } from "./relations.js";
import { layerSheet, pair, wordSheet } from "./sheets.js";
import { local } from "./local.js";

/**
 * @typedef {{model: import("./model.js").Model, picks: number[][], hovered: number[]|null,
 *   settings: import("./model.js").Settings, masking: boolean, blend: string, view: string, extras: boolean}} Chosen
 */
export class Screen {
  /**
   * @param {import("./model.js").Model} model @param {any} ui the parts, see layout.js
   * @param {Chosen} chosen read at each drawing, never written
   * @param {{picture?: string|null, film?: string[], colourMap?: string}} look
   * @param {{toggle: (members: number[]) => void, refine: () => void}} on `refine`: a server's mask is wanted and not there
   */
  constructor(model, ui, chosen, look, on) {
    [this.model, this.ui, this.chosen, this.on] = [model, ui, chosen, on];
    this.hasWords = model.page.words.some((word) => word.kind !== "special");
    this.picture = look.picture ?? null;
    this.whole = this.picture;
    this.film = look.film ?? [];
    this.map = look.colourMap ?? "ember";
    this.table = heatPixels(this.map);
    this.held = false;
    this.round = 0;
    this.watcher = new ResizeObserver(() => this.fit());
    this.watch();
    this.fit();
  }

  watch() {
    this.watcher.observe(this.ui.view.frame);
  }

  /** Nothing moves by itself any more. */
  rest() {
    this.ui.scrubber.stop();
    this.watcher.disconnect();
  }

  /** Heat is drawn at the size that it has on the screen. */
  fit() {
    const { frame } = this.ui.view;
    const side = Math.max(frame.clientWidth, frame.clientHeight) * (window.devicePixelRatio || 1);
    if (side && this.model.fit(side)) {
      this.draw();
      this.prepare();
    }
  }

  /** The picture of a video's frame, in front of the others; null is the video's own picture. @param {number|null} number */
  showFrame(number) {
    this.picture = number === null ? this.whole : this.film[number] ?? this.whole;
    this.ui.view.showFrame(number);
  }

  draw() {
    const { model, ui } = this;
    const { picks, hovered, settings } = this.chosen;
    const { overlay } = ui.view;
    const shown = hovered ? [hovered] : picks;
    const masked = this.chosen.masking && picks.length > 0 && !hovered;
    const apart = shown.length > 1 && this.chosen.blend === "partition";
    if (masked && settings.method && !model.refined.has(model.refinedKey(picks, settings))) this.on.refine();
    const together = [...new Set(shown.flat())];
    // What is looked at for the first time is drawn smaller, at once, and as fine as the screen when there is time.
    const quick = !masked && !apart && shown.length > 0 && !model.ready(together);
    const size = quick ? model.quickSize : model.heatSize;
    overlay.use(masked ? model.drawn : size);
    if (quick) this.sharpen(together);
    markChips(ui.chips.chips, picks, hovered);
    ui.panel.command(picks.map((members) => model.label(members)));
    if (masked) ui.panel.say(local("{0} of the picture", percent(drawKeptMask(overlay.pixels, model, picks, settings))), true);
    else ui.panel.say(picks.length ? "" : local(this.hasWords ? "click a word first" : "the prompt has no word"), picks.length > 0);
    if (!masked && apart) drawApart(overlay.pixels, model, shown, settings.tau);
    if (!masked && !apart && shown.length) drawHeat(overlay.pixels, model.heat(together, size).bytes, this.table);
    if (shown.length) overlay.show();
    else overlay.clear();
    ui.bar.replaceChildren(...legend(model, shown, { apart, masked, map: this.map, colours: shown.map((_, i) => wordColour(i)), size }));
    ui.blending.hidden = picks.length < 2 || this.chosen.view !== VIEWS[0];
  }

  /** Heat at the size of the screen, if it is still looked at when there is time. @param {number[]} members */
  sharpen(members) {
    const { model, hovered, picks } = this.chosen;
    whenIdle(() => {
      if (this.chosen.model !== model || this.chosen.hovered !== hovered || this.chosen.picks !== picks) return;
      model.heat(members);
      this.draw();
    });
  }

  /** Makes the maps that a hover will want, while nothing else is to be done. */
  prepare() {
    const { model } = this;
    const round = ++this.round;
    const waiting = [...candidates(model.page), ...model.page.words.keys()].slice(0, 64);
    const next = () => {
      if (this.chosen.model !== model || this.round !== round || !waiting.length) return;
      model.heat([/** @type {number} */ (waiting.shift())], model.heatSize, null);
      whenIdle(next);
    };
    whenIdle(next);
  }

  /** Puts one of the views in front; `fillSheet` draws it. @param {string} name */
  turn(name) {
    const { ui } = this;
    ui.tabs.forEach((/** @type {HTMLElement} */ tab, /** @type {number} */ i) => tab.setAttribute("aria-pressed", String(ui.views[i] === name)));
    const whole = name === VIEWS[0];
    ui.view.frame.hidden = ui.bar.hidden = ui.tool.hidden = !whole;
    ui.sheet.hidden = whole;
    ui.blending.hidden = !whole || this.chosen.picks.length < 2;
    for (const group of [ui.whose, ui.readers]) if (group) group.hidden = name === "Layers" || name === "Relations";
  }

  fillSheet() {
    const { model, ui, picture, table } = this;
    const { picks, settings, view, extras } = this.chosen;
    if (view === VIEWS[0]) return ui.sheet.replaceChildren();
    const members = picks[picks.length - 1] ?? [candidates(model.page)[0]];
    const isKept = (/** @type {number[]} */ m) => picks.some((p) => p.join() === m.join());
    const words = extras ? [...model.page.words.keys()] : candidates(model.page);
    const made = view === "Words" ? wordSheet(model, picture, table, words, this.on.toggle, isKept)
      : view === "Compare" ? pair(model, picture, table, picks, settings.tau)
      : view === "Relations" ? matrixSheet(model.page, words, this.map)
      : layerSheet(model, picture, table, members);
    ui.sheet.replaceChildren(made);
  }

  /** @param {import("./ranking.js").Ranked[]|null} rows @param {string} [where] @param {boolean} [hold] a region stays until it is dropped */
  rank(rows, where = "", hold = false) {
    if (this.held && !hold) return;
    this.held = hold;
    this.ui.where.textContent = where;
    this.ui.ranks.replaceChildren(...rankRows(rows));
  }

  /** The region that was held goes. */
  drop() {
    this.held = false;
  }

  /** A line below the panels. @param {string} text */
  tell(text) {
    this.ui.status.textContent = text;
  }
}

/** @param {() => void} work */
function whenIdle(work) {
  if (window.requestIdleCallback) window.requestIdleCallback(work, { timeout: 500 });
  else setTimeout(work, 30);
}
