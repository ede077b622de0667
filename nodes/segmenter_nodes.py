"""Word To Segmenter and Score Masks: between a word's map and ComfyUI's SAM 3 (or any node that takes points and boxes)."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..daam_core.defaults import DEFAULT_TAU
from ..daam_core.errors import BadArgument, quoted
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.maps.segmenter_prompts import MOST_POINTS, score_masks, segmenter_prompts
from ..daam_core.masks.methods import MASK_METHODS
from ..daam_core.masks.points import Point
from ..daam_core.render import outline, table
from ..daam_core.render.marks import mark_points
from .concepts import presence_lines, show_presence
from .convert import MAPS, MapsHandle, ground, hidden, image_of, resized, with_pictures
from .mask import united
from .node_inputs import Node
from .parse_inputs import side_of, words_in

BOXES = io.Custom("BOUNDING_BOX")
MOST_MASKS = 256
_WORD_HELP = "One word or phrase of the prompt; `house#2` is the second house, `negative:blurry` a word of the negative prompt."
_PICTURE_HELP = "Which picture of the batch, from 0."


class WordToSegmenter(Node):
    """Maps and a word in; points, boxes and a mask for a segmenter out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensWordToSegmenter",
            display_name="Word To Segmenter (SAM 3)",
            category="DAAM Lens",
            description="Where a word painted, as points and boxes for SAM 3: which of the three dogs did this word paint?",
            hidden=[io.Hidden.unique_id],
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.String.Input("word", default="", tooltip=_WORD_HELP),
                io.Image.Input("image", optional=True, tooltip="The pictures, if Word Heat Maps did not get them."),
                io.Int.Input("picture", default=0, min=0, max=4095, tooltip=_PICTURE_HELP),
                io.Int.Input(
                    "positive_points", default=3, min=0, max=MOST_POINTS, tooltip="Points on the word's own places, at most."
                ),
                io.Int.Input(
                    "negative_points", default=3, min=0, max=MOST_POINTS, tooltip="Points on the prompt's other nouns, at most."
                ),
                io.Combo.Input(
                    "method", options=list(MASK_METHODS), default="best", tooltip="How its mask is found, as in Word Mask."
                ),
                io.Float.Input(
                    "tau", default=DEFAULT_TAU, min=0.0, max=1.0, step=0.01, tooltip="Level as a share of the maximum."
                ),
                io.Float.Input(
                    "smallest", default=0.5, min=0.0, max=100.0, step=0.1,
                    tooltip="Parts of the mask below this per cent of the picture get no box.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="positive_coords", tooltip='JSON [{"x": …, "y": …}] in pixels, for SAM3 Detect.'),
                io.String.Output(display_name="negative_coords", tooltip="The same for what is not the word."),
                BOXES.Output(display_name="bboxes", tooltip="A box (x, y, width, height) a part of the mask, largest first."),
                io.Image.Output(display_name="image", tooltip="The one picture that the points belong to."),
                io.Mask.Output(display_name="mask", tooltip="The word's mask, also for initial_mask of SAM3 Video Track."),
                io.Image.Output(display_name="preview", tooltip="The picture with points, boxes and the mask's edge."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        maps: MapsHandle,
        word: str = "",
        image: Any = None,
        picture: int = 0,
        positive_points: int = 3,
        negative_points: int = 3,
        method: str = "best",
        tau: float = DEFAULT_TAU,
        smallest: float = 0.5,
    ) -> io.NodeOutput:
        """Points of one picture: a segmenter lays the same points over every picture it is given."""
        one = _picture_of(with_pictures(maps, image), picture)
        name = _single(word, one)
        side, query = side_of(name, one)
        show_presence(hidden(cls, "unique_id"), (one,), [[name]])
        mask = united(one, [name], method, tau, None)
        asked = segmenter_prompts(side, query, mask, positive=positive_points, negative=negative_points, smallest=smallest)
        base = ground(one)
        drawn = mark_points(outline(base, mask.float().numpy(), dim=0.3), asked.positive, asked.negative, asked.boxes)
        return io.NodeOutput(
            _json(asked.positive),
            _json(asked.negative),
            [box._asdict() for box in asked.boxes],
            image_of([base]),
            mask.float()[None],
            image_of([drawn]),
        )


class ScoreMasks(Node):
    """Maps, a word and masks of anybody in; how each fits the word, and the one that fits best, out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensScoreMasks",
            display_name="Score Masks By Word",
            category="DAAM Lens",
            description="Which of these masks (SAM 3's individual masks, or any) did the word paint?",
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.Mask.Input("masks", tooltip="One mask an object, all of one picture: SAM3 Detect with individual_masks on."),
                io.String.Input("word", default="", tooltip=_WORD_HELP),
                io.Int.Input("picture", default=0, min=0, max=4095, tooltip=_PICTURE_HELP),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="The mask with the most of the word's heat for its size."),
                io.Int.Output(display_name="number", tooltip="Which one it is, from 0."),
                io.String.Output(display_name="scores", tooltip="Share of the word's heat inside each mask, lift, and IoU."),
                io.Image.Output(display_name="table", tooltip="The scores as a picture."),
            ],
        )

    @classmethod
    def execute(cls, maps: MapsHandle, masks: Tensor, word: str = "", picture: int = 0) -> io.NodeOutput:
        """Scores of every mask; the best by lift among those that hold at least half as much heat as the fullest."""
        one = _picture_of(maps, picture)
        given = masks.reshape(-1, *masks.shape[-2:])
        if not len(given) or float(given.max()) <= 0:
            raise BadArgument("There is no mask to score: the segmenter found nothing. Lower its threshold.")
        if len(given) > MOST_MASKS:
            raise BadArgument(f"{len(given)} masks are more than the {MOST_MASKS} that are scored at once.")
        name = _single(word, one)
        side, query = side_of(name, one)
        sized = [resized(mask, one.size) for mask in given]
        scores = score_masks(side, query, sized, united(one, [name], "best", DEFAULT_TAU, None))
        full = max(score.share for score in scores)
        best = max(range(len(scores)), key=lambda i: (scores[i].share >= full / 2, scores[i].lift))
        lines = [
            f"mask {i}: {score.share:.1%} of {quoted(name)}, x{score.lift:.2f}, IoU {score.iou:.2f}"
            for i, score in enumerate(scores)
        ]
        lines += (notes := presence_lines(one, [name]))
        rows = [(f"mask {i}", s.share, f"{s.lift:.2f} x its size", f"{s.iou:.2f}") for i, s in enumerate(scores)]
        drawn = table(["", f"share of {name}", "heat inside", "IoU with its mask"], rows, notes, title=f"mask {best} fits best")
        return io.NodeOutput(given[best][None], best, "\n".join(lines), image_of([drawn]))


def _picture_of(maps: MapsHandle, picture: int) -> HeatMaps:
    if picture >= len(maps):
        raise BadArgument(f"There is no picture {picture}: the maps are of {len(maps)}, counted from 0.")
    one = maps[picture]
    return one if one.num_frames == 1 else one.select(frames=[0])  # of a video the frame that a segmenter starts from


def _single(word: str, maps: HeatMaps) -> str:
    """The one word that was asked for. Raises BadArgument where none or several were."""
    if not word.strip():
        raise BadArgument(f"Type one word of the prompt. Its words are: {', '.join(maps.words)}.")
    names = words_in(word, maps)
    if len(names) != 1:
        raise BadArgument(f"Type one word or phrase, not {len(names)}: {', '.join(names)}.")
    return names[0]


def _json(points: list[Point]) -> str:
    return json.dumps([{"x": x, "y": y} for x, y in points])
