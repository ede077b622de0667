"""Where trees come from: the embedded world's own grammar, or an installed English pipeline of spaCy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadArgument, MissingPackage, quoted
from ..packages import missing
from ..prompt.alignment import search_key
from ..prompt.prompt import Prompt
from ..tiny.caption_reader import read_caption
from .trees import Tree, universal

Parser = Callable[[str], Tree]
GRAMMAR = "grammar"
SPACY = "spacy"


def grammar_parser(text: str) -> Tree:
    """The tree of a caption of the embedded world. Raises BadPrompt for any other sentence."""
    return Tree.from_caption(read_caption(text))


def chosen_parser(name: str) -> Parser:
    """ "grammar", or a parser of spaCy by name. Raises as `spacy_parser`."""
    return grammar_parser if name == GRAMMAR else spacy_parser(name)


def spacy_parser(name: str = SPACY) -> Parser:
    """A parser from an English spaCy pipeline.

    Args:
        name: an installed pipeline's name, a folder with one, or "spacy" for any installed English pipeline that
            parses (in alphabetical order).

    Raises:
        MissingPackage: spaCy or an English pipeline is not installed; the text says how to get one.
        BadArgument: the pipeline of this name or folder cannot be loaded, or does not parse.
    """
    try:
        import spacy
    except ImportError as error:
        raise missing("Parsing prompts needs", "spaCy", "syntax") from error
    names = _installed(spacy) if name == SPACY else [name]
    if not names:
        raise MissingPackage(
            "No English pipeline of spaCy is installed, so prompts cannot be parsed: install one with "
            "`python -m spacy download en_core_web_sm`, or give a folder with one as --parser FOLDER."
        )
    nlp = _load(spacy, names[0])
    return lambda text: tree_of(nlp(text))


def _installed(spacy: Any) -> list[str]:
    return sorted(name for name in spacy.util.get_installed_models() if name.startswith("en_"))


def _load(spacy: Any, name: str) -> Any:
    try:
        nlp = spacy.load(Path(name) if Path(name).is_dir() else name)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadArgument(f"{quoted(name)} cannot be loaded as a spaCy pipeline: {lines[0]}") from error
    if "parser" not in nlp.pipe_names:
        raise BadArgument(
            f"The spaCy pipeline {quoted(name)} does not parse: it has {', '.join(nlp.pipe_names) or 'no parts at all'}."
        )
    return nlp


def tree_of(doc: Any) -> Tree:
    """A parsed spaCy document as a tree of Universal Dependencies; white space is no word, and its dependents move up.

    A prompt of several sentences has several roots.
    """
    kept = [token for token in doc if not token.is_space]
    place = {token.i: k for k, token in enumerate(kept)}
    heads = []
    for token in kept:
        head = token.head
        while head.is_space and head.head.i != head.i:
            head = head.head
        heads.append(-1 if head.i == token.i or head.is_space else place[head.i])
    relations = ["root" if head < 0 else token.dep_ or "dep" for token, head in zip(kept, heads, strict=True)]
    numbers = [_number(token) for token in kept]
    tags = [token.pos_ or "X" for token in kept]
    return universal(Tree(tuple(token.text for token in kept), tuple(heads), tuple(relations), tuple(tags), tuple(numbers)))


def _number(token: Any) -> str:
    found = token.morph.get("Number")
    if found:
        return str(found[0])
    return {"NN": "Sing", "NNP": "Sing", "NNS": "Plur", "NNPS": "Plur"}.get(token.tag_, "")


def aligned(words: Sequence[str], prompt: Prompt) -> list[tuple[str, ...]]:
    """For each word of a parse the labels of the prompt's words that spell it; empty where they were cut differently.

    Both sequences spell one text, so a word of the parse is found by its place among all letters: "teddy-bear" is the
    prompt's words "teddy", "-", "bear". A word that the text encoder did not get (the prompt was too long), or of which
    a prompt's word is only a part ("do" and "n't" of "don't"), gets no label.
    """
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    at = 0
    for number, typed in enumerate(prompt.words):
        starts[at] = number
        at += len(search_key(typed.text))
        ends[at] = number
    spelled = "".join(search_key(typed.text) for typed in prompt.words)
    found: list[tuple[str, ...]] = []
    at = 0
    for word in words:
        key = search_key(word)
        first, last = starts.get(at), ends.get(at + len(key))
        fits = key != "" and spelled[at : at + len(key)] == key and first is not None and last is not None
        found.append(tuple(w.label for w in prompt.words[first : last + 1]) if fits else ())  # type: ignore[operator]
        at += len(key)
    return found
