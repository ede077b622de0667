"""What a host tells PyTorch about speed changes no map: "medium" products are bfloat16 on processors that have units for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from daam_core import load_tiny, trace
from daam_core.attention import scores
from daam_core.attention.precision import _InFloat64, full_precision

CPU = torch.device("cpu")


def q_and_k(heads: int = 8, n: int = 256, keys: int = 77, d: int = 64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(heads, n, d, generator=draw), torch.randn(heads, keys, d, generator=draw)


def truth(q: Tensor, k: Tensor) -> Tensor:
    """Eq. 6 in float64 with every key a channel, `[1, n, keys]`."""
    return torch.softmax(q.double() @ k.double().mT * 0.125, -1).sum(0, keepdim=True)


@pytest.fixture(params=["medium", "mixed"])
def lowered(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float32 products as hosts lower them: by the setting of all backends, and by that of the processor's alone."""
    before = torch.get_float32_matmul_precision()
    own = getattr(torch.backends.mkldnn, "matmul", None)
    if request.param == "mixed" and own is None:
        pytest.skip("This PyTorch has one setting for all backends.")
    try:
        if request.param == "medium":
            torch.set_float32_matmul_precision("medium")
        else:
            own.fp32_precision = "bf16"
        yield
    finally:
        if own is not None:
            own.fp32_precision = "none"
        torch.set_float32_matmul_precision(before)


def added(add: Callable[..., None], q: Tensor, k: Tensor) -> Tensor:
    into = torch.zeros(1, q.shape[1], k.shape[1])
    add(into, q, k, torch.eye(k.shape[1])[None], len(q), 0.125)
    return into


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("autocast", [False, True])
def test_sums_are_exact(autocast: bool) -> None:
    q, k = q_and_k()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        heads = added(scores.add_head_sum, q, k)
        into = torch.zeros(1, 1, q.shape[1], k.shape[1])
        steps = q[:, None].expand(-1, 2, -1, -1)
        scores.add_step_sums(into, steps, k, torch.eye(k.shape[1])[None], len(q), 0.125, torch.full((1, 2), 0.5))
    exact = truth(q, k)
    assert (heads - exact).abs().max() <= 1e-5 * exact.max()
    assert (into[0] - exact).abs().max() <= 1e-5 * exact.max()


def test_every_form_of_a_product_is_computed_in_float64() -> None:
    """In place, into given memory, with factors, of other dtypes: what float64 gives, rounded once."""
    draw = torch.Generator().manual_seed(1)
    a, b = torch.randn(3, 40, 50, generator=draw), torch.randn(3, 50, 30, generator=draw)
    exact = (a.double() @ b.double()).float()
    with _InFloat64():
        given = torch.empty_like(exact)
        forms = [
            a @ b,
            torch.bmm(a, b, out=given),
            torch.zeros(3, 40, 30).baddbmm_(a, b),
            torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=2.0) / 2,
            torch.stack([x @ y for x, y in zip(a, b, strict=True)]),
            torch.einsum("bij,bjk->bik", a, b),
        ]
        whole = torch.ones(2, 2, dtype=torch.float64) @ torch.ones(2, 2, dtype=torch.float64)
    assert all(form.dtype == torch.float32 and torch.equal(form, exact) for form in forms)
    assert forms[1] is given and whole.dtype == torch.float64


@pytest.mark.usefixtures("lowered")
def test_nothing_of_the_process_is_changed() -> None:
    """The setting is one of all threads: another one may be at a picture."""
    q, k = q_and_k()
    plain = q @ k.mT
    with full_precision(CPU):
        assert torch.equal(q @ k.mT, (q.double() @ k.double().mT).float())
    assert torch.equal(q @ k.mT, plain)


@pytest.mark.usefixtures("lowered")
def test_maps_of_a_run_are_those_of_the_model_s_own_queries() -> None:
    """The model itself computes as the host says; what it gives out is summed exactly, and the picture is as without us."""
    pipe = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    seen: dict[str, list[Tensor]] = {}

    def draw() -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.from_numpy(pipe("a red house", num_inference_steps=2, generator=generator, output_type="np").images)

    layers = {name: module for name, module in pipe.unet.named_modules() if name.endswith("attn2")}
    plain = draw()
    with trace(pipe) as recording:
        hooks = [
            part.register_forward_hook(lambda _m, _a, out, name=name: seen.setdefault(name, []).append(out[1]))
            for name, layer in layers.items()
            for part in (layer.to_q, layer.to_k)
        ]
        picture = draw()
        for hook in hooks:
            hook.remove()
    assert torch.equal(picture, plain)
    exact = torch.zeros(256, dtype=torch.float64)
    for name, found in seen.items():
        for q, k in zip(found[0::2], found[1::2], strict=True):
            if len(q) == 256:
                q, k = (x.double().unflatten(-1, (layers[name].heads, -1)).transpose(0, 1) for x in (q, k))
                exact += torch.softmax(q @ k.mT * layers[name].scale, -1).sum(0)[:, 3]
    maps = recording.heat_maps().select(grids=[(16, 16)])
    torch.testing.assert_close(maps["house"].double(), exact.view(16, 16), atol=1e-6, rtol=1e-5)
