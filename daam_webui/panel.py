"""The script's panel: gradio components in the order of `Settings`, with defaults from the host's settings page."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from daam_core.masks.methods import MASK_METHODS

from . import hosts
from .options import defaults
from .settings import COLORMAPS, NAMES, PASSES, PASTED, Settings, field_name, pasted


def build(elem: Any) -> tuple[list[Any], list[tuple[Any, Any]], list[str]]:
    """The components in the order of `Settings`, their infotext fields, and the names of these.

    Args:
        elem: gives a component's element id from a short name.
    """
    chosen = defaults()
    with hosts.page_host().ticked_accordion("DAAM Lens", elem("enabled")) as enabled:
        made = {"enabled": enabled, **_components(elem, chosen)}
    for name, part in made.items():
        # The host's ui-config.json remembers the first value it saw; a default that was chosen later must win.
        part.do_not_save_to_config = getattr(chosen, name) != getattr(Settings(), name)
    parts = [made[name] for name in NAMES]
    fields = [(made[name], partial(pasted, name)) for name in PASTED]
    return parts, fields, [field_name(name) for name in PASTED]


def _components(elem: Any, d: Settings) -> dict[str, Any]:
    """Everything but the accordion's own box."""

    def box(name: str, label: str) -> Any:
        return gr.Checkbox(getattr(d, name), label=label, elem_id=elem(name), min_width=90)

    c: dict[str, Any] = {}
    with gr.Column(elem_classes=["daam-lens-panel"]):
        with gr.Row():
            c["words"] = gr.Textbox(
                d.words,
                label="Words",
                placeholder="all content words; or: house, green tree",
                lines=1,
                elem_id=elem("words"),
                scale=3,
            )
            c["live_word"] = gr.Textbox(
                d.live_word,
                label="Live heat of a word",
                placeholder="off",
                lines=1,
                elem_id=elem("live_word"),
                scale=1,
                min_width=110,
            )
        with gr.Row():
            c["concepts"] = gr.Textbox(
                d.concepts,
                label="Also look for (not in the prompt)",
                placeholder="sky, shadow, a dog's tail",
                lines=1,
                elem_id=elem("concepts"),
                scale=3,
            )
            c["template"] = gr.Textbox(d.template, label="Template", elem_id=elem("template"), scale=1, min_width=110)
        with gr.Row():
            c["overlays"] = box("overlays", "Overlays")
            c["maps"] = box("maps", "Heat maps")
            c["masks"] = box("masks", "Masks")
            c["report"] = box("report", "Report")
        with gr.Row():
            c["opacity"] = gr.Slider(0, 1, d.opacity, step=0.05, label="Overlay opacity", elem_id=elem("opacity"))
            c["colormap"] = gr.Dropdown(list(COLORMAPS), value=d.colormap, label="Colour map", elem_id=elem("colormap"))
        with gr.Row():
            c["tau"] = gr.Slider(0, 1, d.tau, step=0.01, label="Threshold (not for best, otsu)", elem_id=elem("tau"))
            c["method"] = gr.Dropdown(list(MASK_METHODS), value=d.method, label="Mask method", elem_id=elem("method"))
        with gr.Row():
            c["negative"] = box("negative", "Negative prompt")
            c["detail"] = box("detail", "Steps and layers apart")
            c["record"] = box("record", "Save a record")
        with gr.Row():
            c["hires"] = gr.Radio(list(PASSES), value=d.hires, label="Hires fix pass", elem_id=elem("hires"))
            c["layers"] = gr.Textbox(d.layers, label="Layers", placeholder="all; or: down, mid, up", elem_id=elem("layers"))
    return c
