"""Record Attention: records a sampler through the model it samples with."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..daam_core.capture.buffers import StoreOptions
from ..daam_core.errors import BadArgument
from ..daam_core.types import Relation
from .capture.record_options import Options
from .capture.recording_encoder import recording_clip
from .capture.recording_store import Source
from .capture.sampler_hooks import concept_encoder, recording_model
from .concepts import CONCEPTS, CONCEPTS_HELP, ConceptList
from .convert import hidden
from .executed_graph import digests, graph_of
from .node_inputs import Node

DETAILS = ["off", "layers", "steps", "layers + steps"]
RELATIONS: dict[str, tuple[Relation, ...]] = {
    "image->text": (),
    "image->text, text->image": ("text->image",),
    "image->text, text->text": ("text->text",),
    "all": ("text->image", "text->text"),
}
"""What is recorded for each choice; where the picture attends to (Eq. 6) always is."""
LIVE_HELP = (
    "Show this word's heat over the sampler's preview while it samples, a picture a second at most. Empty: off. A picture "
    "takes some 30 ms, all of them at most a twentieth of the sampling time."
)
OUTPUT_HELP = (
    "Record what the attention gives out, too, for `output` and `anchor` of `aggregation` in Word Heat Maps, and for masks "
    "where self_attention is off. Of pictures, not of videos; little cost."
)


class Record(Node):
    """MODEL and CLIP in, MODEL and CLIP out; the picture stays what it was, bit for bit."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DaamLensRecord",
            display_name="Record Attention",
            category="DAAM Lens",
            description="Records which word painted where, while any sampler runs. The picture does not change.",
            not_idempotent=True,
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled; put Record last, right before the sampler."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP of your prompts. Encode the prompts with the CLIP that comes out, and no word has to be "
                    "typed twice. Without it, give clip and text to Word Heat Maps.",
                ),
                io.Boolean.Input("negative", default=False, tooltip="Record the words of the negative prompt, too."),
                io.Combo.Input(
                    "detail",
                    options=DETAILS,
                    default="off",
                    tooltip="Keep layers or steps apart, so that they can be chosen later; steps are needed for Heat Map "
                    "Timeline. Takes more memory.",
                ),
                io.Boolean.Input("heads", default=False, tooltip="Keep attention heads apart, summed over steps."),
                io.Boolean.Input(
                    "self_attention",
                    default=True,
                    tooltip="Record how the picture attends to itself at one coarse size: better masks, little cost.",
                ),
                io.Int.Input("first_step", default=0, min=0, max=10_000, tooltip="First sampling step that counts."),
                io.Int.Input("last_step", default=10_000, min=0, max=10_000, tooltip="Last sampling step that counts."),
                io.String.Input("live_word", default="", placeholder="off", optional=True, tooltip=LIVE_HELP),
                CONCEPTS.Input("concepts", optional=True, tooltip=CONCEPTS_HELP),
                io.Combo.Input(
                    "relations",
                    options=list(RELATIONS),
                    default=next(iter(RELATIONS)),
                    optional=True,
                    tooltip="image->text is what heat maps show. Of models whose text and picture are one sequence (Flux, SD3, "
                    "Qwen-Image, Z-Image and others) also where a word looks (text->image, chosen in Word Heat Maps) and which "
                    "word attends to which (text->text, drawn by Word Matrix).",
                ),
                io.Boolean.Input("output_space", default=False, optional=True, tooltip=OUTPUT_HELP),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The same model; sample with it."),
                io.Clip.Output(display_name="clip", tooltip="The same CLIP; encode your prompts with it."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any = None,
        negative: bool = False,
        detail: str = "off",
        heads: bool = False,
        self_attention: bool = True,
        first_step: int = 0,
        last_step: int = 10_000,
        live_word: str = "",
        concepts: ConceptList = (),
        relations: str = "image->text",
        output_space: bool = False,
    ) -> io.NodeOutput:
        """Give out clones that record.

        Raises:
            BadArgument: no step lies between the first and the last one.
        """
        if first_step > last_step:
            raise BadArgument(
                f"No step lies between first_step {first_step} and last_step {last_step}: set first_step to at most last_step."
            )
        keep = StoreOptions(
            layers="layers" in detail, steps="steps" in detail, heads=heads, self_attention=self_attention,
            relations=RELATIONS[relations], output=output_space,
        )  # fmt: skip
        options = Options(keep, negative, first_step, last_step, live_word.strip(), concepts)
        asked = {
            "negative": negative, "detail": detail, "heads": heads, "self_attention": self_attention, "first_step": first_step,
            "last_step": last_step, "concepts": concepts, "relations": relations, "output_space": output_space,
        }  # fmt: skip
        own = hidden(cls, "unique_id") or ""
        linked = {name: told for name, told in digests(graph_of(hidden(cls, "dynprompt")), own).items() if name in asked}
        source = Source(own, tuple(asked.items()), tuple(linked.items()))
        beside = concept_encoder(model, concepts)
        return io.NodeOutput(recording_model(model, options, source), None if clip is None else recording_clip(clip, beside))
