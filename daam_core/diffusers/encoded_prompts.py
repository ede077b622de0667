"""What a pipeline's `encode_prompt` read and gave out: texts, tokens, and the rows that its transformer will be given."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..capture.family import Family
from ..capture.text_rows import EncodedText, match_rows, without_single_axes
from ..capture.tokenizer_hook import Tokenized
from ..prompt.cleaned import cleaned_text
from ..prompt.compose import concat_encoders
from ..prompt.prompt import Prompt
from ..prompt.quoted import glyph_prompt, may_quote, quoted_prompt
from ..prompt.template import columns_of, templated_prompt
from ..types import Side

logger = logging.getLogger("daam_lens")


@dataclass(frozen=True, eq=False)
class Encoding:
    """One call of `encode_prompt`.

    Attributes:
        texts: what was typed, by argument (`prompt`, `prompt_2`, `negative_prompt`, …); a list of one text a prompt each.
        outputs: the batches of rows that it gave out, in order.
        tokens: what its tokenizers read.
        dropped: so many tokens of its template the pipeline drops ahead, None where it does not say so.
    """

    texts: Mapping[str, list[str] | None]
    outputs: Sequence[Sequence[Tensor]]
    tokens: Sequence[Tokenized]
    dropped: int | None = None


Source = tuple[Encoding, str, int]
"""Where the text of a row came from: a call, the name of its argument, which of that argument's texts."""


@dataclass(eq=False)
class EncodedPrompts:
    """All that is known of the texts of one call of a pipeline.

    Attributes:
        rows: every row that its text encoders gave out, with whose it is.
    """

    rows: list[EncodedText] = field(default_factory=list)
    _sources: dict[int, Source] = field(default_factory=dict)

    def add(
        self, side: Side, batch: Sequence[Tensor], encoding: Encoding | None, name: str, part: int = 0, each: int = 1
    ) -> None:
        """Rows of one side.

        Args:
            encoding: the call that gave them out, None where nobody saw it.
            name: the argument that their texts came in.
            part: which of several prompts in succession it is.
            each: how many pictures are made of each text; pipelines repeat the rows before or after.
        """
        texts = (encoding.texts.get(name) if encoding is not None else None) or []
        rows = [row for row in batch for _ in range(each)] if len(batch) == len(texts) else list(batch)
        for image, row in enumerate(rows):
            share = max(1, len(rows) // max(1, len(texts)))
            source = None if encoding is None else (encoding, name, min(image // share, max(0, len(texts) - 1)))
            self._add(EncodedText(side, image, part, row), source)

    def add_rows(self, side: Side, rows: Sequence[Tensor], sources: Sequence[Source | None]) -> None:
        """Rows of one side, each with where it came from, None where nobody saw it made."""
        for image, (row, source) in enumerate(zip(rows, sources, strict=True)):
            self._add(EncodedText(side, image, 0, row), source)

    def _add(self, text: EncodedText, source: Source | None) -> None:
        self.rows.append(text)
        if source is not None:
            self._sources[id(text)] = source

    def pass_through(self, batch: Sequence[Tensor]) -> bool:
        """Rows that were given as embeddings and came out again, repeated for the pictures of each; False if they were not."""
        given = [next(iter(match_rows([row], self.rows)[0]), None) for row in batch]
        if any(text is None for text in given):
            return False
        sources = [(text, self._sources.get(id(text))) for text in given if text is not None]
        side, part = sources[0][0].side, sources[0][0].part
        self.rows = [text for text in self.rows if (text.side, text.part) != (side, part)]
        for image, (row, (_, source)) in enumerate(zip(batch, sources, strict=True)):
            self._add(EncodedText(side, image, part, row), source)
        return True

    def connect(self, before: Sequence[Tensor], after: Sequence[Tensor], known: bool) -> None:
        """Rows that a model between encoder and transformer made of others, in the same order.

        Args:
            known: whether their columns are those of the tokens that are no padding; else words go by number.
        """
        if len(before) != len(after):
            return
        found = [next(iter(own), None) for own in match_rows(list(before), self.rows)]
        for text, row in zip(found, after, strict=True):
            if text is not None:
                made = EncodedText(text.side, text.image, text.part, row)
                self._add(made, self._sources.get(id(text)) if known else None)

    def num_parts(self, side: Side) -> int:
        """How many prompts of one side there are, one after the other."""
        return len({row.part for row in self.rows if row.side == side})

    def source(self, text: EncodedText) -> Source | None:
        """Where a row came from, None where nobody saw it made."""
        return self._sources.get(id(text))

    def prompt(self, text: EncodedText, family: Family, columns: Sequence[int]) -> Prompt:
        """The words of one row, for the model's columns of text: one number for each of its text arguments.

        Words by their column's number where the texts are not known, or where the columns do not add up.
        """
        source = self._sources.get(id(text))
        behind = 0
        if len(columns) == 1 == len(family.tokenizers) and not family.packed:
            # Some pipelines pad the text after it was encoded.
            behind = max(0, columns[0] - without_single_axes(text.rows).shape[family.columns_axis])
        own = [columns[0] - behind, *columns[1:]]
        prompt = None
        if source is not None:
            prompt = _prompt(*self._with_others(source), family, own, functools.partial(_ends_in_zeros, text.rows))
        if prompt is not None:
            padding = range(prompt.length, prompt.length + behind)
            return replace(prompt, padding=(*prompt.padding, *padding), length=prompt.length + behind)
        logger.warning(
            "The prompt's words cannot be told from the model's %d columns of text: they go by number.", sum(columns)
        )
        return Prompt.by_index(sum(columns))

    def _with_others(self, source: Source) -> Source:
        """The same with what other tokenizers read of that text: some pipelines encode it by one encoder after the other, in a
        call for each."""
        encoding, name, index = source
        own = {one.component for one in encoding.tokens}
        calls = {id(other): other for other, *_ in self._sources.values() if other.texts.get(name) == encoding.texts.get(name)}
        more = [one for other in calls.values() for one in other.tokens if one.component not in own]
        return (replace(encoding, tokens=[*encoding.tokens, *more]) if more else encoding), name, index


def _ends_in_zeros(rows: Tensor) -> bool:
    """Whether the last column is no token's: behind a text whose padding was ahead, the pipeline then moved what is no padding
    to the front."""
    return not bool(without_single_axes(rows)[-1].any())


def _prompt(
    encoding: Encoding,
    name: str,
    index: int,
    family: Family,
    columns: Sequence[int],
    packed: Callable[[], bool] = lambda: False,
) -> Prompt | None:
    sizes = list(columns)
    names = family.tokenizers
    if len(names) > len(sizes):  # several encoders' columns in one argument: all but the last keep every token
        ahead = [_length(encoding, part) for part in names[:-1]]
        sizes = [*ahead, sum(columns) - sum(ahead)]
    there = [i for i, size in enumerate(sizes[: len(names)]) if size > 0]
    prompts = [_part(encoding, names[i], name, index, sizes[i], family, packed) for i in there]
    known = [p for p in prompts if p is not None]
    if not known or len(known) != len(prompts) or sum(p.length for p in known) != sum(columns):
        return None
    encoders = [family.encoders[i] for i in there] if family.encoders else ()
    return concat_encoders(known, encoders) if len(known) > 1 else known[0]


def _length(encoding: Encoding, component: str) -> int:
    """How many tokens the prompts of one tokenizer have, padding included, once they are cut to what its encoder reads."""
    rows = [t for t in encoding.tokens if t.component == component]
    # What may not be cut is read beside what is encoded, to tell how much of a long text is lost.
    return max((len(t.ids) for t in [t for t in rows if t.may_cut] or rows), default=0)


def _part(
    encoding: Encoding, component: str, name: str, index: int, size: int, family: Family, packed: Callable[[], bool]
) -> Prompt | None:
    """The words that one tokenizer read, in `size` columns."""
    suffix = component.removeprefix("tokenizer")
    texts = encoding.texts.get(name + suffix) or encoding.texts.get(name)
    if texts is None:
        return None
    text = texts[min(index, len(texts) - 1)]
    rows = [t for t in encoding.tokens if t.component == component]
    if not rows and component == family.tokenizers[0]:  # some pipelines have it in a processor of texts and pictures alone
        rows = [t for t in encoding.tokens if t.component.endswith("processor")]
        if not rows:
            return None
    if family.pieces:
        return _in_pieces(rows, text, size, family.pieces)
    if not rows:  # nothing for this encoder, such as no quoted text for ByT5
        return Prompt(text, (), (), (), (), tuple(range(size)), size)
    if component == family.quoted:
        return _quoted(rows, text, size, family)
    fitting = []
    whole = any(_solid(text) in _solid(row.text) for row in rows)
    for row in [_with_suffix(row, rows[-1]) for row in rows[:-1]] if family.suffix else rows:
        read = text if whole else cleaned_text(text, row.text)
        own = read is not None and _solid(read) in _solid(row.text)
        if not own and row.may_cut:
            read = _of_longer(row, text, rows, whole)
        if read is None or not (own or row.may_cut):
            continue
        kept = [i for i, on in enumerate(row.mask) if on]
        keeps = "kept tail" if family.keeps == "tail" and row.mask and not row.mask[0] and packed() else family.keeps
        columns = columns_of(len(row.ids), kept, size, keeps, encoding.dropped)
        if columns is not None:
            fitting.append(((not own, len(row.text)), row, columns, read))
    # What may not be cut is read beside what is encoded, to tell how much of a long text is lost.
    fitting = [entry for entry in fitting if entry[1].may_cut] or fitting
    if not whole and len({row.ids for (longer, _), row, *_ in fitting if not longer}) > 1:
        return None  # texts that are alike but for their signs: which of them this one became is not known
    for _, row, columns, read in sorted(fitting, key=lambda entry: entry[0]):
        bare = _solid(row.text) == _solid(read)
        prompt = templated_prompt(row.ids, row.mask, columns, row.tokenizer, read, bare and family.keeps != "first and tail")
        if prompt is not None:
            return prompt
    return None


def _of_longer(row: Tokenized, text: str, rows: Sequence[Tokenized], whole: bool) -> str | None:
    """What a text became in a row that is the beginning of a longer one which has all of it: some pipelines cut it
    themselves, too. None where there is none."""
    for other in rows:
        if other.text.startswith(row.text):
            read = text if whole else cleaned_text(text, other.text)
            if read is not None and _solid(read) in _solid(other.text):
                return read
    return None


def _quoted(rows: Sequence[Tokenized], text: str, size: int, family: Family) -> Prompt | None:
    """The words of what a prompt quotes, in `size` columns; none where it quotes nothing."""
    if family.quotes_apart:
        return glyph_prompt([(row.text, row.ids) for row in rows], size, text)
    if not may_quote(text):
        return Prompt(text, (), (), (), (), tuple(range(size)), size)
    for row in rows:
        kept = [i for i, on in enumerate(row.mask) if on]
        columns = columns_of(len(row.ids), kept, size, family.keeps)
        prompt = None if columns is None else quoted_prompt(row.ids, row.mask, columns, row.text, text)
        if prompt is not None:
            return prompt
    return None


def _in_pieces(rows: Sequence[Tokenized], text: str, size: int, padded: int) -> Prompt | None:
    """The words of a prompt whose pieces were tokenized one after the other; they have the last `padded` of `size` columns."""
    for first in range(len(rows)):
        last = first
        while last < len(rows) and text.startswith("".join(row.text for row in rows[first : last + 1])):
            last += 1
        if size < padded or "".join(row.text for row in rows[first:last]) != text:
            continue
        ids = tuple(token for row in rows[first:last] for token in row.ids)
        columns = [*[-1] * (size - padded), *range(min(len(ids), padded)), *[-1] * (padded - len(ids))]
        return templated_prompt(ids, (True,) * len(ids), columns, rows[first].tokenizer, text, bare=True)
    return None


def _with_suffix(row: Tokenized, suffix: Tokenized) -> Tokenized:
    return replace(row, text=row.text + suffix.text, ids=row.ids + suffix.ids, mask=row.mask + suffix.mask)


def _solid(text: str) -> str:
    return "".join(text.split()).casefold()
