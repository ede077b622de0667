"""Where text and picture stand in the transformers of ComfyUI: counted, held against what the host says, or refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from daam_core.capture import comfyui_families as families
from daam_core.errors import NothingRecorded


def model(name: str, **attributes: Any) -> torch.nn.Module:
    """A network of a class that ComfyUI would build: its module and name, and what a layout asks of it."""
    module, _, own = f"comfy.ldm.{name}".rpartition(".")
    made = type(own, (torch.nn.Module,), {"__module__": module, **attributes})()
    return made


def layout(network: torch.nn.Module, latent: tuple[int, ...] = (2, 16, 12, 20), columns: int = 24, **given: Any) -> Any:
    family = families.comfyui_model_of(network)
    assert family is not None
    return family.layout(network, family.call(latent, torch.zeros(latent[0], columns, 4), given))


def places(found: Any) -> tuple[int, range, tuple[int, int]]:
    """(first query of the picture, keys of the text, size of the attention) of the first row; every row is alike."""
    ((size, rows),) = ((size, rows) for size, rows in found.rows.items() if rows)
    row = rows[0]
    assert all(other is row for other in rows)
    assert list(row.columns) == list(range(len(row.columns)))
    return row.picture, range(row.text, row.text + len(row.columns)), size


def test_one_bare_name_is_two_families() -> None:
    """AuraFlow's MMDiT has registers ahead of its text, Stable Diffusion 3's has none."""
    registers = torch.zeros(1, 8, 4)
    aura = layout(model("aura.mmdit.MMDiT", patch_size=2, register_tokens=registers))
    sd3 = layout(model("modules.diffusionmodules.mmdit.MMDiT", patch_size=2))
    assert places(aura) == (32, range(8, 32), (92, 92))
    assert places(sd3) == (24, range(24), (84, 84))
    assert aura.batch == sd3.batch == 2
    assert families.comfyui_model_of(model("elsewhere.MMDiT")) is None
    assert families.comfyui_model_of(torch.nn.Linear(1, 1)) is None


def test_classes_made_from_a_family_belong_to_it() -> None:
    base = type(model("flux.model.Flux", patch_size=2))
    own = type("Own", (base,), {"__module__": "somewhere"})()
    assert families.comfyui_model_of(own) is families.comfyui_model_of(model("flux.model.Flux")) is not None


def test_sizes_that_are_no_whole_patch_are_padded() -> None:
    assert layout(model("flux.model.Flux", patch_size=2), (1, 16, 11, 19)).patches == (1, 6, 10)
    assert layout(model("chroma.model.Chroma", patch_size=16), (1, 3, 96, 160)).patches == (1, 6, 10)


def test_references_of_flux_stand_behind() -> None:
    references = [torch.zeros(1, 16, 8, 10), torch.zeros(1, 16, 5, 4)]
    found = layout(model("flux.model.Flux", patch_size=2), ref_latents=references)
    assert places(found) == (24, range(24), (24 + 60 + 20 + 6,) * 2)


def test_references_of_z_image_stand_ahead() -> None:
    network = model("lumina.model.NextDiT", patch_size=2, pad_tokens_multiple=32, siglip_embedder=None, embed_cap=None)
    plain = layout(network)
    assert places(plain) == (32, range(24), (96, 96))
    found = layout(network, ref_latents=[torch.zeros(1, 16, 8, 10)], ref_contexts=[torch.zeros(1, 40, 8), torch.zeros(1, 5, 8)])
    assert places(found) == (64 + 32 + 32 + 32, range(64, 88), (64 + 32 + 32 + 32 + 64,) * 2)


def test_what_a_vision_model_saw_stands_between() -> None:
    network = model(
        "lumina.model.NextDiT", patch_size=2, pad_tokens_multiple=32, siglip_embedder=1, siglip_pad_token=1, embed_cap=None
    )
    found = layout(network, ref_latents=[torch.zeros(1, 16, 8, 10)], siglip_feats=[torch.zeros(1, 5, 8, 4)])
    # An empty caption, text | 40 places padded to 64, none for the picture | reference, picture.
    assert places(found) == (64 + 96 + 32, range(32, 56), (64 + 96 + 32 + 64,) * 2)


def test_padding_of_text_is_left_out_by_an_older_lumina() -> None:
    network = model("lumina.model.NextDiT", patch_size=2)
    mask = torch.zeros(2, 24)
    mask[:, :17] = 1
    found = layout(network, attention_mask=mask)
    assert [(row.picture, len(row.columns)) for row in found.find(77, 77)] == [(17, 17), (17, 17)]
    assert found.find(24, 24) is None
    mask[1, :20] = 1
    each = layout(network, attention_mask=mask).find(80, 80)
    assert [(row.picture, row.text, len(row.columns)) for row in each] == [(17, 0, 17), (20, 0, 20)]


def wan(name: str = "", **attributes: Any) -> torch.nn.Module:
    """Wan's own network, or one of `name` that is made from it."""
    base = type(model("wan.model.WanModel", patch_size=(1, 2, 2), **attributes))
    return type(name, (base,), {"__module__": "comfy.ldm.wan.model"})() if name else base()


def test_attention_of_controls_is_not_counted() -> None:
    """VACE: after blocks 0 and 2, each of two controls has a block of its own."""
    film = (1, 16, 3, 12, 20)
    network = wan("VaceWanModel", blocks=[SimpleNamespace()] * 3, vace_layers_mapping={0: 0, 2: 1})
    found = layout(network, film, vace_context=torch.zeros(1, 2, 96, 3, 12, 20))
    assert found.counted == (True, False, False, True, True, False, False)
    assert found.blocks == 7
    assert layout(network, film).counted == ()


def test_sizes_that_tie_are_counted() -> None:
    """As many columns as patches: the picture's attention to itself is as large as that to the text."""
    assert layout(wan(), (1, 16, 3, 12, 20), 180).tied
    assert not layout(wan(), (1, 16, 3, 12, 20)).tied
    assert not layout(model("flux.model.Flux", patch_size=2)).tied


def test_references_of_wan() -> None:
    film, still = (1, 16, 3, 12, 20), torch.zeros(1, 16, 12, 20)
    plain = layout(wan(), film)
    assert (plain.patches, places(plain)) == ((3, 6, 10), (0, range(24), (180, 24)))
    assert places(layout(wan(ref_conv=torch.nn.Conv2d(16, 8, 2, 2)), film, reference_latent=still))[0] == 60
    assert places(layout(wan(), film, reference_latent=still))[2] == (180, 24), (
        "a model without the weights does not look at it"
    )
    scail = layout(wan("SCAILWanModel"), film, reference_latent=still[:, :, None], pose_latents=torch.zeros(1, 16, 3, 6, 10))
    assert places(scail) == (60, range(24), (60 + 180 + 45, 24))
    speech = layout(wan("WanModel_S2V"), film, reference_latent=still[:, :, None])
    assert places(speech) == (0, range(24), (240, 24))
    more = layout(wan(), film, time_dim_concat=torch.zeros(1, 16, 2, 12, 20), context_latents=[torch.zeros(1, 16, 1, 6, 6)])
    assert places(more) == (0, range(24), (180 + 120 + 9, 24))


def test_a_picture_of_wan_has_keys_of_its_own() -> None:
    film = (1, 16, 3, 12, 20)
    blocks = [SimpleNamespace(cross_attn=SimpleNamespace(k_img=1))]
    seen = layout(wan(blocks=blocks), film, clip_fea=torch.zeros(1, 257, 8))
    assert seen.find(180, 257) is None
    assert seen.find(180, 24) is not None
    assert seen.repeats == 1
    assert layout(wan(blocks=blocks), film).repeats == 2
    with pytest.raises(NothingRecorded, match="257 columns of text and to as many of a picture"):
        layout(wan(blocks=blocks), film, 257, clip_fea=torch.zeros(1, 257, 8))


def test_other_numbers_of_keys_are_refused() -> None:
    found = layout(model("flux.model.Flux", patch_size=2))
    assert found.find(84, 84)
    assert found.find(60, 60) is None, "the picture alone"
    assert found.find(60, 16) is None, "an adapter of its own"
    with pytest.raises(
        NothingRecorded, match="89 queries on 89 keys, and by what the model was given it would have 84 queries on 84"
    ):
        found.find(89, 89)
    with pytest.raises(NothingRecorded, match="200 queries on 24 keys"):
        layout(wan(), (1, 16, 3, 12, 20)).find(200, 24)


def test_the_host_is_asked_where_it_says_something() -> None:
    found = layout(model("flux.model.Flux", patch_size=2))
    found.check_host({})
    found.check_host({"img_slice": [24, 84]})
    with pytest.raises(NothingRecorded, match="30 to 84"):
        found.check_host({"img_slice": [30, 84]})


def test_one_class_is_one_layout_and_the_sentence_names_its_families() -> None:
    """Several families may share a class of ComfyUI, and then they share what is known of it."""
    by_class = {name: known for known in families.COMFYUI_FAMILIES.values() for name in known.classes}
    for family, known in families.COMFYUI_FAMILIES.items():
        for name in known.classes:
            assert by_class[name] is known
            assert families.comfyui_model_of(model(name)) is known
        assert family in families.READ_IN_COMFYUI.split(", ")


def test_a_class_made_from_another_is_known_by_itself() -> None:
    """Anima's network is made from that of Cosmos Predict 2, and its text is another."""
    base = type(model("cosmos.predict2.MiniTrainDIT"))
    anima = type("Anima", (base,), {"__module__": "comfy.ldm.anima.model"})()
    assert families.comfyui_model_of(anima) is families.COMFYUI_FAMILIES["Anima"]
    assert families.comfyui_model_of(base()) is families.COMFYUI_FAMILIES["Cosmos Predict 2"]


def test_a_network_that_is_refused_has_a_reason() -> None:
    """A network that is made from one that is read is known by itself: LTX-2, which has sound, is made from LTX."""
    for name, reason in families.REFUSED_IN_COMFYUI.items():
        assert families.comfyui_model_of(model(name)) is None
        assert families.comfyui_refusal(model(name)) == reason
    base = type(model("lightricks.model.LTXVModel"))
    sound = type("LTXAVModel", (base,), {"__module__": "comfy.ldm.lightricks.av_model"})()
    assert families.comfyui_model_of(sound) is families.COMFYUI_FAMILIES["LTX-2"]
    assert families.comfyui_model_of(base()) is families.COMFYUI_FAMILIES["LTX-Video"]
    assert families.comfyui_refusal(base()) == "", "it is read"
    assert not {name for known in families.COMFYUI_FAMILIES.values() for name in known.classes} & set(
        families.REFUSED_IN_COMFYUI
    )


@pytest.mark.parametrize(("flipped", "text", "picture"), [(False, 7, 7 + 24 + 9 + 60), (True, 60 + 120 + 7, 60)])
def test_hunyuan_in_both_orders(flipped: bool, text: int, picture: int) -> None:
    """Embedding of a picture, text, ByT5's | reference, video; older ComfyUIs have the two parts the other way round."""
    network = model(
        "hunyuan_video.model.HunyuanVideo", patch_size=[1, 2, 2], double_blocks=[SimpleNamespace(flipped_img_txt=flipped)]
    )
    network.byt5_in = torch.nn.Identity()
    given: dict[str, Any] = {
        "txt_byt5": torch.zeros(1, 9, 4),
        "clip_fea": torch.zeros(1, 7, 4),
        "ref_latent": torch.zeros(1, 16, 1, 12, 20),
    }
    ((size, rows),) = ((k, v) for k, v in layout(network, (1, 16, 2, 12, 20), **given).rows.items() if v)
    keys = {rows[0].text + i: column for i, column in enumerate(rows[0].columns) if column >= 0}
    assert size == (7 + 24 + 9 + 60 + 120,) * 2
    assert keys == {text + i: i for i in range(24 + 9)}
    assert rows[0].picture == picture
