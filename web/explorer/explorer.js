/** The element that owns the document: data in through `load`, choices out through events. Knows no host. */
import { fits, found, named } from "./choice.js";
import { drawHeat, heatPixels } from "./colours.js";
import { readDetail } from "./detail.js";
import { h, percent } from "./dom.js";
import { layout, VIEWS } from "./layout.js";
import { legend, rankRows } from "./legend.js";
import { DEFAULTS, Model, toggled } from "./model.js";
import { PageError, readPage } from "./page_data.js";
import { drawApart, drawKeptMask, markChips, wordColour } from "./painting.js";
import { candidates, rankBox, rankPixel } from "./ranking.js";
import { refiner } from "./refining.js";
import { maskBlob, saveBlob } from "./saving.js";
import { layerSheet, pair, wordSheet } from "./sheets.js";
import { STYLE } from "./style.js";

/**
 * @typedef {{header: any, atlas: Uint8Array, picture?: string|null, colourMap?: string, use?: string,
 *   choice?: Choice|null,
 *   detail?: (axis: "steps"|"layers") => Promise<{header: any, atlas: Uint8Array}>,
 *   refine?: {methods: string[], run: (request: object) => Promise<string|{mask: Uint8Array}|void>}}} Data
 * @typedef {import("./choice.js").Choice} Choice
 * `detail` gives a further atlas when it is asked for; `refine.run` does on the host's server what a page cannot: it answers
 * with the words' mask before clean-up (an 8-bit grey PNG of the picture's size), or with a sentence to show; `use` is the
 * text of the button; `choice` is what an earlier `daam-change` told.
 */
export class DaamExplorer extends HTMLElement {
  constructor() {
    super();
    this.attachShadow({ mode: "open" });
    this.empty();
  }

  /** Nothing is loaded and nothing chosen. */
  empty() {
    /** @type {Data|null} */ this.data = null;
    /** @type {any} */ this.model = null;
    /** @type {number[][]} */ this.picks = [];
    /** @type {number[]|null} */ this.hovered = null;
    this.settings = { ...DEFAULTS };
    this.masking = false;
    this.blend = "partition";
    this.view = VIEWS[0];
    /** @type {any} */ this.ui = null;
    /** @type {any} */ this.server = null;
    this.generation = (this.generation ?? 0) + 1;
  }

  /** Shows one picture; what is wrong with its data becomes a sentence. @param {Data} data @returns {Promise<void>} */
  async load(data) {
    this.ui?.scrubber.stop();
    const { masking } = this;
    this.empty();
    const mine = this.generation;
    try {
      const page = await readPage(data.header, data.atlas);
      if (mine !== this.generation) return;
      this.data = data;
      this.model = new Model(page);
      this.server = refiner(this.model, data.refine, (text) => this.tell(text));
      const left = this.restore(data.choice);
      this.masking = masking && this.picks.length > 0;
      this.build();
      if (left.length) this.tell(`Not in this prompt: ${left.join(", ")}.`);
      this.draw();
      this.prepare();
      if (data.choice?.part) await this.restorePart(data.choice.part);
    } catch (error) {
      if (mine === this.generation) this.say(error);
    }
  }

  /** A host may move the element about in its page. */
  connectedCallback() {
    if (this.ui) this.watch();
  }

  disconnectedCallback() {
    this.ui?.scrubber.stop();
    this.watcher?.disconnect();
  }

  /** A sentence in place of the whole page. @param {unknown} error a text, or what was thrown */
  say(error) {
    if (typeof error === "string") error = new PageError(error);
    this.ui?.scrubber.stop();
    this.watcher?.disconnect();
    const text = error instanceof PageError ? error.message : "The explorer could not show this picture; reload the page.";
    if (!(error instanceof PageError)) console.error(error);
    this.shadowRoot?.replaceChildren(h("style", {}, STYLE), h("p", { class: "message", role: "alert" }, text));
  }

  /** A line below the panels. @param {string} text */
  tell(text) {
    if (this.ui) this.ui.status.textContent = text;
  }

  /** Takes up a stored choice; words that this prompt does not have are left out. @param {Choice|null|undefined} choice @returns {string[]} these */
  restore(choice) {
    if (!choice) return [];
    const { picks, missing } = found(this.model.page, choice.words);
    this.picks = picks;
    this.settings = { ...DEFAULTS, ...choice.settings };
    return missing;
  }

  /** @param {NonNullable<import("./model.js").Part>} part of a stored choice */
  async restorePart(part) {
    if (!fits(this.model.page, part)) return this.tell(`The stored choice of ${part.axis} does not fit this picture.`);
    this.ui.scrubber.restore(part);
    await this.choosePart(part);
  }

  /** What a host stores. @returns {Choice} */
  choice() {
    return { words: named(this.model.page, this.picks), settings: this.settings, part: this.model.part };
  }

  tellHost() {
    this.dispatchEvent(new CustomEvent("daam-change", { detail: this.choice(), bubbles: true }));
  }

  // -- the document ---------------------------------------------------------------------------------------------

  build() {
    const { model } = this;
    const start = {
      picture: this.data?.picture ?? null, settings: this.settings, masking: this.masking,
      methods: this.data?.refine?.methods ?? [], use: this.data?.use ?? "Save mask as PNG",
    };
    this.ui = layout(model, start, {
      hover: (/** @type {number[]|null} */ members) => this.hover(members),
      toggle: (/** @type {number[]} */ members) => this.toggle(members),
      show: (/** @type {string} */ name) => this.show(name),
      blend: (/** @type {string} */ name) => { this.blend = name; this.draw(); },
      clear: () => this.clear(),
      part: (/** @type {import("./model.js").Part} */ part) => this.choosePart(part).then(() => this.tellHost()),
      stage: {
        pixel: (/** @type {number} */ y, /** @type {number} */ x) => this.rank(rankPixel(model.page, y, x), "under the pointer"),
        leave: () => this.rank(null),
        click: (/** @type {number} */ y, /** @type {number} */ x) => this.clicked(y, x),
        region: (/** @type {import("./upscale.js").Box} */ box, /** @type {Uint8Array|undefined} */ inside) =>
          this.rank(rankBox(model.page, box, inside), "in the region", true),
        moved: () => (this.held = false),
      },
      mask: {
        change: (/** @type {import("./model.js").Settings} */ settings) => this.changeMask(settings),
        show: (/** @type {boolean} */ on) => this.showMask(on),
        use: () => this.useMask(),
        refine: (/** @type {string} */ method) => this.refine(method),
      },
    });
    this.table = heatPixels(this.data?.colourMap ?? "ember");
    this.shadowRoot?.replaceChildren(h("style", {}, STYLE), this.ui.root);
    this.rank(null);
    this.show(this.view);
    this.watch();
    this.fit();
  }

  watch() {
    this.watcher?.disconnect();
    this.watcher = new ResizeObserver(() => this.fit());
    this.watcher.observe(this.ui.view.frame);
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

  /** @param {string} name */
  async show(name) {
    this.view = name;
    const { ui } = this;
    ui.tabs.forEach((/** @type {HTMLElement} */ tab, /** @type {number} */ i) => tab.setAttribute("aria-pressed", String(ui.views[i] === name)));
    const whole = name === VIEWS[0];
    ui.view.frame.hidden = ui.bar.hidden = ui.tool.hidden = !whole;
    ui.sheet.hidden = whole;
    if (name === "Layers" && !(await this.detail("layers"))) return;
    this.fillSheet();
  }

  fillSheet() {
    const { model, ui } = this;
    const picture = this.data?.picture ?? null;
    if (this.view === VIEWS[0]) return ui.sheet.replaceChildren();
    const members = this.picks[this.picks.length - 1] ?? [candidates(model.page)[0]];
    const isKept = (/** @type {number[]} */ m) => this.picks.some((p) => p.join() === m.join());
    const made = this.view === "Words" ? wordSheet(model, picture, this.table, candidates(model.page), (m) => this.toggle(m), isKept)
      : this.view === "Compare" ? pair(model, picture, this.table, this.picks, this.settings.tau)
      : layerSheet(model, picture, this.table, members);
    ui.sheet.replaceChildren(made);
  }

  // -- what a person does ---------------------------------------------------------------------------------------

  /** @param {number[]|null} members */
  hover(members) {
    if ((members ?? []).join() === (this.hovered ?? []).join()) return;
    this.hovered = members;
    this.draw();
  }

  /** @param {number[]} members */
  toggle(members) {
    this.picks = toggled(this.picks, members);
    this.changed();
  }

  /** Drops a region if there is one, and keeps the strongest word of the place. @param {number} y @param {number} x */
  clicked(y, x) {
    const rows = rankPixel(this.model.page, y, x);
    this.held = false;
    this.rank(rows, "under the pointer");
    if (rows[0]?.score > 0) this.toggle([rows[0].index]);
  }

  clear() {
    this.held = false;
    this.picks = [];
    this.hovered = null;
    this.masking = false;
    this.ui.panel.shown(false);
    this.ui.view.forget();
    this.rank(null);
    this.changed();
  }

  changed() {
    this.draw();
    this.fillSheet();
    this.tellHost();
  }

  /** @param {import("./model.js").Settings} settings */
  changeMask(settings) {
    this.settings = settings;
    this.showMask(true);
    if (this.view === "Compare") this.fillSheet();
    this.tellHost();
  }

  /** @param {boolean} on */
  showMask(on) {
    this.masking = on;
    this.ui.panel.shown(on);
    this.draw();
  }

  /** Hands the mask, at the picture's own size, to the host; saves it where nobody takes it. */
  async useMask() {
    const { size } = this.model.page;
    if (this.settings.method) await this.refined(this.settings);
    const mask = this.model.mask(this.picks, this.settings, size);
    const png = await maskBlob(mask, size);
    const detail = { ...this.choice(), size, mask, png };
    if (this.dispatchEvent(new CustomEvent("daam-mask", { detail, bubbles: true, cancelable: true }))) {
      saveBlob(png, `mask_${this.picks.map((p) => this.model.label(p)).join("_")}`);
    }
  }

  /** Switches one of the server's methods on, or off again. @param {string} method */
  async refine(method) {
    const settings = { ...this.settings, method: this.settings.method === method ? "" : method };
    if (settings.method) {
      if (!this.picks.length) return this.tell("Keep a word first.");
      this.server.again();
      if (!(await this.refined(settings))) return;
    }
    this.ui.panel.method(settings.method);
    this.changeMask({ ...this.settings, method: settings.method });
  }

  /** @param {import("./model.js").Settings} settings @returns {Promise<boolean>} whether the server's mask of what is kept is there */
  refined(settings) {
    return this.server.mask(this.picks, settings, this.choice());
  }

  /** A word or level changed while a server's method is on: its mask is asked for when the hand rests. */
  refineLater() {
    clearTimeout(this.later);
    this.later = setTimeout(async () => {
      const { model } = this;
      if (this.settings.method && this.picks.length && (await this.refined(this.settings)) && model === this.model) this.draw();
    }, 200);
  }

  /** @param {import("./model.js").Part} part */
  async choosePart(part) {
    const wanted = (this.wanted = part);
    if (part && !(await this.detail(part.axis))) return;
    if (wanted !== this.wanted) return;
    this.model.part = part;
    if (!this.hovered && !this.picks.length) this.picks = [[candidates(this.model.page)[0]]];
    this.draw();
    if (this.view !== "Layers") this.fillSheet();
  }

  /** Fetches an axis of detail once. @param {"steps"|"layers"} axis @returns {Promise<boolean>} whether it is there */
  async detail(axis) {
    const { model, ui } = this;
    if (model.details.has(axis)) return true;
    try {
      if (!this.data?.detail) throw new PageError(`The ${axis} are not in this page.`);
      const { header, atlas } = await this.data.detail(axis);
      model.details.set(axis, await readDetail(header, atlas));
      return true;
    } catch (error) {
      ui.status.textContent = error instanceof PageError ? error.message : `The ${axis} could not be had: the connection was lost.`;
      return false;
    }
  }

  // -- drawing --------------------------------------------------------------------------------------------------

  draw() {
    const { model, ui, picks, hovered } = this;
    const { overlay } = ui.view;
    const shown = hovered ? [hovered] : picks;
    const masked = this.masking && picks.length > 0 && !hovered;
    const apart = shown.length > 1 && this.blend === "partition";
    if (masked && this.settings.method && !model.refined.has(model.refinedKey(picks, this.settings))) this.refineLater();
    const together = [...new Set(shown.flat())];
    // What is looked at for the first time is drawn smaller, at once, and as fine as the screen when there is time.
    const quick = !masked && !apart && shown.length > 0 && !model.ready(together);
    const size = quick ? model.quickSize : model.heatSize;
    overlay.use(masked ? model.drawn : size);
    if (quick) this.sharpen(together);
    markChips(ui.chips.chips, picks, hovered);
    if (masked) ui.panel.say(`${percent(drawKeptMask(overlay.pixels, model, picks, this.settings))} of the picture`, true);
    else ui.panel.say(picks.length ? "" : "keep a word first", picks.length > 0);
    if (!masked && apart) drawApart(overlay.pixels, model, shown, this.settings.tau);
    if (!masked && !apart && shown.length) drawHeat(overlay.pixels, model.heat(together, size).bytes, this.table);
    if (shown.length) overlay.show();
    else overlay.clear();
    ui.bar.replaceChildren(...legend(model, shown, { apart, masked, map: this.data?.colourMap ?? "ember", colours: shown.map((_, i) => wordColour(i)), size }));
    ui.blending.hidden = picks.length < 2;
  }

  /** @param {import("./ranking.js").Ranked[]|null} rows @param {string} [where] @param {boolean} [hold] a region stays until it is dropped */
  rank(rows, where = "", hold = false) {
    if (this.held && !hold) return;
    this.held = hold;
    this.ui.where.textContent = where;
    this.ui.ranks.replaceChildren(...rankRows(rows));
  }

  /** Heat at the size of the screen, if it is still looked at when there is time. @param {number[]} members */
  sharpen(members) {
    const { model, hovered, picks } = this;
    whenIdle(() => {
      if (this.model !== model || this.hovered !== hovered || this.picks !== picks) return;
      model.heat(members);
      this.draw();
    });
  }

  /** Makes the maps that a hover will want, while nothing else is to be done. */
  prepare() {
    const model = this.model;
    const round = (this.round = (this.round ?? 0) + 1);
    const waiting = [...candidates(model.page), ...model.page.words.keys()].slice(0, 64);
    const next = () => {
      if (this.model !== model || this.round !== round || !waiting.length) return;
      model.heat([/** @type {number} */ (waiting.shift())], model.heatSize, null);
      whenIdle(next);
    };
    whenIdle(next);
  }
}

/** @param {() => void} work */
function whenIdle(work) {
  if (window.requestIdleCallback) window.requestIdleCallback(work, { timeout: 500 });
  else setTimeout(work, 30);
}

/**
 * Puts an explorer into an element.
 * @param {Element} element @param {Data|null} data null where there is nothing to show yet (`load` it later) @returns {DaamExplorer}
 */
export function mount(element, data) {
  if (!customElements.get("daam-explorer")) customElements.define("daam-explorer", DaamExplorer);
  const explorer = /** @type {DaamExplorer} */ (document.createElement("daam-explorer"));
  element.append(explorer);
  if (data) explorer.load(data);
  return explorer;
}
