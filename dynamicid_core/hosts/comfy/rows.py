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

Conditionings = dict[str, list[dict[str, Any]]]  # of a guider, by side
KEY = "dynamicid"  # of the labels among a conditioning's, and of all else that the host keeps for this pack


class RowLabels(comfy.conds.CONDRegular):  # type: ignore[misc]
    """A label for each row of a conditioning, which the host carries to the model.

    ``cond`` [batch, 6], integers on the CPU. The columns are a row's role and frame, then height, width, top and left of
    the area or tile that is denoised alone, in latent cells (height 0: the whole latent).
    Being a tensor, it is repeated, concatenated and sliced (context windows, packs that call the model row by row) as
    the host's own conditionings are.
    """

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs: Any) -> RowLabels:
        """The host's hook: the labels for ``batch_size`` rows, and for an area (height, width, top, left)."""
        labels: RowLabels = super().process_cond(batch_size, **kwargs)
        if area is not None:
            labels.cond = torch.cat((labels.cond[:, :2], torch.tensor([area]).expand(len(labels.cond), -1)), dim=1)
        return labels


def label_conditionings(conds: Conditionings, batch: int) -> Conditionings:
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


def labels_of_tiles(labels: Tensor, cells: Tensor) -> Tensor:
    """Labels [B, 6] of rows that are tiles; as they were where it cannot be told which row is which tile.

    ``cells`` [B, 2, h, w]: which row and column of the latent each cell of the tiles is.
    """
    if len(labels) != len(cells):
        return labels
    size = torch.tensor(cells.shape[-2:]).expand(len(labels), 2)
    return torch.cat((labels[:, :2], size, cells[:, :, 0, 0].round().long()), dim=1)


def rows_of_call(
    labels: Tensor | None,
    cond_or_uncond: Sequence[int],
    given: tuple[int, int, int],
    whole: GridSize | None,
    parts: Sequence[View] = (),
) -> tuple[Row, ...] | None:
    """The rows of a model call, or None where they cannot be told.

    ``labels``: what :class:`RowLabels` became; ``given``: how many rows there are, and their height and width; ``whole``:
    height and width of the whole latent, where known; without it areas count as the whole; ``parts``: what the latent of
    each picture of the batch shows of its picture, if not all. Other packs may repeat the rows as a whole (one time for
    each tile). A call that no sampler of the host made carries no labels; there, index 1 is the negative side, as in the
    host's guidance.
    """
    count, *size = given

    def row(role: int, frame: int, area: Sequence[int] = (0, 0, 0, 0)) -> Row:
        return Row(role, frame, _view(area, size, whole, parts[frame % len(parts)] if parts else None))

    if labels is not None and len(labels) and count % len(labels) == 0:
        rows = tuple(row(role, frame, area) for role, frame, *area in labels.tolist())
        return rows * (count // len(rows))
    indices = list(cond_or_uncond) or [0]
    if count % len(indices):
        return None
    frames = range(count // len(indices))
    return tuple(row(NULL_ROLE if index == 1 else FACE_ROLE, frame) for index in indices for frame in frames)


def _view(area: Sequence[int], size: Sequence[int], whole: GridSize | None, part: View | None) -> View | None:
    """What a row shows of its picture: an area or a tile, as far as it fits into ``size``, of a part of the picture."""
    height, width, top, left = area
    if not height or whole is None:
        return part
    return View(top, left, min(height, size[0]), min(width, size[1]), whole).within(part)
