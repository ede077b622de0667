"""The extension's page under Settings: the defaults of the panel."""

from __future__ import annotations

from typing import Any

from daam_core.errors import BadArgument
from daam_core.masks.methods import MASK_METHODS

from .settings import COLORMAPS, FORMER_NAMES, NAMES, PASSES, Settings

_SECTION = ("daam_lens", "DAAM Lens")
_CHOICES = {"colormap": COLORMAPS, "method": tuple(MASK_METHODS), "hires": PASSES}
_LABELS = {
    "words": "Words (empty: all content words)", "overlays": "Show overlays", "maps": "Show heat maps alone",
    "masks": "Show masks",
    "opacity": "Overlay opacity", "colormap": "Colour map", "method": "Mask method", "tau": "Mask threshold",
    "negative": "Negative prompt too", "hires": "Hires fix pass", "detail": "Keep steps and layers apart (more memory)",
    "record": "Save a record beside each picture", "report": "Prompt report under the picture",
    "layers": "Layers: down, mid, up (empty: all)", "template": "Template of what is looked for beside the prompt",
    "live_word": "Live heat of this word over the preview while sampling (empty: off)",
}  # fmt: skip


def option_name(name: str) -> str:
    return f"daam_lens_{name}"


def register_options() -> None:
    """`on_ui_settings`."""
    import gradio as gr
    from modules import shared

    for name, label in _LABELS.items():
        default = getattr(Settings(), name)
        component: Any = None
        args: dict[str, Any] = {}
        if name in _CHOICES:
            component, args = gr.Dropdown, {"choices": list(_CHOICES[name])}
        elif isinstance(default, float):
            component, args = gr.Slider, {"minimum": 0, "maximum": 1, "step": 0.01}
        info = shared.OptionInfo(default, f"Default: {label}", component, args, section=_SECTION)
        shared.opts.add_option(option_name(name), info.needs_reload_ui() if hasattr(info, "needs_reload_ui") else info)


def defaults() -> Settings:
    """The panel's defaults out of the settings page; the built-in ones where a saved value does not fit."""
    from modules import shared

    chosen = Settings()
    for name in NAMES:
        if name in _LABELS:
            try:
                chosen = chosen.changed(**{name: _saved(shared.opts, name, getattr(chosen, name))})
            except BadArgument:
                continue
    return chosen


def _saved(opts: Any, name: str, default: Any) -> Any:
    """A saved value; under the setting's former name where it was saved by an older version and not since."""
    written = getattr(opts, "data", {})
    for former in (old for old, new in FORMER_NAMES.items() if new == name):
        if option_name(name) not in written and option_name(former) in written:
            return written[option_name(former)]
    return getattr(opts, option_name(name), default)
