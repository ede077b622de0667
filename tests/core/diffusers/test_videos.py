"""Frames of real pipelines: Wan, CogVideoX and HunyuanVideo, small and random, against float64 probabilities of every frame."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoImageToVideoPipeline, SkyReelsV2DiffusionForcingImageToVideoPipeline
from PIL import Image

from daam_core import trace
from daam_core.capture import accumulator, self_attention_sums
from daam_core.diffusers.videos import (
    REFERENCES,
    REFERENCES_BEHIND,
    output_videos,
    reference_frames,
    references_behind,
    with_its_video,
)
from daam_core.maps import frames as core_frames

from ..capture.attention_witness import Witness
from . import video_pipelines as made

PROMPT = "a red house and a green tree"
PIPELINES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "wan": (made.wan, {"num_frames": 9, "guidance_scale": 1.0, "max_sequence_length": 20}),
    "cogvideox": (made.cog_video_x, {"num_frames": 9, "guidance_scale": 1.0, "max_sequence_length": 20}),
    "hunyuan-video": (made.hunyuan_video, {"num_frames": 9, "prompt_template": made.HUNYUAN, "max_sequence_length": 20}),
}
HEIGHT, WIDTH, LATENTS, GRID = 64, 96, 3, (4, 6)


def film(pipe: Any, options: dict[str, Any], **more: Any) -> Any:
    given = {
        "num_inference_steps": 2, "height": HEIGHT, "width": WIDTH, "output_type": "latent",
        "generator": torch.Generator().manual_seed(1), **options, **more,
    }  # fmt: skip
    return pipe(PROMPT, **given).frames


@pytest.fixture(params=PIPELINES)
def name(request: Any) -> str:
    return str(request.param)


def by_witness(pipe: Any, options: dict[str, Any], columns: slice, video_first: bool) -> torch.Tensor:
    """float64 `[frames, h, w]`: attention to text columns, summed over heads, layers and steps."""
    n = LATENTS * GRID[0] * GRID[1]
    with Witness() as witness:
        film(pipe, options)
    total = torch.zeros(n, dtype=torch.float64)
    for index, (q, k, *_) in enumerate(witness.calls):
        text = k.shape[-2] - (n if q.shape[-2] == k.shape[-2] else 0)
        if q.shape[-2] < n or text <= 0 or (q.shape[-2] == k.shape[-2] == n):
            continue
        joint = q.shape[-2] == k.shape[-2]
        keys = slice(columns.start + n, columns.stop + n) if joint and video_first else columns
        first = text if joint and not video_first else 0
        total += witness.probabilities(index)[0].sum(0)[first : first + n, keys].sum(-1)
    return total.unflatten(0, (LATENTS, *GRID))


def test_every_frame_is_that_of_the_equation(name: str) -> None:
    make, options = PIPELINES[name]
    pipe = make()
    before = film(pipe, options)
    with trace(pipe) as recording:
        during = film(pipe, options)
    assert recording.failure is None and torch.equal(before, during)
    maps = recording.heat_maps()
    assert (maps.num_frames, maps.grid, maps["house"].shape) == (LATENTS, GRID, (LATENTS, *GRID))
    columns = maps.prompt.find("house").channels
    first = made.column_of(pipe, PROMPT, "house")
    wanted = by_witness(pipe, options, slice(first, first + len(columns)), name == "hunyuan-video")
    error = (maps["house"].double() - wanted).abs().max() / maps.num_terms[GRID]
    assert error < 1e-5
    spread = wanted.flatten(1).std(1) / wanted.flatten(1).mean(1)
    assert float(spread.min()) > 0.02 and float((wanted[0] - wanted[1]).abs().max() / maps.num_terms[GRID]) > 1e-4
    assert maps.heat_map("house", maps.size, frames=9).shape == (9, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["cogvideox", "wan"])
def test_attention_across_frames_is_kept(name: str) -> None:
    """Of the first layer in the first step, as for pictures: every position of every frame on every other, in float64. Of one
    sequence with the text, and of a model whose text has an attention of its own."""
    pipe, options = PIPELINES[name][0](), PIPELINES[name][1]
    with trace(pipe) as recording:
        film(pipe, options)
    maps = recording.heat_maps()
    assert maps.self_attention is not None
    (grid,), (walk,) = maps.self_attention.keys(), maps.self_attention.values()
    n = LATENTS * GRID[0] * GRID[1]
    with Witness() as witness:
        film(pipe, options)
    wanted = witness.probabilities(0)[0].sum(0)[-n:, -n:]
    wanted = wanted / wanted.sum(-1, keepdim=True)
    assert grid == GRID and (walk - wanted).abs().max() < 1e-6
    assert float(wanted[0, GRID[0] * GRID[1] :].sum()) > 0.1, "frames attend to each other"
    assert maps.mask("house").shape == (LATENTS, HEIGHT, WIDTH)


def test_a_long_video_s_attention_is_kept_in_cells_of_one_frame_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_attention_sums, "VIDEO_SELF_ATTENTION_POSITIONS", LATENTS * 6)
    pipe, options = made.cog_video_x(), PIPELINES["cogvideox"][1]
    with trace(pipe) as recording:
        film(pipe, options)
    assert recording.failure is None
    maps = recording.heat_maps()
    assert maps.self_attention is not None
    ((h, w), walk), n = next(iter(maps.self_attention.items())), GRID[0] * GRID[1]
    assert (h, w) == (2, 3) and walk.shape == (LATENTS * 6, LATENTS * 6)
    with Witness() as witness:
        film(pipe, options)
    own = witness.probabilities(0)[0].sum(0)[-LATENTS * n :, -LATENTS * n :].unflatten(-1, (LATENTS, *GRID))
    keys = own.unflatten(-2, (2, 2)).unflatten(-1, (3, 2)).mean((-3, -1)).flatten(1)  # cells of 2 x 2 positions
    middle = [f * n + y * GRID[1] + x for f in range(LATENTS) for y in (1, 3) for x in (1, 3, 5)]
    wanted = keys[middle] / keys[middle].sum(-1, keepdim=True)
    assert (walk - wanted).abs().max() < 1e-6


def test_frames_share_maps_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of at most 16 MB: here of two frames. Each is the mean of those that it stands for."""
    pipe, options = made.wan(), PIPELINES["wan"][1]
    with trace(pipe) as recording:
        film(pipe, options)
    whole = recording.heat_maps()
    small = 2 * 4 * GRID[0] * GRID[1] * whole.prompt.num_channels

    def within(latents: int, positions: int, channels: int) -> core_frames.Frames:
        return core_frames.frames_within(latents, positions, channels, small)

    monkeypatch.setattr(accumulator, "frames_within", within)
    with trace(pipe) as recording:
        film(pipe, options)
    maps = recording.heat_maps()
    assert maps.frames is not None and maps.frames.spans == ((0, 1), (1, 3)) and maps.num_terms == whole.num_terms
    assert (maps["house"][0] - whole["house"][0]).abs().max() < 1e-5
    assert (maps["house"][1] - whole["house"][1:].mean(0)).abs().max() < 1e-5
    assert (maps.sum_frames()["house"] - whole["house"].sum(0)).abs().max() < 1e-5


def test_steps_and_layers_are_kept_as_the_mean_over_the_frames() -> None:
    pipe, options = made.wan(), PIPELINES["wan"][1]
    with trace(pipe, keep="steps") as recording:
        film(pipe, options)
    maps = recording.heat_maps()
    assert maps.num_frames == LATENTS
    assert (maps.steps_of("house").sum(0) - maps["house"].mean(0)).abs().max() < 0.01
    with trace(pipe, keep=("layers", "steps")) as recording:
        film(pipe, options)
    layered = recording.heat_maps()
    assert layered.num_frames == 1 and (layered["house"] - maps["house"].mean(0)).abs().max() < 1e-4
    assert layered.num_terms == maps.num_terms
    part = layered.select(layers=[0]).heat_map("house") + layered.select(layers=[1]).heat_map("house")
    assert (part - layered["house"]).abs().max() < 0.01


def test_a_part_of_a_longer_video_is_not_taken_for_the_whole() -> None:
    """A pipeline that makes a long video of short ones shows the model each as if it were the whole."""
    pipe, options = made.wan(), PIPELINES["wan"][1]
    below = type(pipe).prepare_latents
    type(pipe).prepare_latents = lambda self, *args, **kwargs: below(self, *args, **kwargs)[:, :, :2]
    try:
        with trace(pipe) as recording:
            film(pipe, options)
    finally:
        type(pipe).prepare_latents = below
    maps = recording.heat_maps()
    assert maps.num_frames == 1 and maps["house"].shape == GRID and maps.frames is not None and maps.frames.latents == 2


@pytest.mark.parametrize(("condition", "length"), [("latent_concat", 5), ("latent_concat", 0), ("token_replace", 9)])
def test_the_frame_that_hunyuan_video_starts_from_is_cut_off_as_in_its_video(condition: str, length: int) -> None:
    """Where its picture stands beside the latents, four of nine frames are not given out; a length of 0 is latents."""
    with trace(made.hunyuan_video()) as recording:
        film(recording._pipe, PIPELINES["hunyuan-video"][1])
    maps = recording.heat_maps()
    pipe = object.__new__(HunyuanVideoImageToVideoPipeline)
    pipe.__dict__["transformer"] = SimpleNamespace(config=SimpleNamespace(image_condition_type=condition, patch_size_t=1))
    pipe.vae_scale_factor_temporal = 4
    given = {"num_frames": 9, REFERENCES: reference_frames({}, pipe)}
    video = np.zeros((length, HEIGHT, WIDTH, 3), np.uint8) if length else None
    own = with_its_video(maps, video, given, pipe)
    first = int(condition == "latent_concat")
    assert own.num_frames == LATENTS - first and own.frames is not None and own.frames.latents == LATENTS - first
    assert torch.equal(own.heat_map("house"), maps.heat_map("house")[first:])
    other = with_its_video(maps, np.zeros((7, HEIGHT, WIDTH, 3), np.uint8), given, pipe)
    assert other.num_frames == 1, "not the whole video"


@pytest.mark.parametrize("length", [5, 0])
def test_the_frame_that_skyreels_ends_with_is_cut_off_as_in_its_video(length: int) -> None:
    """It is painted beside the others and not given out; a length of 0 is latents."""
    with trace(made.hunyuan_video()) as recording:
        film(recording._pipe, PIPELINES["hunyuan-video"][1])
    maps = recording.heat_maps()
    assert maps.num_frames == LATENTS
    pipe = object.__new__(SkyReelsV2DiffusionForcingImageToVideoPipeline)
    pipe.__dict__["transformer"] = SimpleNamespace(config=SimpleNamespace(patch_size=(1, 2, 2)))
    pipe.__dict__["vae_scale_factor_temporal"] = 4
    given = {"num_frames": 5, REFERENCES_BEHIND: references_behind({"last_image": object()}, pipe)}
    video = np.zeros((length, HEIGHT, WIDTH, 3), np.uint8) if length else None
    own = with_its_video(maps, video, given, pipe)
    assert own.num_frames == LATENTS - 1 and own.frames is not None and own.frames.latents == LATENTS - 1
    assert torch.equal(own.heat_map("house"), maps.heat_map("house")[:-1])
    assert references_behind({"last_image": None}, pipe) == 0
    assert with_its_video(maps, video, {"num_frames": 5}, pipe).num_frames == 1, "one frame too many for that video"


@pytest.mark.parametrize("kind", ["np", "pt", "pil", "uint8"])
def test_videos_of_every_output_type(kind: str) -> None:
    video = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    frames: Any = {
        "np": video[None] / np.float32(255),
        "pt": torch.from_numpy(video)[None].permute(0, 1, 4, 2, 3) / 255,
        "pil": [[Image.fromarray(frame) for frame in video]],
        "uint8": video[None],
    }[kind]
    (got,) = output_videos((frames,), {})
    assert got is not None and np.array_equal(got, video)
    assert output_videos((frames,), {"output_type": "latent"}) == []
    assert output_videos(([Image.new("RGB", (8, 8))],), {}) == [], "pictures"


def test_larger_videos_than_can_be_held_are_left() -> None:
    huge = np.broadcast_to(np.zeros(3, np.float32), (1, 300, 1000, 1000, 3))
    assert output_videos((huge,), {}) == [None]


def test_the_video_itself_is_kept_with_its_maps() -> None:
    pipe = made.wan_with_autoencoder()
    options = {"num_frames": 9, "guidance_scale": 1.0, "max_sequence_length": 20}
    with trace(pipe) as recording:
        frames = film(pipe, options, output_type="np")
    maps = recording.heat_maps()
    assert maps.video is not None and maps.video.shape == (9, HEIGHT, WIDTH, 3) and maps.num_frames == LATENTS
    assert np.abs(maps.video / 255 - frames[0]).max() < 0.003
    assert maps.frames is not None and maps.frames.places(9) == [0.0, 2.5, 6.5]
    assert np.array_equal(maps.picture, maps.video[4])
    assert maps.mask("house", "threshold", frames=9).shape == (9, HEIGHT, WIDTH)
