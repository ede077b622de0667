"""The verbs of `HeatMaps` about what the text attended to; see `relations`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from ..errors import BadArgument, DetailMissing, quoted
from ..prompt.prompt import Word
from ..prompt.search import several
from ..types import Relation, Side
from . import relations
from .data import RecordedImage
from .picture_sides import PictureSides

M = TypeVar("M", bound="RelationVerbs")


class RelationVerbs(PictureSides):
    """Other relations than image->text, where they were recorded."""

    def relation(self: M, name: Relation) -> M:
        """The maps of another relation, one for each word like those of Eq. 6: every verb works on them.

        Args:
            name: "image->text" (Eq. 6: for every position of the picture, how much it attended to the word) or "text->image"
                (for the word, how much it attended to every position).

        Raises:
            DetailMissing: it was not recorded; the text says how to.
            BadArgument: no such relation, or one that has no map for each word.

        Example:
            >>> maps.relation("image->text") is maps
            True
            >>> maps.relation("text->image")
            Traceback (most recent call last):
            daam_core.errors.DetailMissing: What the text attended to was not recorded. Record with ...
        """
        if not isinstance(name, str):
            raise BadArgument(f"A relation is named by a text such as 'text->image', not {quoted(name, 60)}.")
        if name == "image->text":
            return self
        if name == "text->text":
            raise BadArgument("text->text is a matrix of words and no map: `maps.word_matrix()`.")
        if name == "image->image":
            raise BadArgument("image->image is a matrix of positions and no map: `maps.self_attention`.")
        if name != "text->image":
            raise BadArgument(
                f"There is no relation {quoted(name)}; there are image->text, text->image, text->text, image->image."
            )
        sides: dict[Side, RecordedImage] = {
            side: _text_to_image(image)
            for side, image in self.sides.items()
            if image.relations is not None and image.relations.text_to_image
        }
        if "prompt" not in sides:
            raise DetailMissing(relations.MISSING)
        return dataclasses.replace(self, sides=sides)  # type: ignore[type-var]

    def word_matrix(self, words: Sequence[str | Word] | None = None) -> Tensor:
        """Which word leans on which (text->text).

        Args:
            words: words and phrases; all words of the prompt by default.

        Returns:
            float32 `[words, words]` (query, key), 0 to 1: the probability with which the one attends to the other, as the mean
            over the tokens of the one, heads, layers and steps. What a row lacks to 1 went elsewhere: the picture, most of it.

        Raises:
            DetailMissing: it was not recorded; the text says how to.
            WordNotFound: the prompt has no such word.

        Example:
            >>> maps.word_matrix(["red", "house"])
            Traceback (most recent call last):
            daam_core.errors.DetailMissing: What the text attended to was not recorded. Record with ...
        """
        prompt = self.positive.prompt
        found = [prompt.find(word) for word in (prompt.labels if words is None else several(words))]
        return relations.matrix(self.positive.relations, found)


def _text_to_image(image: RecordedImage) -> RecordedImage:
    assert image.relations is not None
    sums = image.relations.text_to_image
    return dataclasses.replace(
        image,
        sums=sums,
        time_weighted=sums,
        num_terms={grid: image.num_terms.get(grid, sum(image.num_terms.values())) for grid in sums},
        detail=None,
        heads=None,
        output=None,
        frames=image.frames and image.frames.merged(),
    )
