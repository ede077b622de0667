"""Which studies there are: one line each."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ..diffusers.loading import MissingPackage
from .study import Study

STUDIES: dict[str, str] = {
    "segmentation": "segmentation:SegmentationStudy",
    "masks": "mask_study:MaskStudy",
    "syntax": "syntax:SyntaxStudy",
    "cohyponyms": "cohyponyms:CohyponymsStudy",
    "adjectives": "adjectives:AdjectivesStudy",
    "ablation": "ablation:AblationStudy",
    "attribution": "attribution:AttributionStudy",
}
"""Name on the command line -> module in this package and class."""

PACKAGES = ("pandas", "scipy", "statsmodels", "matplotlib", "tqdm", "accelerate")
INSTALL_HINT = 'Studies need more packages: pip install "daam-lens[study]".'


def load_study(name: str) -> Study:
    """The study of that name. Raises MissingPackage where the extra is not installed."""
    module, cls = STUDIES[name].split(":")
    # Those that are imported late are looked for now, not after hours of measuring.
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise MissingPackage(f"{INSTALL_HINT} (There is no {missing[0]}.)")
    try:
        study: Study = getattr(import_module(f".{module}", __package__), cls)()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("daam_core"):
            raise
        raise MissingPackage(f"{INSTALL_HINT} ({error})") from error
    return study
