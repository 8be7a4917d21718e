"""The one attention block of the face encoder and the IMR, and its feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .operations import Operations

HEAD_WIDTH = 64  # published; it cannot be read from a file


class PerceiverAttention(nn.Module):
    """Attention of tokens to a context and to themselves; without a context, self attention (docs/method.md, sections 1 and 2).

    ``norm1`` belongs to the context and ``norm2`` to the tokens; self attention has ``norm1`` alone.
    """

    def __init__(self, width: int, inner: int, context: bool = True, operations: Operations = nn):
        super().__init__()
        self.heads = max(1, inner // HEAD_WIDTH)
        self.norm1 = operations.LayerNorm(width)
        if context:
            self.norm2 = operations.LayerNorm(width)
        self.to_q = operations.Linear(width, inner, bias=False)
        self.to_kv = operations.Linear(width, 2 * inner, bias=False)
        self.to_out = operations.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """``tokens`` [B, T, width], ``context`` [B, L, width] -> [B, T, width], without the residual.

        Either may have one row for all of the other's; what depends on it alone is then computed once.
        """
        own = (self.norm1 if context is None else self.norm2)(tokens)
        q, kv = self.to_q(own), self.to_kv(own)
        if context is not None:
            rows = max(len(context), len(tokens))
            seen = self.to_kv(self.norm1(context))  # [B, L, 2 * inner]
            q, kv = q.expand(rows, -1, -1), torch.cat([x.expand(rows, -1, -1) for x in (seen, kv)], dim=1)
        k, v = kv.chunk(2, dim=-1)  # [B, L + T, inner]
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # [B, H, T or L + T, D]
        return self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def feed_forward(width: int, inner: int, operations: Operations = nn) -> nn.Sequential:
    """Pre-norm feed-forward without biases: [..., width] -> [..., width], without the residual."""
    return nn.Sequential(
        operations.LayerNorm(width),
        operations.Linear(width, inner, bias=False),
        nn.GELU(),
        operations.Linear(inner, width, bias=False),
    )
