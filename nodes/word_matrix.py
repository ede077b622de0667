"""Word Matrix: which word of the prompt attends to which."""

from __future__ import annotations

import numpy as np
from comfy_api.latest import io

from ..daam_core.errors import DetailMissing
from .convert import MAPS, MapsHandle, image_of
from .node_inputs import Node
from .parse_inputs import NOT_RECORDED, SOME_WORDS_HELP, of_one_prompt, words_of_each

MOST_WORDS = 24
"""Words of a matrix where nobody chose any."""


class WordMatrix(Node):
    """Maps recorded with text->text in, a picture and a table of numbers out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensWordMatrix",
            display_name="Word Matrix",
            category="DAAM Lens",
            description="Which word attends to which, in models whose text and picture are one sequence (Flux, SD3, "
            "Qwen-Image, Z-Image and others). Record Attention needs relations with text->text.",
            is_output_node=True,
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps, recorded with relations set to text->text."),
                io.String.Input("words", multiline=True, default="", tooltip=SOME_WORDS_HELP),
            ],
            outputs=[
                io.Image.Output(
                    display_name="matrix",
                    tooltip="A row for each word that attends, a column for each word that is attended to.",
                ),
                io.String.Output(
                    display_name="table",
                    tooltip="The same as text, in per cent of a word's attention; most of the rest went to the picture.",
                ),
            ],
        )

    @classmethod
    def execute(cls, maps: MapsHandle, words: str = "") -> io.NodeOutput:
        """One matrix a picture."""
        drawn, texts = [], []
        asked = words_of_each(words, maps) if words.strip() else [one.default_words(MOST_WORDS) for one in maps]
        for one, chosen in zip(maps, asked, strict=True):
            side, queries = of_one_prompt(chosen, one) if chosen else (one, [])
            if side.relations is None or side.relations.text_to_text is None:
                raise DetailMissing(NOT_RECORDED.format("text->text"))
            names = [name for name in queries if not side.is_concept(name)]
            drawn.append(np.asarray(side.word_matrix_picture(names)))
            rows = [["", *names]]
            for name, row in zip(names, side.word_matrix(names).tolist(), strict=True):
                rows.append([name, *(f"{x:.2%}" for x in row)])
            texts.append("\n".join(map("\t".join, rows)))
        text = "\n\n".join(texts)
        return io.NodeOutput(image_of(drawn), text, ui={"text": (text,)})
