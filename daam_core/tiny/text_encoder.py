"""The text encoder: a two-layer CLIPTextModel, trained alone on captions and then frozen, as CLIP is in Stable Diffusion.

It stands in for CLIP's contrastive stage: each noun's vector learns its colour, the end and padding vectors learn the
whole scene. Without this stage the UNet did not learn any shape in 146,000 images.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import optim
from .captions import BACKGROUNDS, COLOUR_NAMES, PLACES, RELATIONS, random_pairs, random_wording
from .loop import Generators, Recipe
from .precision import autocast
from .shapes import NOUNS
from .tokenizer import LENGTH, words

WIDTH = 128
RECIPE = Recipe(images=70_000, batch=128, peak_rate=2e-3, warm_up=50, constant=0.1, seed=11)
UNNAMED = len(COLOUR_NAMES)  # class of a noun whose colour the caption leaves out


@dataclass(frozen=True)
class Fact:
    """A training caption and its facts: text, (colour, noun) pairs, whether each colour is named, place class."""

    text: str
    pairs: tuple[tuple[str, str], ...]
    colour_named: tuple[bool, ...]
    place: int


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIPTextModel of 2 layers and 128 channels with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def random_fact(rng: np.random.Generator) -> Fact:
    """A caption of the training world (no unreal pair), without its picture."""
    pairs = random_pairs(rng, 1 + int(rng.random() < 0.5))
    sizes: list[str | None] = [("small", "big", None)[int(rng.integers(0, 3))] for _ in pairs]
    relation = RELATIONS[int(rng.integers(0, len(RELATIONS)))]
    background = BACKGROUNDS[int(rng.integers(0, len(BACKGROUNDS)))]
    worded = random_wording(rng, pairs, sizes, relation, background)
    colours = tuple(
        worded.tree[noun - 1].word == colour if noun else False for noun, (colour, _) in zip(worded.nouns, pairs, strict=True)
    )
    place = BACKGROUNDS.index(background) if PLACES[background] and worded.text.endswith(PLACES[background]) else 0
    return Fact(worded.text, tuple(pairs), colours, place)


def with_filler(rng: np.random.Generator, text: str) -> str:
    """Put one or two words that mean nothing here somewhere into a caption: users will write such words."""
    parts = text.split()
    known = [*words(), "!", ",", "."]
    meaning = {*NOUNS, *COLOUR_NAMES, *(w for p in PLACES.values() for w in p.split()), *" ".join(RELATIONS).split()}
    neutral = [w for w in known if w not in meaning]
    for _ in range(int(rng.integers(1, 3))):
        if rng.random() < 0.5:
            word = "".join(string.ascii_lowercase[int(k)] for k in rng.integers(0, 26, int(rng.integers(2, 8))))
        else:
            word = neutral[int(rng.integers(0, len(neutral)))]
        if word not in meaning:
            parts.insert(int(rng.integers(0, len(parts) + 1)), word)
    return " ".join(parts)


class Readers(torch.nn.Module):
    """Linear probes that are trained with the encoder and thrown away: they define what each vector must hold."""

    def __init__(self, slot: int = 24) -> None:
        super().__init__()
        self.slot = slot
        self.noun = torch.nn.Linear(WIDTH, len(NOUNS))
        self.colour = torch.nn.Linear(WIDTH, len(COLOUR_NAMES) + 1)
        self.place = torch.nn.Linear(WIDTH, len(BACKGROUNDS))
        self.slots = torch.nn.Linear(WIDTH, len(NOUNS) * slot)
        # One colour reader for the slots of all nouns: a colour means the same on a noun that never wore it.
        self.slot_colour = torch.nn.Linear(slot, len(COLOUR_NAMES) + 2)

    def scene(self, end: torch.Tensor) -> torch.Tensor:
        """Per noun: absent, one of the colours, or unnamed. [B, 128] -> [B, nouns, colours + 2]."""
        return self.slot_colour(self.slots(end).view(len(end), len(NOUNS), self.slot))


class TextStage:
    """Trains the text encoder on captions alone."""

    name = "text"

    def __init__(self, tokenizer: CLIPTokenizer, device: torch.device, recipe: Recipe = RECIPE) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.tokenizer = recipe, device, tokenizer
        self.encoder = make_text_encoder(tokenizer).to(device)
        self.readers = Readers().to(device)
        self.modules: dict[str, torch.nn.Module] = {"text_encoder": self.encoder, "readers": self.readers}
        self.averaged: dict[str, torch.nn.Module] = {}
        parameters = [p for m in self.modules.values() for p in m.parameters()]
        self.optimisers: list[torch.optim.Optimizer] = [optim.adamw(parameters)]
        self._noun_ids = torch.tensor(tokenizer.convert_tokens_to_ids([n + "</w>" for n in NOUNS]))

    def loss(self, generators: Generators, batch: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Cross-entropy of the readers at the nouns and at one random end or padding position."""
        facts = [random_fact(generators.numpy) for _ in range(batch)]
        texts = [with_filler(generators.numpy, f.text) if generators.numpy.random() < 0.12 else f.text for f in facts]
        # Every fourth step sees all 77 positions; the others see the first 32, which costs less than half.
        length = LENGTH if generators.numpy.random() < 0.25 else 32
        ids = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        rows, columns, nouns, colours = [], [], [], []
        scene = torch.zeros(batch, len(NOUNS), dtype=torch.long)
        for row, fact in enumerate(facts):
            for (colour, noun), named in zip(fact.pairs, fact.colour_named, strict=True):
                number = NOUNS.index(noun)
                label = COLOUR_NAMES.index(colour) if named else UNNAMED
                scene[row, number] = 1 + label
                at = torch.nonzero(ids[row] == self._noun_ids[number])
                if len(at):  # a long caption may be cut before its noun
                    rows.append(row)
                    columns.append(int(at[0]))
                    nouns.append(number)
                    colours.append(label)
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        pick = ends + (torch.rand(batch, generator=generators.torch) * (length - ends)).long()
        device = self.device
        with autocast(device):
            hidden = self.encoder(ids.to(device)).last_hidden_state
        hidden = hidden.float()
        at_noun, at_end = hidden[rows, columns], hidden[torch.arange(batch), pick.to(device)]
        told = self.readers.scene(at_end)
        target = scene.to(device)
        noun_loss = F.cross_entropy(self.readers.noun(at_noun), torch.tensor(nouns, device=device))
        colour_loss = F.cross_entropy(self.readers.colour(at_noun), torch.tensor(colours, device=device))
        scene_loss = F.cross_entropy(told.transpose(1, 2), target)
        place = torch.tensor([f.place for f in facts], device=device)
        place_loss = F.cross_entropy(self.readers.place(at_end), place)
        right = (told.argmax(2) == target)[target > 0].float().mean()
        loss = noun_loss + colour_loss + 3.0 * scene_loss + 0.3 * place_loss
        return loss, {
            "noun": float(noun_loss.detach()),
            "colour": float(colour_loss.detach()),
            "scene": float(scene_loss.detach()),
            "scene right": float(right),
        }
