"""AUTOMATIC1111: `ldm` models, prompts first in the batch, hypernetworks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..batch_rows import Label
from ..sampling_step import SamplingStep, crossattn
from ..schedule import PassTexts, pass_texts
from .protocol import UNetCall, WebUI

_PARSER = (
    "get_multicond_prompt_list", "get_learned_conditioning_prompt_schedules", "get_learned_conditioning",
    "get_multicond_learned_conditioning", "reconstruct_cond_batch", "reconstruct_multicond_batch",
)  # fmt: skip
"""The functions of the host's `prompt_parser` between a prompt and what is sampled."""


class A1111(WebUI):
    """What the others inherit where they do not differ."""

    repeats_context = False

    # -- sampling ---------------------------------------------------------------------------------------------------

    def pass_texts(self, p: Any, second: bool) -> PassTexts:
        from modules import prompt_parser

        prompts, negatives = (p.hr_prompts, p.hr_negative_prompts) if second else (p.prompts, p.negative_prompts)
        return pass_texts(prompt_parser, list(prompts), list(negatives), self.schedule_steps(p, second))

    def schedule_steps(self, p: Any, second: bool) -> Sequence[Any]:
        """The arguments behind the prompts of the host's schedule parser: steps, steps of the second pass, old rules or not."""
        from modules import shared

        old = bool(getattr(shared.opts, "use_old_scheduling", False))
        first = _calls(p.sampler_name, p.steps)
        if not second:
            return first, None, old
        return first, _calls(getattr(p, "hr_sampler_name", None) or p.sampler_name, p.hr_second_pass_steps or p.steps), old

    def reads_otherwise(self) -> bool:
        from modules import prompt_parser

        functions = (getattr(prompt_parser, name, None) for name in _PARSER)
        return any(getattr(one, "__globals__", None) is not vars(prompt_parser) for one in functions)

    def encodes_ahead(self) -> bool:
        from modules import shared

        return bool(getattr(shared.opts, "hires_fix_use_firstpass_conds", False))

    def unet(self, model: Any) -> nn.Module:
        found: nn.Module = model.model.diffusion_model
        return found

    def chunks(self, engine: Any, line: str) -> Sequence[Any] | None:
        """The host's "old emphasis implementation" has a syntax of its own: one chunk, the rest is cut off; the figure of
        `(red:1.3)` is part of the text, and BREAK a word."""
        if not hasattr(engine, "hijack"):
            return None  # Forge's engines, which have the new one alone
        from modules import shared

        if not getattr(shared.opts, "use_old_emphasis_implementation", False):
            return None
        from modules.sd_hijack_clip_old import process_text_old

        weights, tokens, _, _, fixes, _ = process_text_old(engine, [line])
        placed = [SimpleNamespace(offset=offset, embedding=embedding) for offset, embedding in fixes[0]]
        return [SimpleNamespace(tokens=tokens[0], multipliers=weights[0], fixes=placed)]

    def encode_texts(self, model: Any, texts: Sequence[str]) -> Tensor:
        from modules import devices, prompt_parser, shared

        if hasattr(model, "set_clip_skip"):  # Forge and its kin, whenever they encode a prompt
            model.set_clip_skip(int(shared.opts.CLIP_stop_at_last_layers))
        with self._kept_notes(model), devices.autocast():
            found = model.get_learned_conditioning(prompt_parser.SdConditioning(list(texts)))
        return crossattn(found)

    def encode_alone(self, model: Any, engine: str, text: str) -> Tensor:
        return self.encode_texts(model, [text])[0]

    @contextmanager
    def _kept_notes(self, model: Any) -> Iterator[None]:
        """Whatever the encoder notes for the infotext inside the block is forgotten: it is of no prompt."""
        from modules.sd_hijack import model_hijack

        notes, comments = dict(model_hijack.extra_generation_params), list(model_hijack.comments)
        try:
            yield
        finally:
            model_hijack.extra_generation_params, model_hijack.comments = notes, comments

    def labels(self, call: UNetCall, step: SamplingStep) -> list[Label | None]:
        """In order over the calls of a prediction; what comes behind the last is not the sampler's."""
        labels: list[Label | None] = list(step.order[step.at : step.at + call.rows])
        step.at += call.rows
        return labels + [None] * (call.rows - len(labels))

    def watch_answers(self, model: Any, seen: Callable[[Tensor, Tensor], None]) -> AbstractContextManager[None]:
        return nullcontext()  # a callback of the sampler's tells of them

    def references(self) -> Sequence[Tensor]:
        return ()

    def changes_keys(self) -> bool:
        from modules import shared

        return bool(getattr(shared, "loaded_hypernetworks", ()))

    # -- page and files ---------------------------------------------------------------------------------------------

    def ticked_accordion(self, label: str, elem_id: str) -> Any:
        from modules.ui_components import InputAccordion

        return InputAccordion(False, label=label, elem_id=elem_id)

    def sends_size(self) -> bool:
        from modules import shared

        return bool(getattr(shared.opts, "send_size", True))

    def keeps_upscaled(self) -> bool:
        from modules import shared

        return bool(getattr(shared.opts, "hires_button_gallery_insert", False))

    def tells_upscaled(self) -> bool:
        from modules import shared

        return not hasattr(shared.opts, "hires_button_gallery_insert")  # versions with this setting give one text for all

    def tells_users(self) -> bool:
        from modules import processing

        return hasattr(processing.StableDiffusionProcessing, "user")

    def reads_concepts(self) -> bool:
        return True

    def paints_elsewhere(self) -> bool:
        return False

    def preview_state(self) -> Any:
        from modules import shared

        every = int(getattr(shared.opts, "show_progress_every_n_steps", 1))  # -1: after the batch
        return shared.state if getattr(shared.opts, "live_previews_enable", False) and every >= 0 else None

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        return np.asarray(image.convert("RGB"))

    def comment(self, p: Any, sentences: Sequence[str]) -> None:
        known = getattr(p, "comments", None)
        if isinstance(known, dict):
            known.update(dict.fromkeys(sentences, 1))

    def saves(self, p: Any) -> bool:
        return bool(p.save_samples()) if hasattr(p, "save_samples") else not p.do_not_save_samples

    def save(
        self, image: Image.Image, p: Any, picture_file: str, suffix: str, seed: int, text: str, infotext: str | None
    ) -> str:
        from modules import images, shared

        info = infotext if shared.opts.enable_pnginfo else None
        if picture_file:
            folder, name = os.path.split(os.path.splitext(picture_file)[0])
            saved = images.save_image(
                image, folder, "", seed, text, "png", info=info, p=p, forced_filename=f"{name}{suffix}", save_to_dirs=False
            )
        else:
            saved = images.save_image(image, p.outpath_samples, "", seed, text, "png", info=info, p=p, suffix=suffix)
        return str(saved[0])


def _calls(sampler: str | None, steps: int) -> int:
    """How often a sampler calls the model in so many steps."""
    from modules import sd_samplers

    config = sd_samplers.find_sampler_config(sampler)
    return int(config.total_steps(steps)) if config else int(steps)
