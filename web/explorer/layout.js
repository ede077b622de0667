/** The explorer's parts and where they stand; what a person does with them is told to `on`. */
import { chipBoard } from "./chips.js";
import { h } from "./dom.js";
import { LISTED } from "./legend.js";
import { maskPanel } from "./mask_panel.js";
import { candidates } from "./ranking.js";
import { scrubber } from "./scrubber.js";
import { stage } from "./stage.js";
import { toolbar } from "./toolbar.js";
import { local } from "./local.js";

export const VIEWS = ["Picture", "Words", "Compare", "Layers", "Relations"];

/**
 * @param {import("./model.js").Model} model
 * @param {{picture: string|null, film: string[], settings: import("./model.js").Settings, methods: string[], record: string|null, use: string, masking: boolean}} start
 * @param {any} on handlers, named as in explorer.js
 */
export function layout(model, start, on) {
  const { header, words } = model.page;
  const chips = chipBoard(model.page, { hover: on.hover, toggle: on.toggle });
  chips.board.classList.add("bare");
  const view = stage(model, start.picture, start.film, on.stage);
  const host = { methods: start.methods, use: start.use, shown: start.masking, record: start.record };
  const panel = maskPanel(start.settings, host, on.mask);
  const scrub = scrubber(header, on.part);
  const ranks = h("ol", { class: "ranks", style: `--rows:${Math.min(LISTED, candidates(model.page).length)}` });
  const where = h("span", {}, "");
  const bar = h("div", { class: "bar" });
  const sheet = h("div", { class: "sheets", style: "width:100%" });
  const status = h("p", { class: "hint", role: "status" });
  const there = /** @type {Record<string, boolean>} */ ({ Layers: header.detail.layers, Relations: Boolean(header.relations?.text_to_text) });
  const views = VIEWS.filter((name) => there[name] ?? true);
  const tabs = views.map((name) => h("button", { type: "button", "aria-pressed": String(name === VIEWS[0]), onclick: () => on.show(name) }, local(name)));
  const tools = toolbar(tabs, words.some((word) => word.kind !== "word" || !word.content), Boolean(model.page.looks), [...model.page.encoders.keys()], {
    blend: on.blend,
    read: on.read,
    look: (name) => on.look(name === "word"),
    tool: (name) => view.useTool(name),
    extras: (shown) => {
      chips.board.classList.toggle("bare", !shown);
      on.extras(shown);
    },
    clear: on.clear,
  });
  const ranking = h("section", { class: "panel", "aria-label": local("Words of a place") }, h("h2", {}, local("Words here"), where), ranks);
  const notes = header.notes.length ? h("ul", { class: "notes" }, ...header.notes.map((/** @type {string} */ note) => h("li", {}, note))) : null;
  const root = h("div", { class: "root", onkeydown: (/** @type {KeyboardEvent} */ e) => e.key === "Escape" && on.clear() },
    chips.board, tools.bar, h("div", { class: "body" },
      h("div", { class: "left" }, view.frame, bar, sheet, scrub.bar), h("div", { class: "side" }, ranking, panel.panel, status, notes)));
  return { root, chips, view, panel, scrubber: scrub, ranks, where, bar, sheet, status, tabs, views, blending: tools.blending, tool: tools.tool, whose: tools.whose, readers: tools.readers };
}
