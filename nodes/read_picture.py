"""Read Picture: the maps of a picture that was not made here; no sampler to wire."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..daam_core.capture.buffers import StoreOptions
from ..daam_core.defaults import DEFAULT_NOISE
from ..daam_core.errors import BadArgument, quoted
from ..daam_core.maps.crop import cut_back
from ..daam_core.masks.validate import checked_number
from ..daam_core.validate import IN_THE_PICTURE, checked_levels, checked_prompt
from .capture.level_sampler import read_latent
from .capture.record_options import Options
from .capture.recording_encoder import recording_clip
from .capture.sampler_hooks import concept_encoder
from .concepts import CONCEPTS, ConceptList, show_presence
from .convert import MAPS, coloured, hidden, pictures_of
from .node_inputs import Node
from .record import DETAILS

LEVELS = ", ".join(map(str, DEFAULT_NOISE))
MOST_MEGAPIXELS = 4.0
MOST_PIXELS = 2**22
"""Pixels at which pictures are read, all of a batch together: 4 of 1024 x 1024."""


class ReadPicture(Node):
    """MODEL, CLIP, VAE, IMAGE and a text in; maps out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensReadPicture",
            display_name="Read Picture",
            category="DAAM Lens",
            description="Which word of a text stands where in a picture that was not made here. The model is shown the picture "
            "at a few levels of noise; nothing is painted.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="A model that could have painted the picture."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its autoencoder."),
                io.Image.Input("image", tooltip="The picture, or several of one size."),
                io.String.Input(
                    "text", multiline=True, default="", tooltip="What is in the picture, in words that the model knows."
                ),
                io.String.Input(
                    "noise",
                    default=LEVELS,
                    tooltip="Levels of noise in thousandths, 1 to 999; the model takes one pass at each. Low ones place "
                    "objects best.",
                ),
                io.Int.Input("samples", default=1, min=1, max=64, tooltip="How many noises are drawn for each level."),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**63 - 1, control_after_generate=True, tooltip="Same seed, same noise."
                ),
                io.Float.Input(
                    "megapixels",
                    default=0.0,
                    min=0.0,
                    max=MOST_MEGAPIXELS,
                    step=0.01,
                    tooltip="At how many million pixels the model reads; its own number is best (SD 1.5 0.26, SDXL and most "
                    "newer ones 1.05). 0 is the picture's own size.",
                ),
                io.Combo.Input(
                    "detail",
                    options=DETAILS,
                    default="off",
                    tooltip="Keep layers or noise levels (steps) apart, so that they can be chosen later. Takes more memory.",
                ),
                CONCEPTS.Input(
                    "concepts",
                    optional=True,
                    tooltip="From Concepts: what to look for although the text does not hold it. With an empty text they are "
                    "the text: name only what is in the picture.",
                ),
            ],
            outputs=[MAPS.Output(display_name="maps", tooltip="Like those of Word Heat Maps, for all other DAAM Lens nodes.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        image: Tensor,
        text: str,
        noise: str = LEVELS,
        samples: int = 1,
        seed: int = 0,
        megapixels: float = 0.0,
        detail: str = "off",
        concepts: ConceptList = (),
    ) -> io.NodeOutput:
        """Encode, show at each level, cut back to the picture.

        Raises:
            BadArgument: no levels, or more pixels than are read at once.
            BadPrompt: the text is empty.
            UnsupportedModel: the model adds noise in a way that is not known.
            NothingRecorded: its attention could not be recorded.
        """
        levels = checked_levels(levels_of(noise), samples)
        # With nothing else to stand against, they stand against each other.
        words = checked_prompt(text if text.strip() else ", ".join(one.text for one in concepts), "text", IN_THE_PICTURE)
        size = reading_size((image.shape[1], image.shape[2]), len(image), megapixels)
        scaled = _resized(coloured(image), size)
        padded = _padded(scaled, _multiple(model, vae))
        encoder = recording_clip(clip, concept_encoder(model, concepts))
        conditioning = encoder.encode_from_tokens_scheduled(encoder.tokenize(words))
        keep = StoreOptions(layers="layers" in detail, steps="steps" in detail, self_attention=True)
        options = Options(keep, concepts=concepts)
        found, note = read_latent(model, vae.encode(padded), conditioning, levels, seed, options)
        full = (int(padded.shape[1]), int(padded.shape[2]))
        pictures = pictures_of(image)
        maps = [
            cut_back(dataclasses.replace(one, size=full, picture=None), size, picture)
            for one, picture in zip(found, pictures, strict=True)
        ]
        show_presence(hidden(cls, "unique_id"), tuple(maps), [one.concepts for one in maps], note)
        return io.NodeOutput(tuple(maps))


def levels_of(text: str) -> list[float]:
    """Levels with commas or spaces between. Raises BadArgument."""
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise BadArgument(f"noise is a list of levels from 1 to 999, as in {LEVELS}; not {quoted(text, 80)}.") from None


def reading_size(size: tuple[int, int], count: int, megapixels: float) -> tuple[int, int]:
    """(height, width) at which pictures are read. Raises BadArgument for more pixels than are read at once, or no number."""
    height, width = size
    if checked_number(megapixels, "megapixels", 0, MOST_MEGAPIXELS):
        scale = math.sqrt(megapixels * 1e6 / (height * width))
        height, width = max(8, round(height * scale)), max(8, round(width * scale))
    if count * height * width > MOST_PIXELS:
        raise BadArgument(
            f"{count} picture(s) of {width} x {height} pixels are too much to read at once; set megapixels to what the model "
            "was made for (SD 1.5 0.26, SDXL 1.05), or give fewer pictures."
        )
    return height, width


def _multiple(model: Any, vae: Any) -> int:
    """What the sides of a picture are multiples of: cells of the autoencoder, two of them a patch of a transformer."""
    factor = getattr(model.model.latent_format, "spacial_downscale_ratio", None) or 8
    unet = hasattr(model.get_model_object("diffusion_model"), "input_blocks")
    return math.lcm(8, int(factor) * (1 if unet else 2))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """IMAGE `[pictures, H, W, 3]` at another size."""
    if tuple(image.shape[1:3]) == size:
        return image
    return comfy.utils.common_upscale(image.movedim(-1, 1), size[1], size[0], "area", "disabled").movedim(1, -1)


def _padded(image: Tensor, multiple: int) -> Tensor:
    """IMAGE with sides that are multiples, the edge repeated below and on the right."""
    below, right = (-side % multiple for side in image.shape[1:3])
    return torch.nn.functional.pad(image.movedim(-1, 1), (0, right, 0, below), mode="replicate").movedim(1, -1)
