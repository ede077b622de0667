"""Prompt Report and Compare Maps: what the maps say in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from comfy_api.latest import io

from ..daam_core.defaults import DEFAULT_OPACITY, DEFAULT_TAU
from ..daam_core.maps.comparison import moved
from ..daam_core.maps.prompt_report import prompt_report
from ..daam_core.maps.statistics import difference, mean_probability
from ..daam_core.masks.validate import checked_number
from ..daam_core.render import difference as difference_overlay
from ..daam_core.render import report_table
from .concepts import presence_lines
from .convert import MAPS, MapsHandle, as_many, ground, image_of, mask_batch
from .drawing import unit_of
from .node_inputs import Node
from .parse_inputs import SOME_WORDS_HELP, of_one_prompt, side_of, words_of_each

_WORD_HELP = "A word or phrase that stands in both prompts. Empty: every word that can be seen."


class PromptReport(Node):
    """Maps in, a table as text and picture out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensPromptReport",
            display_name="Attention Report",
            category="DAAM Lens",
            description="Each word's share, peak and spread; objects that may be missing; pairs that share their places.",
            is_output_node=True,
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.String.Input("words", multiline=True, default="", tooltip=SOME_WORDS_HELP),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The table as text, one picture after the other."),
                io.Image.Output(display_name="table", tooltip="The table as a picture, one for each picture."),
            ],
        )

    @classmethod
    def execute(cls, maps: MapsHandle, words: str = "") -> io.NodeOutput:
        """One report a picture."""
        told, reports, notes = [], [], []
        for one, names in zip(maps, words_of_each(words, maps), strict=True):
            side, queries = of_one_prompt(names, one)
            asked = [query for query in queries if side.is_concept(query)] or side.concepts
            told.append(side)
            own = [query for query in queries if not side.is_concept(query)]
            reports.append(prompt_report(side, own or side.default_words()))
            notes.append(presence_lines(side, asked))
        tables = [
            report_table(report, one.prompt.text, more=more) for report, one, more in zip(reports, told, notes, strict=True)
        ]
        texts = ["\n".join([*report.lines(), *more]) for report, more in zip(reports, notes, strict=True)]
        if len(texts) > 1:
            texts = [f"picture {i + 1}\n{text}" for i, text in enumerate(texts)]
        text = "\n\n".join(texts)
        return io.NodeOutput(text, image_of(tables), ui={"text": (text,)})


class CompareMaps(Node):
    """Two recordings and a word in; where the word's attention rose and fell out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensCompareMaps",
            display_name="Compare Heat Maps",
            category="DAAM Lens",
            description="What a LoRA, another seed or prompt changed for a word: where its attention rose and where it fell.",
            inputs=[
                MAPS.Input("after", tooltip="The recording to look at, such as that with the LoRA."),
                MAPS.Input("before", tooltip="The recording to compare with: the same prompt and seed without it."),
                io.String.Input("word", default="", tooltip=_WORD_HELP),
                io.Float.Input(
                    "level",
                    default=DEFAULT_TAU,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The mask holds what rose by this share of the largest rise.",
                ),
                io.Float.Input(
                    "opacity", default=DEFAULT_OPACITY, min=0.0, max=1.0, step=0.05, tooltip="How strongly the colours cover."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="change", tooltip="Signed overlay: one colour rose, the other fell."),
                io.Mask.Output(display_name="rose", tooltip="Where the word's attention rose."),
                io.String.Output(
                    display_name="summary",
                    tooltip="How much of its heat lies elsewhere, rose and fell, in words.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, after: MapsHandle, before: MapsHandle, word: str = "", level: float = DEFAULT_TAU, opacity: float = DEFAULT_OPACITY
    ) -> io.NodeOutput:
        """Picture by picture; a recording of one picture is compared with all.

        Raises:
            BadArgument: recordings of different numbers of pictures, or a level or an opacity that is no number from 0 to 1.
        """
        checked_number(level, "level", 0, 1)
        each = as_many(before, len(after), "recording(s) before")
        changes, masks, lines, moves = [], [], [], []
        asked = words_of_each(word, after)
        for i, new in enumerate(after):
            old = each[i]
            for name in asked[i]:
                (side, query), (other, _) = side_of(name, new), side_of(name, old)
                side, other = side.sum_frames(), other.sum_frames()
                change = difference(side, other, query, new.size)
                changes.append((ground(new), change, side.caption(query) if side.is_concept(query) else name))
                top = float(change.max())
                masks.append((change >= level * top) & (change > 0))
                moves.append(moved(*(mean_probability(one, [query], side.grid)[0] for one in (side, other))))
                lines += [_summary(name, moves[-1], change.numpy()), *presence_lines(new, [name])]
        if len(moves) > 1:
            lines.append(f"All {len(moves)}: {np.mean(moves):.1%} of their heat lies elsewhere.")
        how: dict[str, Any] = {"unit": unit_of(after[0]), "among": [label for _, _, label in changes]}
        drawn = [difference_overlay(base, change, opacity, label, True, **how) for base, change, label in changes]
        return io.NodeOutput(image_of(drawn), mask_batch(masks), "\n".join(lines))


def _summary(word: str, elsewhere: float, change: np.ndarray) -> str:
    rose, fell = np.clip(change, 0, None).mean(), np.clip(-change, 0, None).mean()
    part = (change > 0).mean()
    return (
        f"{word}: {elsewhere:.1%} of its heat lies elsewhere; rose over {part:.0%} of the picture; mean gain {rose:.2e}, "
        f"mean loss {fell:.2e}, largest rise {change.max():.2e}, largest fall {-change.min():.2e}"
    )
