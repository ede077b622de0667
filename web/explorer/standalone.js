/** The page that holds its own data: an explorer from what is written inside the file. */
import { mount } from "./explorer.js";
import { fromBase64 } from "./png.js";

/** @param {Document} page */
export function start(page) {
  const parts = JSON.parse(page.getElementById("daam-data")?.textContent ?? "null");
  const detail = async (/** @type {string} */ axis) => {
    const { header, atlas } = parts.details[axis];
    return { header, atlas: fromBase64(atlas) };
  };
  mount(page.body, { header: parts.header, atlas: fromBase64(parts.atlas), picture: parts.picture, detail });
}
