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
  const element = /** @type {HTMLCanvasElement} */ (h("canvas", { class: name }));
  const context = /** @type {CanvasRenderingContext2D} */ (element.getContext("2d"));
  /** @type {ImageData} */
  let image;
  const made = {
    element,
    pixels: new Uint32Array(),
    /** Another size; what was drawn is gone where it differs. @param {[number, number]} to (height, width) */
    use([height, width]) {
      if (image?.width === width && image.height === height) return;
      [element.width, element.height] = [width, height];
      image = context.createImageData(width, height);
      made.pixels = new Uint32Array(image.data.buffer);
    },
    show: () => context.putImageData(image, 0, 0),
    clear: () => context.clearRect(0, 0, element.width, element.height),
  };
  made.use(size);
  return made;
}

/** @param {number} share */
export function percent(share) {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
