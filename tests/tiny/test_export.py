"""Exported files hold the same model: names map back, widened convolutions compute the same picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file
from torch import nn

from daam_core.errors import BadArgument, CannotWrite
from daam_core.tiny import weight_keys as names
from daam_core.tiny.autoencoder import make_autoencoder
from daam_core.tiny.export import NAME, export, read_vocab
from daam_core.tiny.load import load_tiny
from daam_core.tiny.unet import make_unet


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_tiny()


def reference_block(width: int) -> nn.Module:
    """TAESD's residual block, written from its description: three convolutions, a skip, ReLU after the sum."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
            self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.conv(x) + x)

    return Block()


def reference_taesd(width: int = 64) -> tuple[nn.Sequential, nn.Sequential]:
    """TAESD's encoder and decoder in its own layer numbering."""

    class Clamp(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x / 3) * 3

    def conv(i: int, o: int, **more: Any) -> nn.Conv2d:
        return nn.Conv2d(i, o, 3, padding=1, **more)

    encoder: list[nn.Module] = [conv(3, width), reference_block(width)]
    decoder: list[nn.Module] = [Clamp(), conv(4, width), nn.ReLU()]
    for _ in range(3):
        encoder += [conv(width, width, stride=2, bias=False), *(reference_block(width) for _ in range(3))]
        decoder += [*(reference_block(width) for _ in range(3)), nn.Upsample(scale_factor=2)]
        decoder += [conv(width, width, bias=False)]
    return nn.Sequential(*encoder, conv(width, 4)), nn.Sequential(*decoder, reference_block(width), conv(width, 3))


def test_ldm_names_map_back_to_the_same_unet() -> None:
    torch.manual_seed(0)
    model = make_unet()
    state = names.unet_to_ldm(model.state_dict(), 3, 1)
    prefixed = {f"model.diffusion_model.{k}": t for k, t in state.items()}
    back = convert_ldm_unet_checkpoint(prefixed, dict(model.config))
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[k], t) for k, t in model.state_dict().items())


def test_widened_taesd_computes_the_same() -> None:
    torch.manual_seed(0)
    model = make_autoencoder(32).eval()
    encoder, decoder = reference_taesd()
    wide_encoder, wide_decoder = names.taesd_parts(model.state_dict())
    encoder.load_state_dict(wide_encoder)
    decoder.load_state_dict(wide_decoder)
    x, z = torch.rand(2, 3, 32, 32), 2 * torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model.encode(2 * x - 1).latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(2 * decoder(z) - 1, model.decode(z).sample, rtol=1e-4, atol=1e-5)


def test_an_export_is_complete(pipe: Any, tmp_path: Path) -> None:
    paths = export(tmp_path, pipe=pipe)
    assert all(p.exists() for p in paths)
    state = load_file(str(tmp_path / f"{NAME}.safetensors"))
    assert {k.split(".")[0] for k in state} == {"model", "cond_stage_model"}
    assert "cond_stage_model.transformer.text_model.final_layer_norm.weight" in state
    assert all(t.dtype == torch.float16 for t in state.values())
    text = (tmp_path / f"{NAME}.yaml").read_text()
    for line in ('parameterization: "v"', "num_head_channels: 32", "channel_mult: [1, 2, 2]", "context_dim: 128"):
        assert line in text
    for part in ("encoder", "decoder"):
        plain = torch.load(tmp_path / f"taesd_{part}.pth", weights_only=True)
        safe = load_file(str(tmp_path / f"taesd_{part}.safetensors"))
        assert plain.keys() == safe.keys()
        assert all(torch.equal(plain[k], safe[k]) for k in safe)
    assert (tmp_path / "clip" / "vocab.json").exists()


def test_a_hosts_vocabulary_keeps_our_words(pipe: Any, tmp_path: Path) -> None:
    theirs = {"zebra</w>": 0, "house</w>": 1, "red</w>": 4, "<|startoftext|>": 2, "<|endoftext|>": 3}
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(theirs))
    export(tmp_path / "out", vocab=path, pipe=pipe)
    state = load_file(str(tmp_path / "out" / f"{NAME}.safetensors"))
    table = state["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"]
    ours = pipe.tokenizer.get_vocab()
    embedding = pipe.text_encoder.get_input_embeddings().weight.detach().half()
    assert table.shape == (5, 128)
    for token in ("house</w>", "red</w>", "<|endoftext|>", "<|startoftext|>"):
        assert torch.equal(table[theirs[token]], embedding[ours[token]])
    assert not torch.equal(table[0], table[1])
    assert json.loads((tmp_path / "out" / "clip" / "config.json").read_text())["eos_token_id"] == 3


def test_wrong_vocabularies_are_named(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(BadArgument, match="not a CLIP vocabulary"):
        read_vocab(tmp_path / "list.json")
    with pytest.raises(BadArgument, match="not JSON"):
        read_vocab(tmp_path / "text.json")
    with pytest.raises(BadArgument, match="cannot be read"):
        read_vocab(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written(pipe: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot be written"):
        export(tmp_path / "file" / "out", pipe=pipe)
