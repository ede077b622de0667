"""Numbers of the transformer inside that those need, too, who build it without diffusers."""

from __future__ import annotations

BLOCKS = 4
HEAD = 64  # channels: ComfyUI's class has heads of 64 and as many heads as the width holds
WIDTH = BLOCKS * HEAD
PATCH = 2  # latents each way that are one position: 8 x 8 positions of a 128 x 128 picture
SIDE = 16  # of a latent
LARGEST = 32  # side of the largest latent that has positions
TOKENS = 20  # read at once: the world's longest caption has 17 with start and end
SHIFT = 2.0  # of the noise levels towards noise, in training and in sampling
STEPS = 25
GUIDANCE = 4.0
