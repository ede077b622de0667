/**
 * The node Explorer on ComfyUI's page: a thin host of the component in explorer/. ComfyUI tells which run the node shows
 * (nodes/explorer.py); the maps come from our own routes (nodes/routes.py); what was chosen is stored in the widget `choice`.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { h } from "./explorer/dom.js";
import { mount } from "./explorer/explorer.js";
import { listed, local, useLanguage } from "./explorer/local.js";
import { fromBase64 } from "./explorer/png.js";

const NODE = "DaamLensExplorer";
const SIZE = [860, 780];
const LEAST = 320;
/** The page's own colours, of light and dark themes alike. */
const COLOURS = `--daam-background:var(--comfy-menu-bg);--daam-surface:color-mix(in oklab, var(--comfy-input-bg) 40%, var(--comfy-menu-bg));
  --daam-text:var(--input-text);--daam-muted:color-mix(in oklab, var(--input-text) 76%, var(--comfy-menu-bg));--daam-line:var(--border-color);`;

app.registerExtension({
  name: "daam-lens.explorer",
  setup() {
    // Newer pages hide the sentence of a node that failed behind a button: ours is written to be read.
    api.addEventListener("execution_error", (/** @type {any} */ event) => tellError(event.detail ?? {}));
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    useLanguage(app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? "");
    explore(node);
  },
});

/** Shows the sentence of a node of ours that failed. @param {{node_type?: string, exception_message?: string}} failure */
function tellError({ node_type, exception_message }) {
  if (!node_type?.startsWith("DaamLens") || !exception_message) return;
  app.extensionManager?.toast?.add({ severity: "error", summary: "DAAM Lens", detail: exception_message.trim(), life: 20000 });
}

/** Puts the component into a node. @param {any} node */
function explore(node) {
  const store = node.widgets.find((/** @type {any} */ w) => w.name === "choice");
  // Both kinds of node drawing leave it out; its value is saved and queued all the same.
  store.hidden = store.options.hidden = true;
  store.computeSize = () => [0, -4];
  /** @type {{run: string, pictures: number, missing: string[]}|null} */
  let shown = null;
  // What was stored stays what is shown with every new run, until a hand changes something on the page.
  let touched = false;
  let index = 0;

  const turn = (/** @type {number} */ by) => h("button", { type: "button", onclick: () => show(index + by), style: BUTTON,
    "aria-label": local(by < 0 ? "Picture before" : "Next picture") }, by < 0 ? "‹" : "›");
  const [back, next, number] = [turn(-1), turn(1), h("span", {})];
  const pager = h("div", { style: PAGER }, back, number, next);
  pager.hidden = true;
  const place = h("div", { style: "flex:1;min-height:0" });
  const box = h("div", { class: "daam-lens-explorer", style: `${COLOURS}${BOX}` }, pager, place);
  for (const kind of ["pointerdown", "pointerup", "mousedown", "dblclick", "keydown", "keyup", "contextmenu"]) {
    // A drag on the picture is no drag of the node, and Delete is not meant for the node either.
    box.addEventListener(kind, (/** @type {any} */ event) => {
      // Control and Enter queue the graph from here, too.
      if (!(event.ctrlKey || event.metaKey) || !kind.startsWith("key")) event.stopPropagation();
    });
  }
  const explorer = mount(place, null);
  explorer.setAttribute("fit", "");
  const theme = () => explorer.setAttribute("theme", isDark(box) ? "dark" : "light");
  const watcher = new MutationObserver(theme);
  const watch = () => [document.body, document.documentElement].forEach((root) => watcher.observe(root, { attributeFilter: ["class", "style"] }));
  watch();
  explorer.say(local("Queue the graph, and the words of its prompt appear here."));
  explorer.addEventListener("daam-change", () => (touched = true));
  explorer.addEventListener("daam-mask", (event) => {
    event.preventDefault();
    touched = false;
    const { words, settings, part } = /** @type {CustomEvent} */ (event).detail;
    store.value = JSON.stringify({ words, settings, part });
    store.callback?.(store.value);
    explorer.tell(local("Stored in the workflow. Queue again, and this mask goes on to the nodes behind; nothing before runs again."));
    app.graph.setDirtyCanvas(true, true);
  });

  const show = async (/** @type {number} */ wanted, kept = touched ? explorer.choice() : stored()) => {
    if (!shown) return;
    const { run, pictures } = shown;
    index = Math.min(Math.max(wanted, 0), pictures - 1);
    pager.hidden = pictures < 2;
    pager.style.display = pictures < 2 ? "none" : "flex";
    number.textContent = local("Picture {0} of {1}", index + 1, pictures);
    [back.disabled, next.disabled] = [index === 0, index === pictures - 1];
    const address = `/daam-lens/explorer/${encodeURIComponent(run)}/${index}`;
    const mine = `${run} ${index}`;
    latest = mine;
    try {
      const data = await (await ask(address)).json();
      if (latest !== mine) return;
      theme();
      await explorer.load({
        header: data.header,
        atlas: fromBase64(data.atlas),
        picture: data.pictured ? api.apiURL(`${address}/picture`) : null,
        choice: kept,
        use: local("Use as mask"),
        detail: async (axis) => {
          const part = await (await ask(`${address}/detail/${axis}`)).json();
          return { header: part.header, atlas: fromBase64(part.atlas) };
        },
        refine: {
          methods: data.methods,
          run: async (request) => {
            const answer = await ask(`${address}/mask`, { method: "POST", body: JSON.stringify(request) });
            return { mask: new Uint8Array(await answer.arrayBuffer()) };
          },
        },
      });
      if (latest === mine) sayMissing();
    } catch (error) {
      if (latest === mine) explorer.say(/** @type {Error} */ (error).message);
    }
  };
  let latest = "";

  const stored = () => {
    try {
      return store.value ? JSON.parse(store.value) : null;
    } catch {
      return null; // The server says what is wrong with it.
    }
  };
  const told = (/** @type {any} */ output) => {
    const run = output?.daam_lens?.[0];
    if (!run) return;
    const same = run.run === shown?.run;
    shown = run;
    if (same) explorer.tell("");
    if (same) sayMissing();
    else show(index);
  };
  /** The mask that went on has no part of these words; a person has to know, whatever is kept on the page. */
  const sayMissing = () => {
    const missing = [...new Set((shown?.missing ?? []).map((name) => name.slice(name.indexOf(":") + 1)))];
    if (missing.length) explorer.tell(local("The stored choice has words that this prompt does not have: {0}. They are left out of the mask.", listed(missing)));
  };

  const widget = node.addDOMWidget("explorer", "daam-explorer", box, { serialize: false, hideOnZoom: false, getMinHeight: () => LEAST });
  widget.serialize = false;
  after(node, "onExecuted", told);
  // A workflow that is opened again while ComfyUI still knows its run.
  after(node, "onConfigure", () => setTimeout(() => told(app.nodeOutputs?.[placeOf(node)]), 50));
  after(node, "onRemoved", () => watcher.disconnect());
  // A node that was taken out may come back, to a page of another theme.
  after(node, "onAdded", () => {
    watch();
    setTimeout(() => box.isConnected && theme(), 100);
  });
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])]);
}

/**
 * Under which name the page keeps what a node gave out: of a node in a subgraph with that subgraph's name before its number,
 * which a node outside may have, too.
 * @param {any} node
 */
function placeOf(node) {
  return !node.graph || (node.graph.isRootGraph ?? true) ? node.id : `${node.graph.id}:${node.id}`;
}

/** The answer of a route of ours. @param {string} address @param {RequestInit} [options] @throws {Error} a sentence */
async function ask(address, options) {
  let answer;
  try {
    answer = await api.fetchApi(address, options);
  } catch {
    throw new Error(local("The connection to ComfyUI was lost; queue the graph again when it is back."));
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? local("ComfyUI answered with {0}; queue the graph again.", answer.status));
}

/** Calls `then` after a node's own handler. @param {any} node @param {string} name @param {(value: any) => void} then */
function after(node, name, then) {
  const before = node[name];
  node[name] = function (/** @type {any[]} */ ...values) {
    const result = before?.apply(this, values);
    then(values[0]);
    return result;
  };
}

/** Whether an element stands on a dark theme: its text is light. @param {Element} element */
function isDark(element) {
  const probe = element.ownerDocument.createElement("canvas").getContext("2d");
  if (!probe) return true;
  probe.fillStyle = getComputedStyle(element).getPropertyValue("--input-text").trim() || "#ddd";
  const value = parseInt(String(probe.fillStyle).slice(1), 16);
  return 0.3 * (value >> 16) + 0.59 * ((value >> 8) & 255) + 0.11 * (value & 255) > 128;
}

const BOX = "display:flex;flex-direction:column;width:100%;height:100%;overflow:hidden;border-radius:8px;text-align:left;";
const PAGER = `align-items:center;justify-content:center;gap:10px;padding:6px;font:13px system-ui,sans-serif;color:var(--input-text);
  background:var(--comfy-menu-bg);`;
const BUTTON = "font-size:18px;line-height:1;padding:3px 12px 5px;border-radius:6px;cursor:pointer;color:inherit;background:var(--comfy-input-bg);border:1px solid var(--border-color);";
