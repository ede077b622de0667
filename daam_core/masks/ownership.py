"""Whose a part of the figure is: the words' own heat decides, part by part where the figure has necks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..opencv import cv2
from . import edge_smoothing as smoother
from .validate import Array, Mask

# Lab units. An edge within the figure holds a value back, and does not stop it: a window is its house's.
_WITHIN = 30.0
# Of the smoother: a figure's parts become even, and what joins two of them stays a slope.
_STRENGTH = 1000.0
_NOBODYS = -1.0


def owners(figure: Mask, heat: Array, own: Array, lab: Array, home: float, strong: float) -> npt.NDArray[np.int64]:
    """The word that owns each pixel of the figure, int64 `[H, W]`, -1 for none.

    A connected part belongs to the words that are at home in it (near their own maximum); heat that another word leaks
    there, as alike objects do, does not count. Without any such word, those that are strong in it compete; without
    these it is nobody's.

    Several words compete by their heat before propagation, for along self-attention it runs from an object to its
    neighbour of the same colour. It is spread over the figure as if that was cut out of the picture: within, an edge of
    colour slows it down and a neck does, too, so that of two objects which touch each becomes even and the border between
    them lies where they differ in colour or, of one colour, where the figure is narrow.

    Args:
        figure: bool `[H, W]`.
        heat: float32 `[words, H, W]`, 0..1, after propagation: who is at home.
        own: float32 `[words, H, W]`, before propagation, as a share of each word's maximum.
        lab: the picture's colours, see `color_model.lab`.
        home, strong: heat that makes a part a word's own, and that lets it compete where nobody is at home.
    """
    count, labels = cv2.connectedComponents(figure.astype(np.uint8), connectivity=8)
    strength = np.zeros((len(heat), count), np.float32)
    for word, one in enumerate(heat):
        np.maximum.at(strength[word], labels.ravel(), one.ravel())
    at_home = strength >= home
    competes = np.where(at_home.any(0), at_home, strength >= strong)
    competes[:, 0] = False
    if (competes.sum(0) > 1).any():
        cut_out = np.concatenate([lab, 6 * _WITHIN * figure[..., None].astype(np.float32)], -1)
        own = smoother.smoothed(own, smoother.links(cut_out, _WITHIN), _STRENGTH)
    score = np.where(competes[:, labels], own, _NOBODYS)
    owned: Mask = np.asarray(competes.any(0))[labels]
    return np.where(owned, score.argmax(0), -1)
