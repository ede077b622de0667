"""A word to SAM 3 and back, with ComfyUI's own SAM3_Detect where it is there; only its network is a stand-in."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import comfy.model_management
import torch
from cases_nodes import painted, refused, run
from graphs import node


class _Network:
    """Answers as SAM 3's point decoder does: a disc around each positive point; keeps what it was asked."""

    def __init__(self) -> None:
        self.points: list[tuple[list[list[float]], list[int]]] = []
        self.boxes: list[Any] = []

    def forward_segment(
        self, frame: torch.Tensor, point_inputs: Any = None, mask_inputs: Any = None, box_inputs: Any = None
    ) -> Any:
        if mask_inputs is not None:
            return mask_inputs
        if box_inputs is not None:
            self.boxes.append(box_inputs[0].tolist())
            return torch.ones(1, 1, 252, 252)
        coords, labels = point_inputs["point_coords"][0], point_inputs["point_labels"][0]
        self.points.append((coords.tolist(), labels.tolist()))
        rows, columns = torch.arange(252)[:, None] * 4, torch.arange(252)[None] * 4
        inside = [(columns - x) ** 2 + (rows - y) ** 2 < 150**2 for (x, y), label in zip(coords, labels, strict=True) if label]
        return torch.stack(inside).any(0).float()[None, None] * 2 - 1


class _Model:
    """A MODEL whose network is the stand-in."""

    def __init__(self) -> None:
        self.network = _Network()
        self.model = self
        self.diffusion_model = self.network

    def get_dtype(self) -> torch.dtype:
        return torch.float32


def case_points_and_boxes_of_a_word() -> None:
    latent, image = painted(images=2)
    maps = run("HeatMaps", latent, image, "house")[0]
    positive, negative, boxes, picture, mask, preview = run("WordToSegmenter", maps, "house", picture=1)
    height, width = image.shape[1:3]
    assert torch.equal(picture[0], (image[1] * 255).round() / 255) or float((picture[0] - image[1]).abs().max()) <= 1 / 255
    assert mask.shape == (1, height, width) and preview.shape == (1, height, width, 3)
    for point in json.loads(positive):
        assert mask[0, point["y"], point["x"]] == 1
    for point in json.loads(negative):
        assert mask[0, point["y"], point["x"]] == 0 and 0 <= point["x"] < width and 0 <= point["y"] < height
    assert boxes and set(boxes[0]) == {"x", "y", "width", "height"}
    assert "Type one word" in refused("WordToSegmenter", maps, "")
    assert "not 2: house, tree" in refused("WordToSegmenter", maps, "house, tree")
    assert "There is no picture 2" in refused("WordToSegmenter", maps, "house", picture=2)


def case_the_hosts_own_sam3_takes_them_and_gives_masks_back() -> str:
    latent, image = painted(images=1)
    maps = run("HeatMaps", latent, image, "house")[0]
    positive, negative, boxes, picture, mask, _ = run("WordToSegmenter", maps, "house")
    found = mask
    if importlib.util.find_spec("comfy_extras.nodes_sam3") is not None:
        load, comfy.model_management.load_model_gpu = comfy.model_management.load_model_gpu, lambda model: None
        try:
            model = _Model()
            detect = node("nodes_sam3", "SAM3_Detect")
            found, _ = detect(
                model, picture, bboxes=boxes, positive_coords=positive, negative_coords=negative, individual_masks=True
            )
        finally:
            comfy.model_management.load_model_gpu = load
        (coords, labels), *_ = model.network.points
        assert labels == [1] * len(json.loads(positive)) + [0] * len(json.loads(negative))
        first = json.loads(positive)[0]
        height, width = picture.shape[1:3]
        assert abs(coords[0][0] - first["x"] / width * 1008) < 1e-3 and abs(coords[0][1] - first["y"] / height * 1008) < 1e-3
        box = boxes[0]
        corner = [box["x"] / width * 1008, box["y"] / height * 1008]
        assert all(abs(a - b) < 1e-2 for a, b in zip(model.network.boxes[0][0], corner, strict=True))
        assert len(found) == 1 + len(boxes)
    best, number, scores, drawn = run("ScoreMasks", maps, found, "house")
    assert torch.equal(best[0], found[number]) and f"mask {number}:" in scores and drawn.shape[-1] == 3
    wrong = torch.zeros_like(found[:1])
    wrong[..., :4, :4] = 1
    assert run("ScoreMasks", maps, torch.cat([wrong, mask]), "house")[1] == 1
    assert "found nothing" in refused("ScoreMasks", maps, torch.zeros(0, 8, 8), "house")
    return "host's own node" if found is not mask else "no SAM 3 in this version"
