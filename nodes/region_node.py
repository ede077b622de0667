"""Words In Region: which words drive a part of the picture."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..daam_core.errors import BadArgument
from ..daam_core.maps.statistics import rank_region
from ..daam_core.render import table
from .concepts import presence_lines
from .convert import MAPS, MapsHandle, as_many, image_of, resized
from .node_inputs import Node
from .parse_inputs import SOME_WORDS_HELP, of_one_prompt, words_of_each


class WordsInRegion(Node):
    """Maps and MASK in, ranked words out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensWordsInRegion",
            display_name="Words In Region",
            category="DAAM Lens",
            description="Which words made this part of the picture, strongest first.",
            is_output_node=True,
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.Mask.Input("region", tooltip="The part of the picture, painted with the mask editor or from any node."),
                io.String.Input("words", multiline=True, default="", tooltip=SOME_WORDS_HELP),
            ],
            outputs=[
                io.String.Output(display_name="ranking", tooltip="Words with their share of the region, strongest first."),
                io.Image.Output(display_name="table", tooltip="The ranking as a picture, one for each picture."),
            ],
        )

    @classmethod
    def execute(cls, maps: MapsHandle, region: Tensor, words: str = "") -> io.NodeOutput:
        """One ranking a picture; a single mask serves all pictures, and of a single picture each mask has its own.

        Raises:
            BadArgument: nothing is painted, or masks and pictures of other numbers.
        """
        if region.numel() == 0 or float(region.max()) <= 0:
            raise BadArgument("The region is empty: paint a part of the picture.")
        masks = region.reshape(-1, *region.shape[-2:])
        handle = maps * len(masks) if len(maps) == 1 else maps
        each = as_many(list(masks), len(handle), "region(s)")
        texts, tables = [], []
        asked = words_of_each(words, handle)
        for i, one in enumerate(handle):
            mask = resized(each[i], one.size)
            side, queries = of_one_prompt(asked[i], one)
            ranked = rank_region(side, mask, queries)
            lines = [f"{row.word}  {row.score:.1%}  (x{row.lift:.2f})" for row in ranked]
            texts.append("\n".join([*lines, *(notes := presence_lines(side, queries))]))
            rows = [(row.word, row.score, f"{row.lift:.2f} x its average") for row in ranked]
            tables.append(table(["word", "share of the region", "attention here"], rows, notes, title=side.prompt.text))
        text = "\n\n".join(texts)
        return io.NodeOutput(text, image_of(tables), ui={"text": (text,)})
