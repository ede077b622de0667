"""From a name to a pipeline: a model inside, a folder, or a name on the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..capture.refused_families import class_names, refused_unet
from ..errors import MissingPackage, UnsupportedModel, out_of_memory, quoted
from ..files import bounded_text
from ..packages import install_line, missing
from ..validate import checked_device, checked_model
from .loaded_parts import fault_of_parts
from .model_folder import (
    check_weight_indexes,
    package_of,
    parts_of,
    reason_in_files,
    reason_on_hub,
    refusal_within,
    safetensors_only,
)

TINY, TINY_TRANSFORMER = "tiny", "tiny-transformer"
INSIDE = (TINY, TINY_TRANSFORMER)
"""The names of the models inside, which draw the same world."""
INDEX = "model_index.json"
LARGEST_INDEX = 2**20
"""Bytes of an index of a pipeline."""
EXAMPLES = (
    "a red house and a green tree", "a yellow sun above a blue boat", "a big orange mushroom on grass",
    "a purple fish and a pink heart",
)  # fmt: skip
"""Prompts of the models inside, which know no more words than a picture book."""


def load_pipeline(name: str = TINY, device: str | None = None) -> Any:
    """A diffusers text-to-image pipeline, on its device.

    Args:
        name: "tiny", "tiny-transformer", a folder with a `model_index.json`, or a name on the Hugging Face hub.
        device: "cpu", "cuda", "mps", …; by default cuda where there is one, else the CPU.

    Raises:
        UnsupportedModel: the folder is no pipeline, the name leads nowhere, or the pipeline has no UNet and no transformer.
        MissingPackage: diffusers or transformers is not installed.
    """
    import torch

    where = checked_device(device) if device else ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        pipe = _inside(name) if name in INSIDE else _from_files(name, where)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith((__package__ or "daam_core").rpartition(".")[0]):
            raise
        raise missing("Making pictures needs", error.name, "demo") from error
    except (ImportError, RuntimeError) as error:
        # A RuntimeError is how both libraries say that a package of theirs cannot be imported.
        if isinstance(error, RuntimeError) and not str(error).startswith("Failed to import"):
            raise
        raise MissingPackage(
            f"{name} needs {package_of(error)}, which is missing here, broken, or of a version that does not fit the others. "
            f"What is known to fit together: {install_line('demo')}"
        ) from error
    folder = Path(name).expanduser()
    if fault := fault_of_parts(pipe, name, folder if name not in INSIDE and folder.is_dir() else None):
        raise UnsupportedModel(fault)
    if reason := refused_unet(class_names(pipe)):
        raise UnsupportedModel(f"{name} is a {type(pipe).__name__}, which cannot be read: {reason}.")
    if getattr(pipe, "unet", None) is None and getattr(pipe, "transformer", None) is None:
        raise UnsupportedModel(f"{name} is a {type(pipe).__name__}, which has no UNet and no transformer to read.")
    try:
        return pipe.to(where)
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise
        raise UnsupportedModel(
            f"The model cannot run on {quoted(where)}: this PyTorch ({torch.__version__}) finds no such device here. Leave "
            "--device out to take what there is."
        ) from error


def model_sentence(name: str) -> str:
    """What a page says about the model of that name, Markdown."""
    if name not in INSIDE:
        return f"Model: `{name}`"
    from ..tiny.scenes import COLOURS
    from ..tiny.shapes import NOUNS

    known = f"{', '.join(NOUNS)}; {', '.join(COLOURS)}"
    return f"The model inside draws a picture book and nothing else: {known}. `--model` takes another."


def example_prompts(name: str) -> tuple[str, ...]:
    """Prompts to try with the model of that name; none where we do not know what it draws."""
    return EXAMPLES if name in INSIDE else ()


def _inside(name: str) -> Any:
    from ..tiny.load import load_tiny

    return load_tiny("unet" if name == TINY else "transformer")


def _from_files(name: str, device: str) -> Any:
    from .quiet import quiet_libraries

    with quiet_libraries(bars=True):
        import diffusers

    folder = Path(checked_model(name)).expanduser()
    where = str(folder) if folder.exists() else name
    if (folder / INDEX).is_file():
        _check_parts(diffusers, folder)
    if folder.exists():
        check_weight_indexes(folder)
    try:
        with safetensors_only():
            return _loaded(diffusers, where, device)
    except ImportError:
        raise
    except Exception as error:
        if refusal := refusal_within(error):
            raise refusal from None
        if folder.exists():
            told = f"The folder {quoted(name)} could not be loaded as a pipeline. {reason_in_files(folder, error)}"
        else:
            told = f"There is no folder {quoted(name)}, and from the hub it could not be loaded. {reason_on_hub(error)}"
        raise UnsupportedModel(told) from error


def _check_parts(diffusers: Any, folder: Path) -> None:
    """A library says of a missing part what it tried last, or goes on without it and fails while it paints.

    Raises:
        UnsupportedModel: the index cannot be read, is of a pipeline that is not known, or names a part that is not there.
    """
    try:
        told = json.loads(bounded_text(folder / INDEX, LARGEST_INDEX, "index of a pipeline"))
    except (OSError, ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UnsupportedModel(f"{folder / INDEX} cannot be read as the index of a pipeline; copy the model again.")
    kind = told.get("_class_name")
    if isinstance(kind, str) and not hasattr(diffusers, kind):
        seen = getattr(diffusers, "__version__", "")
        raise UnsupportedModel(f"{folder} is a {kind:.60}, and diffusers {seen} has no such pipeline; a newer one may.")
    pipeline = getattr(diffusers, kind, None) if isinstance(kind, str) else None
    placeholder = hasattr(pipeline, "_backends")  # for a class whose packages are missing; it tells which when it is loaded
    if not placeholder and not (isinstance(pipeline, type) and issubclass(pipeline, diffusers.DiffusionPipeline)):
        raise UnsupportedModel(
            f"{folder / INDEX} names {quoted(kind, 60)} as what it is, which is no pipeline of diffusers; code that lies "
            "beside a model is not run."
        )
    for name in parts_of(told):
        if Path(name).name != name or not (folder / name).is_dir() or not any((folder / name).iterdir()):
            raise UnsupportedModel(
                f"{folder} has no {quoted(name, 60)}, which its {INDEX} names as a part; copy the model again."
            )


def _loaded(diffusers: Any, where: str, device: str) -> Any:
    """The pipeline that a folder or a name on the hub describes, of parts or of blocks."""
    import torch

    # Weights of the older kind are pickles, which may hold a program; code beside them is not run either.
    safe = {"use_safetensors": True, "trust_remote_code": False}
    if _is_modular(where):
        pipe = diffusers.ModularPipeline.from_pretrained(where, trust_remote_code=False)
        pipe.load_components(torch_dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32, **safe)
        return pipe
    parts = diffusers.DiffusionPipeline.load_config(where)
    # The range of float16 is too narrow for many transformers.
    half = torch.bfloat16 if "transformer" in parts else torch.float16
    dtype = half if device.startswith("cuda") else torch.float32
    # A model that has pipelines for several tasks is to make pictures from text, whichever it was saved with.
    kind = diffusers.AutoPipelineForText2Image if _paints_from_text(parts) else diffusers.DiffusionPipeline
    return kind.from_pretrained(where, torch_dtype=dtype, use_safetensors=True)


def _is_modular(where: str) -> bool:
    folder = Path(where)
    return (folder / "modular_model_index.json").is_file() and not (folder / "model_index.json").is_file()


def _paints_from_text(parts: Mapping[str, Any]) -> bool:
    """Whether a saved pipeline is one of those of which a pipeline from text to picture can be made."""
    from diffusers.pipelines import auto_pipeline as known

    name = parts.get("_class_name")
    models = {model for tasks in known.SUPPORTED_TASKS_MAPPINGS for model, one in tasks.items() if one.__name__ == name}
    return not models.isdisjoint(known.AUTO_TEXT2IMAGE_PIPELINES_MAPPING)
