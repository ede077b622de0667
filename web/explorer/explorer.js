/** The element that owns the document: data in through `load`, choices out through events. Knows no host. */
import { chipBoard } from "./chips.js";
import { drawHeat, heatPixels } from "./colours.js";
import { readDetail } from "./detail.js";
import { h, percent } from "./dom.js";
import { legend, LISTED, rankRows } from "./legend.js";
import { maskPanel } from "./mask_panel.js";
import { DEFAULTS, Model, toggled } from "./model.js";
import { PageError, readPage } from "./page_data.js";
import { drawApart, drawKeptMask, markChips, wordColour } from "./painting.js";
import { candidates, rankBox, rankPixel } from "./ranking.js";
import { maskBlob, saveBlob } from "./saving.js";
import { scrubber } from "./scrubber.js";
import { layerSheet, pair, wordSheet } from "./sheets.js";
import { stage } from "./stage.js";
import { STYLE } from "./style.js";
import { toolbar } from "./toolbar.js";

const VIEWS = ["Picture", "Words", "Compare", "Layers"];

/**
 * @typedef {{header: any, atlas: Uint8Array, picture?: string|null, colourMap?: string, use?: string,
 *   choice?: {words: string[][], settings: import("./model.js").Settings},
 *   detail?: (axis: "steps"|"layers") => Promise<{header: any, atlas: Uint8Array}>,
 *   refine?: {methods: string[], run: (request: object) => Promise<string|void|Refined>}}} Data
 * @typedef {{masks: Uint8Array[], text: string}} Refined one mask of 0 and 1 of the picture's size for each kept word
 * `detail` gives a further atlas when it is asked for; `refine.run` does on the host's server what a page cannot, and may
 * answer with a sentence to show, or with masks that take the place of the page's own until the level is moved; `use` is
 * the text of the button; `choice` is what an earlier `daam-change` told.
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
    this.generation = (this.generation ?? 0) + 1;
  }

  /** Shows one picture; what is wrong with its data becomes a sentence. @param {Data} data @returns {Promise<void>} */
  async load(data) {
    this.ui?.scrubber.stop();
    this.empty();
    const mine = this.generation;
    try {
      const page = await readPage(data.header, data.atlas);
      if (mine !== this.generation) return;
      this.data = data;
      this.model = new Model(page);
      this.restore(data.choice);
      this.build();
      this.draw();
      this.prepare();
    } catch (error) {
      if (mine === this.generation) this.say(error);
    }
  }

  disconnectedCallback() {
    this.ui?.scrubber.stop();
  }

  /** @param {unknown} error */
  say(error) {
    const text = error instanceof PageError ? error.message : "The explorer could not show this picture; reload the page.";
    if (!(error instanceof PageError)) console.error(error);
    this.shadowRoot?.replaceChildren(h("style", {}, STYLE), h("p", { class: "message", role: "alert" }, text));
  }

  /** Takes up a stored choice; words that this prompt does not have are left out. */
  restore(/** @type {Data["choice"]} */ choice) {
    if (!choice) return;
    const labels = this.model.page.words.map((/** @type {any} */ w) => `${w.kind}:${w.label}`);
    this.picks = choice.words.map((names) => names.map((name) => labels.indexOf(name))).filter((pick) => !pick.includes(-1));
    this.settings = { ...DEFAULTS, ...choice.settings };
  }

  /** What a host stores. */
  choice() {
    const name = (/** @type {number} */ i) => `${this.model.page.words[i].kind}:${this.model.page.words[i].label}`;
    return { words: this.picks.map((pick) => pick.map(name)), settings: this.settings };
  }

  // -- the document ---------------------------------------------------------------------------------------------

  build() {
    const { model } = this;
    const { header } = model.page;
    const chips = chipBoard(model.page, { hover: (m) => this.hover(m), toggle: (m) => this.toggle(m) });
    const picture = this.data?.picture ?? null;
    const view = stage(model, picture, {
      pixel: (y, x) => this.rank(rankPixel(model.page, y, x), "under the pointer"),
      leave: () => this.rank(null),
      click: (y, x) => this.clicked(y, x),
      region: (box, inside) => this.rank(rankBox(model.page, box, inside), "in the region", true),
      moved: () => (this.held = false),
    });
    const refine = this.data?.refine;
    const panel = maskPanel(this.settings, { methods: refine?.methods ?? [], use: this.data?.use ?? "Save mask as PNG", shown: false }, {
      change: (settings) => this.changeMask(settings),
      show: (on) => this.showMask(on),
      use: () => this.useMask(),
      refine: (method) => this.refine(method),
    });
    const scrub = scrubber(header, (part) => this.choosePart(part));
    const ranks = h("ol", { class: "ranks", style: `--rows:${Math.min(LISTED, candidates(model.page).length)}` });
    const where = h("span", {}, "");
    const bar = h("div", { class: "bar" });
    const sheet = h("div", { class: "sheets", style: "width:100%" });
    const status = h("p", { class: "hint", role: "status" });
    const views = VIEWS.filter((name) => name !== "Layers" || header.detail.layers);
    const tabs = views.map((name) => h("button", { type: "button", "aria-pressed": String(name === this.view), onclick: () => this.show(name) }, name));
    const extras = model.page.words.some((/** @type {any} */ w) => w.kind !== "word");
    this.ui = { chips, view, panel, scrubber: scrub, ranks, where, bar, sheet, status, tabs, views };
    const tools = toolbar(tabs, extras, {
      blend: (name) => { this.blend = name; this.draw(); },
      tool: (name) => view.useTool(name),
      extras: (on) => chips.board.classList.toggle("bare", !on),
      clear: () => this.clear(),
    });
    Object.assign(this.ui, { blending: tools.blending, tool: tools.tool });
    this.table = heatPixels(this.data?.colourMap ?? "ember");
    chips.board.classList.add("bare");
    const left = h("div", { class: "left" }, view.frame, bar, sheet, scrub.bar);
    const ranking = h("section", { class: "panel", "aria-label": "Words of a place" }, h("h2", {}, "Words here", where), ranks);
    const notes = header.notes.length ? h("ul", { class: "notes" }, ...header.notes.map((/** @type {string} */ note) => h("li", {}, note))) : null;
    const side = h("div", { class: "side" }, ranking, panel.panel, status, notes);
    this.shadowRoot?.replaceChildren(
      h("style", {}, STYLE),
      h("div", { class: "root", onkeydown: (/** @type {KeyboardEvent} */ e) => e.key === "Escape" && this.clear() },
        chips.board, tools.bar, h("div", { class: "body" }, left, side)),
    );
    this.rank(null);
    this.show(this.view);
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
    this.dispatchEvent(new CustomEvent("daam-change", { detail: this.choice(), bubbles: true }));
  }

  /** @param {import("./model.js").Settings} settings */
  changeMask(settings) {
    const cleaned = ["grow", "feather", "invert"];
    const moved = Object.keys(settings).some((name) => !cleaned.includes(name) && settings[name] !== this.settings[name]);
    if (moved && this.model.given.size) {
      this.model.given.clear();
      this.ui.status.textContent = "";
    }
    this.settings = settings;
    this.showMask(true);
    if (this.view === "Compare") this.fillSheet();
    this.dispatchEvent(new CustomEvent("daam-change", { detail: this.choice(), bubbles: true }));
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
    const mask = this.model.mask(this.picks, this.settings, size);
    const png = await maskBlob(mask, size);
    const detail = { ...this.choice(), size, mask, png };
    if (this.dispatchEvent(new CustomEvent("daam-mask", { detail, bubbles: true, cancelable: true }))) {
      saveBlob(png, `mask_${this.picks.map((p) => this.model.label(p)).join("_")}`);
    }
  }

  /** @param {string} method */
  async refine(method) {
    const { status } = this.ui;
    status.textContent = "Asking the server…";
    try {
      const { model, picks } = this;
      const answer = (await this.data?.refine?.run({ ...this.choice(), method })) ?? "";
      if (typeof answer !== "string") {
        picks.forEach((pick, i) => model.given.set(pick.join(), answer.masks[i]));
        this.showMask(true);
      }
      status.textContent = typeof answer === "string" ? answer : answer.text;
    } catch (error) {
      status.textContent = `The server did not do it: ${/** @type {Error} */ (error).message}`;
    }
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
    markChips(ui.chips.chips, picks, hovered);
    if (masked) ui.panel.say(`${percent(drawKeptMask(overlay.pixels, model, picks, this.settings))} of the picture`, true);
    else ui.panel.say(picks.length ? "" : "keep a word first", picks.length > 0);
    if (!masked && apart) drawApart(overlay.pixels, model, shown, this.settings.tau);
    if (!masked && !apart && shown.length) drawHeat(overlay.pixels, model.heat([...new Set(shown.flat())]).bytes, this.table);
    if (shown.length) overlay.show();
    else overlay.clear();
    ui.bar.replaceChildren(...legend(model, shown, { apart, masked, map: this.data?.colourMap ?? "ember", colours: shown.map((_, i) => wordColour(i)) }));
    ui.blending.hidden = picks.length < 2;
  }

  /** @param {import("./ranking.js").Ranked[]|null} rows @param {string} [where] @param {boolean} [hold] a region stays until it is dropped */
  rank(rows, where = "", hold = false) {
    if (this.held && !hold) return;
    this.held = hold;
    this.ui.where.textContent = where;
    this.ui.ranks.replaceChildren(...rankRows(rows));
  }

  /** Makes the maps that a hover will want, while nothing else is to be done. */
  prepare() {
    const model = this.model;
    const waiting = [...candidates(model.page), ...model.page.words.keys()].slice(0, 64);
    const idle = window.requestIdleCallback ?? ((/** @type {any} */ run) => setTimeout(run, 30));
    const next = () => {
      if (this.model !== model || !waiting.length) return;
      model.heat([/** @type {number} */ (waiting.shift())], model.drawn, null);
      idle(next);
    };
    idle(next);
  }
}

/**
 * Puts an explorer into an element.
 * @param {Element} element @param {Data} data @returns {DaamExplorer}
 */
export function mount(element, data) {
  if (!customElements.get("daam-explorer")) customElements.define("daam-explorer", DaamExplorer);
  const explorer = /** @type {DaamExplorer} */ (document.createElement("daam-explorer"));
  element.append(explorer);
  explorer.load(data);
  return explorer;
}
