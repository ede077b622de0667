/** Masks that a host's server makes, because a page cannot: each is asked for once and kept in the model. */
import { decodeGreyPng } from "./png.js";
import { local } from "./local.js";

/** Masks that are kept, each a byte a pixel of the picture; the one that was not asked for the longest goes first. */
const MOST_MASKS = 16;

/**
 * @param {import("./model.js").Model} model
 * @param {{methods: string[], run: (request: any) => Promise<string|{mask: Uint8Array}|void>}|undefined} refine the host's
 * @param {(text: string) => void} tell shows a sentence
 */
export function refiner(model, refine, tell) {
  /** @type {Map<string, Promise<boolean>>} */
  const asked = new Map();

  const ask = async (/** @type {string} */ key, /** @type {any} */ request) => {
    tell(local("Asking the server…"));
    try {
      const answer = await refine?.run(request);
      tell(typeof answer === "string" ? answer : "");
      if (!answer || typeof answer === "string") return false;
      const { width, height, pixels } = await decodeGreyPng(answer.mask);
      const [h, w] = model.page.size;
      if (height !== h || width !== w) throw new Error(local("its mask has {0} x {1} pixels, the picture {2} x {3}", width, height, w, h));
      model.refined.set(key, pixels.map((value) => (value > 127 ? 1 : 0)));
      const [oldest] = model.refined.keys();
      if (model.refined.size > MOST_MASKS) {
        model.refined.delete(oldest);
        asked.delete(oldest);
      }
      return true;
    } catch (error) {
      tell(local("The server did not do it: {0}", /** @type {Error} */ (error).message));
      return false;
    }
  };

  return {
    /**
     * Whether the mask is there, at the latest when the server has answered.
     * @param {number[][]} picks @param {import("./model.js").Settings} settings with a method
     * @param {object} choice what the host is told @returns {Promise<boolean>}
     */
    mask(picks, settings, choice) {
      const key = model.refinedKey(picks, settings);
      const known = model.refined.get(key);
      if (known && model.refined.delete(key)) model.refined.set(key, known);
      const answer = asked.get(key) ?? ask(key, { ...choice, settings, method: settings.method });
      asked.set(key, answer);
      return answer;
    },
    /** What failed may be asked for again. */
    again() {
      for (const key of asked.keys()) if (!model.refined.has(key)) asked.delete(key);
    },
  };
}
