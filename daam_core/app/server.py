"""The app as one web server: the form at /, the explorers of its pictures beside it."""

from __future__ import annotations

import errno
import socket
import threading
import webbrowser
from typing import Any

import fastapi
import gradio as gr
import uvicorn

from ..diffusers.generation import defaults
from ..diffusers.loading import INSIDE, example_prompts, model_sentence
from ..errors import BadArgument, quoted
from ..lru_cache import LRUCache
from ..maps.heatmaps import HeatMaps
from . import drop
from .guard import guarded
from .page import STYLE, Generator, form
from .picture_route import picture_routes
from .routes import routes

MOST_PICTURES = 16
MOST_BYTES = 256 * 2**20
"""What the app remembers; the picture that was not asked for the longest goes first."""


def build(pipe: Any, model: str, host: str = "127.0.0.1") -> fastapi.FastAPI:
    """The whole app around one pipeline, to be reached at `host`."""
    kept = LRUCache[HeatMaps](MOST_PICTURES, MOST_BYTES, lambda maps: maps.nbytes)
    app = fastapi.FastAPI(title="DAAM Lens", docs_url=None, redoc_url=None, openapi_url=None)
    generator = Generator(pipe, kept)
    app.include_router(routes(kept))
    app.include_router(picture_routes(pipe, kept, generator.turn))
    opening = model in INSIDE  # any other model may take minutes, and nobody has asked for a picture yet
    blocks = form(generator, model_sentence(model), defaults(pipe), example_prompts(model), opening)
    return guarded(
        gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            css=STYLE + drop.STYLE,
            head=f"<script>{drop.SCRIPT}</script>",
            footer_links=[],
            max_file_size=1,
        ),
        host,
    )


def serve(pipe: Any, model: str, host: str, port: int, open_browser: bool) -> None:
    """Listen until Ctrl-C.

    Raises:
        BadArgument: the address cannot be listened on.
    """
    _check_free(host, port)
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}"
    print(f"DAAM Lens: {address} (Ctrl-C ends it)", flush=True)
    if open_browser:
        threading.Timer(1.5, webbrowser.open, [address]).start()
    uvicorn.run(build(pipe, model, host), host=host, port=port, log_level="warning")


def _check_free(host: str, port: int) -> None:
    if not host.strip():  # it would be every address of the machine
        raise BadArgument("--host is empty; give 127.0.0.1 for this machine alone, or 0.0.0.0 for every address of it.")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (socket.gaierror, ValueError, TypeError):
        told = f"{quoted(host, 80)} is no address to listen on; give --host 127.0.0.1 for this machine alone."
        raise BadArgument(told) from None
    except OSError as error:
        other = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
        raise BadArgument(f"Cannot listen on {host}, port {port}: {error.strerror or error}. Give another {other}.") from None
