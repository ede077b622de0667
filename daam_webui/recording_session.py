"""One call of the host's `process_images`, watched. It hangs on the host's own processing object and dies with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from daam_core.capture.region import Area
from daam_core.capture.unet_hooks import UNetAttentionHooks
from daam_core.errors import NothingRecorded, recording_failure
from daam_core.maps.heatmaps import HeatMaps

from .batch import Batch, Group
from .batch_rows import Label, Side, in_chunks, in_order
from .crop_region import area_of
from .prompt_schedule import PromptSchedule
from .schedule import PassTexts, groups, pass_texts, text_at
from .settings import Settings
from .tokenization import engine_of, read

logger = logging.getLogger("daam_lens")


@dataclass
class FinishedImage:
    """One finished picture, the file that the host wrote it to and the infotext inside, where it did."""

    iteration: int
    image: int
    picture: NDArray[np.uint8]
    seed: int
    prompt: str
    file: str = ""
    info: str = ""


@dataclass
class _Step:
    """One prediction of the sampler: what each row is told, and which conditionings were heard.

    Attributes:
        order: rows in A1111's order; `at` is the next of them.
        texts: what each label says now.
        bases: columns of the host's conditioning on each side.
        cond: the host's conditioning, `[prompts, columns, width]`; `rows[image][part]` are numbers of its rows.
        sigma: the noise level.
        area: the part of the finished picture that is sampled.
        heard: conditionings that were heard, in Forge's order.
    """

    order: list[Label]
    texts: dict[Label, str]
    bases: dict[Side, int]
    cond: Tensor
    rows: Sequence[Sequence[int]]
    sigma: Any
    area: Area
    at: int = 0
    heard: set[tuple[Side, int]] = field(default_factory=set)


class RecordingSession:
    """Watches one run.

    Args:
        settings: what was asked for.
        parser: the host's `modules.prompt_parser`.
        steps: gives, for the host's processing object and "second pass or not", the arguments of its schedule parser.
    """

    def __init__(self, settings: Settings, parser: Any, steps: Callable[[Any, bool], Sequence[Any]]) -> None:
        self.settings, self.failure = settings, ""
        self.finished: list[FinishedImage] = []
        self._parser, self._steps = parser, steps
        self._batches: dict[int, Batch] = {}
        self._passes: dict[int, dict[bool, tuple[PassTexts, Area]]] = {}
        self._unet: Any = None
        self._hooks: dict[bool, UNetAttentionHooks] = {}
        self._current_hooks: UNetAttentionHooks | None = None
        self._batch: Batch | None = None
        self._step: _Step | None = None

    # -- the sampler ------------------------------------------------------------------------------------------------

    def begin_step(self, params: Any, unet: Any, model: Any) -> UNetAttentionHooks | None:
        """The sampler wants a prediction (`CFGDenoiserParams`); the tap to open for it, None where nothing is wanted."""
        denoiser = params.denoiser
        p = denoiser.p
        second = bool(getattr(p, "is_hr_pass", False))
        hires = bool(getattr(p, "enable_hr", False))
        if self.failure or (hires and self.settings.hires not in ("both", "second" if second else "first")):
            return None
        iteration = int(p.iteration)
        if iteration not in self._batches:
            self._batches[iteration] = self._start(p, model, hires)
        self._batch = self._batches[iteration]
        self._step = self._resolve(params, *self._passes[iteration][second])
        self._current_hooks = self._hooks_of(unet, self._batch.wants_self)
        return self._current_hooks

    def begin_call(self, rows: int, options: dict[str, Any] | None, context: Tensor | None) -> None:
        """The UNet is called with a batch of `rows`; `options` are Forge's `transformer_options`."""
        step, batch = self._step, self._batch
        if step is None or batch is None:
            return
        chunks = (options or {}).get("cond_or_uncond")
        labels: list[Label | None]
        if chunks:
            images = rows // len(chunks)
            labels = in_chunks(rows, chunks, images, lambda n, done: self._which(step, n, done, images, context), step.heard)
        else:
            labels = list(step.order[step.at : step.at + rows])
            step.at += rows
            labels += [None] * (rows - len(labels))
        batch.begin_call(labels, step.texts, step.bases, bool(chunks), step.area)

    def on_attention(self, index: int, grid: tuple[int, int], q: Tensor, k: Tensor, cross: bool) -> None:
        if self._batch is not None and self._current_hooks is not None:
            self._batch.on_attention(self._current_hooks.layers[index], grid, q, k, cross)

    def end_step(self) -> None:
        if self._batch is not None and self._step is not None and not self.failure:
            self._batch.end_step(self._step.sigma)
        self._step = None

    def fail(self, error: Exception) -> None:
        """Stop listening; the sampler goes on. The traceback goes to the log once."""
        if not self.failure:
            self.failure = recording_failure(error)
            logger.error("DAAM Lens: %s", self.failure, exc_info=error)
        self._batches.clear()
        self._batch = self._step = None

    # -- pictures ---------------------------------------------------------------------------------------------------

    def take(self, iteration: int, image: int, picture: NDArray[np.uint8], seed: int, prompt: str) -> None:
        """The host finished a picture, uint8 `[H, W, 3]`."""
        if batch := self._batches.get(iteration):
            batch.pictures[image] = picture
        self.finished.append(FinishedImage(iteration, image, picture, seed, prompt))

    def heat_maps(self) -> Iterator[tuple[FinishedImage, HeatMaps]]:
        """The maps of every finished picture that has not been asked for yet; the recordings are let go of.

        Raises:
            NothingRecorded: recording failed, or there was nothing to record; the text says why.
        """
        if self.failure:
            raise NothingRecorded(self.failure)
        for taken in self.finished:
            batch = self._batches.get(taken.iteration)
            if batch is not None and taken.image in batch.pictures:
                yield taken, batch.heat_maps(taken.image, (taken.picture.shape[0], taken.picture.shape[1]))

    def close(self) -> None:
        """Let go of everything that is the host's or large."""
        self._batches.clear()
        self._hooks.clear()
        self._unet = self._current_hooks = self._batch = self._step = None

    # -- parts ------------------------------------------------------------------------------------------------------

    def _start(self, p: Any, model: Any, hires: bool) -> Batch:
        engine = engine_of(model)
        prompts, negatives = list(p.prompts), list(p.negative_prompts)
        passes = {False: pass_texts(self._parser, prompts, negatives, self._steps(p, False))}
        if hires:
            again, not_again = list(p.hr_prompts), list(p.hr_negative_prompts)
            passes[True] = pass_texts(self._parser, again, not_again, self._steps(p, True))
        self._passes[int(p.iteration)] = {second: (texts, area_of(p, second)) for second, texts in passes.items()}
        wanted = [passes[x] for x in passes if not hires or self.settings.hires in ("both", "second" if x else "first")]

        def schedules(negative: bool) -> list[PromptSchedule]:
            known: dict[str, PromptSchedule] = {}
            each = []
            for image in range(len(prompts)):
                said = groups(wanted, image, negative)
                key = repr(said)
                if key not in known:
                    known[key] = PromptSchedule(said, lambda line: read(engine, line))
                each.append(known[key])
            return each

        together = all(len(parts) == 1 for one in wanted for parts in one.prompts)
        made = [self._group("prompt", images, schedules(False)) for images in _groups(len(prompts), together)]
        if self.settings.negative:
            made.append(self._group("negative", tuple(range(len(prompts))), schedules(True)))
        return Batch(made)

    def _group(self, side: Side, images: tuple[int, ...], schedules: Sequence[PromptSchedule]) -> Group:
        return Group(side, images, [schedules[i] for i in images], self.settings.keep)

    def _resolve(self, params: Any, texts: PassTexts, area: Area) -> _Step:
        cond, uncond = params.text_cond, params.text_uncond
        at = int(params.denoiser.step)
        said: dict[Label, str] = {}
        for image, parts in enumerate(texts.prompts):
            said |= {Label("prompt", image, n): text_at(schedule, at) for n, schedule in enumerate(parts)}
            said[Label("negative", image)] = text_at(texts.negatives[image], at)
        counts = [len(parts) for parts in texts.prompts]
        order = in_order(counts)
        prompts = sum(counts)
        context = _context(cond)
        if len(context) != prompts:
            raise NothingRecorded(
                f"Another extension changed the prompts: {len(context)} were sampled where {prompts} were written. "
                "Switch it off to get heat maps."
            )
        bases: dict[Side, int] = {"prompt": context.shape[1]}
        if uncond is not None:
            bases["negative"] = _context(uncond).shape[1]
        numbers = iter(range(prompts))
        rows = [[next(numbers) for _ in parts] for parts in texts.prompts]
        return _Step(order, said, bases, context, rows, params.sigma, area)

    def _which(self, step: _Step, chunk: int, done: list[int], images: int, context: Tensor | None) -> int | None:
        """Which AND part a chunk says: by its content, since Forge's order depends on what fits into memory."""
        count = min(len(parts) for parts in step.rows)
        left = [n for n in range(count) if n not in done]
        if len(left) < 2 or context is None:
            return left[-1] if left else None
        seen = context[chunk * images : (chunk + 1) * images, : step.cond.shape[1]]
        for number in left:
            rows = [parts[number] for parts in step.rows]
            if seen.shape == step.cond[rows].shape and bool((seen == step.cond[rows].to(seen)).all()):
                return number
        return left[-1]

    def _hooks_of(self, unet: Any, self_attention: bool) -> UNetAttentionHooks:
        # One UNet at a time: a host that loads another checkpoint for hires fix or the refiner wants the first one's memory
        # back.
        if self._unet is not unet:
            self._unet = unet
            self._hooks.clear()
        if self_attention not in self._hooks:
            self._hooks[self_attention] = UNetAttentionHooks(
                unet, self.on_attention, lambda *_: None, self._end_call, self.fail, self_attention=self_attention
            )
        return self._hooks[self_attention]

    def _end_call(self) -> None:
        if self._batch is not None:
            self._batch.end_call()


def _groups(images: int, together: bool) -> list[tuple[int, ...]]:
    return [tuple(range(images))] if together else [(i,) for i in range(images)]


def _context(cond: Any) -> Tensor:
    """The host's text conditioning `[prompts, columns, width]`: a tensor, or inside a dictionary (XL)."""
    found: Tensor = cond if isinstance(cond, Tensor) else cond["crossattn"]
    return found
