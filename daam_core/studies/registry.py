"""Which studies there are: one entry each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from ..packages import missing
from .study import Study


@dataclass(frozen=True)
class Entry:
    """One study.

    Attributes:
        target: module in this package and class, with a colon between.
        help: one line for `daam-lens study --help`.
    """

    target: str
    help: str


STUDIES: dict[str, Entry] = {
    "segmentation": Entry(
        "segmentation:SegmentationStudy",
        "how well the masks of nouns fit, by threshold, beside baselines (Table 1, Fig. 4 and 5)",
    ),
    "masks": Entry(
        "mask_study:MaskStudy",
        "mean IoU of every mask method and combination, chosen on one half of the prompts, reported on the other",
    ),
    "reading": Entry(
        "reading:ReadingStudy",
        "at which levels of noise a picture that exists already is read best, chosen on one half of rendered scenes",
    ),
    "syntax": Entry(
        "syntax:SyntaxStudy",
        "how the maps of words that depend on each other overlap, by relation (Table 2)",
    ),
    "cohyponyms": Entry(
        "cohyponyms:CohyponymsStudy",
        'do two alike things get in each other\'s way: "a X and a Y" (section 5.1, Fig. 8)',
    ),
    "adjectives": Entry(
        "adjectives:AdjectivesStudy",
        "how far an adjective reaches past its noun (section 5.2, Fig. 9 and 10)",
    ),
    "ablation": Entry(
        "ablation:AblationStudy",
        "which layers, steps, heads, interpolation and aggregation the masks owe their fit to (appendix)",
    ),
    "concepts": Entry(
        "concepts:ConceptsStudy",
        "what the picture holds and the prompt does not name: masks, and whether it is told from what is not there",
    ),
    "output": Entry(
        "output_space:OutputSpaceStudy",
        "how well a word's score in output space and the affinity to its peak fit, beside Eq. 6",
    ),
    "attribution": Entry(
        "attribution:AttributionStudy",
        "rating sheet for people, and mean opinion by part of speech from their answers (section 4.2)",
    ),
}
"""By the name on the command line."""

PACKAGES = ("pandas", "scipy", "statsmodels", "matplotlib", "tqdm", "accelerate")


def load_study(name: str) -> Study:
    """The study of that name. Raises MissingPackage where the extra is not installed."""
    module, cls = STUDIES[name].target.split(":")
    need_packages(PACKAGES, "study", "Studies need")
    try:
        study: Study = getattr(import_module(f".{module}", __package__), cls)()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("daam_core"):
            raise
        raise missing("Studies need", error.name, "study") from error
    return study


def need_packages(packages: Sequence[str], extra: str, who: str) -> None:
    """Raises MissingPackage where one is not installed: those that are imported late are looked for now, not after hours."""
    if absent := [package for package in packages if find_spec(package) is None]:
        raise missing(who, absent[0], extra)
