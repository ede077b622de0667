"""What recording a transformer costs while a picture is made: `python -m benchmarks.joint [--works host flux …] [--quick]`.

Runs take turns and another begins each turn; the figure is the median over turns of the ratio to plain diffusers in the same
turn. The models are random, and called as a pipeline would call them, without text encoder and scheduler.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from daam_core.capture.buffers import StoreOptions
from daam_core.capture.concept_reader import ConceptReader
from daam_core.capture.concept_texts import ConceptTexts, texts_to_encode
from daam_core.capture.cross_concepts import TEXT_EMBEDDERS
from daam_core.capture.families import family_of
from daam_core.capture.model_recorder import ModelRecorder
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.text_streams import TEXT_STREAMS
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.prompt.concepts import concepts_of
from daam_core.prompt.prompt import Prompt, Token, Word

from .measure import in_turns, ratio
from .report import table, write

WORDS = CONCEPTS = 16
_MEAN = "Mean over 30 steps, of which four keep the picture's attention to itself."
_FIRST = (
    'The first step, which keeps the picture\'s attention to itself (5 of 28 steps do); "words only" is what others cost. '
    "attention-map-diffusers keeps the last step only, and its maps are made afterwards. Few turns: figures scatter by 0.02."
)
Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Work:
    """A random transformer and one call of it.

    Attributes:
        make: the model.
        given: the arguments of its call.
        columns: how many columns of its text are no padding.
        steps, turns: steps of a run, and runs.
        warm: steps ahead of them that are not counted.
        note: what a reader of the table has to know.
    """

    name: str
    make: Callable[[], nn.Module]
    given: Callable[[], dict[str, Any]]
    columns: int
    steps: int
    turns: int
    warm: int = 2
    note: str = _MEAN


def _ids(side: int) -> Tensor:
    places = torch.arange(side).float()
    grid = torch.stack(torch.meshgrid(places, places, indexing="ij"), -1).flatten(0, 1)
    return torch.cat([torch.zeros(len(grid), 1), grid], 1)


def _flux(heads: int, width: int, layers: int, single: int) -> nn.Module:
    from diffusers import FluxTransformer2DModel

    axes = (16, 56, 56) if width == 128 else (2, 2, 4)
    return FluxTransformer2DModel(
        in_channels=16, num_layers=layers, num_single_layers=single, attention_head_dim=width, num_attention_heads=heads,
        joint_attention_dim=64, pooled_projection_dim=16, axes_dims_rope=axes,
    ).eval()  # fmt: skip


def _flux_call(side: int, columns: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(1, side * side, 16), "encoder_hidden_states": torch.randn(1, columns, 64),
        "pooled_projections": torch.randn(1, 16), "timestep": torch.tensor([0.5]), "img_ids": _ids(side),
        "txt_ids": torch.zeros(columns, 3),
    }  # fmt: skip


def _sd3(side: int, heads: int, width: int, layers: int) -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=side, in_channels=4, out_channels=4, num_layers=layers, attention_head_dim=width,
        num_attention_heads=heads, joint_attention_dim=16, caption_projection_dim=heads * width, pooled_projection_dim=24,
        pos_embed_max_size=side,
    ).eval()  # fmt: skip


def _sd3_call(side: int, columns: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(1, 4, side, side), "encoder_hidden_states": torch.randn(1, columns, 16),
        "pooled_projections": torch.randn(1, 24), "timestep": torch.tensor([0.5]),
    }  # fmt: skip


def _pixart() -> nn.Module:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=8, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=8, cross_attention_dim=576,
        sample_size=128, caption_channels=64, use_additional_conditions=False,
    ).eval()  # fmt: skip


def _pixart_call() -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(1, 4, 128, 128), "encoder_hidden_states": torch.randn(1, 300, 64),
        "encoder_attention_mask": (torch.arange(300) < WORDS + 2).float()[None], "timestep": torch.tensor([5.0]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }  # fmt: skip


def _wan() -> nn.Module:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=64, freq_dim=64, ffn_dim=2048,
        num_layers=8,
    ).eval()  # fmt: skip


def _wan_call() -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(1, 16, 4, 64, 64), "encoder_hidden_states": torch.randn(1, 512, 64),
        "timestep": torch.tensor([5.0]),
    }  # fmt: skip


WORKS: Mapping[str, Work] = {
    "host": Work(
        "Flux's layout, 4 + 8 blocks of 2 heads of 8, 8 x 8 + 32 (host-bound)", lambda: _flux(2, 8, 4, 8),
        lambda: _flux_call(8, 32), WORDS + 2, 30, 12,
    ),
    "host-sd3": Work(
        "SD3's layout, 12 blocks of 2 heads of 8, 8 x 8 + 40 (host-bound)", lambda: _sd3(16, 2, 8, 12),
        lambda: _sd3_call(16, 40), WORDS + 2, 30, 12,
    ),
    "sd3": Work(
        "SD3's layout, 8 blocks of 8 heads of 64, 4096 + 333", lambda: _sd3(128, 8, 64, 8), lambda: _sd3_call(128, 333),
        WORDS + 2, 1, 2, 0, _FIRST,
    ),
    "flux": Work(
        "Flux's layout, 4 + 8 blocks of 4 heads of 128, 4096 + 512", lambda: _flux(4, 128, 4, 8),
        lambda: _flux_call(64, 512), WORDS + 1, 1, 2, 0, _FIRST,
    ),
    "pixart": Work(
        "PixArt's layout, 8 blocks of 8 heads of 72, 4096 on 300", _pixart, _pixart_call, WORDS + 1, 1, 3, 0, _FIRST
    ),
    "wan": Work("Wan's layout, 8 blocks of 4 heads of 128, 4 x 1024 on 512", _wan, _wan_call, WORDS + 1, 1, 3, 0, _FIRST),
}  # fmt: skip


class Recorded:
    """A recording of calls of a model, without a pipeline around it."""

    def __init__(
        self, model: nn.Module, given: Mapping[str, Any], columns: int, keep: StoreOptions, concepts: bool = False
    ) -> None:
        family = family_of(model)
        row = family.text_rows(given)[0]
        text, texts = EncodedText("prompt", 0, 0, row), _concepts(row) if concepts else None
        self.recording = TransformerRecording(
            lambda: [text], lambda *row: _words(columns, row[2]), keep, concepts=(lambda: texts) if concepts else None
        )
        self.errors: list[Exception] = []
        self._reader = ConceptReader(model, family) if concepts else None
        recorder = ModelRecorder(model, family, 0, lambda: self.recording, self.errors.append, self._reader)
        self._hooks = TransformerHooks(model, recorder, outputs=concepts or keep.output)

    def __enter__(self) -> Recorded:
        self._hooks.__enter__()
        if self._reader is not None:
            self._reader.attach()
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.remove()
        self._hooks.__exit__()
        if self.errors:
            raise self.errors[0]
        if self.recording.recording.concept_failure:
            raise RuntimeError(self.recording.recording.concept_failure)


def _words(own: int, columns: Any) -> Prompt:
    """A prompt of so many columns, of which the first are a word each and the rest is padding."""
    total = sum(columns)
    short = Prompt.by_index(own)
    return replace(short, padding=tuple(range(own, total)), length=total)


def _concepts(like: Tensor) -> ConceptTexts:
    """Concepts of one column each, and the rivals that tell whether they are there."""
    concepts = concepts_of([f"thing{i}" for i in range(CONCEPTS)])
    labels, texts = texts_to_encode(concepts)
    words = [Prompt(t, (Token(0, x, 1),), (Word(x, x, (1,)),), (), (), (), 1) for t, x in zip(texts, labels, strict=True)]
    return ConceptTexts(concepts, tuple(labels), tuple(words), torch.randn(len(texts), 1, like.shape[-1]))


def contexts(model: nn.Module, given: Mapping[str, Any], columns: int) -> dict[str, Context]:
    """What is compared, in the order of the turns."""

    def ours(keep: StoreOptions, concepts: bool = False) -> Context:
        return lambda: Recorded(model, given, columns, keep, concepts)

    every: dict[str, Context] = {
        "plain diffusers": nullcontext,
        "DAAM Lens": ours(StoreOptions(self_attention=True)),
        "DAAM Lens, words only": ours(StoreOptions()),
    }
    if family_of(model).name in (*TEXT_STREAMS, *TEXT_EMBEDDERS) and not family_of(model).video:
        every[f"DAAM Lens, words and {CONCEPTS} concepts"] = ours(StoreOptions(), True)
    other = _peer(model)
    return every if other is None else every | {"attention-map-diffusers": other}


def _peer(model: nn.Module) -> Context | None:
    """attention-map-diffusers 1.0.0, where it is installed: it holds the last step's queries and keys, nothing of the others,
    and makes maps of them afterwards, which is not counted here."""
    if importlib.util.find_spec("attention_map_diffusers") is None or "Flux" not in type(model).__name__:
        return None
    capture = importlib.import_module("attention_map_diffusers").AttentionCapture
    return lambda: capture(SimpleNamespace(transformer=model))


def run_steps(model: nn.Module, given: dict[str, Any], work: Work, context: Context, clock: Callable[[], float]) -> list[float]:
    """Seconds of each step but those that warm up."""
    taken = []
    with torch.no_grad(), context() as recorded:
        for step in range(work.steps + work.warm):
            given["timestep"] = given["timestep"] * 0 + (1.0 - step / 100)
            start = clock()
            model(**given, return_dict=False)
            if isinstance(recorded, Recorded):
                recorded.recording.end_step()
            taken.append(clock() - start)
    return taken[work.warm :]


def compare(work: Work, clock: Callable[[], float]) -> list[list[str]]:
    torch.manual_seed(0)
    model, given = work.make(), work.given()
    every = contexts(model, given, work.columns)
    taken: dict[str, list[float]] = {name: [] for name in every}
    run_steps(model, given, replace(work, steps=1, warm=0), nullcontext, clock)
    for _, name, context in tqdm(in_turns(every, work.turns), desc=work.name):
        taken[name].append(statistics.mean(run_steps(model, given, work, context, clock)))
    plain = taken["plain diffusers"]
    return [
        [work.name, name, f"{1000 * statistics.median(times):.1f} ms", f"{ratio(times, plain):.3f}", str(len(times))]
        for name, times in taken.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--quick", action="store_true", help="one short turn: does it run at all?")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: for a machine that does other work, too")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    head = ["work", "with", "step, processor time" if args.cpu_time else "step", "ratio", "turns"]
    for name in args.works:
        work = replace(WORKS[name], steps=1, warm=0, turns=1) if args.quick else WORKS[name]
        body = table(head, compare(work, clock))
        if args.quick:
            print(body)
        else:
            write(f"Cost of a step: {work.name}", f"{WORDS} words. {work.note}\n\n{body}")


if __name__ == "__main__":
    main()
