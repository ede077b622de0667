"""The tab "DAAM Lens": a closer look at a recorded picture, with the host's own gradio parts."""

from __future__ import annotations

import logging
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from daam_core.errors import DaamLensError
from daam_core.heatmaps import HeatMaps
from daam_core.mask_methods import METHODS
from daam_core.outputs import file_names
from daam_core.render import outline
from daam_core.report import box_region, prompt_report, rank_region

from .looks import map_of, mask_of, overlay_of
from .report_html import report_html
from .runs import RUNS
from .settings import COLOURS, Settings

logger = logging.getLogger("daam_lens")
VIEWS = ("overlay", "heat map", "mask on the picture", "mask")
PLACES = ("down", "mid", "up")
LARGEST_UPLOAD = 256 * 2**20


def build() -> list[tuple[Any, str, str]]:
    """`on_ui_tabs`."""
    with gr.Blocks(analytics_enabled=False) as page:
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(
                    label="Click a place to see its words", interactive=False, type="pil", elem_id="daam_lens_view"
                )
                place = gr.HTML(elem_id="daam_lens_place")
            with gr.Column(scale=1):
                with gr.Row():
                    run = gr.Dropdown(_choices(), label="Recorded picture", elem_id="daam_lens_run")
                    refresh = gr.Button("Refresh", elem_id="daam_lens_refresh")
                record = gr.File(label="or load a record (.safetensors)", file_count="single", elem_id="daam_lens_record")
                word = gr.Dropdown([], label="Word", elem_id="daam_lens_tab_word", allow_custom_value=True)
                view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Show", elem_id="daam_lens_tab_view")
                method = gr.Dropdown(list(METHODS), value="threshold", label="Mask method", elem_id="daam_lens_tab_method")
                tau = gr.Slider(0, 1, 0.4, step=0.01, label="Threshold", elem_id="daam_lens_tab_tau")
                with gr.Row():
                    opacity = gr.Slider(0, 1, 0.85, step=0.05, label="Opacity", elem_id="daam_lens_tab_opacity")
                    colours = gr.Dropdown(list(COLOURS), value="ember", label="Colours", elem_id="daam_lens_tab_colours")
                with gr.Row():
                    layers = gr.CheckboxGroup(list(PLACES), value=list(PLACES), label="Layers (where kept apart)")
                    first = gr.Slider(1, 150, 1, step=1, label="First step")
                    last = gr.Slider(1, 150, 150, step=1, label="Last step")
                download = gr.Button("Make files of this word", elem_id="daam_lens_download")
                files = gr.File(label="Files", file_count="multiple", interactive=False)
        report = gr.HTML(elem_id="daam_lens_tab_report")
        note = gr.HTML(elem_id="daam_lens_tab_note")
        controls = [run, word, view, method, tau, opacity, colours, layers, first, last]
        refresh.click(fn=lambda: gr.update(choices=_choices(), value=_newest()), inputs=[], outputs=[run])
        run.change(fn=choose, inputs=[run], outputs=[word, report, note, place, last])
        record.change(fn=load, inputs=[record], outputs=[run, note])
        for control in controls[1:]:
            control.change(fn=draw, inputs=controls, outputs=[image, note], show_progress=False)
        image.select(fn=words_at, inputs=[run], outputs=[place], show_progress=False)
        download.click(fn=files_of, inputs=controls, outputs=[files, note])
    return [(page, "DAAM Lens", "daam_lens")]


def choose(title: str | None) -> list[Any]:
    """A run was picked: its words, report, an empty note and place, and the range of its steps."""
    maps = _maps(title)
    if maps is None:
        return [gr.update(choices=[], value=None), "", "", "", gr.update()]
    words = maps.content_words + [w for w in maps.words if w not in maps.content_words]
    report = report_html(prompt_report(maps), title="What each word did")
    value = words[0] if words else None
    return [gr.update(choices=words, value=value), report, _steps_note(maps), "", gr.update(value=150)]


def load(file: Any) -> list[Any]:
    """A record was given."""
    if file is None:
        return [gr.update(), ""]
    path = Path(str(getattr(file, "name", file)))
    try:
        if path.stat().st_size > LARGEST_UPLOAD:
            return [gr.update(), _note(f"The record is larger than {LARGEST_UPLOAD // 2**20} MB.")]
        maps = HeatMaps.load(path)
    except (DaamLensError, OSError) as error:
        # The host's copy of the file has a path of its own that says nothing to anybody.
        return [gr.update(), _note(str(error).replace(str(path), "The file"))]
    RUNS.keep(maps, Settings(), maps.content_words or maps.words)
    return [gr.update(choices=_choices(), value=_newest()), ""]


def draw(title: str | None, word: str | None, *how: Any) -> list[Any]:
    """The picture for the controls, and a sentence where it cannot be drawn."""
    maps = _maps(title)
    if maps is None or not word:
        return [None, ""]
    try:
        pixels, note = _drawn(maps, word, *how)
        return [Image.fromarray(pixels), note]
    except DaamLensError as error:
        return [gr.update(), _note(str(error))]


def _drawn(
    maps: HeatMaps,
    word: str,
    view: str,
    method: str,
    tau: float,
    opacity: float,
    colours: str,
    layers: list[str],
    first: int,
    last: int,
) -> tuple[np.ndarray[Any, Any], str]:
    maps, note = _part(maps, layers, int(first), int(last))
    if maps.picture is None and view != "mask":
        view = "heat map"
        note = note or _note("This record holds no picture, so the map is shown alone.")
    if view == "overlay":
        return overlay_of(maps, word, opacity, colours), note
    if view == "heat map":
        return map_of(maps, word, colours), note
    mask = mask_of(maps, word, method, tau)
    if view == "mask":
        return mask, note
    assert maps.picture is not None
    return outline(maps.picture, mask / 255, dim=opacity * 0.7), note


def _part(maps: HeatMaps, layers: list[str], first: int, last: int) -> tuple[HeatMaps, str]:
    """The chosen layers and steps; all of them where everything is chosen."""
    steps = range(first - 1, min(last, maps.steps))
    some_layers = set(layers) != set(PLACES)
    some_steps = len(steps) < maps.steps
    if not some_layers and not some_steps:
        return maps, ""
    if not steps or not layers:
        return maps, _note("Choose at least one step and one kind of layer.")
    there = [place for place in layers if any(layer.place == place for layer in maps.layers)]
    return maps.select(layers=there if some_layers else None, steps=steps if some_steps else None), ""


def words_at(title: str | None, event: gr.SelectData) -> str:
    """The words that drive the place that was clicked: a box of a sixteenth of the picture on each side of it."""
    maps = _maps(title)
    if maps is None:
        return ""
    height, width = maps.size
    x, y = (int(v) for v in event.index[:2])
    reach_x, reach_y = max(1, width // 16), max(1, height // 16)
    try:
        ranked = rank_region(maps, box_region(maps, x - reach_x, y - reach_y, 2 * reach_x, 2 * reach_y))
    except DaamLensError as error:
        return _note(str(error))
    listed = ", ".join(f"<b>{escape(r.word)}</b> {r.score:.0%}" for r in ranked[:6])
    return f"<p class='daam-lens'>At {x}, {y}: {listed}</p>"


def files_of(title: str | None, word: str | None, *how: Any) -> list[Any]:
    """Overlay, map and mask of the word as PNG, and the record of the picture."""
    maps = _maps(title)
    if maps is None or not word:
        return [None, _note("Choose a recorded picture and a word first.")]
    folder = Path(tempfile.mkdtemp(prefix="daam-lens-"))
    paths: list[str] = []
    try:
        for view in VIEWS:
            pixels, _ = _drawn(maps, word, view, *how[1:])
            path = folder / f"{file_names([f'{view}-{word}'])[0]}.png"
            Image.fromarray(pixels).save(path)
            paths.append(str(path))
        paths.append(str(maps.save(folder / "record.safetensors")))
    except (DaamLensError, OSError) as error:
        return [paths or None, _note(str(error))]
    return [paths, ""]


def _choices() -> list[str]:
    return [f"{run.title} [{run.id}]" for run in RUNS.newest_first()]


def _newest() -> str | None:
    return next(iter(_choices()), None)


def _maps(title: str | None) -> HeatMaps | None:
    if not title or not title.endswith("]"):
        return None
    run = RUNS.find(title[:-1].rsplit("[", 1)[-1])
    return run.maps if run else None


def _steps_note(maps: HeatMaps) -> str:
    kept = "Steps and layers were kept apart." if maps.detail else "Steps and layers were not kept apart in this picture."
    return f"<p class='daam-lens'>{maps.steps} steps, {len(maps.layers)} layers. {kept}</p>"


def _note(text: str) -> str:
    return f"<p class='daam-lens daam-lens-note'>{escape(text)}</p>"
