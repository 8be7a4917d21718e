"""Muon: momentum whose matrices are made orthogonal, so that each direction of a weight learns equally fast.

On two cores what counts is how much each picture teaches; for convolutions and attention this is about twice what Adam
gets from one (Jordan et al. 2024, "Muon"; the scale of steps as in Liu et al. 2025, arXiv:2502.16982). Biases, norms,
embeddings and the ends of a network are trained by Adam as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """[r, c] -> about the nearest matrix whose singular values are all 1.

    In bfloat16, which is usual for this (only directions matter), where the processor has it: there it takes a third of
    the time of float32, elsewhere four times as long.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(quick_dtype(matrix.device.type))
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


@cache
def quick_dtype(device: str) -> torch.dtype:
    """bfloat16, or float32 on a processor that has no bfloat16."""
    knows = device != "cpu" or any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return torch.bfloat16 if knows else torch.float32


class Muon(torch.optim.Optimizer):
    """Groups with ``adam=False`` hold weights of two and more dimensions, flattened to [outputs, rest]."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "adam": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["adam"]:
                for weight in weights:
                    self._adam(weight, weight.grad, group)
            else:
                self._muon(weights, group)

    def _muon(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Of several processes, which have the same gradients, each makes some of the matrices orthogonal for all."""
        several = dist.is_available() and dist.is_initialized()
        rank, world = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
        updates = torch.zeros(sum(w.numel() for w in weights), dtype=torch.bfloat16, device=weights[0].device)
        parts = updates.split([w.numel() for w in weights])
        for number, (weight, part) in enumerate(zip(weights, parts, strict=True)):
            assert weight.grad is not None
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            if number % world == rank:
                ahead = torch.lerp(weight.grad.contiguous(), state["momentum"], group["momentum"])
                part.copy_(orthogonal(ahead.flatten(1)).flatten())
        if world > 1:
            dist.all_reduce(updates)  # zeros of the others are added
        for weight, part in zip(weights, parts, strict=True):
            longer = max(weight.flatten(1).shape)
            weight.add_(part.view(weight.shape), alpha=-group["lr"] * 0.2 * longer**0.5)

    def _adam(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (first, second) = self.state[weight], group["betas"]
        if not state:
            state["count"], state["mean"], state["square"] = 0, torch.zeros_like(weight), torch.zeros_like(weight)
        state["count"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        mean, square = state["mean"] / (1 - first ** state["count"]), state["square"] / (1 - second ** state["count"])
        weight.addcdiv_(mean, square.sqrt() + 1e-8, value=-group["lr"])


def muon_for(model: nn.Module, rate: float, ends: tuple[str, ...]) -> Muon:
    """Muon for a model's matrices but those whose names begin with one of ``ends``, Adam for the rest."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        (matrices if weight.ndim > 1 and not name.startswith(ends) else rest).append(weight)
    return Muon([{"params": matrices, "adam": False}, {"params": rest, "adam": True}], rate)
