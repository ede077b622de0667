"""One family inside Forge Neo: the same pictures with and without a recording, and its maps against the equation.

Run by the host's interpreter in the host's folder: `case.py REPOSITORY DATA FAMILY…`; prints one line of JSON a family.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import traceback
from typing import Any

ROOT, DATA, *NAMES = sys.argv[1:]
FLAGS = (
    "--skip-prepare-environment --skip-torch-cuda-test --skip-python-version-check --skip-version-check --no-hashing "
    "--skip-install --disable-console-progressbars --cpu --force-fp32 --use-pytorch-cross-attention"
)
sys.argv = ["launch.py", *FLAGS.split(), "--data-dir", DATA]
HERE = os.path.dirname(os.path.abspath(__file__))
FORMULAS = os.path.join(ROOT, "tests", "comfyui", "inside")
sys.path[:0] = [os.getcwd(), HERE, ROOT]
sys.path.append(FORMULAS)

from modules import initialize  # noqa: E402 - the host reads its arguments when it is imported
from modules_forge.initialization import initialize_forge  # noqa: E402

initialize.shush()
initialize_forge()
initialize.imports()

import concept_truth  # noqa: E402
import models  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from backend.args import dynamic_args  # noqa: E402
from backend.huggingface import process as unpack_tokenizers  # noqa: E402
from modules import processing, script_callbacks, sd_models, sd_samplers, shared  # noqa: E402

from daam_webui import sampler_hooks  # noqa: E402
from daam_webui.hosts import current  # noqa: E402
from daam_webui.recording_session import RecordingSession  # noqa: E402
from daam_webui.settings import Settings  # noqa: E402

PROMPT, NEGATIVE, WORD, OTHER = "a red house", "blue fog", "red", "blue"
WEIGHTED = "a (red:1.2) house"
SIZE = (128, 192)
STEPS = 2
script_callbacks.on_cfg_denoiser(sampler_hooks.attach, name="daam")
script_callbacks.on_cfg_after_cfg(sampler_hooks.finish, name="daam")


def paint(model: Any, images: int, prompt: str, record: bool = False, concepts: str = "") -> tuple[list[Any], list[Any], Any]:
    """(latents, pictures, session) of one run of the host."""
    p = processing.StableDiffusionProcessingTxt2Img(
        sd_model=model, prompt=prompt, negative_prompt=NEGATIVE, seed=7, steps=STEPS, cfg_scale=3.0, width=SIZE[1],
        height=SIZE[0], batch_size=images, sampler_name="Euler", scheduler="Simple", do_not_save_samples=True,
        do_not_save_grid=True,
    )  # fmt: skip
    p.scripts = None
    p.cached_c, p.cached_uc = [None] * 3, [None] * 3  # else the text of the family before
    session = RecordingSession(Settings(enabled=True, negative=True, concepts=concepts), current()) if record else None
    if session is not None:
        sampler_hooks.open_session(p, session)
        session.encode_concepts(model)
    done = processing.process_images(p)
    if session is not None:
        sampler_hooks.detach()
        for image, picture in enumerate(done.images[:images]):
            session.take(0, image, np.asarray(picture.convert("RGB")), 7, prompt)
    return [one.clone() for one in p.latents_after_sampling], [np.asarray(one) for one in done.images[:images]], session


class Witness:
    """The queries and keys of every attention, and whose each row of the model's batch is."""

    def __init__(self, module: Any, network: torch.nn.Module) -> None:
        self.module, self.network = module, network
        self.calls: list[dict[str, Any]] = []

    def __enter__(self) -> Witness:
        self.true = true = self.module.attention_function

        def attention(*args: Any, **kwargs: Any) -> Any:
            heads = args[3] if len(args) > 3 else kwargs["heads"]
            q, k = (x.transpose(1, 2).flatten(2) for x in args[:2]) if kwargs.get("skip_reshape") else args[:2]
            self.calls[-1]["attentions"].append((q.clone(), k.clone(), int(heads)))
            return true(*args, **kwargs)

        def before(_module: Any, args: Any, kwargs: Any) -> None:
            self.calls.append(
                {
                    "chunks": kwargs["transformer_options"]["cond_or_uncond"],
                    "rows": args[0].shape[0],
                    "columns": kwargs["context"].shape[-2],
                    "attentions": [],
                }
            )

        self.module.attention_function = self.own = attention
        self.handle = self.network.register_forward_pre_hook(before, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.module.attention_function = self.true
        self.handle.remove()

    def word(
        self, family: models.Family, side: int, image: int, images: int, grid: tuple[int, int], behind: int, columns: list[int]
    ) -> torch.Tensor:
        """Eq. 6 in float64 for these columns of the text, with so many tokens of references behind the picture: `[h, w]`."""
        n = grid[0] * grid[1]
        total = torch.zeros(n, dtype=torch.float64)
        for call in self.calls:
            text, own = padded(call["columns"], family.multiple), padded(n, family.multiple)
            for chunk, kind in enumerate(call["chunks"]):
                if kind != side:
                    continue
                row = chunk * images + image
                for q, k, heads in call["attentions"]:
                    if family.order == "cross":
                        if (q.shape[1], k.shape[1]) != (n + behind, call["columns"]):
                            continue
                        first, at = 0, 0
                    else:
                        if q.shape[1] != text + own + behind or k.shape[1] != text + own + behind:
                            continue
                        first, at = (text, 0) if family.order == "text first" else (0, own)
                    total += shares(q[row, first : first + n], k[row], heads)[:, [at + c for c in columns]].sum(1)
        return total.reshape(grid)


def shares(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """The softmax over all keys, summed over heads: float64 `[n, keys]`."""
    q, k = (x.double().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k))
    return (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1).sum(0)


def padded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def columns_of(model: Any, family: models.Family, line: str, word: str, negative: bool, given: int) -> list[int]:
    """Where a word stands in the text that the model is given, by the host's own tokens."""
    engine = next(v for name, v in vars(model).items() if name.startswith("text_processing_engine") and name[-2:] != "_l")
    told = engine.process_template(line, negative) if hasattr(engine, "process_template") else line
    chunks = engine.tokenize_line(told)
    chunk = (chunks[0] if isinstance(chunks, tuple) else chunks)[0]
    ids = getattr(chunk, "t5_tokens", None) or chunk.tokens
    tokenizer = getattr(engine, "t5_tokenizer", None) or getattr(engine.tokenizer, "tokenizer", engine.tokenizer)
    pieces = [tokenizer.convert_ids_to_tokens(int(i)) for i in ids]
    dropped = len(ids) - given if family.stripped else 0
    (first,) = [i - dropped for i, piece in enumerate(pieces) if piece.strip("\u2581\u0120") == word]
    # A text that is shorter than the other side's is repeated by the host, so that both fit into one batch.
    each = given if hasattr(chunk, "t5_tokens") else len(ids) - dropped
    assert given % each == 0
    return list(range(first, given, each))


def prove(model: Any, family: models.Family, prompt: str, images: int, behind: int = 0) -> dict[str, Any]:
    """One run with a recording, and another without; `behind` tokens are of references."""
    network = model.forge_objects.unet.model.diffusion_model
    plain = paint(model, images, prompt)
    with Witness(family.module, network) as witness:
        latents, pictures, session = paint(model, images, prompt, record=True)
        left = family.module.attention_function is witness.own
    same = all(torch.equal(a, b) for a, b in zip(plain[0], latents, strict=True))
    same &= all(np.array_equal(a, b) for a, b in zip(plain[1], pictures, strict=True))
    found: dict[str, Any] = {"same": same, "put back": left, "failure": session.failure}
    found["finite"] = bool(torch.isfinite(torch.stack(latents)).all())
    found["alike"] = images > 1 and torch.equal(latents[0], latents[1])
    if session.failure:
        return found
    patch = 1 if family.autoencoder == "kl2" else 2
    height, width = (n // patch for n in latents[0].shape[-2:])
    found |= {"grid": (height, width), "worst": 0.0, "spread": 1e9}
    for taken, maps in session.heat_maps():
        for side, line, word in ((0, prompt, WORD), (1, NEGATIVE, OTHER)):
            own = maps if side == 0 else maps.negative
            given = next(call["columns"] for call in witness.calls if side in call["chunks"])
            columns = columns_of(model, family, line, word, bool(side), given)
            wanted = witness.word(family, side, taken.image, images, (height, width), behind, columns)
            seen = own.heat_map(word, (height, width)).double()
            found["worst"] = max(found["worst"], float((seen - wanted).abs().max() / wanted.abs().max()))
            found["spread"] = min(found["spread"], float((wanted.max() - wanted.min()) / wanted.mean()))
        found["words"], found["negative"] = list(maps.prompt.labels), list(maps.negative.prompt.labels)
    return found


def words_alone(model: Any, prompt: str) -> dict[str, Any]:
    """The words of a recording, or why there is none."""
    _, _, session = paint(model, 1, prompt, record=True)
    if session.failure:
        return {"failure": session.failure}
    return {"failure": "", "words": list(next(iter(session.heat_maps()))[1].prompt.labels)}


def prove_concepts(model: Any, name: str, images: int, behind: int = 0) -> dict[str, Any]:
    """One run with concepts against their formula, and others without; or why there are none."""
    family, network = models.FAMILIES[name], model.forge_objects.unet.model.diffusion_model
    asked = RecordingSession(Settings(enabled=True, concepts=concept_truth.ASKED), current())
    asked.encode_concepts(model)
    truth = None
    if name in concept_truth.WAYS:
        shape, patch = paint(model, images, PROMPT)[0][0].shape, 1 if family.autoencoder == "kl2" else 2
        grid = (shape[-2] // patch, shape[-1] // patch)
        made = functools.partial(concept_truth.Stream, family, name, model, asked._concepts, images, grid, behind)
        with made() as loud:
            paint(model, images, PROMPT)
        loud.quieten()
        truth = made()
    hooks = _hooks(network)
    plain = paint(model, images, PROMPT)
    _, _, words = paint(model, images, PROMPT, record=True)
    words = [maps[1] for maps in words.heat_maps()]
    latents, pictures, session = paint(model, images, PROMPT, record=True, concepts=concept_truth.ASKED)
    same = all(torch.equal(a, b) for a, b in zip(plain[0], latents, strict=True))
    same &= all(np.array_equal(a, b) for a, b in zip(plain[1], pictures, strict=True))
    found: dict[str, Any] = {"same": same, "left": _hooks(network) - hooks, "failure": session.failure}
    found["refused"] = session.concept_failures()
    maps = [maps for _, maps in session.heat_maps()]
    found["concepts"] = [list(one.concepts) for one in maps]
    found["words"] = all(torch.equal(a.heat_map(WORD), b.heat_map(WORD)) for a, b in zip(maps, words, strict=True))
    if truth is None or found["refused"] or session.failure:
        return found
    with truth:
        paint(model, images, PROMPT)
    return found | truth.compare(maps)


def prove_rewritten(model: Any) -> dict[str, Any]:
    """Somebody else changes the text between the first block and the second."""

    def louder(_block: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "encoder_hidden_states": kwargs["encoder_hidden_states"] * 1.3}

    block = model.forge_objects.unet.model.diffusion_model.transformer_blocks[1]
    handle = block.register_forward_pre_hook(louder, with_kwargs=True)
    try:
        plain = paint(model, 1, PROMPT)
        latents, _, session = paint(model, 1, PROMPT, record=True, concepts=concept_truth.ASKED)
    finally:
        handle.remove()
    same = torch.equal(plain[0][0], latents[0])
    maps = next(iter(session.heat_maps()))[1]
    return {"same": same, "refused": session.concept_failures(), "words": list(maps.prompt.labels)}


def _hooks(network: torch.nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in network.modules())


def check(name: str) -> dict[str, Any]:
    """What the test asks of one family."""
    family = models.FAMILIES[name]
    model = models.checkpoint(name)
    shared.sd_model = model
    sd_models.model_data.set_sd_model(model)
    sd_models.model_data.forge_hash = str(sd_models.model_data.forge_loading_parameters)
    found = {"plain": prove(model, family, PROMPT, family.images)}
    if name == "Wan":  # of a text in parts, the host's encoder hears the first
        found["weighted"] = words_alone(model, WEIGHTED)
    else:
        found["weighted"] = prove(model, family, WEIGHTED, 1)
    if family.reference:
        latent = torch.randn(family.reference)
        patches = latent.shape[-1] * latent.shape[-2] // (1 if family.autoencoder == "kl2" else 4)
        dynamic_args.kontext, dynamic_args.ref_latents, model.ref_latents = True, [latent], [latent]
        found["references"] = prove(model, family, PROMPT, 1, patches)
        found["concepts beside references"] = prove_concepts(model, name, 1, patches)
        dynamic_args.kontext, dynamic_args.ref_latents, model.ref_latents = False, [], []
    found["concepts"] = prove_concepts(model, name, family.images)
    if name == "Qwen-Image":
        found["rewritten"] = prove_rewritten(model)
    found["break"] = words_alone(model, "a red house BREAK fog")
    return found


unpack_tokenizers()
sd_samplers.set_samplers()
for name in NAMES:
    began = time.time()
    try:
        result = check(name)
    except Exception:
        result = {"error": traceback.format_exc()[-1500:]}
    print("RESULT " + json.dumps({"family": name, "seconds": round(time.time() - began, 1), **result}), flush=True)
