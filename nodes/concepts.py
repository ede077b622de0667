"""Concepts: what Record and Read Picture look for although the prompt does not hold it."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io

from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.maps.queries import PRESENCE_NOTE
from ..daam_core.prompt.concepts import MOST_CONCEPTS, TEMPLATE, Concept, concepts_of
from .convert import MapsHandle
from .node_inputs import Node
from .parse_inputs import side_of
from .server import show_at_node

CONCEPTS = io.Custom("DAAM_LENS_CONCEPTS")
ConceptList = tuple[Concept, ...]
CONCEPTS_HELP = (
    "From Concepts: what to look for although the prompt does not hold it. Models with a UNet (SD 1.5, 2, SDXL), SD3, Flux, "
    "Chroma, Qwen-Image, Z-Image, Lumina 2, PixArt; Wan and LTX-Video of one frame."
)


class Concepts(Node):
    """A list of words and phrases in, concepts out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensConcepts",
            display_name="Concepts",
            category="DAAM Lens",
            description="Words that the prompt does not hold: Record shows where the model sees them, and how likely they are "
            "in the picture at all.",
            inputs=[
                io.String.Input(
                    "concepts",
                    multiline=True,
                    default="",
                    placeholder="sky\nshadow\na dog's tail",
                    dynamic_prompts=False,
                    tooltip=f"One word or phrase a line (or between commas), at most {MOST_CONCEPTS}. A word that stands in "
                    "the prompt keeps its own map.",
                ),
                io.String.Input(
                    "template",
                    default=TEMPLATE,
                    dynamic_prompts=False,
                    tooltip="What each is put into before it is encoded, with {} in its place, such as: a photo of {}.",
                ),
            ],
            outputs=[CONCEPTS.Output(display_name="concepts", tooltip="For Record Attention and Read Picture.")],
        )

    @classmethod
    def execute(cls, concepts: str = "", template: str = TEMPLATE) -> io.NodeOutput:
        """Each once, in order. Raises BadArgument for none, too many, or a template without its place."""
        return io.NodeOutput(concepts_of(concepts, template))


def presence_lines(maps: HeatMaps, names: list[str]) -> list[str]:
    """What has to be said beside the maps of these words: how likely each concept among them is in the picture."""
    sides = [side_of(name, maps) for name in names]
    lines = [side.caption(query) for side, query in sides if side.is_concept(query)]
    return [*lines, PRESENCE_NOTE] if lines else []


def show_presence(node: str | None, handle: MapsHandle, asked: Sequence[list[str]], *before: str) -> None:
    """Tell at a node how likely each concept that it shows is in each picture, below what it has to say anyway; `asked` are
    the words that it shows of each."""
    found = [presence_lines(one, names) for one, names in zip(handle, asked, strict=True)]
    lines = [text for text in before if text]
    for number, told in enumerate(found, start=1):
        if told and len(found) > 1:
            lines.append(f"picture {number}:")
        lines += told[:-1]
    if any(found):
        lines.append(PRESENCE_NOTE)
    if lines:
        show_at_node(node, "\n".join(lines))
