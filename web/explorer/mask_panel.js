/** The controls of a mask: level, competition, clean-up, and what the host does with it. */
import { h } from "./dom.js";

/**
 * @typedef {import("./model.js").Settings} Settings
 * @param {Settings} settings what it starts with
 * @param {{methods: string[], use: string, shown: boolean}} host
 * @param {{change: (settings: Settings) => void, show: (on: boolean) => void, use: () => void, refine: (method: string) => void}} on
 */
export function maskPanel(settings, host, on) {
  let now = { ...settings };
  const set = (/** @type {Partial<Settings>} */ part) => {
    now = { ...now, ...part };
    greyed();
    on.change(now);
  };
  const slider = (/** @type {keyof Settings} */ name, /** @type {string} */ text, /** @type {number[]} */ [min, max, step], unit = "") => {
    const value = h("output", {}, `${now[name]}${unit}`);
    const input = h("input", {
      type: "range", min, max, step, value: String(now[name]), name,
      oninput: (/** @type {any} */ event) => {
        value.textContent = `${event.target.value}${unit}`;
        set({ [name]: Number(event.target.value) });
      },
    });
    return h("label", { class: "slider" }, h("span", {}, text), input, value);
  };
  const check = (/** @type {keyof Settings} */ name, /** @type {string} */ text, /** @type {string} */ title) =>
    h("label", { class: "check", title },
      h("input", { type: "checkbox", name, checked: now[name], onchange: (/** @type {any} */ e) => set({ [name]: e.target.checked }) }), text);
  const area = h("output", { class: "area", "aria-live": "polite" }, "");
  const show = h("input", { type: "checkbox", name: "show", checked: host.shown, onchange: (/** @type {any} */ e) => on.show(e.target.checked) });
  const use = h("button", { class: "main", type: "button", onclick: on.use }, host.use);
  const growing = slider("grow", "Grow", [-32, 32, 1], " px");
  const softening = slider("feather", "Feather", [0, 32, 1], " px");
  const greyed = () => {
    for (const label of [growing, softening]) {
      label.querySelector("input").disabled = now.soft;
      label.title = now.soft ? "A soft mask has no edge to move: turn Soft off." : "";
    }
  };
  const refine = host.methods.length
    ? h("div", { class: "row" }, h("span", { class: "hint" }, "On the server:"),
        ...host.methods.map((name) => h("button", { type: "button", onclick: () => on.refine(name) }, name)))
    : h("p", { class: "hint" }, "Refining and snapping to edges are done by the server; this file has none. From a record: ",
        h("code", {}, "daam-lens mask RECORD --word …"));
  greyed();
  const panel = h(
    "section",
    { class: "panel mask", "aria-label": "Mask" },
    h("h2", {}, h("label", { class: "check" }, show, "Mask"), area),
    slider("tau", "Level τ", [0, 1, 0.01]),
    h("div", { class: "row" },
      check("soft", "Soft", "Grey edges around the level instead of a hard step"),
      check("compete", "Compete", "Only where this word is hotter than the prompt's other things"),
      check("invert", "Invert", "Everything but the word")),
    growing,
    softening,
    refine,
    use,
  );
  return {
    panel,
    /** @param {string} text @param {boolean} usable */
    say(text, usable) {
      area.textContent = text;
      use.disabled = !usable;
    },
    /** @param {boolean} shown */
    shown(shown) {
      show.checked = shown;
    },
  };
}
