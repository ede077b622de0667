"""The nodes on finished maps, and the embedded model, in the real host."""

from __future__ import annotations

import asyncio
from typing import Any

import folder_paths
import graphs
import torch
import truth
from graphs import encode, ksampler, pack

import nodes as host_nodes

NODES = {n.GET_SCHEMA().node_id: n for n in asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())}


def run(name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """A node's outputs."""
    return NODES[f"DaamLens{name}"].execute(*args, **kwargs).args


def refused(name: str, *args: Any, **kwargs: Any) -> str:
    """The sentence a node refuses with."""
    try:
        run(name, *args, **kwargs)
    except graphs.errors.DaamLensError as error:
        return str(error)
    raise AssertionError("it was not refused")


def painted(text: str = "a red house and a green tree", images: int = 2, **options: Any) -> tuple[Any, Any]:
    """(latent, image) of the embedded model, recorded."""
    model, clip, vae = run("TinyModel")
    heard, told = run("Record", model, clip, **options)
    latent = {"samples": torch.zeros(images, 4, 16, 20)}
    samples = ksampler(
        heard, encode(told, text), encode(told, (options and "boat") or ""), latent, steps=4, cfg=6.0,
        sampler_name="dpmpp_2m", scheduler="sgm_uniform",
    )  # fmt: skip
    return {"samples": samples}, vae.decode(samples)


def case_every_input_and_output_is_explained() -> None:
    """Tooltips and names everywhere; ids carry the prefix."""
    assert len(NODES) == len(set(NODES)) >= 14
    for name, one in NODES.items():
        schema = one.GET_SCHEMA()
        assert name.startswith("DaamLens")
        assert schema.category == "DAAM Lens"
        assert schema.description
        assert schema.display_name
        for part in [*schema.inputs, *schema.outputs]:
            assert part.tooltip, f"{name}.{part.id or part.display_name} has no tooltip"
        assert all(out.display_name for out in schema.outputs)


def case_heat_maps() -> None:
    latent, image = painted(negative=True, detail="layers + steps", heads=True)
    maps, overlays, masks, words = run("HeatMaps", latent, image, "house\nred house, tree")
    assert words == ["house", "red house", "tree"]
    assert len(maps) == 2
    assert overlays.shape[0] == masks.shape[0] == 6
    assert masks.shape[1:] == (128, 160)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1
    assert run("HeatMaps", latent, None, "")[3] == ["red", "house", "green", "tree"]
    assert run("HeatMaps", latent, image, "*")[3] == ["a", "red", "house", "and", "a#2", "green", "tree"]
    assert run("HeatMaps", latent, image, "<start>, negative:boat")[3] == ["<start>", "negative:boat"]
    for choice in ({"layers": "up"}, {"layers": "0-2, mid"}, {"steps": "-1"}, {"heads": "0"}):
        part = run("HeatMaps", latent, image, "house", **choice)[2]
        assert not torch.equal(part[0], masks[0])


def case_sentences_of_heat_maps() -> None:
    latent, image = painted()
    assert "Its words are: a, red, house" in refused("HeatMaps", latent, image, "dragon")
    assert "negative" in refused("HeatMaps", latent, image, "negative:boat")
    assert "Record Attention node" in refused("HeatMaps", latent, image, "house", layers="up")
    assert "numbers and ranges" in refused("HeatMaps", latent, image, "house", steps="last")
    assert "straight from the sampler" in refused("HeatMaps", {"samples": torch.rand(1, 4, 16, 16)}, image, "")


def case_batches_of_other_lengths_are_refused() -> None:
    """One picture, region or recording serves all; others belong to nobody knows which."""
    latent, image = painted(images=3, detail="steps")
    maps = run("HeatMaps", latent, image, "house")[0]
    for pictures in (image[:2], torch.cat([image, image[:1]])):
        for told in (
            refused("HeatMaps", latent, pictures, "house"), refused("Overlay", maps, pictures, "house"),
            refused("Mask", maps, "house", image=pictures), refused("Timeline", maps, "house", pictures),
            refused("Explorer", maps, pictures), refused("WordsInRegion", maps, pictures[..., 0]),
        ):  # fmt: skip
            assert f"{len(pictures)} " in told
            assert "and 3 recorded picture(s)" in told
            assert "Image From Batch" in told
    assert "2 recording(s) before and 3" in refused("CompareMaps", maps, maps[:2], "house")
    taken = run("HeatMaps", {"samples": latent["samples"][1:2]}, image[1:2], "house")[0]
    assert torch.equal(torch.from_numpy(taken[0].picture), torch.from_numpy(maps[1].picture))
    assert "3 picture(s) and 1 recorded" in refused("Overlay", taken, image, "house")
    assert run("Overlay", maps, image[:1], "house")[0].shape[0] == 3
    assert run("WordsInRegion", maps, torch.ones(1, 128, 160))[0].count("house") == 3
    assert run("CompareMaps", maps, taken, "house")[0].shape[0] == 3
    words = run("HeatMaps", {"samples": latent["samples"][1:2]}, image[1:2], "house, tree")[2]
    ranking, tables = run("WordsInRegion", taken, words)
    assert len(tables) == 2, "a ranking for each word's mask"
    assert ranking.split("\n\n") == [run("WordsInRegion", taken, word[None])[0] for word in words]


def case_mask_for_every_method() -> None:
    latent, image = painted()
    maps = run("HeatMaps", latent, image, "")[0]
    for method in [*NODES["DaamLensMask"].GET_SCHEMA().inputs[2].options]:
        mask, preview, first = run("Mask", maps, "house", method)
        assert torch.equal(first, mask[:1]), "one word, of the first picture"
        assert mask.shape == (2, 128, 160), method
        assert mask.dtype == torch.float32
        assert preview.shape == (2, 128, 160, 3)
        assert 0 < float(mask.mean()) < 1, method
        if method != "soft":
            assert set(mask.unique().tolist()) <= {0.0, 1.0}


def case_mask_is_cleaned_as_asked() -> None:
    latent, image = painted()
    maps = run("HeatMaps", latent, image, "")[0]
    plain = run("Mask", maps, "house", "threshold")[0]
    assert float(run("Mask", maps, "house", "threshold", grow=4)[0].sum()) > float(plain.sum())
    assert float(run("Mask", maps, "house", "threshold", grow=-2)[0].sum()) < float(plain.sum())
    assert torch.equal(run("Mask", maps, "house", "threshold", invert=True)[0], 1 - plain)
    soft = run("Mask", maps, "house", "threshold", feather=6)[0]
    assert len(soft.unique()) > 4
    union = run("Mask", maps, "house, tree", "threshold")[0]
    other = run("Mask", maps, "tree", "threshold")[0]
    assert torch.equal(union, torch.maximum(plain, other))
    assert "connect" in refused("Mask", run("HeatMaps", latent, None, "")[0], "house", "grabcut").lower()


def case_masks_go_straight_into_inpainting() -> None:
    latent, image = painted()
    mask = run("Mask", run("HeatMaps", latent, image, "")[0], "house", grow=3)[0]
    vae = run("TinyModel")[2]
    masked = host_nodes.SetLatentNoiseMask().set_mask(latent, mask)[0]
    assert masked["noise_mask"].shape[-2:] == mask.shape[-2:]
    filled = host_nodes.VAEEncodeForInpaint().encode(vae, image, mask, 6)[0]
    assert filled["samples"].shape == latent["samples"].shape
    model, clip, _ = run("TinyModel")
    positive, negative = encode(clip, "a blue boat"), encode(clip, "")
    out = ksampler(model, positive, negative, masked, cfg=6.0)
    touched = torch.nn.functional.max_pool2d(mask[:1, None], 8)  # any pixel of a latent position, and its neighbours
    outside = torch.nn.functional.max_pool2d(touched, 3, 1, 1)[0, 0] == 0
    assert bool(outside.any())
    torch.testing.assert_close(out[0][:, outside], latent["samples"][0][:, outside], atol=1e-4, rtol=1e-4)
    assert host_nodes.InpaintModelConditioning().encode(positive, negative, image, vae, mask, True)


def case_report_comparison_region_pictures() -> None:
    latent, image = painted(detail="steps")
    maps = run("HeatMaps", latent, image, "")[0]
    report, table = run("PromptReport", maps)
    assert "house" in report
    assert table.shape[0] == 2
    change, rose, summary = run("CompareMaps", maps[:1], maps[1:], "house")
    assert change.shape[0] == rose.shape[0] == 1
    assert summary.startswith("house: ") and "of its heat lies elsewhere; rose over" in summary
    same = run("CompareMaps", maps[:1], maps[:1], "house")[1]
    assert float(same.sum()) == 0
    region = torch.zeros(1, 128, 160)
    region[:, 20:60, 20:60] = 1
    ranking, _ = run("WordsInRegion", maps, region)
    assert "%" in ranking
    assert "empty" in refused("WordsInRegion", maps, region * 0)
    with_negative = run("HeatMaps", painted(images=1, negative=True)[0], None, "")[0]
    assert run("WordsInRegion", with_negative, region, "negative:boat")[0].startswith("boat  100.0%")
    assert run("Overlay", maps, image, "house", edge=True)[0].shape[0] == 2
    assert run("Timeline", maps, "house")[0].shape[0] == 2 * 4
    assert "steps" in refused("Timeline", run("HeatMaps", painted(images=1)[0], None, "")[0], "house")


def case_save_and_load_stay_inside() -> None:
    latent, image = painted(negative=True)
    maps = run("HeatMaps", latent, image, "")[0]
    paths = run("SaveMaps", maps, "daam test/maps")[0].splitlines()
    try:
        assert len(paths) == 2
        load = NODES["DaamLensLoadMaps"]
        names = load.define_schema().inputs[0].options
        name = next(n for n in names if paths[1].endswith(n.split(" [")[0]))
        found = run("LoadMaps", name)[0][0]
        assert torch.equal(found.heat_map("house"), maps[1].heat_map("house"))
        assert found.picture is not None
        assert found.negative.words == ["boat"]
        seen = load.fingerprint_inputs(name)
        with open(paths[1], "r+b") as file:
            file.truncate(500)
        assert load.fingerprint_inputs(name) != seen
        assert "record" in refused("LoadMaps", name)
        for bad in ("../secret.safetensors [output]", "/etc/passwd [output]", "nothing.safetensors [input]"):
            assert load.validate_inputs(bad) is not True
            refused("LoadMaps", bad)
        for bad in ("../../evil", "/tmp/evil", "a/../../evil"):
            assert "leads out of" in refused("SaveMaps", maps, bad)
    finally:
        import shutil

        shutil.rmtree(f"{folder_paths.get_output_directory()}/daam test")


def case_tiny_model_reads_as_the_library_s_own() -> None:
    """The text encoder's numbers, against CLIP's definition written out; the autoencoder reproduces what it painted."""
    _, clip, vae = run("TinyModel")
    context = encode(clip, "a red house")[0][0]
    assert context.shape == (1, 77, 128)
    torch.testing.assert_close(context, written_clip("a red house"), atol=2e-4, rtol=2e-4)
    _, image = painted()
    again = vae.decode(vae.encode(image))
    assert float((again - image).abs().mean()) < 0.05


def written_clip(text: str) -> torch.Tensor:
    """A CLIP text transformer, plainly, from the weights in the package; only the tokenizer is somebody's."""
    import json
    from pathlib import Path

    from safetensors.torch import load_file
    from transformers import CLIPTokenizer

    folder = Path(pack.__file__).parent / "daam_core/tiny/weights/pipeline"
    w = {k.removeprefix("text_model."): v.float() for k, v in load_file(str(folder / "text_encoder/model.safetensors")).items()}
    config = json.loads((folder / "text_encoder/config.json").read_text())
    heads, width = config["num_attention_heads"], config["hidden_size"]
    ids = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))(text, padding="max_length", max_length=77).input_ids
    x = w["embeddings.token_embedding.weight"][ids] + w["embeddings.position_embedding.weight"]
    blind = torch.full((77, 77), -torch.inf).triu(1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}"
        n = norm(x, f"{layer}.layer_norm1")
        q, k, v = (linear(n, f"{layer}.self_attn.{p}_proj").unflatten(1, (heads, -1)).transpose(0, 1) for p in "qkv")
        p = torch.softmax(q @ k.transpose(1, 2) * (width // heads) ** -0.5 + blind, -1)
        x = x + linear((p @ v).transpose(0, 1).flatten(1), f"{layer}.self_attn.out_proj")
        n = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + linear(n * torch.sigmoid(1.702 * n), f"{layer}.mlp.fc2")
    return norm(x, "final_layer_norm")[None]


def case_the_transformer_inside_is_recorded_as_any_other() -> None:
    """The same latents with and without Record, its maps the equation's computed apart; a long prompt is read in two chunks."""
    model, clip, _ = run("TinyModel", "transformer")
    latent = {"samples": torch.zeros(2, 4, 16, 20)}
    for text, chunks in (("a red house and a green tree", 1), ("a red house and a green tree " * 4, 2)):
        positive, negative = encode(clip, text), encode(clip, "")
        assert positive[0][0].shape == (1, 20 * chunks, 128)

        def sample(watched: Any, told: Any, text: str = text, negative: Any = negative) -> torch.Tensor:
            how = {"steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple"}
            return ksampler(watched, encode(told, text), negative, latent, **how)

        plain, true = truth.transformer_maps(
            model, lambda watched: sample(watched, clip), 20 * chunks, 20 * chunks, (8, 10), False
        )
        heard = sample(*run("Record", model, clip))
        assert torch.equal(plain, heard)
        found = graphs.runs.maps_of(heard)
        assert len(found) == 2
        graphs.same_words(found[0].words, text.strip())
        graphs.equal(found, true, clip, text, ("house", "tree"))


def case_the_transformer_inside_computes_what_diffusers_does() -> None:
    """Eight numbers of its flow and four of its text encoder's that diffusers and transformers gave for the shipped weights."""
    model, clip, _ = run("TinyModel", "transformer")
    network = model.model.diffusion_model
    context, extra = encode(clip, "a red house and a green tree")[0]
    torch.testing.assert_close(context[0, 3, :4], torch.tensor(TRANSFORMER_READS), atol=2e-4, rtol=2e-4)
    x = torch.linspace(-2, 2, 4 * 16 * 16).sin().view(1, 4, 16, 16) * 1.3
    with torch.no_grad():
        flow = network(x, torch.tensor([600.0]), context=context, y=extra["pooled_output"])
    torch.testing.assert_close(flow[0, :, 5, 7:9].flatten(), torch.tensor(TRANSFORMER_FLOW), atol=1e-3, rtol=1e-3)


TRANSFORMER_READS = [-0.26706, 1.47934, -1.19856, -1.31194]
TRANSFORMER_FLOW = [0.74188, 0.87856, -1.39239, -1.30957, 1.47007, 1.40687, -0.19859, 0.33001]
