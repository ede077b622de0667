/** Making elements. Text is always text: nothing here takes HTML. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] `class`, `on…` handlers, `aria-…`, other attributes; false and null leave out
 * @param {...(Node|string|null|false|undefined)} children
 * @returns {any} the element
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") /** @type {HTMLInputElement} */ (element).value = value;
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== undefined).map(asNode));
  return element;
}

/** @param {any} child */
function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/** A canvas with its buffer of pixels. @param {[number, number]} size (height, width) @param {string} [name] */
export function canvas(size, name = "") {
  const element = /** @type {HTMLCanvasElement} */ (h("canvas", { class: name, width: size[1], height: size[0] }));
  const context = /** @type {CanvasRenderingContext2D} */ (element.getContext("2d"));
  const image = context.createImageData(size[1], size[0]);
  const pixels = new Uint32Array(image.data.buffer);
  return { element, pixels, show: () => context.putImageData(image, 0, 0), clear: () => context.clearRect(0, 0, size[1], size[0]) };
}

/** @param {number} share */
export function percent(share) {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
