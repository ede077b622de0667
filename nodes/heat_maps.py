"""Heat Maps: from the latent that a sampler gave out to maps, overlays and soft masks."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..daam_core.defaults import DEFAULT_OPACITY
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.masks import minmax
from ..daam_core.render import overlay
from .capture.prompt_tokens import prompt_tokens
from .capture.recording_store import maps_of
from .convert import MAPS, Picture, ground, image_of, mask_batch, with_pictures
from .parse_inputs import WORDS_HELP, chosen, side_of, words_in

COLOURS = ["ember", "lagoon", "gray"]


class HeatMapsNode(io.ComfyNode):
    """LATENT (and IMAGE) in; maps, overlays, soft masks and the list of words out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensHeatMaps",
            display_name="Heat Maps",
            category="DAAM Lens",
            description="Shows which word painted where in a picture whose sampler was recorded.",
            inputs=[
                io.Latent.Input("latent", tooltip="The latent straight from the sampler whose model came out of Record."),
                io.Image.Input(
                    "image", optional=True, tooltip="The decoded picture: overlays lie on it, and masks can snap to its edges."
                ),
                io.String.Input("words", multiline=True, default="", tooltip=WORDS_HELP),
                io.Float.Input(
                    "opacity",
                    default=DEFAULT_OPACITY,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the heat covers the picture.",
                ),
                io.Combo.Input("colour_map", options=COLOURS, default="ember", tooltip="Colours of the heat."),
                io.String.Input(
                    "layers",
                    default="",
                    placeholder="all",
                    tooltip="Only these layers: down, mid, up, or numbers such as 0-4. Empty: all.",
                ),
                io.String.Input(
                    "steps", default="", placeholder="all", tooltip="Only these steps, from 0; -1 is the last one. Empty: all."
                ),
                io.String.Input(
                    "heads", default="", placeholder="all", tooltip="Only these attention heads, from 0. Empty: all."
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Only where the prompt was not encoded by Record's CLIP: the CLIP it was."
                ),
                io.String.Input(
                    "text", optional=True, force_input=True, tooltip="Only together with clip: the prompt as it was encoded."
                ),
            ],
            outputs=[
                MAPS.Output(display_name="maps", tooltip="The recording, for all other DAAM Lens nodes."),
                io.Image.Output(display_name="overlays", tooltip="Every word of the first picture, then of the second, …"),
                io.Mask.Output(display_name="soft masks", tooltip="Each word's map, 0..1, in the order of the overlays."),
                io.String.Output(display_name="words", is_output_list=True, tooltip="The words that were found, in order."),
            ],
        )

    @classmethod
    def execute(
        cls,
        latent: dict[str, Any],
        image: Any = None,
        words: str = "",
        opacity: float = DEFAULT_OPACITY,
        colour_map: str = "ember",
        layers: str = "",
        steps: str = "",
        heads: str = "",
        clip: Any = None,
        text: str | None = None,
    ) -> io.NodeOutput:
        """Look the recording up by its latent, then draw."""
        tokens = prompt_tokens(clip, text) if clip is not None and text is not None else None
        handle = with_pictures(maps_of(latent["samples"], tokens), image)
        handle = tuple(chosen(maps, layers, steps, heads) for maps in handle)
        names = words_in(words, handle[0])
        bar = comfy.utils.ProgressBar(len(handle) * len(names))
        overlays, masks = [], []
        for maps in handle:
            for name in names:
                overlays.append(word_overlay(maps, name, opacity, colour_map))
                side, query = side_of(name, maps)
                masks.append(minmax(side.heat_map(query, maps.size)))
                bar.update(1)
        return io.NodeOutput(handle, image_of(overlays), mask_batch(masks), names)


def word_overlay(maps: HeatMaps, name: str, opacity: float, colour_map: str) -> Picture:
    """One word's heat on its picture, with label and colour bar: uint8 `[H + caption, W, 3]`."""
    side, query = side_of(name, maps)
    return overlay(ground(maps), side.heat_map(query, maps.size), opacity, colour_map, name, True)  # type: ignore[arg-type]
