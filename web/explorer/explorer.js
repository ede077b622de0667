/** The element that owns the document: data in through `load`, choices out through events. Knows no host. */
import { fits, found, named } from "./choice.js";
import { readDetail } from "./detail.js";
import { h } from "./dom.js";
import { layout, VIEWS } from "./layout.js";
import { DEFAULTS, Model, toggled } from "./model.js";
import { PageError, readPage } from "./page_data.js";
import { candidates, rankBox, rankPixel } from "./ranking.js";
import { refiner } from "./refining.js";
import { maskBlob, saveBlob } from "./saving.js";
import { Screen } from "./screen.js";
import { turnTo } from "./sources.js";
import { STYLE } from "./style.js";
import { local } from "./local.js";

/**
 * @typedef {{header: any, atlas: Uint8Array, picture?: string|null, film?: string[], colourMap?: string, use?: string,
 *   choice?: Choice|null,
 *   detail?: (axis: "steps"|"layers"|"frames") => Promise<{header: any, atlas: Uint8Array}>,
 *   refine?: {methods: string[], run: (request: object) => Promise<string|{mask: Uint8Array}|void>}, record?: string|null}} Data
 * @typedef {import("./choice.js").Choice} Choice
 * `film` are the addresses of a video's frames, one for each of its maps; `detail` gives a further atlas when it is asked for;
 * `refine.run` does on the host's server what a page cannot: it answers
 * with the words' mask before clean-up (an 8-bit grey PNG of the picture's size), or with a sentence to show; `use` is the
 * text of the button; `choice` is what an earlier `daam-change` told; `record` is the name of the file with these maps.
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
    this.extras = false;
    this.view = VIEWS[0];
    /** @type {any} */ this.ui = null;
    /** @type {Screen|null} */ this.screen = null;
    /** @type {any} */ this.server = null;
    /** What `choice` gives until the picture is there. @type {Choice|null} */ this.stored = null;
    /** Whether its mask is shown then. */ this.storedMasking = false;
    this.generation = (this.generation ?? 0) + 1;
  }

  /** Shows one picture; what is wrong with its data becomes a sentence. @param {Data} data @returns {Promise<void>} */
  async load(data) {
    this.screen?.rest();
    // A page that opens with a stored choice shows the mask that was stored; later pictures keep what is shown, also
    // where the one before is still being read.
    const masking = this.model ? this.masking : this.stored ? this.storedMasking : data.choice != null;
    this.empty();
    this.stored = data.choice ?? null;
    this.storedMasking = masking;
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
      if (left.length) this.tell(local("Not in this prompt: {0}.", left.join(", ")));
      this.screen?.draw();
      this.screen?.prepare();
      if (data.choice?.part) await this.restorePart(data.choice.part);
    } catch (error) {
      if (mine === this.generation) this.say(error);
    }
  }

  /** A host may move the element about in its page. */
  connectedCallback() {
    this.screen?.watch();
  }

  disconnectedCallback() {
    this.screen?.rest();
  }

  /** A sentence in place of the whole page. @param {unknown} error a text, or what was thrown */
  say(error) {
    if (typeof error === "string") error = new PageError(error);
    this.screen?.rest();
    const text = error instanceof PageError ? error.message : local("The explorer could not show this picture; reload the page.");
    if (!(error instanceof PageError)) console.error(error);
    this.shadowRoot?.replaceChildren(h("style", {}, STYLE), h("p", { class: "message", role: "alert" }, text));
  }

  /** A line below the panels. @param {string} text */
  tell(text) {
    this.screen?.tell(text);
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
    if (!fits(this.model.page, part)) return this.tell(local("The stored choice does not fit this picture: {0}.", local(part.axis)));
    this.ui.scrubber.restore(part);
    await this.choosePart(part);
  }

  /** What a host stores; while a picture is being read, or cannot be, what it came with. @returns {Choice|null} */
  choice() {
    if (!this.model) return this.stored;
    return { words: named(this.model.page, this.picks), settings: this.settings, part: this.model.part };
  }

  tellHost() {
    this.dispatchEvent(new CustomEvent("daam-change", { detail: this.choice(), bubbles: true }));
  }

  // -- the document ---------------------------------------------------------------------------------------------

  build() {
    const { model } = this;
    const start = {
      picture: this.data?.picture ?? null, film: this.data?.film ?? [], settings: this.settings, masking: this.masking,
      methods: this.data?.refine?.methods ?? [], record: this.data?.record ?? null, use: this.data?.use ?? local("Save mask as PNG"),
    };
    this.ui = layout(model, start, {
      hover: (/** @type {number[]|null} */ members) => this.hover(members),
      toggle: (/** @type {number[]} */ members) => this.toggle(members),
      show: (/** @type {string} */ name) => this.show(name),
      blend: (/** @type {string} */ name) => { this.blend = name; this.screen?.draw(); },
      extras: (/** @type {boolean} */ on) => { this.extras = on; this.screen?.fillSheet(); },
      look: (/** @type {boolean} */ on) => this.look(on),
      read: (/** @type {string} */ encoder) => this.read(encoder),
      clear: () => this.clear(),
      part: (/** @type {import("./model.js").Part} */ part) => this.choosePart(part).then(() => this.tellHost()),
      stage: {
        pixel: (/** @type {number} */ y, /** @type {number} */ x) => this.screen?.rank(rankPixel(model.source, y, x), local("under the pointer")),
        leave: () => this.screen?.rank(null),
        click: (/** @type {number} */ y, /** @type {number} */ x) => this.clicked(y, x),
        region: (/** @type {import("./upscale.js").Box} */ box, /** @type {Uint8Array|undefined} */ inside) =>
          this.screen?.rank(rankBox(model.source, box, inside), local("in the region"), true),
        moved: () => this.screen?.drop(),
      },
      mask: {
        change: (/** @type {import("./model.js").Settings} */ settings) => this.changeMask(settings),
        show: (/** @type {boolean} */ on) => this.showMask(on),
        use: () => this.useMask(),
        refine: (/** @type {string} */ method) => this.refine(method),
      },
    });
    this.shadowRoot?.replaceChildren(h("style", {}, STYLE), this.ui.root);
    this.screen = new Screen(model, this.ui, this, this.data ?? {}, {
      toggle: (members) => this.toggle(members),
      refine: () => this.refineLater(),
    });
    this.screen.rank(null);
    this.show(this.view);
  }

  /** @param {string} name */
  async show(name) {
    this.view = name;
    this.screen?.turn(name);
    if (name === "Layers") turnTo(this, false, "");
    if (name === "Layers" && !(await this.detail("layers"))) return;
    this.screen?.fillSheet();
  }

  /** Shows where words look, or which places look at them. @param {boolean} on */
  look(on) {
    turnTo(this, on, on ? "" : this.model.encoder);
  }

  /** Shows the tokens that one text encoder read. @param {string} encoder "" for those of all */
  read(encoder) {
    turnTo(this, false, encoder);
  }

  // -- what a person does ---------------------------------------------------------------------------------------

  /** @param {number[]|null} members */
  hover(members) {
    if ((members ?? []).join() === (this.hovered ?? []).join()) return;
    this.hovered = members;
    this.screen?.draw();
  }

  /** @param {number[]} members */
  toggle(members) {
    this.picks = toggled(this.picks, members);
    this.changed();
  }

  /** Drops a region if there is one, and keeps the strongest word of the place. @param {number} y @param {number} x */
  clicked(y, x) {
    const rows = rankPixel(this.model.source, y, x);
    this.screen?.drop();
    this.screen?.rank(rows, local("under the pointer"));
    if (rows[0]?.score > 0) this.toggle([rows[0].index]);
  }

  clear() {
    this.screen?.drop();
    this.picks = [];
    this.hovered = null;
    this.masking = false;
    this.ui.panel.shown(false);
    this.ui.view.forget();
    this.screen?.rank(null);
    this.changed();
  }

  changed() {
    this.screen?.draw();
    this.screen?.fillSheet();
    this.tellHost();
  }

  /** @param {import("./model.js").Settings} settings */
  changeMask(settings) {
    this.settings = settings;
    this.showMask(true);
    if (this.view === "Compare") this.screen?.fillSheet();
    this.tellHost();
  }

  /** @param {boolean} on */
  showMask(on) {
    this.masking = on;
    this.ui.panel.shown(on);
    this.screen?.draw();
  }

  /** Hands the mask, at the picture's own size, to the host; saves it where nobody takes it. */
  async useMask() {
    const { size } = this.model.page;
    if (this.settings.method) await this.refined(this.settings);
    const mask = this.model.mask(this.picks, this.settings, size);
    const png = await maskBlob(mask, size);
    if (!png) return this.tell(local("This browser cannot make a PNG of this picture's size."));
    const detail = { ...this.choice(), size, mask, png };
    if (this.dispatchEvent(new CustomEvent("daam-mask", { detail, bubbles: true, cancelable: true }))) {
      saveBlob(png, `mask_${this.picks.map((p) => this.model.label(p)).join("_")}`);
    }
  }

  /** Switches one of the server's methods on, or off again. @param {string} method */
  async refine(method) {
    const settings = { ...this.settings, method: this.settings.method === method ? "" : method };
    if (settings.method) {
      if (!this.picks.length) return this.tell(local("Click a word first."));
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
      if (this.settings.method && this.picks.length && (await this.refined(this.settings)) && model === this.model) this.screen?.draw();
    }, 200);
  }

  /** @param {import("./model.js").Part} part */
  async choosePart(part) {
    const wanted = (this.wanted = part);
    if (part && !(await this.detail(part.axis))) return;
    if (wanted !== this.wanted) return;
    if (part) turnTo(this, false, "");
    this.model.part = part;
    this.screen?.showFrame(part?.axis === "frames" ? part.frames[0] : null);
    if (!this.hovered && !this.picks.length) this.picks = [[candidates(this.model.page)[0]]];
    this.screen?.draw();
    if (this.view !== "Layers") this.screen?.fillSheet();
  }

  /** Fetches an axis of detail once. @param {"steps"|"layers"|"frames"} axis @returns {Promise<boolean>} whether it is there */
  async detail(axis) {
    const { model } = this;
    if (model.details.has(axis)) return true;
    try {
      if (!this.data?.detail) throw new PageError(local("Not in this page: {0}.", local(axis)));
      const { header, atlas } = await this.data.detail(axis);
      model.details.set(axis, await readDetail(header, atlas));
      return true;
    } catch (error) {
      this.tell(error instanceof PageError ? error.message : local("The connection was lost before this came: {0}.", local(axis)));
      return false;
    }
  }
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
