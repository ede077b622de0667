/** Which maps of the words are shown: all of them, where words look, or the tokens that one text encoder read. */

/**
 * Shows other maps. Masks, steps and layers are of all tokens, and of the places that look at a word, alone.
 * @param {import("./explorer.js").DaamExplorer} explorer @param {boolean} looking @param {string} encoder "" for all
 */
export function turnTo(explorer, looking, encoder) {
  const { model, ui, screen } = explorer;
  if (looking === model.looking && encoder === model.encoder) return;
  model.looking = looking;
  model.encoder = encoder;
  press(ui.whose, looking ? "word" : "picture");
  press(ui.readers, encoder);
  const other = looking || encoder !== "";
  ui.panel.panel.hidden = other;
  if (other) {
    if (model.part) explorer.tellHost();
    model.part = explorer.wanted = null;
    ui.scrubber.reset();
    screen?.showFrame(null);
    explorer.masking = false;
    ui.panel.shown(false);
  }
  screen?.drop();
  screen?.rank(null);
  screen?.draw();
  screen?.prepare();
  screen?.fillSheet();
}

/** @param {HTMLElement|null} group of buttons @param {string} choice the one that is pressed */
function press(group, choice) {
  for (const button of group?.children ?? []) {
    button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.choice === choice));
  }
}
