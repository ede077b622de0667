/** The picture with what is drawn over it, and the pointer on it: pixel, rectangle, lasso. */
import { canvas, h } from "./dom.js";
import { boxBetween, lassoRegion } from "./ranking.js";

const CLICK = 4;

/**
 * @param {import("./model.js").Model} model
 * @param {string|null} picture address of the picture; plain grey without one
 * @param {string[]} film addresses of a video's frames, where it is one
 * @param {{pixel: (y: number, x: number) => void, leave: () => void, click: (y: number, x: number) => void,
 *   region: (box: import("./upscale.js").Box, inside?: Uint8Array) => void, moved: () => void}} on
 */
export function stage(model, picture, film, on) {
  const [height, width] = model.page.size;
  const overlay = canvas(model.drawn, "overlay");
  const marks = /** @type {SVGSVGElement} */ (document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
  marks.setAttribute("class", "marks");
  marks.setAttribute("aria-hidden", "true");
  const outline = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
  marks.append(outline);
  const image = picture ? h("img", { src: picture, alt: model.page.header.prompt, draggable: "false" }) : h("div", { class: "blank" });
  // All of them stand there at once: a picture whose address changes would flicker.
  const frames = film.map((src) => h("img", { src, alt: "", draggable: "false", hidden: "" }));
  /** @type {{start: [number, number], points: [number, number][], id: number, moved: boolean}|null} */
  let drag = null;
  let tool = "box";

  const place = (/** @type {PointerEvent} */ event) => {
    const box = frame.getBoundingClientRect();
    return /** @type {[number, number]} */ ([
      Math.min(Math.max(((event.clientX - box.left) / box.width) * width, 0), width - 1e-3),
      Math.min(Math.max(((event.clientY - box.top) / box.height) * height, 0), height - 1e-3),
    ]);
  };
  const corners = (/** @type {[number, number]} */ a, /** @type {[number, number]} */ b) => [a, [b[0], a[1]], b, [a[0], b[1]]];
  const draw = (/** @type {number[][]} */ points) => outline.setAttribute("points", points.map((p) => p.join()).join(" "));

  const frame = h(
    "div",
    {
      class: "frame",
      style: `aspect-ratio:${width}/${height};--ratio:${width / height}`,
      onpointerdown: (/** @type {PointerEvent} */ event) => {
        if (event.button) return;
        const at = place(event);
        drag = { start: at, points: [at], id: event.pointerId, moved: false };
        frame.setPointerCapture(event.pointerId);
      },
      onpointermove: (/** @type {PointerEvent} */ event) => {
        const at = place(event);
        if (!drag) return on.pixel(Math.floor(at[1]), Math.floor(at[0]));
        drag.points.push(at);
        const scale = frame.clientWidth / width;
        drag.moved ||= Math.hypot(at[0] - drag.start[0], at[1] - drag.start[1]) * scale > CLICK;
        if (drag.moved) draw(tool === "box" ? corners(drag.start, at) : drag.points);
        on.moved();
      },
      onpointerup: (/** @type {PointerEvent} */ event) => {
        const at = place(event);
        const done = drag;
        drag = null;
        if (!done) return;
        if (!done.moved) {
          draw([]);
          return on.click(Math.floor(at[1]), Math.floor(at[0]));
        }
        if (tool === "box") return on.region(boxBetween(done.start, at, model.page.size));
        const found = lassoRegion(done.points, model.page.size);
        if (found) on.region(found.box, found.inside);
      },
      onpointercancel: () => (drag = null),
      onpointerleave: () => !drag && on.leave(),
    },
    image,
    ...frames,
    overlay.element,
    marks,
  );
  return {
    frame,
    overlay,
    /** @param {string} name "box" or "lasso" */
    useTool: (name) => (tool = name),
    forget: () => draw([]),
    /** Puts a frame of a video in front; null is the picture itself. @param {number|null} number */
    showFrame: (number) => frames.forEach((frame, i) => (frame.hidden = i !== number)),
  };
}
