"""ComfyUI's blueprints of this pack: `python -m benchmarks.subgraph_blueprints` writes `subgraphs/*.json` anew.

A blueprint is one node made of several. What its inner nodes take is asked of a running ComfyUI; which of it shows outside, and
how they are wired, stands here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.comfyui.hosts import ROOT, Server, find

FOLDER = ROOT / "subgraphs"
_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
_SPACE = uuid.UUID("5b6a1e7e-7c1b-4d38-9a55-0d8a4a1f6c10")
"""Blueprints keep their ids when they are written anew."""
Wire = tuple[str, int]
"""(inner node, number of its output)."""


@dataclass(frozen=True)
class Part:
    """One inner node.

    Attributes:
        kind: its class.
        wires: what its inputs take: another inner node's output, or the name of an input that shows outside.
        values: widget values that differ from the defaults.
        column, row: where it stands.
    """

    kind: str
    wires: dict[str, Wire | str]
    values: dict[str, Any]
    column: int
    row: int


@dataclass(frozen=True)
class Blueprint:
    """One blueprint: its name, what it does, its inner nodes by a short name, and what it gives out (name -> wire)."""

    name: str
    about: str
    parts: dict[str, Part]
    gives: dict[str, Wire]


SAMPLE = Blueprint(
    "Sample with heat",
    "KSampler, and where each word of the prompt painted.",
    {
        "record": Part("DaamLensRecord", {"model": "model", "clip": "clip"}, {}, 0, 0),
        "prompt": Part("CLIPTextEncode", {"clip": ("record", 1), "text": "prompt"}, {}, 1, 0),
        "negative": Part("CLIPTextEncode", {"clip": ("record", 1), "text": "negative prompt"}, {}, 1, 1),
        "sampler": Part(
            "KSampler",
            {
                "model": ("record", 0), "positive": ("prompt", 0), "negative": ("negative", 0), "latent_image": "latent",
                "seed": "seed", "steps": "steps", "cfg": "cfg",
            },
            {"sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform", "cfg": 4.0},
            2,
            0,
        ),
        "decode": Part("VAEDecode", {"samples": ("sampler", 0), "vae": "vae"}, {}, 3, 0),
        "maps": Part(
            "DaamLensHeatMaps", {"latent": ("sampler", 0), "image": ("decode", 0), "words": "words"}, {}, 3, 1
        ),
    },
    {"image": ("decode", 0), "heat": ("maps", 1), "word masks": ("maps", 2), "maps": ("maps", 0), "latent": ("sampler", 0)},
)  # fmt: skip

REPAINT = Blueprint(
    "Repaint the word",
    "A word's place in the picture is painted again, told another prompt.",
    {
        "mask": Part("DaamLensMask", {"maps": "maps", "words": "word", "image": "image"}, {"grow": 6, "feather": 4}, 0, 0),
        "encode": Part("VAEEncode", {"pixels": "image", "vae": "vae"}, {}, 0, 1),
        "place": Part("SetLatentNoiseMask", {"samples": ("encode", 0), "mask": ("mask", 0)}, {}, 1, 1),
        "prompt": Part("CLIPTextEncode", {"clip": "clip", "text": "new prompt"}, {}, 1, 0),
        "negative": Part("CLIPTextEncode", {"clip": "clip", "text": "negative prompt"}, {}, 1, 2),
        "sampler": Part(
            "KSampler",
            {
                "model": "model", "positive": ("prompt", 0), "negative": ("negative", 0), "latent_image": ("place", 0),
                "seed": "seed", "steps": "steps", "denoise": "denoise",
            },
            {"sampler_name": "dpmpp_2m", "scheduler": "sgm_uniform", "cfg": 4.0, "denoise": 0.9},
            2,
            0,
        ),
        "decode": Part("VAEDecode", {"samples": ("sampler", 0), "vae": "vae"}, {}, 3, 0),
    },
    {"image": ("decode", 0), "mask": ("mask", 0)},
)  # fmt: skip

SEGMENT = Blueprint(
    "Word to SAM3 mask",
    "SAM 3 segments what a word painted; of its masks, the one that holds the word's heat.",
    {
        "ask": Part("DaamLensWordToSegmenter", {"maps": "maps", "word": "word", "image": "image"}, {}, 0, 0),
        "detect": Part(
            "SAM3_Detect",
            {
                "model": "sam3 model", "image": ("ask", 3), "bboxes": ("ask", 2), "positive_coords": ("ask", 0),
                "negative_coords": ("ask", 1),
            },
            {"individual_masks": True},
            1,
            0,
        ),
        "score": Part("DaamLensScoreMasks", {"maps": "maps", "masks": ("detect", 0), "word": "word"}, {}, 2, 0),
    },
    {"mask": ("score", 0), "image": ("ask", 3), "preview": ("ask", 5), "scores": ("score", 2)},
)  # fmt: skip

BLUEPRINTS = (SAMPLE, REPAINT, SEGMENT)


def _declared(info: dict[str, Any], kind: str) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """Inputs of a class: name -> (type, options, whether it is a widget)."""
    found = {}
    given = info[kind]["input"]
    for name, spec in {**given.get("required", {}), **given.get("optional", {})}.items():
        options = spec[1] if len(spec) > 1 else {}
        combo = isinstance(spec[0], list)
        widget = (combo or spec[0] in _WIDGETS) and not options.get("forceInput")
        found[name] = ("COMBO" if combo else spec[0], {"options": spec[0], **options} if combo else options, widget)
    return found


def _default(kind: str, options: dict[str, Any]) -> Any:
    if kind == "COMBO":
        return options.get("default", options["options"][0])
    return options.get("default", {"STRING": "", "BOOLEAN": False}.get(kind, 0))


def made(blueprint: Blueprint, info: dict[str, Any]) -> dict[str, Any]:
    """The file's content.

    Args:
        info: the server's /object_info.
    """
    numbers = {name: i + 1 for i, name in enumerate(blueprint.parts)}
    own = str(uuid.uuid5(_SPACE, blueprint.name))
    outside: dict[str, dict[str, Any]] = {}
    links: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    leaving: dict[Wire, list[int]] = {}

    def link(origin: int, slot: int, target: int, at: int, kind: str) -> int:
        links.append(
            {
                "id": len(links) + 1,
                "origin_id": origin,
                "origin_slot": slot,
                "target_id": target,
                "target_slot": at,
                "type": kind,
            }
        )
        return len(links)

    for name, part in blueprint.parts.items():
        declared = _declared(info, part.kind)
        order = [n for n, (_, _, widget) in declared.items() if not widget] + [
            n for n, (_, _, widget) in declared.items() if widget
        ]
        inputs, values = [], []
        for at, input_name in enumerate(order):
            kind, options, widget = declared[input_name]
            entry: dict[str, Any] = {"localized_name": input_name, "name": input_name, "type": kind, "link": None}
            if widget:
                entry["widget"] = {"name": input_name}
                values.append(part.values.get(input_name, _default(kind, options)))
                if options.get("control_after_generate"):
                    values.append("fixed")
            wire = part.wires.get(input_name)
            if isinstance(wire, str):
                shown = outside.setdefault(wire, {"name": wire, "type": kind, "linkIds": [], "value": None, "widget": widget})
                if widget and shown["value"] is None:
                    shown["value"] = part.values.get(input_name, _default(kind, options))
                entry["link"] = link(-10, list(outside).index(wire), numbers[name], at, kind)
                shown["linkIds"].append(entry["link"])
            elif wire is not None:
                entry["link"] = link(numbers[wire[0]], wire[1], numbers[name], at, kind)
                leaving.setdefault(wire, []).append(entry["link"])
            inputs.append(entry)
        nodes.append(
            {
                "id": numbers[name], "type": part.kind, "pos": [part.column * 380, part.row * 320], "size": [320, 240],
                "flags": {}, "order": numbers[name] - 1, "mode": 0, "inputs": inputs,
                "outputs": [
                    {"localized_name": shown, "name": shown, "type": kind, "links": []}
                    for shown, kind in zip(info[part.kind]["output_name"], info[part.kind]["output"], strict=True)
                ],
                "properties": {"Node name for S&R": part.kind}, "widgets_values": values,
            }
        )  # fmt: skip
    gives = []
    for at, (name, wire) in enumerate(blueprint.gives.items()):
        kind = info[blueprint.parts[wire[0]].kind]["output"][wire[1]]
        number = link(numbers[wire[0]], wire[1], -20, at, kind)
        leaving.setdefault(wire, []).append(number)
        gives.append({"id": str(uuid.uuid5(_SPACE, f"{own} out {name}")), "name": name, "type": kind, "linkIds": [number]})
    for name, node in zip(blueprint.parts, nodes, strict=True):
        for slot, output in enumerate(node["outputs"]):
            output["links"] = leaving.get((name, slot), [])
    takes = [
        {
            "id": str(uuid.uuid5(_SPACE, f"{own} in {one['name']}")),
            "name": one["name"],
            "type": one["type"],
            "linkIds": one["linkIds"],
        }
        for one in outside.values()
    ]
    widest = max(part.column for part in blueprint.parts.values())
    subgraph = {
        "id": own, "version": 1, "revision": 0, "config": {}, "name": blueprint.name,
        "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "inputNode": {"id": -10, "bounding": [-320, 0, 160, 40 + 20 * len(takes)]},
        "outputNode": {"id": -20, "bounding": [(widest + 1) * 380 + 60, 0, 160, 40 + 20 * len(gives)]},
        "inputs": takes, "outputs": gives, "widgets": [], "nodes": nodes, "groups": [], "links": links,
        "extra": {"workflowRendererVersion": "LG"},
    }  # fmt: skip
    return {
        "revision": 0, "last_node_id": 1, "last_link_id": 0,
        "nodes": [
            {
                "id": 1, "type": own, "pos": [0, 0], "size": [360, 60 + 24 * len(takes)], "flags": {}, "order": 0, "mode": 0,
                "inputs": [
                    {"name": one["name"], "type": one["type"], "link": None}
                    | ({"widget": {"name": one["name"]}} if one["widget"] else {})
                    for one in outside.values()
                ],
                "outputs": [{"name": one["name"], "type": one["type"], "links": None} for one in gives],
                "title": blueprint.name,
                "properties": {"proxyWidgets": [["-1", one["name"]] for one in outside.values() if one["widget"]]},
                "widgets_values": [one["value"] for one in outside.values() if one["widget"]],
            }
        ],
        "links": [], "version": 0.4, "definitions": {"subgraphs": [subgraph]},
        "extra": {"BlueprintDescription": blueprint.about},
    }  # fmt: skip


def main() -> None:
    """Write every blueprint."""
    host = find("0.33")
    if isinstance(host, str):
        sys.exit(host)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        server = Server(host, Path(base))
        try:
            info = server.get("/object_info")
        finally:
            server.close()
    for blueprint in BLUEPRINTS:
        text = json.dumps(made(blueprint, info), indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{blueprint.name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
