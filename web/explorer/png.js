/**
 * Reads the atlas: an 8-bit grey PNG. Not through a canvas, because browsers that guard against fingerprinting add noise
 * to what a canvas gives back, and every bit is a number here.
 */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const LARGEST = 2 ** 28;

/**
 * @param {Uint8Array} bytes the file
 * @returns {Promise<{width: number, height: number, pixels: Uint8Array}>} row by row
 * @throws {Error} for anything but a whole 8-bit grey PNG without interlacing
 */
export async function decodeGreyPng(bytes) {
  if (bytes.length < 33 || SIGNATURE.some((byte, i) => bytes[i] !== byte)) throw new Error("not a PNG file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = view.getUint32(16);
  const height = view.getUint32(20);
  const [depth, colour, , , interlaced] = bytes.subarray(24, 29);
  if (depth !== 8 || colour !== 0 || interlaced !== 0) throw new Error("not an 8-bit grey PNG");
  if (width * height > LARGEST || width * height === 0) throw new Error(`a picture of ${width} x ${height}`);
  const packed = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "IDAT") packed.push(bytes.subarray(at + 8, at + 8 + length));
    if (kind === "IEND") break;
    at += length + 12;
  }
  const filtered = await inflate(new Blob(/** @type {BlobPart[]} */ (packed)));
  if (filtered.length < height * (width + 1)) throw new Error("the file is cut off");
  return { width, height, pixels: unfilter(filtered, width, height) };
}

/** @param {string} text base64 @returns {Uint8Array} */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** @param {Blob} packed zlib data @returns {Promise<Uint8Array>} */
async function inflate(packed) {
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Undoes PNG's row filters (one byte a pixel).
 * @param {Uint8Array} filtered each row with its filter's number before it
 * @param {number} width
 * @param {number} height
 */
function unfilter(filtered, width, height) {
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const from = y * (width + 1);
    const filter = filtered[from];
    const row = y * width;
    for (let x = 0; x < width; x++) {
      const left = x ? out[row + x - 1] : 0;
      const above = y ? out[row + x - width] : 0;
      const corner = x && y ? out[row + x - width - 1] : 0;
      out[row + x] = filtered[from + 1 + x] + predicted(filter, left, above, corner);
    }
  }
  return out;
}

/** @param {number} filter @param {number} left @param {number} above @param {number} corner */
function predicted(filter, left, above, corner) {
  if (filter === 0) return 0;
  if (filter === 1) return left;
  if (filter === 2) return above;
  if (filter === 3) return (left + above) >> 1;
  const sum = left + above - corner;
  const [a, b, c] = [Math.abs(sum - left), Math.abs(sum - above), Math.abs(sum - corner)];
  return a <= b && a <= c ? left : b <= c ? above : corner;
}
