/** A mask as a PNG file. */

/** @param {ArrayLike<number>} mask 0..1 @param {[number, number]} size (height, width) @returns {Promise<Blob|null>} null where it is too large for the browser */
export async function maskBlob(mask, size) {
  const surface = document.createElement("canvas");
  [surface.height, surface.width] = size;
  const context = /** @type {CanvasRenderingContext2D} */ (surface.getContext("2d"));
  const image = context.createImageData(size[1], size[0]);
  for (let i = 0; i < mask.length; i++) {
    const grey = Math.round(mask[i] * 255);
    image.data.set([grey, grey, grey, 255], i * 4);
  }
  context.putImageData(image, 0, 0);
  return new Promise((done) => surface.toBlob(done, "image/png"));
}

/** @param {Blob} blob @param {string} name without ending */
export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace(/[^\p{L}\p{N}_-]+/gu, "-").slice(0, 60) || "mask"}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
