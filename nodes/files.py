"""Save Heat Maps and Load Heat Maps: records under ComfyUI's own folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..daam_core.errors import BadArgument, BadRecord, CannotWrite, quoted
from ..daam_core.files import writable_folder
from ..daam_core.maps.heatmaps import HeatMaps
from ..daam_core.types import Size
from .convert import MAPS, MapsHandle
from .node_inputs import Node
from .safe_paths import SUFFIX, inside, records_in

_FOLDERS = {"output": folder_paths.get_output_directory, "input": folder_paths.get_input_directory}


class SaveMaps(Node):
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
        folder, name, counter = _next_file(root, filename_prefix, (height, width))
        paths = [one.save(folder / f"{name}_{counter + i:05}_{SUFFIX}") for i, one in enumerate(maps)]
        text = "\n".join(str(path) for path in paths)
        return io.NodeOutput(text, ui={"text": (text,)})


class LoadMaps(Node):
    """A record's name in, maps out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = [name for kind, folder in _FOLDERS.items() for name in records_in(Path(folder()), kind)]
        return io.Schema(
            node_id="DaamLensLoadMaps",
            display_name="Load Heat Maps",
            category="DAAM Lens",
            description="Reads maps that Save Heat Maps or the command line wrote, from the output or input folder.",
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
    def validate_inputs(cls, record: str | None = None) -> bool | str:
        """A file written since the list was made is as good as one in it; what cannot be read is said before the run.

        A name that another node gives is None here: it is not known before that node has run.
        """
        try:
            if record is not None:
                _path(record)
        except (BadArgument, BadRecord) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, record: str | None = None) -> Any:
        """Another file under the same name is read again; of a name that another node gives, whatever it is, each time."""
        if record is None:
            return float("nan")
        try:
            seen = _path(record).stat()
        except (BadArgument, BadRecord, OSError):
            return None
        return seen.st_mtime_ns, seen.st_size


def _next_file(root: Path, prefix: str, size: Size) -> tuple[Path, str, int]:
    """(folder, name, number) of the next file of a prefix, as the host counts them; the folder is there and can be written.

    Raises:
        CannotWrite: a file stands where a folder should, or the folder may not be read or written.
    """
    height, width = size
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(root), width, height)
    except OSError as error:  # the host makes the folder, too
        raise CannotWrite(
            f"Cannot write {quoted(prefix)} into {root}: {error.strerror or error}. Choose another filename_prefix."
        ) from None
    return writable_folder(folder), name, counter


def _path(record: str) -> Path:
    name, _, kind = record.removesuffix("]").rpartition(" [")
    if kind not in _FOLDERS:
        name, kind = record, "output"
    path = inside(Path(_FOLDERS[kind]()), name)
    try:
        found = path.is_file()
    except OSError:  # longer than any file's name
        found = False
    if not found:
        raise BadRecord(f"There is no record {quoted(name)} in the {kind} folder. Save Heat Maps writes one.")
    return path
