"""What a running ComfyUI gives the pack other than from its own page: names out of other nodes, odd paths, broken requests."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

import cv2
import numpy as np
import pytest

from .hosts import Server

pytestmark = pytest.mark.host
MISREAD = ("Errno", "Traceback", "NoneType")
"""Words of Python's own errors, which no sentence for a user has."""


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def recorded() -> dict[str, Any]:
    """A run of two steps on the model inside, and its maps at node "maps"."""
    record = {"negative": False, "detail": "off", "heads": False, "self_attention": True, "first_step": 0, "last_step": 10_000}
    sampler = {"seed": 5, "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "sgm_uniform", "denoise": 1.0}
    shown = {"words": "house", "opacity": 0.5, "colour_map": "ember", "layers": "", "steps": "", "heads": ""}
    return {
        "tiny": node("DaamLensTinyModel"),
        "record": node("DaamLensRecord", model=["tiny", 0], clip=["tiny", 1], **record),
        "text": node("CLIPTextEncode", clip=["record", 1], text="a red house"),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "sampler": node(
            "KSampler", model=["record", 0], positive=["text", 0], negative=["text", 0], latent_image=["empty", 0], **sampler
        ),
        "maps": node("DaamLensHeatMaps", latent=["sampler", 0], **shown),
    }


def saved(server: Server, prefix: str) -> dict[str, Any]:
    """The history entry of a run that saves its maps."""
    graph = {**recorded(), "save": node("DaamLensSaveMaps", maps=["maps", 0], filename_prefix=prefix)}
    return server.queue(graph)


def failed(entry: dict[str, Any]) -> str:
    """The sentence that the page shows of a run that failed."""
    return str(next(data for kind, data in entry["status"]["messages"] if kind == "execution_error")["exception_message"])


def test_maps_saved_where_a_file_stands_in_place_of_a_folder(server: Server) -> None:
    (server.base / "output" / "a file").write_text("of somebody")
    for prefix in ("a file/maps", "a file/deeper/maps"):
        said = failed(saved(server, prefix))
        assert said.startswith(f"Cannot write {prefix!r} into ") and "filename_prefix" in said
        assert not any(word in said for word in MISREAD), said
    assert (server.base / "output" / "a file").read_text() == "of somebody"


@pytest.mark.parametrize("length", [300, 5000])
def test_a_record_of_a_name_that_no_file_can_have(server: Server, length: int) -> None:
    graph = {
        "load": node("DaamLensLoadMaps", record="x" * length),
        "report": node("DaamLensPromptReport", maps=["load", 0], words=""),
    }
    said = json.dumps(server.post("/prompt", {"prompt": graph})["node_errors"])
    assert "There is no record 'xxx" in said and not any(word in said for word in MISREAD), said


def test_a_record_s_name_out_of_a_node_of_text(server: Server) -> None:
    """ComfyUI links no text to a list of names, and says so; our check of the name, which is not known yet, adds nothing."""
    graph = {
        "name": node("PrimitiveString", value="daam/maps_00001_.safetensors"),
        "load": node("DaamLensLoadMaps", record=["name", 0]),
        "report": node("DaamLensPromptReport", maps=["load", 0], words="house"),
    }
    errors = server.post("/prompt", {"prompt": graph})["node_errors"]["load"]["errors"]
    assert [error["type"] for error in errors] == ["return_type_mismatch"], errors


def test_an_explorer_s_choice_out_of_another_node(server: Server) -> None:
    choice = json.dumps({"words": [["word:house"], ["word:dragon"]]})
    graph = {
        **recorded(),
        "choice": node("PrimitiveString", value=choice),
        "explorer": node("DaamLensExplorer", maps=["maps", 0], choice=["choice", 0]),
    }
    assert server.queue(graph)["outputs"]["explorer"]["daam_lens"][0]["missing"] == ["word:dragon"]
    graph["choice"]["inputs"]["value"] = "no choice"
    assert "cannot be read (it is not JSON)" in failed(server.queue(graph))


def test_a_request_that_does_not_arrive_whole(server: Server) -> None:
    """Compressed as it does not say, or broken off: a sentence, and nothing of ours in the log."""
    address = server.address.removeprefix("http://")
    before = len(server.log())
    asking = http.client.HTTPConnection(address, timeout=60)
    asking.request("POST", "/daam-lens/explorer/nobody/0/mask", b"{}", {"Content-Encoding": "gzip"})
    answer = asking.getresponse()
    assert answer.status == 400
    assert "did not arrive whole" in json.loads(answer.read())["error"]
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as broken:
        broken.sendall(b"POST /daam-lens/explorer/nobody/0/mask HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
    time.sleep(0.5)
    server.get("/system_stats")
    assert "explorer's question could not be answered" not in server.log()[before:]


def test_a_prompt_of_thousands_of_words(server: Server) -> None:
    """The picture is that without Record; what is asked of its maps is one sentence."""
    graph = recorded()
    graph["text"]["inputs"]["text"] = "red house " * 4500
    graph["sampler"]["inputs"]["steps"] = 1
    maps = graph.pop("maps")
    graph["picture"] = node("VAEDecode", samples=["sampler", 0], vae=["tiny", 2])
    graph["shown"] = node("SaveImage", images=["picture", 0], filename_prefix="long")
    plain = {**graph, "text": node("CLIPTextEncode", clip=["tiny", 1], text="red house " * 4500)}
    plain["sampler"] = node("KSampler", **{**graph["sampler"]["inputs"], "model": ["tiny", 0]})
    pictures = []
    for one in (plain, graph):
        (image,) = server.queue(one)["outputs"]["shown"]["images"]
        pictures.append(cv2.imread(str(server.base / image["type"] / image["subfolder"] / image["filename"])))
    assert pictures[0] is not None and np.array_equal(*pictures)
    entry = server.queue({**graph, "maps": maps, "report": node("DaamLensPromptReport", maps=["maps", 0], words="")})
    said = failed(entry)
    assert said.startswith("Recording stopped, the picture was still made: the prompt is too long to be recorded"), said
    assert "some 8192 are the most; shorten it." in said


def test_the_concepts_of_a_picture_are_changed(server: Server) -> None:
    """The same seed with other concepts, then with the first ones again, then without: each run has its own."""
    for text in ("sky", "cloud\nroad", "sky", ""):
        graph = recorded()
        if text:
            graph["concepts"] = node("DaamLensConcepts", concepts=text, template="{}")
            graph["record"]["inputs"]["concepts"] = ["concepts", 0]
        graph["maps"]["inputs"]["words"] = ""
        graph["report"] = node("DaamLensPromptReport", maps=["maps", 0], words="*")
        entry = server.queue(graph)
        assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
        (report,) = entry["outputs"]["report"]["text"]
        assert {word for word in ("sky", "cloud", "road") if word in report} == set(text.split()), report


def test_nodes_of_a_loop(server: Server) -> None:
    """They are not in the graph as it was queued: which Record is theirs, and that somebody takes what they draw, is known."""
    graph = recorded()
    for name in ("maps", "sampler"):
        del graph[name]
    given = {"model": ["tiny", 0], "clip": ["tiny", 1], "positive": ["text", 0], "latent": ["empty", 0]}
    graph["loop"] = node("RecordedLoop", **given)
    graph["shown"] = node("SaveImage", images=["loop", 0], filename_prefix="loop")
    graph["told"] = node("PreviewAny", source=["loop", 2])
    entry = server.queue(graph)
    assert entry["status"]["status_str"] == "success", failed(entry)
    (image,) = entry["outputs"]["shown"]["images"]
    drawn = cv2.imread(str(server.base / image["type"] / image["subfolder"] / image["filename"]))
    assert drawn is not None and drawn.shape[0] > 8 and drawn.std() > 1
