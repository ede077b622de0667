"""Concepts: words and phrases that a recording shows although the prompt does not hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import BadArgument, WordNotFound, quoted
from .alignment import LONE_SURROGATES, search_key
from .prompt import Prompt
from .stopwords import STOP_WORDS
from .tokenization import SPECIALS
from .words import Token, Word

MOST_CONCEPTS = 64
LONGEST = 200
TEMPLATE = "a {}"
"""What a concept is put into before it is encoded, unless it begins with an article itself."""
RIVALS = ("house", "tree", "sun", "moon", "star", "boat", "fish", "mushroom", "balloon", "flower", "car", "heart")
"""Everyday things that a concept is held against to tell whether it is in the picture at all: the first eleven that are not
the concept itself."""
NUM_RIVALS = 11
_ARTICLES = frozenset({"a", "an", "the", "some", "my", "your", "his", "her", "its", "our", "their", "this", "that"})


@dataclass(frozen=True)
class Concept:
    """What is looked for.

    Attributes:
        label: how it is asked for: `maps.heat_map(label)`.
        text: what the text encoder is given, which holds the label: "a house".
    """

    label: str
    text: str


class ConceptWord(Word):
    """A concept where a `Word` is asked for: its channel is one of the concepts' side, not of the prompt's."""


def concepts_of(asked: str | Sequence[str] | Mapping[str, str], template: str = TEMPLATE) -> tuple[Concept, ...]:
    """Concepts from what a user gives: each once, in order.

    Args:
        asked: words and phrases; one text with commas between; or a text to encode for each, `{"sky": "a photo of the sky"}`.
        template: what those are put into that have no text of their own, with `{}` in it.

    Raises:
        BadArgument: none or more than 64, one of more than 200 characters, a name of start, end or padding, or a template
            without `{}` or of more than 200 characters.

    Example:
        >>> concepts_of("sky, a dog's tail")
        (Concept(label='sky', text='a sky'), Concept(label="a dog's tail", text="a dog's tail"))
    """
    if template.count("{}") != 1:
        raise BadArgument(f"A template for concepts holds {{}} once, such as 'a photo of {{}}', not {quoted(template, 80)}.")
    if len(template) > LONGEST or LONE_SURROGATES.search(template):
        raise BadArgument(f"A template for concepts is a text of up to {LONGEST} whole characters, not {quoted(template, 80)}.")
    pairs: list[tuple[str, str | None]]
    if isinstance(asked, str):
        pairs = [(part, None) for part in asked.replace("\n", ",").split(",") if part.strip()]
    elif isinstance(asked, Mapping):
        pairs = [(label, text) for label, text in asked.items()]
    elif isinstance(asked, Iterable):
        pairs = [(one, None) for one in asked]
    else:
        raise BadArgument(f"Concepts are a text such as 'sky' or a list of texts, not {quoted(asked, 40)}.")
    found: dict[str, Concept] = {}
    for label, text in pairs:
        if not isinstance(label, str) or not (text is None or isinstance(text, str)):
            raise BadArgument(f"A concept is a text such as 'sky', not {quoted(label, 40)}.")
        label = " ".join(label.split())
        key = search_key(label)
        if not key or key in SPECIALS or len(label) > LONGEST or len(text or "") > LONGEST:
            raise BadArgument(f"A concept is a word or phrase of 1 to {LONGEST} characters, not {quoted(label, 60)}.")
        if LONE_SURROGATES.search(label + (text or "")):
            raise BadArgument(f"The concept {quoted(label, 60)} holds a broken character. Type it again (as UTF-8).")
        found.setdefault(key, Concept(label, text or _in_template(label, template)))
    if not 1 <= len(found) <= MOST_CONCEPTS:
        raise BadArgument(f"From 1 to {MOST_CONCEPTS} concepts can be recorded at once; {len(found)} were given.")
    return tuple(found.values())


def concepts_prompt(concepts: str | Sequence[str] | Mapping[str, str]) -> str:
    """One prompt in which each of the concepts stands: `["house", "the sky"]` -> "a house, the sky".

    Raises:
        BadArgument: none, or more than a recording takes.
    """
    return ", ".join(one.text if one.label in one.text else one.label for one in concepts_of(concepts))


def _in_template(label: str, template: str) -> str:
    if template == TEMPLATE and label.split()[0].casefold() in _ARTICLES:
        return label
    return template.replace("{}", label)


def rivals_of(concept: Concept) -> tuple[str, ...]:
    """The things that tell whether a concept is in the picture: eleven of `RIVALS` that it does not name.

    Example:
        >>> rivals_of(Concept("tree", "a tree"))[:2]
        ('house', 'sun')
    """
    own = {search_key(word) for word in concept.label.split()}
    return tuple(rival for rival in RIVALS if rival not in own)[:NUM_RIVALS]


def own_columns(text: Prompt, label: str) -> tuple[int, ...]:
    """The context columns of a concept inside its own text, without articles and prepositions where there is more.

    Raises:
        BadArgument: the encoder has no token for it.
    """
    try:
        word = text.find(label)
        chosen = set(word.channels)
    except WordNotFound:
        chosen = set()
    content = {
        c for w in text.words if search_key(w.text) not in STOP_WORDS and w.label in text.content_words() for c in w.channels
    }
    chosen = chosen or content  # a text that says it in other words
    columns = tuple(token.column for token in text.tokens if token.channel in (chosen & content or chosen))
    if not columns:
        raise BadArgument(f"The text encoder reads nothing of the concept {quoted(label)}.")
    return columns


def competing_columns(prompt: Prompt, label: str) -> tuple[int, ...]:
    """The context columns of a prompt's words, less those that a concept's words share with it."""
    own = {search_key(word) for word in label.split()} - STOP_WORDS
    shared = {c for word in prompt.words if search_key(word.text) in own for c in word.channels}
    return tuple(token.column for token in prompt.tokens if token.channel not in shared)


def concept_prompt(concepts: Sequence[Concept]) -> Prompt:
    """The words of a side that holds concepts: one channel each, no start, end or padding.

    Example:
        >>> concept_prompt(concepts_of(["sky", "tail"])).labels
        ['sky', 'tail']
    """
    tokens = tuple(Token(i, one.label, i + 1) for i, one in enumerate(concepts))
    words = tuple(Word(one.label, one.label, (i + 1,)) for i, one in enumerate(concepts))
    return Prompt(", ".join(one.label for one in concepts), tokens, words, (), (), (), len(tokens))
