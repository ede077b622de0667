"""What a user typed into a text field, as words, layers, steps or heads of a recording."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..daam_core.errors import BadArgument, DetailMissing, NothingRecorded, WordNotFound, quoted
from ..daam_core.maps.data import Aggregation
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.types import Relation

NEGATIVE = "negative:"
WORDS_HELP = (
    "One word or phrase a line (or between commas). Empty: every word that can be seen. `*`: all words. `house#2`: the second "
    "house. `<start>`, `<end>`, `<padding>`: the tokens around the prompt. `negative:blurry`: a word of the negative prompt."
)
DRAWN_WORDS = 12
DRAWN_WORDS_HELP = WORDS_HELP.replace("every word that can be seen", f"the {DRAWN_WORDS} strongest words of meaning")
SOME_WORDS_HELP = "Only these words, one a line or between commas; empty: every word that can be seen."
NOT_RECORDED = (
    "{} was not recorded. Set `relations` in the Record Attention node and queue again, with a model whose text and picture "
    "are one sequence (Flux, SD3, Qwen-Image, Z-Image and others)."
)
NO_OUTPUT = (
    "The output of the attention was not recorded. Switch `output_space` on in the Record Attention node and queue again; "
    "pictures that were painted whole have it, videos do not."
)
SUMS: list[Aggregation] = ["sum", "output", "anchor"]
AGGREGATION_HELP = (
    "sum: how much each place attends to a word (Eq. 6). output: how far what the attention gives out there agrees with the "
    "word. anchor: how far it is like the place where the word is strongest. Both of recordings with `output_space` in Record."
)
FRAMES_HELP = "Only these latent frames of a video, from 0; -1 is the last one. Empty: all. A single frame is a picture."


def words_in(text: str, maps: HeatMaps) -> list[str]:
    """The words that `text` asks for, each once, in order.

    Raises:
        WordNotFound: the prompt has no such word (the text lists those it has).
        NothingRecorded: a word of the negative prompt was asked for, and that was not recorded; or there are no words.
    """
    asked = _parts(text)
    found: list[str] = []
    for word in asked:
        if word in ("*", f"{NEGATIVE}*"):
            found += [*maps.words, *maps.concepts] if word == "*" else [NEGATIVE + w for w in negative(maps).words]
        else:
            found.append(word)
    if not asked:
        found = maps.default_words()
    if not found:
        raise NothingRecorded("The prompt has no words, so there is no map to show. Write a prompt, or ask for <start>.")
    for word in found:
        _check_word(word, maps)
    return list(dict.fromkeys(found))


def _parts(text: str) -> list[str]:
    """What stands between commas and on lines of its own, without what is empty."""
    return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]


def words_of_each(text: str, handle: Sequence[HeatMaps]) -> list[list[str]]:
    """As `words_in`, of each picture of a batch; without a choice each picture has its own words.

    Raises:
        WordNotFound: a picture's prompt has no such word; the text says which picture's, where others have it.
        NothingRecorded: see `words_in`.
    """
    found = []
    for number, maps in enumerate(handle, start=1):
        try:
            found.append(words_in(text, maps))
        except WordNotFound as error:
            if number == 1:
                raise
            raise WordNotFound(_another_prompt(number, maps, str(error))) from error
    return found


def _another_prompt(number: int, maps: HeatMaps, told: str) -> str:
    return (
        f"The pictures of this batch were painted with different prompts, and picture {number} has another one "
        f"({quoted(maps.prompt.text, 80)}): {told} Ask for words that all of them have, or take the pictures apart with Latent "
        "From Batch and Image From Batch."
    )


def drawn_words(text: str, handle: Sequence[HeatMaps]) -> tuple[list[str], int]:
    """As `words_in`, for nodes that draw the same words on each picture of a batch: without a choice the strongest words of
    meaning, in the prompt's order, and the concepts that are most likely in the picture.

    Returns:
        (the words, how many more there are).

    Raises:
        WordNotFound, NothingRecorded: see `words_of_each`.
    """
    maps, names = handle[0], words_in(text, handle[0])
    for number, other in enumerate(handle[1:], start=2):
        for name in names if other.prompt != maps.prompt else ():
            try:
                _check_word(name, other)
            except WordNotFound as error:
                raise WordNotFound(_another_prompt(number, other, str(error))) from error
    if _parts(text):
        return names, 0
    strongest = sorted(names, key=lambda name: _peak(maps, name), reverse=True)[:DRAWN_WORDS]
    likeliest = sorted(maps.concepts, key=lambda name: maps.presence(name).score, reverse=True)[:DRAWN_WORDS]
    shown = {*strongest, *likeliest}
    every = [*names, *maps.concepts]
    return [name for name in every if name in shown], len(every) - len(shown)


def left_out_note(drawn: int, more: int) -> str:
    """What `drawn_words` left out, as it is told at a node; empty where it is nothing."""
    return f"The {drawn} strongest of {drawn + more} words are drawn; `*` in words draws all." if more else ""


def _peak(maps: HeatMaps, name: str) -> float:
    """The largest attention of a word at one place, of each resolution's own size, together."""
    maps = maps.sum_frames()
    channels = list(maps.prompt.find(name).channels)
    return sum(float(sums[channels].sum(0).max()) / max(1, maps.num_terms[grid]) for grid, sums in maps.sums.items())


def _check_word(word: str, maps: HeatMaps) -> None:
    """Raises WordNotFound; words that stand in the prompt, but not side by side, were meant one by one."""
    side, query = side_of(word, maps)
    try:
        side.is_concept(query)
    except WordNotFound as error:
        parts = query.split()
        if len(parts) > 1 and all(_has(side, part) for part in parts):
            raise WordNotFound(
                f"{quoted(query)} does not stand in the prompt in one piece. For the words one by one, put commas between "
                f"them: {', '.join(parts)}."
            ) from error
        raise


def _has(maps: HeatMaps, word: str) -> bool:
    try:
        maps.prompt.find(word)
    except WordNotFound:
        return False
    return True


def side_of(word: str, maps: HeatMaps) -> tuple[HeatMaps, str]:
    """The maps that hold a word, and the word without its prefix."""
    if word.lower().startswith(NEGATIVE):
        return negative(maps), word[len(NEGATIVE) :].strip()
    return maps, word


def of_one_prompt(names: Sequence[str], maps: HeatMaps) -> tuple[HeatMaps, list[str]]:
    """The maps that hold these words, and the words without their prefix, for numbers that words of one prompt share.

    Raises:
        BadArgument: some are of the prompt and some of the negative prompt.
    """
    found = [side_of(name, maps) for name in names]
    side = found[0][0]
    if any(other is not side for other, _ in found):
        raise BadArgument(
            "The numbers of this node are shares among words of one prompt, and these are of the prompt and of the negative "
            f"prompt ({quoted(', '.join(names), 80)}). Ask for those of one of them; another node takes the others."
        )
    return side, [query for _, query in found]


def negative(maps: HeatMaps) -> HeatMaps:
    """The negative prompt's maps. Raises NothingRecorded where they were not recorded."""
    if maps.negative is None:
        raise NothingRecorded(
            "The negative prompt was not recorded. Switch `negative` on in the Record Attention node, sample with a cfg above "
            "1 (at 1 the model is not given it), and queue again."
        )
    return maps.negative


def chosen(maps: HeatMaps, layers: str, steps: str, heads: str) -> HeatMaps:
    """Maps from some layers ("down, mid, up", numbers, module paths), steps and heads ("0-4, -1"); empty is all.

    Raises:
        DetailMissing: the recording did not keep them apart.
        BadArgument: no such layer, step or head.
    """
    wanted = [part.strip() for part in layers.split(",") if part.strip()]
    asked: list[str | int] = []
    for part in wanted:
        asked += numbers(part, "layers") if _is_range(part) else [_layer_name(part, maps)]
    asked_layers = asked or None
    # A step that is named twice, once from each end, counts once.
    counted = [n + maps.steps if -maps.steps <= n < 0 else n for n in numbers(steps, "steps")]
    asked_steps = list(dict.fromkeys(counted)) or None
    asked_heads = numbers(heads, "heads") or None
    try:
        picked = maps.select(layers=asked_layers, steps=asked_steps, heads=asked_heads)
    except DetailMissing as error:
        if asked_heads and asked_steps:
            raise
        missing = " and ".join(name for name, given in (("layers", asked_layers), ("steps", asked_steps)) if given)
        if asked_heads:
            raise DetailMissing(
                "The heads were not kept apart. Switch `heads` on in the Record Attention node and queue again."
            ) from error
        raise DetailMissing(
            f"The {missing} were not kept apart. Set `detail` to {_detail_for(maps, layers, steps)} in the Record Attention "
            "node and queue again."
        ) from error
    if picked is not maps and maps.negative is not None:
        picked = picked.with_negative(chosen(maps.negative, layers, steps, heads))
    return picked


def of_frames(maps: HeatMaps, frames: str) -> HeatMaps:
    """Maps of some frames of a video ("0-4, -1"); empty is all. One frame is a picture.

    Raises:
        BadArgument: there is no such frame, or the recording is of a picture.
        DetailMissing: layers, steps or heads were chosen, too.
    """
    asked = numbers(frames, "frames")
    return maps.select(frames=asked) if asked else maps


def of_relation(maps: HeatMaps, relation: Relation) -> HeatMaps:
    """The maps of another relation; those of a video are then its sum. Raises DetailMissing."""
    try:
        return maps.relation(relation)
    except DetailMissing as error:
        raise DetailMissing(NOT_RECORDED.format(relation)) from error


def of_aggregation(maps: HeatMaps, aggregation: Aggregation, parts: bool) -> HeatMaps:
    """The maps by another aggregation; `parts` is whether layers, steps, heads, frames or a relation were chosen.

    Raises:
        BadArgument: they were, and output space is kept summed.
        DetailMissing: output space was not recorded.
    """
    if aggregation == "sum":
        return maps
    if parts:
        raise BadArgument(
            f"The aggregation {aggregation} is of all layers, steps and heads and of image->text: leave layers, steps, heads, "
            "frames and relation as they are, or choose the aggregation sum."
        )
    try:
        return maps.aggregate(aggregation)
    except DetailMissing as error:
        raise DetailMissing(NO_OUTPUT) from error


def _detail_for(maps: HeatMaps, layers: str, steps: str) -> str:
    """The least that Record's `detail` has to be for what is asked, keeping what it was."""
    by_layer = bool(layers.strip()) or (maps.detail is not None and any(maps.detail.layers.values()))
    by_step = bool(steps.strip()) or (maps.detail is not None and maps.detail.by_step)
    return "'layers + steps'" if by_layer and by_step else "'layers'" if by_layer else "'steps'"


_BLOCKS = {"input": "down", "encoder": "down", "middle": "mid", "center": "mid", "output": "up", "decoder": "up"}


def _layer_name(part: str, maps: HeatMaps) -> str:
    """`down`, `mid`, `up` or the name of a layer of these maps.

    Raises:
        BadArgument: there is none; the text names the nearest.
    """
    names = list(dict.fromkeys(layer.name for layer in maps.layers))
    if part in names or part.lower() in ("down", "mid", "up"):
        return part if part in names else part.lower()
    near = _BLOCKS.get(part.lower()) or next(iter(difflib.get_close_matches(part, ["down", "mid", "up", *names], 1)), None)
    hint = f" Did you mean {quoted(near)}?" if near else ""
    raise BadArgument(
        f"There is no layer {quoted(part)}.{hint} Layers are down, mid, up, or numbers from 0 to "
        f"{len(maps.layers) - 1}, such as 0-4."
    )


def numbers(text: str, what: str) -> list[int]:
    """`"0-4, 7, -1, 3"` -> `[0, 1, 2, 3, 4, 7, -1]`, each number once.

    Raises:
        BadArgument: something else than numbers and ranges.
    """
    found: list[int] = []
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        if not _is_range(part):
            raise BadArgument(f"{what} are numbers and ranges such as '0-4, 7, -1', not {quoted(part)}.")
        first, last = re.fullmatch(r"(-?\d{1,5})(?:\s*-\s*(\d{1,5}))?", part).groups()  # type: ignore[union-attr]
        low, high = int(first), int(first if last is None else last)
        if last is not None and not 0 <= low <= high:
            raise BadArgument(f"{what} go from the smaller number to the larger, such as '4-9', not {quoted(part)}.")
        found += range(low, high + 1)
    return list(dict.fromkeys(found))


def _is_range(part: str) -> bool:
    return re.fullmatch(r"-?\d{1,5}(?:\s*-\s*\d{1,5})?", part) is not None
