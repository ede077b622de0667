"""Overlay and Timeline: maps as pictures."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..daam_core.defaults import DEFAULT_OPACITY, DEFAULT_TAU
from ..daam_core.errors import DetailMissing
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.render import outline, step_frames
from .convert import MAPS, MapsHandle, ground, image_of, with_pictures
from .heat_maps import COLOURS, word_overlay
from .mask import united
from .parse_inputs import WORDS_HELP, side_of, words_in


class Overlay(io.ComfyNode):
    """Maps (and IMAGE) and words in, one picture a word out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensOverlay",
            display_name="Overlay",
            category="DAAM Lens",
            description="Lays the heat of words over a picture.",
            inputs=[
                MAPS.Input("maps", tooltip="From Heat Maps or Load Maps."),
                io.Image.Input("image", optional=True, tooltip="The picture; without it the recorded one, or an even ground."),
                io.String.Input("words", multiline=True, default="", tooltip=WORDS_HELP),
                io.Combo.Input("colour_map", options=COLOURS, default="ember", tooltip="Colours of the heat."),
                io.Float.Input(
                    "opacity", default=DEFAULT_OPACITY, min=0.0, max=1.0, step=0.05, tooltip="How strongly the heat covers."
                ),
                io.Boolean.Input("edge", default=False, tooltip="Draw the edge of the word's best mask, too."),
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
    ) -> io.NodeOutput:
        """Draw every word on every picture."""
        handle = with_pictures(maps, image)
        names = words_in(words, handle[0])
        bar = comfy.utils.ProgressBar(len(handle) * len(names))
        drawn = []
        for one in handle:
            for name in names:
                drawn.append(word_overlay(_edged(one, name) if edge else one, name, opacity, colour_map))
                bar.update(1)
        return io.NodeOutput(image_of(drawn))


def _edged(maps: HeatMaps, name: str) -> HeatMaps:
    mask = united(maps, [name], "best", DEFAULT_TAU, None)
    return dataclasses.replace(maps, picture=outline(ground(maps), mask.float().numpy()))


class Timeline(io.ComfyNode):
    """Maps with steps kept apart in, one frame a step out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensTimeline",
            display_name="Timeline",
            category="DAAM Lens",
            description="How the heat of a word moves from step to step. Record needs detail set to steps.",
            inputs=[
                MAPS.Input("maps", tooltip="From Heat Maps, recorded with detail 'steps' or 'layers + steps'."),
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
        for one in with_pictures(maps, image):
            if one.detail is None or not one.detail.by_step:
                raise DetailMissing(
                    "The steps were not kept apart. Set `detail` to 'steps' in the Record node and queue again."
                )
            side, query = side_of(words_in(word, one)[0], one)
            heats = [side.select(steps=range(step + 1) if cumulative else [step]).heat_map(query) for step in range(one.steps)]
            frames += step_frames(ground(one), heats, query, opacity, colour_map)  # type: ignore[arg-type]
            bar.update(1)
        return io.NodeOutput(image_of(frames))
