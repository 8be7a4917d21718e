"""The Identity-Motion Reconfigurator: DisENet takes a motion out, ReENet puts one in (docs/method.md, section 2; ``IMR.bin``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .operations import Operations
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


class MotionLayer(nn.ModuleList):
    """Attention to the motion latents, self attention, feed-forward, each residual; the numbers are the published names."""

    def __init__(self, sizes: ReconfiguratorSizes, operations: Operations):
        super().__init__(
            (
                PerceiverAttention(sizes.width, sizes.inner, operations=operations),
                PerceiverAttention(sizes.width, sizes.inner, context=False, operations=operations),
                feed_forward(sizes.width, sizes.feed_forward, operations),
            )
        )

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """``tokens`` [B, T, width], ``latents`` [B, L, width] -> [B, T, width]; either may have one row for all."""
        cross, own, feed = self
        tokens = tokens + cross(tokens, latents)
        tokens = tokens + own(tokens)
        return tokens + feed(tokens)


class Reconfigurator(nn.Module):
    """Face tokens of one person with one motion -> the same person with others."""

    def __init__(self, sizes: ReconfiguratorSizes = ReconfiguratorSizes(), operations: Operations = nn):
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
        self.disentangleNet = nn.ModuleList(MotionLayer(sizes, operations) for _ in range(sizes.depth_out))
        self.entangleNet = nn.ModuleList(MotionLayer(sizes, operations) for _ in range(sizes.depth_in))
        self.norm_out = operations.LayerNorm(sizes.width)
        self.proj_out = operations.Linear(sizes.width, sizes.token)

    def motion_latents(self, landmarks: Tensor, text: Tensor) -> Tensor:
        """Landmark and text features, [K, 768] each, fused to motion latents [K, L, 1024] (L = 4)."""
        fused = self.feature_fusion(torch.cat((landmarks, text), dim=-1))
        return fused.unflatten(-1, (self.sizes.latents, self.sizes.width))

    def forward(
        self,
        tokens: Tensor,
        source_landmarks: Tensor,
        target_landmarks: Tensor,
        source_text: Tensor,
        target_text: Tensor,
    ) -> Tensor:
        """``tokens`` [1, T, 768], source features [1, 768], target features [K, 768] -> [K, T, 768]

        Of several people, with equally many targets each: tokens [n, T, 768], source features [n, 768], target features
        [n * K, 768], those of each person one after another -> [n * K, T, 768].
        """
        source = self.motion_latents(source_landmarks, source_text)
        target = self.motion_latents(target_landmarks, target_text)
        tokens = self.proj_in(self.norm_in(tokens))
        for layer in self.disentangleNet:
            tokens = layer(tokens, source)
        if len(tokens) > 1:  # one row serves all targets as it is
            tokens = tokens.repeat_interleave(len(target) // len(tokens), 0)  # [n * K, T, width]
        for layer in self.entangleNet:
            tokens = layer(tokens, target)
        return self.proj_out(self.norm_out(tokens))
