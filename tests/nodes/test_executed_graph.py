"""Which Record a latent comes from, told by the graph; which recording is meant where several made one picture."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from .test_parse_inputs import maps

Pack = Callable[[str], ModuleType]


def graph(**changes: Any) -> dict[str, Any]:
    """Two Records, two samplers one after the other, Heat Maps of the second; ids as ComfyUI has them in subgraphs, too."""
    nodes: dict[str, Any] = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}},
        "4:2": {"class_type": "DaamLensRecord", "inputs": {"model": ["1", 0], "negative": True, "detail": "off"}},
        "3": {"class_type": "DaamLensRecord", "inputs": {"model": ["1", 0], "negative": False, "detail": ["9", 0]}},
        "5": {"class_type": "KSampler", "inputs": {"model": ["4:2", 0], "latent_image": ["8", 0], "seed": 1}},
        "6": {"class_type": "KSampler", "inputs": {"model": ["3", 0], "latent_image": ["5", 0], "seed": 1}},
        "7": {"class_type": "DaamLensHeatMaps", "inputs": {"latent": ["6", 0], "words": ""}},
    }
    return nodes | changes


def test_records_are_found_behind_the_sampler(pack: Pack) -> None:
    found = pack("nodes.executed_graph").records_before(graph(), "7", "latent")
    assert [record.node for record in found] == ["3", "4:2"]
    unset = {"concepts": (), "relations": "image->text", "output_space": False}
    assert found[0].inputs == {"negative": False, **unset}, "what comes from another node is not known"
    assert set(found[0].linked) == {"model", "detail"}
    alone = graph(**{"7": {"class_type": "DaamLensHeatMaps", "inputs": {"latent": ["5", 0]}}})
    assert [record.node for record in pack("nodes.executed_graph").records_before(alone, "7", "latent")] == ["4:2"]


def test_a_clip_is_no_recording_and_an_earlier_record_gives_way(pack: Pack) -> None:
    """The prompts of a sampler may be encoded with the CLIP of another Record; of two Records in a row the last one counts."""
    text = {"10": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4:2", 1], "text": "a house"}}}
    last = {"3": {"class_type": "DaamLensRecord", "inputs": {"model": ["4:2", 0], "clip": ["4:2", 1], "negative": False}}}
    sampler = {"class_type": "KSampler", "inputs": {"model": ["3", 0], "positive": ["10", 0], "latent_image": ["8", 0]}}
    found = pack("nodes.executed_graph").records_before(graph(**text, **last, **{"6": sampler}), "7", "latent")
    assert [record.node for record in found] == ["3"]


def test_loops_and_missing_nodes_end(pack: Pack) -> None:
    records = pack("nodes.executed_graph").records_before
    looped = {"1": {"class_type": "A", "inputs": {"latent": ["2", 0]}}, "2": {"class_type": "B", "inputs": {"x": ["1", 0]}}}
    assert records(looped, "1", "latent") == []
    assert records({"1": {"class_type": "A", "inputs": {"latent": ["gone", 0]}}}, "1", "latent") == []
    assert records(None, "1", "latent") == records(graph(), None, "latent") == records(graph(), "404", "latent") == []


def test_connected_outputs(pack: Pack) -> None:
    graphs = pack("nodes.executed_graph")
    drawn = graph(**{"9": {"class_type": "PreviewImage", "inputs": {"images": ["7", 1]}}})
    assert not graphs.is_connected(graph(), "7", 1)
    assert graphs.is_connected(drawn, "7", 1)
    assert not graphs.is_connected(drawn, "7", 2)
    assert graphs.is_connected(None, "7", 1), "what is not known may be taken"
    assert graphs.is_connected(drawn, "9.0.0.7", 2), "and so may what a loop put into the graph"
    assert graphs.connected_outputs(drawn, "DaamLensHeatMaps", (1, 2)) == [("7", 1)]
    assert graphs.connected_outputs(None, "DaamLensHeatMaps", (1, 2)) == []


def stored(pack: Pack, *sources: tuple[str, bool]) -> tuple[Any, torch.Tensor]:
    """One latent that several Records made: (node, whether it recorded the negative prompt)."""
    own = pack("nodes.capture.recording_store")
    store, latent = own.RecordingStore(), torch.rand(1, 4, 2, 2)
    for node, negative in sources:
        store.keep([latent], [maps(pack, negative=negative)], source=own.Source(node, (("negative", negative),)))
    return store, latent


def test_the_graph_tells_two_records_of_one_picture_apart(pack: Pack) -> None:
    own = pack("nodes.capture.recording_store")
    store, latent = stored(pack, ("3", False), ("4:2", True))
    assert store.find(latent, among=[own.RecordInGraph("3", {"negative": False})])[0].negative is None
    assert store.find(latent, among=[own.RecordInGraph("4:2")])[0].negative is not None
    both = [own.RecordInGraph("3", {"negative": False}), own.RecordInGraph("4:2", {"negative": True})]
    for among in ([], both):
        with pytest.raises(pack("daam_core.errors").NothingRecorded, match=r"2 recordings .*\(Record #3 and #4:2\)"):
            store.find(latent, among=among)


def test_one_record_that_was_set_anew(pack: Pack) -> None:
    """A cached sampler may stand behind options that were recorded before the last ones."""
    own = pack("nodes.capture.recording_store")
    store, latent = stored(pack, ("3", True), ("3", False))
    assert store.find(latent, among=[own.RecordInGraph("3", {"negative": True})])[0].negative is not None
    assert store.find(latent, among=[own.RecordInGraph("3", {"negative": False})])[0].negative is None


def concepts(text: str, key: str = "20") -> dict[str, Any]:
    """Record 3 with concepts that stand two nodes before it."""
    inputs = {"model": ["1", 0], "concepts": [key, 0]}
    return graph(
        **{
            "3": {"class_type": "DaamLensRecord", "inputs": inputs},
            key: {"class_type": "DaamLensConcepts", "inputs": {"concepts": ["21", 0], "template": "{}"}},
            "21": {"class_type": "PrimitiveString", "inputs": {"value": text}},
        }
    )


def test_one_record_whose_linked_input_was_changed(pack: Pack) -> None:
    """Other concepts of the same picture: each is found again, the later and the earlier, and what was recorded without any."""
    own, graphs = pack("nodes.capture.recording_store"), pack("nodes.executed_graph")
    store, latent, made = own.RecordingStore(), torch.rand(1, 4, 2, 2), {}
    plain = graph(**{"3": {"class_type": "DaamLensRecord", "inputs": {"model": ["1", 0]}}})
    for text, nodes in (("sky", concepts("sky")), ("dog", concepts("dog")), ("", plain)):
        linked = {name: told for name, told in graphs.digests(nodes, "3").items() if name == "concepts"}
        (made[text],) = [maps(pack)]
        source = own.Source("3", (("concepts", (text,) if text else ()),), tuple(linked.items()))
        store.keep([latent], [made[text]], source=source)
    for text, nodes in (("sky", concepts("sky")), ("dog", concepts("dog", "77")), ("", plain)):
        among = graphs.records_before(nodes, "7", "latent")
        assert store.find(latent, among=among)[0] is made[text], text
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match="3 recordings"):
        store.find(latent, among=graphs.records_before(concepts("nobody's"), "7", "latent"))


def test_one_record_whose_options_came_as_a_list(pack: Pack) -> None:
    """One node is told what it can do; that its latent should come from one Record alone was no advice."""
    own = pack("nodes.capture.recording_store")
    store, latent = stored(pack, ("3", True), ("3", False))
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match=r"one node whose options came .* type them in"):
        store.find(latent, among=[own.RecordInGraph("3", {}, {"negative": "a list"})])


def test_digests_of_loops_and_long_graphs_end(pack: Pack) -> None:
    digests = pack("nodes.executed_graph").digests
    looped = {"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}, "2": {"class_type": "B", "inputs": {"x": ["1", 0]}}}
    assert set(digests(looped, "1")) == {"x"}
    long = {str(i): {"class_type": "A", "inputs": {"x": [str(i + 1), 0], "y": [str(i + 1), 1]}} for i in range(20_000)}
    changed = {**long, "20000": {"class_type": "A", "inputs": {"z": 1}}}
    assert digests(long, "0") == digests(dict(long), "0") != digests(changed, "0")
    assert digests(None, "0") == digests(long, None) == digests(long, "gone") == {}


def test_recordings_of_the_same_options_are_as_good_as_each_other(pack: Pack) -> None:
    store, latent = stored(pack, ("3", True), ("9", True))
    assert store.find(latent)[0].negative is not None
    lonely, other = stored(pack, ("3", True))
    assert lonely.find(other, among=[pack("nodes.capture.recording_store").RecordInGraph("77")])[0].negative is not None


def test_a_latent_of_several_tensors_is_known_by_its_first(pack: Pack) -> None:
    """A video and its sound: what was recorded of the video, or why nothing was, is found by both together."""
    module = pack("nodes.capture.recording_store")
    video, sound = torch.randn(1, 4, 2, 3, 3), torch.randn(1, 8, 5, 2)
    several = type("NestedTensor", (), {"is_nested": True, "unbind": lambda _: [video, sound]})()
    store = module.RecordingStore()
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match="No recording belongs to this latent"):
        store.find(several)
    store.keep([video], None, "it was left out")
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match="it was left out"):
        store.find(several)
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match="it was left out"):
        store.note(several)


def test_what_is_packed_is_cut_to_the_picture(pack: Pack) -> None:
    """As ComfyUI packs: the numbers of each tensor, one after the other; another latent stays as it is."""
    packed = pack("nodes.capture.packed_latents")
    video, sound = torch.randn(2, 4, 2, 3, 3), torch.randn(2, 8, 5, 2)
    both = torch.cat([video.flatten(1), sound.flatten(1)], 1)[:, None]
    shapes = [video.shape, sound.shape]
    assert torch.equal(packed.unpacked(both, shapes), video)
    assert packed.unpacked(video, [video.shape]) is video and packed.unpacked(video, None) is video
    assert packed.is_packed(shapes) and not packed.is_packed([video.shape]) and not packed.is_packed(None)


def test_a_loop_s_own_nodes(pack: Pack) -> None:
    """ComfyUI's `DynamicPrompt`: nodes that another one put into the graph, with values in place of links."""
    graphs = pack("nodes.executed_graph")
    put = {
        "9.0.0.3": {"class_type": "DaamLensRecord", "inputs": {"model": object(), "last_step": 1, "concepts": ["9.0.0.1", 0]}},
        "9.0.0.1": {"class_type": "X", "inputs": {"a": {("no", "text"): 1}, "b": object()}},
        "9.0.0.7": {"class_type": "DaamLensHeatMaps", "inputs": {"latent": ["9.0.0.6", 0]}},
        "9.0.0.6": {"class_type": "KSampler", "inputs": {"model": ["9.0.0.3", 0]}},
    }
    every = {**graph(), **put}
    running = SimpleNamespace(all_node_ids=lambda: set(every), get_node=every.get)
    whole = graphs.graph_of(running)
    (record,) = graphs.records_before(whole, "9.0.0.7", "latent")
    assert (record.node, record.inputs["last_step"], set(record.linked)) == ("9.0.0.3", 1, {"concepts"})
    assert graphs.graph_of(None) is None
