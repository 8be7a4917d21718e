"""Where identity went in: gates and each person's share of them, averaged over layers and steps.

A host that has a recorder calls :meth:`GateRecorder.record` after :func:`attention.add_faces`; without one it does nothing,
so recording costs nothing when nobody looks. Nothing here waits for the device until the maps are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .types import Cast, DynamicIDError

LAYERS = ("all", "fine", "middle", "coarse")  # by the size of their grid: the largest, the next, the others
TOLERANCE = 1e-3  # of the schedule: a timestep of a thousand


def person_shares(q: Tensor, keys: Tensor, bias: Tensor, counts: Sequence[int]) -> Tensor:
    """How much of the face attention goes to each person: [B, P, N], rows sum to 1, mean over the heads.

    Arguments as in :func:`attention.face_attention`; ``counts`` has each person's number of tokens.
    """
    q = q.unflatten(-1, (keys.shape[1], -1)).transpose(1, 2).float()  # [B, H, N, D]
    scores = q @ keys.float().transpose(-1, -2) / q.shape[-1] ** 0.5 + bias.float()
    weights = scores.softmax(-1).mean(1)[..., : sum(counts)]  # [B, N, tokens]; padding has weight 0
    return torch.stack([part.sum(-1) for part in weights.split(list(counts), dim=-1)], dim=1)


@dataclass(eq=False)
class _Call:
    """One call of the model: sums of maps by grid, on the device where they were made."""

    moment: Tensor  # [B]: fraction of the schedule that lies behind, 0..1
    sums: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (height, width) -> [B, P + 1, N]
    layers: Counter[tuple[int, int]] = field(default_factory=Counter)  # (height, width) -> how many layers were added


class GateRecorder:
    """Collects gates while sampling, call by call, so that layers and steps are chosen when the maps are looked at.

    A call with two people takes 0.2 MB at 512 px.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self.places: Cast | None = None  # the people of the last run where places were found for them

    def record(
        self,
        q: Tensor,
        keys: Tensor,
        bias: Tensor,
        gate: Tensor,
        counts: Sequence[int],
        height: int,
        width: int,
        moment: Tensor,
    ) -> None:
        """Note down one call of :func:`attention.add_faces`: what it was given, and the gate it returned.

        Pass conditional rows only. ``moment`` [B]: the fraction of the schedule that lies behind; the same tensor object
        for all layers of one call of the model.
        """
        self.add(height, width, gate, person_shares(q, keys, bias, counts), moment)

    def add(self, height: int, width: int, gate: Tensor, shares: Tensor, moment: Tensor) -> None:
        """Add one layer's gate [B, N] and shares [B, P, N] on a grid of ``height`` x ``width`` cells."""
        if not self._calls or self._calls[-1].moment is not moment:
            self._calls.append(_Call(moment))
        call, gate = self._calls[-1], gate.detach().float()
        maps = torch.cat((shares.detach() * gate[:, None], gate[:, None]), dim=1)
        call.sums[height, width] = call.sums[height, width] + maps if (height, width) in call.sums else maps
        call.layers[height, width] += 1

    def clear(self) -> None:
        """Forget everything, to record another run."""
        self._calls.clear()
        self.places = None

    def maps(self, height: int, width: int, layers: str = "all", start_at: float = 0.0, end_at: float = 1.0) -> Tensor:
        """[B, P + 1, height, width], float32 on the CPU: a map for each person, then the gate of all.

        A value is the factor with which face attention was added there, the mean over layers and steps: 0 nothing,
        1 all of it, more under the layout boost. ``layers``: one of :data:`LAYERS`; ``start_at``, ``end_at``: the part of
        the schedule that counts. Where calls differ in their number of rows, the most frequent counts.
        Raises DynamicIDError when nothing was recorded, or nothing in that part of the schedule.
        """
        if not self._calls:
            raise DynamicIDError(
                "No activation was recorded. Sample first with the model to which the faces are applied."
            )
        rows = Counter(len(call.moment) for call in self._calls).most_common(1)[0][0]
        calls = [call for call in self._calls if len(call.moment) == rows]
        grids = _chosen(layers, {grid for call in calls for grid in call.sums})
        total, count = torch.zeros(()), torch.zeros(rows)
        for call in calls:
            moment = call.moment.float().cpu()
            acts = ((moment >= start_at - TOLERANCE) & (moment <= end_at + TOLERANCE)).float()
            for h, w in grids & call.sums.keys():
                grid = (call.sums[h, w].cpu() * acts[:, None, None]).unflatten(-1, (h, w))
                total = total + interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
                count += acts * call.layers[h, w]
        if not count.any():
            raise DynamicIDError(
                f"No step lies between {start_at:g} and {end_at:g} of the schedule; choose a wider range."
            )
        return total / count.clamp_min(1)[:, None, None, None]


def _chosen(layers: str, grids: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The grids of the layers asked for."""
    if layers not in LAYERS:
        raise DynamicIDError(f"Layers {layers!r} are unknown; choose one of {', '.join(LAYERS)}.")
    by_size = sorted(grids, key=lambda grid: -grid[0] * grid[1])
    # A UNet without so many levels shows its coarsest.
    return {"all": grids, "fine": set(by_size[:1]), "middle": set(by_size[1:2] or by_size[-1:]),
            "coarse": set(by_size[2:] or by_size[-1:])}[layers]  # fmt: skip
