"""The hooks on the UNet: on before each prediction of the sampler, off after it, whatever happens in between.

A WebUI samples one run at a time, so there is at most one set of hooks; it is the only global state.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from typing import Any

from torch import nn

from daam_core.capture.forward_end import register_forward_end

from . import live_preview
from .recording_session import RecordingSession

logger = logging.getLogger("daam_lens")
ATTRIBUTE = "daam_lens_session"
_attached: _Attached | None = None


class _Attached:
    """Hooks of one prediction."""

    def __init__(self, session: RecordingSession, params: Any, model: Any) -> None:
        self.session = session
        self._stopped = False
        self._stack = contextlib.ExitStack()
        unet = session.host.unet(model)
        hooks = session.begin_step(params, unet, model)
        if not hooks:
            return
        with contextlib.ExitStack() as stack:
            # Ours first: it reads which rows are whose, and the others need that.
            stack.callback(unet.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            stack.callback(register_forward_end(unet, self._end).remove)
            for one in hooks:
                stack.enter_context(one)
            self._stack = stack.pop_all()

    def _begin(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._stopped:
            return
        try:
            sample = args[0] if args else kwargs["x"]
            context = kwargs.get("context", args[2] if len(args) > 2 else None)
            self.session.begin_call(sample, context, kwargs)
        except Exception as error:
            self.session.fail(error)

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        # Without an output the model raised. Torch is walking through the hooks just now, so that none may come off; the
        # prediction will never be finished, and whoever comes next takes them off.
        self._stopped = self._stopped or output is None
        if not self._stopped:
            try:
                self.session.end_call()
            except Exception as error:
                self.session.fail(error)

    def remove(self) -> None:
        self._stack.close()


def session_of(p: Any) -> RecordingSession | None:
    """The session of a host's processing object; a copy of that object has none of its own."""
    found = getattr(p, ATTRIBUTE, None)
    return found[1] if isinstance(found, tuple) and found[0] == id(p) else None


def open_session(p: Any, session: RecordingSession | None) -> None:
    detach()
    live_preview.release()
    setattr(p, ATTRIBUTE, (id(p), session))


def attach(params: Any) -> None:
    """`on_cfg_denoiser`: the sampler is about to call the UNet."""
    global _attached
    detach()
    p: Any = getattr(params.denoiser, "p", None)
    session = session_of(p)
    if session is None or session.failure:
        return
    try:
        _attached = _Attached(session, params, p.sd_model)
        # `params` lives as long as this one prediction: where it ends in an exception, nobody calls `finish`.
        weakref.finalize(params, _left, _attached).atexit = False
    except Exception as error:
        session.fail(error)


def answered(params: Any) -> None:
    """`on_cfg_denoised`, where the host has it: the model has answered to each row."""
    if _attached is not None:
        try:
            _attached.session.begin_answers(params.x)
        except Exception as error:
            _attached.session.fail(error)


def finish(_params: Any) -> None:
    """`on_cfg_after_cfg`: the prediction is there."""
    session = detach()
    if session is None:
        return
    try:
        session.end_step()
    except Exception as error:
        session.fail(error)


def _left(attached: _Attached) -> None:
    if _attached is attached:
        detach()


def detach() -> RecordingSession | None:
    """Take all hooks off; the session that they were for."""
    global _attached
    current, _attached = _attached, None
    if current is None:
        return None
    current.remove()
    return current.session
