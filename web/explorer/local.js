/** The page's own words in the language of the host: English texts are the keys. */
import { TEXTS } from "./texts.js";

/** @type {Record<string, string>} */
let known = {};
let language = "en";

/** Chooses the language from here on; English where nobody has said it. @param {string} [tag] such as "zh-CN", "de", "ja_JP" */
export function useLanguage(tag = "") {
  const parts = tag.replace("_", "-").toLowerCase().split("-");
  const texts = /** @type {Record<string, Record<string, string>>} */ (TEXTS);
  language = parts[0] in texts ? parts[0] : "en";
  known = texts[language] ?? {};
}

/**
 * A text in the chosen language. Words of a prompt are never looked up: they are values.
 * @param {string} english @param {...(string|number)} values put in for {0}, {1}, …
 */
export function local(english, ...values) {
  return (known[english] ?? english).replace(/\{(\d)\}/g, (_, i) => String(values[Number(i)]));
}

/** Words of a prompt in quotes, one after the other, as the language says it. @param {string[]} words */
export function listed(words) {
  return new Intl.ListFormat(language).format(words.map((word) => local("“{0}”", word)));
}
