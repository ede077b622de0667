"""`read_picture`: the heat maps of a picture that was not made here, by the model that could have made it."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from ..defaults import DEFAULT_NOISE
from ..errors import DaamLensError, NothingRecorded, UnsupportedModel, out_of_memory
from ..maps.crop import cut_back
from ..maps.heatmaps import Aggregation, HeatMaps
from ..picture_input import checked_picture, padded, reading_size, scaled
from ..prompt.concepts import concepts_prompt
from ..types import Image, Size
from ..validate import IN_THE_PICTURE, checked_levels, checked_prompt, checked_seed, checked_switch
from .call_options import arguments_of
from .generation import defaults
from .noise_levels import level_scheduler
from .picture_latents import DecodedProbe, GivenLatent, normalized, raw_latent
from .trace import KeptAxis, trace


@torch.no_grad()
def read_picture(
    pipe: Any,
    image: Image | PIL.Image.Image,
    prompt: str = "",
    *,
    concepts: str | Sequence[str] | Mapping[str, str] | None = None,
    noise: Sequence[float] = DEFAULT_NOISE,
    samples: int = 1,
    seed: int = 0,
    size: Size | None = None,
    keep: KeptAxis | Sequence[KeptAxis] = (),
    output_space: bool = False,
    aggregation: Aggregation = "sum",
) -> HeatMaps:
    """Read a photograph, a drawing, any picture: which of the prompt's words stands where in it.

    The picture is encoded by the pipeline's autoencoder; at each level noise is added to it and the model takes one pass, as
    if it had come so far by itself. The maps of all passes make one recording, a pass a step, high noise first; nothing is
    painted. The pipeline's own call does it, so every pipeline from text to picture that `trace` reads is read, UNet or
    transformer, if its scheduler's way of adding noise is known: that of Stable Diffusion's kind (whether the model predicts
    noise, velocity or picture), or flow matching's. That the model is shown the picture and nothing else is proved in each
    run: what the pipeline would decode from the clean latent must be what the autoencoder had made of the picture.

    Args:
        pipe: a diffusers pipeline from text to picture.
        image: a PIL picture, or uint8 `[H, W, 3]` RGB, of any size.
        prompt: what is in the picture, in words that the model knows. With an empty one the concepts make the prompt.
        concepts: things to look for that are not in the prompt, as in `trace`. With an empty prompt
            "house, tree" is read as "a house, a tree", by every model: name only what is in the picture, because a word for
            what is not there lights up something else.
        noise: levels of noise in thousandths of the model's training, 1..999. The default was chosen on rendered scenes with
            the model inside (study `reading`); other models may like others.
        samples: how many noises are drawn for each level.
        seed: same seed, same noise on every device.
        size: (height, width) at which the model reads; by default the model's own number of pixels in the picture's shape.
            Sides that do not fit the model are padded with the picture's edge, and the maps cut back.
        keep: any of "layers", "steps" and "heads", as in `trace`; a step is a pass.
        output_space: record what the attention gives out, as in `trace`.
        aggregation: a name of `AGGREGATIONS`; "output" and "anchor" record output space.

    Returns:
        Maps whose picture is `image`, at its own size.

    Raises:
        BadArgument: no picture, one of too many pixels, or levels, samples or a size that cannot be.
        BadPrompt: the prompt is empty or no text.
        UnsupportedModel: a pipeline without autoencoder, of a scheduler that is not known, or whose latents are not what its
            autoencoder makes.
        NothingRecorded: the model's attention could not be recorded; the text says why.
        DetailMissing: what the aggregation needs could not be recorded.

    Example:
        >>> from daam_core import load_tiny
        >>> pipe = load_tiny()
        >>> pipe.set_progress_bar_config(disable=True)
        >>> photo = np.full((100, 150, 3), 200, np.uint8)
        >>> photo[30:80, 20:70] = (220, 30, 30)
        >>> maps = read_picture(pipe, photo, "a red house", noise=[300, 100])
        >>> maps
        HeatMaps('a red house': 3 words, 150 x 100 pixels, grids 14x20 7x10 4x5, 2 steps)
        >>> tuple(maps.mask("house").shape), bool((maps.picture == photo).all()), maps.timesteps
        ((100, 150), True, (300.0, 100.0))
    """
    levels = checked_levels(noise, samples)
    picture = checked_picture(image)
    checked_seed(seed)
    output_space = checked_switch(output_space, "output_space")
    if concepts is not None and isinstance(prompt, str) and not prompt.strip():
        prompt, concepts = concepts_prompt(concepts), None
    text = checked_prompt(prompt, wanted=IN_THE_PICTURE)
    reader = _PipelineReader(pipe)
    shown = scaled(picture, reader.size(picture, size))
    whole = padded(shown, reader.multiple)
    # The trace is entered last: it hooks the scheduler that the pipeline has then.
    recording = trace(pipe, keep=keep, concepts=concepts, output_space=output_space or aggregation in ("output", "anchor"))
    with reader.started_from(whole, levels, seed), recording:
        reader.run(text, (whole.shape[0], whole.shape[1]), len(levels))
    if recording.concept_failure:
        raise NothingRecorded(recording.concept_failure)
    size = (whole.shape[0], whole.shape[1])
    maps = dataclasses.replace(recording.heat_maps(aggregation=aggregation), size=size, picture=None)
    return cut_back(maps, (shown.shape[0], shown.shape[1]), picture)


class _PipelineReader:
    """One pipeline's own call, shown a picture at levels of noise instead of painting one."""

    def __init__(self, pipe: Any) -> None:
        name = type(pipe).__name__
        self._pipe = pipe
        self._arguments = arguments_of(pipe)
        required = [argument for argument, default in self._arguments.items() if default is inspect.Parameter.empty]
        # Without a default, or with None and an error later: a pipeline from picture to picture takes a strength.
        if "strength" in self._arguments or {"image", "video", "mask_image"} & set(required):
            raise UnsupportedModel(f"{name} paints from a picture of its own; reading takes a pipeline from text to picture.")
        if not callable(getattr(pipe, "prepare_latents", None)):
            raise UnsupportedModel(f"{name} prepares its latents in no way that is known here, so it cannot read a picture.")

    @property
    def multiple(self) -> int:
        """What the sides of a picture are multiples of: the autoencoder's cells, in transformers two of them a patch."""
        pipe = self._pipe
        factor = getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "vae_scale_factor_spatial", None) or 8
        return math.lcm(8, int(factor) * (1 if getattr(pipe, "unet", None) is not None else 2))

    def size(self, picture: Image, asked: Size | None) -> Size:
        """(height, width) at which the picture is read. Raises BadArgument."""
        own = defaults(self._pipe).size
        assert own is not None
        return reading_size((picture.shape[0], picture.shape[1]), own[0] * own[1], asked)

    @contextmanager
    def started_from(self, picture: Image, levels: Sequence[float], seed: int) -> Iterator[None]:
        """Inside the block the pipeline starts from a picture whose sides fit it, at each level. It is left as it was.

        Raises:
            UnsupportedModel: what the model was shown is not what the autoencoder made of the picture.
        """
        pipe = self._pipe
        with _said(pipe, (picture.shape[0], picture.shape[1])):
            raw = raw_latent(pipe, picture)
            clean = normalized(pipe, raw)
        schedule = level_scheduler(pipe.scheduler, levels, seed)
        latents = _LatentsGiven(pipe, clean, schedule, raw)
        probe = DecodedProbe((picture.shape[0], picture.shape[1]))
        with _attributes(pipe, scheduler=schedule, prepare_latents=latents), _attributes(pipe.vae, decode=probe):
            yield
        if not probe.matches(raw):
            raise UnsupportedModel(_NOT_THE_PICTURE.format(type(pipe).__name__, "decodes something else", list(raw.shape)))

    def run(self, prompt: str, size: Size, passes: int) -> None:
        """The pipeline's own call. Raises UnsupportedModel where it fails."""
        with _said(self._pipe, size):
            self._pipe(**self._call(prompt, size, passes))

    def _call(self, prompt: str, size: Size, passes: int) -> dict[str, Any]:
        """Arguments of the pipeline's call: no guidance by a second prompt, one picture, no change of size."""
        known = self._arguments
        asked: dict[str, Any] = {
            "prompt": prompt, "height": size[0], "width": size[1], "num_inference_steps": passes, "output_type": "pt",
            "use_resolution_binning": False, "num_frames": 1, "true_cfg_scale": 1.0,
            "generator": torch.Generator("cpu").manual_seed(0),
        }  # fmt: skip
        model = getattr(self._pipe, "unet", None) or getattr(self._pipe, "transformer", None)
        config = getattr(model, "config", {})
        # Models that were distilled for guidance are told its scale; others would be called for a second prompt.
        if not config.get("guidance_embeds") and not config.get("time_cond_proj_dim") and "true_cfg_scale" not in known:
            asked["guidance_scale"] = _no_guidance(type(self._pipe))
        return {name: value for name, value in asked.items() if name in known}


def _no_guidance(kind: type) -> float:
    """The guidance at which a pipeline asks for no second prompt: 1 by most rules, 0 where any guidance counts."""
    rule = getattr(getattr(kind, "do_classifier_free_guidance", None), "fget", None)
    try:
        guided = rule is not None and bool(rule(SimpleNamespace(_guidance_scale=1.0, guidance_scale=1.0)))
    except AttributeError:  # it asks for more than the scale, and only where that is above its bound
        guided = False
    return 0.0 if guided else 1.0


_NOT_THE_PICTURE = (
    "{} {} where its autoencoder makes {} of the picture, so it cannot be told how the model is to be shown a picture."
)


class _LatentsGiven:
    """Takes the place of a pipeline's `prepare_latents`: its own packs a clean latent instead of noise.

    Raises:
        UnsupportedModel: it draws noise of another shape, or none.
    """

    def __init__(self, pipe: Any, clean: Tensor, schedule: Any, raw: Tensor) -> None:
        self._below, self._clean, self._schedule, self._raw = pipe.prepare_latents, clean, schedule, raw
        self._name = type(pipe).__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with GivenLatent(self._clean) as noise:
            out = self._below(*args, **kwargs)
        values = list(out) if isinstance(out, tuple) else [out]
        first = next((i for i, x in enumerate(values) if isinstance(x, Tensor) and x.is_floating_point()), None)
        if first is None or not noise.given:
            seen = f"draws noise of shape {list(noise.seen)}" if noise.seen else "draws no noise"
            raise UnsupportedModel(_NOT_THE_PICTURE.format(self._name, seen, list(self._raw.shape)))
        values[first] = self._schedule.begin(values[first])
        return tuple(values) if isinstance(out, tuple) else values[0]


@contextmanager
def _said(pipe: Any, size: Size) -> Iterator[None]:
    """What a pipeline raises inside the block that was not foreseen, or takes no picture of (height, width), as one sentence.

    Raises:
        UnsupportedModel: anything but a lack of memory.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, DaamLensError) or out_of_memory(error):
            raise
        own = defaults(pipe).size or size
        raise UnsupportedModel(
            f"{type(pipe).__name__} could not be shown a picture of {size[1]} x {size[0]} pixels in place of the noise it "
            f"starts from ({type(error).__name__}). Its own size is {own[1]} x {own[0]}: give another size, or cut a long "
            "picture."
        ) from error


@contextmanager
def _attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Inside the block the object has these attributes of its own; what it had before comes back after it."""
    held = vars(owner)
    before = {name: held[name] for name in values if name in held}
    # Not by setattr: a pipeline would write its new scheduler into its configuration.
    held.update(values)
    try:
        yield
    finally:
        for name in values:
            held.pop(name, None)
        held.update(before)
