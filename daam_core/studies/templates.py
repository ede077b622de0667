"""Prompts with a gap for an adjective: "a {rusty, metallic, wooden} shovel sitting in a clean shed" (paper, section 5.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadPrompt, quoted
from ..prompt.alignment import search_key
from ..prompt.prompt import Prompt
from .files import read_prompts
from .parsing import aligned
from .word_masks import Labels

_GAP = re.compile(r"^([^{}]*)\{([^{}]*)\}([^{}]*)$")
_ARTICLE = re.compile(r"(^|\s)an?$", re.I)


@dataclass(frozen=True)
class Template:
    """`before` the gap, the adjectives that can fill it, and `after` it; the noun is the first word after the gap."""

    before: str
    adjectives: tuple[str, ...]
    after: str

    @property
    def text(self) -> str:
        """The template as it is written."""
        return f"{self.before} {{{','.join(self.adjectives)}}} {self.after}".strip()

    @property
    def noun(self) -> str:
        """The first word after the gap, without punctuation."""
        return re.split(r"[^\w'’-]", self.after, maxsplit=1)[0]

    def prompt(self, adjective: str = "") -> str:
        """The prompt with this adjective (none: without any); "a" and "an" follow the next word."""
        rest = f"{adjective} {self.after}" if adjective else self.after
        before = self.before
        if (article := _ARTICLE.search(before)) is not None:
            a = before[article.end(1)]
            before = before[: article.end(1)] + a + ("n" if rest[:1].lower() in "aeiou" else "")
        return f"{before} {rest}".strip()


def read_templates(path: Path) -> list[Template]:
    """Templates from a text file, one a line, UTF-8.

    Raises:
        BadPrompt: as `read_prompts`, or a line without exactly one gap of two different adjectives or more and a noun after
            it; the text says which line.
    """
    return [_template(line, f"{path}, line {number}") for number, line in enumerate(read_prompts(path), 1)]


def _template(line: str, where: str) -> Template:
    found = _GAP.match(line)
    if found is None:
        raise BadPrompt(f'{where}: {quoted(line)} has no gap like {{red,blue}}: write "a {{rusty,metallic}} shovel in a shed".')
    adjectives = tuple(" ".join(part.split()) for part in found[2].split(","))
    if len(adjectives) < 2 or not all(adjectives) or len({search_key(a) for a in adjectives}) < len(adjectives):
        raise BadPrompt(f"{where}: the gap {{{found[2]}}} needs two different adjectives or more, with commas between.")
    template = Template(" ".join(found[1].split()), adjectives, " ".join(found[3].split()))
    if not template.noun:
        raise BadPrompt(f"{where}: no noun follows the gap {{{found[2]}}}.")
    return template


def noun_and_adjective(template: Template, prompt: Prompt, adjective: str = "") -> tuple[Labels, Labels]:
    """Labels of the words that spell the noun and the adjective (empty without one) in a prompt of the template.

    Both are found by their place, because either may stand elsewhere in the prompt, too.

    Raises:
        BadPrompt: the text encoder did not get them whole.
    """
    whole = template.prompt(adjective)
    before = whole[: len(whole) - len(f"{adjective} {template.after}".strip())].split()
    parts = [*before, *adjective.split(), template.noun]
    found = aligned(parts, prompt)[len(before) :]
    if not all(found):
        lost = quoted(" ".join(parts[len(before) :]))
        raise BadPrompt(f"The model did not get {lost} of {quoted(whole)} whole: the prompt is too long.")
    return found[-1], tuple(label for labels in found[:-1] for label in labels)
