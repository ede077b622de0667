"""Who may ask the app for what: only its own page, and on this machine only under this machine's names."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import fastapi
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
PREFIX = "/gradio_api/"
USED = ("app_id", "cancel", "heartbeat", "info", "queue", "reset", "startup-events", "theme.css")
"""Parts of gradio's own routes that the page asks for. It uploads nothing, and no program calls it."""
BY_NUMBER = "run/predict"
"""How the page calls what needs no queue (choosing an example); calls by name have no use."""


class OnlyUsedRoutes:
    """Middleware: 404 for those of gradio's routes that the page has no use for (uploads, files, proxies, calls by name)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        part = path.removeprefix(PREFIX)
        if path.startswith(PREFIX) and part.split("/")[0] not in USED and part != BY_NUMBER:
            await PlainTextResponse("The page does not use this.", status_code=404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def guarded(app: fastapi.FastAPI, host: str) -> fastapi.FastAPI:
    """The app with its unused routes closed, and on loopback only for requests to this machine's own names.

    A foreign page that gives its own name this machine's address (DNS rebinding) could otherwise read every picture.
    """
    app.add_middleware(OnlyUsedRoutes)
    if is_loopback(host):
        names: Any = sorted({*LOOPBACK, host})
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    return app


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine alone, however it is written: `127.1` and other names of it, too."""
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host.strip("[]") or "0.0.0.0", None)}
    except (OSError, ValueError):
        return False
    addresses = [ipaddress.ip_address(one) for one in found]
    return bool(addresses) and all((getattr(one, "ipv4_mapped", None) or one).is_loopback for one in addresses)
