"""What recording holds and keeps: bounds, at SDXL's layers and resolutions."""

from __future__ import annotations

import importlib
from typing import Any

import graphs
import torch
from graphs import encode, ksampler, listen, runs
from zoo import PROMPT, clip, empty, unet

measure = importlib.import_module("daam-lens.benchmarks.measure")
MIB = 2**20
WORDS = "a red house and a green tree beside one blue boat under two pink stars"  # fifteen


def _sdxl(height: int, steps: int, **options: Any) -> torch.Tensor:
    """Latents of a run with all of SDXL's layers, recorded."""
    model, encoder = listen(unet("sdxl_whole"), clip("sdxl_whole"), **options)
    return ksampler(model, encode(encoder, WORDS), encode(encoder, ""), empty(height, height), steps=steps, cfg=1.0)


def _kept(sampled: torch.Tensor) -> int:
    """Bytes of what is kept for the one picture of a run; the same by two ways of counting."""
    (maps,) = runs.maps_of(sampled)
    bytes_ = maps.nbytes
    assert abs(measure.tensor_bytes(maps) - bytes_) < 2**16
    return int(bytes_)


def case_kept_for_a_picture_of_sdxl() -> None:
    """At most 2 MB at 1024 px, which has four times the places of 512 px, and more than the self-attention that is kept."""
    (maps,) = runs.maps_of(sampled := _sdxl(512, 1))
    assert len(maps.layers) == 70
    assert set(maps.sums) == {(32, 32), (16, 16)}
    itself = sum(x.nbytes for x in maps.self_attention.values())
    assert 0 < itself < 1.5 * MIB
    assert 0.3 * MIB < 4 * (_kept(sampled) - itself) <= 2 * MIB


def case_kept_does_not_grow_with_steps() -> None:
    assert _kept(_sdxl(128, 2)) == _kept(_sdxl(128, 5))


def case_layers_and_steps_apart() -> None:
    """At most 100 MB at 1024 px, 30 steps and 15 words: here a sixteenth of the places and a tenth of the steps."""
    assert len(WORDS.split()) == 15
    few, more = (_kept(_sdxl(256, steps, detail="layers + steps")) for steps in (1, 4))
    a_step = (more - few) / 3 * 16
    assert 60 * MIB < 30 * a_step + 2 * MIB <= 100e6


def case_temporaries() -> None:
    """Recording holds at most 64 MB more at any moment than the same run without it; whole, its scores would be 80 MB."""
    plain = unet("sdxl")
    model, encoder = listen(plain, clip("sdxl"))
    positive, negative = encode(encoder, PROMPT), encode(encoder, "")
    latent = empty(512, 512, images=16)

    def peak(one: Any) -> int:
        return int(measure.peak_bytes(lambda: ksampler(one, positive, negative, latent, steps=1, cfg=1.0)))

    more = peak(model) - peak(plain)
    assert 0 < more <= 64 * MIB, more / MIB


def case_runs_are_kept_by_number_and_by_bytes() -> None:
    """Oldest out first, by either bound; one run that is known by two latents counts once; the last one always stays."""
    maps = runs.maps_of(_small())[0]
    size = maps.nbytes
    latents = [torch.full((1, 4, 2, 2), float(k)) for k in range(5)]
    by_number, by_bytes = (
        runs.RecordingStore(pictures=3, most_bytes=10**9),
        runs.RecordingStore(pictures=64, most_bytes=2 * size),
    )
    tiny = runs.RecordingStore(pictures=64, most_bytes=size // 2)
    for latent in latents:
        own = runs.maps_of(_small())[0]
        for store in (by_number, by_bytes, tiny):
            store.keep([latent, latent + 0.5], [own])
    for store, expected in ((by_number, [0, 0, 1, 1, 1]), (by_bytes, [0, 0, 0, 1, 1]), (tiny, [0, 0, 0, 0, 1])):
        assert [_why_not(store, latent) == "" for latent in latents] == [bool(x) for x in expected], store
    assert by_bytes.bytes == 2 * size
    assert "was dropped" in _why_not(by_bytes, latents[0])


def _small() -> torch.Tensor:
    model, encoder = listen(unet("sd15"), clip("sd15"))
    return ksampler(model, encode(encoder, PROMPT), encode(encoder, ""), empty(64, 64), steps=1)


def _why_not(store: Any, latent: torch.Tensor) -> str:
    try:
        store.find(latent)
    except graphs.errors.NothingRecorded as error:
        return str(error)
    return ""


def case_heat_maps_of_a_long_prompt() -> None:
    """A long prompt, four pictures of 384 px: the strongest dozen are drawn, and beside them at most 64 MB are held."""
    text = " ".join(f"{colour} {thing}" for colour in ("red", "blue", "green", "pink", "grey", "gold")
                    for thing in ("house", "tree", "boat", "star", "car", "fish")).replace("gold fish", "fish")  # fmt: skip
    model, encoder = listen(unet("sd15"), clip("sd15"))
    latent = ksampler(model, encode(encoder, text), encode(encoder, ""), empty(384, 384, 4), steps=1, cfg=1.0)
    image = torch.rand(4, 384, 384, 3)
    draw = graphs.importlib.import_module("daam-lens.nodes.heat_maps").HeatMapsNode.execute
    given: list[Any] = []
    peak = measure.peak_bytes(lambda: given.append(draw({"samples": latent}, image, caption=False).args))
    _, overlays, masks, words = given[0]
    assert len(words) == 12
    assert tuple(overlays.shape) == (48, 384, 384, 3), "without a caption, of the picture's own size"
    assert tuple(masks.shape) == (48, 384, 384)
    assert peak - overlays.nbytes <= 64 * MIB, (peak - overlays.nbytes) / MIB
    said = ""
    try:
        draw({"samples": latent}, torch.rand(4, 2048, 2048, 3), "*")
    except graphs.errors.BadArgument as error:
        said = str(error)
    assert "overlays of 2048 x 2048 pixels would take" in said
    assert "at most 32 overlays fit" in said
