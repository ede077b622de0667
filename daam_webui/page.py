"""Our parts in the host's page: under the pictures of txt2img and img2img the report and buttons, and the tab "DAAM Lens"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from .send_to_inpaint import refresh, send, send_drawn

PAGES = ("txt2img", "img2img")
TARGETS = (
    "img_inpaint_base", "img_inpaint_mask", "img2img_prompt", "img2img_neg_prompt", "img2img_width", "img2img_height",
)  # fmt: skip
"""What a sent mask fills, in the order of `sendto.Sent`: the images of "Inpaint upload", prompts, size."""
LAST = ("footer", "change_checkpoint")
"""What hosts make when all tabs hang in their page; the second is SD.Next's."""
_TAB = "<div id='daam_lens_explorer'><p class='daam-lens'>The explorer appears when the page has loaded its script.</p></div>"


@dataclass
class _Sender:
    """A button that fills "Inpaint upload": what it runs, on what, and the function of the page that goes before it."""

    button: Any
    run: Any
    inputs: list[Any]
    note: Any
    script: str


class Page:
    """Hangs our parts in while the host builds its page, which it does anew at each "Reload UI"."""

    def __init__(self) -> None:
        self._senders: list[_Sender] = []
        self._targets: dict[str, Any] = {}

    def tabs(self) -> list[tuple[Any, str, str]]:
        """`on_ui_tabs`. The page's script draws the explorer; gradio only takes its mask."""
        with gr.Blocks(analytics_enabled=False) as tab:
            gr.HTML(_TAB)
            note = gr.HTML(elem_id="daam_lens_tab_note")
            mask = gr.Textbox(visible=False, elem_id="daam_lens_mask")
            button = gr.Button("Send mask to inpaint", visible=False, elem_id="daam_lens_take")
        self._senders.append(_Sender(button, send_drawn, [mask], note, "daam_lens_take_mask"))
        return [(tab, "DAAM Lens", "daam_lens")]

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """`on_after_component`: the host has made one more part of its page."""
        name = kwargs.get("elem_id") or ""
        for page in PAGES:
            if name == f"generation_info_{page}":
                self._senders.append(_row(page, component))
        if name in TARGETS:
            self._targets[name] = component
        if name in LAST:
            self._connect()

    def _connect(self) -> None:
        """Only at the page's end do all its parts hang in one tree, so that a button of one may fill an image of another."""
        if len(self._targets) == len(TARGETS):
            targets = [self._targets[name] for name in TARGETS]
            for sender in self._senders:
                outputs = [*targets, sender.note]
                sender.button.click(
                    fn=sender.run, inputs=sender.inputs, outputs=outputs, _js=sender.script, show_progress=False
                )
        self._senders, self._targets = [], {}


def _row(page: str, info: Any) -> _Sender:
    """Under the pictures: the report, and a row of a word to choose and two buttons, hidden while there is nothing."""
    report = gr.HTML(elem_id=f"daam_lens_report_{page}")
    with gr.Row(visible=False, elem_id=f"daam_lens_send_{page}", elem_classes=["daam-lens-send"]) as row:
        choice = gr.Dropdown([], label="Mask of", elem_id=f"daam_lens_word_{page}", scale=2)
        button = gr.Button("Send mask to inpaint", elem_id=f"daam_lens_inpaint_{page}", scale=1)
        closer = gr.Button("Look closer", elem_id=f"daam_lens_closer_{page}", scale=1)
    note = gr.HTML(elem_id=f"daam_lens_note_{page}")
    info.change(fn=refresh, inputs=[info], outputs=[report, row, choice, note], show_progress=False, queue=False)
    closer.click(fn=None, inputs=[], outputs=[], _js="daam_lens_look_closer")
    return _Sender(button, send, [choice, info], note, "daam_lens_to_inpaint")
