/** The page that holds its own data: an explorer from what is written inside the file; a server may stand behind it. */
import { mount } from "./explorer.js";
import { local, useLanguage } from "./local.js";
import { fromBase64 } from "./png.js";

/** @param {Document} page */
export function start(page) {
  useLanguage(page.defaultView?.navigator.language);
  const parts = JSON.parse(page.getElementById("daam-data")?.textContent ?? "null");
  const detail = async (/** @type {string} */ axis) => {
    const { header, atlas } = parts.details[axis];
    return { header, atlas: fromBase64(atlas) };
  };
  const refine = parts.server && { methods: parts.server.methods, run: (/** @type {object} */ asked) => maskFrom(parts.server.masks, asked) };
  const explorer = mount(page.body, { header: parts.header, atlas: fromBase64(parts.atlas), picture: parts.picture, film: parts.film, detail, refine, record: parts.record });
  if (!parts.server) return;
  page.body.style.height = "100vh"; // it stands in a frame of the server's page
  explorer.setAttribute("fit", "");
}

/** @param {string} address @param {object} asked @returns {Promise<{mask: Uint8Array}>} @throws {Error} a sentence */
async function maskFrom(address, asked) {
  let answer;
  try {
    answer = await fetch(address, { method: "POST", body: JSON.stringify(asked) });
  } catch {
    throw new Error(local("the connection was lost; is it still running?"));
  }
  if (answer.ok) return { mask: new Uint8Array(await answer.arrayBuffer()) };
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? local("it answered with {0}", answer.status));
}
