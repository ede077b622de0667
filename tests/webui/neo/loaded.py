"""A script of an extension: it puts a reduced model in the place of the host's checkpoint once the program has started."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from backend.huggingface import process as unpack_tokenizers
from modules import processing, script_callbacks, sd_models, shared
from modules.scripts import basedir

FOLDER = basedir()


def put(*_: Any) -> None:
    spec = importlib.util.spec_from_file_location("daam_lens_reduced", os.path.join(FOLDER, "models.py"))
    models = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    unpack_tokenizers()
    loaded = models.checkpoint("Z-Image")
    shared.sd_model = loaded
    sd_models.model_data.set_sd_model(loaded)
    # Nothing else is there to be loaded.
    sd_models.forge_model_reload = processing.forge_model_reload = lambda: (loaded, False)


script_callbacks.on_app_started(put)
