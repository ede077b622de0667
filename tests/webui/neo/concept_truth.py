"""Concepts of one family inside Forge Neo by the formula, in float64 from weights and from what its blocks were given."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import models
import stream_truth
import torch

from daam_core.prompt.concepts import rivals_of

ASKED = "lamp, sky"
_FLUX, _NEXT = stream_truth.WAYS["Flux"], stream_truth.WAYS["ZImage"]
WAYS = {
    "Flux.1": _FLUX,
    "Flux.2": _FLUX,
    "Chroma": _FLUX,
    "Lumina 2": _NEXT,
    "Z-Image": _NEXT,
    "Qwen-Image": stream_truth.WAYS["QwenImage"],
}
WIDEST = 4.0
"""So far apart scores may be: beyond it a presence is smaller than any number of float32."""
POWER = 8
"""Step j counts `j ** 8` for the presence."""


class Named:
    """A network under the names that the formulas have for its settings."""

    embed_cap = None  # text of this host's NextDiT stands from place 1 on

    def __init__(self, network: Any) -> None:
        self._network = network
        embedder = getattr(network, "pe_embedder", None)
        if embedder is not None:
            along = getattr(network, "txt_ids_dims", ())
            self.params = SimpleNamespace(axes_dim=embedder.axes_dim, theta=embedder.theta, txt_ids_dims=along)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class Stream:
    """ConceptAttention over a run of the host without any recording.

    Args:
        family, name: which it is.
        model: the checkpoint.
        concepts: as they were encoded.
        images: of the batch.
        grid: of the picture.
        behind: tokens of references behind it.
    """

    def __init__(
        self, family: models.Family, name: str, model: Any, concepts: Any, images: int, grid: Any, behind: int
    ) -> None:
        self.family, self.images, self.grid, self.behind = family, images, grid, behind
        self.blocks, self.embed, self.enter = WAYS[name]
        self.network = model.forge_objects.unet.model.diffusion_model
        self.named = Named(self.network)
        self.concepts, self.step, self.widest = concepts, 0, 0.0
        engine = next(v for key, v in vars(model).items() if key.startswith("text_processing_engine") and key[-2:] != "_l")
        self.labels = [one.label for one in concepts.concepts]
        self.states, places = [], []
        for text, label in zip([f"a {label}" for label in concepts.labels], concepts.labels, strict=True):
            told = model_text(engine, text)
            self.states.append(told[0].double())
            places.append(column_of(engine, text, label, len(told[0])))
        own, rivals = range(len(self.labels)), range(len(self.labels), len(concepts.labels))
        self.columns = {"concepts": [(i, places[i]) for i in own], "rivals": [(i, places[i]) for i in rivals]}
        self.total: list[Any] = [0.0] * images
        self.late: list[Any] = [0.0] * images
        self.handles: list[Any] = []

    def __enter__(self) -> Stream:
        self.true = true = self.family.module.attention_function
        opened: list[Any] = []

        def attention(*args: Any, **kwargs: Any) -> Any:
            out = true(*args, **kwargs)
            if opened:
                block, given = opened.pop()
                heads = args[3]
                k, v = args[1:3]
                if not kwargs.get("skip_reshape"):
                    k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (k, v))
                self.block(block, given, k, v, out)
            return out

        def enter(block: Any, args: Any, kwargs: Any) -> None:
            named = dict(inspect.signature(type(block).forward).bind(block, *args, **kwargs).arguments)
            opened[:] = [(block, named)]

        def before(_module: Any, args: Any, kwargs: Any) -> None:
            chunks = kwargs["transformer_options"]["cond_or_uncond"]
            self.row = chunks.index(0) * self.images if 0 in chunks else None
            self.step += self.row is not None
            self.shape, self.streams = args[0].shape, {}

        self.family.module.attention_function = attention
        self.handles.append(self.network.register_forward_pre_hook(before, with_kwargs=True))
        for block in getattr(self.network, self.blocks):
            self.handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        self.family.module.attention_function = self.true
        while self.handles:
            self.handles.pop().remove()

    def block(self, block: Any, given: Any, k: Any, v: Any, out: Any) -> None:
        """A block attended: k, v `[rows, heads, n, d]`, out `[rows, n, heads * d]`."""
        if self.row is None:
            return
        n, multiple = self.grid[0] * self.grid[1], self.family.multiple
        first = k.shape[2] - self.behind - -(-n // multiple) * multiple
        for image in range(self.images):
            row = self.row + image
            picture = [x[row, :, first : first + n].double() for x in (k, v)]
            outputs: dict[int, Any] = {}
            for name, columns in self.columns.items():
                x = self.streams.get((image, name))
                if x is None:
                    x = torch.stack([self.embed(self.named, self.states[text])[column] for text, column in columns])
                spots = [column for _, column in columns]
                (q, own_k, own_v), leave = self.enter(self.named, block, given, row, x, spots, self.shape)
                keys, values = torch.cat([own_k, picture[0]], 1), torch.cat([own_v, picture[1]], 1)
                o = (q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ values
                o = o.transpose(0, 1).flatten(1)
                outputs |= {text: o[i] for i, (text, _) in enumerate(columns)}
                self.streams[image, name] = leave(o)
            self.shares(image, out[row, first : first + n].double(), outputs)

    def shares(self, image: int, picture: Any, outputs: Any) -> None:
        scores = {text: picture @ o for text, o in outputs.items()}
        every = torch.stack(list(scores.values()))
        self.widest = max(self.widest, float((every - every.mean(0)).abs().max()))
        own = range(len(self.labels))
        presence, place = [], []
        for i in own:
            names = rivals_of(self.concepts.concepts[i])
            rivals = [t for t in scores if t >= len(own) and self.concepts.labels[t] in names]
            presence.append(torch.stack([scores[i], *(scores[t] for t in rivals)]).softmax(0)[0])
            place.append(torch.stack([scores[j] for j in own]).softmax(0)[i])
        there = torch.stack(presence, 1)
        self.total[image] = self.total[image] + torch.stack(place, 1)
        self.late[image] = self.late[image] + self.step**POWER * there * ((there - there.mean(0)) ** 2).mean(0)

    def quieten(self) -> None:
        """Weaken what the network's blocks attend to, so that scores are no further apart than `WIDEST`."""
        factor = min(1.0, (WIDEST / self.widest) ** 0.5)
        for name, weight in self.network.named_parameters():
            if any(part in name for part in (".qkv.", ".to_v.", ".add_v_proj.")):
                weight.data *= factor  # queries and keys are normed behind it

    def compare(self, found: Any) -> dict[str, Any]:
        """The largest differences of maps and presence, and how much the maps vary."""
        worst, spread = 0.0, 1e9
        for image, maps in enumerate(found):
            assert bool(self.late[image].isfinite().all()), "the formula gives no number"
            wanted = self.total[image].T.reshape(-1, *self.grid)
            spread = min(spread, float(wanted.std() / wanted.mean()))
            hottest = self.late[image].sort(0, descending=True).values[: max(1, int(0.03 * len(self.late[image])))]
            scores = 1 - self.late[image].mean(0) / hottest.mean(0)
            sums = maps.sides["concepts"].sums[self.grid][1 : 1 + len(self.labels)].double()
            worst = max(worst, float((sums - wanted).abs().max() / wanted.abs().max()))
            for label, score in zip(self.labels, scores, strict=True):
                worst = max(worst, abs(maps.presence(label).score - float(score)))
        return {"worst": worst, "spread": spread}


def model_text(engine: Any, text: str) -> Any:
    """One text as the engine gives it to the model, `[1, columns, width]`."""
    from modules.prompt_parser import SdConditioning

    with torch.no_grad():
        found = engine(SdConditioning([text]))[0]
    return found.reshape(1, *found.shape[-2:])


def column_of(engine: Any, text: str, word: str, given: int) -> int:
    """Where the last piece of a text's word stands among the columns that the model is given."""
    told = engine.process_template(text, False) if hasattr(engine, "process_template") else text
    chunks = engine.tokenize_line(told)
    chunk = (chunks[0] if isinstance(chunks, tuple) else chunks)[0]
    tokenizer = getattr(engine.tokenizer, "tokenizer", engine.tokenizer)
    pieces = [tokenizer.convert_ids_to_tokens(int(i)) for i in chunk.tokens]
    (at,) = [i for i, piece in enumerate(pieces) if piece.strip("\u2581\u0120") == word]
    return at - (len(pieces) - given)
