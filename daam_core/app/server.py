"""The app as one web server: the form at /, the explorers of its pictures beside it."""

from __future__ import annotations

import socket
import threading
import webbrowser
from typing import Any

import fastapi
import gradio as gr
import uvicorn

from ..diffusers.generation import defaults
from ..errors import BadArgument
from ..tiny.load import TinyPipeline
from ..tiny.scenes import COLOURS
from ..tiny.shapes import NOUNS
from .page import EXAMPLES, STYLE, Generator, form
from .routes import routes
from .shelf import Shelf

ABOUT = "The model inside draws a picture book and nothing else: {nouns}; {colours}. `--model` takes another."


def build(pipe: Any, model: str) -> fastapi.FastAPI:
    """The whole app around one pipeline."""
    shelf = Shelf()
    app = fastapi.FastAPI(title="DAAM Lens", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes(shelf))
    inside = isinstance(pipe, TinyPipeline)
    about = ABOUT.format(nouns=", ".join(NOUNS), colours=", ".join(COLOURS)) if inside else f"Model: `{model}`"
    blocks = form(Generator(pipe, shelf), about, defaults(pipe), EXAMPLES if inside else ())
    return gr.mount_gradio_app(app, blocks, path="/", css=STYLE, footer_links=[])


def serve(pipe: Any, model: str, host: str, port: int, open_browser: bool) -> None:
    """Listen until Ctrl-C.

    Raises:
        BadArgument: the address cannot be listened on.
    """
    _check_free(host, port)
    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    print(f"DAAM Lens: {address} (Ctrl-C ends it)", flush=True)
    if open_browser:
        threading.Timer(1.5, webbrowser.open, [address]).start()
    uvicorn.run(build(pipe, model), host=host, port=port, log_level="warning")


def _check_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadArgument(f"Cannot listen on {host}, port {port}: {reason}. Give another --port.") from None
