/** The page's own words in the language of the host: English texts are the keys. */
import { TEXTS } from "./texts.js";

/** @type {Record<string, string>} */
let known = {};

/** Chooses the language from here on; English where nobody has said it. @param {string} [tag] such as "zh-CN", "de", "ja_JP" */
export function useLanguage(tag = "") {
  const parts = tag.replace("_", "-").toLowerCase().split("-");
  known = /** @type {Record<string, Record<string, string>>} */ (TEXTS)[parts[0]] ?? {};
}

/**
 * A text in the chosen language. Words of a prompt are never looked up: they are values.
 * @param {string} english @param {...(string|number)} values put in for {0}, {1}, …
 */
export function local(english, ...values) {
  return (known[english] ?? english).replace(/\{(\d)\}/g, (_, i) => String(values[Number(i)]));
}
