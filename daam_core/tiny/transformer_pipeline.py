"""The transformer inside as users get it: Stable Diffusion 3's pipeline with one text encoder, and its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..diffusers.quiet import quiet_libraries
from ..errors import BadArgument

with quiet_libraries():  # they warn of packages that are not installed and not needed
    from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModel, CLIPTokenizer

from .package_weights import swapped, tidy_configs
from .transformer import end_positions
from .transformer_shape import GUIDANCE, LARGEST, SHIFT, STEPS, TOKENS

FOLDER = "transformer"
"""Where it lies beside the UNet's pipeline, whose tokenizer and autoencoder it shares."""
_PIXELS = 8  # of a latent, each way


class TinyTransformerPipeline(StableDiffusion3Pipeline):
    """`StableDiffusion3Pipeline` with one text encoder that draws 128x128 in 25 steps at guidance 4 unless told otherwise."""

    own_defaults: Mapping[str, float] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}

    def __call__(self, prompt: str | list[str] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Draw; every argument of `StableDiffusion3Pipeline` is understood, but for those of its other text encoders.

        Positional arguments after the prompt mean what they mean there: prompt_2, prompt_3, height, width,
        num_inference_steps, sigmas, guidance_scale.
        """
        if len(args) < 5 and kwargs.get("sigmas") is None:
            kwargs.setdefault("num_inference_steps", self.own_defaults["num_inference_steps"])
        if len(args) < 7:
            kwargs.setdefault("guidance_scale", self.own_defaults["guidance_scale"])
        return super().__call__(prompt, *args, **kwargs)

    def check_inputs(
        self, prompt: Any, prompt_2: Any, prompt_3: Any, height: int, width: int, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse what the model has no positions for.

        Raises:
            ValueError: the size is too large, or what `StableDiffusion3Pipeline` refuses.
        """
        most = LARGEST * _PIXELS
        if max(height, width) > most:
            raise ValueError(f"This model has positions for pictures of up to {most} x {most} pixels, not {width} x {height}.")
        super().check_inputs(prompt, prompt_2, prompt_3, height, width, *args, **kwargs)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        prompt_2: str | list[str] | None = None,
        prompt_3: str | list[str] | None = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        negative_prompt_3: str | list[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        clip_skip: int | None = None,
        max_sequence_length: int = 256,
        lora_scale: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """Text states [B, tokens, 128] and pooled vectors [B, 128] of the prompts and of the negative prompts.

        The states are the encoder's last, which the model was trained on, and nothing stands behind them; both sides have as
        many tokens as the longest text needs, at least 20 and at most 77. `max_sequence_length` belongs to a T5, which there
        is none of.

        Raises:
            BadArgument: an argument is for a text encoder that this pipeline has not, or the two sides do not fit.
        """
        if any(text is not None for text in (prompt_2, prompt_3, negative_prompt_2, negative_prompt_3)) or clip_skip:
            raise BadArgument(
                "The transformer inside has one text encoder and reads its last layer: leave out prompt_2, prompt_3, clip_skip."
            )
        read: list[str] = []
        if prompt_embeds is None:
            read += [prompt] if isinstance(prompt, str) else list(prompt or ())
        count = len(read) if prompt_embeds is None else len(prompt_embeds)
        if negatives := do_classifier_free_guidance and negative_prompt_embeds is None:
            shared = negative_prompt is None or isinstance(negative_prompt, str)
            against = [negative_prompt or ""] * count if shared else list(negative_prompt or ())
            if len(against) != count:
                raise BadArgument(f"There are {len(against)} negative prompts for {count} prompts.")
            read += [str(text) for text in against]
        if read:
            least = max(TOKENS, *(e.shape[1] for e in (prompt_embeds, negative_prompt_embeds) if e is not None), 0)
            states, pooled = self._read(read, device or self._execution_device, least)
            states, pooled = (x.repeat_interleave(num_images_per_prompt, 0) for x in (states, pooled))
            split = 0 if prompt_embeds is not None else count * num_images_per_prompt
            if prompt_embeds is None:
                prompt_embeds, pooled_prompt_embeds = states[:split], pooled[:split]
            if negatives:
                negative_prompt_embeds, negative_pooled_prompt_embeds = states[split:], pooled[split:]
        assert prompt_embeds is not None and pooled_prompt_embeds is not None  # `check_inputs` refuses one without the other
        return prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds

    def _read(self, texts: Sequence[str], device: torch.device, least: int) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(len(row) for row in self.tokenizer(list(texts), truncation=True).input_ids)
        ids = self.tokenizer(
            list(texts), padding="max_length", max_length=max(least, longest), truncation=True, return_tensors="pt"
        ).input_ids
        states = self.text_encoder(ids.to(device)).last_hidden_state.to(self.transformer.dtype)
        ends = end_positions(ids, self.tokenizer.eos_token_id).to(device)
        return states, states[torch.arange(len(ids), device=device), ends]


def assemble_transformer(
    transformer: SD3Transformer2DModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderTiny,
) -> TinyTransformerPipeline:
    """The pipeline of these parts, with the sampler that they are saved with: Euler's method on shifted noise levels."""
    return TinyTransformerPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def save_transformer(pipe: TinyTransformerPipeline, out: Path) -> None:
    """Write `out/transformer` in float16: the model, its sampler, and the text encoder that it was trained with.

    Tokenizer and autoencoder are the UNet's. What was there before is replaced whole or not at all.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    with swapped(out, FOLDER) as folder:
        pipe.transformer.to(torch.float16).save_pretrained(folder / "transformer", safe_serialization=True)
        pipe.text_encoder.to(torch.float16).save_pretrained(folder / "text_encoder", safe_serialization=True)
        pipe.scheduler.save_pretrained(folder / "scheduler")
        tidy_configs(folder)


def load_parts(folder: Path) -> tuple[SD3Transformer2DModel, FlowMatchEulerDiscreteScheduler, CLIPTextModel]:
    """Model, sampler and text encoder of a folder that `save_transformer` wrote, the encoder's weights still to be loaded."""
    model = SD3Transformer2DModel.from_pretrained(folder / "transformer", local_files_only=True, use_safetensors=True)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
    return model, scheduler, encoder
