"""Heat Maps: from the latent that a sampler gave out to maps, overlays and soft masks."""

from __future__ import annotations

from typing import Any, Literal

import torch
from comfy_api.latest import io

from ..daam_core.defaults import DEFAULT_OPACITY
from ..daam_core.errors import DetailMissing, WordNotFound
from ..daam_core.maps.data import Aggregation
from .capture.packed_latents import picture_of
from .capture.prompt_tokens import prompt_tokens
from .capture.recording_store import RECORDINGS, maps_of
from .concepts import show_presence
from .convert import MAPS, hidden, with_pictures
from .drawing import CAPTION_HELP, COLOURS, drawn_overlays, soft_masks
from .executed_graph import connected_outputs, graph_of, is_connected, records_before
from .node_inputs import Node
from .parse_inputs import (
    AGGREGATION_HELP,
    DRAWN_WORDS_HELP,
    FRAMES_HELP,
    SUMS,
    chosen,
    drawn_words,
    left_out_note,
    of_aggregation,
    of_frames,
    of_relation,
)
from .server import running_graph

OVERLAYS, MASKS = 1, 2
"""Positions among the outputs."""
NOTHING = torch.zeros(1, 8, 8, 3)
"""What an output gives that nobody takes."""
_CONCEPTS_ARE_WHOLE = (
    "Concepts are of all layers, steps and heads, of image->text and of the aggregation sum: make no such choice to see them."
)


class HeatMapsNode(Node):
    """LATENT (and IMAGE) in; maps, overlays, soft masks and the list of words out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensHeatMaps",
            display_name="Word Heat Maps",
            category="DAAM Lens",
            description="Shows which word painted where in a picture whose sampler was recorded.",
            hidden=[io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.unique_id],
            inputs=[
                io.Latent.Input(
                    "latent", tooltip="The latent straight from the sampler whose model came out of Record Attention."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The decoded picture: overlays lie on it, and masks can snap to its edges."
                ),
                io.String.Input("words", multiline=True, default="", tooltip=DRAWN_WORDS_HELP),
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
                io.Boolean.Input("caption", default=True, optional=True, tooltip=CAPTION_HELP),
                io.String.Input("frames", default="", placeholder="all", optional=True, tooltip=FRAMES_HELP),
                io.Combo.Input(
                    "relation",
                    options=["image->text", "text->image"],
                    default="image->text",
                    optional=True,
                    tooltip="image->text: how much each place attends to a word, as heat maps do. text->image: how much the "
                    "word attends to each place, of recordings that have it (`relations` in Record).",
                ),
                io.Combo.Input("aggregation", options=SUMS, default=SUMS[0], optional=True, tooltip=AGGREGATION_HELP),
            ],
            outputs=[
                MAPS.Output(display_name="maps", tooltip="The recording, for all other DAAM Lens nodes."),
                io.Image.Output(
                    display_name="overlays",
                    tooltip="Every word of the first picture, then of the second, …; of a video, every frame of each word.",
                ),
                io.Mask.Output(display_name="soft masks", tooltip="Each word's map, 0..1, in the order of the overlays."),
                io.String.Output(display_name="words", is_output_list=True, tooltip="The words that were found, in order."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """What is drawn depends on what is connected, which ComfyUI's own key of the cache does not hold."""
        return connected_outputs(running_graph(), "DaamLensHeatMaps", (OVERLAYS, MASKS))

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
        caption: bool = True,
        frames: str = "",
        relation: Literal["image->text", "text->image"] = "image->text",
        aggregation: Aggregation = "sum",
    ) -> io.NodeOutput:
        """Look the recording up by its latent and the graph, then draw what somebody takes."""
        # `connected` is asked of the graph as it was queued: who takes what of a loop's nodes, ComfyUI's cache does not know.
        graph, own = hidden(cls, "prompt"), hidden(cls, "unique_id")
        tokens = prompt_tokens(clip, text) if clip is not None and text is not None else None
        among = records_before(graph_of(hidden(cls, "dynprompt")), own, "latent")
        whole = with_pictures(maps_of(latent["samples"], tokens, among), image, _is_video(latent["samples"]))
        told = RECORDINGS.note(latent["samples"], among)
        try:
            picked = (of_relation(of_frames(chosen(maps, layers, steps, heads), frames), relation) for maps in whole)
            parts = any(map(str.strip, (layers, steps, heads, frames))) or relation != "image->text"
            handle = tuple(of_aggregation(maps, aggregation, parts) for maps in picked)
        except DetailMissing as error:
            raise DetailMissing(" ".join(filter(None, (str(error), told)))) from error
        notes = ["" if handle[0].frames is None else handle[0].frames.note, told]
        try:
            names, more = drawn_words(words, handle)
        except WordNotFound as error:
            left_out = _CONCEPTS_ARE_WHOLE if whole[0].concepts and not handle[0].concepts else ""
            raise WordNotFound(" ".join(filter(None, (str(error), notes[-1], left_out)))) from error
        show_presence(own, handle, [names] * len(handle), *notes, left_out_note(len(names), more))
        draws, masks = is_connected(graph, own, OVERLAYS), is_connected(graph, own, MASKS)
        drawn = drawn_overlays(handle, names, opacity, colour_map, caption) if draws else NOTHING
        return io.NodeOutput(handle, drawn, soft_masks(handle, names) if masks else NOTHING[..., 0], names)


def _is_video(samples: Any) -> bool:
    """Whether a latent has several frames: `[videos, c, frames, h, w]`."""
    picture = picture_of(samples)
    return picture.dim() == 5 and picture.shape[2] > 1
