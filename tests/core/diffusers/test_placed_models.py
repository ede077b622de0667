"""Models whose parts are loaded onto several places, and IP-Adapters whose strength is another in each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from diffusers import UNet2DConditionModel

from daam_core import trace

from ..capture.attention_witness import Witness as JointWitness
from ..models import PROMPT, paint, pipeline
from .pipeline_cases import CASES, worst_error
from .pipeline_cases import paint as paint_transformer
from .test_identity import ip_adapter
from .unet_witness import Witness, assert_same


def text_of(pipe: Any) -> torch.Tensor:
    return pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0]  # type: ignore[no-any-return]


def test_a_unet_with_a_device_map_is_read(tmp_path: Path) -> None:
    """`device_map` with a part on the disk: accelerate brings that part's weights in for each of its calls."""
    pipe = pipeline("small")
    before, witness, text = paint(pipe), Witness(pipe.unet), text_of(pipe)
    paint(pipe)
    true = witness.of(text)
    pipe.unet.save_pretrained(tmp_path / "unet")
    places: dict[str, Any] = {name: "cpu" for name, _ in pipe.unet.named_children()}
    places |= {"mid_block": "disk", "up_blocks": "disk"}
    pipe.unet = UNet2DConditionModel.from_pretrained(
        tmp_path / "unet", device_map=places, offload_folder=str(tmp_path / "weights")
    )
    layer = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    assert layer.weight.device.type == "meta" and hasattr(layer, "_hf_hook")
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe), before)
    assert recording.failure is None
    assert_same(recording.heat_maps().sides["prompt"], true)
    assert torch.equal(paint(pipe), before) and layer.weight.device.type == "meta"


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_a_transformer_with_a_device_map_is_read(name: str, tmp_path: Path) -> None:
    """The same of joint attention through diffusers' dispatch and through PyTorch's own; two prompts of different length."""
    case = CASES[name]
    pipe = case.make()
    before = paint_transformer(pipe, case)
    places: dict[str, Any] = {part: "cpu" for part, _ in pipe.transformer.named_children()}
    dispatch_model(pipe.transformer, places | {"transformer_blocks": "disk"}, offload_dir=str(tmp_path))
    moved = [part for part in pipe.transformer.transformer_blocks.parameters() if part.device.type == "meta"]
    assert moved
    with trace(pipe) as recording, JointWitness():
        assert torch.equal(paint_transformer(pipe, case), before)
    assert recording.failure is None and worst_error(pipe, case) < 1e-5


def test_an_ip_adapter_of_another_strength_in_each_layer_is_read() -> None:
    """`set_ip_adapter_scale` with a dictionary of layers: the text's own attention is what the maps are made of, in all."""
    pipe, options = ip_adapter()
    alike = paint(pipe, **options)
    pipe.set_ip_adapter_scale({"down": {"block_1": [0.0]}, "up": {"block_1": [1.0, 0.3], "block_2": 0.6}})
    scales = {name: attn.scale for name, attn in pipe.unet.attn_processors.items() if hasattr(attn, "scale")}
    assert len({tuple(scale) for scale in scales.values()}) > 2
    before, text = paint(pipe, **options), text_of(pipe)
    assert not torch.equal(alike, before)
    witness = Witness(pipe.unet)
    with trace(pipe) as recording:
        assert torch.equal(paint(pipe, **options), before)
    assert_same(recording.heat_maps().sides["prompt"], witness.of(text))
    heads = sum(layer.heads for layer in recording.heat_maps().layers if layer.name.endswith("attn2"))
    assert sum(recording.heat_maps().num_terms.values()) == 2 * heads
