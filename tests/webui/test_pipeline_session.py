"""Recording a host that calls diffusers' pipelines with embeddings of its own (SD.Next), without that host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daam_core import load_tiny
from daam_core.diffusers.trace import trace
from daam_core.errors import BadPrompt, NothingRecorded
from daam_core.prompt.prompt import Prompt
from daam_webui import gallery, live_preview
from daam_webui.finished_image import FinishedImage
from daam_webui.fragment_prompt import Tokens, fragment_prompt, sections_of
from daam_webui.pipeline_heat import PipelineHeat
from daam_webui.pipeline_pass import PipelinePass
from daam_webui.pipeline_session import PipelineSession
from daam_webui.settings import Settings

from ..core.diffusers.transformer_pipelines import flux

PROMPT, NEGATIVE = "a red house and a green tree", "star"


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = load_tiny()
    made.set_progress_bar_config(disable=True)
    return made


def tokenize(pipe: Any) -> Any:
    """Fragments one by one, as `compel` does: all in chunks of 75 between a start and an end token."""

    def read(texts: Sequence[str], weights: Sequence[float]) -> tuple[list[int], list[float]]:
        tok = pipe.tokenizer
        each = [tok(text, add_special_tokens=False).input_ids for text in texts]
        ids = [token for one in each for token in one]
        weight = [w for one, w in zip(each, weights, strict=True) for _ in one]
        out: list[int] = []
        of: list[float] = []
        for at in range(0, max(1, len(ids)), 75):
            part = ids[at : at + 75]
            pad = [tok.eos_token_id] * (75 - len(part))
            out += [tok.bos_token_id, *part, tok.eos_token_id, *pad]
            of += [1.0, *weight[at : at + 75], 1.0, *[1.0] * len(pad)]
        return out, of

    return read


# -- words --------------------------------------------------------------------------------------------------------------


def test_a_break_ends_a_section_of_the_prompt_and_is_a_word_of_the_negative_one() -> None:
    fragments = [("a house", 1.0), ("BREAK", -1.0), ("a tree", 1.2), ("BREAK", -1.0)]
    assert sections_of(fragments, True) == [[("a house", 1.0)], [("a tree", 1.2)]]
    assert len(sections_of(fragments, False)) == 1


def test_words_stand_where_their_fragments_were_encoded(pipe: Any) -> None:
    """Two sections, and columns behind them that make another prompt's length."""
    fragments = [("a ", 1.0), ("red", 1.5), (" house", 1.0), ("BREAK", -1.0), ("a green tree", 1.0)]
    prompt, sections = fragment_prompt(fragments, tokenize(pipe), pipe.tokenizer, 231, "a (red:1.5) house BREAK a green tree")
    assert prompt.labels == ["a", "red", "house", "a#2", "green", "tree"]
    assert [token.column for token in prompt.tokens] == [1, 2, 3, 78, 79, 80]
    assert [token.weight for token in prompt.tokens] == [1.0, 1.5, 1.0, 1.0, 1.0, 1.0]
    assert len(sections) == 2 and prompt.length == 231
    assert {154, 231 - 77} <= set(prompt.start) and set(range(156, 231)) <= set(prompt.padding)


@pytest.mark.parametrize("columns", [76, 77])
def test_a_text_that_does_not_fit_its_columns_is_refused(pipe: Any, columns: int) -> None:
    long = [("house " * 80, 1.0)]
    with pytest.raises(BadPrompt, match=f"take 154 columns and the model is given {columns}"):
        fragment_prompt(long, tokenize(pipe), pipe.tokenizer, columns, long[0][0])


# -- a run --------------------------------------------------------------------------------------------------------------


class Program(SimpleNamespace):
    """The host's functions, as SD.Next has them in one module."""


class Host:
    """A host that encodes its prompts by itself."""

    def __init__(self, pipe: Any, same_tokens: bool = True) -> None:
        self.pipe, self.same_tokens, self.scheduled = pipe, same_tokens, False
        self.calls = 1
        self.program = Program(sample=self._sample, arguments=self._arguments)

    def _arguments(self, p: Any, model: Any, prompts: list[str], negative_prompts: list[str], **more: Any) -> dict[str, Any]:
        with torch.no_grad():
            rows = [self._encode(text) for text in prompts]
            negatives = [self._encode(text) for text in negative_prompts]
        return {"prompt_embeds": torch.cat(rows), "negative_prompt_embeds": torch.cat(negatives), **more}

    def _encode(self, text: str) -> torch.Tensor:
        ids, _ = tokenize(self.pipe)([text], [1.0])
        if self.seen is not None:
            self.seen.add(tuple(ids if self.same_tokens else ids[::-1]))
        rows: torch.Tensor = self.pipe.text_encoder(torch.tensor([ids])).last_hidden_state
        return rows * 1.01  # a weight changes rows, so that nobody knows them by their numbers

    seen: set[Tokens] | None = None
    state: Any = None
    stops_at, looks = -1, True

    def _sample(self, p: Any) -> torch.Tensor:
        for second in range(self.calls):
            p.is_hr_pass = bool(second)
            given = self.program.arguments(
                p=p, model=self.pipe, prompts=p.prompts, negative_prompts=p.negative_prompts, num_inference_steps=2,
                height=64, width=64, output_type="latent", generator=torch.Generator().manual_seed(3),
                **({"callback_on_step_end": self.step_is_over} if self.state is not None else {}),
            )  # fmt: skip
            found: torch.Tensor = self.pipe(**given).images
        return found

    # -- what a session asks ----------------------------------------------------------------------------------------

    def sampling(self) -> tuple[Any, str]:
        return self.program, "sample"

    def arguments(self) -> tuple[Any, str]:
        return self.program, "arguments"

    @contextmanager
    def encoding(self, seen: set[Tokens]) -> Iterator[None]:
        self.seen = seen
        yield
        self.seen = None

    def require_one_text(self) -> None:
        if self.scheduled:
            raise NothingRecorded("This prompt changes")

    def trace(self, pipe: Any, settings: Settings) -> Any:
        return trace(pipe, negative=settings.negative)

    def words(self, painted: PipelinePass, text: str, columns: int, negative: bool) -> Prompt:
        prompt, sections = fragment_prompt([(text, 1.0)], tokenize(self.pipe), self.pipe.tokenizer, columns, text)
        if not painted.tokens.issuperset(sections):
            raise NothingRecorded("other tokens")
        return prompt

    def saves(self, p: Any) -> bool:
        return False

    def preview_state(self) -> Any:
        return self.state

    def step_is_over(self, pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        """What the host has the pipeline call: it keeps what a preview is made of."""
        self.state.current_latent = given["latents"]
        if self.stops_at == step:
            raise AssertionError("Interrupted...")
        if self.looks:
            self.state.assign_current_image(Image.new("RGB", (16, 8)))
        return given


def processing(**more: Any) -> Any:
    texts = {"prompts": [PROMPT, "a star"], "negative_prompts": [NEGATIVE, NEGATIVE]}
    return SimpleNamespace(**texts, enable_hr=False, is_hr_pass=False, **more)


def run(host: Host, session: PipelineSession | None, p: Any = None, size: int = 64) -> torch.Tensor:
    """Latents of one batch of the host, its pictures taken by the session."""
    p = p or processing()
    if session is not None:
        session.attach(p)
    latents = host.program.sample(p)
    if session is not None:
        session.release()
        for image, prompt in enumerate(p.prompts):
            session.take(FinishedImage(0, image, np.full((size, 64, 3), image, np.uint8), 7 + image, prompt))
    return latents


def session_of(host: Host, **settings: Any) -> PipelineSession:
    return PipelineSession(Settings(True, **settings), host)  # type: ignore[arg-type]


def test_latents_are_the_same_and_the_words_are_those_that_were_encoded(pipe: Any) -> None:
    host = Host(pipe)
    bare = run(host, None)
    session = session_of(host, negative=True)
    assert torch.equal(run(host, session), bare)
    assert vars(host.program) == {"sample": host._sample, "arguments": host._arguments}
    first, second = (maps for _, maps in session.heat_maps())
    assert first.words == ["a", "red", "house", "and", "a#2", "green", "tree"] and second.words == ["a", "star"]
    assert first.negative is not None and first.negative.words == ["star"]
    assert second.picture is not None and (second.picture == 1).all() and second.size == (64, 64)


def test_maps_are_those_of_the_same_embeddings_in_a_trace_of_its_own(pipe: Any) -> None:
    """Word by word the sums of the columns in which the host's encoder read it."""
    host = Host(pipe)
    session = session_of(host)
    run(host, session)
    (_, maps), _ = session.heat_maps()
    given = host._arguments(None, pipe, [PROMPT, "a star"], [NEGATIVE] * 2)
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "latent"}
    with trace(pipe) as recording:
        pipe(**given, **options, generator=torch.Generator().manual_seed(3))
    columns = recording.heat_maps(0)
    for number, word in enumerate(maps.words, 1):
        assert torch.allclose(maps.heat_map(word), columns.heat_map(str(number)), atol=1e-6)


def test_both_passes_are_added_and_either_can_be_chosen(pipe: Any) -> None:
    steps = {}
    for hires in ("first", "second", "both"):
        host = Host(pipe)
        host.calls = 2
        session = session_of(host, hires=hires)
        run(host, session, processing() if hires == "first" else _hires())
        (_, maps), _ = session.heat_maps()
        steps[hires] = maps.steps
    assert steps == {"first": 2, "second": 2, "both": 4}


def test_a_second_pass_that_the_host_left_out_is_told(pipe: Any) -> None:
    """SD.Next makes none where its upscaler is “None”, or where a run is stopped: pictures before that keep their maps."""
    host = Host(pipe)
    host.calls = 2
    session = session_of(host, hires="second")
    run(host, session, _hires())
    host.calls = 1
    session.attach(p := _hires())
    host.program.sample(p)
    session.release()
    session.take(FinishedImage(1, 0, np.zeros((64, 64, 3), np.uint8), 7, PROMPT))
    told = session.heat_maps()
    assert [next(told)[0].iteration for _ in range(2)] == [0, 0]
    with pytest.raises(NothingRecorded, match="without the second pass"):
        next(told)


def _hires() -> Any:
    p = processing()
    p.enable_hr = True
    return p


def test_another_run_inside_is_not_recorded(pipe: Any) -> None:
    """A detailer samples with a processing object of its own while the picture's is watched."""
    host = Host(pipe)
    session = session_of(host)
    session.attach(processing())
    host.program.sample(processing())
    session.release()
    session.take(FinishedImage(0, 0, np.zeros((64, 64, 3), np.uint8), 7, PROMPT))
    assert "without calling its model" in session.failure


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda host: setattr(host, "same_tokens", False), "other tokens"),
        (lambda host: setattr(host, "scheduled", True), "This prompt changes"),
    ],
)
def test_a_refusal_is_one_sentence_and_the_picture_is_made(pipe: Any, change: Any, said: str) -> None:
    host = Host(pipe)
    bare = run(host, None)
    change(host)
    session = session_of(host)
    assert torch.equal(run(host, session), bare)
    p = SimpleNamespace(all_prompts=[PROMPT] * 2, all_negative_prompts=[""] * 2)
    processed = SimpleNamespace(images=["picture"], infotexts=["info"], info="info", index_of_first_image=0, batch_size=2)
    shown = gallery.show(session, p, processed)
    assert len(shown.notes) == 1 and said in shown.notes[0] and processed.images == ["picture"] and not shown.runs


def test_words_that_are_not_in_the_prompt_are_told_and_the_others_have_their_maps(pipe: Any) -> None:
    host = Host(pipe)
    session = session_of(host, concepts="sky", overlays=False)
    run(host, session)
    p = SimpleNamespace(all_prompts=[PROMPT, "a star"], all_negative_prompts=[""] * 2)
    processed = SimpleNamespace(images=["picture"], infotexts=["info"], info="info", index_of_first_image=0, batch_size=2)
    shown = gallery.show(session, p, processed)
    assert len(shown.runs) == 2 and len(shown.notes) == 1 and "not read in SD.Next" in shown.notes[0]


class State:
    """The host's, as far as its previews go."""

    current_latent: Any = None

    def __init__(self) -> None:
        self.shown: list[Image.Image] = []

    def assign_current_image(self, image: Image.Image) -> None:
        self.shown.append(image)


def test_live_heat_is_that_of_the_steps_so_far_and_the_latents_are_the_same(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step's heat is the finished map's, in the words of embeddings that the host made by itself."""
    host = Host(pipe)
    bare = run(host, None)
    host.state, heats = State(), {}
    honest = PipelineHeat._heat

    def kept(self: PipelineHeat, image: int, size: Any) -> Any:
        heats[image] = honest(self, image, size)
        return heats[image]

    monkeypatch.setattr(PipelineHeat, "_heat", kept)
    monkeypatch.setattr(live_preview, "SECONDS", 0.0)
    monkeypatch.setattr(live_preview, "SHARE", 0.0)
    session = session_of(host, live_word="a")
    assert torch.equal(run(host, session), bare)
    assert vars(host.state).keys() == {"shown", "current_latent"} and not session.live_failures()
    assert [image.size for image in host.state.shown] == [(16, 8), (512, 256)], "two side by side, once there is a heat"
    for image, (_, maps) in enumerate(session.heat_maps()):
        expected = maps.heat_map("a", (256, 256)) / sum(maps.num_terms.values())
        assert torch.allclose(heats[image], expected, rtol=1e-4, atol=1e-6)


def test_an_interrupt_goes_through_and_leaves_the_host_s_state_alone(pipe: Any) -> None:
    host = Host(pipe)
    host.state, host.stops_at = State(), 0
    with pytest.raises(AssertionError, match="Interrupted"):
        run(host, session_of(host, live_word="house"))
    assert "assign_current_image" not in vars(host.state)


def test_a_failure_of_the_live_heat_leaves_picture_and_maps(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(pipe)
    bare = run(host, None)
    host.state = State()
    monkeypatch.setattr(PipelineHeat, "_words", lambda *_: 1 / 0)
    session = session_of(host, live_word="house")
    assert torch.equal(run(host, session), bare) and session.finished
    (reason,) = session.live_failures()
    assert "could not be worked out" in reason and "division" not in reason


def test_a_host_whose_state_takes_no_previews_paints_and_is_recorded(pipe: Any) -> None:
    host = Host(pipe)
    bare = run(host, None)
    host.state = State()
    session = session_of(host, live_word="house")
    session._live = live_preview.LivePreview("house", SimpleNamespace())
    assert torch.equal(run(host, session), bare) and session.finished and len(session.live_failures()) == 1


def test_a_live_word_that_is_not_in_the_prompt_is_a_sentence_and_the_maps_are_there(pipe: Any) -> None:
    host = Host(pipe)
    host.state = State()
    session = session_of(host, live_word="zebra")
    run(host, session)
    assert session.live_failures()[0].startswith("No live heat: 'zebra' is not in the prompt") and session.finished
    assert [image.size for image in host.state.shown] == [(16, 8)] * 2


def test_a_picture_of_another_shape_is_refused(pipe: Any) -> None:
    session = session_of(Host(pipe))
    run(session.host, session, size=96)  # type: ignore[arg-type]
    assert "cut or stretched" in session.failure


def test_a_pipeline_that_fails_leaves_nothing_hooked(pipe: Any) -> None:
    host = Host(pipe)
    session = session_of(host)
    p, call = processing(), type(pipe).__call__
    session.attach(p)
    p.prompts = [PROMPT]  # one prompt and two negative ones: diffusers refuses them
    with pytest.raises(ValueError, match="prompt_embeds"):
        host.program.sample(p)
    assert vars(host.program) == {"sample": host._sample, "arguments": host._arguments}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())
    assert type(pipe).__call__ is call


def test_embeddings_of_several_prompts_that_were_encoded_apart_keep_their_words() -> None:
    """SD.Next encodes the prompts of a batch one by one and gives the pipeline all their rows at once."""
    pipe = flux()
    with trace(pipe) as recording, torch.no_grad():
        each = [pipe.encode_prompt(text, None, max_sequence_length=16)[:2] for text in ("a red house", "two cats")]
        rows, pooled = (torch.cat([one[i] for one in each]) for i in (0, 1))
        pipe(
            prompt_embeds=rows, pooled_prompt_embeds=pooled, num_inference_steps=1, height=64, width=64, output_type="latent",
            max_sequence_length=16,
        )  # fmt: skip
    assert [maps.words for maps in recording] == [["a", "red", "house"], ["two", "cats"]]
