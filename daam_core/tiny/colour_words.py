"""Makes colour words carry their colour: two students of the frozen text encoder.

In the encoder that the first stage trains, a noun knows its colour and the end and padding tokens know the whole scene,
so that the UNet never has to look at a colour word. Here two encoders of the same shape learn other targets, all of
them made from the teacher's own vectors:

- **named** (the one that ships): as the teacher, but a colour token holds what its noun held of the colour, and which of the
  two things it belongs to; every token from the words of a relation on holds the relation.
- **bare**: colour and relation tokens as in `named`; noun, end and padding are those of the caption without its
  colours, so that nothing but the colour word tells the colour.

The relation has to be as plain as a colour is. The encoder of 0.6.0 to 0.9.0 held it at the words of the relation and at
the second thing's colour alone, a tenth as strong as colours, and the UNet never heeded it: whether the text said "above" or
"below" moved nothing.

Where the teacher is a `named` encoder already, it stays as it is and only `bare` learns.

The UNet is shown one or the other, picture by picture. Both are causal: a colour token stands before its noun and can
only learn the mean over all nouns, which is the colour alone. Attention is never supervised.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from . import optim
from .captions import COLOUR_NAMES, RELATIONS
from .loop import Generators, Recipe
from .precision import autocast
from .shapes import NOUNS
from .text_encoder import WIDTH, random_fact, with_filler
from .tokenizer import LENGTH

RECIPE = Recipe(images=64_000, batch=96, peak_rate=1e-3, warm_up=30, constant=0.0, seed=13)
STRENGTH = 3.0  # length of an added direction; a vector of the encoder has a length of about 11
RELATED = 6.0  # the same of a relation: two captions that differ in it are as far apart as two that differ in a colour
COLOUR, NOUN, RELATION = 1, 2, 3  # kinds of tokens; 0 is any other


@dataclass(frozen=True)
class Reading:
    """What the tokens of a batch of captions are, all int64 [B, T].

    `kind` is one of the constants above or 0; `thing` 0 or 1: the first or the second object; `relation` the index in
    `RELATIONS` of the words of a relation and of what stands behind, 0 elsewhere; `noun` the position of a colour's noun.
    `bare` holds the ids of the caption without its colours and `at` each token's position in it (of a colour: the position
    before).
    """

    kind: torch.Tensor
    thing: torch.Tensor
    relation: torch.Tensor
    noun: torch.Tensor
    bare: torch.Tensor
    at: torch.Tensor


def directions(width: int = WIDTH, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthogonal directions of zero mean, unit length: of the things [2, width] and of the relations [4, width].

    The plain "and" adds nothing: its row is zero. Zero mean, because the last layer norm takes means away.
    """
    generator = torch.Generator().manual_seed(seed)
    count = 2 + len(RELATIONS) - 1
    columns = torch.cat([torch.ones(width, 1), torch.randn(width, count, generator=generator)], 1)
    basis = torch.linalg.qr(columns)[0].T[1:]
    return basis[:2], torch.cat([torch.zeros(1, width), basis[2:]])


class CaptionTokens:
    """Finds the colours, nouns and relations of tokenised captions."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        def ids(names: tuple[str, ...]) -> dict[int, int]:
            return {int(tokenizer.convert_tokens_to_ids(name + "</w>")): k for k, name in enumerate(names)}

        self._colours, self._nouns = ids(COLOUR_NAMES), ids(NOUNS)
        self._relations = ids(tuple(name.split()[0] for name in RELATIONS))
        self._to, self._a, self._an = (int(tokenizer.convert_tokens_to_ids(w + "</w>")) for w in ("to", "a", "an"))
        self._end = int(tokenizer.convert_tokens_to_ids("<|endoftext|>"))

    def read(self, ids: torch.Tensor) -> Reading:
        """The reading of token ids [B, T]; a colour counts only right before a noun of the world."""
        kind, thing, relation, noun, at = (torch.zeros_like(ids) for _ in range(5))
        bare = torch.full_like(ids, self._end)
        for row, line in enumerate(ids.tolist()):
            kept: list[int] = []
            nouns = related = 0
            for place, token in enumerate(line):
                after = line[place + 1] if place + 1 < len(line) else -1
                at[row, place] = len(kept)
                thing[row, place] = min(nouns, 1)
                relation[row, place] = related if nouns else 0
                if token in self._colours and after in self._nouns:
                    kind[row, place], noun[row, place] = COLOUR, place + 1
                    at[row, place] = max(len(kept) - 1, 0)
                    continue
                if token in self._nouns:
                    kind[row, place] = NOUN
                    nouns += 1
                elif nouns == 1 and token in self._relations and self._relations[token]:
                    related = self._relations[token]
                    kind[row, place], relation[row, place] = RELATION, related
                elif token == self._to and kind[row, place - 1] == RELATION:
                    kind[row, place] = RELATION
                elif token == self._an and after in self._colours and line[place + 2] in self._nouns:
                    token = self._a  # "an orange car" without its colour is "a car"
                kept.append(token)
            bare[row, : len(kept)] = torch.tensor(kept)
        return Reading(kind, thing, relation, noun, bare, at)


@torch.no_grad()
def carries_colours(encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> bool:
    """Whether an encoder is a student `named` already: its colour words tell the first thing from the second."""
    captions = ["a red house and a red tree", "a blue fish and a blue sun", "a pink star and a pink car"]
    ids = tokenizer(captions, return_tensors="pt").input_ids
    states = encoder(ids.to(encoder.device)).last_hidden_state.float().cpu().mean(0)
    things = directions(encoder.config.hidden_size)[0]
    # Near two lengths of STRENGTH where both words were taught theirs (5.1 as it ships), 1.2 before.
    return float((states[6] - states[2]) @ (things[1] - things[0])) > STRENGTH


@torch.no_grad()
def carries_relations(encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> bool:
    """Whether what an encoder makes of a caption's second thing and of its end tells "above" from "below"."""
    words = ("above", "below")
    ids = tokenizer([f"a red house {word} a blue tree" for word in words], return_tensors="pt").input_ids
    above, below = encoder(ids.to(encoder.device)).last_hidden_state.float().cpu()[:, -2:].mean(1)
    of = [RELATIONS.index(word) for word in words]
    relations = directions(encoder.config.hidden_size)[1]
    # Near two lengths of RELATED where it was taught, under 1 before.
    return float((above - below) @ (relations[of[0]] - relations[of[1]])) > RELATED


@torch.no_grad()
def targets(
    teacher: CLIPTextModel, ids: torch.Tensor, reading: Reading, taught: bool = False, told: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `named` and `bare` learn, both float32 [B, T, C] (see the module).

    named = teacher(caption)                                    bare = teacher(caption without colours)
    both, at a colour: teacher(caption) at its noun + thing
    both, from the words of a relation on: + relation           bare, at a noun: + thing

    A teacher that was `taught` holds the colours at their words already, one that was `told` the relations.
    """
    things, relations = (d.to(ids.device) for d in directions(teacher.config.hidden_size))
    full = teacher(ids).last_hidden_state.float()
    plain = teacher(reading.bare).last_hidden_state.float()

    def gathered(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return states.gather(1, places.clamp(max=ids.shape[1] - 1)[..., None].expand(-1, -1, states.shape[2]))

    colour, noun = ((reading.kind == k)[..., None] for k in (COLOUR, NOUN))
    thing = STRENGTH * things[reading.thing]
    related = torch.zeros_like(full) if told else RELATED * relations[reading.relation]
    coloured = full if taught else gathered(full, reading.noun) + thing
    named = torch.where(colour, coloured, full) + related
    bare = torch.where(colour, coloured, gathered(plain, reading.at) + thing * noun) + related
    return named, bare


class ColourWordStage:
    """Trains the two students on captions alone, from the teacher's weights.

    Where the teacher is `named` already, `named` is the teacher.
    """

    name = "words"

    def __init__(self, teacher: CLIPTextModel, tokenizer: CLIPTokenizer, device: torch.device, recipe: Recipe = RECIPE) -> None:
        self.recipe, self.device, self.tokenizer = recipe, device, tokenizer
        self.teacher = teacher.eval().requires_grad_(False).to(device)
        self.taught, self.told = carries_colours(self.teacher, tokenizer), carries_relations(self.teacher, tokenizer)
        self.kept = self.taught and self.told
        self.named = copy.deepcopy(self.teacher).train(not self.kept).requires_grad_(not self.kept)
        self.bare = copy.deepcopy(self.teacher).train().requires_grad_(True)
        self.modules: dict[str, torch.nn.Module] = {"named": self.named, "bare": self.bare}
        self.averaged: dict[str, torch.nn.Module] = {}
        parameters = [p for m in self.modules.values() for p in m.parameters() if p.requires_grad]
        self.optimisers: list[torch.optim.Optimizer] = [optim.adamw(parameters)]
        self._tokens = CaptionTokens(tokenizer)

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Squared distance to the targets; what carries the meaning counts more than padding."""
        rng = generators.numpy
        facts = [random_fact(rng) for _ in range(batch)]
        texts = [with_filler(rng, f.text) if rng.random() < 0.12 else f.text for f in facts]
        length = LENGTH if rng.random() < 0.25 else 32  # as in the first stage: most steps see 32 positions
        ids = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        reading = self._tokens.read(ids)
        reading = Reading(*(x.to(self.device) for x in vars(reading).values()))
        ids = ids.to(self.device)
        weight = torch.where(reading.kind > 0, 6.0, 1.0)
        weight = torch.where(ids == self.tokenizer.eos_token_id, 0.3, weight)
        figures: dict[str, float] = {}
        total = torch.zeros((), device=self.device)
        for name, target in zip(("named", "bare"), targets(self.teacher, ids, reading, self.taught, self.told), strict=True):
            if self.kept and name == "named":
                continue
            with autocast(self.device):
                states = self.modules[name](ids).last_hidden_state
            error = (states.float() - target).pow(2).mean(-1)
            total = total + (error * weight).sum() / weight.sum()
            parts = {"colour": reading.kind == COLOUR, "noun": reading.kind == NOUN, "related": reading.relation > 0}
            for what, part in parts.items():
                if bool(part.any()):
                    figures[f"{name} {what}"] = float(error[part].mean().detach())
        return total, figures
