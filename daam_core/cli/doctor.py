"""`daam-lens doctor`: versions, what is missing, the host that this folder lies in, and whether a model would be read."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DaamLensError, UnsupportedModel
from ..packages import install_line
from ..validate import checked_model

OPENCV_BUILDS = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip
WANTED: tuple[tuple[str, str, str], ...] = (
    ("torch", "", "everything"),
    ("numpy", "", "everything"),
    ("safetensors", "", "records"),
    ("pillow", "", "pictures and sheets"),
    ("diffusers", "demo", "pictures and `trace`"),
    ("transformers", "demo", "pictures and `trace`"),
    ("accelerate", "demo", "models that lie partly outside the card"),
    ("pandas", "study", "studies"),
    ("statsmodels", "study", "studies"),
    ("spacy", "syntax", "prompts of your own in the study `syntax`"),
    ("gradio", "app", "the app"),
)
"""(package, the extra that brings it, what it is for)."""
MOST_INDEX_BYTES = 2**20
_HOSTS = {"custom_nodes": "ComfyUI", "extensions": "a WebUI"}


def doctor(args: argparse.Namespace) -> int:
    """Print what was found, a line each; 0 where all that is always needed is there and the model would be read, else 1."""
    lines = [*_machine(), *_packages(), *_opencv(), *_host(Path(__file__).resolve().parents[2])]
    if args.model:
        lines.append(_model(args.model))
    if args.record:
        lines.append(_record(args.record))
    for good, text in lines:
        print(f"{'ok  ' if good else 'NOT ' if good is False else '    '}{text}")
    return int(any(good is False for good, _ in lines))


_Line = tuple[bool | None, str]
"""Whether it is as it should be (None: it need not be there), and the text."""


def _machine() -> Iterator[_Line]:
    yield True, f"DAAM Lens {__version__} in {Path(__file__).resolve().parents[1]}"
    yield (
        sys.version_info >= (3, 10),
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()} (3.10 or newer is needed)",
    )


def _packages() -> Iterator[_Line]:
    for package, extra, use in WANTED:
        found = _version(package)
        if found and package == "torch":
            yield True, f"torch {found}, {_devices()}"
        elif found:
            yield True, f"{package} {found}"
        elif extra:
            yield None, f"{package} is not installed; {use} need{'' if use.endswith('s') else 's'} it: {install_line(extra)}"
        else:
            yield False, f"{package} is not installed, and {use} needs it: python -m pip install {package}"


def _opencv() -> Iterator[_Line]:
    builds = [f"{name} {found}" for name in OPENCV_BUILDS if (found := _version(name))]
    if len(builds) > 1:
        names = ", ".join(builds)
        yield False, f"{len(builds)} builds of OpenCV lie over each other ({names}): uninstall them all, then install one"
    elif builds or find_spec("cv2") is not None:
        yield True, builds[0] if builds else "OpenCV, from elsewhere than pip"
    else:
        yield None, "OpenCV is not installed; overlays and some masks need it: python -m pip install opencv-python-headless"


def _devices() -> str:
    import torch

    if torch.cuda.is_available():
        return f"on {torch.cuda.get_device_name(0)}"
    mps = getattr(torch.backends, "mps", None)
    return "on Apple's GPU" if mps is not None and mps.is_available() else "on the processor alone"


def _host(root: Path) -> Iterator[_Line]:
    """The host whose folder of packs or extensions this one lies in, or that an environment variable names."""
    around = _HOSTS.get(root.parent.name)
    yield None, f"this folder is installed in {around}: {root.parent.parent}" if around else "this folder lies in no host"
    for name in ("COMFYUI_PATH", "A1111_PATH", "FORGE_PATH", "REFORGE_PATH", "NEO_PATH", "SDNEXT_PATH"):
        if folder := os.environ.get(name):
            yield Path(folder).is_dir(), f"{name} = {folder}" + ("" if Path(folder).is_dir() else ", which is no folder")


def _model(name: str) -> _Line:
    """Whether maps of a model in a folder would come, read from its index alone: no weights are loaded."""
    from ..diffusers.loading import INSIDE

    try:
        folder = Path(checked_model(name)).expanduser()
        if name in INSIDE:
            return True, "the model inside is read"
        if not folder.is_dir():
            return None, f"{name} is a name on the hub: what it is shows when it has been loaded; give its folder to look now"
        kind, classes = _classes(folder / "model_index.json")
    except DaamLensError as error:
        return False, str(error)
    from ..capture.families import FAMILIES
    from ..capture.refused_families import REFUSED, refused_unet

    if reason := refused_unet(classes):
        return False, f"{folder}: {kind} is not read: {reason}"
    unet = classes.get("unet") or (classes["prior"] if classes.get("prior") == "StableCascadeUNet" else "")
    if unet:
        return True, f"{folder}: {kind} with {unet}, a UNet, which is read if it has cross-attention"
    seen = [name for part, name in classes.items() if part.startswith("transformer")]
    for family in FAMILIES:
        if any(known.rpartition(".")[2] in seen for known in family.classes):
            return True, f"{folder}: {kind} with {seen[0]}, read as {family.name}"
    for known, reason in REFUSED.items():
        if known.rpartition(".")[2] in seen:
            return False, f"{folder}: {seen[0]} is not read: {reason}"
    unknown = f"{seen[0]}, which is not known" if seen else "no UNet and no transformer"
    return False, f"{folder}: {kind} has {unknown}, so there are no maps"


def _classes(index: Path) -> tuple[str, Mapping[str, str]]:
    """The pipeline's class, and the class of each of its parts."""
    try:
        if index.stat().st_size > MOST_INDEX_BYTES:
            raise UnsupportedModel(f"{index} is larger than any index of a pipeline.")
        told: Any = json.loads(index.read_text(encoding="utf-8"))
        parts = {str(k): str(v[1]) for k, v in told.items() if isinstance(v, list) and len(v) == 2 and v[1]}
        return str(told.get("_class_name", "a pipeline")), parts
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UnsupportedModel(f"{index} cannot be read as the index of a pipeline.") from error


def _record(path: str) -> _Line:
    from ..maps.heatmaps import HeatMaps

    try:
        maps = HeatMaps.load(path)
    except DaamLensError as error:
        return False, str(error)
    return True, f"{path}: a record of {len(maps.words)} words, {maps.size[0]} x {maps.size[1]} px (height x width)"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
