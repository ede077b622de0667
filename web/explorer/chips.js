/** The prompt as it was typed, its words as chips. Dragging over chips makes a phrase. */
import { h, percent } from "./dom.js";
import { phrase } from "./model.js";
import { local } from "./local.js";

/**
 * @param {import("./page_data.js").Page} page
 * @param {{hover: (members: number[]|null) => void, toggle: (members: number[]) => void}} on
 */
export function chipBoard(page, on) {
  /** @type {Map<number, HTMLButtonElement>} */
  const chips = new Map();
  // Shares are of one prompt: a negative prompt of one word has all of its own.
  const strongest = (/** @type {string} */ kind) =>
    page.words.reduce((most, word) => (word.kind === kind ? Math.max(most, word.share ?? 0) : most), 1e-9);
  /** @type {{from: number, to: number}|null} */
  let drag = null;

  const chip = (/** @type {number} */ index) => {
    const word = page.words[index];
    const share = word.share;
    const button = h(
      "button",
      {
        class: `chip ${word.kind}${word.content ? "" : " plain"}`,
        type: "button",
        "data-word": index,
        style: `--share:${(((share ?? 0) / strongest(word.kind)) ** 2).toFixed(3)}`,
        "aria-pressed": "false",
        "aria-label": share === null ? (word.kind === "concept" ? word.text : word.label) : local("{0}, {1} of the attention", word.label, percent(share)),
        title: share === null ? word.label : `${word.label}: ${percent(share)}`,
        tabindex: chips.size ? "-1" : "0",
      },
      word.text,
    );
    chips.set(index, button);
    return button;
  };

  const at = (/** @type {any} */ event) => {
    const root = /** @type {any} */ (board.getRootNode());
    const found = root.elementFromPoint?.(event.clientX, event.clientY)?.closest?.("[data-word]");
    return found && board.contains(found) ? Number(found.dataset.word) : null;
  };
  const follow = (/** @type {PointerEvent} */ event) => {
    const index = at(event);
    if (drag && index !== null) drag.to = index;
    on.hover(drag ? phrase(page.words, drag.from, drag.to) : index === null ? null : [index]);
  };
  const board = h("div", {
    class: "prompt",
    role: "group",
    "aria-label": local("Words of the prompt"),
    onpointerdown: (/** @type {PointerEvent} */ event) => {
      const index = event.button ? null : at(event);
      if (index === null) return;
      drag = { from: index, to: index };
      if (event.pointerType === "mouse") board.setPointerCapture(event.pointerId);
    },
    onpointermove: (/** @type {PointerEvent} */ event) => follow(event),
    // The words may move under a hand that rests: a scrolled prompt, a zoomed canvas.
    onpointerover: (/** @type {PointerEvent} */ event) => follow(event),

    onpointerup: (/** @type {PointerEvent} */ event) => {
      if (!drag) return;
      const members = phrase(page.words, drag.from, drag.to);
      drag = null;
      chips.get(members[0])?.focus({ preventScroll: true });
      if (at(event) !== null) on.toggle(members);
    },
    onpointercancel: () => (drag = null),
    onpointerleave: () => !drag && on.hover(null),
    onkeydown: (/** @type {KeyboardEvent} */ event) => walk(event),
    onfocusin: (/** @type {any} */ event) => {
      if (!event.target.dataset.word) return;
      // One stop for the Tab key: the word that had the focus last.
      for (const button of chips.values()) button.tabIndex = button === event.target ? 0 : -1;
      on.hover([Number(event.target.dataset.word)]);
    },
    onfocusout: (/** @type {any} */ event) => {
      if (!board.contains(event.relatedTarget)) anchor = null;
      on.hover(null);
    },
  });

  /** Where a phrase began that Shift and the arrow keys make. @type {number|null} */
  let anchor = null;
  const walk = (/** @type {KeyboardEvent} */ event) => {
    const visible = [...chips].filter(([, button]) => button.offsetParent !== null);
    const here = visible.findIndex(([, button]) => button === event.target);
    if (here < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      on.toggle(anchor === null ? [visible[here][0]] : phrase(page.words, anchor, visible[here][0]));
      anchor = null;
      return;
    }
    const right = getComputedStyle(/** @type {HTMLElement} */ (visible[here][1].parentElement)).direction === "rtl" ? -1 : 1;
    const moves = /** @type {Record<string, number>} */ ({ ArrowRight: here + right, ArrowDown: here + 1, ArrowLeft: here - right,
      ArrowUp: here - 1, Home: 0, End: visible.length - 1 });
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [index, next] = visible[(moves[event.key] + visible.length) % visible.length];
    anchor = event.shiftKey ? anchor ?? visible[here][0] : null;
    next.focus();
    if (anchor !== null) on.hover(phrase(page.words, anchor, index));
  };

  board.append(...lines(page, chip));
  return { board, chips };
}

/** The typed prompt, then what stands behind the switch: the negative prompt, start, end and padding. */
function lines(/** @type {import("./page_data.js").Page} */ page, /** @type {(index: number) => HTMLElement} */ chip) {
  const of = (/** @type {string} */ kind) => page.words.map((w, i) => i).filter((i) => page.words[i].kind === kind);
  // A prompt in Hebrew or Arabic stands as it was typed, from the right.
  const found = [h("p", { class: "line", dir: "auto" }, ...typed(page, page.header.prompt, of("word"), chip))];
  const concepts = of("concept");
  if (concepts.length) found.push(h("p", { class: "line" }, h("span", { class: "tag" }, local("Not in the prompt")), ...concepts.map(chip)));
  const negative = of("negative");
  if (negative.length) {
    found.push(h("p", { class: "line extra" }, h("span", { class: "tag" }, local("Negative prompt")), h("bdi", {}, ...typed(page, page.header.negative, negative, chip))));
  }
  const special = of("special");
  if (special.length) found.push(h("p", { class: "line extra" }, h("span", { class: "tag" }, local("Start, end, padding")), ...special.map(chip)));
  return found;
}

/** Chips with the text between them. */
function typed(
  /** @type {import("./page_data.js").Page} */ page, /** @type {string} */ text, /** @type {number[]} */ words,
  /** @type {(index: number) => HTMLElement} */ chip,
) {
  /** @type {(Node|string)[]} */
  const parts = [];
  let end = 0;
  for (const index of words) {
    const place = page.words[index].at;
    if (place) {
      parts.push(text.slice(end, place[0]));
      end = place[1];
    } else parts.push(" ");
    parts.push(chip(index));
  }
  const rest = text.slice(end);
  if (rest) parts.push(page.header.truncated.length ? h("s", { title: local("The text encoder did not read this.") }, rest) : rest);
  return parts;
}
