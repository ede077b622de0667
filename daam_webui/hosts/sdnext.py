"""SD.Next: diffusers' pipelines, called with embeddings that its own parser of prompts made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daam_core.capture.class_hook import ClassHook
from daam_core.diffusers.trace import trace
from daam_core.errors import NothingRecorded, UnsupportedModel
from daam_core.prompt.compose import share_columns
from daam_core.prompt.prompt import Prompt

from ..fragment_prompt import Fragment, Tokens, fragment_prompt
from ..settings import Settings
from .protocol import PageHost

if TYPE_CHECKING:
    from ..pipeline_pass import PipelinePass

OWN_WAY = (
    "SD.Next encoded the prompt in a way that is not read ({what}), so nobody knows which column is whose word. Choose "
    "“native”, “a1111”, “compel” or “fixed” under Settings, Text encoder, “Prompt attention parser”."
)


class SDNext(PageHost):
    """Its sampling is a call of a pipeline, whose arguments one function makes."""

    # -- sampling ---------------------------------------------------------------------------------------------------

    def sampling(self) -> tuple[Any, str]:
        from modules import processing_diffusers

        return processing_diffusers, "process_diffusers"

    def arguments(self) -> tuple[Any, str]:
        from modules import processing_diffusers

        return processing_diffusers, "set_pipeline_args"

    @contextmanager
    def encoding(self, seen: set[Tokens]) -> Iterator[None]:
        from compel.embeddings_provider import EmbeddingsProvider
        from modules import prompt_parser_diffusers as parser

        def begin(*_: Any) -> Any:
            return lambda output: None if output is None else seen.add(tuple(output[0].tolist()))

        parser.cache.clear()  # what comes out of it was encoded before anybody listened
        hook = ClassHook(EmbeddingsProvider, "get_token_ids_and_expand_weights", begin)
        try:
            yield
        finally:
            hook.remove()

    def require_one_text(self) -> None:
        from modules import prompt_parser_diffusers as parser

        if getattr(parser.embedder, "scheduled_prompt", False):
            raise NothingRecorded(
                "This prompt changes while the picture is sampled (`[a:b:0.5]` or `[a|b]`), which is not read in SD.Next. Take "
                "the brackets out to get heat maps."
            )

    def trace(self, pipe: Any, settings: Settings) -> Any:
        keep = [name for name in ("layers", "steps") if getattr(settings.keep, name)]
        return trace(pipe, keep=keep, negative=settings.negative)  # type: ignore[arg-type]

    def words(self, painted: PipelinePass, text: str, columns: int, negative: bool) -> Prompt:
        pipe = painted.pipe
        if getattr(pipe, "unet", None) is None:
            raise UnsupportedModel(OWN_WAY.format(what=f"{type(pipe).__name__}, by its own encoders"))
        from modules import prompt_parser_diffusers as parser

        tokenizers = [t for t in (getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2")) if t is not None]
        texts = parser.split_prompts(pipe, text)[: len(tokenizers)]
        if len(set(texts)) == 1:
            tokenizers = tokenizers[:1]  # both encoders read the same
        prompts = []
        for tokenizer, own in zip(tokenizers, texts, strict=False):
            fragments = _fragments(painted, own)
            typed = text if len(tokenizers) == 1 else own
            prompt, sections = fragment_prompt(fragments, _tokenize(tokenizer), tokenizer, columns, typed, not negative)
            if own.strip() and not painted.tokens.issuperset(sections):
                raise NothingRecorded(OWN_WAY.format(what="its text encoder was given other tokens"))
            prompts.append(prompt)
        return share_columns(prompts)

    # -- page and files ---------------------------------------------------------------------------------------------

    @contextmanager
    def ticked_accordion(self, label: str, elem_id: str) -> Iterator[Any]:
        import gradio as gr

        with gr.Accordion(label, open=False, elem_id=f"{elem_id}_part"):
            yield gr.Checkbox(False, label=label, elem_id=elem_id)

    def sends_size(self) -> bool:
        return True  # the host's setting is hidden, and off

    def keeps_upscaled(self) -> bool:
        return False

    def tells_upscaled(self) -> bool:
        return True  # it has no such button

    def tells_users(self) -> bool:
        return False

    def reads_concepts(self) -> bool:
        return False

    def paints_elsewhere(self) -> bool:
        return False

    def preview_state(self) -> Any:
        from modules import shared

        hidden = getattr(shared.state, "disable_preview", False) or shared.opts.show_progress_type == "None"
        return None if hidden else shared.state

    def pixels(self, image: Any) -> NDArray[np.uint8]:
        return np.asarray(image.convert("RGB"))

    def comment(self, p: Any, sentences: Sequence[str]) -> None:
        """It has no place for sentences of an inner run."""

    def saves(self, p: Any) -> bool:
        from modules import shared

        wanted = getattr(p, "samples_save", None)
        return bool(shared.opts.samples_save if wanted is None else wanted) and not p.do_not_save_samples

    def save(
        self, image: Image.Image, p: Any, picture_file: str, suffix: str, seed: int, text: str, infotext: str | None
    ) -> str:
        from modules import images

        folder, name, more = p.outpath_samples, None, {}
        if picture_file:
            folder, name = os.path.split(os.path.splitext(picture_file)[0])
            more = {"forced_filename": f"{name}{suffix}", "suffix": ""}
        else:
            more = {"suffix": suffix}
        return str(images.save_image(image, folder, "", seed, text, "png", info=infotext, p=p, **more)[0])


def _fragments(painted: PipelinePass, text: str) -> list[Fragment]:
    """A text as the host's own parser cuts it, without a trace in the host's list of embeddings that were used."""
    from modules import prompt_parser_diffusers as parser

    pipe = painted.pipe
    bare = SimpleNamespace(tokenizer=getattr(pipe, "tokenizer", None), tokenizer_2=getattr(pipe, "tokenizer_2", None))
    mean = getattr(painted.p, "prompt_mean_norm", None)
    return list(zip(*parser.get_prompts_with_weights(bare, text, prompt_mean_norm=mean), strict=True))


def _tokenize(tokenizer: Any) -> Any:
    from compel.embeddings_provider import EmbeddingsProvider

    reader = EmbeddingsProvider(tokenizer=tokenizer, text_encoder=None, truncate=False, device="cpu")

    def tokenize(texts: Sequence[str], weights: Sequence[float]) -> tuple[Sequence[int], Sequence[float]]:
        ids, each, _mask = reader.get_token_ids_and_expand_weights(list(texts), list(weights), device="cpu")
        return ids.tolist(), each.tolist()

    return tokenize
