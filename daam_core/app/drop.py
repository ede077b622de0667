"""The field on the page where a picture is dropped: its HTML, its look, and the script that sends the picture."""

from __future__ import annotations

FIELD = """
<label id="daam_drop" tabindex="0"><span>Or drop a picture here: where are the prompt's words in it?</span>
<input type="file" accept="image/*"><span class="daam-said" role="status"></span></label>
"""
STYLE = """
#daam_drop { display: block; border: 1px dashed currentColor; border-radius: 10px; padding: 10px 12px; opacity: .75; }
#daam_drop { cursor: pointer; }
#daam_drop.over, #daam_drop:hover, #daam_drop:focus-within { opacity: 1; }
#daam_drop input { display: block; margin-top: 6px; max-width: 100%; }
.daam-hidden { display: none !important; }
"""
SCRIPT = """
(() => {
  const field = event => event.target.closest ? event.target.closest('#daam_drop') : null;
  const box = (id, kind) => document.querySelector(`#${id} ${kind}`);
  const say = text => { document.querySelector('#daam_drop .daam-said').textContent = text; };
  async function read(file) {
    say('Reading …');
    try {
      const prompt = box('daam_prompt', 'textarea').value, seed = box('daam_seed', 'input').value || '0';
      const asked = new URLSearchParams({ prompt, seed });
      const answer = await fetch(`read?${asked}`, { method: 'POST', headers: { 'X-Daam-Lens': 'read' }, body: file });
      const told = await answer.json();
      if (!answer.ok) { say(told.error); return; }
      const address = box('daam_address', 'textarea, #daam_address input');
      address.value = told.explorer;
      address.dispatchEvent(new Event('input', { bubbles: true }));
      setTimeout(() => (document.querySelector('button#daam_show') || box('daam_show', 'button')).click(), 50);
      say('');
    } catch (error) { say('The picture could not be sent. Is the app still running?'); }
  }
  document.addEventListener('dragover', event => {
    const at = field(event);
    if (at) { event.preventDefault(); at.classList.add('over'); }
  });
  document.addEventListener('dragleave', event => { const at = field(event); if (at) at.classList.remove('over'); });
  document.addEventListener('drop', event => {
    const at = field(event);
    if (!at) return;
    event.preventDefault();
    at.classList.remove('over');
    if (event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
  });
  document.addEventListener('change', event => {
    if (field(event) && event.target.files.length) { read(event.target.files[0]); event.target.value = ''; }
  });
})();
"""
