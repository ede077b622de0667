"""One run as a session sees it, without ComfyUI: rows, areas, layouts, texts and steps told apart or refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]
COLUMNS, WIDTH = 5, 8


def cond(name: str, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A conditioning as the sampler has prepared it."""
    text = torch.randn(1, COLUMNS, WIDTH, generator=torch.Generator().manual_seed(seed))
    return {"uuid": name, "cross_attn": text, "model_conds": {"c_crossattn": SimpleNamespace(cond=text)}, **more}


class Run:
    """A session on the latent `[2, 4, 4, 6]` of a UNet, or of a transformer of `family`, and what drives it."""

    def __init__(self, pack: Pack, positive: list[Any] | None = None, family: str = "", negative: bool = True) -> None:
        own, keep = pack("nodes.capture.recording_session"), pack("daam_core.capture.accumulator").StoreOptions()
        self.lists = {"positive": positive or [cond("p")], "negative": [cond("n", 1)]}
        model: Any = torch.nn.Identity()
        if family:
            module, _, name = f"comfy.ldm.{family}".rpartition(".")
            model = type(name, (torch.nn.Module,), {"__module__": module, "patch_size": 2})()
        found = pack("daam_core.capture.comfyui_families").comfyui_model_of(model)
        guider = SimpleNamespace(conds=self.lists, original_conds=self.lists)
        self.session = own.RecordingSession(own.Options(keep, negative), guider, (2, 4, 4, 6), model, found, 8)
        self.at_work = lambda *_: None

    def step(self, rows: list[tuple[int, str]], latent: tuple[int, ...] = (4, 6), sigma: Any = None, **given: Any) -> Any:
        """Begin a prediction: groups of rows (number of the list, uuid); gives the context."""
        sigma = torch.ones(1) if sigma is None else sigma
        x = torch.zeros(2 * len(rows), 4, *latent)
        self.session.begin_batch(list(self.lists.values()), x, sigma)
        context = torch.randn(len(x), COLUMNS, WIDTH)
        self.begin(x, context, rows, **given)
        return context

    def begin(self, x: Any, context: Any, rows: list[tuple[int, str]], **given: Any) -> None:
        options = {"cond_or_uncond": [i for i, _ in rows], "uuids": [uuid for _, uuid in rows]}
        try:
            self.session.begin_model(x, context, options, given)
        except Exception as error:
            self.session.fail(error)

    def attend(self, context: Any, grid: tuple[int, int] = (2, 3), batch: int | None = None) -> Any:
        """One cross-attention of a UNet's block; gives q and k."""
        block = {"block": ("input", 1), "block_index": 0, "activations_shape": [len(context), WIDTH, *grid]}
        self.session.set_next_call(block, False, context)
        batch = len(context) if batch is None else batch
        q, k = torch.randn(batch, grid[0] * grid[1], WIDTH), torch.randn(batch, context.shape[1], WIDTH)
        self.session.on_attention((q, k, k, 2), {})
        return q, k

    def close(self) -> None:
        try:
            self.session.end_model()
        except Exception as error:
            self.session.fail(error)
        self.session.end_batch()


BOTH = [(1, "n"), (0, "p")]


def probabilities(q: torch.Tensor, k: torch.Tensor, heads: int = 2) -> torch.Tensor:
    """float64 `[n, keys]`, summed over heads."""
    q, k = (x.double().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k))
    return ((q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5).softmax(-1).sum(0)


def test_rows_of_both_sides_and_pictures(pack: Pack) -> None:
    """The unconditional rows stand first; each picture of each side has the attention of its own row."""
    run = Run(pack)
    q, k = run.attend(run.step(BOTH))
    run.close()
    maps = run.session.heat_maps()
    assert len(maps) == 2
    for picture in range(2):
        for side, row in ((maps[picture], 2 + picture), (maps[picture].negative, picture)):
            (sums,) = side.sums.values()
            expected = probabilities(q[row], k[row]).T.reshape(-1, 2, 3)
            assert torch.allclose(sums[1 : 1 + COLUMNS].double(), expected, atol=1e-5)


def test_a_step_begins_where_the_first_prediction_comes(pack: Pack) -> None:
    """A guider that says nothing of its steps: each noise level is one, a second look at it is none."""
    run = Run(pack)
    for _ in range(3):
        sigma = torch.ones(1)
        for _ in range(2):
            run.attend(run.step(BOTH, sigma=sigma))
            run.close()
    assert run.session.heat_maps()[0].steps == 3
    (terms,) = run.session.heat_maps()[0].num_terms.values()
    assert terms == 2 * 3


@pytest.mark.parametrize(
    ("latent", "seen"), [((4, 3), "4 latent.s. of 4 x 3"), ((2, 6), "of 2 x 6, and 2 prompt.s. on 4 latent.s. of 4 x 6")]
)
def test_tiles_are_known_by_their_size(pack: Pack, latent: tuple[int, int], seen: str) -> None:
    run = Run(pack)
    run.attend(run.step(BOTH, latent))
    run.close()
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match=seen):
        run.session.heat_maps()


def test_an_area_is_shown_what_lies_in_it(pack: Pack) -> None:
    """(height, width, top, left), cut off at the edge of the latent."""
    run = Run(pack, [cond("p", area=(2, 4, 1, 3))])
    run.attend(run.step([(0, "p")], (2, 3)), (1, 2))
    run.close()
    assert run.session.heat_maps()
    whole = Run(pack, [cond("p", area=(2, 4, 1, 3))])
    whole.attend(whole.step([(0, "p")], (4, 6)))
    whole.close()
    with pytest.raises(pack("daam_core.errors").NothingRecorded, match="cuts the picture"):
        whole.session.heat_maps()


def _exchanged(pack: Pack, change: Callable[[torch.Tensor], torch.Tensor], batch: int | None = None) -> str:
    run = Run(pack)
    run.attend(change(run.step(BOTH)), batch=batch)
    run.close()
    try:
        run.session.heat_maps()
    except pack("daam_core.errors").NothingRecorded as error:
        return str(error)
    return ""


def test_another_text_at_a_layer(pack: Pack) -> None:
    """Scaled texts and copies are the same text; others, longer ones and more rows are named."""
    assert not _exchanged(pack, lambda text: text.clone())
    assert not _exchanged(pack, lambda text: text * 1.1)
    assert "are not those of the prompt" in _exchanged(pack, lambda text: torch.randn_like(text))
    assert "are not those of the prompt" in _exchanged(pack, lambda text: text.flip(1))
    assert "10 columns at a layer, and the model was given 5" in _exchanged(pack, lambda text: torch.cat([text, text], 1))
    assert "8 rows at input_blocks.1" in _exchanged(pack, lambda text: text, batch=8)


def test_keys_of_a_transformer_are_counted(pack: Pack) -> None:
    for extra, said in ((0, ""), (1, "12 queries on 12 keys, and by what the model was given it would have 11 queries on 11")):
        run = Run(pack, family="flux.model.Flux")
        run.step(BOTH)
        q = torch.randn(4, COLUMNS + 6 + extra, WIDTH)
        run.session.on_attention((q, q, q, 2), {})
        run.close()
        assert said in run.session.failure
        assert bool(run.session.failure) == bool(said)


def test_references_that_are_announced_count(pack: Pack) -> None:
    run = Run(pack, family="flux.model.Flux")
    run.step(BOTH, ref_latents=[torch.zeros(1, 4, 2, 2)])
    q = torch.randn(4, COLUMNS + 6 + 1, WIDTH)
    run.session.on_attention((q, q, q, 2), {})
    run.close()
    (sums,) = run.session.heat_maps()[1].sums.values()
    expected = probabilities(q[3, COLUMNS : COLUMNS + 6], q[3])[:, :COLUMNS].T.reshape(-1, 2, 3)
    assert torch.allclose(sums[1 : 1 + COLUMNS].double(), expected, atol=1e-5)


def test_attention_of_other_sizes_alone_is_named(pack: Pack) -> None:
    run = Run(pack, family="flux.model.Flux")
    run.step(BOTH)
    q, k = torch.randn(4, 6, WIDTH), torch.randn(4, 3, WIDTH)
    run.session.on_attention((q, k, k, 2), {})
    run.close()
    assert "there were 6 on 3" in run.session.failure


def test_a_text_of_another_length_is_named(pack: Pack) -> None:
    run = Run(pack, family="flux.model.Flux")
    x = torch.zeros(4, 4, 4, 6)
    run.session.begin_batch(list(run.lists.values()), x, torch.ones(1))
    run.begin(x, torch.randn(4, 9, WIDTH), BOTH)
    assert "a text of 9 columns, and the prompt has 5" in run.session.failure


def test_steps_without_any_attention_to_the_text_are_named(pack: Pack) -> None:
    """Another node may put its own attention in place of the model's, as the samplers of ComfyUI-NAG do."""
    for family in ("", "flux.model.Flux"):
        run = Run(pack, family=family)
        for _ in range(2):
            run.step(BOTH)
            run.close()
        with pytest.raises(pack("daam_core.errors").NothingRecorded, match="did 2 steps, but none of the model's attention"):
            run.session.heat_maps()


def test_default_prompts_get_what_is_left_over(pack: Pack) -> None:
    """The area of a default prompt is asked from the host, which a test can stand in for."""
    rows = pack("nodes.capture.batch_rows")
    lists = {"positive": [cond("half", area=(4, 3, 0, 0)), cond("rest", 2, default=True)]}
    x = torch.zeros(1, 4, 4, 6)

    def at_work(one: Any, *_: Any) -> Any:
        return SimpleNamespace(area=(4, 3, 0, 0), mult=torch.ones(1, 4, 4, 3))

    conds = rows.Conds(lists, lists, x.shape, at_work)
    conds.begin(["positive"], lists, x, torch.ones(1))
    half, rest = conds.rows({0: "positive"}, [0, 0], ["half", "rest"])
    assert (half.area.width, half.size, rest.size) == (0.5, (4, 3), (4, 6))
    assert rest.area.mask.tolist() == [[0, 0, 0, 1, 1, 1]] * 4
