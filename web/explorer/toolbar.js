/** The row of switches between prompt and picture. */
import { h } from "./dom.js";
import { local } from "./local.js";

/**
 * @param {HTMLElement[]} tabs @param {boolean} extras whether there are words besides the prompt's own
 * @param {boolean} looks whether it is known where words look
 * @param {string[]} encoders the text encoders whose tokens can be shown alone
 * @param {{blend: (name: string) => void, tool: (name: string) => void, look: (name: string) => void, read: (name: string) => void, extras: (on: boolean) => void,
 *   clear: () => void}} on
 */
export function toolbar(tabs, extras, looks, encoders, on) {
  const blending = either(local("Several words"), [["partition", local("One each")], ["sum", local("Together")]], on.blend);
  const tool = either(local("Dragging on the picture"), [["box", local("Box")], ["lasso", local("Lasso")]], on.tool);
  const whose = looks ? either(local("Whose attention is shown"), [["picture", local("Picture to word")], ["word", local("Word to picture")]], on.look) : null;
  const names = /** @type {[string, string][]} */ ([["", local("All encoders")], ...encoders.map((name) => [name, name])]);
  const readers = encoders.length ? either(local("Text encoder whose tokens are shown"), names, on.read) : null;
  const more = extras && h("label", { class: "check", title: local("Start, end and padding, the negative prompt; on the sheet of words also “a”, “and” and their like") },
    h("input", { type: "checkbox", name: "extras", onchange: (/** @type {any} */ e) => on.extras(e.target.checked) }),
    local("More words"));
  const bar = h("div", { class: "tools" }, h("span", { class: "group", role: "group", "aria-label": local("View") }, ...tabs), tool,
    whose, readers, blending, more, h("span", { class: "gap" }), h("button", { type: "button", onclick: on.clear }, local("Clear")));
  return { bar, blending, tool, whose, readers };
}

/** Buttons of which one is pressed. */
function either(/** @type {string} */ label, /** @type {[string, string][]} */ names, /** @type {(name: string) => void} */ on) {
  /** @type {HTMLElement[]} */
  const buttons = names.map(([name, text], i) =>
    h("button", {
      type: "button", "data-choice": name, "aria-pressed": String(i === 0),
      onclick: () => {
        buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(k === i)));
        on(name);
      },
    }, text));
  return h("span", { class: "group", role: "group", "aria-label": label }, ...buttons);
}
