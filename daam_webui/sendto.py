"""Under the pictures of txt2img and img2img: the prompt report, and buttons that send a word's mask on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from daam_core.errors import DaamLensError

from .latest import latest
from .looks import mask_of

PAGES = ("txt2img", "img2img")
_SEPARATOR = " · "


@dataclass
class _Row:
    choice: Any
    button: Any
    note: Any


_rows: dict[str, _Row] = {}
_targets: dict[str, Any] = {}


def after_component(component: Any, **kwargs: Any) -> None:
    """`on_after_component`: the host's page is being built, one component after the other."""
    name = kwargs.get("elem_id") or ""
    for page in PAGES:
        if name == f"html_log_{page}":
            _rows[page] = _build(page, component)
    if name in ("img_inpaint_base", "img_inpaint_mask"):
        _targets[name] = component
    if name == "footer" and len(_targets) == 2:
        # Only here do all pages hang in one tree, so that a button of one may fill an image of another.
        for page, row in _rows.items():
            row.button.click(
                fn=partial(send, page),
                inputs=[row.choice],
                outputs=[_targets["img_inpaint_base"], _targets["img_inpaint_mask"], row.note],
                _js="daam_lens_to_inpaint",
                show_progress=False,
            )


def _build(page: str, log: Any) -> _Row:
    report = gr.HTML(elem_id=f"daam_lens_report_{page}")
    with gr.Row(visible=False, elem_id=f"daam_lens_send_{page}", elem_classes=["daam-lens-send"]) as row:
        choice = gr.Dropdown([], label="Mask of", elem_id=f"daam_lens_word_{page}")
        button = gr.Button("Send mask to inpaint", elem_id=f"daam_lens_to_inpaint_{page}")
    note = gr.HTML(elem_id=f"daam_lens_note_{page}")
    # The host writes into its log line at the end of each run.
    log.change(fn=partial(refresh, page), inputs=[], outputs=[report, row, choice, note], show_progress=False)
    return _Row(choice, button, note)


def refresh(page: str) -> list[Any]:
    """Report, row, choices and note after a run."""
    last = latest(page)
    choices = [_SEPARATOR.join((str(n), word)) for n, run in enumerate(last.runs, 1) for word in run.words]
    if len(last.runs) == 1:
        choices = list(last.runs[0].words)
    value = choices[0] if choices else None
    return [last.html, gr.update(visible=bool(choices)), gr.update(choices=choices, value=value), ""]


def send(page: str, choice: str | None) -> list[Any]:
    """Picture, mask and note for "Inpaint upload"; the settings of the run make the mask."""
    runs = latest(page).runs
    if not runs or not choice:
        return [gr.update(), gr.update(), "<p>There is no mask to send: make a picture with DAAM Lens first.</p>"]
    number, word = 1, choice
    if len(runs) > 1:
        head, word = choice.split(_SEPARATOR, 1)
        number = int(head)
    run = runs[number - 1]
    try:
        mask = mask_of(run.maps, word, run.settings.method, run.settings.tau)
    except DaamLensError as error:
        return [gr.update(), gr.update(), f"<p>{gr_escape(str(error))}</p>"]
    assert run.maps.picture is not None
    return [Image.fromarray(run.maps.picture), Image.fromarray(mask), ""]


def gr_escape(text: str) -> str:
    from html import escape

    return escape(text)
