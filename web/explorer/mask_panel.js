/** The controls of a mask: level, competition, clean-up, and what the host does with it. */
import { h } from "./dom.js";
import { local } from "./local.js";

/** What the core's methods do, for those who point at a button. @type {Record<string, string>} */
const METHOD_TITLES = {
  best: "Told apart by heat and by the picture's edges", otsu: "A level found by itself",
  walk: "One step along the picture's attention to itself, then competition", guided: "Competition, snapped to the picture's edges",
  grabcut: "Competition, then cut out along the picture's colours",
};

/** A word or the name of a file as a shell reads it. @param {string} text */
const inShell = (text) => (/^[\p{L}\p{N}…._/-]+$/u.test(text) ? text : `"${text.replace(/["\\$`]/g, "\\$&")}"`);

/**
 * @typedef {import("./model.js").Settings} Settings
 * @param {Settings} settings what it starts with
 * @param {{methods: string[], use: string, shown: boolean, record: string|null}} host `record`: the name of the record's file
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
    h("label", { class: "check", title, "data-title": title },
      h("input", { type: "checkbox", name, checked: now[name], onchange: (/** @type {any} */ e) => set({ [name]: e.target.checked }) }), text);
  const area = h("output", { class: "area", "aria-live": "polite" }, "");
  const show = h("input", { type: "checkbox", name: "show", checked: host.shown, onchange: (/** @type {any} */ e) => on.show(e.target.checked) });
  const why = h("p", { class: "hint why" });
  const use = h("button", { class: "main", type: "button", onclick: on.use }, host.use);
  const growing = slider("grow", local("Grow"), [-32, 32, 1], " px");
  const softening = slider("feather", local("Feather"), [0, 32, 1], " px");
  const level = slider("tau", local("Level τ"), [0, 1, 0.01]);
  const softly = check("soft", local("Soft"), local("Grey edges around the level instead of a hard step"));
  const competing = check("compete", local("Compete"), local("Only where this word is hotter than the prompt's other things"));
  const methods = host.methods.map((name) =>
    h("button", { type: "button", "data-method": name, "aria-pressed": "false", title: METHOD_TITLES[name] && local(METHOD_TITLES[name]), onclick: () => on.refine(name) }, name));
  const off = (/** @type {any} */ label, /** @type {boolean} */ unused, /** @type {string} */ why) => {
    label.querySelector("input").disabled = unused;
    label.title = unused ? why : label.dataset.title ?? "";
  };
  const greyed = () => {
    const levels = !["best", "otsu"].includes(now.method);
    off(level, !levels, local("“{0}” finds the level by itself.", now.method));
    for (const label of [softly, competing]) off(label, now.method !== "", local("“{0}” decides that.", now.method));
    const soft = now.soft && !now.method;
    for (const label of [growing, softening]) off(label, soft, local("A soft mask has no edge to move: turn Soft off."));
    for (const button of methods) button.setAttribute("aria-pressed", String(button.dataset.method === now.method));
  };
  const refine = host.methods.length
    ? h("div", { class: "row methods" }, h("span", { class: "hint" }, local("On the server:")), h("span", { class: "group" }, ...methods))
    : null;
  const command = h("code", {}, "");
  const typed = host.record && !host.methods.length
    ? h("p", { class: "hint typed" }, local("For a mask that follows the picture's edges, type this in the folder of the record:"), " ", command)
    : null;
  greyed();
  const panel = h(
    "section",
    { class: "panel mask", "aria-label": local("Mask") },
    h("h2", {}, h("label", { class: "check" }, show, local("Mask")), area),
    level,
    h("div", { class: "row" }, softly, competing, check("invert", local("Invert"), local("Everything but the word"))),
    h("details", { class: "hint", "aria-label": local("What Level, Soft and Compete do") }, h("summary", {}, local("What these do")),
      h("p", {}, h("b", {}, local("Level")), " ", local("keeps the places where the word has at least this part of its peak: 0.4 is the paper's.")),
      h("p", {}, h("b", {}, local("Soft")), " ", local("fades out around the level: grey edges instead of a hard step.")),
      h("p", {}, h("b", {}, local("Compete")), " ", local("takes only the places where this word is hotter than the prompt's other things.")),
      ...host.methods.filter((name) => METHOD_TITLES[name]).map((name) => h("p", {}, h("b", {}, name), ": ", local(METHOD_TITLES[name])))),
    growing,
    softening,
    ...[refine ?? typed].filter((part) => part !== null),
    use,
    why,
  );
  return {
    panel,
    /** @param {string} text @param {boolean} usable */
    say(text, usable) {
      area.textContent = text;
      use.disabled = !usable;
      why.textContent = usable ? "" : local("“{0}” is off: {1}.", host.use, text);
    },
    /** @param {string[]} words those that are chosen */
    command(words) {
      const asked = (words.length ? words : ["…"]).map((word) => (word.startsWith("-") ? `--word=${inShell(word)}` : `--word ${inShell(word)}`));
      const file = String(host.record);
      command.textContent = `daam-lens mask ${inShell(file.startsWith("-") ? `./${file}` : file)} ${asked.join(" ")}`;
    },
    /** @param {string} method "" for none */
    method(method) {
      now = { ...now, method };
      greyed();
    },
    /** @param {boolean} shown */
    shown(shown) {
      show.checked = shown;
    },
  };
}
