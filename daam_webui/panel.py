"""The script's panel: gradio components in the order of `Settings`, with defaults from the host's settings page."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from daam_core.mask_methods import METHODS

from . import host
from .options import defaults
from .settings import COLOURS, NAMES, PASSES, Settings, field_name, pasted


def build(elem: Any) -> tuple[list[Any], list[tuple[Any, Any]], list[str]]:
    """The components in the order of `Settings`, their infotext fields, and the names of these.

    Args:
        elem: gives a component's element id from a short name.
    """
    chosen = defaults()
    with host.ticked_accordion("DAAM Lens", elem("enabled")) as enabled:
        made = {"enabled": enabled, **_components(elem, chosen)}
    for name, part in made.items():
        # The host's ui-config.json remembers the first value it saw; a default that was chosen later must win.
        part.do_not_save_to_config = getattr(chosen, name) != getattr(Settings(), name)
    parts = [made[name] for name in NAMES]
    fields = [(made[name], partial(pasted, name)) for name in NAMES]
    return parts, fields, [field_name(name) for name in NAMES]


def _components(elem: Any, d: Settings) -> dict[str, Any]:
    c: dict[str, Any] = {}
    with gr.Row():
        c["words"] = gr.Textbox(
            d.words, label="Words", placeholder="all content words; or: house, green tree", lines=1, elem_id=elem("words")
        )
    with gr.Row():
        c["overlays"] = gr.Checkbox(d.overlays, label="Overlays", elem_id=elem("overlays"))
        c["maps"] = gr.Checkbox(d.maps, label="Heat maps alone", elem_id=elem("maps"))
        c["masks"] = gr.Checkbox(d.masks, label="Masks", elem_id=elem("masks"))
        c["report"] = gr.Checkbox(d.report, label="Prompt report", elem_id=elem("report"))
    with gr.Row():
        c["opacity"] = gr.Slider(0, 1, d.opacity, step=0.05, label="Overlay opacity", elem_id=elem("opacity"))
        c["colours"] = gr.Dropdown(list(COLOURS), value=d.colours, label="Overlay colours", elem_id=elem("colours"))
    with gr.Row():
        c["method"] = gr.Dropdown(list(METHODS), value=d.method, label="Mask method", elem_id=elem("method"))
        c["tau"] = gr.Slider(0, 1, d.tau, step=0.01, label="Mask threshold (not for best and otsu)", elem_id=elem("tau"))
    with gr.Row():
        c["negative"] = gr.Checkbox(d.negative, label="Negative prompt too", elem_id=elem("negative"))
        c["detail"] = gr.Checkbox(d.detail, label="Keep steps and layers apart", elem_id=elem("detail"))
        c["record"] = gr.Checkbox(d.record, label="Save a record beside the picture", elem_id=elem("record"))
    with gr.Row():
        c["hires"] = gr.Radio(list(PASSES), value=d.hires, label="Hires fix pass", elem_id=elem("hires"))
        c["layers"] = gr.Textbox(d.layers, label="Layers", placeholder="all; or: down, mid, up", elem_id=elem("layers"))
    return c
