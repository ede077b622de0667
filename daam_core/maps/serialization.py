"""A recording as named tensors and a JSON header, and back: what `safetensors_file` writes and reads.

The schema of a record, version 1. Names are those of version 0.1.0: `late` is `time_weighted`, `place` a layer's block, `row` a
channel, `rule` the aggregation.

    sums/HxW, late/HxW            float32 [channels, H, W]; of a video with several frames [frames, channels, H, W]
    detail/HxW                    float16 [steps or 1, layers or 1, tokens, H, W]
    heads/I                       float32 [heads, channels, H, W] of layer I
    text-image/HxW                float32 [channels, H, W], where text->image was kept
    text-text, text-queries       float32 [channels, channels] and [channels], where text->text or text->image was kept
    output/HxW                    float32 [channels, H, W], where output space was kept
    affinity/HxW                  float32 [H * W, H * W] of one resolution, where output space was kept of the whole picture
    self/HxW                      float32 [H * W, H * W]; of a video [frames * H * W, frames * H * W]
    picture/png                   uint8 [bytes]
    video/I                       uint8 [bytes], JPEG of frame I of a video
    negative/...                  the same of the negative prompt
    concepts/...                  the same of concepts, which have sums and late alone
    header                        prompt, size, steps, timesteps, terms, layers, detail, rule, specials, negative, concepts; of
                                  a video frames (see `Frames`) and video, how many frames it has; of output
                                  space output_weight

A record may come from a stranger. `unpack` checks every part before anything is made of it, so that whatever loads can be
used: no later step meets a shape, number or name that it does not expect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import BadArgument, BadPrompt, BadRecord, quoted
from ..prompt.prompt import Prompt, Token, Word
from ..types import Grid, Image, Side, Size, Video
from .data import Aggregation, Detail, LayerInfo, RecordedImage
from .frames import Frames
from .output_space import OutputSpace
from .pixels import LARGEST_PICTURE, from_jpegs, from_png, to_jpegs, to_png
from .record_values import Values, by_grid, finite
from .relations import Relations

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

MOST_STEPS = 100_000
MOST_TERMS = 2**53
MOST_PLACES = 2000
"""That are held against each other."""
LONGEST_ENCODER = 40
"""Characters of the name of a text encoder."""
MOST_FRAMES = 4096
"""Of a video."""
FIRST_LIKELY = 0.22
"""Records of before tell no level: their scores were peaks among all heads alike, and a concept was likely from here on."""
RULES: Mapping[Aggregation, str] = {"sum": "paper", "castorini": "castorini", "output": "output", "anchor": "anchor"}
"""What records and pages call the aggregations."""
_BLOCKS = ("down", "mid", "up")

Packed = tuple[dict[str, Tensor], dict[str, Any]]
Unpacked = tuple[dict[Side, RecordedImage], Size, Image | None, Video | None]


def pack(maps: HeatMaps) -> Packed:
    """Both sides, the picture and its size -> (tensors by name, JSON-able header).

    Raises:
        BadArgument: a picture or size that no record may hold.
    """
    size = maps.size if maps.picture is None else (maps.picture.shape[0], maps.picture.shape[1])
    if size[0] * size[1] > LARGEST_PICTURE:
        raise BadArgument(f"A record holds pictures of up to {LARGEST_PICTURE} pixels, not {size[1]} x {size[0]}.")
    tensors, header = _pack_side(maps.positive, size)
    header["negative"] = None
    if "negative" in maps.sides:
        more, header["negative"] = _pack_side(maps.sides["negative"], size)
        tensors |= {f"negative/{name}": x for name, x in more.items()}
    if "concepts" in maps.sides:
        side = maps.sides["concepts"]
        more, header["concepts"] = _pack_side(side, size)
        header["concepts"]["presence"], header["concepts"]["likely"] = list(side.presence or ()), side.likely
        tensors |= {f"concepts/{name}": x for name, x in more.items()}
    if maps.picture is not None:
        tensors["picture/png"] = to_png(maps.picture)
    if maps.video is not None:
        header["video"] = len(maps.video)
        tensors |= to_jpegs(maps.video)
    return tensors, header


def unpack(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Unpacked:
    """(sides, size, picture, video) out of a record.

    Raises:
        BadRecord: a part is missing, is nothing that a recording holds, or does not fit the others.
    """
    values = Values(header, "this record")
    height, width = values.wholes("size", 1, 2**24, count=2)
    if height * width > LARGEST_PICTURE:
        raise BadRecord(f"This record's picture of {width} x {height} pixels is larger than any that can be shown.")
    picture = from_png(tensors["picture/png"]) if "picture/png" in tensors else None
    if picture is not None and picture.shape[:2] != (height, width):
        seen = f"{picture.shape[1]} x {picture.shape[0]}"
        raise BadRecord(f"This record's picture has {seen} pixels where {width} x {height} were promised.")
    sides: dict[Side, RecordedImage] = {"prompt": _unpack_side(tensors, values)}
    if header.get("negative") is not None:
        beside = {n.removeprefix("negative/"): x for n, x in tensors.items() if n.startswith("negative/")}
        sides["negative"] = _unpack_side(beside, values.inside("negative"))
    if header.get("concepts") is not None:
        beside = {n.removeprefix("concepts/"): x for n, x in tensors.items() if n.startswith("concepts/")}
        sides["concepts"] = _unpack_concepts(beside, values.inside("concepts"))
        if any(side.num_frames > 1 for side in (sides["prompt"], sides["concepts"])):
            raise BadRecord("This record has concepts of a video, of which they are not read; record the video again.")
    video = None
    if header.get("video") is not None:
        video = from_jpegs(tensors, values.whole("video", 1, MOST_FRAMES), (height, width))
    return sides, (height, width), picture, video


# -- one side ------------------------------------------------------------------------------------------------------


def _pack_side(image: RecordedImage, size: Size) -> Packed:
    tensors: dict[str, Tensor] = {}
    for part, maps in (("sums", image.sums), ("late", image.time_weighted), ("self", image.self_attention or {})):
        tensors |= {f"{part}/{_name(g)}": x for g, x in maps.items()}
    if image.detail is not None:
        tensors |= {f"detail/{_name(g)}": x for g, x in image.detail.values.items()}
    tensors |= {f"heads/{i}": x for i, x in (image.heads or {}).items()}
    if image.relations is not None:
        tensors |= {f"text-image/{_name(g)}": x for g, x in image.relations.text_to_image.items()}
        tensors["text-queries"] = image.relations.num_queries
        if image.relations.text_to_text is not None:
            tensors["text-text"] = image.relations.text_to_text
    if image.output is not None:
        tensors |= {f"output/{_name(g)}": x for g, x in image.output.scores.items()}
        tensors |= {f"affinity/{_name(g)}": x for g, x in image.output.affinity.items()}
    header = {
        "prompt": prompt_to_dict(image.prompt),
        "size": list(size),
        "steps": image.steps,
        "timesteps": list(image.timesteps),
        "terms": {_name(g): n for g, n in image.num_terms.items()},
        "layers": [{"name": x.name, "grid": x.grid, "heads": x.heads, "place": x.block} for x in image.layers],
        "detail": None
        if image.detail is None
        else {
            "by_step": image.detail.by_step,
            "layers": {_name(g): list(x) for g, x in image.detail.layers.items()},
        },
        "rule": RULES[image.aggregation],
        "specials": image.specials,
    }
    if image.frames is not None:
        header["frames"] = {"spans": [list(span) for span in image.frames.spans], "latents": image.frames.latents}
    if image.output is not None:
        header["output_weight"] = image.output.weight
    # One tensor may stand for two parts (late = sums after a choice of layers); a file holds each by itself.
    return {name: x.clone() for name, x in tensors.items()}, header


def _unpack_side(tensors: Mapping[str, Tensor], values: Values) -> RecordedImage:
    prompt = prompt_from_dict(values.inside("prompt"))
    channels = prompt.num_channels
    frames = _frames(values)
    sums = _maps(tensors, "sums", channels, frames)
    time_weighted = _maps(tensors, "late", channels, frames)
    terms = by_grid(values.inside("terms").wholes_by_name(0, MOST_TERMS))
    if not sums:
        raise BadRecord("This record holds no heat maps; record the picture again.")
    if not sums.keys() == time_weighted.keys() == terms.keys():
        raise BadRecord("This record's maps, weighted maps and terms are not of the same resolutions.")
    layers = tuple(_layer(layer) for layer in values.each("layers"))
    if not layers:
        raise BadRecord("This record names no layer of the model; record the picture again.")
    timesteps = tuple(values.numbers("timesteps"))
    steps = values.whole("steps", 1, MOST_STEPS)
    if steps > len(timesteps):
        raise BadRecord(f"This record has {steps} steps and the times of {len(timesteps)}.")
    rules = {name: aggregation for aggregation, name in RULES.items()}
    rule = values.get("rule", "paper")
    if not isinstance(rule, str) or rule not in rules:
        raise BadRecord(f"This record's maps are by a rule that this DAAM Lens does not know ({quoted(rule, 40)}). Update it.")
    return RecordedImage(
        sums=sums,
        time_weighted=time_weighted,
        num_terms=terms,
        layers=layers,
        detail=_detail(tensors, values, layers, steps, channels - 3),
        heads=_heads(tensors, layers, channels),
        self_attention=_self_attention(tensors, 1 if frames is None else len(frames)),
        prompt=prompt,
        steps=steps,
        timesteps=timesteps,
        aggregation=rules[rule],
        specials=values.flag("specials", True),
        relations=_relations(tensors, channels),
        frames=frames,
        output=_output(tensors, values, channels),
    )


def _unpack_concepts(tensors: Mapping[str, Tensor], values: Values) -> RecordedImage:
    side = _unpack_side(tensors, values)
    presence = tuple(values.numbers("presence"))
    if len(presence) != len(side.prompt.words) or not all(0 <= score <= 1 for score in presence):
        raise BadRecord("This record's concepts have no score of 0 to 1 each; record the picture again.")
    if any(word.channels != (i,) for i, word in enumerate(side.prompt.words, start=1)):
        raise BadRecord("This record's concepts have not one map each; record the picture again.")
    likely = values.number("likely") if values.get("likely") is not None else FIRST_LIKELY
    if not 0 <= likely <= 1:
        raise BadRecord("This record's concepts are told apart at a score that is none; record the picture again.")
    return dataclasses.replace(side, presence=presence, likely=likely)


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[Grid, Tensor]:
    return by_grid({name.removeprefix(f"{part}/"): x for name, x in tensors.items() if name.startswith(f"{part}/")})


def _maps(tensors: Mapping[str, Tensor], part: str, channels: int, frames: Frames | None) -> dict[Grid, Tensor]:
    shape = (channels,) if frames is None or len(frames) == 1 else (len(frames), channels)
    return {g: finite(x, f"{part}/{_name(g)}", torch.float32, (*shape, *g)) for g, x in _part(tensors, part).items()}


def _frames(values: Values) -> Frames | None:
    """The frames of a video: some of its latent frames, in order, each in one of them at most."""
    if values.get("frames") is None:
        return None
    about = values.inside("frames")
    latents = about.whole("latents", 2, MOST_FRAMES)
    spans = about.spans("spans", latents)
    if not spans:
        raise BadRecord("This record is of a video and has none of its frames; record the video again.")
    return Frames(spans, latents)


def _layer(values: Values) -> LayerInfo:
    h, w = values.wholes("grid", 1, 2**20, count=2)
    block = values.text("place")
    if block not in _BLOCKS:
        raise BadRecord(f"This record has a layer in {quoted(block, 40)}; there are {', '.join(_BLOCKS)}.")
    return LayerInfo(values.text("name"), (h, w), values.whole("heads", 1, 2**16), block)  # type: ignore[arg-type]


def _detail(
    tensors: Mapping[str, Tensor], values: Values, layers: tuple[LayerInfo, ...], steps: int, tokens: int
) -> Detail | None:
    maps = _part(tensors, "detail")
    if values.get("detail") is None:
        return None
    about = values.inside("detail")
    by_step = about.flag("by_step")
    kept = {g: tuple(x) for g, x in by_grid(about.inside("layers").whole_lists(0, len(layers) - 1)).items()}
    if not maps or (kept and kept.keys() != maps.keys()) or not (by_step or kept):
        raise BadRecord("This record's steps and layers do not fit its maps; record the picture again.")
    # A layer may stand at a resolution that is not its own: what was cut from an area is laid into the whole picture.
    for (h, w), held in kept.items():
        if list(held) != sorted(set(held)):
            raise BadRecord(f"This record's layers of resolution {h} x {w} are not in order.")
    checked = {
        g: finite(
            x, f"detail/{_name(g)}", torch.float16, (steps if by_step else 1, len(kept[g]) if kept else 1, tokens, *g)
        )
        for g, x in maps.items()
    }  # fmt: skip
    return Detail(checked, kept, by_step)


def _heads(tensors: Mapping[str, Tensor], layers: tuple[LayerInfo, ...], channels: int) -> dict[int, Tensor] | None:
    found = {name.removeprefix("heads/"): x for name, x in tensors.items() if name.startswith("heads/")}
    if not found:
        return None
    if found.keys() != {str(i) for i in range(len(layers))}:
        raise BadRecord(f"This record has heads of {len(found)} layers, and not of each of its {len(layers)}.")
    return {
        i: finite(found[str(i)], f"heads/{i}", torch.float32, (layer.heads, channels, *layer.grid))
        for i, layer in enumerate(layers)
    }


def _self_attention(tensors: Mapping[str, Tensor], frames: int) -> dict[Grid, Tensor] | None:
    found = _part(tensors, "self")
    for (h, w), x in found.items():
        n = frames * h * w
        finite(x, f"self/{h}x{w}", torch.float32, (n, n))
        if float(x.min()) < 0 or not torch.allclose(x.sum(-1), torch.ones(n), atol=0.01):
            raise BadRecord("This record's self-attention does not add up to 1; record the picture again.")
    return found or None


def _relations(tensors: Mapping[str, Tensor], channels: int) -> Relations | None:
    if "text-queries" not in tensors:
        return None
    matrix = tensors.get("text-text")
    found = Relations(
        _maps(tensors, "text-image", channels, None),
        None if matrix is None else finite(matrix, "text-text", torch.float32, (channels, channels)),
        finite(tensors["text-queries"], "text-queries", torch.float32, (channels,)),
    )
    if any(float(x.min()) < 0 for x in found.tensors() if x.numel()):
        raise BadRecord("This record's attention of the text is below 0; record the picture again.")
    return found


def _output(tensors: Mapping[str, Tensor], values: Values, channels: int) -> OutputSpace | None:
    if values.get("output_weight") is None:
        return None
    weight = values.number("output_weight")
    affinity = _part(tensors, "affinity")
    if weight < 0 or len(affinity) > 1 or values.get("frames") is not None:
        raise BadRecord("This record's output space is not that of one recording; record the picture again.")
    for (h, w), x in affinity.items():
        if h * w > MOST_PLACES:
            raise BadRecord(f"This record's affinity is of {h} x {w} places, and at most {MOST_PLACES} are held.")
        finite(x, f"affinity/{h}x{w}", torch.float32, (h * w, h * w))
        if float(x.abs().max()) > 1.01:
            raise BadRecord("This record's affinity is not between -1 and 1; record the picture again.")
    return OutputSpace(_maps(tensors, "output", channels, None), affinity, weight)


def _name(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


# -- the prompt ----------------------------------------------------------------------------------------------------


def prompt_to_dict(prompt: Prompt) -> dict[str, Any]:
    """Plain numbers, strings and lists, ready for JSON. Records call a channel a row."""
    return {
        "text": prompt.text,
        "tokens": [_token_to_dict(token) for token in prompt.tokens],
        "words": [{"label": w.label, "text": w.text, "weight": w.weight, "rows": list(w.channels)} for w in prompt.words],
        "start": list(prompt.start),
        "end": list(prompt.end),
        "padding": list(prompt.padding),
        "length": prompt.length,
        "truncated": list(prompt.truncated),
    }


def _encoder(token: Values) -> str:
    name = "" if token.get("encoder") is None else token.text("encoder")
    if len(name) > LONGEST_ENCODER:
        told = f"This record names a text encoder {quoted(name, 40)}, which is longer than any; it was damaged or changed."
        raise BadRecord(told)
    return name


def _token_to_dict(token: Token) -> dict[str, Any]:
    found = {"column": token.column, "text": token.text, "weight": token.weight, "row": token.channel}
    return {**found, "encoder": token.encoder} if token.encoder else found


def prompt_from_dict(values: Values) -> Prompt:
    """The inverse of `prompt_to_dict`.

    Raises:
        BadRecord: anything that `prompt_to_dict` cannot have written.
    """
    most = 2**20
    tokens = tuple(
        Token(t.whole("column", 0, most), t.text("text"), t.whole("row", 1, most), t.number("weight"), _encoder(t))
        for t in values.each("tokens")
    )
    words = tuple(
        Word(w.text("label"), w.text("text"), tuple(w.wholes("rows", 1, most)), w.number("weight"))
        for w in values.each("words")
    )
    start, end, padding = (tuple(values.wholes(name, 0, most)) for name in ("start", "end", "padding"))
    length = values.whole("length", 0, most)
    try:
        return Prompt(values.text("text"), tokens, words, start, end, padding, length, tuple(values.texts("truncated")))
    except BadPrompt as error:
        raise BadRecord(f"The record's prompt cannot be read ({error}); the file was damaged or changed.") from error
