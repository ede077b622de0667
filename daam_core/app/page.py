"""The form of the app: a prompt and its settings on the left, the explorer of the picture on the right."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..diffusers.generation import Settings, generate_recorded
from ..diffusers.trace import KeptAxis
from ..errors import DaamLensError
from ..lru_cache import LRUCache
from ..maps.heatmaps import HeatMaps
from ..maps.queries import PRESENCE_NOTE
from ..prompt.concepts import concepts_of
from ..validate import checked_negative, checked_prompt, checked_size
from . import drop
from .routes import unforeseen

PROMPT = "a red house and a green tree"
LARGEST_SEED = 2**32 - 1
_EMPTY = '<p class="daam-empty">Type a prompt and press Paint. Then point at a word, or at the picture.</p>'
STYLE = """
.daam-empty { display: grid; place-items: center; min-height: 60vh; opacity: .65; }
iframe.daam { width: 100%; height: calc(100vh - 60px); min-height: 560px; border: 0; border-radius: 10px; }
.daam-seed { align-items: flex-end; }
footer { display: none !important; }
"""


class Generator:
    """Makes pictures with one pipeline, one after another, and keeps their maps.

    Attributes:
        turn: held while the pipeline is in use.
    """

    def __init__(self, pipe: Any, kept: LRUCache[HeatMaps]) -> None:
        self._pipe, self._kept = pipe, kept
        self.turn = threading.Lock()
        pipe.set_progress_bar_config(disable=True)

    def __call__(self, prompt: str, settings: Settings, bar: gr.Progress | None = None) -> tuple[str, str]:
        """The page's address and a sentence, empty where nothing has to be said.

        Raises:
            DaamLensError: the prompt or a setting cannot be painted.
        """
        total = settings.steps

        def step(done: int) -> None:
            if bar is not None:
                bar((done, max(total or done, done)), desc="Painting", unit="steps")

        checked_negative(settings.negative)
        if settings.size is not None:
            checked_size(settings.size)
        with self.turn:
            _picture, recording = generate_recorded(self._pipe, checked_prompt(prompt), settings, step)
        maps = recording.heat_maps()
        lost = maps.prompt.truncated
        note = f"The model did not read the last {len(lost)} words, from “{lost[0]}” on." if lost else ""
        said = [note, recording.concept_failure or "", PRESENCE_NOTE if maps.concepts else ""]
        return f"explorer/{self._kept.keep(maps)}", " ".join(filter(None, said))


def form(generate: Generator, about: str, usual: Settings, examples: Sequence[str] = (), opening: bool = False) -> gr.Blocks:
    """The whole page.

    Args:
        generate: what paints.
        about: the model in a sentence of Markdown.
        usual: what the model does when nobody asks for something else.
        examples: prompts to try.
        opening: paint the first prompt when the page is opened; for a model that takes seconds.
    """
    native = usual.size or (512, 512)
    with gr.Blocks(analytics_enabled=False, title="DAAM Lens", fill_width=True) as blocks, gr.Row():
        with gr.Column(scale=1, min_width=280):
            prompt = gr.Textbox(PROMPT, label="Prompt", lines=3, autofocus=True, elem_id="daam_prompt")
            go = gr.Button("Paint", variant="primary")
            if examples:
                gr.Examples([[text] for text in examples], prompt, label="Try", api_visibility="private")
            with gr.Row(elem_classes="daam-seed"):
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=120, elem_id="daam_seed"
                )
                dice = gr.Button("Other seed", min_width=100)
            with gr.Accordion("More", open=False):
                negative = gr.Textbox(label="Negative prompt", lines=2)
                steps_box = gr.Slider(1, 100, usual.steps, step=1, label="Steps")
                guidance_box = gr.Slider(1, 20, usual.guidance, step=0.5, label="Guidance")
                width = gr.Slider(64, 2048, native[1], step=8, label="Width")
                height = gr.Slider(64, 2048, native[0], step=8, label="Height")
                concepts = gr.Textbox(label="Look for, not in the prompt", placeholder="sky, shadow", lines=1)
                detail = gr.CheckboxGroup(["steps", "layers"], value=["steps", "layers"], label="Keep apart")
            gr.HTML(drop.FIELD)
            address = gr.Textbox(elem_id="daam_address", elem_classes="daam-hidden", container=False)
            show = gr.Button("Show", elem_id="daam_show", elem_classes="daam-hidden")
            note = gr.Markdown(about)
        with gr.Column(scale=4, min_width=480):
            view = gr.HTML(_EMPTY)

        def run(*values: Any, bar: gr.Progress = gr.Progress()) -> tuple[str, str]:  # noqa: B008 (gradio reads the default)
            try:
                address, said = generate(values[0] or "", _settings(*values[1:]), bar)
            except Exception as error:
                sentence = str(error) if isinstance(error, DaamLensError) else unforeseen(error)
                raise gr.Error(sentence, duration=None, print_exception=False) from None
            return explorer_frame(address), said or about

        boxes = [prompt, seed, negative, steps_box, guidance_box, width, height, detail, concepts]
        # Private: the page calls them, and no program is meant to.
        private: dict[str, Any] = {"api_visibility": "private"}
        show.click(explorer_frame, address, view, **private)
        drawn = dice.click(lambda: random.randint(0, LARGEST_SEED), outputs=seed, **private)
        drawn.then(run, boxes, [view, note], show_progress_on=view, **private)
        gr.on([go.click, prompt.submit], run, boxes, [view, note], show_progress_on=view, **private)
        if opening:
            blocks.load(run, boxes, [view, note], show_progress_on=view, **private)
    return blocks


def explorer_frame(address: str | None) -> str:
    """The HTML of a kept picture's explorer; what is no address of one shows nothing."""
    if not re.fullmatch(r"explorer/[\w-]+", address or ""):
        return _EMPTY
    return f'<iframe class="daam" src="{address}" title="Explorer"></iframe>'


def _settings(
    seed: float | None, negative: str | None, steps: float | None, guidance: float | None, width: float | None,
    height: float | None, detail: Sequence[KeptAxis], concepts: str | None = None,
) -> Settings:  # fmt: skip
    """From the boxes' values; an empty box leaves it to the model."""
    size = None if width is None or height is None else (int(height), int(width))
    wanted = tuple(one.label for one in concepts_of(concepts)) if concepts and concepts.strip() else ()
    return Settings(
        int(seed or 0), None if steps is None else int(steps), size, guidance, negative or "", tuple(detail), wanted
    )
