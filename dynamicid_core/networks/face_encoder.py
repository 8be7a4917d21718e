"""Identity and appearance of a photo -> face tokens (docs/method.md, section 1; ``proj_module`` of ``SAA.bin``)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .operations import Operations
from .perceiver import PerceiverAttention, feed_forward


@dataclass(frozen=True)
class FaceEncoderSizes:
    """Published sizes; others are read from a file's tensors."""

    identity: int = 512  # width of the ArcFace embedding
    hidden: int = 1024  # of the identity projection
    clip: int = 1280  # width of the CLIP tokens
    width: int = 768  # of the tokens
    tokens: int = 4
    depth: int = 4
    inner: int = 768  # 12 heads of 64
    feed_forward: int = 3072


class ResamplerLayer(nn.ModuleList):
    """Attention to the CLIP tokens and feed-forward, each residual; the numbers are the published names."""

    def __init__(self, sizes: FaceEncoderSizes, operations: Operations):
        super().__init__(
            (
                PerceiverAttention(sizes.width, sizes.inner, operations=operations),
                feed_forward(sizes.width, sizes.feed_forward, operations),
            )
        )

    def forward(self, latents: Tensor, context: Tensor) -> Tensor:
        """``latents`` [B, T, width], ``context`` [B, L, width] -> [B, T, width]"""
        attention, feed = self
        latents = latents + attention(latents, context)
        return latents + feed(latents)


class PerceiverResampler(nn.Module):
    """Latents attend to CLIP tokens, ``depth`` times."""

    def __init__(self, sizes: FaceEncoderSizes, operations: Operations = nn):
        super().__init__()
        self.proj_in = operations.Linear(sizes.clip, sizes.width)
        self.proj_out = operations.Linear(sizes.width, sizes.width)
        self.norm_out = operations.LayerNorm(sizes.width)
        self.layers = nn.ModuleList(ResamplerLayer(sizes, operations) for _ in range(sizes.depth))

    def forward(self, latents: Tensor, clip_tokens: Tensor) -> Tensor:
        """``latents`` [B, T, width], ``clip_tokens`` [B, L, clip] (L = 257) -> [B, T, width]"""
        context = self.proj_in(clip_tokens)
        for layer in self.layers:
            latents = layer(latents, context)
        return self.norm_out(self.proj_out(latents))


class FaceEncoder(nn.Module):
    """ArcFace embedding and CLIP tokens -> face tokens. The latents have no shortcut to the result."""

    def __init__(self, sizes: FaceEncoderSizes = FaceEncoderSizes(), operations: Operations = nn):
        super().__init__()
        self.sizes = sizes
        self.proj = nn.Sequential(
            operations.Linear(sizes.identity, sizes.hidden),
            nn.GELU(),
            operations.Linear(sizes.hidden, sizes.width * sizes.tokens),
        )
        self.norm = operations.LayerNorm(sizes.width)
        self.perceiver_resampler = PerceiverResampler(sizes, operations)

    def forward(self, identity: Tensor, clip_tokens: Tensor) -> Tensor:
        """``identity`` [B, 512] of length 1 (zeros: no face), ``clip_tokens`` [B, 257, 1280] -> [B, T, 768]"""
        latents = self.proj(identity).unflatten(-1, (self.sizes.tokens, self.sizes.width))  # [B, T, width]
        return self.perceiver_resampler(self.norm(latents), clip_tokens)
