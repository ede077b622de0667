"""Explorer: point at a word, point at a pixel, take the mask. Its page is web/comfyui.js."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io

from ..daam_core.explorer.selection import missing, read_choice
from ..daam_core.render import outline
from .convert import MAPS, MapsHandle, ground, image_of, mask_batch, with_pictures
from .explorer_choice import mask_of
from .explorer_store import EXPLORED
from .node_inputs import Node


class Explorer(Node):
    """Maps in, the page in the node; the MASK of what was chosen there out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensExplorer",
            display_name="Attention Explorer",
            category="DAAM Lens",
            description="Point at a word and see what it painted, point at the picture and see which words made it, take the "
            "mask.",
            is_output_node=True,
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.Image.Input("image", optional=True, tooltip="The picture, if Word Heat Maps did not get it."),
                io.String.Input(
                    "choice",
                    default="",
                    socketless=True,
                    dynamic_prompts=False,
                    tooltip="What Use as mask stored: words and settings, as JSON. Empty: an empty mask.",
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="The mask of the chosen words, one a picture, 0..1."),
                io.Image.Output(display_name="preview", tooltip="The picture with the mask's edge."),
            ],
        )

    @classmethod
    def execute(cls, maps: MapsHandle, image: Any = None, choice: str = "") -> io.NodeOutput:
        """The chosen mask of every picture of the batch."""
        handle = with_pictures(maps, image)
        chosen = read_choice(choice)
        bar = comfy.utils.ProgressBar(len(handle))
        made = []
        for one in handle:
            made.append(mask_of(one, chosen).float())
            bar.update(1)
        previews = [
            outline(ground(one), mask.numpy(), dim=0.45) if chosen.picks else ground(one)
            for one, mask in zip(handle, made, strict=True)
        ]
        shown = {"run": EXPLORED.keep(handle), "pictures": len(handle), "missing": missing(handle[0], chosen)}
        return io.NodeOutput(mask_batch(made), image_of(previews), ui={"daam_lens": (shown,)})

    @classmethod
    def validate_inputs(cls, choice: str | None = None) -> bool | str:
        """A choice that cannot be read is said before the run; one that another node gives is None here."""
        try:
            read_choice(choice or "")
        except ValueError as error:
            return str(error)
        return True
