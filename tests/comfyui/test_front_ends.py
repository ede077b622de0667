"""Graphs for programs that run ComfyUI behind a page of their own, sent to real servers as these programs send them.

SwarmUI fills tags in the text of a graph; Krita AI puts values in place of its placeholder nodes. Both are done here by hand,
and their own output nodes are replaced by the host's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from .hosts import ROOT, Server
from .workflows import to_api

pytestmark = pytest.mark.host
FOLDER = ROOT / "example_workflows" / "api"
SWARM, KRITA = "SwarmUI - Heat of each word", "Krita - Mask of a word"
WORDS = "comfyrawworkflowinputtextwords"
PROMPT = "a red house and a green tree"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def filled(prompt: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """`${name:default}` as SwarmUI fills it: in the text of the graph, numbers without the quotes around their marker."""
    text = json.dumps(prompt).replace('"%%_COMFYFIXME_${', "${").replace('}_ENDFIXME_%%"', "}")

    def value(tag: re.Match[str]) -> str:
        name, _, default = tag[1].partition(":")
        return json.dumps(given.get(name, json.loads(f'"{default}"')))[1:-1]

    graph: dict[str, Any] = json.loads(re.sub(r"\$\{([^}]*)\}", value, text))
    return graph


def expanded(graph: dict[str, Any], params: dict[str, Any], picture: str) -> dict[str, Any]:
    """Placeholders as Krita AI replaces them: of the canvas, the style and the parameters."""
    values: dict[tuple[str, int], Any] = {}
    for key, node in graph.items():
        if node["class_type"] == "ETN_Parameter":
            values[key, 0] = params[node["inputs"]["name"]]
        if node["class_type"] == "ETN_KritaCanvas":
            height, width = cv2.imread(picture).shape[:2]
            values |= {(key, 0): ["canvas", 0], (key, 1): width, (key, 2): height, (key, 3): 7}
        if node["class_type"] == "ETN_KritaStyle":
            values |= {(key, at): ["style", at] for at in range(3)}
    placeholders = {key for key, _ in values}
    made = {
        key: {
            "class_type": node["class_type"],
            "inputs": {
                name: values.get((source[0], source[1]), source) if isinstance(source, list) else source
                for name, source in node["inputs"].items()
            },
        }
        for key, node in graph.items()
        if key not in placeholders
    }
    made["canvas"] = {"class_type": "LoadImage", "inputs": {"image": Path(picture).name}}
    made["style"] = {"class_type": "DaamLensTinyModel", "inputs": {}}
    return made


def sent(server: Server, graph: dict[str, Any]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """The pictures of each output of a graph, uint8 `[H, W, 3]`."""
    for node in graph.values():
        if node["class_type"] in ("SwarmSaveImageWS", "ETN_KritaOutput"):
            node.update(class_type="PreviewImage", inputs={"images": node["inputs"]["images"]})
        if node["class_type"] == "CheckpointLoaderSimple":
            node.update(class_type="DaamLensTinyModel", inputs={})
    entry = server.queue(graph)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
    return {
        key: [cv2.imread(str(server.base / one["type"] / one["subfolder"] / one["filename"])) for one in output["images"]]
        for key, output in entry["outputs"].items()
    }


def test_swarmui_gets_the_picture_and_the_heat_of_each_word(server: Server) -> None:
    given = {"prompt": PROMPT, "steps": "6", "width": "128", "height": "192", "cfg_scale": "4.5", "sampler": "euler"}
    graph = filled(read(SWARM)["prompt"], {**given, WORDS: "house\ntree"})
    assert graph["3"]["inputs"]["steps"] == 6 and graph["3"]["inputs"]["cfg"] == 4.5
    assert graph["10"]["inputs"]["words"] == "house\ntree"
    found = sent(server, graph)
    (picture,), heats = found["9"], found["11"]
    assert picture.shape == (192, 128, 3) and len(heats) == 2
    assert not np.array_equal(heats[0], heats[1])
    assert len(sent(server, filled(read(SWARM)["prompt"], given))["11"]) == 4, "without words: red, house, green, tree"


def test_swarmui_s_file_opens_as_the_graph_that_it_runs(server: Server) -> None:
    """The half for its editor is the half for its pages with the defaults filled in, and each parameter has its tag."""
    whole = read(SWARM)
    assert set(whole) == {
        "workflow", "prompt", "custom_params", "param_values", "image", "description", "enable_in_simple",
    }  # fmt: skip
    tags = set(re.findall(r"\$\{(\w+):", json.dumps(whole["prompt"])))
    assert set(whole["custom_params"]) <= tags
    assert all(name == one["id"] for name, one in whole["custom_params"].items())
    info = server.get("/object_info")
    own = {"input": {"required": {"images": ["IMAGE"]}, "optional": {"bit_depth": [["8bit"]]}}}
    opened = to_api(whole["workflow"], {**info, "SwarmSaveImageWS": own})
    run = filled(whole["prompt"], {})
    assert {key: node["class_type"] for key, node in opened.items()} == {key: node["class_type"] for key, node in run.items()}
    for key, node in run.items():
        for name, value in node["inputs"].items():
            assert opened[key]["inputs"][name] == value, (key, name)


@pytest.mark.parametrize("grow", [0, 6])
def test_krita_gets_layers_of_the_canvas_s_size(server: Server, grow: int) -> None:
    picture = server.base / "input" / "canvas.png"
    # A canvas of 256 x 192: the whole picture would keep a processor busy for a quarter of a minute.
    hero = cv2.imread(str(ROOT / "assets" / "hero.png"))
    cv2.imwrite(str(picture), cv2.resize(hero, (256, 192), interpolation=cv2.INTER_AREA))
    graph = read(KRITA)
    names = {node["inputs"]["name"] for node in graph.values() if node["class_type"] in ("ETN_Parameter", "ETN_KritaStyle")}
    params = {"2. What is in the picture": PROMPT, "3. Word": "house", "4. Grow": grow}
    assert names == {"1. Style", *params}
    found = sent(server, expanded(graph, params, str(picture)))
    (heat,), (mask,) = found["10"], found["11"]
    canvas = cv2.imread(str(picture))
    assert heat.shape == mask.shape == canvas.shape
    inside = mask[..., 0] > 127
    assert set(np.unique(mask)) <= {0, 255} and 0.01 < inside.mean() < 0.7
    changed = np.abs(heat.astype(int) - canvas).max(2)
    assert changed[inside].mean() > 2 * changed[~inside].mean(), "the heat lies where the mask is"


def test_krita_s_outputs_have_every_input_of_its_node() -> None:
    """A server refuses a graph whose nodes lack one; older versions of the node know only `images`, and more do no harm."""
    outputs = [node for node in read(KRITA).values() if node["class_type"] == "ETN_KritaOutput"]
    assert len(outputs) == 2
    for node in outputs:
        assert set(node["inputs"]) == {"images", "x", "y", "name", "batch_mode", "resize_canvas"}
