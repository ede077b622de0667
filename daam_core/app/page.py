"""The form of the app: a prompt and its settings on the left, the explorer of the picture on the right."""

from __future__ import annotations

import random
from typing import Any

import gradio as gr

from ..errors import DaamLensError
from ..painting import Settings, paint
from ..typed import checked_prompt
from .shelf import Shelf

PROMPT = "a red house and a green tree"
LARGEST_SEED = 2**32 - 1
_EMPTY = '<p class="daam-empty">Type a prompt and press Paint. Then point at a word, or at the picture.</p>'
STYLE = """
.daam-empty { display: grid; place-items: center; min-height: 60vh; opacity: .65; }
iframe.daam { width: 100%; height: calc(100vh - 60px); min-height: 560px; border: 0; border-radius: 10px; }
footer { display: none !important; }
"""


class Painter:
    """Paints with one pipeline, one picture after another, and puts the maps on the shelf."""

    def __init__(self, pipe: Any, shelf: Shelf) -> None:
        self._pipe, self._shelf = pipe, shelf
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

        _picture, lens = paint(self._pipe, checked_prompt(prompt), settings, step)
        maps = lens.heat_maps()
        lost = maps.prompt.truncated
        note = f"The model did not read the last {len(lost)} words, from “{lost[0]}” on." if lost else ""
        return f"explorer/{self._shelf.keep(maps)}", note


def form(painter: Painter, model: str, usual: Settings) -> gr.Blocks:
    """The whole page. `usual` is what the model does when nobody asks for something else."""
    native = usual.size or (512, 512)
    with gr.Blocks(analytics_enabled=False, title="DAAM Lens", fill_width=True) as blocks, gr.Row():
        with gr.Column(scale=1, min_width=280):
            prompt = gr.Textbox(PROMPT, label="Prompt", lines=3, autofocus=True)
            go = gr.Button("Paint", variant="primary")
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=120)
                dice = gr.Button("Other seed", min_width=100)
            with gr.Accordion("More", open=False):
                negative = gr.Textbox(label="Negative prompt", lines=2)
                steps_box = gr.Slider(1, 100, usual.steps, step=1, label="Steps")
                guidance_box = gr.Slider(1, 20, usual.guidance, step=0.5, label="Guidance")
                width = gr.Slider(64, 2048, native[1], step=8, label="Width")
                height = gr.Slider(64, 2048, native[0], step=8, label="Height")
                detail = gr.CheckboxGroup(["steps", "layers"], value=["steps", "layers"], label="Keep apart")
            note = gr.Markdown(f"Model: `{model}`")
        with gr.Column(scale=4, min_width=480):
            view = gr.HTML(_EMPTY)

        def run(*values: Any, bar: gr.Progress = gr.Progress()) -> tuple[str, str]:  # noqa: B008 (gradio reads the default)
            text, seed_, negative_, steps_, guidance_, width_, height_, detail_ = values
            chosen = Settings(
                int(seed_ or 0), int(steps_), (int(height_), int(width_)), float(guidance_), negative_ or "", tuple(detail_)
            )
            try:
                address, said = painter(text, chosen, bar)
            except DaamLensError as error:
                raise gr.Error(str(error), duration=None, print_exception=False) from None
            return f'<iframe class="daam" src="{address}" title="Explorer"></iframe>', said or f"Model: `{model}`"

        boxes = [prompt, seed, negative, steps_box, guidance_box, width, height, detail]
        dice.click(lambda: random.randint(0, LARGEST_SEED), outputs=seed).then(run, boxes, [view, note])
        gr.on([go.click, prompt.submit], run, boxes, [view, note])
    return blocks

