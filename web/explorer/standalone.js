/** The page that holds its own data: an explorer from what is written inside the file. */
import { mount } from "./explorer.js";

/** @param {string} text base64 @returns {Uint8Array} */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** @param {Document} page */
export function start(page) {
  const parts = JSON.parse(page.getElementById("daam-data")?.textContent ?? "null");
  const detail = async (/** @type {string} */ axis) => {
    const { header, atlas } = parts.details[axis];
    return { header, atlas: fromBase64(atlas) };
  };
  mount(page.body, { header: parts.header, atlas: fromBase64(parts.atlas), picture: parts.picture, detail });
}
