"""Mask: from a word to a MASK that goes straight on into inpainting."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..daam_core import masks as core
from ..daam_core.defaults import DEFAULT_TAU
from ..daam_core.errors import BadArgument, DetailMissing, quoted
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.masks.methods import MASK_METHODS
from ..daam_core.render import outline
from .concepts import show_presence
from .convert import MAPS, MapsHandle, frames_shown, grounds, hidden, image_of, mask_batch, with_pictures
from .node_inputs import Node
from .parse_inputs import WORDS_HELP, of_frames, side_of, words_of_each

SOFT = "soft"
_FRAMES_HELP = (
    "Only these latent frames of a video, from 0; -1 is the last one. Empty: all, and a mask for each frame of the video where "
    "its frames are known. All frames of a video share one level, so that the masks follow one object."
)


class MaskNode(Node):
    """Maps and words in, one MASK a picture out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensMask",
            display_name="Word Mask",
            category="DAAM Lens",
            description="Turns words into masks: of several words, the union.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps or Load Heat Maps."),
                io.String.Input("words", multiline=True, default="", tooltip=WORDS_HELP),
                io.Combo.Input(
                    "method",
                    options=[*MASK_METHODS, SOFT],
                    default="best",
                    tooltip="best: by heat and by the picture's edges, the choice for most pictures. threshold: all that has "
                    "at least tau of the most heat (Eq. 7). otsu: finds the level by itself. compete: against the other nouns. "
                    "walk: heat is spread over what looks alike to the model (its self-attention). guided, grabcut: fitted to "
                    "the picture's edges. soft: grey edges around tau.",
                ),
                io.Float.Input(
                    "tau",
                    default=DEFAULT_TAU,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Level as a share of the maximum; not for best and otsu.",
                ),
                io.String.Input(
                    "against",
                    default="",
                    placeholder="the other nouns",
                    tooltip="Words it competes with, between commas. Empty: the prompt's other nouns.",
                ),
                io.Image.Input("image", optional=True, tooltip="The picture to snap to, if Word Heat Maps did not get it."),
                io.Int.Input(
                    "grow", default=0, min=-512, max=512, tooltip="Pixels to grow the mask by; below zero it shrinks."
                ),
                io.Int.Input("feather", default=0, min=0, max=512, tooltip="Pixels over which the edge becomes soft."),
                io.Boolean.Input("fill_holes", default=False, tooltip="Close holes."),
                io.Float.Input(
                    "smallest",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Drop parts below this per cent of the picture.",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the word."),
                io.String.Input("frames", default="", placeholder="all", optional=True, tooltip=_FRAMES_HELP),
            ],
            outputs=[
                io.Mask.Output(display_name="mask", tooltip="One mask a picture, or a frame of a video, 0..1."),
                io.Image.Output(display_name="preview", tooltip="The picture with the mask's edge."),
                io.Mask.Output(
                    display_name="first frame",
                    tooltip="One mask a word, of the first frame (or picture): initial_mask of SAM3 Video Track.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        maps: MapsHandle,
        words: str = "",
        method: str = "best",
        tau: float = DEFAULT_TAU,
        against: str = "",
        image: Any = None,
        grow: int = 0,
        feather: int = 0,
        fill_holes: bool = False,
        smallest: float = 0.0,
        invert: bool = False,
        frames: str = "",
    ) -> io.NodeOutput:
        """A mask for every picture of the batch, or every frame of a video."""
        handle = tuple(of_frames(one, frames) for one in with_pictures(maps, image))
        rivals = words_of_each(against, handle) if against.strip() else None
        bar = comfy.utils.ProgressBar(len(handle))
        cleanup = core.Cleanup(fill_holes, smallest, grow, invert, feather)
        made: list[Tensor] = []
        firsts: list[Tensor] = []
        asked = words_of_each(words, handle)
        for i, one in enumerate(handle):
            against_these = None if rivals is None else [side_of(word, one)[1] for word in rivals[i]]
            parts = word_masks(one, asked[i], method, tau, against_these)
            for mask in _frames_of(_together(parts)):
                made.append(cleanup.apply(mask))
            firsts = firsts or [cleanup.apply(_frames_of(part)[0]) for part in parts]
            bar.update(1)
        show_presence(hidden(cls, "unique_id"), handle, asked)
        shown = [picture for one in handle for picture in grounds(one)]
        previews = (outline(picture, mask.float().numpy(), dim=0.45) for picture, mask in zip(shown, made, strict=True))
        return io.NodeOutput(mask_batch(made), image_of(previews, len(made)), mask_batch(firsts))


def united(maps: HeatMaps, words: list[str], method: str, tau: float, against: list[str] | None) -> Tensor:
    """The union of the words' masks: bool `[H, W]`, float32 0..1 for "soft"; of a video `[frames, H, W]`.

    Raises:
        DetailMissing: the method needs the picture or self-attention.
    """
    return _together(word_masks(maps, words, method, tau, against))


def word_masks(maps: HeatMaps, words: list[str], method: str, tau: float, against: list[str] | None) -> list[Tensor]:
    """The mask of each word, as `united` joins them."""
    parts = []
    # A video has a mask for each of its own frames, where they are known.
    count = None if maps.num_frames == 1 else frames_shown(maps)
    picture = maps.picture if maps.num_frames == 1 else None
    for word in words:
        side, query = side_of(word, maps)
        if method == SOFT:
            heat = side.heat_map(query, maps.size, count)
            parts.append(core.soft(heat.reshape(-1, heat.shape[-1]), tau).reshape(heat.shape))
            continue
        try:
            parts.append(side.mask(query, method, tau=tau, image=picture, competitors=against, size=maps.size, frames=count))
        except DetailMissing as error:
            told = method_needs(method)
            if not told:
                raise BadArgument(f"The method {quoted(method)} needs something that was not recorded.") from error
            raise DetailMissing(told) from error
    return parts


def _together(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).any(0) if parts[0].dtype == torch.bool else torch.stack(parts).amax(0)


def _frames_of(mask: Tensor) -> Tensor:
    """A mask `[H, W]` or `[frames, H, W]` as `[frames, H, W]`."""
    return mask if mask.dim() == 3 else mask[None]


def method_needs(method: str) -> str:
    """What to do where a method lacks what it needs, empty where it needs nothing but maps."""
    if method == "walk":
        return (
            "This method follows self-attention, which was not recorded. Switch `self_attention` on in the Record Attention "
            "node."
        )
    if method in ("guided", "grabcut"):
        return "This method snaps to the picture, which is not known. Connect `image` here or in Word Heat Maps."
    return ""
