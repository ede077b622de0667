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

from torch import Tensor

from ..errors import BadArgument, BadRecord, quoted
from ..types import Image, Side, Size, Video
from .data import Aggregation, RecordedImage
from .pixels import LARGEST_PICTURE, from_jpegs, from_png, to_jpegs, to_png
from .prompt_record import prompt_from_dict, prompt_to_dict
from .record_parts import (
    MOST_FRAMES,
    checked_detail,
    checked_frames,
    checked_heads,
    checked_layer,
    checked_maps,
    checked_output,
    checked_relations,
    checked_self_attention,
    grid_name,
)
from .record_values import Values, by_grid

if TYPE_CHECKING:
    from .heatmaps import HeatMaps

MOST_STEPS = 100_000
MOST_TERMS = 2**53
FIRST_LIKELY = 0.22
"""Records of before tell no level: their scores were peaks among all heads alike, and a concept was likely from here on."""
RULES: Mapping[Aggregation, str] = {"sum": "paper", "castorini": "castorini", "output": "output", "anchor": "anchor"}
"""What records and pages call the aggregations."""

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
        tensors |= {f"{part}/{grid_name(g)}": x for g, x in maps.items()}
    if image.detail is not None:
        tensors |= {f"detail/{grid_name(g)}": x for g, x in image.detail.values.items()}
    tensors |= {f"heads/{i}": x for i, x in (image.heads or {}).items()}
    if image.relations is not None:
        tensors |= {f"text-image/{grid_name(g)}": x for g, x in image.relations.text_to_image.items()}
        tensors["text-queries"] = image.relations.num_queries
        if image.relations.text_to_text is not None:
            tensors["text-text"] = image.relations.text_to_text
    if image.output is not None:
        tensors |= {f"output/{grid_name(g)}": x for g, x in image.output.scores.items()}
        tensors |= {f"affinity/{grid_name(g)}": x for g, x in image.output.affinity.items()}
    header = {
        "prompt": prompt_to_dict(image.prompt),
        "size": list(size),
        "steps": image.steps,
        "timesteps": list(image.timesteps),
        "terms": {grid_name(g): n for g, n in image.num_terms.items()},
        "layers": [{"name": x.name, "grid": x.grid, "heads": x.heads, "place": x.block} for x in image.layers],
        "detail": None
        if image.detail is None
        else {
            "by_step": image.detail.by_step,
            "layers": {grid_name(g): list(x) for g, x in image.detail.layers.items()},
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
    frames = checked_frames(values)
    sums = checked_maps(tensors, "sums", channels, frames)
    time_weighted = checked_maps(tensors, "late", channels, frames)
    terms = by_grid(values.inside("terms").wholes_by_name(0, MOST_TERMS))
    if not sums:
        raise BadRecord("This record holds no heat maps; record the picture again.")
    if not sums.keys() == time_weighted.keys() == terms.keys():
        raise BadRecord("This record's maps, weighted maps and terms are not of the same resolutions.")
    layers = tuple(checked_layer(layer) for layer in values.each("layers"))
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
        detail=checked_detail(tensors, values, layers, steps, channels - 3),
        heads=checked_heads(tensors, layers, channels),
        self_attention=checked_self_attention(tensors, 1 if frames is None else len(frames)),
        prompt=prompt,
        steps=steps,
        timesteps=timesteps,
        aggregation=rules[rule],
        specials=values.flag("specials", True),
        relations=checked_relations(tensors, channels),
        frames=frames,
        output=checked_output(tensors, values, channels),
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
