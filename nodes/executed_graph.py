"""What a node can learn from the graph that is executed: which Records stand before it, and which outputs are connected.

The graph is ComfyUI's own: `{node id: {"class_type": …, "inputs": {name: value or [node id, output]}}}`. Loops and other nodes
put further nodes into it while it runs, whose inputs may be the values themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .capture.recording_store import RecordInGraph

Graph = Mapping[str, Any]
UNSET: Mapping[str, Any] = {"concepts": (), "relations": "image->text", "output_space": False}
"""What Record takes for inputs that a graph leaves out."""
RECORD = "DaamLensRecord"
MODEL = 0
"""Position of its MODEL among Record's outputs."""


def graph_of(running: Any) -> dict[str, Any] | None:
    """All nodes of a run, of ComfyUI's `DynamicPrompt`; None where there is none."""
    return None if running is None else {name: running.get_node(name) for name in running.all_node_ids()}


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(name of the input, node id, output) of each connected input."""
    for name, value in node.get("inputs", {}).items():
        if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], int):
            yield name, str(value[0]), value[1]


def records_before(graph: Graph | None, node: str | None, wanted: str) -> list[RecordInGraph]:
    """The Record nodes whose MODEL one input of a node is made with, the nearest first.

    A Record that gives only its CLIP records nothing, and one before another Record gives way to it.
    """
    if not graph or node is None or node not in graph:
        return []
    ahead = deque((source, output) for name, source, output in links(graph[node]) if name == wanted)
    seen: set[tuple[str, int]] = set()
    found: dict[str, RecordInGraph] = {}
    while ahead:
        name, output = ahead.popleft()
        if (name, output) in seen or name not in graph:
            continue
        seen.add((name, output))
        if graph[name].get("class_type") != RECORD:
            ahead.extend((source, number) for _, source, number in links(graph[name]))
        elif output == MODEL:
            linked = digests(graph, name)
            inputs = {**UNSET, **graph[name].get("inputs", {})}
            typed = {key: value for key, value in inputs.items() if key not in linked}
            found.setdefault(name, RecordInGraph(name, typed, linked))
    return list(found.values())


def digests(graph: Graph | None, node: str | None) -> dict[str, str]:
    """For each connected input of a node a digest of all that stands before it: two are the same where classes, typed values
    and links are, whatever the ids of the nodes. So an input is known to be what it was, although its value is not."""
    if not graph or node is None or node not in graph:
        return {}
    known: dict[str, str] = {}
    return {name: f"{_digest(graph, source, known)}:{output}" for name, source, output in links(graph[node])}


def _digest(graph: Graph, node: str, known: dict[str, str]) -> str:
    """One node's, after those before it; without recursion, since graphs may be long. A loop ends where it began."""
    ahead = [node]
    while ahead:
        name = ahead[-1]
        before = [source for _, source, _ in links(graph.get(name, {}))]
        if name not in known:
            known[name] = ""  # under way
            ahead += [source for source in before if source not in known]
            continue
        ahead.pop()
        if not known[name]:
            own = graph.get(name, {})
            linked = {key: [known.get(source, ""), output] for key, source, output in links(own)}
            told = {key: linked.get(key) or _as_text(value) for key, value in own.get("inputs", {}).items()}
            known[name] = hashlib.sha1(json.dumps([own.get("class_type"), told], sort_keys=True).encode()).hexdigest()
    return known[node]


def _as_text(value: Any) -> str:
    """A typed value; a model or picture that was put into the graph is told by which one it is."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return f"{type(value).__name__} {id(value)}"


def is_connected(graph: Graph | None, node: str | None, output: int) -> bool:
    """Whether anything takes an output of a node; yes where the graph is not known, or the node is not in it (a loop's)."""
    if not graph or node not in graph:
        return True
    return any(source == node and number == output for other in graph.values() for _, source, number in links(other))


def connected_outputs(graph: Graph | None, kind: str, outputs: Sequence[int]) -> list[tuple[str, int]]:
    """(node id, output) of every node of one kind, of those outputs that something takes."""
    own = {name for name, node in (graph or {}).items() if node.get("class_type") == kind}
    taken = {(source, number) for node in (graph or {}).values() for _, source, number in links(node)}
    return sorted((name, number) for name, number in taken if name in own and number in outputs)
