"""What the rows of a model call are: conditionings labelled with their role, labels read back at the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from ...call import FACE_ROLE, NULL_ROLE, Row
from ...regions import GridSize
from ...views import View

KEY = "dynamicid"  # of the labels among a conditioning's, and of all else that the host keeps for this pack


class RowLabels(comfy.conds.CONDRegular):  # type: ignore[misc]
    """A label for each row of a conditioning, which the host carries to the model.

    ``cond`` [batch, 6], integers on the CPU. The columns are a row's role and frame, then height, width, top and left of
    the area that is denoised alone, in latent cells (height 0: the whole picture).
    Being a tensor, it is repeated, concatenated and sliced (context windows, packs that call the model row by row) as
    the host's own conditionings are.
    """

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs: Any) -> RowLabels:
        """The host's hook: the labels for ``batch_size`` rows, and for an area (height, width, top, left)."""
        labels: RowLabels = super().process_cond(batch_size, **kwargs)
        if area is not None:
            labels.cond = torch.cat((labels.cond[:, :2], torch.tensor([area]).expand(len(labels.cond), -1)), dim=1)
        return labels


def label_conditionings(conds: dict[str, list[dict[str, Any]]], batch: int) -> dict[str, list[dict[str, Any]]]:
    """Copies of a guider's conditionings with their role: those called negative see null tokens, all others the faces.

    By name, because indices mislead: DualCFG and guidance that runs the negative side alone put it first.
    """

    def label(cond: dict[str, Any], role: int) -> dict[str, Any]:
        labels = torch.zeros(batch, 6, dtype=torch.long)
        labels[:, 0], labels[:, 1] = role, torch.arange(batch)
        return {**cond, "model_conds": {**cond.get("model_conds", {}), KEY: RowLabels(labels)}}

    return {
        name: [label(cond, NULL_ROLE if "negative" in name else FACE_ROLE) for cond in entries] if entries else entries
        for name, entries in conds.items()
    }


def rows_of_call(
    labels: Tensor | None, cond_or_uncond: Sequence[int], count: int, whole: GridSize | None
) -> tuple[Row, ...] | None:
    """The rows of a model call, or None where they cannot be told.

    ``labels``: what :class:`RowLabels` became, ``count``: how many rows there are, ``whole``: height and width of the whole
    latent, where known; without it areas count as the whole. Other packs may repeat the rows as a whole (one time for
    each tile). A call that no sampler of the host made carries no labels; there, index 1 is the negative side, as in the
    host's guidance.
    """
    if labels is not None and len(labels) and count % len(labels) == 0:
        rows = tuple(Row(role, frame, _view(area, whole)) for role, frame, *area in labels.tolist())
        return rows * (count // len(rows))
    indices = list(cond_or_uncond) or [0]
    if count % len(indices):
        return None
    frames = range(count // len(indices))
    return tuple(Row(NULL_ROLE if index == 1 else FACE_ROLE, frame) for index in indices for frame in frames)


def _view(area: Sequence[int], whole: GridSize | None) -> View | None:
    height, width, top, left = area
    return View.clipped(top, left, height, width, whole) if height and whole else None
