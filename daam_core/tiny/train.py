"""Training from nothing to an assembled pipeline, in stages that can be killed and started again.

    text -> words -> autoencoder -> latents -> unet -> decoder -> segmenter -> assemble

Every stage keeps its state in the work folder and is skipped once its budget of images is spent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from ..errors import BadArgument, quoted
from . import autoencoder, checkpoint, colour_words, latents, segmenter, unet
from . import package_weights as assemble
from . import text_encoder as text
from .loop import Log, Recipe, make_work_folder, require_counts, state_file, train_stage
from .scenes import SIZE
from .start_token import rest_on_start
from .tokenizer import build_tokenizer
from .warm_start import TEACHER, start_from_shipped

STAGES: tuple[str, ...] = ("text", "words", "autoencoder", "latents", "unet", "decoder", "segmenter", "assemble")
# glibc hands big tensors back to the system after every step; keeping them makes a step 1.2 to 1.7 times faster.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "2",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


@dataclass(frozen=True)
class Settings:
    """The settings of a training run.

    `work` holds states and caches; `out` receives `pipeline/` and `segmenter.safetensors`. `images` replaces
    the UNet's budget, `scenes` the number of different scenes it sees; `scale` multiplies every budget (0.001: a trial of
    the machinery). `only` picks stages. `from_shipped` starts an empty work folder from the weights in the package.
    Training stands still while a file `pause` exists.
    """

    work: Path
    out: Path | None = None
    device: str = "cpu"
    images: int | None = None
    scale: float = 1.0
    only: tuple[str, ...] = STAGES
    compiled: bool = True
    from_shipped: bool = False
    scenes: int | None = None
    pause: Path | None = None

    def recipe(self, planned: Recipe) -> Recipe:
        """The recipe of a stage under this run's scale."""
        return planned.scaled(self.scale)

    def count(self, planned: int, least: int = 64) -> int:
        """A number of scenes under this run's scale."""
        return max(least, round(planned * self.scale))


def train(settings: Settings, log: Log) -> None:
    """Run the stages that are not finished; see `Settings`."""
    unknown = [name for name in settings.only if name not in STAGES]
    if unknown:
        raise BadArgument(f"There is no training stage {quoted(unknown[0])}; the stages are {', '.join(STAGES)}.")
    require_counts(images=settings.images, scenes=settings.scenes)
    make_work_folder(settings.work)
    table: dict[str, Callable[[Settings, torch.device, Log], None]] = {
        "text": _text,
        "words": _words,
        "autoencoder": _autoencoder,
        "latents": _latents,
        "unet": _unet,
        "decoder": _decoder,
        "segmenter": _segmenter,
        "assemble": _assemble,
    }
    if settings.from_shipped:
        start_from_shipped(settings.work, log)
    device = torch.device(settings.device)
    for name in STAGES:
        if name in settings.only:
            table[name](settings, device, log)


def with_fast_malloc(arguments: Sequence[str]) -> None:
    """On Linux, start this process anew with glibc told to keep its memory (it reads that at the start only)."""
    if sys.platform == "linux" and not any(name in os.environ for name in _MALLOC):
        os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **_MALLOC})


def finished(work: Path, name: str, images: int) -> bool:
    """Whether the state of a stage has seen at least `images`."""
    path = state_file(work, name)
    return path.exists() and int(checkpoint.read_state(path)[1]["images"]) >= images


def load_tokenizer(work: Path) -> CLIPTokenizer:
    """The tokenizer of a work folder; it depends on nothing that is trained."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        return build_tokenizer(folder)
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def load_text_encoder(work: Path, tokenizer: CLIPTokenizer, student: str = "named") -> CLIPTextModel:
    """A trained text encoder of a work folder, float32, frozen.

    `student` is `"named"` (the one that ships), `"bare"` or `""`, the encoder that both learnt from; see `colour_words`.
    """
    encoder = text.make_text_encoder(tokenizer)
    if student:
        checkpoint.load_modules({student: encoder}, _tensors(work, "words"))
    else:
        checkpoint.load_modules({"text_encoder": encoder}, _tensors(work, "text"))
    return encoder.eval().requires_grad_(False)


def load_unet(work: Path) -> torch.nn.Module:
    """The averaged UNet of a work folder, float32."""
    model = unet.make_unet()
    checkpoint.load_modules({"ema-unet": model}, _tensors(work, "unet"))
    return model.eval().requires_grad_(False)


def load_autoencoder(work: Path, finished_decoder: bool = True) -> AutoencoderTiny:
    """The autoencoder of a work folder, with the finished decoder where there is one."""
    folder = work / "autoencoder"
    if not (folder / "config.json").exists():
        raise BadArgument(f"{work} holds no trained autoencoder; run the stage 'autoencoder' first.")
    model: AutoencoderTiny = AutoencoderTiny.from_pretrained(folder)
    if finished_decoder and state_file(work, "decoder").exists():
        checkpoint.load_modules({"ema-decoder": model.decoder}, _tensors(work, "decoder"))
    return model.eval().requires_grad_(False)


def _tensors(work: Path, name: str) -> dict[str, torch.Tensor]:
    path = state_file(work, name)
    if not path.exists():
        raise BadArgument(f"{work} holds no state of the stage {quoted(name)}; run it first.")
    return checkpoint.read_state(path)[0]


def _text(settings: Settings, device: torch.device, log: Log) -> None:
    recipe = settings.recipe(text.RECIPE)
    if not finished(settings.work, "text", recipe.images):
        train_stage(text.TextStage(load_tokenizer(settings.work), device, recipe), settings.work, log, pause=settings.pause)


def _words(settings: Settings, device: torch.device, log: Log) -> None:
    recipe = settings.recipe(colour_words.RECIPE)
    if not finished(settings.work, "words", recipe.images):
        tokenizer = load_tokenizer(settings.work)
        teacher = load_text_encoder(settings.work, tokenizer, student="")
        stage = colour_words.ColourWordStage(teacher, tokenizer, device, recipe)
        train_stage(stage, settings.work, log, pause=settings.pause)


def _autoencoder(settings: Settings, device: torch.device, log: Log) -> None:
    folder = settings.work / "autoencoder"
    if (folder / "config.json").exists():
        return
    stage = autoencoder.AutoencoderStage(device, settings.recipe(autoencoder.RECIPE), settings.count(3000))
    train_stage(stage, settings.work, log, pause=settings.pause)
    trained = stage.autoencoder.to(memory_format=torch.contiguous_format)
    autoencoder.standardise(trained, stage.pictures[:1024])
    unseen = autoencoder.render(autoencoder.SEED_UNSEEN, 64)
    quality, mean, std = autoencoder.quality(trained, unseen)
    log(f"autoencoder: {quality:.2f} dB on unseen scenes; latent means {mean.tolist()}, deviations {std.tolist()}")
    trained.cpu().save_pretrained(folder)


def _latents(settings: Settings, device: torch.device, log: Log) -> None:
    count = settings.scenes or settings.count(latents.SCENES)
    for name, side, scenes in ((latents.FILE, SIZE, count), (latents.LARGE_FILE, latents.LARGE, max(64, count // 4))):
        path = settings.work / name
        if not path.exists():
            model = load_autoencoder(settings.work, finished_decoder=False).to(device)
            latents.write_latents(path, model, load_tokenizer(settings.work), device, log, scenes, 64 * SIZE // side, side)


def _unet(settings: Settings, device: torch.device, log: Log) -> None:
    work = settings.work
    warm = state_file(work, TEACHER).exists()
    recipe = settings.recipe(unet.WARM_RECIPE if warm else unet.RECIPE)
    if settings.images is not None:
        recipe = replace(recipe, images=settings.images)
    if finished(work, "unet", recipe.images):
        return
    tokenizer = load_tokenizer(work)
    named, bare = (load_text_encoder(work, tokenizer, name).to(device) for name in ("named", "bare"))
    cache = latents.LatentCache.load(work / latents.FILE, named, tokenizer, bare)
    large = work / latents.LARGE_FILE  # work folders of before 0.7 have none
    larger = latents.LatentCache.load(large, named, tokenizer, bare) if large.exists() else None
    # Weights that have read such an encoder already have no need of a teacher, and learn what it could not do.
    encoder = load_text_encoder(work, tokenizer, student="")
    learnt = warm and colour_words.carries_colours(encoder, tokenizer)
    teacher = _teacher(work, tokenizer, device) if warm and not learnt else None
    singles = 0.0 if warm else unet.SINGLE_UNTIL  # shipped weights know one object
    stage = unet.UNetStage(cache, device, recipe, settings.compiled, teacher, log, larger, singles)
    rest(stage, work, tokenizer, named, bare)
    train_stage(stage, work, log, pause=settings.pause)


def rest(stage: unet.UNetStage, work: Path, tokenizer: CLIPTokenizer, named: CLIPTextModel, bare: CLIPTextModel) -> None:
    """Let a UNet that begins rest on the start token, as these text encoders give it; a warm start's may be new to it."""
    path = state_file(work, "unet")
    warm = path.exists()
    if warm:
        tensors, facts = checkpoint.read_state(path)
        if facts["images"]:
            return
        checkpoint.load_modules({"unet": stage.unet}, tensors)
    ids = load_file(str(work / latents.FILE))["ids"].long()[:600]
    rest_on_start(stage.unet, ids, tokenizer.eos_token_id, [latents.text_states(one, ids) for one in (named, bare)])
    stage.average.load_state_dict(stage.unet.state_dict())
    if warm:
        checkpoint.write_state(path, checkpoint.module_tensors({"unet": stage.unet, "ema-unet": stage.average}), facts)


def _teacher(work: Path, tokenizer: CLIPTokenizer, device: torch.device) -> unet.Teacher:
    """The UNet that a warm start began with, under the text encoder that it was trained with."""
    model = unet.make_unet()
    checkpoint.load_modules({"unet": model}, _tensors(work, TEACHER))
    encoder = load_text_encoder(work, tokenizer, student="").to(device)
    ids = load_file(str(work / latents.FILE))["ids"].long()
    context, empty = latents.text_states(encoder, ids), latents.empty_state(encoder, tokenizer)
    return unet.Teacher(model.eval().requires_grad_(False).to(device), context, empty)


def _decoder(settings: Settings, device: torch.device, log: Log) -> None:
    recipe = settings.recipe(autoencoder.DECODER_RECIPE)
    if finished(settings.work, "decoder", recipe.images):
        return
    model = load_autoencoder(settings.work, finished_decoder=False).requires_grad_(True)
    train_stage(autoencoder.DecoderStage(model, device, recipe, settings.count(4000)), settings.work, log, pause=settings.pause)
    unseen = autoencoder.render(autoencoder.SEED_UNSEEN, 64)
    quality, _, _ = autoencoder.quality(load_autoencoder(settings.work), unseen)
    log(f"decoder: {quality:.2f} dB on unseen scenes")


def _segmenter(settings: Settings, device: torch.device, log: Log) -> None:
    recipe = settings.recipe(segmenter.RECIPE)
    if finished(settings.work, "segmenter", recipe.images):
        return
    model = load_autoencoder(settings.work).to(device)
    train_stage(
        segmenter.SegmenterStage(model, device, recipe, settings.count(4800), log), settings.work, log, pause=settings.pause
    )


def _assemble(settings: Settings, device: torch.device, log: Log) -> None:
    work = settings.work
    tokenizer = load_tokenizer(work)
    net = segmenter.Segmenter()
    checkpoint.load_modules({"ema-segmenter": net}, _tensors(work, "segmenter"))
    out = settings.out or work / "weights"
    assemble.assemble(out, tokenizer, load_text_encoder(work, tokenizer), load_unet(work), load_autoencoder(work), net)
    log(f"assemble: {out}")
