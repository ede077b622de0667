// The tab "DAAM Lens": the explorer (web/explorer), fed by the host's server; and masks on their way to "Inpaint upload".
// Hosts load this file as a classic script: what gradio calls by name is global, everything else is inside.
const daamLens = (() => {
  const UPLOAD = 4; // "Inpaint upload" among img2img's own tabs
  const PAGES = "Tick “DAAM Lens” in txt2img or img2img and generate, load a record, or read a picture.";
  const PIPELINES =
    "Tick “DAAM Lens” in the tab Text or Image and generate, or load a record. SD.Next leaves it out of the tab Control, unless it is on the list control_extensions in installer.py.";
  /** @type {any} */ let parts = null;
  let newest = "";
  let shown = "";
  let message = "";
  /** @type {string[]} */ let mine = [];

  const address = (/** @type {string} */ path) => new URL(`daam-lens/v1/page/${path}`, document.baseURI).href;

  /** A route's answer; an Error with a sentence for the person at the screen. */
  async function ask(/** @type {string} */ path, /** @type {RequestInit} */ options = {}) {
    let answer;
    try {
      answer = await fetch(address(path), options);
    } catch {
      throw new Error("The server does not answer.");
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => null);
    const why = typeof said?.detail === "string" ? said.detail : `status ${answer.status}`;
    throw new Error(answer.status === 401 ? "Log in again: this page may not ask the server any more." : why);
  }

  const json = async (/** @type {string} */ path) => (await ask(path)).json();
  const post = (/** @type {string} */ path, /** @type {object} */ body) =>
    ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const bytes = (/** @type {string} */ text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const say = (/** @type {string} */ text) => (parts.status.textContent = text);
  const script = () => import(address("explorer.js"));

  /** Runs what a person asked for; what goes wrong becomes a sentence. */
  async function doing(/** @type {() => Promise<void>} */ work) {
    say("");
    try {
      await work();
    } catch (error) {
      say(/** @type {Error} */ (error).message);
    }
  }

  function element(/** @type {string} */ tag, /** @type {Record<string, any>} */ attributes = {}, ...children) {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...children);
    return made;
  }

  function build(/** @type {Element} */ root) {
    const choice = element("select", { ariaLabel: "Recorded picture", onchange: () => doing(() => show(choice.value)) });
    const file = element("input", { type: "file", accept: ".safetensors", hidden: true, onchange: () => doing(load) });
    const button = (text, title, onclick) => element("button", { type: "button", textContent: text, title, onclick });
    const open = button("Load record…", "A .safetensors file that DAAM Lens wrote beside a picture", () => file.click());
    const files = button("Save maps and masks", "Overlay, heat map and mask of each kept word (of all words where none is kept), zipped", () => doing(saveFiles));
    const record = button("Save record", "Everything that was recorded, to look at again later", () => doing(saveRecord));
    const field = (text, kind, attributes = {}) => element(kind, { placeholder: text, ariaLabel: text, className: "daam-lens-field", ...attributes });
    const image = element("input", { type: "file", accept: "image/*", hidden: true, onchange: () => take(image.files[0]) });
    const drop = button("Drop a picture here, or click", "Any picture: a photograph, a drawing", () => image.click());
    drop.className = "daam-lens-drop";
    drop.addEventListener("dragover", (event) => event.preventDefault());
    drop.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
    const prompt = field("What is in the picture", "textarea", { rows: 2 });
    const concepts = field("Also look for (not in the prompt)", "input", { type: "text" });
    const go = button("Read the picture", "The loaded model is shown the picture at a few levels of noise; nothing is painted", () => doing(read));
    const bar = element("progress", { hidden: true, ariaLabel: "Read the picture" });
    const fields = element("div", { className: "daam-lens-fields" }, prompt, concepts, element("div", { className: "daam-lens-go" }, go, bar));
    const summary = element("summary", { textContent: "Read a picture that was not made here" });
    const reading = element("details", { className: "daam-lens-read" }, summary, element("div", { className: "daam-lens-form" }, drop, image, fields));
    const status = element("p", { className: "daam-lens-status", role: "status" });
    const stage = element("div", { className: "daam-lens-stage" });
    parts = { root, choice, file, files, record, status, stage, drop, prompt, concepts, go, bar, picture: null };
    root.replaceChildren(element("div", { className: "daam-lens-bar" }, choice, open, file, files, record), reading, status, stage);
    stage.addEventListener("daam-mask", (event) => {
      event.preventDefault();
      doing(() => send(event.detail.png));
    });
  }

  /** Ids of the recordings that this page asked for, with `more` of them; others of the same server have theirs. */
  function own(/** @type {string[]} */ ...more) {
    const shown = [...gradioApp().querySelectorAll(".daam-lens-runs")].flatMap((one) => one.dataset.runs.split(" "));
    mine = [...new Set([...mine, ...shown, ...more])].slice(-64);
    try {
      sessionStorage.setItem("daam-lens-runs", mine.join(" "));
    } catch {} // a browser that keeps nothing
    return mine;
  }

  /** Notes the recordings of each run of this page, and those of before it was loaded again. */
  function watchRuns() {
    try {
      mine = (sessionStorage.getItem("daam-lens-runs") ?? "").split(" ").filter(Boolean);
    } catch {}
    for (const page of ["txt2img", "img2img"]) {
      const report = gradioApp().getElementById(`daam_lens_report_${page}`);
      if (report) new MutationObserver(() => own()).observe(report, { childList: true, subtree: true });
    }
  }

  /** The list of recorded pictures, this page's first; a picture of it that is newer than the last look is shown. */
  async function refresh() {
    const { runs } = await json(`runs?own=${own().join(",")}`);
    parts.choice.replaceChildren(...runs.map((run) => element("option", { value: run.id, textContent: run.title })));
    parts.files.disabled = parts.record.disabled = parts.choice.disabled = !runs.length;
    if (!runs.length) {
      say(`No picture was recorded yet. ${gradioApp().getElementById("control_generate") ? PIPELINES : PAGES}`);
      return;
    }
    const gone = !runs.some((run) => run.id === shown);
    const wanted = runs[0].id !== newest || gone ? runs[0].id : shown;
    newest = runs[0].id;
    parts.choice.value = wanted;
    if (wanted !== shown) await show(wanted);
  }

  async function show(/** @type {string} */ id) {
    const [{ mount, useLanguage }, page] = await Promise.all([script(), json(`runs/${id}`)]);
    // The host translates what it knows by itself (localizations/); the explorer is told the language, such as "zh_CN".
    // @ts-ignore -- `opts` is the host's
    useLanguage(typeof opts === "object" && opts.localization !== "None" ? opts.localization : "");
    shown = id;
    parts.stage.replaceChildren();
    const explorer = mount(parts.stage, {
      header: page.header,
      atlas: bytes(page.atlas),
      picture: page.picture ? address(`runs/${id}/picture`) : null,
      use: "Send mask to inpaint",
      detail: async (axis) => {
        const { header, atlas } = await json(`runs/${id}/detail/${axis}`);
        return { header, atlas: bytes(atlas) };
      },
      refine: { methods: page.methods, run: (request) => refine(id, request) },
    });
    explorer.setAttribute("theme", document.body.classList.contains("dark") ? "dark" : "light");
    parts.explorer = explorer;
  }

  /** The mask that only the server can make of what is kept. */
  const refine = async (/** @type {string} */ id, /** @type {object} */ asked) =>
    ({ mask: new Uint8Array(await (await post(`runs/${id}/mask`, asked)).arrayBuffer()) });

  /** To "Inpaint upload", by way of a button of gradio's that nobody sees. */
  async function send(/** @type {Blob} */ png) {
    const url = await encoded(png);
    message = JSON.stringify({ run: shown, mask: String(url).split(",")[1] });
    gradioApp().getElementById("daam_lens_take").click();
  }

  async function load() {
    const [record] = parts.file.files;
    parts.file.value = "";
    if (!record) return;
    say("Loading…");
    const sent = { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: record };
    own((await (await ask("records", sent)).json()).id);
    say("");
    await refresh();
  }

  /** The picture that is to be read, shown where it was dropped. */
  function take(/** @type {File | undefined} */ picture) {
    if (!picture) return;
    parts.picture = picture;
    const view = element("img", { src: URL.createObjectURL(picture), alt: picture.name });
    view.onload = view.onerror = () => URL.revokeObjectURL(view.src);
    parts.drop.replaceChildren(view);
  }

  /** A file as a `data:` address. */
  const encoded = (/** @type {Blob} */ blob) => new Promise((done, fail) => {
    const reader = Object.assign(new FileReader(), { onload: () => done(reader.result), onerror: () => fail(new Error("The file could not be read.")) });
    reader.readAsDataURL(blob);
  });

  async function read() {
    if (!parts.picture) throw new Error("Choose a picture first.");
    const { go, bar } = parts;
    const asked = { image: await encoded(parts.picture), prompt: parts.prompt.value, concepts: parts.concepts.value };
    go.disabled = true;
    bar.hidden = false;
    bar.removeAttribute("value");
    const watch = setInterval(async () => {
      const { done, of } = await json("read").catch(() => ({ done: 0, of: 0 }));
      if (of) Object.assign(bar, { max: of, value: done });
    }, 500);
    try {
      const { id, notes } = await (await post("read", asked)).json();
      own(id);
      await refresh();
      if (shown !== id) await show(id);
      parts.choice.value = id;
      say(notes.join(" "));
    } finally {
      clearInterval(watch);
      bar.hidden = true;
      go.disabled = false;
    }
  }

  async function saveFiles() {
    const choice = parts.explorer.choice();
    if (!choice) return void say("The maps are still loading; save them when they are shown.");
    const { words, settings } = choice;
    const method = settings.method || (settings.compete ? "compete" : "threshold");
    const answer = await post(`runs/${shown}/files`, { words, method, tau: settings.tau });
    const link = element("a", { href: URL.createObjectURL(await answer.blob()), download: "daam-lens.zip" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async function saveRecord() {
    element("a", { href: address(`runs/${shown}/record`), download: "" }).click();
  }

  /** Waits for the host's page, then for the tab to be looked at. */
  function start() {
    const root = gradioApp().getElementById("daam_lens_explorer");
    if (!root || parts) return;
    build(root);
    watchRuns();
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && doing(refresh)).observe(root);
  }

  function openTab() {
    const buttons = [...gradioApp().querySelectorAll("#tabs button")];
    buttons.find((one) => one.textContent.trim() === "DAAM Lens")?.click();
  }

  onUiLoaded(start);
  return {
    openTab,
    toInpaint: () => switch_to_img2img_tab(UPLOAD),
    message: () => message,
  };
})();

// Called by gradio: each returns what the server's function gets.
function daam_lens_to_inpaint() {
  daamLens.toInpaint();
  return Array.from(arguments);
}

function daam_lens_take_mask() {
  daamLens.toInpaint();
  return [daamLens.message()];
}

function daam_lens_look_closer() {
  daamLens.openTab();
  return [];
}
