"""ConceptAttention beside a joint model of ComfyUI or Forge, by the model's own blocks.

Concepts' tokens go through a block's `forward` in place of the text, beside one token of the picture, whose result is thrown
away. What the block attends with is answered here: the tokens read the picture's keys and values, as the model made them, and
each other. So projections, norms, modulation, positions and a LoRA are the block's own. Nothing goes back into the model.

At the first call it is proved: the prompt's own text, sent the same way, has to give the block's own keys, values and result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..prompt.prompt import Prompt
from .attention_call import AttentionCall
from .block_arguments import Answers, Attend, token_axis
from .block_calls import BlockCall, named_arguments, require_alike
from .comfyui_streams import BlockStream, require_one_time
from .concept_texts import ConceptTexts
from .region import WHOLE, Area
from .stream_sums import StreamSums
from .token_layout import RowLayout, TokenLayout

Answered = Callable[[Callable[..., Any] | None], AbstractContextManager[None]]
"""While inside, a host's models attend with this function; None is the host's own, which nobody hears then."""


@dataclass(frozen=True)
class ConceptRow:
    """A row of the model's batch that concepts are read beside.

    Attributes:
        index: its number.
        image: which picture it is.
        prompts: the words that picture is made of.
        area: which part of it.
        part: which of its prompts this row is.
    """

    index: int
    image: int
    prompts: tuple[Prompt, ...]
    area: Area = WHOLE
    part: int = 0


class BlockStreams(StreamSums):
    """The concepts' tokens while a joint model makes the pictures of one side.

    Args:
        texts: the concepts, encoded.
        kind: the way of the text through this network.
        model: the network.
        answered: how a block is made to attend with another function; None where it takes it among its options (ComfyUI).
    """

    def __init__(self, texts: ConceptTexts, kind: BlockStream, model: nn.Module, answered: Answered | None = None) -> None:
        super().__init__(texts)
        self._kind, self._model, self._answered = kind, model, answered
        self.blocks = [f"{kind.blocks}.{i}" for i in range(len(model.get_submodule(kind.blocks)))]  # type: ignore[arg-type]
        self._every: dict[int, tuple[Prompt, ...]] = {}
        self._rows: Sequence[ConceptRow] = ()
        self._layout: TokenLayout | None = None
        self._latent: Sequence[int] = ()
        self._context = texts.states
        self._tokens: Tensor | None = None
        self._rotation: Tensor | None = None
        self._index = torch.zeros(0)
        self._block: BlockCall | None = None
        self._text_behind: Tensor | None = None
        self._next = self._axis = 0
        self._proved = self._inside = False

    def prompts_of(self, image: int) -> list[Prompt]:
        return list(self._every.get(image, ()))

    # -- one call of the model ----------------------------------------------------------------------------------------

    def begin_call(self, rows: Sequence[ConceptRow], layout: TokenLayout, latent: Sequence[int], context: Tensor) -> None:
        """The model is called.

        Args:
            rows: those of its batch that concepts are read beside.
            layout: where text and picture stand.
            latent: its shape `[batch, c, (frames,) h, w]`.
            context: the text that it is given, `[batch, columns, dim]`.
        """
        if layout.patches[0] != 1:
            raise UnsupportedModel("of videos they are not read")
        self._rows, self._layout, self._latent, self._context = rows, layout, latent, context
        self._tokens = self._rotation = self._block = self._text_behind = None
        self._next = 0
        for row in rows:
            self._every[row.image] = row.prompts

    def enter(self, number: int, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Block `number` is called with these arguments."""
        if self._layout is None or self._inside:
            return
        if number != self._next:
            raise UnsupportedModel(
                "blocks of the model were left out, as with caches, and concepts' tokens go through all of them"
            )
        self._next += 1
        given = named_arguments(self._kind, module, args, kwargs)
        require_one_time(given)
        self._block = BlockCall(module, given, number)
        if not number:
            self._begin_blocks(given[self._kind.text])
        if not self._proved:
            self._block.text = self._text_of_first_row(given[self._kind.text]).clone()
            if self._text_behind is not None:
                require_alike(self._block.text, self._text_behind, "something changes the text between the model's blocks")

    def attention(self, number: int, a: AttentionCall, layouts: Sequence[RowLayout]) -> None:
        """A layer with text among its keys attended; `number` is its number in the recording."""
        block, layout = self._block, self._layout
        if block is None or layout is None or self._inside:
            return
        if block.attended:
            raise UnsupportedModel("a block of the model attends to its text twice")
        if a.v is None or a.output is None or self._tokens is None:
            raise UnsupportedModel(f"block {block.number} did not give out what its attention made")
        block.attended = True
        a = a.heads_apart()
        assert a.v is not None
        assert a.output is not None
        if a.queries != a.keys or a.k.shape[1] != a.q.shape[1]:
            raise UnsupportedModel(
                f"in block {block.number} the picture's keys do not stand where its queries do, head by head"
            )
        if not self._proved:
            self._prove_attention(block, a, layouts)
        if not block.number:
            self._rotation = self._positions([column for _, column in self.stream.columns], block, a.queries)
        _, height, width = layout.patches
        n, scale = height * width, a.scale

        all_keys, all_values, output = a.k, a.v, a.output

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found = []
            q, k, v = (x.to(all_keys.dtype) for x in (q, k, v))
            for own, row in enumerate(self._rows):
                first = layouts[row.index].picture
                keys, values, made = (x[row.index, :, first : first + n] for x in (all_keys, all_values, output))
                found.append(self.read(q[own], k[own], v[own], keys, values, scale))
                self.add_layer(row.image, (height, width), made, found[-1], row.area)
            return torch.stack(found)

        where = layouts[self._rows[0].index]
        self._tokens = self._through(block, self._tokens, self._rotation, self._index, where, attend)
        self.layers.setdefault(number, (height, width))

    def leave(self, output: Any) -> None:
        """The block that was entered is over."""
        block = self._block
        if block is None or self._inside:
            return
        self._block = None
        if not block.attended:
            raise UnsupportedModel(f"nothing of the attention of block {block.number} was seen")
        if block.text is None:
            return
        self._text_behind = self._text_of_first_row(output[self._kind.output] if self._kind.picture else output)
        if self._text_behind is not None:
            self._text_behind = self._text_behind.clone()
        if (block.expected is None) != (self._text_behind is None):
            raise UnsupportedModel(f"block {block.number} gives out its text in a form that is not known")
        if block.expected is not None:
            require_alike(block.expected, self._text_behind, f"something changes what block {block.number} makes of its text")
        self._proved = self._next == len(self.blocks)

    def end_call(self) -> None:
        """The model is done.

        Raises:
            UnsupportedModel: not all blocks ran.
        """
        layout, self._layout, self._block = self._layout, None, None
        if layout is not None and self._next != len(self.blocks):
            raise UnsupportedModel(
                "blocks of the model were left out, as with caches, and concepts' tokens go through all of them"
            )

    def release(self) -> None:
        """Let go of the model."""
        self._rows, self._layout, self._block, self._text_behind = (), None, None, None
        self._tokens = self._rotation = None
        self._context = self.texts.states
        self._model = nn.Module()

    # -- a block once more --------------------------------------------------------------------------------------------

    def _begin_blocks(self, text: Tensor) -> None:
        """The first block is given its text: so are concepts."""
        layout = self._layout
        assert layout is not None
        self.begin_stream(layout.patches[1:], text.device)
        states = self.texts.states.to(text.device, text.dtype)
        tokens = self._embedded(states)
        self._tokens = tokens.expand(len(self._rows), -1, -1).contiguous()
        self._index = torch.tensor([row.index for row in self._rows], device=text.device)
        if not self._proved:
            own = self._text_of_first_row(text)
            context = self._context[self._rows[0].index][None, : own.shape[1]].to(text.device, text.dtype)
            again = self._embed(context)
            require_alike(again, own, "something changes the text ahead of the model's first block")

    def _embedded(self, states: Tensor) -> Tensor:
        """`[tokens, dim]` of `[texts, columns, dim]`."""
        if not self._kind.whole:
            return self._embed(self.stream.states(states)[None])[0]
        texts: dict[int, Tensor] = {}
        for text, _ in self.stream.columns:
            if text not in texts:
                texts[text] = self._embed(states[text : text + 1, : self.texts.prompts[text].length])[0]
        return torch.stack([texts[text][column] for text, column in self.stream.columns])

    def _embed(self, states: Tensor) -> Tensor:
        with nullcontext() if self._answered is None else self._answered(None):
            return self._kind.embed(self._model, states)

    def _text_of_first_row(self, x: Any) -> Any:
        """The text of the first row that counts, `[1, tokens, dim]`; None where there is none any more."""
        if x is None:
            return None
        row = self._rows[0].index
        if self._kind.picture:
            return x[row : row + 1]
        assert self._layout is not None
        where = next(rows for rows in self._layout.rows.values() if rows)[row]
        return x[row : row + 1, where.text : where.text + len(where.columns)]

    def _positions(self, columns: Sequence[int], block: BlockCall, tokens: int) -> Tensor | None:
        """What the block turns text at these columns by, of one row."""
        kind = self._kind
        if not kind.rotation or kind.ids is None:
            return None
        given = block.given[kind.rotation]
        self._axis = token_axis(given, tokens)
        ids = kind.ids(self._model, columns, self._latent).to(given.device)
        made: Tensor = self._model.get_submodule(kind.embedder)(ids[None])
        made = made if self._axis == 2 else made.movedim(1, 2)
        return made.to(given.dtype)

    def _through(
        self, block: BlockCall, tokens: Tensor, rotation: Tensor | None, index: Tensor, where: RowLayout, attend: Attend
    ) -> Any:
        """What a block makes of other tokens in place of its text: `[rows, tokens, dim]`, None where it makes nothing of it."""
        kind, layout = self._kind, self._layout
        assert layout is not None
        n, beside = tokens.shape[1], 1 if kind.picture else 0
        own = slice(0, n) if where.text < where.picture else slice(beside, beside + n)
        answers = Answers(own, n + beside, attend)
        options = {"transformer_options": {"optimized_attention_override": answers}} if self._answered is None else {}
        given = {
            **block.with_tokens(kind, tokens, rotation, self._axis, index, (where.picture, own.start == 0), layout.batch),
            **options,
        }
        self._inside = True
        try:
            args = [given.pop(name) for name in kind.positional]
            with nullcontext() if self._answered is None else self._answered(answers):
                output = block.module(*args, **given)
        finally:
            self._inside = False
        if not answers.asked:
            raise UnsupportedModel(f"block {block.number} does not attend where this host lets others see it")
        return output[kind.output] if kind.picture else output

    # -- the proof ------------------------------------------------------------------------------------------------------

    def _prove_attention(self, block: BlockCall, a: AttentionCall, layouts: Sequence[RowLayout]) -> None:
        """The prompt's own text through the block once more: its keys and values are the block's; keeps what it becomes."""
        row = self._rows[0].index
        where, text = layouts[row], block.text
        assert text is not None
        places = slice(where.text, where.text + text.shape[1])
        rotation = self._positions(range(text.shape[1]), block, a.queries)
        _, height, width = self._layout.patches if self._layout is not None else (1, 0, 0)
        picture = slice(where.picture, where.picture + height * width)
        attend = block.proving(a, row, places, picture)
        index = torch.tensor([row], device=text.device)
        block.expected = self._through(block, text, rotation, index, where, attend)
