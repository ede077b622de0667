"""An explicit computation of attention that shares no code with the package: float64, every row of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Witness:
    """Collects what arrives at `scaled_dot_product_attention` while a block of code runs, in order.

    Attributes:
        calls: (q, k, mask, scale) of each, q and k `[batch, heads, n, d]`, every query head with its own key head.

    Args:
        model, apart: what is called inside this part of the model is left out.
    """

    def __init__(self, model: nn.Module | None = None, apart: str = "") -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, float]] = []
        self._handles, self._muted = [], 0
        if model is not None and apart:
            for part in model.get_submodule(apart).children():
                self._handles.append(part.register_forward_pre_hook(lambda *_: self._mute(1)))
                self._handles.append(part.register_forward_hook(lambda *_: self._mute(-1)))

    def _mute(self, by: int) -> None:
        self._muted += by

    def __enter__(self) -> Witness:
        below = self._below = torch.nn.functional.scaled_dot_product_attention

        def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Tensor:
            k = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            if not self._muted:
                self.calls.append((query.detach().clone(), k.detach().clone(), attn_mask, scale))
            # A mode that looks for PyTorch's attention (perturbed attention guidance) knows it by this name.
            standing = torch.nn.functional.scaled_dot_product_attention  # ours, or a wrapper around it
            torch.nn.functional.scaled_dot_product_attention = below
            try:
                return below(query, key, value, attn_mask, *args, **kwargs)
            finally:
                torch.nn.functional.scaled_dot_product_attention = standing

        torch.nn.functional.scaled_dot_product_attention = attention
        return self

    def __exit__(self, *_: object) -> None:
        torch.nn.functional.scaled_dot_product_attention = self._below
        for handle in self._handles:
            handle.remove()

    def probabilities(self, index: int) -> Tensor:
        """float64 `[batch, heads, n, keys]`, normalised over all keys."""
        q, k, mask, scale = self.calls[index]
        scores = q.double() @ k.double().transpose(-1, -2) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
        return scores.softmax(-1)


def spoil(value: Any, own: Any = ...) -> Any:
    """A copy with NaN in place of its numbers, or of a slice of them."""
    if isinstance(value, (list, tuple)):
        return type(value)(spoil(part, own) for part in value)
    spoiled: Tensor = value.clone()
    spoiled[own] = torch.nan
    return spoiled


def text_and_picture(model: nn.Module, case: Any) -> tuple[int, Tensor, Tensor]:
    """Where text and picture stand, found by what turns NaN when they do, without knowing anything of the model.

    Returns:
        The index of the first call in which the text has turned keys into NaN and the picture queries, and neither the
        other's; and for each row of its batch which keys are text and which queries are the picture.
    """
    given = case.given
    text = {} if case.embedded else {name: spoil(given[name], case.text_own) for name in case.text}
    with _clean(model, case), _spoiled(model, case), Witness(model, case.apart) as by_text, torch.no_grad():
        model(**{**given, **text})
    with Witness(model, case.apart) as by_picture, torch.no_grad():
        model(**{**given, case.picture: spoil(given[case.picture], case.own)})
    for index, (t, p) in enumerate(zip(by_text.calls, by_picture.calls, strict=True)):
        keys, queries = (x.isnan().any(-1).any(1) for x in (t[1], p[0]))
        late = t[0].isnan().any(-1).any(1)  # queries that the text has reached already
        if keys.any() and queries.any() and not (keys & p[1].isnan().any(-1).any(1)).any() and not (late & queries).any():
            # An attention of the picture to itself has spread NaN over all queries: before it they tell.
            early = next(c[0] for c in by_picture.calls if c[0].shape == p[0].shape and c[0].isnan().any())
            return index, keys, early.isnan().any(-1).any(1)
    raise AssertionError("no attention of the picture to the text was found")


@contextmanager
def _spoiled(model: nn.Module, case: Any) -> Iterator[None]:
    """Tokens cannot be NaN: what is made of them is."""
    if not case.embedded:
        yield
        return
    handle = model.get_submodule(case.embedded).register_forward_hook(lambda m, a, out: torch.full_like(out, torch.nan))
    yield
    handle.remove()


@contextmanager
def _clean(model: nn.Module, case: Any) -> Iterator[None]:
    """The vector that a model makes of the whole text stays as it is without NaN."""
    if not case.pooled:
        yield
        return
    module, kept = model.get_submodule(case.pooled), []
    handle = module.register_forward_hook(lambda m, a, out: kept.append(out))
    with torch.no_grad():
        model(**case.given)
    handle.remove()

    def replaced(m: nn.Module, a: Any, out: Any) -> Any:
        return (kept[0][0], *out[1:]) if isinstance(out, tuple) else kept[0]

    handle = module.register_forward_hook(replaced)
    yield
    handle.remove()
