/** Time and depth: scrubbers with play for a video's frames and for steps, toggles for layers. */
import { h } from "./dom.js";
import { local } from "./local.js";

const BEAT = 180;

/**
 * @param {any} header the page's
 * @param {(part: import("./model.js").Part) => void} choose
 */
export function scrubber(header, choose) {
  /** @type {any} */
  let playing = null;
  let played = "";
  const rows = [];
  // One axis at a time: choosing on one puts the other back to everything.
  const back = { steps: () => {}, layers: () => {}, frames: () => {} };
  /** @type {Record<"steps"|"layers"|"frames", (frames: number[]) => void>} */
  const restore = { steps: () => {}, layers: () => {}, frames: () => {} };
  if (header.detail.frames) rows.push(playedRow("frames", header.frames));
  if (header.detail.steps) rows.push(playedRow("steps", header.steps));
  if (header.detail.layers) rows.push(layersRow());
  const named = header.detail.frames ? local("Frames, steps and layers") : local("Steps and layers");
  const bar = h("section", { class: "panel time", "aria-label": named }, ...rows);
  bar.hidden = !rows.length;
  return {
    bar,
    stop,
    /** Everything is shown again. */
    reset() {
      stop();
      for (const axis of /** @type {const} */ (["steps", "layers", "frames"])) back[axis]();
    },
    /** Shows a part that was chosen earlier. @param {NonNullable<import("./model.js").Part>} part */
    restore: (part) => restore[part.axis](part.frames),
  };

  function stop() {
    clearInterval(playing);
    playing = null;
    for (const button of bar.querySelectorAll(".play")) button.textContent = "▶";
  }

  function playedRow(/** @type {"steps"|"frames"} */ axis, /** @type {number} */ count) {
    const isFrames = axis === "frames";
    const all = isFrames ? local("all frames") : local("all steps");
    const text = h("output", {}, all);
    const input = h("input", {
      type: "range", min: 0, max: count, step: 1, value: "0", name: isFrames ? "frame" : "step",
      "aria-label": isFrames ? local("Frame, 0 is all together") : local("Step, 0 is all together"),
      oninput: () => {
        stop();
        show(Number(input.value));
      },
    });
    const mark = (/** @type {number} */ value) => {
      input.value = String(value);
      text.textContent = !value ? all : isFrames ? local("frame {0} of {1}", value, count) : local("step {0} of {1}", value, count);
    };
    restore[axis] = ([frame]) => mark(frame + 1);
    const show = (/** @type {number} */ value) => {
      mark(value);
      if (value) for (const other of /** @type {const} */ (["steps", "layers", "frames"])) if (other !== axis) back[other]();
      choose(value ? { axis, frames: [value - 1] } : null);
    };
    back[axis] = () => {
      if (played === axis) stop();
      mark(0);
    };
    const play = h("button", {
      type: "button", "aria-label": isFrames ? local("Play the frames") : local("Play the steps"), class: "play",
      onclick: () => {
        const was = playing && played === axis;
        stop();
        if (was) return;
        played = axis;
        play.textContent = "❚❚";
        playing = setInterval(() => show((Number(input.value) % count) + 1), BEAT);
      },
    }, "▶");
    return h("div", { class: "row wide" }, play, input, text);
  }

  function layersRow() {
    const chosen = new Set(header.layers.map((/** @type {any} */ _, /** @type {number} */ i) => i));
    const buttons = header.layers.map((/** @type {any} */ layer, /** @type {number} */ i) =>
      h("button", {
        type: "button", class: "layer", "data-layer": i, "aria-pressed": "true", title: `${layer.name} (${layer.grid[1]} × ${layer.grid[0]})`,
        "aria-label": local("Layer {0}, {1}, {2} by {3}", i, layer.place, layer.grid[1], layer.grid[0]),
        onclick: () => {
          chosen.has(i) ? chosen.delete(i) : chosen.add(i);
          tell();
        },
      }, `${layer.place[0]}${i}`));
    const only = (/** @type {string|null} */ place) => {
      header.layers.forEach((/** @type {any} */ layer, /** @type {number} */ i) =>
        !place || layer.place === place ? chosen.add(i) : chosen.delete(i));
      tell();
    };
    const mark = () => buttons.forEach((/** @type {any} */ b, /** @type {number} */ i) => b.setAttribute("aria-pressed", String(chosen.has(i))));
    const tell = () => {
      mark();
      back.steps();
      back.frames();
      choose(chosen.size === header.layers.length ? null : { axis: "layers", frames: [...chosen].sort((a, b) => a - b) });
    };
    restore.layers = (frames) => {
      chosen.clear();
      for (const frame of frames) chosen.add(frame);
      mark();
    };
    back.layers = () => {
      header.layers.forEach((/** @type {any} */ _, /** @type {number} */ i) => chosen.add(i));
      mark();
    };
    const sets = ["all", ...new Set(header.layers.map((/** @type {any} */ l) => l.place))].map((name) =>
      h("button", { type: "button", onclick: () => only(name === "all" ? null : name) }, local(name)));
    return h("div", { class: "row layers" }, h("span", { class: "hint" }, local("Layers")), ...sets, h("span", { class: "gap" }), ...buttons);
  }
}
