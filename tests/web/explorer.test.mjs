/**
 * The page's pure functions against values that the core computed (handed over by tests/web/test_functions.py in the
 * folder DAAM_LENS_CASES: cases.json, and float32 or uint8 arrays in files of their own).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { colourTable, drawMask, toBytes, WORD_COLOURS } from "../../web/explorer/colours.js";
import { fits, found, named } from "../../web/explorer/choice.js";
import { readDetail } from "../../web/explorer/detail.js";
import { area, competed, iou, minmax, rivals, soft, threshold, winners } from "../../web/explorer/masks.js";
import { DEFAULTS, enlarged, Model, phrase, resampled, toggled } from "../../web/explorer/model.js";
import { edge, feather, grow, invert } from "../../web/explorer/morphology.js";
import { PageError, readPage } from "../../web/explorer/page_data.js";
import { decodeGreyPng } from "../../web/explorer/png.js";
import { boxBetween, lassoRegion, rankBox, rankPixel } from "../../web/explorer/ranking.js";
import { refiner } from "../../web/explorer/refining.js";
import { upscale, upscaleBytes, valueAt } from "../../web/explorer/upscale.js";

const folder = process.env.DAAM_LENS_CASES;
const cases = JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"));
const bytes = (name) => new Uint8Array(readFileSync(join(folder, name)));
const floats = (name) => new Float32Array(bytes(name).buffer);

const furthest = (a, b) => {
  assert.equal(a.length, b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
};
const differing = (a, b) => {
  assert.equal(a.length, b.length);
  let count = 0;
  for (let i = 0; i < a.length; i++) count += a[i] !== b[i];
  return count;
};
const pageOf = (one) => readPage(one.header, bytes(one.atlas));

for (const [i, one] of cases.upscale.entries()) {
  test(`bicubic ${i} is PyTorch's: ${one.grids.join(" + ")} -> ${one.size}`, () => {
    const levels = one.grids.map(([h, w], k) => ({ h, w, data: floats(one.levels[k]) }));
    const wanted = floats(one.wanted);
    const top = wanted.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    assert.ok(furthest(upscale(levels, one.size), wanted) < 2e-6 * top);
    const [h, w] = one.size;
    const box = { x: Math.floor(w / 3), y: Math.floor(h / 4), w: Math.ceil(w / 2), h: Math.ceil(h / 2) };
    const part = upscale(levels, one.size, box);
    for (let y = 0; y < box.h; y++) {
      const row = wanted.subarray((box.y + y) * w + box.x, (box.y + y) * w + box.x + box.w);
      assert.ok(furthest(part.subarray(y * box.w, (y + 1) * box.w), row) < 2e-6 * top);
    }
    assert.ok(Math.abs(valueAt(levels, one.size, h - 1, 0) - wanted[(h - 1) * w]) < 2e-6 * top);
  });
}

test("heat is drawn from the map between its own extremes, at the size of the screen", async () => {
  for (const one of cases.pages) {
    const model = new Model(await pageOf(one));
    assert.deepEqual(model.heatSize, model.drawn);
    assert.equal(model.fit(1e6), false);
    assert.equal(model.fit(300), true);
    assert.equal(Math.max(...model.heatSize), 320);
    assert.ok(Math.abs(model.heatSize[0] / model.heatSize[1] - model.page.size[0] / model.page.size[1]) < 0.01);
    assert.equal(model.fit(310), false);
    const { bytes, low, peak } = model.heat([1]);
    const wanted = upscale(model.page.levels([1]), model.heatSize).map((v) => Math.min(Math.max((255 * (v - low)) / (peak - low), 0), 255));
    assert.ok(furthest(bytes, wanted) <= 0.501);
    assert.deepEqual([...upscaleBytes(model.page.levels([1]), [4, 4], 1, 1)], new Array(16).fill(0));
  }
});

test("a choice is stored by name and found again", async () => {
  const page = await pageOf(cases.pages[0]);
  assert.deepEqual(named(page, [[1, 2], [4]]), [["word:red", "word:house"], ["word:a#2"]]);
  const { picks, missing } = found(page, [["word:a#2"], ["word:dragon"], ["word:red", "word:house"], ["negative:house"]]);
  assert.deepEqual(picks, [[4], [1, 2]]);
  assert.deepEqual(missing, ["dragon", "house"]);
  const { steps } = page.header;
  assert.ok(fits(page, { axis: "steps", frames: [steps - 1] }) && fits(page, { axis: "layers", frames: [0, 1] }));
  assert.ok(!fits(page, { axis: "steps", frames: [steps] }) && !fits(page, { axis: "steps", frames: [] }));
});

test("a server's mask takes the place of the level's, and is cleaned as any other", async () => {
  const model = new Model(await pageOf(cases.pages[0]));
  const [h, w] = model.page.size;
  const mask = Uint8Array.from({ length: h * w }, (_, i) => (i % w < 9 ? 1 : 0));
  const settings = { ...DEFAULTS, method: "best", soft: true };
  model.refined.set(model.refinedKey([[2]], settings), mask);
  assert.equal(differing(model.mask([[2]], settings, [h, w]), mask), 0);
  assert.equal(differing(model.mask([[2]], { ...settings, invert: true }, [h, w]), invert(mask)), 0);
  assert.equal(area(model.mask([[2]], { ...settings, grow: 2 }, [h, w])), 11 / w);
  assert.notEqual(differing(model.mask([[1]], settings, [h, w]), mask), 0);
  assert.deepEqual([...resampled(Uint8Array.of(1, 0, 0, 1), [2, 2], [1, 4])], [0, 0, 1, 1]);
  assert.deepEqual([...resampled(Uint8Array.of(1, 0, 1, 0, 1, 0), [1, 6], [1, 3])], [0, 0, 0]);
});

test("the last masks of a server are kept and no more, and one that was dropped is asked for again", async () => {
  const model = new Model(await pageOf(cases.pages[0]));
  const mask = bytes(cases.pngs[0].file);
  const { width, height } = await decodeGreyPng(mask);
  model.page.size = [height, width];
  let answers = 0;
  const server = refiner(model, { methods: ["best"], run: async () => (answers++, { mask }) }, () => {});
  const at = (tau) => server.mask([[2]], { ...DEFAULTS, method: "guided", tau }, {});
  for (let i = 0; i < 16; i++) assert.ok(await at(i / 100));
  assert.ok(await at(0));
  assert.equal(answers, 16, "asked for once");
  assert.ok(await at(0.5));
  assert.equal(model.refined.size, 16);
  assert.ok(await at(0));
  assert.equal(answers, 17, "the one that was used last stays");
  assert.ok(await at(0.01));
  assert.equal(answers, 18);
});

for (const one of cases.pages) {
  test(`${one.name}: every word's map is the core's within 1/255`, async () => {
    const page = await pageOf(one);
    for (const [i, word] of page.words.entries()) {
      const wanted = floats(one.maps[i]);
      const top = wanted.reduce((a, b) => Math.max(a, b), 0);
      const off = furthest(upscale(page.levels([i]), page.size), wanted) / top;
      assert.ok(off <= (one.exact ? 1e-4 : 1 / 255), `${word.label}: ${off * 255} of 255`);
    }
  });

  test(`${one.name}: masks are the core's, pixel by pixel`, async () => {
    const model = new Model(await pageOf(one));
    for (const mask of one.masks) {
      const made = model.mask(mask.picks, { ...DEFAULTS, ...mask.settings }, model.page.size);
      if (mask.kind === "float") assert.ok(furthest(made, floats(mask.wanted)) < 2e-3, JSON.stringify(mask));
      else assert.equal(differing(made, bytes(mask.wanted)), 0, JSON.stringify(mask));
    }
  });

  test(`${one.name}: the ranking of every place is the core's`, async () => {
    const page = await pageOf(one);
    for (const place of one.places) {
      const rows = place.inside
        ? rankBox(page, place.box, bytes(place.inside))
        : place.box.w * place.box.h === 1 ? rankPixel(page, place.box.y, place.box.x) : rankBox(page, place.box);
      const near = (one.exact ? 1e-4 : 1e-3);
      const scores = rows.map((row) => row.score);
      assert.ok(furthest(scores, place.scores) < near);
      // Only words that are level to that precision may change places.
      rows.forEach((row, k) => assert.ok(Math.abs(place.scores[place.words.indexOf(row.label)] - scores[k]) < near));
      if (one.exact) assert.deepEqual(rows.map((row) => row.label), place.words);
    }
  });

  test(`${one.name}: rivals are the core's`, async () => {
    const page = await pageOf(one);
    for (const { members, wanted } of one.rivals) {
      assert.deepEqual(rivals(page.words, members).map((i) => page.words[i].label), wanted);
    }
  });

  test(`${one.name}: steps and layers are the core's`, async () => {
    const page = await pageOf(one);
    for (const axis of one.details) {
      const detail = await readDetail(axis.header, bytes(axis.atlas));
      for (const { words, frames, wanted } of axis.maps) {
        const made = upscale(detail.levels(words, frames, words.map(() => 1)), page.size);
        const core = floats(wanted);
        const top = core.reduce((a, b) => Math.max(a, b), 0);
        assert.ok(furthest(made, core) <= top / 255);
      }
    }
  });
}

test("clean-up is the core's", () => {
  for (const { h, w, mask, radius, grown, shrunk, feathered } of cases.cleanup) {
    const one = bytes(mask);
    assert.equal(differing(grow(one, h, w, radius), bytes(grown)), 0);
    assert.equal(differing(grow(one, h, w, -radius), bytes(shrunk)), 0);
    assert.ok(furthest(feather(one, h, w, radius), floats(feathered)) < 1e-5);
    assert.equal(grow(one, h, w, 0), one);
    assert.equal(differing(invert(invert(one)), one), 0);
  }
});

test("colours are the core's", () => {
  for (const [name, table] of Object.entries(cases.colours)) assert.deepEqual(colourTable(name), table);
  assert.equal(new Set(WORD_COLOURS).size, WORD_COLOURS.length);
});

test("a mask's outside is veiled, its edge white beside black", () => {
  const size = 7;
  const mask = Uint8Array.from({ length: size * size }, (_, i) => ([2, 3, 4].includes(i % size) && i / size >= 2 && i / size < 5 ? 1 : 0));
  const out = new Uint32Array(size * size);
  drawMask(out, mask, edge(mask, size, size), size);
  const seen = (x, y) => [out[y * size + x] & 255, out[y * size + x] >>> 24];
  assert.deepEqual(seen(3, 3), [14, 0], "inside, the picture is as it was");
  for (const [x, y] of [[2, 2], [4, 3], [3, 4]]) assert.deepEqual(seen(x, y), [255, 255]);
  for (const [x, y] of [[1, 2], [5, 4], [3, 1], [3, 5]]) assert.deepEqual(seen(x, y), [0, 217]);
  assert.deepEqual(seen(0, 6), [14, 184]);
});

test("an empty or even map gives no mask", () => {
  const even = new Float32Array(6).fill(3);
  assert.equal(area(threshold(new Float32Array(6), 0)), 0);
  assert.deepEqual([...minmax(even)], [0, 0, 0, 0, 0, 0]);
  assert.equal(area(soft(even, 0.2)), 0);
  assert.deepEqual([...winners([even, even], 0)], [-1, -1, -1, -1, -1, -1]);
  assert.ok(Number.isNaN(iou(threshold(new Float32Array(6), 0.5), new Uint8Array(6))));
  assert.deepEqual([...toBytes(even, 3, 3)], [0, 0, 0, 0, 0, 0]);
});

test("the earlier word wins a tie and overlap is counted by hand", () => {
  const a = Float32Array.of(0, 1, 1, 0.2, 0, 0);
  const b = Float32Array.of(0, 1, 0.5, 0.9, 0, 0);
  assert.deepEqual([...winners([a, b], 0.4)], [-1, 0, 0, 1, -1, -1]);
  assert.deepEqual([...competed([b, a], 0.4)], [0, 1, 0, 1, 0, 0]);
  // No rivals: the same map again, a faint one, one that lies over most of the picture.
  const others = [b, a.map((v) => v / 5), Float32Array.of(0, 1, 1, 1, 1, 0.9)];
  assert.deepEqual([...competed([b, ...others], 0.4)], [...threshold(b, 0.4)]);
  const ripple = Float32Array.of(1, 1.001, 1, 1, 1, 1);
  assert.deepEqual([...winners([ripple, a], 0.4)], [-1, 1, 1, -1, -1, -1]);
  assert.equal(iou(threshold(a, 0.5), threshold(b, 0.5)), 2 / 3);
});

test("edges, lassos, boxes, phrases, choices", () => {
  assert.deepEqual([...edge(Uint8Array.of(1, 1, 1, 1, 1, 1, 1, 0, 1), 3, 3)], [0, 0, 0, 0, 1, 0, 1, 0, 1]);
  const { box, inside } = lassoRegion([[1, 1], [4, 1], [4, 3], [1, 3]], [10, 10]);
  assert.deepEqual(box, { x: 1, y: 1, w: 3, h: 2 });
  assert.ok(inside.every((v) => v === 1));
  const triangle = lassoRegion([[0, 0], [4, 0], [0, 4]], [4, 4]);
  assert.equal(triangle.inside.reduce((a, b) => a + b, 0), 6);
  assert.equal(lassoRegion([[20, 20], [30, 30], [20, 30]], [10, 10]), null);
  assert.deepEqual(boxBetween([5.5, 2.2], [-3, 99], [10, 8]), { x: 0, y: 2, w: 6, h: 8 });
  const words = ["word", "word", "word", "special"].map((kind) => ({ kind }));
  assert.deepEqual(phrase(words, 2, 0), [0, 1, 2]);
  assert.deepEqual(phrase(words, 1, 3), [3]);
  assert.deepEqual(toggled(toggled([], [1, 2]), [3]), [[1, 2], [3]]);
  assert.deepEqual(toggled([[1, 2], [3]], [1, 2]), [[3]]);
  assert.deepEqual([...enlarged(Uint8Array.of(1, 0, 0, 1), [2, 2], 2)], [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]);
});

test("what cannot be read is refused in a sentence", async () => {
  const [one] = cases.pages;
  const atlas = bytes(one.atlas);
  const wrong = [
    [null, atlas, /no heat maps/],
    [{ ...one.header, format: "other" }, atlas, /not heat maps/],
    [{ ...one.header, version: 2 }, atlas, /version 2/],
    [{ ...one.header, words: undefined }, atlas, /incomplete/],
    [{ ...one.header, words: one.header.words.slice(1) }, atlas, /cannot be read/],
    [one.header, atlas.subarray(0, atlas.length / 2), /cannot be read/],
    [one.header, new Uint8Array(100), /cannot be read/],
  ];
  for (const [header, data, says] of wrong) {
    await assert.rejects(readPage(header, data), (error) => error instanceof PageError && says.test(error.message));
  }
});

test("every PNG filter is undone", async () => {
  for (const { file, pixels } of cases.pngs) {
    assert.deepEqual([...(await decodeGreyPng(bytes(file))).pixels], [...bytes(pixels)]);
  }
});
