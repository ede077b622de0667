"""Folders of pipelines in which something is missing or spoiled: one sentence that names it, before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, MultiControlNetModel
from safetensors.torch import load_file, save_file

from daam_core.diffusers import loading
from daam_core.diffusers.loaded_parts import fault_of_parts
from daam_core.diffusers.loading import load_pipeline
from daam_core.errors import MissingPackage, UnsupportedModel
from daam_core.tiny.load import WEIGHTS, load_tiny
from daam_core.tiny.package_weights import PIPELINE

WHOLE = WEIGHTS / PIPELINE
Spoil = Callable[[Path], Any]


def index(**changed: Any) -> Spoil:
    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changed}), encoding="utf-8")

    return change


def text(content: str) -> Spoil:
    return lambda folder: (folder / "model_index.json").write_text(content, encoding="utf-8")


def emptied(folder: Path) -> None:
    for path in (folder / "tokenizer").iterdir():
        path.unlink()


CASES: dict[str, tuple[Spoil, str]] = {
    "nothing in the index": (text(""), "cannot be read as the index"),
    "a list": (text("[]"), "cannot be read as the index"),
    "a deep index": (text("[" * 100_000), "cannot be read as the index"),
    "an index without end": (text(" " * 2_000_000), "cannot be read as the index"),
    "a pipeline of the future": (index(_class_name="DreamPipeline9"), "is a DreamPipeline9, and diffusers"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no 'tokenizer'"),
    "an empty tokenizer": (emptied, "has no 'tokenizer'"),
    "no unet": (lambda folder: shutil.rmtree(folder / "unet"), "has no 'unet'"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), "has no 'scheduler'"),
    "no kind": (index(_class_name=None), "is no pipeline of diffusers"),
    "code beside it": (index(_class_name=["evil", "EvilPipeline"]), "code that lies beside a model is not run"),
    "a part as the whole": (index(_class_name="UNet2DConditionModel"), "is no pipeline of diffusers"),
    "a part elsewhere": (index(**{"../unet": ["diffusers", "UNet2DConditionModel"]}), "has no '../unet'"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_missing_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_loaded", lambda *_: pytest.fail("the model was loaded"))
    folder = tmp_path / "model"
    shutil.copytree(WHOLE, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        assert any((folder / part).iterdir()), "a folder of the model inside"
    spoil, said = CASES[name]
    spoil(folder)
    with pytest.raises(UnsupportedModel) as refused:
        load_pipeline(str(folder), "cpu")
    assert said in str(refused.value) and len(str(refused.value)) < 400


# -- what the libraries stop at ---------------------------------------------------------------------------------------

UNET, ENCODER = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


def cut(path: str, length: int) -> Spoil:
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:length])


def settings(path: str, **changed: Any) -> Spoil:
    def change(folder: Path) -> None:
        file = folder / path
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changed}), encoding="utf-8")

    return change


def pickled(path: str, name: str) -> Spoil:
    def change(folder: Path) -> None:
        (folder / path).unlink()
        torch.save({"a": _Program()}, folder / path.partition("/")[0] / name)

    return change


def without(path: str, count: int) -> Spoil:
    def change(folder: Path) -> None:
        held = load_file(folder / path)
        save_file(dict(list(held.items())[count:]), folder / path, metadata={"format": "pt"})

    return change


def unspoken(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (folder / "tokenizer" / name).unlink()


class _Program:
    """What a pickle can hold: a function that is called by whoever loads it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


SPOILED: dict[str, tuple[Spoil, str]] = {
    "cut in the header": (cut(UNET, 5000), f"{UNET} is damaged or cut off"),
    "cut in the values": (cut(UNET, 9_000_000), f"{UNET} is damaged or cut off"),
    "empty": (cut(ENCODER, 0), f"{ENCODER} is damaged or cut off"),
    "a pointer": (
        lambda folder: (folder / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "run `git lfs pull`",
    ),
    "no weights": (lambda folder: (folder / UNET).unlink(), "unet holds no weights in safetensors"),
    "no config": (lambda folder: (folder / "unet/config.json").unlink(), "unet holds weights and no config.json"),
    "a spoiled config": (lambda folder: (folder / "vae/config.json").write_text("{"), "vae/config.json cannot be read as JSON"),
    "other numbers": (settings("unet/config.json", cross_attention_dim=100), "The numbers in the config of its part 'unet'"),
    "other words": (settings("text_encoder/config.json", vocab_size=10), "config of its part 'text_encoder' do not fit"),
    "no numbers": (settings("scheduler/scheduler_config.json", beta_start="a"), "stopped at the files of its part 'scheduler'"),
    "some tensors": (without(UNET, 5), "has no weights for 5 tensors of its part 'unet', such as conv_in.weight"),
    "some tensors of the encoder": (without(ENCODER, 3), "numbers of its part 'text_encoder': the file is of another model"),
    "no vocabulary": (unspoken, "The part 'tokenizer' of "),
    "a pickle": (pickled(UNET, "diffusion_pytorch_model.bin"), "are a pickle (diffusion_pytorch_model.bin)"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_spoiled_is_named_in_our_own_words(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(WHOLE, folder)
    spoil, said = SPOILED[name]
    spoil(folder)
    with pytest.raises(UnsupportedModel) as refused:
        load_pipeline(str(folder), "cpu")
    told = str(refused.value).replace("\\", "/")
    assert said in told and "tensor(" not in told and "torch." not in told and "\n" not in told


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("named", ["x.bin", "../outside.safetensors", "missing.safetensors"])
def test_an_index_of_weights_names_safetensors_beside_it_alone(
    part: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries load whatever such an index names, pickles too, although only safetensors were asked for."""
    folder = tmp_path / "model"
    shutil.copytree(WHOLE, folder)
    weights = UNET if part == "unet" else ENCODER
    shutil.move(folder / weights, folder / "outside.safetensors")
    torch.save({"conv_in.weight": _Program()}, folder / part / "x.bin")
    told = json.dumps({"metadata": {"total_size": 1}, "weight_map": {"conv_in.weight": named}})
    (folder / f"{weights}.index.json").write_text(told, encoding="utf-8")
    said = "which its index names" if named.startswith("missing") else "no pickle and nothing from elsewhere"
    with pytest.raises(UnsupportedModel, match=said):
        load_pipeline(str(folder), "cpu")
    if named.startswith("missing"):
        return
    with pytest.raises(UnsupportedModel, match=said):  # nor from a folder that `daam-lens tiny evaluate --weights` names
        load_tiny(weights=_weights(folder, tmp_path))
    if named == "x.bin":  # the same from the hub, where the index is not looked at before
        monkeypatch.setattr(loading, "check_weight_indexes", lambda folder: None)
        before = torch.load
        with pytest.raises(UnsupportedModel, match=r"x\.bin is a pickle"):
            load_pipeline(str(folder), "cpu")
        assert torch.load is before


def _weights(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "weights" / PIPELINE)
    return tmp_path / "weights"


class RepositoryNotFoundError(OSError):
    """The hub's own, by name."""


def test_why_a_name_on_the_hub_could_not_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        try:
            raise RepositoryNotFoundError("401 Client Error")
        except OSError as error:
            raise OSError("We couldn't connect") from error

    monkeypatch.setattr(loading, "_loaded", unknown)
    with pytest.raises(UnsupportedModel, match=r"There is no folder 'a/b', and from the hub .* has no such model, or"):
        load_pipeline("a/b", "cpu")


def test_a_package_that_the_model_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(error: Exception) -> Any:
        def loaded(*_: Any) -> None:
            raise error

        return loaded

    absent = ImportError("\nT5Tokenizer requires the SentencePiece library but it was not found in your environment.")
    broken = RuntimeError("Failed to import diffusers.loaders.peft because of the following error:\nNo")
    for error, package in ((absent, "'SentencePiece'"), (broken, "'diffusers'")):
        monkeypatch.setattr(loading, "_from_files", raises(error))
        with pytest.raises(MissingPackage, match=f"needs the package {package}, which is missing here, broken") as refused:
            load_pipeline("a/b", "cpu")
        assert "environment" not in str(refused.value) and "because" not in str(refused.value)


def test_a_device_that_is_not_here() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(UnsupportedModel, match="finds no such device here"):
        load_pipeline("tiny", "cuda")


def test_a_whole_folder_is_loaded() -> None:
    assert type(load_pipeline(str(WHOLE), "cpu")).__name__ == "StableDiffusionPipeline"


def test_several_controlnets_are_whole_although_each_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """The first one's folder has the part's name: half of the numbers are beside it."""
    small: dict[str, Any] = {
        "block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "layers_per_block": 1, "norm_num_groups": 4,
        "cross_attention_dim": 8, "conditioning_embedding_out_channels": (4,),
    }  # fmt: skip
    MultiControlNetModel([ControlNetModel(**small), ControlNetModel(**small)]).save_pretrained(str(tmp_path / "controlnet"))
    both = MultiControlNetModel.from_pretrained(str(tmp_path / "controlnet"))
    assert len(both.nets) == 2
    assert fault_of_parts(SimpleNamespace(components={"controlnet": both}), "a model", tmp_path) == ""
    larger = ControlNetModel(**{**small, "layers_per_block": 2})
    assert "numbers of its part 'controlnet'" in fault_of_parts(
        SimpleNamespace(components={"controlnet": larger}), "a model", tmp_path
    )


@pytest.mark.parametrize(("ids", "knows"), [([[5]], True), ([5], True), ([], False), ([0], False)])
def test_what_reads_a_text_as_a_list_of_texts_has_a_vocabulary(ids: list[Any], knows: bool) -> None:
    """Processors of pictures and text stand in a tokenizer's place in some pipelines."""

    class Reads:
        unk_token_id = 0

        def __call__(self, _text: str, **_: Any) -> Any:
            return SimpleNamespace(input_ids=ids)

    assert (fault_of_parts(SimpleNamespace(components={"tokenizer": Reads()}), "a model", None) == "") == knows
