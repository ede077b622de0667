"""Maps of videos: their axis of frames, the video's own frames, choices, sums, figures and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from daam_core import HeatMaps
from daam_core.errors import BadArgument, BadRecord, DetailMissing
from daam_core.maps import safetensors_file, serialization
from daam_core.maps.frames import Frames, at_frames, frames_within
from daam_core.maps.subset import over_frames
from daam_core.maps.succession import join_in_succession

from .test_heatmaps import made
from .videos import GRID, LATENTS, SIZE, moving_house, prompt, random_video, side


def sums(maps: HeatMaps) -> torch.Tensor:
    return maps.sums[GRID].double()


def test_a_word_has_a_map_for_every_frame() -> None:
    maps = random_video()
    assert (maps.num_frames, maps.heat_map("house").shape) == (LATENTS, (LATENTS, *GRID))
    assert torch.equal(maps["house"], maps.sums[GRID][:, 3])
    both = sums(maps)[:, [2, 3]].sum(1)
    assert (maps.heat_map("red house") - both).abs().max() < 1e-6
    large = F.interpolate(both[:, None], SIZE, mode="bicubic", align_corners=False)[:, 0]
    assert (maps.heat_map("red house", SIZE) - large).abs().max() < 1e-5
    assert maps.heat_maps(size=SIZE).shape == (3, LATENTS, *SIZE)
    assert "4 frames" in repr(maps)


def test_a_picture_keeps_its_shapes() -> None:
    maps = made()
    assert (maps.num_frames, maps.frames, maps.heat_map("house").dim()) == (1, None, 2)
    assert maps.sum_frames() is maps
    with pytest.raises(BadArgument, match="of one picture, not of 9 frames"):
        maps.heat_map("house", frames=9)
    with pytest.raises(BadArgument, match="frames can be chosen of a video"):
        maps.select(frames=[0])


# Frames of each latent one by the autoencoders' own rule: Wan, HunyuanVideo, CogVideoX (4), LTX (8), Mochi (6); Allegro even.
@pytest.mark.parametrize(
    ("latents", "count", "first_apart"),
    [(21, 81, True), (3, 9, True), (5, 25, True), (13, 49, True), (22, 88, False), (4, 8, False)],
)
def test_latent_frames_lie_in_the_middle_of_what_the_autoencoder_makes_of_them(
    latents: int, count: int, first_apart: bool
) -> None:
    if first_apart:
        r = (count - 1) // (latents - 1)
        owner = [0] + [1 + i // r for i in range(count - 1)]
    else:
        owner = [i * latents // count for i in range(count)]
    middle = [float(np.mean([i for i, own in enumerate(owner) if own == k])) for k in range(latents)]
    frames = Frames(tuple((k, k + 1) for k in range(latents)), latents)
    assert frames.places(count) == pytest.approx(middle)
    assert frames.ratio(count) == owner.count(1)


def test_maps_at_the_video_s_frames_are_linear_between_their_places() -> None:
    maps = random_video(latents=3)
    got = maps.heat_map("house", frames=9)
    own = maps["house"].double()
    wanted = np.stack([np.interp(range(9), [0, 2.5, 6.5], own[:, y, x]) for y in range(6) for x in range(8)], 1)
    assert np.abs(got.double().numpy() - wanted.reshape(9, 6, 8)).max() < 1e-6
    assert torch.equal(maps.heat_map("house", frames=3), maps["house"])


def test_frames_that_share_a_map() -> None:
    """No more than 16 MB of sums: neighbours share one, as evenly as can be, and lie in their middle."""
    kept = frames_within(10, positions=2**12, channels=2**8)
    assert (len(kept), kept.spans, kept.whole) == (4, ((0, 2), (2, 5), (5, 7), (7, 10)), True)
    assert "neighbouring frames share a map, 4 in all" in kept.note
    assert frames_within(10, 64, 64).note == ""
    assert kept.places(10) == [0.5, 3.0, 5.5, 8.0]
    assert frames_within(3, 2**14, 2**12).spans == ((0, 3),)


def test_choices_of_frames() -> None:
    maps = random_video()
    some = maps.select(frames=[2, 0, -2])
    assert some.num_frames == 2 and torch.equal(some["house"], maps["house"][[0, 2]])
    one = maps.select(frames=[-1])
    assert one.num_frames == 1 and torch.equal(one["house"], maps["house"][3])
    assert one.num_terms == maps.num_terms
    with pytest.raises(BadArgument, match="are not the whole video of 13"):
        some.heat_map("house", frames=13)
    for wrong, said in (([4], "There is no frame 4"), ([], "leaves no frame"), (["a"], "whole numbers")):
        with pytest.raises(BadArgument, match=said):
            maps.select(frames=wrong)  # type: ignore[arg-type]
    with pytest.raises(DetailMissing, match="choose them or frames"):
        maps.select(frames=[0], steps=[0])


def test_a_chosen_frame_has_the_picture_of_its_place() -> None:
    maps = moving_house()
    assert maps.video is not None and maps.picture is not None
    assert np.array_equal(maps.picture, maps.video[2])
    one = maps.select(frames=[1])
    assert one.picture is not None and one.video is None and np.array_equal(one.picture, maps.video[1])
    two = maps.select(frames=[0, 3])
    assert two.video is not None and np.array_equal(two.video, maps.video[[0, 3]])


def test_the_sum_over_frames_is_that_of_equation_6() -> None:
    maps = random_video()
    whole = maps.sum_frames()
    assert whole.num_frames == 1 and whole.num_terms == {GRID: 8 * LATENTS}
    assert (whole.sums[GRID] - sums(maps).sum(0)).abs().max() < 1e-5
    shared = Frames(((0, 3), (3, 4)), 4)
    words = prompt("a red house")
    pooled = HeatMaps({"prompt": side(maps.sums[GRID][:2], words, shared)}, SIZE).sum_frames()
    assert (pooled.sums[GRID] - (3 * sums(maps)[0] + sums(maps)[1])).abs().max() < 1e-5
    assert pooled.num_terms == {GRID: 8 * 4}


def test_figures_of_a_video_are_those_of_its_sum() -> None:
    maps = random_video().with_negative(random_video("blurry"))
    assert maps.statistics().report() == maps.sum_frames().statistics().report()
    assert maps.statistics().rank_box(0, 0, 9, 9) == maps.sum_frames().statistics().rank_box(0, 0, 9, 9)
    assert maps.statistics().above_negative("house").shape == GRID
    share = maps.statistics().share()
    assert share.shape == (len(maps.default_words()), LATENTS, *GRID) and (share.sum(0) - 1).abs().max() < 1e-5
    mean = maps.statistics().mean_probability(["house"])
    assert (mean[0] - sums(maps)[:, 3] / 8).abs().max() < 1e-6
    assert maps.default_words(1) == maps.sum_frames().default_words(1)


def test_two_recordings_of_a_video_add_up() -> None:
    maps = random_video()
    both = maps + maps
    assert torch.equal(both["house"], 2 * maps["house"]) and both.num_terms == {GRID: 16}
    with pytest.raises(BadArgument, match="same frames can be added; these are of 4 frames and a picture"):
        maps + maps.sum_frames()


def test_prompts_in_succession_keep_their_frames_where_they_have_the_same() -> None:
    first, second = random_video().positive, random_video("two cats").positive
    joined = join_in_succession([first, second])
    assert joined.num_frames == LATENTS and torch.equal(joined.sums[GRID][:, 1:4], first.sums[GRID][:, 1:4])
    fewer = side(second.sums[GRID][:2], second.prompt, Frames(((0, 2), (2, 4)), 4))
    one = join_in_succession([first, fewer])
    assert one.num_frames == 1 and (one.sums[GRID][1:4] - sums(random_video())[:, 1:4].mean(0)).abs().max() < 1e-6
    assert over_frames(made().positive).frames is None


def test_videos_are_checked() -> None:
    maps = random_video()
    with pytest.raises(BadArgument, match="These maps are of one picture"):
        made().with_video(np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(BadArgument, match="pictures of one size"):
        maps.with_video([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)])
    with pytest.raises(BadArgument, match=r"A video is uint8 \[frames, height, width, 3\], not float64"):
        maps.with_video(np.zeros((9, 8, 8, 3)))  # type: ignore[arg-type]
    huge = np.broadcast_to(np.zeros(3, np.uint8), (300, 1000, 1000, 3))
    with pytest.raises(BadArgument, match="A video of 300 frames of 1000 x 1000 pixels is larger"):
        maps.with_video(huge)
    with pytest.raises(BadArgument, match="more than can be held at once"):
        maps.heat_map("house", (4000, 4000), frames=1000)
    with pytest.raises(BadArgument, match="frames is how many frames"):
        maps.heat_map("house", frames=0)


def test_records_hold_frames(tmp_path: Path) -> None:
    maps = moving_house().with_negative(random_video("blurry"))
    back = HeatMaps.load(maps.save(tmp_path / "video"))
    assert back.frames == maps.frames and torch.equal(back["house"], maps["house"])
    assert back.video is not None and maps.video is not None and back.video.shape == maps.video.shape
    assert int(np.abs(back.video.astype(int) - maps.video).max()) < 12, "JPEG"
    one = HeatMaps.load(maps.select(frames=[1]).save(tmp_path / "one"))
    assert one.num_frames == 1 and one.frames == Frames(((1, 2),), 4) and one["house"].dim() == 2
    picture = HeatMaps.load(made().save(tmp_path / "picture"))
    assert picture.frames is None


def spoil(change: Any) -> Any:
    tensors, header = serialization.pack(moving_house())
    change(tensors, header)
    return tensors, header


HOSTILE = {
    "no frames": lambda t, h: h["frames"].update(spans=[]),
    "more frames than maps": lambda t, h: h["frames"]["spans"].append([4, 5]),
    "fewer frames than maps": lambda t, h: h["frames"].update(spans=[[0, 1]]),
    "frames beyond the video": lambda t, h: h["frames"]["spans"].__setitem__(3, [3, 9]),
    "frames in disorder": lambda t, h: h["frames"]["spans"].reverse(),
    "an empty frame": lambda t, h: h["frames"]["spans"].__setitem__(1, [1, 1]),
    "three numbers": lambda t, h: h["frames"]["spans"].__setitem__(1, [1, 2, 3]),
    "words for numbers": lambda t, h: h["frames"]["spans"].__setitem__(1, ["a", True]),
    "a list": lambda t, h: h.update(frames=[1]),
    "a huge count": lambda t, h: h["frames"].update(latents=10**400),
    "one latent frame": lambda t, h: h["frames"].update(latents=1),
    "no frames for the maps": lambda t, h: h.update(frames=None),
    "a frame of the video less": lambda t, h: t.pop("video/2"),
    "a frame of the video more": lambda t, h: t.update({"video/4": t["video/0"]}),
    "many promised": lambda t, h: h.update(video=4000),
    "no number": lambda t, h: h.update(video="4"),
    "no JPEG": lambda t, h: t.update({"video/1": torch.zeros(900, dtype=torch.uint8)}),
    "floats": lambda t, h: t.update({"video/1": torch.zeros(9)}),
    "a cut JPEG": lambda t, h: t.update({"video/1": t["video/1"][:20].clone()}),
    "a JPEG that promises more": lambda t, h: t.update({"video/1": larger(t["video/1"])}),
}


def larger(jpeg: torch.Tensor) -> torch.Tensor:
    """A JPEG whose header promises 65535 x 65535 pixels."""
    raw = bytes(jpeg.tolist())
    at = raw.index(b"\xff\xc0") + 5
    return torch.tensor(list(raw[:at] + b"\xff\xff\xff\xff" + raw[at + 4 :]), dtype=torch.uint8)


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_records_of_videos_are_refused_by_a_sentence(change: Any, tmp_path: Path) -> None:
    path = safetensors_file.write(tmp_path / "spoiled", *spoil(change))
    with pytest.raises(BadRecord) as error:
        HeatMaps.load(path)
    assert str(error.value).endswith(".") and "\n" not in str(error.value) and len(str(error.value)) < 250


def test_interpolation_takes_any_axes_before_the_frames() -> None:
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        at_frames(x, Frames(((0, 1), (1, 2), (2, 3)), 3), 5)[0], at_frames(x[0], Frames(((0, 1), (1, 2), (2, 3)), 3), 5)
    )
