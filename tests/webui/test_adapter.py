"""The parts of the WebUI extension that need no WebUI."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from daam_core import HeatMaps
from daam_core.errors import BadArgument, BadPrompt, DetailMissing, NothingRecorded, UnsupportedModel
from daam_core.maps.data import LayerInfo, RecordedImage
from daam_core.maps.prompt_report import prompt_report
from daam_core.prompt.prompt import Prompt
from daam_core.render import text
from daam_webui import drawing, hosts, options
from daam_webui.batch_rows import Label, in_chunks, in_order, runs_of, stray
from daam_webui.crop_region import area_of
from daam_webui.drawing import draw, mask_of
from daam_webui.hosts.a1111 import A1111
from daam_webui.hosts.forge import Forge
from daam_webui.hosts.forge_neo import ForgeNeo
from daam_webui.prompt_schedule import PromptSchedule
from daam_webui.recording_store import RecordingStore
from daam_webui.report_html import report_html
from daam_webui.schedule import PassTexts, groups, text_at
from daam_webui.settings import NAMES, Settings, field_name, pasted
from daam_webui.tokenization import engine_of, read

from ..core.prompt.chunks import chunks
from .hosts import ROOT

# -- settings ----------------------------------------------------------------------------------------------------------


def test_arguments_by_place_and_by_name_are_the_same() -> None:
    assert Settings.from_args([True, "house", False, True]) == Settings.from_args(
        [{"enabled": True, "words": "house", "overlays": False, "maps": True}]
    )
    assert Settings.from_args([]) == Settings()


@pytest.mark.parametrize(
    "args", [["yes"], [True, 5], [True, "", True, True, True, "half"], [True, "", True, True, True, float("nan")]]
)
def test_a_wrong_argument_is_named(args: list[Any]) -> None:
    with pytest.raises(BadArgument, match="not"):
        Settings.from_args(args)


@pytest.mark.parametrize("name", ["words", "concepts", "template", "live_word", "layers"])
def test_a_text_that_no_infotext_should_hold_is_refused(name: str) -> None:
    """Nothing of it comes back in the sentence, which goes into the host's answer."""
    with pytest.raises(BadArgument, match="up to 16384 characters; this one has 1000000") as found:
        Settings.from_args([{"enabled": True, name: "x" * 1_000_000}])
    assert len(str(found.value)) < 200
    with pytest.raises(BadArgument, match="broken character"):
        Settings.from_args([{"enabled": True, name: "down, \ud800"}])
    with pytest.raises(BadArgument, match="There is no setting") as found:
        Settings.from_args([{name + "x" * 1_000_000: ""}])
    assert len(str(found.value)) < 400


def test_infotext_comes_back_as_the_same_settings() -> None:
    asked = Settings(True, "house, tree", masks=True, opacity=0.5, tau=0.25, hires="first", report=False, layers="mid, up")
    params = {name: str(value) for name, value in asked.infotext().items()}  # the host reads texts
    assert Settings(**{name: pasted(name, params) for name in NAMES}) == asked
    assert field_name("words") in params


def test_names_of_version_0_1_0_are_still_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_args([{"enabled": True, "colours": "lagoon"}]).colormap == "lagoon"
    assert pasted("colormap", {"DAAM Lens": "on", "DAAM Lens colours": "gray"}) == "gray"
    assert pasted("colormap", {"DAAM Lens": "on", "DAAM Lens colours": "gray", "DAAM Lens colormap": "lagoon"}) == "lagoon"
    saved = SimpleNamespace(data={"daam_lens_colours": "lagoon"}, daam_lens_colormap="ember")
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(shared=SimpleNamespace(opts=saved)))
    assert options.defaults().colormap == "lagoon"
    saved.data["daam_lens_colormap"] = "ember"
    assert options.defaults().colormap == "ember"


def test_a_foreign_infotext_changes_nothing() -> None:
    assert all(pasted(name, {"Steps": "20"}) is None for name in NAMES)
    assert pasted("tau", {"DAAM Lens": "on", "DAAM Lens tau": "many"}) == Settings().tau


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_in_a1111s_order() -> None:
    rows = in_order([2, 1])
    assert rows == [
        Label("prompt", 0, 0),
        Label("prompt", 0, 1),
        Label("prompt", 1),
        Label("negative", 0),
        Label("negative", 1),
    ]
    assert runs_of(rows, "prompt", (0,)) == [(0, (0,)), (1, (1,))]
    assert runs_of(rows, "prompt", (1,)) == [(2, (0,))]
    assert runs_of(rows, "negative", (0, 1)) == [(3, (0, 0))]
    assert stray(rows, "prompt", (0, 1))  # AND in a batch: the pictures do not stand side by side


def test_rows_in_forges_order_and_a_second_look() -> None:
    heard: set[Any] = set()
    rows = in_chunks(4, [1, 0], 2, lambda n, taken: 0, heard)
    assert rows == [Label("negative", 0), Label("negative", 1), Label("prompt", 0), Label("prompt", 1)]
    assert in_chunks(2, [0], 2, lambda n, taken: 0, heard) == [None, None]  # PAG asks once more
    assert in_chunks(3, [1, 0], 2, lambda n, taken: 0, set()) == []


# -- texts -------------------------------------------------------------------------------------------------------------


def words_prompt(text: str) -> Prompt:
    """Each word one token of its own, in chunks of 77 columns."""
    names = text.split()

    class Tokenizer:
        bos_token_id, eos_token_id = 0, 1

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [f"{names[i - 2]}</w>" for i in ids]

        def get_added_vocab(self) -> dict[str, int]:
            return {}

    return Prompt.from_ids(chunks(range(2, len(names) + 2), 0, 1), Tokenizer(), text=text)


def test_a_schedule_is_one_prompt_and_and_is_two() -> None:
    schedule = PromptSchedule([["a red house", "a blue house"]], words_prompt)
    assert schedule.prompt.labels == ["a", "red", "house", "blue"]
    assert len(schedule.prompt.find("house").channels) == 2
    joined = PromptSchedule([["a red house"], ["a tree"]], words_prompt)
    assert joined.prompt.labels == ["a", "red", "house", "a#2", "tree"]


def test_selection_of_a_padded_and_of_a_repeated_context() -> None:
    said = PromptSchedule([["house tree"]], words_prompt)
    tree = said.prompt.find("tree").channels[0]
    plain = said.selection(0, 77, 77, repeated=False)
    assert plain[2, tree] == 1 and plain[:, tree].sum() == 1
    padded = said.selection(0, 77, 154, repeated=False)
    assert padded[:, tree].sum() == 1 and bool((padded[77:, -1] == 1).all())
    repeated = said.selection(0, 77, 154, repeated=True)
    assert repeated[:, tree].nonzero().flatten().tolist() == [2, 79]
    within = said.selection(0, 154, 308, repeated=True)  # a longer prompt of the batch, then Forge's repetition
    assert within[:, tree].nonzero().flatten().tolist() == [2, 156]
    for selection in (plain, padded, repeated, within):
        assert bool((selection.sum(1) == 1).all())


def test_endless_prompts_are_refused_before_they_are_read() -> None:
    def never(text: str) -> Prompt:
        raise AssertionError("read all the same")

    with pytest.raises(BadPrompt, match="too long"):
        PromptSchedule([["x" * 10_000_000]], never)


def test_what_is_said_when() -> None:
    schedule = ((3, "red"), (10, "blue"))
    assert [text_at(schedule, step) for step in (0, 3, 4, 10, 11)] == ["red", "red", "blue", "blue", "red"]
    one = PassTexts(prompts=(((schedule), ((10, "tree"),)),), negatives=(((10, "boat"),),))
    assert groups([one, one], 0) == [["red", "blue", "red", "blue"], ["tree", "tree"]]
    assert groups([one], 0, negative=True) == [["boat"]]


# -- words -------------------------------------------------------------------------------------------------------------


@dataclass
class Chunk:
    tokens: list[int]
    multipliers: list[float]
    fixes: list[Any] = field(default_factory=list)


class Engine:
    """A host's text encoder that knows four words."""

    id_start, id_end = 8, 9
    tokenizer = SimpleNamespace(
        convert_ids_to_tokens=lambda ids: [["red</w>", "house</w>", "tr", "ee</w>", "cat</w>"][i] for i in ids],
        get_added_vocab=dict,
    )

    def tokenize_line(self, line: str) -> tuple[list[Chunk], int]:
        body = [0, 1, 2, 3, 0, 0]
        tokens = [8, *body, *[9] * (76 - len(body))]
        fix = SimpleNamespace(offset=4, embedding=SimpleNamespace(vectors=2, name="cat-toy"))
        return [Chunk(tokens, [1.0, 1.3, *[1.0] * 75], [fix])], 6


def test_words_of_chunks_with_an_embedding() -> None:
    prompt = read(Engine(), "(red:1.3) house tree cat-toy")
    assert prompt.labels == ["red", "house", "tree", "cat-toy"]
    assert prompt.find("tree").channels == (3, 4) and prompt.find("cat-toy").channels == (5, 6)
    assert prompt.find("red").weight == pytest.approx(1.3)


@pytest.mark.parametrize("old", [False, True])
def test_words_of_the_old_emphasis_implementation(monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    """A1111's setting for old seeds: another reading of brackets, one chunk, embeddings by offset and vectors."""
    engine = Engine()
    engine.hijack = object()  # type: ignore[attr-defined]
    fix = (2, SimpleNamespace(vectors=2, name="cat-toy"))

    def process_text_old(_engine: Any, texts: list[str]) -> Any:
        return [[1.0, 1.1, 1.0, *[1.0] * 74]], [[8, 1, 0, 0, 0, *[9] * 72]], [], [], [[fix]], len(texts)

    opts = SimpleNamespace(use_old_emphasis_implementation=old)
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(shared=SimpleNamespace(opts=opts)))
    there = SimpleNamespace(process_text_old=process_text_old)
    monkeypatch.setitem(sys.modules, "modules.sd_hijack_clip_old", there)  # type: ignore[arg-type]
    line = "(house) red cat-toy"
    prompt = read(engine, line, A1111().chunks(engine, line))
    assert prompt.labels == (["house", "red", "cat-toy"] if old else ["red", "house", "tree", "cat-toy"])
    if old:
        assert prompt.find("cat-toy").channels == (3, 4) and prompt.find("house").weight == pytest.approx(1.1)


def test_text_encoders_are_found_in_every_host() -> None:
    engine = Engine()
    for model in (
        SimpleNamespace(cond_stage_model=engine),
        SimpleNamespace(cond_stage_model=SimpleNamespace(embedders=[engine, None])),
        SimpleNamespace(text_processing_engine_l=engine, text_processing_engine_g=None),
    ):
        assert engine_of(model) is engine
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        engine_of(SimpleNamespace(text_processing_engine_t5=object()))


# -- places and choices --------------------------------------------------------------------------------------------------


def test_only_masked_is_put_back_at_its_place() -> None:
    p = SimpleNamespace(paste_to=(64, 128, 96, 32), overlay_images=[SimpleNamespace(size=(256, 192))])
    area = area_of(p, False)
    assert (area.top, area.left, area.height, area.width) == (128 / 192, 64 / 256, 32 / 192, 96 / 256)
    p.overlay_images = [SimpleNamespace(size=(9000, 9000))]
    with pytest.raises(NothingRecorded, match="too small beside its picture"):
        area_of(p, False)


def three(prompts: Any, base_steps: int, hires_steps: Any = None) -> Any:
    """Forge Neo's parser: one argument fewer than A1111's."""
    return [[[hires_steps or base_steps, "house"]]]


def four(prompts: Any, base_steps: int, hires_steps: Any = None, use_old_scheduling: bool = False) -> Any:
    return [[[int(use_old_scheduling), "house"]]]


@pytest.mark.parametrize(
    ("parse", "forge", "kind", "last"), [(three, True, ForgeNeo, 40), (four, True, Forge, 1), (four, False, A1111, 1)]
)
def test_a_host_is_known_by_what_it_has(
    monkeypatch: pytest.MonkeyPatch, parse: Any, forge: bool, kind: type, last: int
) -> None:
    """Its parser gets as many arguments as it takes."""
    parser = SimpleNamespace(
        get_multicond_prompt_list=lambda prompts: ([[(0, 1.0)]], prompts, None),
        get_learned_conditioning_prompt_schedules=parse,
    )
    parts = {
        "prompt_parser": parser, "sd_models": SimpleNamespace(**({"forge_loader": None} if forge else {})),
        "shared": SimpleNamespace(opts=SimpleNamespace(use_old_scheduling=True)),
        "sd_samplers": SimpleNamespace(find_sampler_config=lambda name: None),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "modules", SimpleNamespace(**parts))
    hosts.current.cache_clear()
    host = hosts.current()
    hosts.current.cache_clear()
    assert type(host) is kind
    p = SimpleNamespace(
        prompts=["x"], negative_prompts=["x"], hr_prompts=["x"], hr_negative_prompts=["x"], sampler_name="", steps=20,
        hr_second_pass_steps=40,
    )  # fmt: skip
    seen = host.pass_texts(p, True)
    assert seen.prompts[0][0] == seen.negatives[0] == ((last, "house"),)


def test_a_first_pass_is_cut_as_the_host_cuts_it() -> None:
    """17 rows of the enlarged latent of which the host cuts 3: one above, two below."""
    p = SimpleNamespace(enable_hr=True, truncate_x=0, truncate_y=3, hr_upscale_to_x=64, hr_upscale_to_y=17 * 8)
    maps = torch.arange(17.0)[:, None].expand(1, 17, 8)
    assert torch.equal(area_of(p, False).put(maps)[0, :, 0], torch.arange(17.0)[3 // 2 : 17 - (3 + 1) // 2])
    assert area_of(p, True).whole and area_of(SimpleNamespace(), False).whole


# -- what is shown -------------------------------------------------------------------------------------------------------


def maps_of(prompt: Prompt, n: int = 16) -> HeatMaps:
    generator = torch.Generator().manual_seed(1)
    sums = {(n, n): torch.rand(prompt.num_channels, n, n, generator=generator)}
    side = RecordedImage(
        sums=sums, time_weighted=sums, num_terms={(n, n): 8}, layers=(LayerInfo("mid.0", (n, n), 4, "mid"),),
        detail=None, heads=None, self_attention=None,
        prompt=prompt, steps=2, timesteps=(1.0, 0.0),
    )  # fmt: skip
    return HeatMaps({"prompt": side}, (64, 64), np.zeros((64, 64, 3), np.uint8))


def test_unknown_words_and_missing_detail_become_sentences() -> None:
    maps = maps_of(words_prompt("a red house"))
    look = draw(maps, Settings(True, words="house, zebra", masks=True, method="walk", layers="mid"))
    assert look.words == ["house"]
    assert [d.kind for d in look.drawn] == ["overlay"]
    assert any("zebra" in note for note in look.notes) and any("layer" in note for note in look.notes)
    assert any("self-attention" in note for note in look.notes)


def test_many_unknown_words_are_a_few_sentences() -> None:
    maps = maps_of(words_prompt("a red house"))
    look = draw(maps, Settings(True, words=", ".join(["house", *(f"zebra{i}" for i in range(2000))])))
    assert look.words == ["house"] and len(look.notes) == 9
    assert look.notes[-1] == "1992 more of the words that were asked for have no maps either."


def test_a_word_that_the_model_was_never_given_is_told_and_not_drawn() -> None:
    """Prompt editing whose step was not reached; a negative prompt that AUTOMATIC1111 cut off. Its map was black."""
    maps = maps_of(words_prompt("a red house blue"))
    sums = maps.sums[16, 16]
    sums[list(maps.prompt.find("blue").channels)] = 0
    look = draw(replace(maps, sides={**maps.sides, "negative": maps.sides["prompt"]}), Settings(True, negative=True))
    assert look.words == ["red", "house"] and [d.word for d in look.drawn if "negative" in d.word] == [
        "negative: red",
        "negative: house",
    ]
    (note,) = look.notes
    assert note.startswith("The model was never given “blue”, so there are no heat maps of that")
    sums[:] = 0
    look = draw(maps, Settings(True, words="red house"))
    assert "“a”, “red”, “house”, “blue”, so" in look.notes[0] and not look.words


@pytest.mark.parametrize(("method", "said"), [("walk", "needs the picture's self-attention"), ("guided", "follows the edges")])
def test_a_mask_that_cannot_be_made_says_what_to_choose_here(method: str, said: str) -> None:
    """“Send mask to inpaint” and the API showed the sentence for those who write Python."""
    maps = replace(maps_of(words_prompt("a red house")), picture=None)
    with pytest.raises(DetailMissing, match=rf"^The mask method {method} {said}[^`]*Choose best or threshold\.$"):
        mask_of(maps, "house", method, 0.4)


def test_a_word_that_may_be_missing_covers_nothing() -> None:
    """“covers 70 %” never stands beside “may be missing”."""
    maps = maps_of(words_prompt("house and tree"))
    (total,) = maps.sums.values()
    house, tree = (maps.prompt.find(word).channels[0] for word in ("house", "tree"))
    total[tree] = 0.1 * total[house]
    report = prompt_report(maps, ["house", "tree"])
    assert report.neglected == ("tree",)
    rows = {row.split("</td>")[0].rsplit(">", 1)[-1]: row for row in report_html(report).split("<tr")[2:]}
    assert "<td>–</td>" in rows["tree"] and "<td>–</td>" not in rows["house"].rsplit("<td>", 1)[0]


def test_a_long_prompt_shows_its_strongest_words_and_says_so() -> None:
    maps = maps_of(words_prompt(" ".join(f"thing{i}" for i in range(30))))
    look = draw(maps, Settings(True))
    assert look.words == maps.default_words(12) and len(look.drawn) == 12
    assert any("there are 18 more" in note for note in look.notes)
    assert len(draw(maps, Settings(True, words=", ".join(maps.words))).drawn) == 30
    assert look.report is not None and [word.word for word in look.report.words] == look.words


def test_the_caption_is_a_share_of_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def overlay(_picture: Any, heat: torch.Tensor, _opacity: float, _colormap: str, label: str, bar: bool, unit: str) -> Any:
        seen.update(top=float(heat.max()), label=label, unit=unit)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(drawing, "overlay", overlay)
    maps = maps_of(words_prompt("a red house"))
    drawing.overlay_of(maps, "house", 1.0, "ember")
    assert (seen["label"], seen["unit"]) == ("house", "%")
    assert seen["top"] == pytest.approx(float(maps.heat_map("house", maps.size).max()) / 8, rel=1e-5)  # 8 terms


@pytest.mark.parametrize("shipped", [True, False], ids=["Pillow's font", "matplotlib's font"])
def test_word_and_unit_stand_whole_below_the_smallest_picture(monkeypatch: pytest.MonkeyPatch, shipped: bool) -> None:
    """128 pixels, as the model inside draws; hosts that pin an old Pillow have wider letters."""
    drawn: list[str] = []
    fit = text.fit

    def noted(*args: Any) -> tuple[str, int]:
        drawn.append(fit(*args)[0])
        return fit(*args)

    monkeypatch.setattr(text, "fit", noted)
    if not shipped:
        monkeypatch.setattr(text, "font", text._installed_font)
    maps = maps_of(words_prompt("a red mushroom"))
    drawing.overlay_of(maps.with_picture(np.zeros((128, 128, 3), np.uint8)), "mushroom", 1.0, "ember")
    assert "mushroom" in drawn and "0 %" in drawn and not any("…" in line for line in drawn)


def test_all_layers_have_a_name() -> None:
    assert Settings(True, layers="all").places == () == Settings.from_args([{"layers": "all"}]).places
    assert Settings.from_args([{"layers": "mid, up"}]).places == ("mid", "up")


def test_what_a_user_wrote_is_never_html() -> None:
    maps = maps_of(words_prompt("<script>alert(1)</script> house"))
    html = report_html(prompt_report(maps, maps.words), ["<b>note</b>"], "<i>title</i>")
    assert "<script" not in html and "<b>" not in html and "<i>" not in html and "&lt;b&gt;" in html


def test_memory_of_runs_is_bounded() -> None:
    maps = maps_of(words_prompt("red house"))
    runs = RecordingStore(most=3)
    kept = [runs.keep(maps, Settings(), ["house"], seed) for seed in range(5)]
    assert [run.seed for run in runs.newest_first()] == [4, 3, 2]
    assert runs.find(kept[0].id) is None and runs.find(kept[4].id) is kept[4]
    one = RecordingStore(most_bytes=1)
    one.keep(maps, Settings(), [], 1)
    last = one.keep(maps, Settings(), [], 2)
    assert one.newest_first() == [last]


# -- the doors ---------------------------------------------------------------------------------------------------------


def test_install_has_nothing_to_do_and_is_quick() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "install.py")], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_install_asks_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("daam_lens_install", ROOT / "install.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NEEDED", {"json": "json", "no_such_module_here": "its-package"})
    assert module.missing() == ["its-package"]
    asked: list[str] = []
    monkeypatch.setitem(sys.modules, "launch", SimpleNamespace(run_pip=lambda command, what: asked.append(command)))
    module.install(["its-package"])
    assert asked == ['install "its-package"']


def test_only_the_door_and_the_page_import_the_host() -> None:
    allowed = {
        "hosts/a1111.py",
        "hosts/forge.py",
        "hosts/forge_neo.py",
        "hosts/reading.py",
        "hosts/sdnext.py",
        "hosts/__init__.py",
        "script.py",
        "pipeline_script.py",
        "options.py",
        "xyz.py",
        "api.py",
    }
    folder = ROOT / "daam_webui"
    for path in folder.rglob("*.py"):
        if re.search(r"\b(from|import) modules\b", path.read_text(encoding="utf-8")):
            assert path.relative_to(folder).as_posix() in allowed, path


def test_every_file_of_the_extension_is_there() -> None:
    for name in ("scripts/daam_lens.py", "javascript/daam_lens.js", "style.css", "install.py"):
        assert (ROOT / name).is_file()
    assert not (Path(ROOT) / "scripts" / "__init__.py").exists()
