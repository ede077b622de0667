"""The square pictures that stand for the example workflows: what each of them makes, run in a real ComfyUI.

Run: `python -m benchmarks.workflow_pictures [NAME ...]`, with the hosts where the tests find them. A checkpoint, and the
files of a family, are replaced by the model inside; a LoRA by a random one, and where words attend to words, which the model
inside does not have, the family by a small random model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daam_core.tiny.scenes import draw
from tests.comfyui.hosts import ROOT, Server, find
from tests.comfyui.small_lora import write_lora
from tests.comfyui.workflows import family_of, on_the_model_inside, to_api, with_loader

SIDE = 512
GAP = 6
EXAMPLES = ROOT / "example_workflows"


def example_picture(path: Path) -> None:
    """A drawn red house and a green tree on grass: what examples that begin with a picture are given."""
    scene = draw(np.random.default_rng(3), [("red", "house"), ("green", "tree")], "grass", "and", "shaded", side=512)
    cv2.imwrite(str(path), scene.image[..., ::-1])


def made(server: Server, workflow: Path) -> list[NDArray[np.uint8]]:
    """The pictures that an example makes, uint8 `[H, W, 3]` BGR; a checkpoint is replaced by the model inside."""
    example_picture(server.base / "input" / "example.png")
    graph = to_api(json.loads(workflow.read_text(encoding="utf-8")), server.get("/object_info"))
    kinds = {node["class_type"] for node in graph.values()}
    if "DaamLensWordMatrix" in kinds:
        graph = with_loader(graph, "ReducedModel", kind=family_of(graph))
    elif family_of(graph) is not None:
        graph = on_the_model_inside(graph)
        for node in graph.values():
            if node["class_type"] == "DaamLensHeatMaps" and not node["inputs"]["words"]:
                node["inputs"]["words"] = "house, tree, red, green"  # what the model inside knows of these prompts
    for node in graph.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node.update(class_type="DaamLensTinyModel", inputs={})
        if node["class_type"] == "LoraLoader":
            write_lora(server.base / "models" / "loras", node["inputs"]["lora_name"])
        if node["class_type"] in ("EmptyLatentImage", "EmptySD3LatentImage"):
            node["inputs"].update(width=128, height=128)
    outputs: dict[str, Any] = server.queue(graph)["outputs"]
    found = []
    for key in sorted(outputs, key=int):
        for image in outputs[key].get("images", []):
            picture = cv2.imread(str(server.base / image["type"] / image["subfolder"] / image["filename"]))
            if picture is not None:
                found.append(np.asarray(picture, np.uint8))
    return found


def square(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Four pictures in a square, the first and the last among them; of fewer than four, the most colourful one alone."""
    if len(pictures) < 4:
        pictures = [max(pictures, key=lambda picture: float(np.ptp(picture, axis=2).mean()))]
    across = 1 if len(pictures) == 1 else 2
    places = np.linspace(0, len(pictures) - 1, min(len(pictures), across * across)).round().astype(int)
    side = (SIDE - GAP * (across - 1)) // across
    card = np.full((SIDE, SIDE, 3), 34, np.uint8)
    for at, place in enumerate(places):
        picture = pictures[place]
        scale = side / max(picture.shape[:2])
        height, width = (max(1, round(n * scale)) for n in picture.shape[:2])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top, left = (at // across) * (side + GAP) + (side - height) // 2, (at % across) * (side + GAP) + (side - width) // 2
        card[top : top + height, left : left + width] = small
    return card


def main(wanted: list[str]) -> None:
    """Write `example_workflows/*.jpg`, of all examples or of those that are named."""
    host = find("0.33")
    if isinstance(host, str):
        sys.exit(host)
    with tempfile.TemporaryDirectory() as base:
        nodes = Path(base) / "custom_nodes"
        nodes.mkdir()
        (nodes / "reduced_models").symlink_to(ROOT / "tests" / "comfyui" / "reduced_models")
        server = Server(host, Path(base))
        try:
            for workflow in [EXAMPLES / f"{name}.json" for name in wanted] or sorted(EXAMPLES.glob("*.json")):
                card = square(made(server, workflow))
                cv2.imwrite(str(workflow.with_suffix(".jpg")), card, [cv2.IMWRITE_JPEG_QUALITY, 88])
        finally:
            server.close()


if __name__ == "__main__":
    main(sys.argv[1:])
