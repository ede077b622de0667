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
                inputs[name] = next(values)
                if options.get("control_after_generate") or options.get("image_upload"):
                    next(values)
            if name in linked:
                inputs[name] = linked[name]
        assert not list(values), f"{node['type']} has more widget values than widgets"
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph
