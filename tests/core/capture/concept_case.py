"""Concepts for small random transformers, and what they come to, written out in float64 by the models' own blocks."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daam_core.capture.buffers import StoreOptions
from daam_core.capture.concept_reader import ConceptReader
from daam_core.capture.concept_texts import ConceptTexts, texts_to_encode
from daam_core.capture.families import family_of
from daam_core.capture.model_recorder import ModelRecorder
from daam_core.capture.text_rows import EncodedText
from daam_core.capture.transformer_hooks import TransformerHooks
from daam_core.capture.transformer_recording import TransformerRecording
from daam_core.prompt.concepts import concepts_of, rivals_of
from daam_core.prompt.prompt import Prompt, Token, Word

from .transformer_models import CASES, Case, build

CONCEPTS = {"lamp": "a lamp", "red sky": "the red sky", "tail": "a very long bushy tail"}
OWN = {"lamp": [2], "red sky": [2, 3], "tail": [5]}
"""The columns of each: not the articles, not what stands beside the label."""
LENGTH = 9
"""Columns that each concept's text is encoded to."""
WORDS = 3
"""Words of each prompt, at the columns behind the first."""


def spaced(words: Sequence[str], length: int) -> Prompt:
    """A start, a column a word, an end, padding."""
    tokens = tuple(Token(i, word, i) for i, word in enumerate(words, start=1))
    found = tuple(Word(token.text, token.text, (token.channel,)) for token in tokens)
    end = len(words) + 1
    return Prompt(" ".join(words), tokens, found, (0,), (end,), tuple(range(end + 1, length)), length)


def concept_texts(labels: Sequence[str] = tuple(CONCEPTS), width: int = 16, rule: str = "prompt") -> ConceptTexts:
    concepts = concepts_of({label: CONCEPTS[label] for label in labels})
    names, texts = texts_to_encode(concepts)
    prompts = tuple(spaced(text.split(), LENGTH) for text in texts)
    states = torch.randn(len(texts), LENGTH, width, generator=torch.Generator().manual_seed(7)) * 2
    return ConceptTexts(concepts, tuple(names), prompts, states, rule)  # type: ignore[arg-type]


def strong(name: str) -> tuple[Case, nn.Module]:
    """A model whose outputs differ from place to place."""
    case, model = CASES[name], build(CASES[name])
    for part, weight in model.named_parameters():
        if weight.dim() == 2 and any(x in part for x in ("to_v", "add_v")):
            weight.data *= 4
    return case, model


def recorded(
    model: nn.Module, case: Case, texts: ConceptTexts | None, sides: Sequence[str] = ("prompt", "prompt")
) -> tuple[TransformerRecording, Tensor, list[Exception]]:
    """One call with the hooks in; each row of the batch is a picture of that side."""
    family = family_of(model)
    rows = family.text_rows(case.given)
    images = [sides[:i].count(side) for i, side in enumerate(sides)]
    known = [EncodedText(side, n, 0, row) for side, n, row in zip(sides, images, rows, strict=True)]  # type: ignore[arg-type]
    words = spaced([f"w{i}" for i in range(WORDS)], WORDS + 2)
    recording = TransformerRecording(
        lambda: known,
        lambda row, family, n: Prompt(
            words.text, words.tokens, words.words, words.start, words.end, tuple(range(WORDS + 2, sum(n))), sum(n)
        ),
        StoreOptions(),
        concepts=(lambda: texts) if texts is not None else None,
    )
    errors: list[Exception] = []
    reader = ConceptReader(model, family) if texts is not None else None
    recorder = ModelRecorder(model, family, 0, lambda: recording, errors.append, reader)
    with TransformerHooks(model, recorder, outputs=reader is not None):
        if reader is not None:
            reader.attach()
        with torch.no_grad():
            out = model(**case.given, return_dict=False)[0]
        if reader is not None:
            reader.remove()
    recording.end_step()
    recording.recording.release()
    return recording, torch.stack(list(out)) if isinstance(out, list) else out, errors


def doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return [doubled(x) for x in value] if isinstance(value, list) else value


class Attended:
    """(q, k, v, output) of every attention, in order."""

    def __enter__(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        below = self._below = F.scaled_dot_product_attention
        calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

        def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            out = below(query, key, value, *args, **kwargs)
            calls.append((query, key, value, out))
            return out

        F.scaled_dot_product_attention = attention
        return calls

    def __exit__(self, *_: object) -> None:
        F.scaled_dot_product_attention = self._below


Run = Callable[[nn.Module, dict[str, Any], Tensor, list[int]], Tensor]
"""`run(block, its arguments, the tokens, their columns)`: the tokens behind the block."""


class Joint:
    """The blocks of a joint model in float64, each with what it was given and what its attention made of it."""

    def __init__(self, name: str, model: nn.Module, case: Case) -> None:
        self.name, self.model, self.n = name, copy.deepcopy(model).double(), case.grid[1] * case.grid[2]
        self.given = {key: doubled(value) for key, value in case.given.items()}
        self.text_first = name not in ("sd3", "z-image")
        self.blocks: list[tuple[nn.Module, dict[str, Any], int]] = []
        handles = []
        part = self.model.layers if name == "z-image" else self.model.transformer_blocks
        with Attended() as calls:
            for block in part:  # type: ignore[union-attr]

                def note(module: nn.Module, args: Any, kwargs: Any) -> None:
                    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
                    self.blocks.append((module, {k: v for k, v in bound.items() if k != "self"}, len(calls)))

                handles.append(block.register_forward_pre_hook(note, with_kwargs=True))
            with torch.no_grad():
                self.model(**self.given, return_dict=False)
        for handle in handles:
            handle.remove()
        self.calls = calls

    def picture(self, x: Tensor) -> Tensor:
        """The picture's part of `[batch, heads, tokens, d]`."""
        text = 0 if not self.text_first else x.shape[2] - self.given["hidden_states"].shape[1]
        return x[:, :, text : text + self.n]

    def embed(self, texts: ConceptTexts, chosen: Sequence[tuple[int, int]]) -> Tensor:
        """The tokens `[tokens, dim]` at (text, column)."""
        states, model = texts.states.double(), self.model
        with torch.no_grad():
            if self.name == "qwen":
                states = model.txt_in(model.txt_norm(states))  # type: ignore[operator]
            elif self.name == "z-image":
                states = model.cap_embedder(states)  # type: ignore[operator]
                for block in model.context_refiner:  # type: ignore[union-attr]
                    states = block(states, None, self.positions(range(LENGTH))[None].expand(len(states), -1, -1))
            else:
                states = model.context_embedder(states)  # type: ignore[operator]
        return torch.stack([states[text, column] for text, column in chosen])

    def positions(self, columns: Sequence[int]) -> Tensor:
        return self.model.rope_embedder(torch.tensor([[1 + c, 0, 0] for c in columns]))  # type: ignore[operator]

    def through(self, index: int, tokens: Tensor, columns: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """What tokens `[batch, tokens, dim]` in the place of block `index`'s text read, `[batch, heads, tokens, d]`, and what
        becomes of them."""
        block, given, _ = self.blocks[index]
        given, count = dict(given), tokens.shape[1]
        with Attended() as calls, torch.no_grad():
            if self.name == "z-image":
                given["x"] = torch.cat([given["x"][:, : self.n], tokens], 1)
                turned = self.positions(columns)[None].expand(len(tokens), -1, -1)
                given["freqs_cis"] = torch.cat([given["freqs_cis"][:, : self.n], turned], 1)
                given["attn_mask"] = None
                behind = block(**given)[:, self.n :]
            else:
                width = given["encoder_hidden_states"].shape[1]
                given["hidden_states"] = given["hidden_states"][:, : self.n]
                given["encoder_hidden_states"] = tokens
                if self.name == "qwen":
                    given["encoder_hidden_states_mask"] = None
                    picture, _ = given["image_rotary_emb"]
                    shapes = self.given["img_shapes"]
                    longer = self.model.pos_embed(shapes, max_txt_seq_len=LENGTH, device=tokens.device)[1]  # type: ignore[operator]
                    given["image_rotary_emb"] = picture[: self.n], longer[list(columns)]
                elif "image_rotary_emb" in given:
                    own = [*columns, *range(width, width + self.n)]
                    given["image_rotary_emb"] = tuple(x[own] for x in given["image_rotary_emb"])
                behind = block(**given)[0]
        out = calls[0][3]
        return (out[:, :, :count] if self.text_first else out[:, :, self.n : self.n + count]), behind


def shares(picture: Tensor, outputs: dict[str, Tensor], texts: ConceptTexts) -> tuple[Tensor, Tensor]:
    """(map, presence times its variance over the places) `[n, concepts]` of one picture by one layer.

    Args:
        picture: `[heads, n, d]`.
        outputs: of each concept and rival, `[heads, its tokens, d]`.
    """
    flat = picture.transpose(0, 1).flatten(1)
    exp = {label: (flat @ o.mean(1).flatten()).exp() for label, o in outputs.items()}
    labels = [concept.label for concept in texts.concepts]
    rivals = {c.label: sum(exp[r] for r in rivals_of(c)) for c in texts.concepts}
    presence = torch.stack([exp[x] / (exp[x] + rivals[x]) for x in labels], 1)
    weighted = presence * ((presence - presence.mean(0)) ** 2).mean(0)
    if len(labels) == 1:
        return presence, weighted
    return torch.stack([exp[x] / sum(exp[y] for y in labels) for x in labels], 1), weighted


def chosen_columns(texts: ConceptTexts) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(text, column) of the concepts' own words, and of the rivals'."""
    concepts = len(texts.concepts)
    own = [(i, column) for i, one in enumerate(texts.concepts) for column in OWN[one.label]]
    return own, [(i, 2) for i in range(concepts, len(texts.labels))]
