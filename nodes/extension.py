"""The list of nodes, as ComfyUI asks for it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..daam_core import errors
from .concepts import Concepts
from .explorer import Explorer
from .files import LoadMaps, SaveMaps
from .heat_maps import HeatMapsNode
from .mask import MaskNode
from .overlay_nodes import Overlay, Timeline
from .read_picture import ReadPicture
from .record import Record
from .region_node import WordsInRegion
from .report import CompareMaps, PromptReport
from .segmenter_nodes import ScoreMasks, WordToSegmenter
from .tiny_model import TinyModel
from .word_matrix import WordMatrix

NODES: list[type[io.ComfyNode]] = [
    Record,
    Concepts,
    ReadPicture,
    HeatMapsNode,
    MaskNode,
    Explorer,
    PromptReport,
    CompareMaps,
    Overlay,
    Timeline,
    WordsInRegion,
    WordMatrix,
    WordToSegmenter,
    ScoreMasks,
    SaveMaps,
    LoadMaps,
    TinyModel,
]


class DaamLens(ComfyExtension):
    """All nodes of DAAM Lens."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        # ComfyUI shows an exception's module, which is the path of this folder where it loads it.
        for error in vars(errors).values():
            if isinstance(error, type) and issubclass(error, errors.DaamLensError):
                error.__module__ = "daam_lens"
        return list(NODES)
