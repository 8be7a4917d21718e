"""Weights that the world's training of faces begins with: the published networks, only narrower.

``train anchor`` and ``train reconfigure`` go on from a checkpoint (``anchor.initial``, ``reconfigure.initial``), whose
tensors say how wide the networks are; so nothing in training knows of the world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bases import UNetLayout
from ..checkpoints import load_saa, write_motion, write_saa
from ..landmarks import EXPRESSIONS
from ..networks.face_encoder import FaceEncoder
from ..networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from ..networks.perceiver import HEAD_WIDTH
from ..networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from ..origins import Origin
from ..prompts import GRID_POSES, GRID_WORDS, grid_prompt, preset_prompt
from ..training.anchor import new_face_encoder, new_saa
from . import text, vision
from .teaching import TOKENS
from .text import WIDTH as TEXT_WIDTH
from .vision import WIDTH as CLIP_WIDTH
from .world import CLIP_VISION

RANK = 10
FACE_ENCODER = {"tokens": len(TOKENS), "hidden": 96, "depth": 2, "inner": 256, "feed_forward": 192}
KEYPOINTS = KeypointEncoderSizes(channels=(8, 16, 24, 48, 64, 96), head=128, out=128)
RECONFIGURATOR = ReconfiguratorSizes(
    token=TEXT_WIDTH, motion=KEYPOINTS.out + TEXT_WIDTH, width=128, inner=128, feed_forward=384
)

# Where the four heads of each of ``teaching.TOKENS`` look, in the first and in the second layer: x and y in what CLIP sees,
# twice as large as the face. Those that say nothing look nowhere.
LOOKS = {
    "skin": (((0.38, 0.5), (0.62, 0.5), (0.5, 0.5), (0.5, 0.75)), ((0.28, 0.5), (0.72, 0.5), (0.5, 0.52), (0.5, 0.3))),
    "hair": (((0.5, 0.12), (0.22, 0.4), (0.78, 0.4), (0.35, 0.15)), ((0.2, 0.7), (0.8, 0.7), (0.5, 0.05), (0.65, 0.15))),
    "hat": (((0.5, 0.05), (0.5, 0.15), (0.36, 0.12), (0.64, 0.12)), ((0.5, 0.2), (0.25, 0.2), (0.75, 0.2), (0.5, 0.02))),
    "beard": (((0.5, 0.58), (0.5, 0.75), (0.38, 0.62), (0.62, 0.62)), ((0.5, 0.52), (0.3, 0.6), (0.7, 0.6), (0.5, 0.7))),
    "glasses": (((0.41, 0.4), (0.59, 0.4), (0.5, 0.4), (0.26, 0.4)), ((0.36, 0.44), (0.64, 0.44), (0.41, 0.36), (0.59, 0.36))),
    "mark": (((0.35, 0.52), (0.65, 0.52), (0.2, 0.52), (0.8, 0.52)), ((0.5, 0.5), (0.4, 0.58), (0.6, 0.58), (0.2, 0.58))),
    "expression": (((0.44, 0.65), (0.56, 0.65), (0.41, 0.31), (0.59, 0.31)), ((0.5, 0.65), (0.5, 0.7), (0.41, 0.39), (0.59, 0.39))),
    # as the head turns, the nose and what is left of each side of the face move
    "pose": (((0.5, 0.5), (0.4, 0.45), (0.6, 0.45), (0.5, 0.65)), ((0.27, 0.5), (0.73, 0.5), (0.42, 0.55), (0.58, 0.55))),
}  # fmt: skip
SHARPNESS = 4.0  # of their first look: about three patches of sixteen across
# How the words of training and those of menus name an expression and a pose, and how loud that is at first.
PHRASINGS = (grid_prompt, lambda expression, pose: preset_prompt(GRID_WORDS[expression], pose=pose))
LOUDNESS = 2.0


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
    states.weight.mul_(0.1)  # what is beyond the coordinates
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
            looked = [
                vision.place_code(*LOOKS[what][number % 2][head % 4]) if what else np.zeros(2 * vision.WAVES)
                for what in TOKENS
            ]
            wanted = torch.from_numpy(np.stack(looked)).float()  # [T, 16]
            queries[rows] = SHARPNESS * wanted.T @ own / width


def begin_motion(saa: Path, path: Path, tokens: Tensor, seed: int = 0) -> Path:
    """A checkpoint with a key point encoder of random weights and an IMR that leaves tokens of ``saa`` as they are.

    ``tokens`` [N, T, 768]: of photos, whose main directions it keeps; and its motion latents tell the words of expressions and
    poses apart from the beginning. Random weights have both to find: for 400 steps they gave everybody one motion.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        keypoints, reconfigurator = KeypointEncoder(KEYPOINTS), Reconfigurator(RECONFIGURATOR)
        leave_tokens(reconfigurator, tokens.float())
        hear_words(reconfigurator)
        return write_motion(path, reconfigurator, keypoints, load_saa(saa).origin)


@torch.no_grad()
def leave_tokens(reconfigurator: Reconfigurator, tokens: Tensor) -> None:
    """In and out by the principal axes of normed tokens; what layers add is small at first."""
    width = reconfigurator.sizes.width
    normed = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:]).flatten(0, 1)
    mean = normed.mean(0)
    axes = torch.linalg.svd(normed - mean, full_matrices=False).Vh[:width]  # [width, 768]
    spread = ((normed - mean) @ axes.T).std(0).mean()
    reconfigurator.proj_in.weight.copy_(axes / spread)
    reconfigurator.proj_in.bias.copy_(-(axes @ mean) / spread)
    flat = tokens.flatten(0, 1)
    inside = reconfigurator.norm_out(reconfigurator.proj_in(reconfigurator.norm_in(flat)))
    weight, bias = fitted(inside, flat)
    reconfigurator.proj_out.weight.copy_(weight)
    reconfigurator.proj_out.bias.copy_(bias)
    for layer in (*reconfigurator.disentangleNet, *reconfigurator.entangleNet):
        cross, own, feed = layer
        for end in (cross.to_out.weight, own.to_out.weight, feed[-1].weight):
            end.mul_(0.1)


@torch.no_grad()
def hear_words(reconfigurator: Reconfigurator) -> None:
    """The first twelve numbers that motion latents are made of: 1 for the expression and the pose that a text names, -1 else.

    The text's feature comes behind that of the landmarks; words of expressions are a small part of its length.
    """
    said = [(e, p, make(e, p)) for e in EXPRESSIONS for p in GRID_POSES for make in PHRASINGS]
    features = torch.from_numpy(np.stack([text.pooled(words) for _, _, words in said]))
    shown = (
        torch.tensor([[*(e == x for x in EXPRESSIONS), *(p == x for x in GRID_POSES)] for e, p, _ in said]) * 2.0 - 1
    )
    weight, bias = fitted(features, shown, ridge=10)
    fusion: Any = reconfigurator.feature_fusion
    first, rows = fusion[1], shown.shape[1]
    first.weight[:rows] = 0
    first.weight[:rows, KEYPOINTS.out :] = LOUDNESS * weight
    first.bias[:rows] = LOUDNESS * bias
    # GELU hears only what is above 0: each number once more, turned around
    first.weight[rows : 2 * rows], first.bias[rows : 2 * rows] = -first.weight[:rows], -first.bias[:rows]


def fitted(seen: Tensor, wanted: Tensor, ridge: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weight [m, n] and bias [m] of the linear layer that makes ``wanted`` [N, m] of ``seen`` [N, n] best (ridge regression)."""
    known = torch.cat((seen, torch.ones(len(seen), 1)), 1)
    solved = torch.linalg.solve(known.T @ known + ridge * torch.eye(known.shape[1]), known.T @ wanted)
    return solved[:-1].T, solved[-1]
