"""The Identity-Motion Reconfigurator: DisENet takes a motion out, ReENet puts one in (method, section 2; ``IMR.bin``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .perceiver import PerceiverAttention, feed_forward


@dataclass(frozen=True)
class ReconfiguratorSizes:
    """Published sizes; others are read from a file's tensors."""

    token: int = 768  # width of the face tokens
    motion: int = 1536  # landmark feature and text feature side by side
    width: int = 1024
    latents: int = 4  # motion latents
    depth_out: int = 1  # DisENet layers
    depth_in: int = 1  # ReENet layers
    inner: int = 1024  # 16 heads of 64
    feed_forward: int = 4096


def _layer(sizes: ReconfiguratorSizes, operations) -> nn.ModuleList:
    return nn.ModuleList(
        (
            PerceiverAttention(sizes.width, sizes.inner, operations=operations),
            PerceiverAttention(sizes.width, sizes.inner, context=False, operations=operations),
            feed_forward(sizes.width, sizes.feed_forward, operations),
        )
    )


def _run(layers: nn.ModuleList, tokens: Tensor, latents: Tensor) -> Tensor:
    for cross, own, feed in layers:
        tokens = tokens + cross(tokens, latents)
        tokens = tokens + own(tokens)
        tokens = tokens + feed(tokens)
    return tokens


class Reconfigurator(nn.Module):
    """Face tokens of one person with one motion -> the same person with others."""

    def __init__(self, sizes: ReconfiguratorSizes = ReconfiguratorSizes(), operations=nn):
        super().__init__()
        self.sizes = sizes
        self.feature_fusion = nn.Sequential(
            operations.LayerNorm(sizes.motion),
            operations.Linear(sizes.motion, sizes.width),
            nn.GELU(),
            operations.LayerNorm(sizes.width),
            operations.Linear(sizes.width, sizes.latents * sizes.width),
            nn.GELU(),
        )
        self.norm_in = operations.LayerNorm(sizes.token)
        self.proj_in = operations.Linear(sizes.token, sizes.width)
        self.disentangleNet = nn.ModuleList(_layer(sizes, operations) for _ in range(sizes.depth_out))
        self.entangleNet = nn.ModuleList(_layer(sizes, operations) for _ in range(sizes.depth_in))
        self.norm_out = operations.LayerNorm(sizes.width)
        self.proj_out = operations.Linear(sizes.width, sizes.token)

    def motion_latents(self, landmarks: Tensor, text: Tensor) -> Tensor:
        """Landmark and text features, [K, 768] each -> [K, 4, 1024]"""
        fused = self.feature_fusion(torch.cat((landmarks, text), dim=-1))
        return fused.unflatten(-1, (self.sizes.latents, self.sizes.width))

    def forward(
        self, tokens: Tensor, source_landmarks: Tensor, target_landmarks: Tensor, source_text: Tensor, target_text: Tensor
    ) -> Tensor:
        """``tokens`` [1, T, 768], source features [1, 768], target features [K, 768] -> [K, T, 768]"""
        source = self.motion_latents(source_landmarks, source_text)
        target = self.motion_latents(target_landmarks, target_text)
        neutral = _run(self.disentangleNet, self.proj_in(self.norm_in(tokens)), source)
        edited = _run(self.entangleNet, neutral, target)
        return self.proj_out(self.norm_out(edited))
