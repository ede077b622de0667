"""One prediction of the sampler: what each row of the model's batch is told, and the proof that it is told that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from daam_core.capture.region import Area
from daam_core.errors import NothingRecorded
from daam_core.prompt.tokenization import CHUNK
from daam_core.types import Grid

from .batch_rows import Label, Side, in_order
from .latent_proof import LatentProof
from .schedule import PassTexts, text_at

MARK = 1024.0
"""What the column is full of that the ControlNet extension puts before a text, see `unmarked`."""
OTHER_ORDER = (
    "Another extension puts the prompts of the pictures that are sampled together into another order (Regional Prompter's "
    "Latent mode does), so nobody can say which word is whose. Make one picture at a time (batch size 1) to get heat maps."
)


@dataclass
class SamplingStep:
    """What the host is about to ask its UNet.

    Attributes:
        texts: what each label says now.
        conditioning: the host's text conditioning of each side, `[prompts, columns, width]`; a side that is missing is not
            sampled.
        rows: the row of `conditioning` that is a label's.
        size: (h, w) of the sampler's latent.
        sigma: the noise level.
        area: the part of the finished picture that is sampled.
        order: rows in A1111's order; `at` is the next of them.
        recorded: conditionings that were recorded in this step, in Forge's order.
        shown: whether the model was shown the picture that is sampled.
        labelled: whether it is known of any row of that whose it is.
        latents: tells which calls of the model show it.
    """

    texts: dict[Label, str]
    conditioning: dict[Side, Tensor]
    rows: dict[Label, int]
    size: Grid
    sigma: Any
    area: Area
    order: list[Label]
    at: int = 0
    recorded: set[tuple[Side, int]] = field(default_factory=set)
    shown: bool = False
    labelled: bool = False
    latents: LatentProof = field(default_factory=LatentProof)

    @property
    def columns(self) -> dict[Side, int]:
        """Columns of the conditioning on each side."""
        return {side: tensor.shape[1] for side, tensor in self.conditioning.items()}

    @property
    def images(self) -> int:
        """Pictures of the batch."""
        return 1 + max(label.image for label in self.rows)

    def alike(self, context: Tensor | None, rows: slice) -> list[tuple[Side, int]]:
        """The conditionings, side and AND part, that these rows of a context say."""
        if context is None:
            return []
        parts: dict[tuple[Side, int], list[int]] = {}
        for label, row in self.rows.items():
            parts.setdefault((label.side, label.group), []).append(row)
        found = []
        for (side, group), numbers in parts.items():
            if side in self.conditioning:
                expected = self.conditioning[side][numbers]
                seen = context[rows, : expected.shape[1]]
                if seen.shape == expected.shape and bool((seen == expected.to(seen)).all()):
                    found.append((side, group))
        return found

    def part_of(self, context: Tensor | None, rows: slice, done: Sequence[int]) -> int | None:
        """Which AND part these rows of a context say: by its content, since Forge's order depends on what fits into memory.

        Args:
            done: parts that were met before in this step.
        """
        parts: dict[int, list[int]] = {}
        for label, row in self.rows.items():
            if label.side == "prompt":
                parts.setdefault(label.group, []).append(row)
        left = [number for number in parts if number not in done and len(parts[number]) == len(parts[0])]
        if len(left) < 2 or context is None:
            return left[-1] if left else None
        conditioning = self.conditioning["prompt"]
        seen = context[rows, : conditioning.shape[1]]
        for number in left:
            expected = conditioning[parts[number]]
            if seen.shape == expected.shape and bool((seen == expected.to(seen)).all()):
                return number
        return left[-1]


def sampling_step(params: Any, texts: PassTexts, area: Area) -> SamplingStep:
    """The step of `CFGDenoiserParams`.

    Raises:
        NothingRecorded: there are not as many conditionings as there are prompts.
    """
    at = int(params.denoiser.step)
    said: dict[Label, str] = {}
    rows: dict[Label, int] = {}
    count = 0
    for image, parts in enumerate(texts.prompts):
        for group, schedule in enumerate(parts):
            label = Label("prompt", image, group)
            said[label], rows[label] = text_at(schedule, at), count
            count += 1
        negative = Label("negative", image)
        said[negative], rows[negative] = text_at(texts.negatives[image], at), image
    conditioning: dict[Side, Tensor] = {"prompt": crossattn(params.text_cond)}
    if params.text_uncond is not None:
        conditioning["negative"] = crossattn(params.text_uncond)
    if len(conditioning["prompt"]) != count:
        raise NothingRecorded(
            f"Another extension changed the prompts: {len(conditioning['prompt'])} were sampled where {count} were written. "
            "Switch it off to get heat maps."
        )
    height, width = params.x.shape[-2:]
    order = in_order([len(parts) for parts in texts.prompts])
    _require_order(params.x, order, len(texts.prompts))
    return SamplingStep(said, conditioning, rows, (int(height), int(width)), params.sigma, area, order)


def _require_order(latents: Tensor, order: Sequence[Label], images: int) -> None:
    """Where a host gives the model a row for each label at once, the latent of each is its picture's.

    Raises:
        NothingRecorded: an extension has put them into another order.
    """
    count = len(order) - images
    if len(latents) != len(order) or count == images or images == 1:
        return
    found, expected = latents[:count], latents[count:][[label.image for label in order[:count]]]
    if not bool(((found == expected) | found.isnan()).all()):
        raise NothingRecorded(OTHER_ORDER)


def crossattn(conditioning: Any) -> Tensor:
    """The host's text conditioning `[prompts, columns, width]`: a tensor, or inside a dictionary (XL)."""
    found: Tensor = conditioning if isinstance(conditioning, Tensor) else conditioning["crossattn"]
    return unmarked(columns_of(found))


def unmarked(text: Tensor) -> Tensor:
    """`[prompts, columns, width]` without the column that the ControlNet extension puts before each text while it samples: full
    of 1024 in a prompt and of -1024 in a negative prompt, and taken away before the model's layers see it."""
    if text.dim() == 3 and text.shape[1] % CHUNK == 1 and bool((text[:, 0].abs() == MARK).all()):
        return text[:, 1:]
    return text


def columns_of(text: Tensor) -> Tensor:
    """`[prompts, columns, width]` of a text that some of Forge Neo's models have as `[prompts, 1, columns, width]`."""
    return text[:, 0] if text.dim() == 4 and text.shape[1] == 1 else text
