"""Conditionings made for a whole picture, for a crop of it: what they say of places goes with the crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...regions import GridSize
from ...views import CELL, View


def cropped(conditioning: Sequence[Sequence[Any]], crop: View, size: GridSize) -> list[list[Any]]:
    """A CONDITIONING for a crop of the picture, in px, that is sampled at ``size`` (height, width) px.

    Areas, masks and the hints of ControlNets are cut as the picture is; prompts whose place lies outside are left out, unless
    none would stay: then all are taken, for the whole crop. GLIGEN's boxes cannot be cut and are left out.
    """
    kept = [
        [text, placed]
        for text, values, *_ in conditioning
        if (placed := _placed(values, crop, size, False)) is not None
    ]
    return kept or [[text, _placed(values, crop, size, True)] for text, values, *_ in conditioning]


def _placed(values: dict[str, Any], crop: View, size: GridSize, anywhere: bool) -> dict[str, Any] | None:
    """What a prompt carries, for the crop; None where its place lies outside. ``anywhere``: leave its place out."""
    made = {name: value for name, value in values.items() if name not in ("area", "mask", "gligen")}
    if "control" in made:
        made["control"] = _control(made["control"], crop)
    if anywhere:
        return made
    if "area" in values:
        area = _area(values["area"], crop, size)
        if area is None:
            return None
        made["area"] = area
    if "mask" in values:
        mask = cut_out(values["mask"], crop)
        if not mask.any():
            return None
        made["mask"] = mask
    return made


def _area(area: Sequence[Any], crop: View, size: GridSize) -> tuple[int, int, int, int] | None:
    """Height, width, top and left in latent cells, or as fractions after "percentage" -> those in the crop's latent."""
    tall, wide, top, left = area[1:] if area[0] == "percentage" else area
    units = crop.whole if area[0] == "percentage" else (CELL, CELL)
    y0, y1 = _span(top * units[0], (top + tall) * units[0], crop.top, crop.height, size[0])
    x0, x1 = _span(left * units[1], (left + wide) * units[1], crop.left, crop.width, size[1])
    return (y1 - y0, x1 - x0, y0, x0) if y0 < y1 and x0 < x1 else None


def _span(start: float, end: float, first: int, count: int, size: int) -> tuple[int, int]:
    """Px ``start`` to ``end`` of a picture -> cells of a crop of ``count`` px from ``first`` on, sampled at ``size`` px."""
    cells = size / CELL / count
    a, b = (min(max(px - first, 0), count) * cells for px in (start, end))
    return int(a), min(-int(-b // 1), size // CELL)


def cut_out(values: Tensor, crop: View) -> Tensor:
    """The part of a mask or hint [..., h, w] of any resolution, over the whole picture, that a crop shows."""
    height, width = values.shape[-2:]
    tall, wide = crop.whole
    top, left = crop.top * height // tall, crop.left * width // wide
    bottom = max(-(-(crop.top + crop.height) * height // tall), top + 1)
    right = max(-(-(crop.left + crop.width) * width // wide), left + 1)
    return values[..., top:bottom, left:right]


def _control(control: Any, crop: View) -> Any:
    """A copy of a ControlNet, and of those before it, whose hints show the crop."""
    made = control.copy()
    if control.cond_hint_original is not None:
        made.cond_hint_original = cut_out(control.cond_hint_original, crop)
    if control.previous_controlnet is not None:
        made.set_previous_controlnet(_control(control.previous_controlnet, crop))
    return made
