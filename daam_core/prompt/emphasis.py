"""Hosts' prompt syntax: weights in brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Syntax = Literal["webui", "comfyui"]

_STEP = 1.1
LARGEST_WEIGHT = 1e6
"""Weights beyond it are cut to it: no picture comes of them, and a number of 400 digits is infinite."""
# Digits in one run each: `\d+\.?\d*` would try every way to cut a long number in two.
_NUMBER = r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)"
_LEXEMES = {
    "webui": re.compile(rf"\\[()\[\]\\]|{_NUMBER}|[()\[\]]|[^\\()\[\]:]+|.", re.DOTALL),
    "comfyui": re.compile(rf"\\[()]|{_NUMBER}|[()]|[^\\():]+|.", re.DOTALL),
}


def parse_weights(text: str, syntax: Syntax = "webui") -> list[tuple[str, float]]:
    r"""Split a prompt into `(text, weight)` runs of equal weight, brackets removed.

    `(a)` weighs 1.1, `((a))` 1.21, `(a:1.3)` 1.3; `\(` and `\)` are plain brackets.
    "webui" (A1111, Forge): `[a]` weighs 1/1.1, weights of nested brackets multiply, a bracket left open closes at
    the end. "comfyui": `[` is plain text, a number replaces what surrounds it, a bracket left open is plain text.
    A closing bracket that nothing opened is plain text. BREAK is left in the text. Linear in its length; weights are finite,
    at most `LARGEST_WEIGHT`.
    """
    lexemes = list(_LEXEMES[syntax].finditer(text))
    opens, closes = _match_brackets(lexemes, syntax)
    runs: list[tuple[str, float]] = []
    weights = [1.0]
    for i, lexeme in enumerate(lexemes):
        if i in opens:
            factor, absolute = opens[i]
            weights.append(_clamped(factor if absolute else weights[-1] * factor))
        elif i in closes:
            del weights[len(weights) - closes[i] :]
        else:
            plain = lexeme[0][1:] if lexeme[0][0] == "\\" and len(lexeme[0]) > 1 else lexeme[0]
            runs.append((plain, weights[-1]))
    return _joined(runs)


def _match_brackets(lexemes: Sequence[re.Match[str]], syntax: Syntax) -> tuple[dict[int, tuple[float, bool]], dict[int, int]]:
    """Opening lexeme -> (factor, is it absolute); closing lexeme -> how many brackets it closes."""
    opens: dict[int, tuple[float, bool]] = {}
    closes: dict[int, int] = {}
    stack: list[tuple[int, str]] = []
    waiting = {"(": 0, "[": 0}
    for i, lexeme in enumerate(lexemes):
        text = lexeme[0]
        if text in waiting:
            stack.append((i, text))
            waiting[text] += 1
        elif text in (")", "]") or lexeme[1] is not None:
            partner = "[" if text == "]" else "("
            if not waiting[partner]:
                continue
            closes[i] = 0
            kind = ""
            while kind != partner:
                opener, kind = stack.pop()
                waiting[kind] -= 1
                closes[i] += 1
                opens[opener] = (_STEP if kind == "(" else 1 / _STEP, False)
            if lexeme[1] is not None:
                opens[opener] = (_clamped(float(lexeme[1])), syntax == "comfyui")
    if syntax == "webui":
        opens.update({i: (_STEP if kind == "(" else 1 / _STEP, False) for i, kind in stack})
    return opens, closes


def _clamped(weight: float) -> float:
    return min(max(weight, -LARGEST_WEIGHT), LARGEST_WEIGHT)


def _joined(runs: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    joined: list[tuple[list[str], float]] = []
    for text, weight in runs:
        if joined and joined[-1][1] == weight:
            joined[-1][0].append(text)
        else:
            joined.append(([text], weight))
    return [("".join(texts), weight) for texts, weight in joined]
