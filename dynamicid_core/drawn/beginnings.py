"""Weights that the world's training of faces begins with: the published networks, only narrower.

``train anchor`` and ``train reconfigure`` go on from a checkpoint (``anchor.initial``, ``reconfigure.initial``), whose
tensors say how wide the networks are; so nothing in training knows of the world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..bases import UNetLayout
from ..checkpoints import load_saa, write_motion, write_saa
from ..networks.face_encoder import FaceEncoder
from ..networks.keypoints import KeypointEncoder, KeypointEncoderSizes
from ..networks.reconfigurator import Reconfigurator, ReconfiguratorSizes
from ..origins import Origin
from ..training.anchor import new_face_encoder, new_saa
from .text import WIDTH as TEXT_WIDTH
from .vision import WIDTH as CLIP_WIDTH
from .world import CLIP_VISION

RANK = 12
FACE_ENCODER = {"hidden": 96, "depth": 2, "inner": 192, "feed_forward": 192}
KEYPOINTS = KeypointEncoderSizes(channels=(8, 16, 24, 48, 64, 96), head=128, out=128)
RECONFIGURATOR = ReconfiguratorSizes(
    token=TEXT_WIDTH, motion=KEYPOINTS.out + TEXT_WIDTH, width=128, inner=128, feed_forward=384
)


def begin_saa(unet: Any, path: Path, seed: int = 0) -> Path:
    """A checkpoint with a face encoder of random weights, and SAA weights that change nothing yet but for the faces."""
    encoder = new_face_encoder(unet, CLIP_WIDTH, seed, **FACE_ENCODER)
    show_identity(encoder)
    origin: Origin = UNetLayout.of(unet).origin(
        recogniser="drawn", clip_vision=Path(CLIP_VISION).stem, text_feature="clip_l"
    )
    return write_saa(path, encoder, new_saa(unet, RANK, seed), origin)


@torch.no_grad()
def show_identity(encoder: FaceEncoder) -> None:
    """Let tokens differ between people from the beginning.

    An identity has length 1, so that a new layer says less of it than its bias does: 3 % of the tokens' variance is
    between people, and training takes thousands of steps to find them. Here the first layer gives numbers around 1; then it
    is three quarters of the variance.
    """
    proj: Any = encoder.proj
    first, last = proj[0], proj[2]
    first.weight.mul_((3 * first.in_features) ** 0.5)
    for layer in (first, last):
        layer.bias.zero_()


def begin_motion(saa: Path, path: Path, seed: int = 0) -> Path:
    """A checkpoint with IMR and key point encoder of random weights, for the tokens of ``saa``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        keypoints = KeypointEncoder(KEYPOINTS)
        return write_motion(path, Reconfigurator(RECONFIGURATOR), keypoints, load_saa(saa).origin)
