"""Where identity went in: gates and each person's share of them, averaged over layers and steps.

A host that has a recorder calls :meth:`GateRecorder.record` after :func:`attention.add_faces`; without one it does nothing,
so recording costs nothing when nobody looks. Nothing here waits for the device until the maps are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .types import DynamicIDError


def person_shares(q: Tensor, keys: Tensor, bias: Tensor, counts: Sequence[int], heads: int) -> Tensor:
    """How much of the face attention goes to each person: [B, P, N], rows sum to 1, mean over the heads.

    Arguments as in :func:`attention.face_attention`; ``counts`` has each person's number of tokens.
    """
    q, keys = (x.unflatten(-1, (heads, -1)).transpose(1, 2).float() for x in (q, keys))  # [B, H, ., D]
    scores = q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias.float()
    weights = scores.softmax(-1).mean(1)[..., : sum(counts)]  # [B, N, tokens]; padding has weight 0
    return torch.stack([part.sum(-1) for part in weights.split(list(counts), dim=-1)], dim=1)


class GateRecorder:
    """Collects gates while sampling. ``layers``: which cross attentions count, by their place in checkpoint order (0..15
    in SD1.5); None means all. ``start_at``, ``end_at``: the part of the schedule that counts, as in `SAAOptions`.
    """

    def __init__(self, layers: Collection[int] | None = None, start_at: float = 0.0, end_at: float = 1.0):
        self.layers = None if layers is None else frozenset(layers)
        self.start_at, self.end_at = start_at, end_at
        self._sums: dict[tuple[int, int, int], Tensor] = {}  # (rows, height, width) -> [B, P + 1, N]
        self._counts: dict[tuple[int, int, int], Tensor] = {}  # -> [B]

    def wants(self, layer: int) -> bool:
        """Whether a layer counts; a host may ask before it prepares anything."""
        return self.layers is None or layer in self.layers

    def record(
        self, layer: int, q: Tensor, faces: Tensor, bias: Tensor, gate: Tensor, counts: Sequence[int], heads: int,
        height: int, width: int, acts: Tensor | None = None,
    ) -> None:
        """Note down one call of :func:`attention.add_faces`, whose arguments these are, and the gate it returned.

        All rows given are counted: pass conditional rows only. ``acts`` [B], 1 or 0, says whether this step counts.
        """  # fmt: skip
        if self.wants(layer):
            keys = faces[:, : bias.shape[-1]]
            self.add(height, width, gate, person_shares(q, keys, bias, counts, heads), acts)

    def add(self, height: int, width: int, gate: Tensor, shares: Tensor, acts: Tensor | None = None) -> None:
        """Add one layer's gate [B, N] and shares [B, P, N] on a grid of ``height`` x ``width`` cells."""
        gate = gate.detach().float()
        acts = torch.ones_like(gate[:, 0]) if acts is None else acts.to(gate)
        maps = torch.cat((shares.detach() * gate[:, None], gate[:, None]), dim=1) * acts[:, None, None]
        key = (len(gate), height, width)
        self._sums[key] = self._sums[key] + maps if key in self._sums else maps
        self._counts[key] = self._counts[key] + acts if key in self._counts else acts

    def clear(self) -> None:
        """Forget everything, to record another run."""
        self._sums.clear()
        self._counts.clear()

    def maps(self, height: int, width: int) -> Tensor:
        """[B, P + 1, height, width], float32 on the CPU: a map for each person, then the gate of all.

        A value is the factor with which face attention was added there, the mean over layers and steps: 0 nothing,
        1 all of it, more under the layout boost. Where calls differ in their number of rows, the most frequent counts.
        Raises DynamicIDError when nothing was recorded.
        """
        seen: dict[int, float] = {}
        for (rows, _, _), count in self._counts.items():
            seen[rows] = seen.get(rows, 0.0) + float(count.sum()) / rows
        if not seen or max(seen.values()) == 0:
            raise DynamicIDError("No activation was recorded. Sample first with the model to which the faces are applied.")
        rows = max(seen, key=seen.get)
        total, calls = 0.0, 0.0
        for (n, h, w), sums in self._sums.items():
            if n == rows:
                grid = sums.unflatten(-1, (h, w)).cpu()
                total = total + interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
                calls = calls + self._counts[(n, h, w)].cpu()
        return total / calls.clamp_min(1)[:, None, None, None]
