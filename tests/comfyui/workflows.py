"""A workflow as people save it -> the graph that the server's API takes, as ComfyUI's own page does it."""

from __future__ import annotations

from typing import Any

_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def to_api(workflow: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """`info` is the server's /object_info. Notes are left out; widget values come in the order of a node's inputs."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph: dict[str, Any] = {}
    for node in workflow["nodes"]:
        if node["type"] == "Note":
            continue
        linked = {i["name"]: sources[i["link"]] for i in node["inputs"] if i["link"] is not None}
        inputs: dict[str, Any] = {}
        values = iter(node["widgets_values"])
        declared = info[node["type"]]["input"]
        for name, spec in {**declared.get("required", {}), **declared.get("optional", {})}.items():
            kind, options = spec[0], spec[1] if len(spec) > 1 else {}
            if (isinstance(kind, list) or kind in _WIDGETS) and not options.get("forceInput"):
                # A workflow that was saved before a widget was there has no value for it: the page gives it its default.
                inputs[name] = next(values, options.get("default"))
                if options.get("control_after_generate") or options.get("image_upload"):
                    next(values, None)
            if name in linked:
                inputs[name] = linked[name]
        assert not list(values), f"{node['type']} has more widget values than widgets"
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


LOADERS = {"UNETLoader": 0, "CLIPLoader": 1, "VAELoader": 2}
"""Which output of a node with MODEL, CLIP and VAE stands for each."""
_FAMILIES = {"flux-2-klein": "flux2", "z_image": "zimage", "krea2": "krea2", "wan": "wan"}
_SAMPLING = ("ModelSamplingAuraFlow", "ModelSamplingSD3")


def family_of(graph: dict[str, Any]) -> str | None:
    """The family whose files a graph loads, by their names; None where it loads none."""
    for node in graph.values():
        if node["class_type"] == "UNETLoader":
            return next(kind for start, kind in _FAMILIES.items() if node["inputs"]["unet_name"].startswith(start))
    return None


def with_loader(graph: dict[str, Any], loader: str, **inputs: Any) -> dict[str, Any]:
    """The graph with one node in place of its loaders of MODEL, CLIP and VAE."""
    out = {key: LOADERS[node["class_type"]] for key, node in graph.items() if node["class_type"] in LOADERS}
    made = {key: _relinked(node, {k: ["loader", at] for k, at in out.items()}) for key, node in graph.items() if key not in out}
    return {**made, "loader": {"class_type": loader, "inputs": inputs}}


def _relinked(node: dict[str, Any], moved: dict[str, list[Any]]) -> dict[str, Any]:
    inputs = {n: moved.get(v[0], v) if isinstance(v, list) else v for n, v in node["inputs"].items()}
    return {**node, "inputs": inputs}


def on_the_model_inside(graph: dict[str, Any]) -> dict[str, Any]:
    """A graph that loads a family's files, changed so that the model inside samples it: its steps, noise and size."""
    graph = with_loader(graph, "DaamLensTinyModel")
    shifted = {key: node["inputs"]["model"] for key, node in graph.items() if node["class_type"] in _SAMPLING}
    graph = {key: _relinked(node, shifted) for key, node in graph.items() if key not in shifted}
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"].startswith("Empty"):
            node.update(class_type="EmptyLatentImage", inputs={"width": 128, "height": 128, "batch_size": 1})
        if node["class_type"] == "KSampler":
            inputs.update(steps=20, cfg=4.0, sampler_name="dpmpp_2m", scheduler="sgm_uniform")
        if node["class_type"] == "Flux2Scheduler":
            steps = {"model": ["loader", 0], "scheduler": "sgm_uniform", "steps": 20, "denoise": 1.0}
            node.update(class_type="BasicScheduler", inputs=steps)
        if node["class_type"] == "KSamplerSelect":
            inputs["sampler_name"] = "dpmpp_2m"
        if node["class_type"] == "CFGGuider":
            inputs["cfg"] = 4.0
        if node["class_type"] == "SaveAnimatedWEBP":
            node.update(class_type="PreviewImage", inputs={"images": inputs["images"]})
    return graph


def blueprint_to_api(
    blueprint: dict[str, Any], info: dict[str, Any], outside: dict[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """A blueprint's inner nodes as a graph for the API, and where its outputs come from.

    Args:
        outside: for each of its inputs a value, or [node, output] of the graph around it; a widget may be left out.
    """
    inner = blueprint["definitions"]["subgraphs"][0]
    links = {link["id"]: link for link in inner["links"]}
    flat = {
        "nodes": [
            {**node, "inputs": [{**one, "link": _inside(one["link"], links)} for one in node["inputs"]]}
            for node in inner["nodes"]
        ],
        "links": [
            [link["id"], link["origin_id"], link["origin_slot"], link["target_id"], link["target_slot"], link["type"]]
            for link in links.values()
            if link["origin_id"] > 0 and link["target_id"] > 0
        ],
    }
    graph = to_api(flat, info)
    for link in links.values():
        if link["origin_id"] == -10:
            name = inner["inputs"][link["origin_slot"]]["name"]
            target = next(node for node in inner["nodes"] if node["id"] == link["target_id"])
            if name in outside:
                graph[str(link["target_id"])]["inputs"][target["inputs"][link["target_slot"]]["name"]] = outside[name]
    ends = [links[output["linkIds"][0]] for output in inner["outputs"]]
    return graph, [[str(link["origin_id"]), link["origin_slot"]] for link in ends]


def _inside(link: int | None, links: dict[int, dict[str, Any]]) -> int | None:
    return link if link is not None and links[link]["origin_id"] > 0 else None
