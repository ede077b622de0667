/**
 * The look. A host sets its own colours through --daam-background, --daam-surface, --daam-text, --daam-muted,
 * --daam-line, --daam-accent and --daam-font; without them the page follows the system's light or dark.
 */
export const STYLE = `
:host { display: block; container-type: inline-size; color-scheme: light dark;
  --bg: var(--daam-background, light-dark(#f7f5f2, #16151b)); --surface: var(--daam-surface, light-dark(#ffffff, #201f28));
  --text: var(--daam-text, light-dark(#24222b, #eceaf2)); --muted: var(--daam-muted, light-dark(#6a6674, #a29db0));
  --line: var(--daam-line, light-dark(#dfdbe3, #373541)); --accent: var(--daam-accent, light-dark(#b23a48, #ff9166));
  --on-accent: light-dark(#ffffff, #1c1014);
  font: 14px/1.45 var(--daam-font, ui-sans-serif, system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif);
  color: var(--text); background: var(--bg); }
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([fit]) { height: 100%; overflow: auto; container-type: size; scrollbar-width: thin; }
:host([fit]) .root { padding: 10px 12px; gap: 8px; max-width: none; }
:host([fit]) .frame { width: min(100%, calc(max(180px, 100cqh - 165px) * var(--ratio))); }
:host([fit]) .left:has(.time:not([hidden])) .frame { width: min(100%, calc(max(180px, 100cqh - 285px) * var(--ratio))); }
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; }
.root { padding: 16px; display: grid; gap: 12px; max-width: 1480px; margin: 0 auto; }
button, input { font: inherit; color: inherit; accent-color: var(--accent); }
button { background: var(--surface); border: 1px solid var(--line); border-radius: 7px; padding: 4px 10px; cursor: pointer; min-height: 30px; }
button:hover:not(:disabled) { border-color: var(--accent); }
button:disabled { opacity: .5; cursor: default; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.prompt { font-size: 17px; touch-action: pan-y; user-select: none; max-height: 14em; overflow: auto; padding: 4px; }
.line { margin: 0; line-height: 2.15; overflow-wrap: anywhere; white-space: pre-wrap; }
.line.extra { font-size: 14px; color: var(--muted); }
.prompt.bare .extra { display: none; }
.tag { font-size: 11px; letter-spacing: .08em; text-transform: uppercase; color: var(--muted); margin-right: 8px; }
.line.extra .chip { margin-right: 4px; }
.chip { display: inline; padding: 3px 8px; border-radius: 8px; font-size: inherit; min-height: 0; line-height: 1.4; white-space: normal; margin: 0 1px;
  background: color-mix(in oklab, var(--accent) calc(7% + 43% * var(--share)), var(--surface)); border-color: transparent; }
.chip.plain { background: none; padding: 3px 4px; color: var(--muted); }
.chip.special, .chip.negative { background: none; border: 1px dashed var(--line); padding: 2px 8px; }
.chip.lit { box-shadow: 0 0 0 2px var(--accent); color: var(--text); }
.chip[aria-pressed="true"] { box-shadow: 0 0 0 2px var(--surface), 0 0 0 4px var(--mine, var(--accent)); color: var(--text); }
.tools { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
.group { display: inline-flex; }
.group button { border-radius: 0; margin-left: -1px; }
.group button:first-child { border-radius: 7px 0 0 7px; margin-left: 0; }
.group button:last-child { border-radius: 0 7px 7px 0; }
[aria-pressed="true"]:is(.group button, .layer) { background: color-mix(in oklab, var(--accent) 20%, var(--surface)); border-color: var(--accent); z-index: 1; }
.group button { position: relative; }
[aria-pressed="true"]:is([aria-label="View"] button) { background: var(--accent); color: var(--on-accent); }
.gap { flex: 1; }
.body { display: grid; gap: 16px; grid-template-columns: minmax(0, 1fr); align-items: start; }
.left { display: grid; gap: 10px; justify-items: center; min-width: 0; }
.side { display: grid; gap: 12px; min-width: 0; }
@container (min-width: 760px) { .body { grid-template-columns: minmax(0, 1fr) minmax(280px, 340px); } }
.frame { position: relative; width: min(100%, calc(78vh * var(--ratio))); touch-action: none; cursor: crosshair; border-radius: 10px; overflow: hidden;
  box-shadow: 0 0 0 1px var(--line); background: #808080; }
.left:has(.time:not([hidden])) .frame { width: min(100%, calc(max(360px, 100vh - 300px) * var(--ratio))); }
.frame > *, .thumb > * { position: absolute; inset: 0; width: 100%; height: 100%; display: block; user-select: none; }
.frame > img[hidden] { display: none; }
.marks polygon { fill: rgb(255 255 255 / .12); stroke: #fff; stroke-width: 2px; vector-effect: non-scaling-stroke;
  paint-order: stroke; filter: drop-shadow(0 0 1px #000) drop-shadow(0 0 1px #000); }
.marks, .overlay { pointer-events: none; }
.blank { background: #808080; }
.bar { display: grid; grid-template-columns: auto minmax(80px, 260px) auto auto; gap: 8px; align-items: center; font-size: 12px; color: var(--muted);
  font-variant-numeric: tabular-nums; min-height: 20px; }
.ramp { height: 10px; border-radius: 5px; border: 1px solid var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 13px; justify-content: center; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; background: var(--mine); }
.panel { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; display: grid; gap: 9px; min-width: 0; grid-template-columns: minmax(0, 1fr); }
h2 { font-size: 14px; font-weight: 600; margin: 0; display: flex; justify-content: space-between; align-items: center; gap: 8px; }
h2 output, h2 span { font-weight: 400; color: var(--muted); font-variant-numeric: tabular-nums; }
.ranks { list-style: none; margin: 0; padding: 0; display: grid; gap: 4px; min-height: calc(28px * var(--rows) - 4px); align-content: start; }
.ranks li { display: grid; grid-template-columns: minmax(60px, 96px) 1fr 48px; gap: 8px; align-items: center; height: 24px; }
.ranks b { font-weight: 500; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ranks .track { height: 8px; border-radius: 4px; background: color-mix(in oklab, var(--muted) 18%, transparent); overflow: hidden; }
.ranks .track i { display: block; height: 100%; border-radius: 4px; background: var(--accent); width: calc(100% * var(--part)); }
.ranks span:last-child { text-align: right; font-variant-numeric: tabular-nums; color: var(--muted); font-size: 13px; }
.slider { display: grid; grid-template-columns: 62px 1fr 52px; gap: 8px; align-items: center; }
.slider input { width: 100%; min-width: 0; }
.slider output { text-align: right; font-variant-numeric: tabular-nums; color: var(--muted); }
.slider:has(:disabled) { opacity: .45; }
.check { display: inline-flex; gap: 6px; align-items: center; cursor: pointer; min-height: 26px; }
.check input { margin: 0; width: 15px; height: 15px; }
.row { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; }
.row.wide { flex-wrap: nowrap; gap: 12px; } .row.wide input { flex: 1; min-width: 60px; }
.row.wide output { color: var(--muted); min-width: 92px; text-align: right; font-variant-numeric: tabular-nums; }
.play { width: 40px; padding: 4px 0; }
.layers { gap: 5px; } .layer { padding: 1px 6px; font-size: 12px; min-height: 26px; font-variant-numeric: tabular-nums; }
.time { width: 100%; }
.why:empty { display: none; }
.main { background: var(--accent); border-color: var(--accent); color: var(--on-accent); font-weight: 600; min-height: 36px; }
.hint, .empty { color: var(--muted); font-size: 13px; margin: 0; }
.hint summary { cursor: pointer; }
.hint p { margin: 6px 0 0; } .said { margin-bottom: 10px; } .typed code { display: block; margin-top: 4px; overflow-wrap: anywhere; user-select: all; }
.empty { padding: 40px 16px; text-align: center; }
.across { grid-column: 1 / -1; } .bar .across { text-align: center; } .ranks li.across { display: block; height: auto; }
code { font-size: 12px; }
.notes { margin: 0; padding: 0; list-style: none; color: var(--muted); font-size: 13px; display: grid; gap: 2px; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; width: 100%; }
.sheet.small { grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: 10px; margin-top: 8px; }
.card { padding: 0; border: 0; background: none; display: grid; gap: 5px; text-align: left; border-radius: 8px; }
.card[aria-pressed="true"] { outline: 2px solid var(--accent); outline-offset: 3px; }
.thumb { position: relative; display: block; border-radius: 8px; overflow: hidden; width: 100%; box-shadow: 0 0 0 1px var(--line); }
.name { display: flex; justify-content: space-between; gap: 6px; font-size: 13px; min-width: 0; }
.name b { font-weight: 500; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .name span { color: var(--muted); font-variant-numeric: tabular-nums; white-space: nowrap; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) auto minmax(0, 1fr); gap: 14px; align-items: center; width: 100%; }
.pair figure { margin: 0; text-align: center; } figcaption { margin-top: 6px; font-weight: 500; overflow-wrap: anywhere; }
.iou { display: grid; justify-items: center; text-align: center; max-width: 130px; } .iou b { font-size: 28px; font-weight: 600; font-variant-numeric: tabular-nums; }
@container (max-width: 560px) { .pair { grid-template-columns: repeat(2, minmax(0, 1fr)); } .iou { grid-column: 1 / -1; order: 1; max-width: none; } }
.relations { display: grid; gap: 10px; justify-items: center; width: 100%; } .scroll { overflow: auto; max-width: 100%; padding: 3px; }
.matrix { border-collapse: separate; border-spacing: 2px; font-size: 13px; font-variant-numeric: tabular-nums; }
.matrix td[data-pair] { min-width: 40px; height: 34px; text-align: center; border-radius: 5px; padding: 0 4px; }
.matrix th { font-weight: 500; color: var(--muted); } .matrix th.lit { color: var(--text); text-decoration: underline 2px var(--accent); text-underline-offset: 3px; }
.matrix th[scope="row"] { text-align: right; padding-right: 6px; overflow-wrap: anywhere; max-width: 160px; }
.matrix th[scope="col"] { vertical-align: bottom; height: 0; padding-bottom: 4px; }
.matrix th[scope="col"] span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 160px; overflow: hidden; }
.relations output { min-height: 3em; text-align: center; }
.message { margin: 16px; padding: 20px; border: 1px solid var(--line); border-radius: 10px; background: var(--surface); }
@media (pointer: coarse) { button:not(.chip, .card) { min-height: 40px; } .check { min-height: 40px; } .slider { min-height: 36px; } }
`;
