"""Weights that the world's training of faces begins with: the published networks, only narrower.

``train anchor`` and ``train reconfigure`` go on from a checkpoint (``anchor.initial``, ``reconfigure.initial``), whose
tensors say how wide the networks are; so nothing in training knows of the world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bases import UNetLayout
from ..checkpoints import load_saa, write_motion, write_saa
from ..networks.face_encoder import FaceEncoder
from ..networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from ..networks.perceiver import HEAD_WIDTH
from ..networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from ..origins import Origin
from ..training.anchor import new_face_encoder, new_saa
from . import vision
from .text import WIDTH as TEXT_WIDTH
from .vision import WIDTH as CLIP_WIDTH
from .world import CLIP_VISION

RANK = 12
FACE_ENCODER = {"hidden": 96, "depth": 2, "inner": 256, "feed_forward": 192}
KEYPOINTS = KeypointEncoderSizes(channels=(8, 16, 24, 48, 64, 96), head=128, out=128)
RECONFIGURATOR = ReconfiguratorSizes(
    token=TEXT_WIDTH, motion=KEYPOINTS.out + TEXT_WIDTH, width=128, inner=128, feed_forward=384
)


# Where the four heads of each token look, in the first and in the second layer: x and y in what CLIP sees, twice as large
# as the face. Tokens as in ``teaching.spoken``: skin and pose; hair; what is worn or grown; expression.
LOOKS = (
    (((0.38, 0.5), (0.62, 0.5), (0.5, 0.5), (0.5, 0.75)), ((0.28, 0.5), (0.72, 0.5), (0.5, 0.52), (0.5, 0.3))),
    (((0.5, 0.12), (0.22, 0.4), (0.78, 0.4), (0.35, 0.15)), ((0.2, 0.7), (0.8, 0.7), (0.5, 0.05), (0.65, 0.15))),
    (((0.5, 0.15), (0.41, 0.4), (0.59, 0.4), (0.5, 0.75)), ((0.5, 0.58), (0.35, 0.65), (0.65, 0.65), (0.22, 0.55))),
    (((0.44, 0.65), (0.56, 0.65), (0.41, 0.31), (0.59, 0.31)), ((0.5, 0.65), (0.5, 0.7), (0.41, 0.39), (0.59, 0.39))),
)
SHARPNESS = 4.0  # of their first look: about three patches of sixteen across


def begin_saa(unet: Any, path: Path, seed: int = 0) -> Path:
    """A checkpoint with a face encoder of random weights, and SAA weights that change nothing yet but for the faces."""
    encoder = new_face_encoder(unet, CLIP_WIDTH, seed, **FACE_ENCODER)
    look_at_faces(encoder, seed)
    origin: Origin = UNetLayout.of(unet).origin(
        recogniser="drawn", clip_vision=Path(CLIP_VISION).stem, text_feature="clip_l"
    )
    return write_saa(path, encoder, new_saa(unet, RANK, seed), origin)


@torch.no_grad()
def look_at_faces(encoder: FaceEncoder, seed: int = 0) -> None:
    """Let tokens differ between people, and each look at parts of a face, from the beginning.

    An identity has length 1, so that a new layer says less of it than its bias does: 3 % of the tokens' variance is
    between people, and training takes thousands of steps to find them. And attention of random weights sees all of a
    photo alike, in whose mean no mouth can be read (``teaching``: expressions stay at chance). So the identity is made
    louder; each token has a direction of its own, from which every head's query for the places in ``LOOKS`` is made; and CLIP's
    states are taken apart into what is seen and where, which keys then begin with.
    """
    generator = torch.Generator().manual_seed(seed)
    proj: Any = encoder.proj
    first, last = proj[0], proj[2]
    first.weight.mul_((3 * first.in_features) ** 0.5)
    first.bias.zero_()
    last.weight.mul_(2)
    tokens, width = encoder.sizes.tokens, encoder.sizes.width
    own = torch.randint(0, 2, (tokens, width), generator=generator) * 2.0 - 1  # +1 or -1
    last.bias.copy_(own.flatten())
    states: Any = encoder.perceiver_resampler.proj_in
    taken_apart = torch.from_numpy(vision.coordinates())
    states.weight.zero_()
    states.weight[: len(taken_apart)] = taken_apart
    states.bias.zero_()
    code = slice(len(taken_apart) - 2 - 2 * vision.WAVES, len(taken_apart) - 2)
    layers: Any = encoder.perceiver_resampler.layers
    for number, (attention, _) in enumerate(layers):
        keys, queries = attention.to_kv.weight, attention.to_q.weight
        for head in range(attention.heads):
            rows = slice(head * HEAD_WIDTH, head * HEAD_WIDTH + 2 * vision.WAVES)
            keys[rows] = 0
            keys[rows, code] = torch.eye(2 * vision.WAVES)
            looked = [LOOKS[token][number % 2][head % 4] for token in range(tokens)]
            wanted = torch.from_numpy(np.stack([vision.place_code(*place) for place in looked])).float()  # [T, 16]
            queries[rows] = SHARPNESS * wanted.T @ own / width


def begin_motion(saa: Path, path: Path, seed: int = 0) -> Path:
    """A checkpoint with IMR and key point encoder of random weights, for the tokens of ``saa``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        keypoints = KeypointEncoder(KEYPOINTS)
        return write_motion(path, Reconfigurator(RECONFIGURATOR), keypoints, load_saa(saa).origin)
