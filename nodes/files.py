"""Save Maps and Load Maps: records under ComfyUI's own folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..daam_core.errors import BadArgument, BadRecord
from ..daam_core.maps.heatmaps import HeatMaps
from .convert import MAPS, MapsHandle
from .safe_paths import SUFFIX, inside, records_in

_FOLDERS = {"output": folder_paths.get_output_directory, "input": folder_paths.get_input_directory}


class SaveMaps(io.ComfyNode):
    """Maps in, files out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensSaveMaps",
            display_name="Save Heat Maps",
            category="DAAM Lens",
            description="Writes maps under the output folder: one safetensors file a picture, the picture inside.",
            is_output_node=True,
            inputs=[
                MAPS.Input("maps", tooltip="From Word Heat Maps."),
                io.String.Input(
                    "filename_prefix", default="daam/maps", tooltip="Folder and name below ComfyUI's output folder."
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the files are, one a line.")],
        )

    @classmethod
    def execute(cls, maps: MapsHandle, filename_prefix: str = "daam/maps") -> io.NodeOutput:
        """Numbered files, as ComfyUI's own Save nodes make them."""
        root = Path(folder_paths.get_output_directory())
        inside(root, filename_prefix)
        height, width = maps[0].size
        folder, name, counter, _, _ = folder_paths.get_save_image_path(filename_prefix, str(root), width, height)
        os.makedirs(folder, exist_ok=True)
        paths = [one.save(Path(folder, f"{name}_{counter + i:05}_{SUFFIX}")) for i, one in enumerate(maps)]
        text = "\n".join(str(path) for path in paths)
        return io.NodeOutput(text, ui={"text": (text,)})


class LoadMaps(io.ComfyNode):
    """A record's name in, maps out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = [name for kind, folder in _FOLDERS.items() for name in records_in(Path(folder()), kind)]
        return io.Schema(
            node_id="DaamLensLoadMaps",
            display_name="Load Heat Maps",
            category="DAAM Lens",
            description="Reads maps that Save Maps or the command line wrote, from the output or input folder.",
            inputs=[
                io.Combo.Input(
                    "record",
                    options=names or ["no record yet"],
                    tooltip="A record in the output or input folder; press R after new ones were written.",
                )
            ],
            outputs=[MAPS.Output(display_name="maps", tooltip="The recording, for all other DAAM Lens nodes.")],
        )

    @classmethod
    def execute(cls, record: str) -> io.NodeOutput:
        """Read one record."""
        return io.NodeOutput((HeatMaps.load(_path(record)),))

    @classmethod
    def validate_inputs(cls, record: str) -> bool | str:
        """A file written since the list was made is as good as one in it; what cannot be read is said before the run."""
        try:
            _path(record)
        except (BadArgument, BadRecord) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, record: str) -> Any:
        """Another file under the same name is read again."""
        try:
            seen = _path(record).stat()
        except (BadArgument, BadRecord, OSError):
            return None
        return seen.st_mtime_ns, seen.st_size


def _path(record: str) -> Path:
    name, _, kind = record.removesuffix("]").rpartition(" [")
    if kind not in _FOLDERS:
        name, kind = record, "output"
    path = inside(Path(_FOLDERS[kind]()), name)
    if not path.is_file():
        raise BadRecord(f"There is no record {name!r} in the {kind} folder. Save Maps writes one.")
    return path
