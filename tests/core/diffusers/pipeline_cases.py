"""Small pipelines with transformers, how each is called, and where its texts stand, from its source and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from daam_core import trace
from daam_core.types import Side

from ..capture.attention_witness import Witness
from . import detour_pipelines as detour
from . import transformer_pipelines as made

PROMPTS, NEGATIVES = made.PROMPTS, made.NEGATIVES
HEIGHT, WIDTH, PATCHES = 64, 96, 24
SIDES: tuple[Side, ...] = ("prompt", "negative")


@dataclass
class Case:
    """One pipeline, and what its source says of it.

    Attributes:
        options: of its call.
        size: (queries, keys) of the attention of the picture to the text, for a row of the batch; 0 where it depends.
        rows: (which call of the model in a step, which row of its batch) of a side's picture.
        keys: the keys of a word of a text, found with the tokenizers' own offsets.
        first: the first query of the picture; -1 where it comes behind as many columns as the longest text has.
        cross: whether the text has an attention of its own.
        several: the argument that says how many pictures are made of each prompt; empty where there is none.
        off: what switches guidance off.
    """

    make: Callable[[], Any]
    options: dict[str, Any]
    size: tuple[int, int]
    rows: Callable[[Side, int], tuple[int, int]]
    keys: Callable[[Any, str, str], list[int]]
    first: int = 0
    frames: int = 1
    cross: bool = False
    several: str = "num_images_per_prompt"
    off: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})

    def reads(self, size: tuple[int, int]) -> bool:
        """Whether an attention of so many queries on so many keys is the picture's to the text."""
        if self.cross and size[0] == size[1]:
            return False
        return all(own in (0, seen) for own, seen in zip(self.size, size, strict=True))


def at(tokenizer: Any, text: str, prompt: str, word: str, dropped: int = 0, base: int = 0) -> list[int]:
    """Keys of a word of a prompt that stands at the end of a templated text."""
    begin = text.rindex(prompt) + prompt.index(word)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    touched = [i for i, (a, b) in enumerate(offsets) if a < begin + len(word) and b > begin]
    # A piece may hold the space before its word.
    return [base + i - dropped for i in touched if text[offsets[i][0] : offsets[i][1]].strip()]


def stacked(order: tuple[Side, Side]) -> Callable[[Side, int], tuple[int, int]]:
    return lambda side, image: (0, 2 * order.index(side) + image)


def in_turn(side: Side, image: int) -> tuple[int, int]:
    return SIDES.index(side), image


def chat(pipe: Any, prompt: str) -> str:
    message = [{"role": "user", "content": prompt}]
    return str(pipe.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def z_image_keys(pipe: Any, prompt: str, word: str) -> list[int]:
    text = chat(pipe, prompt)
    begin = len(text) - len(text.split(prompt)[-1]) - len(prompt)
    return [k for k in at(pipe.tokenizer, text, prompt, word, base=32) if begin >= 0]


CFG, NO_CFG = {"true_cfg_scale": 2.0}, {"true_cfg_scale": 1.0}
CASES = {
    "flux": Case(
        made.flux, {**CFG, "max_sequence_length": 20}, (20 + PATCHES, 20 + PATCHES), in_turn,
        lambda pipe, prompt, word: at(pipe.tokenizer_2, prompt, prompt, word), first=20, off=NO_CFG,
    ),
    "sd3": Case(
        made.stable_diffusion_3, {"max_sequence_length": 20}, (97 + PATCHES, 97 + PATCHES), stacked(("negative", "prompt")),
        lambda pipe, prompt, word: [
            *at(pipe.tokenizer, prompt, prompt, word, base=PATCHES),
            *at(pipe.tokenizer_3, prompt, prompt, word, base=PATCHES + 77),
        ],
    ),
    "qwen": Case(
        made.qwen_image, CFG, (0, 0), in_turn,
        lambda pipe, prompt, word: at(pipe.tokenizer, pipe.prompt_template_encode.format(prompt), prompt, word, 34),
        first=-1, off=NO_CFG,
    ),
    "z-image": Case(made.z_image, {}, (64, 64), stacked(("prompt", "negative")), z_image_keys, off={"guidance_scale": 0.0}),
    "pixart": Case(
        made.pixart, {"use_resolution_binning": False}, (PATCHES, 300), stacked(("negative", "prompt")),
        lambda pipe, prompt, word: at(pipe.tokenizer, prompt, prompt, word),
    ),
    "longcat": Case(
        detour.longcat, {"enable_prompt_rewrite": False}, (512 + PATCHES, 512 + PATCHES), in_turn,
        lambda pipe, prompt, word: at(pipe.tokenizer, prompt, prompt, word), first=512,
    ),
    "joyimage plus": Case(
        detour.joyimage_plus, {}, (0, 0), stacked(("negative", "prompt")),
        lambda pipe, prompt, word: at(
            pipe.tokenizer, pipe.prompt_template_encode["multiple_images"].format(f"<|im_start|>user\n{prompt}<|im_end|>\n"),
            prompt, word, 34, PATCHES,
        ), several="",
    ),
    "qwen 2.1": Case(
        detour.qwen_image21, CFG, (PATCHES, 0), in_turn,
        lambda pipe, prompt, word: at(
            pipe.processor.tokenizer, pipe.prompt_template_t2i.format(prompt), prompt, word, pipe._drop_idx
        ), off=NO_CFG,
    ),
    "nucleus": Case(
        detour.nucleus, {}, (PATCHES, 0), in_turn,
        lambda pipe, prompt, word: at(pipe.processor.tokenizer, pipe._format_prompt(prompt), prompt, word, base=PATCHES),
    ),
    "bria fibo 2": Case(
        detour.bria_fibo2, {}, (4 + PATCHES, 0), in_turn,
        lambda pipe, prompt, word: at(
            pipe.processor.tokenizer, pipe.prompt_template_encode.format(prompt), prompt, word
        ), first=4, cross=True,
    ),
    "ltx 2": Case(
        detour.ltx2, {"num_frames": 3, "max_sequence_length": 15}, (2 * PATCHES, 15), stacked(("negative", "prompt")),
        lambda pipe, prompt, word: at(pipe.tokenizer, prompt, prompt, word), frames=2,
        several="num_videos_per_prompt", off={"guidance_scale": 1.0, "audio_guidance_scale": 1.0},
    ),
    "wan": Case(
        made.wan, {"num_frames": 5, "max_sequence_length": 20}, (2 * PATCHES, 20), in_turn,
        lambda pipe, prompt, word: at(pipe.tokenizer, prompt, prompt, word), frames=2, several="num_videos_per_prompt",
    ),
}  # fmt: skip


def paint(pipe: Any, case: Case, prompts: Any = PROMPTS, negatives: Any = NEGATIVES, **more: Any) -> Tensor:
    options: dict[str, Any] = {
        "num_inference_steps": 2, "height": HEIGHT, "width": WIDTH, "output_type": "latent",
        "generator": torch.Generator().manual_seed(1), "negative_prompt": negatives and list(negatives),
    }  # fmt: skip
    prompts = list(prompts) if isinstance(prompts, list) else prompts
    out = pipe(prompt=prompts, **{**options, **case.options, **more})
    return torch.as_tensor(
        out[0] if isinstance(out, tuple) else getattr(out, "images", None) if hasattr(out, "images") else out.frames
    )


def expected(
    witness: Witness, forwards: list[int], case: Case, pipe: Any, side: Any, image: int, text: str, word: str
) -> Tensor:
    call, row = case.rows(side, image)
    each = len(forwards) // 2
    keys = case.keys(pipe, text, word)
    total = torch.zeros(case.frames, PATCHES, dtype=torch.float64)
    for step in (0, 1):
        first = forwards[step * each + call]
        last = next((f for f in forwards if f > first), len(witness.calls))
        for index in range(first, last):
            q, k, *_ = witness.calls[index]
            size, where = (q.shape[-2], k.shape[-2]), case.first
            if case.first < 0:
                where = size[0] - PATCHES
            elif not case.reads(size):
                continue
            p = witness.probabilities(index)[row].sum(0)[where : where + case.frames * PATCHES, keys].sum(-1)
            total += p.unflatten(0, (case.frames, PATCHES))
    maps = total.unflatten(1, (4, 6))
    return maps if case.frames > 1 else maps[0]


def worst_error(pipe: Any, case: Case) -> float:
    """The largest error of a word's map of each text of each picture against float64 probabilities, as a share of its terms."""
    with trace(pipe, negative=True) as recording:
        paint(pipe, case)
    maps = list(recording)
    forwards: list[int] = []
    witness = Witness()
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: forwards.append(len(witness.calls)))
    with witness:
        paint(pipe, case)
    handle.remove()
    worst = 0.0
    for side, texts, word in (("prompt", PROMPTS, ("green", "cats")), ("negative", NEGATIVES, ("dark", "cats"))):
        for image in (0, 1):
            wanted = expected(witness, forwards, case, pipe, side, image, texts[image], word[image])
            assert float(wanted.std()) > 0, "a map that is alike everywhere proves nothing"
            own = maps[image] if side == "prompt" else maps[image].negative
            error = (own.heat_map(word[image]).double() - wanted).abs().max() / own.num_terms[4, 6]
            worst = max(worst, float(error))
    return worst
