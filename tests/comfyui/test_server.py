"""The pack in a running ComfyUI: it loads, every example workflow runs, errors are sentences, queueing again is quick."""

from __future__ import annotations

import copy
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from daam_core import HeatMaps, masks

from .hosts import ROOT, Server
from .small_lora import write_lora
from .workflows import LOADERS, blueprint_to_api, family_of, to_api, with_loader

pytestmark = pytest.mark.host
WORKFLOWS = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
FAMILIES = {
    "13 Flux.2 klein": "flux2",
    "14 Z-Image": "zimage",
    "15 Krea 2": "krea2",
    "16 Wan video": "wan",
    "17 Word matrix": "zimage",
}
"""Examples that load the files of a family: run on reduced, random models of it."""
NEWER = ("flux2", "zimage", "krea2")
"""Families that ComfyUI 0.3.64 does not know."""


def graph_of(server: Server, name: str) -> dict[str, Any]:
    """An example as the API takes it; a checkpoint that nobody has here is replaced by the embedded model."""
    shutil.copy(ROOT / "assets" / "hero.png", server.base / "input" / "example.png")
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    if server.version == "0.3.64" and FAMILIES.get(name) in NEWER:
        pytest.skip(f"ComfyUI 0.3.64 does not know the model of {name}")
    graph = to_api(workflow, server.get("/object_info"))
    kind = family_of(graph)
    if kind is not None:
        graph = with_loader(graph, "ReducedModel", kind=kind)
    for node in graph.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node.update(class_type="DaamLensTinyModel", inputs={})
        if node["class_type"] == "LoraLoader":
            write_lora(server.base / "models" / "loras", node["inputs"]["lora_name"])
        if "width" in node["inputs"] and "height" in node["inputs"]:
            node["inputs"].update(width=128, height=128)
        if "length" in node["inputs"]:
            node["inputs"]["length"] = 9
        for key in ("steps",):
            if node["class_type"] == "KSampler":
                node["inputs"][key] = min(node["inputs"][key], 6)
    return graph


def node_of(graph: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(node for node in graph.values() if node["class_type"] == kind)


def failure(entry: dict[str, Any]) -> dict[str, Any]:
    """What the page would show of a run that failed."""
    return dict(next(data for kind, data in entry["status"]["messages"] if kind == "execution_error"))


def test_the_pack_is_loaded_with_its_help(server: Server) -> None:
    """All nodes are there, no warning was logged about us, and every node has its help page and translations."""
    info = server.get("/object_info")
    ours = {name: one for name, one in info.items() if name.startswith("DaamLens")}
    assert set(ours) == {page.stem for page in (ROOT / "web" / "docs").glob("*.md")}
    assert "IMPORT FAILED" not in server.log()
    extensions = "/extensions/daam-lens"
    for name in ours:
        with urllib.request.urlopen(f"{server.address}{extensions}/docs/{name}.md") as page:
            help_page = page.read().decode()
        assert len(help_page) > 200
        assert f"](images/{name}.jpg)" in help_page
        with urllib.request.urlopen(f"{server.address}{extensions}/docs/images/{name}.jpg") as picture:
            assert cv2.imdecode(np.frombuffer(picture.read(), np.uint8), cv2.IMREAD_COLOR) is not None
        for language in ("zh", "ja", "de"):  # the page takes the host's language, else the English one
            with urllib.request.urlopen(f"{server.address}{extensions}/docs/{name}/{language}.md") as page:
                assert f"](images/{name}.jpg)" in page.read().decode()
    assert all(set(server.get("/i18n")[language]["nodeDefs"]) == set(ours) for language in ("zh", "ja", "de"))
    named = server.get("/i18n")["en"]["nodeDefs"]
    assert set(named) == set(ours)
    for name, one in ours.items():
        inputs = {**one["input"].get("required", {}), **one["input"].get("optional", {})}
        assert set(named[name]["inputs"]) == set(inputs), name
        assert len(named[name]["outputs"]) == len(one["output"]), name


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_workflow_runs(server: Server, name: str) -> None:
    """As it is saved, but for fewer steps; every preview is a picture with something on it."""
    entry = server.queue(graph_of(server, name))
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
    pictures = [image for output in entry["outputs"].values() for image in output.get("images", [])]
    assert pictures
    for image in pictures:
        found = cv2.imread(str(server.base / image["type"] / image["subfolder"] / image["filename"]))
        assert found is not None
        assert float(np.std(found)) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_an_example_of_a_family_is_one_for_its_files(server: Server, name: str) -> None:
    """The loaders have the kind of text encoder that the graph asks for, and the words are those of its prompt."""
    graph = graph_of(server, name)
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    loaded = {node["type"]: node["widgets_values"] for node in workflow["nodes"] if node["type"] in LOADERS}
    kinds = server.get("/object_info")["CLIPLoader"]["input"]["required"]["type"]
    assert loaded["CLIPLoader"][1] in (kinds[0] if isinstance(kinds[0], list) else kinds[1]["options"])
    maps = next(key for key, node in graph.items() if node["class_type"] == "DaamLensHeatMaps")
    graph[maps]["inputs"]["words"] = "*"
    graph["told"] = {"class_type": "DaamLensPromptReport", "inputs": {"maps": [maps, 0], "words": "*"}}
    entry = server.queue(graph)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
    report = entry["outputs"]["told"]["text"][0]
    encoded = [node["inputs"]["text"] for node in graph.values() if node["class_type"] == "CLIPTextEncode"]
    for word in max(encoded, key=len).replace(",", " ").split():
        assert word in report, (word, report)


def test_the_example_with_a_lora_says_what_it_moved(server: Server) -> None:
    entry = server.queue(graph_of(server, "18 What a LoRA painted"))
    (summary,) = [output["text"][0] for output in entry["outputs"].values() if "text" in output]
    assert "house: " in summary and "of its heat lies elsewhere" in summary
    assert "All 4: 0.0% of their heat" not in summary, "the LoRA did nothing"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_an_example_has_its_picture(name: str) -> None:
    assert (ROOT / "example_workflows" / f"{name}.jpg").is_file()


def _blueprint(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_blueprints_are_offered_by_the_host(server: Server) -> None:
    """Every one stands in the host's own list, with classes, inputs and outputs that are there, and no link to nowhere."""
    if server.version == "0.3.64":
        pytest.skip("ComfyUI 0.3.64 knows no blueprints")
    offered = {
        one["name"]: key for key, one in server.get("/global_subgraphs").items() if "daam-lens" in one["info"]["node_pack"]
    }
    names = {path.stem for path in (ROOT / "subgraphs").glob("*.json")}
    assert set(offered) == names and len(names) == 3
    info = server.get("/object_info")
    for name in names:
        assert json.loads(server.get(f"/global_subgraphs/{offered[name]}")["data"]) == _blueprint(name)
        inner = _blueprint(name)["definitions"]["subgraphs"][0]
        nodes = {node["id"]: node for node in inner["nodes"]}
        for link in inner["links"]:
            if link["origin_id"] > 0:
                assert info[nodes[link["origin_id"]]["type"]]["output"][link["origin_slot"]] == link["type"], name
            if link["target_id"] > 0:
                assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"], name


def test_two_blueprints_run_one_behind_the_other(server: Server) -> None:
    """Sample with heat, then Repaint the word with its maps, on the model inside."""
    info = server.get("/object_info")
    tiny = {"class_type": "DaamLensTinyModel", "inputs": {}}
    latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}}
    around = {"model": ["tiny", 0], "clip": ["tiny", 1], "vae": ["tiny", 2], "steps": 4, "seed": 3}
    first, (image, heat, _, maps, _) = blueprint_to_api(
        _blueprint("Sample with heat"), info, {**around, "prompt": "a red house and a green tree", "latent": ["empty", 0]}
    )
    graph = {"tiny": tiny, "empty": latent, **{f"a{key}": node for key, node in _renamed(first, "a").items()}}
    outside = {
        **around,
        "maps": _behind("a", maps),
        "image": _behind("a", image),
        "word": "house",
        "new prompt": "a blue house",
    }
    second, (painted, _) = blueprint_to_api(_blueprint("Repaint the word"), info, outside)
    graph |= {f"b{key}": node for key, node in _renamed(second, "b").items()}
    for number, source in enumerate((_behind("a", image), _behind("a", heat), _behind("b", painted))):
        graph[f"show{number}"] = {"class_type": "PreviewImage", "inputs": {"images": source}}
    entry = server.queue(graph)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
    shown = []
    for number in (0, 2):
        image_file = entry["outputs"][f"show{number}"]["images"][0]
        shown.append(cv2.imread(str(server.base / image_file["type"] / image_file["subfolder"] / image_file["filename"])))
    changed = np.abs(shown[0].astype(int) - shown[1]).max(2) > 24
    assert 0.005 < changed.mean() < 0.9, "only the word's place is painted again"


def _behind(prefix: str, source: list[Any]) -> list[Any]:
    return [f"{prefix}{source[0]}", source[1]]


def _renamed(graph: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The same nodes with links between them under new keys; links to nodes around keep theirs."""
    return {
        key: {
            "class_type": node["class_type"],
            "inputs": {
                name: _behind(prefix, value) if isinstance(value, list) and len(value) == 2 and value[0] in graph else value
                for name, value in node["inputs"].items()
            },
        }
        for key, node in graph.items()
    }


def test_queued_again_only_the_changed_node_runs(server: Server) -> None:
    """The sampler stays cached, and the latent it kept still finds its maps; a new seed has maps of its own."""
    graph = graph_of(server, "01 Heat map of each word")
    server.queue(graph)
    again = copy.deepcopy(graph)
    node_of(again, "DaamLensHeatMaps")["inputs"]["words"] = "tree"
    entry = server.queue(again)
    assert entry["status"]["status_str"] == "success"
    cached = next(data["nodes"] for kind, data in entry["status"]["messages"] if kind == "execution_cached")
    sampler = next(key for key, node in again.items() if node["class_type"] == "KSampler")
    assert sampler in cached
    node_of(again, "KSampler")["inputs"]["seed"] = 4
    assert server.queue(again)["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        (
            "DaamLensHeatMaps",
            {"words": "dragon"},
            "'dragon' is not in the prompt. Its words are: a, red, house, and, a#2, green, tree.",
        ),
        (
            "DaamLensHeatMaps",
            {"steps": "2"},
            "The steps were not kept apart. Set `detail` to 'steps' in the Record Attention node and queue again.",
        ),
        (
            "DaamLensHeatMaps",
            {"words": "negative:fog"},
            "The negative prompt was not recorded. Switch `negative` on in the Record Attention node",
        ),
        ("CLIPTextEncode", {"text": ""}, "The prompt has no words, so there is no map to show. Write a prompt"),
        ("DaamLensRecord", {"first_step": 40, "last_step": 50}, "No sampling step lies between the first and last step"),
    ],
)
def test_what_a_user_does_wrong_is_a_sentence(server: Server, kind: str, change: dict[str, Any], sentence: str) -> None:
    graph = graph_of(server, "01 Heat map of each word")
    node_of(graph, "DaamLensHeatMaps")["inputs"]["words"] = ""
    node_of(graph, kind)["inputs"].update(change)
    said = failure(server.queue(graph))
    assert said["node_type"] == "DaamLensHeatMaps"
    assert said["exception_message"].strip().startswith(sentence)


def test_a_latent_that_nobody_recorded_is_a_sentence(server: Server) -> None:
    graph = graph_of(server, "01 Heat map of each word")
    empty = next(key for key, node in graph.items() if node["class_type"] == "EmptyLatentImage")
    node_of(graph, "DaamLensHeatMaps")["inputs"]["latent"] = [empty, 0]
    assert "No recording belongs to this latent" in failure(server.queue(graph))["exception_message"]


def test_a_record_outside_the_folders_is_refused_before_the_run(server: Server) -> None:
    graph = {
        "1": {"class_type": "DaamLensLoadMaps", "inputs": {"record": "../../secret.safetensors [output]"}},
        "2": {"class_type": "DaamLensPromptReport", "inputs": {"maps": ["1", 0], "words": ""}},
    }
    assert "leads out of" in json.dumps(server.post("/prompt", {"prompt": graph}))


def test_a_corrupt_record_is_a_sentence(server: Server) -> None:
    graph = graph_of(server, "01 Heat map of each word")
    maps = next(key for key, node in graph.items() if node["class_type"] == "DaamLensHeatMaps")
    graph["20"] = {"class_type": "DaamLensSaveMaps", "inputs": {"maps": [maps, 0], "filename_prefix": "daam/broken"}}
    path = Path(server.queue(graph)["outputs"]["20"]["text"][0])
    whole = path.read_bytes()
    record = f"{path.relative_to(server.base / 'output').as_posix()} [output]"
    loaded = {
        "1": {"class_type": "DaamLensLoadMaps", "inputs": {"record": record}},
        "2": {"class_type": "DaamLensPromptReport", "inputs": {"maps": ["1", 0], "words": ""}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 1]}},
    }
    assert server.queue(loaded)["status"]["status_str"] == "success"
    for broken in (whole[:500], b"not a record at all", b""):
        path.write_bytes(broken)
        said = failure(server.queue(loaded))
        assert said["node_type"] == "DaamLensLoadMaps"
        assert said["exception_type"].endswith("BadRecord")
        assert path.name in said["exception_message"]
        assert len(said["exception_message"].splitlines()) <= 2
    path.unlink()


def explored(server: Server, choice: Any) -> tuple[dict[str, Any], list[np.ndarray[Any, Any]], list[HeatMaps]]:
    """What Explorer tells its page of a choice, the masks that it gives (uint8 `[H, W]`), and the maps it had."""
    graph = graph_of(server, "10 Attention explorer")
    explorer = next(key for key, node in graph.items() if node["class_type"] == "DaamLensExplorer")
    graph[explorer]["inputs"]["choice"] = choice if isinstance(choice, str) else json.dumps(choice)
    graph["20"] = {"class_type": "MaskToImage", "inputs": {"mask": [explorer, 0]}}
    graph["21"] = {"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}}
    maps_from = graph[explorer]["inputs"]["maps"]
    graph["22"] = {"class_type": "DaamLensSaveMaps", "inputs": {"maps": maps_from, "filename_prefix": "daam/chosen"}}
    outputs = server.queue(graph)["outputs"]
    files = [server.base / one["type"] / one["subfolder"] / one["filename"] for one in outputs["21"]["images"]]
    maps = [HeatMaps.load(path) for path in outputs["22"]["text"][0].splitlines()]
    return outputs[explorer]["daam_lens"][0], [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files], maps


def refused(server: Server, path: str) -> str:
    """The sentence with which a route says no."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get(path)
    return str(json.loads(caught.value.read())["error"])


def test_the_mask_of_the_explorer_is_the_core_s(server: Server) -> None:
    """Through the API alone, as a script would use a saved workflow."""
    settings = {"tau": 0.5, "compete": True, "grow": 3}
    said, given, maps = explored(server, {"words": [["word:house"], ["word:tree"]], "settings": settings})
    assert said["pictures"] == len(given) == len(maps) == 4
    assert said["missing"] == []
    for mask, one in zip(given, maps, strict=True):
        wanted = masks.grow(one.mask("house", "compete", tau=0.5) | one.mask("tree", "compete", tau=0.5), 3)
        assert np.array_equal(mask > 127, wanted.numpy())
    chosen = {"words": [["word:house"], ["word:dragon"]], "settings": {"soft": True, "invert": True}}
    again, given, maps = explored(server, chosen)
    assert again["run"] == said["run"], "the same maps keep their name, so that a page need not load them again"
    assert again["missing"] == ["word:dragon"]
    for mask, one in zip(given, maps, strict=True):
        soft = 1 - masks.soft(one.heat_map("house", one.size))
        assert float((torch.from_numpy(mask).float() / 255 - soft).abs().max()) < 1 / 254


def test_the_explorer_s_routes(server: Server) -> None:
    """Maps, picture, steps and masks of a run; anything else is a sentence, and no other run or file can be had."""
    said, _, maps = explored(server, "")
    place = f"/daam-lens/explorer/{said['run']}/1"
    page = server.get(place)
    assert page["header"]["prompt"] == "a red house and a green tree"
    assert page["methods"] == ["best", "walk", "guided", "grabcut"]
    with urllib.request.urlopen(f"{server.address}{place}/picture") as answer:
        picture = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
    assert maps[1].picture is not None
    assert np.array_equal(picture[..., ::-1], maps[1].picture)
    assert server.get(f"{place}/detail/steps")["header"]["frames"] == 6
    asked = {"words": [["word:house"]], "settings": {"method": "guided"}}
    request = urllib.request.Request(f"{server.address}{place}/mask", json.dumps(asked).encode())
    with urllib.request.urlopen(request) as answer:
        mask = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(mask > 127, maps[1].mask("house", "guided").numpy())
    assert "cannot be read" in server.post(f"{place}/mask", {"words": 3})["error"]
    assert "There are steps, layers and frames." in refused(server, f"{place}/detail/heads")
    for other in ("nobody/0", f"{said['run']}/4", f"{said['run']}/999999"):
        assert "Queue the graph again" in refused(server, f"/daam-lens/explorer/{other}")


def test_a_choice_that_cannot_be_read_is_said_before_the_run(server: Server) -> None:
    graph = graph_of(server, "10 Attention explorer")
    node_of(graph, "DaamLensExplorer")["inputs"]["choice"] = '{"words": [["word:house"]], "settings": {"tau": 7}}'
    assert "tau is a number from 0 to 1, not 7" in json.dumps(server.post("/prompt", {"prompt": graph}))


def test_interrupted_and_queued_again(server: Server) -> None:
    """The stop button in the middle of sampling: the next run is whole, and finds its own maps."""
    graph = graph_of(server, "01 Heat map of each word")
    node_of(graph, "KSampler")["inputs"].update(steps=600, seed=77)
    asked = server.post("/prompt", {"prompt": graph})["prompt_id"]
    end = time.monotonic() + 120
    while not server.get("/queue")["queue_running"] and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(2)
    server.post("/interrupt", {})
    while not (history := server.get(f"/history/{asked}")) and time.monotonic() < end:
        time.sleep(0.1)
    messages = [kind for kind, _ in history[asked]["status"]["messages"]]
    assert "execution_interrupted" in messages
    node_of(graph, "KSampler")["inputs"]["steps"] = 3
    assert server.queue(graph)["status"]["status_str"] == "success"


def test_the_type_of_an_error_names_no_folder(server: Server) -> None:
    graph = graph_of(server, "01 Heat map of each word")
    node_of(graph, "DaamLensHeatMaps")["inputs"]["words"] = "elephant"
    assert failure(server.queue(graph))["exception_type"] == "daam_lens.WordNotFound"


def test_overlays_are_drawn_where_somebody_takes_them(server: Server) -> None:
    """A cached node is run again when its overlays are connected; without, nothing of the picture's size is made."""
    graph = graph_of(server, "01 Heat map of each word")
    own = next(key for key, node in graph.items() if node["class_type"] == "DaamLensHeatMaps")
    without = {key: node for key, node in graph.items() if [own, 1] not in node["inputs"].values()}
    without["90"] = {"class_type": "DaamLensPromptReport", "inputs": {"maps": [own, 0], "words": ""}}
    assert server.queue(without)["status"]["status_str"] == "success"
    for caption in (True, False):
        connected = copy.deepcopy(without)
        connected["91"] = {"class_type": "PreviewImage", "inputs": {"images": [own, 1]}}
        connected[own]["inputs"]["caption"] = caption
        entry = server.queue(connected)
        assert entry["status"]["status_str"] == "success"
        pictures = entry["outputs"]["91"]["images"]
        assert len(pictures) > 1
        found = cv2.imread(str(server.base / pictures[0]["type"] / pictures[0]["subfolder"] / pictures[0]["filename"]))
        assert found is not None
        assert (found.shape == (128, 128, 3)) is not caption
        assert float(np.std(found)) > 1


def test_two_records_of_one_picture_are_told_apart(server: Server) -> None:
    """One sampler with the negative prompt, one without: each Heat Maps shows its own, whatever ran last."""
    graph = graph_of(server, "01 Heat map of each word")
    record = next(key for key, node in graph.items() if node["class_type"] == "DaamLensRecord")
    sampler = next(key for key, node in graph.items() if node["class_type"] == "KSampler")
    maps = next(key for key, node in graph.items() if node["class_type"] == "DaamLensHeatMaps")
    for key, source, changes in (("70", record, {"negative": True}), ("71", sampler, {"model": ["70", 0]}),
                                 ("72", maps, {"latent": ["71", 0], "words": "negative:*"})):  # fmt: skip
        graph[key] = copy.deepcopy(graph[source])
        graph[key]["inputs"] |= changes
    graph["73"] = {"class_type": "PreviewImage", "inputs": {"images": ["72", 1]}}
    negative = graph[sampler]["inputs"]["negative"][0]
    graph[negative]["inputs"]["text"] = "a blue boat"
    assert server.queue(graph)["status"]["status_str"] == "success"
    graph[maps]["inputs"]["words"] = "negative:boat"
    assert "negative prompt was not recorded" in failure(server.queue(graph))["exception_message"]
    graph[maps]["inputs"]["words"] = "house"
    graph["72"]["inputs"]["words"] = "negative:boat"
    assert server.queue(graph)["status"]["status_str"] == "success"


def test_shared_workflows_name_their_pack() -> None:
    """The Manager can say which pack is missing; a checkpoint says where it comes from."""
    for name in WORKFLOWS:
        workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
        for node in workflow["nodes"]:
            if node["type"].startswith("DaamLens"):
                assert node["properties"]["cnr_id"] == "daam-lens"
                assert node["properties"]["ver"]
            if node["type"] == "CheckpointLoaderSimple":
                (model,) = node["properties"]["models"]
                assert model["name"] == node["widgets_values"][0]
                assert model["url"].startswith("https://")
