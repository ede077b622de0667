"""Overlay and Timeline: maps as pictures."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..daam_core.defaults import DEFAULT_OPACITY
from ..daam_core.errors import DetailMissing
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.maps.statistics import mean_probability
from ..daam_core.render import step_frames
from .concepts import show_presence
from .convert import MAPS, MapsHandle, ground, hidden, image_of, with_pictures
from .drawing import CAPTION_HELP, COLOURS, drawn_overlays
from .node_inputs import Node
from .parse_inputs import DRAWN_WORDS_HELP, drawn_words, left_out_note, side_of, words_of_each


class Overlay(Node):
    """Maps (and IMAGE) and words in, one picture a word out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensOverlay",
            display_name="Heat Map Overlay",
            category="DAAM Lens",
            description="Lays the heat of words over a picture.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.Image.Input("image", optional=True, tooltip="The picture; without it the recorded one, or an even ground."),
                io.String.Input("words", multiline=True, default="", tooltip=DRAWN_WORDS_HELP),
                io.Combo.Input("colour_map", options=COLOURS, default="ember", tooltip="Colours of the heat."),
                io.Float.Input(
                    "opacity", default=DEFAULT_OPACITY, min=0.0, max=1.0, step=0.05, tooltip="How strongly the heat covers."
                ),
                io.Boolean.Input("edge", default=False, tooltip="Draw the edge of the word's best mask, too."),
                io.Boolean.Input("caption", default=True, optional=True, tooltip=CAPTION_HELP),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="Every word of the first picture, then of the second, …")],
        )

    @classmethod
    def execute(
        cls,
        maps: MapsHandle,
        image: Any = None,
        words: str = "",
        colour_map: str = "ember",
        opacity: float = DEFAULT_OPACITY,
        edge: bool = False,
        caption: bool = True,
    ) -> io.NodeOutput:
        """Draw every word on every picture."""
        handle = with_pictures(maps, image)
        names, more = drawn_words(words, handle)
        show_presence(hidden(cls, "unique_id"), handle, [names] * len(handle), left_out_note(len(names), more))
        return io.NodeOutput(drawn_overlays(handle, names, opacity, colour_map, caption, edge))


class Timeline(Node):
    """Maps with steps kept apart in, one frame a step out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensTimeline",
            display_name="Heat Map Timeline",
            category="DAAM Lens",
            description="How the heat of a word moves from step to step. Record Attention needs detail set to steps.",
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps, recorded with detail 'steps' or 'layers + steps'."),
                io.String.Input("word", default="", tooltip="A word or phrase; empty: the first one that can be seen."),
                io.Image.Input("image", optional=True, tooltip="The picture; without it the recorded one, or an even ground."),
                io.Boolean.Input("cumulative", default=False, tooltip="Each frame holds all steps until then."),
                io.Combo.Input("colour_map", options=COLOURS, default="ember", tooltip="Colours of the heat."),
                io.Float.Input(
                    "opacity", default=DEFAULT_OPACITY, min=0.0, max=1.0, step=0.05, tooltip="How strongly the heat covers."
                ),
            ],
            outputs=[io.Image.Output(display_name="frames", tooltip="One picture a step; go on to any video node.")],
        )

    @classmethod
    def execute(
        cls,
        maps: MapsHandle,
        word: str = "",
        image: Any = None,
        cumulative: bool = False,
        colour_map: str = "ember",
        opacity: float = DEFAULT_OPACITY,
    ) -> io.NodeOutput:
        """All frames of the first picture, then of the second, …"""
        frames = []
        bar = comfy.utils.ProgressBar(len(maps))
        shown = with_pictures(maps, image)
        for one, names in zip(shown, words_of_each(word, shown), strict=True):
            if one.detail is None or not one.detail.by_step:
                raise DetailMissing(
                    "The steps were not kept apart. Set `detail` to 'steps' in the Record Attention node and queue again."
                )
            side, query = side_of(names[0], one)
            if side.is_concept(query):
                raise DetailMissing(f"The steps of a concept ({query}) are not kept apart; those of the prompt's words are.")
            heats = _heats_of_steps(side, query, cumulative)
            frames += step_frames(ground(one), heats, query, opacity, colour_map, unit="%")  # type: ignore[arg-type]
            bar.update(1)
        return io.NodeOutput(image_of(frames))


def _heats_of_steps(side: HeatMaps, query: str, cumulative: bool) -> list[Tensor]:
    """Shares of attention 0..1 `[h, w]`: of each step, or what the steps until then add to that of all."""
    if cumulative:
        terms = max(1, sum(side.num_terms.values()))
        return [side.select(steps=range(step + 1)).heat_map(query) / terms for step in range(side.steps)]
    return [mean_probability(side.select(steps=[step]), [query])[0] for step in range(side.steps)]
