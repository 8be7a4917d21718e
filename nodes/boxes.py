"""The host's boxes (BOUNDING_BOX, in pixels of a canvas) and the core's (fractions)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..dynamicid_core.plain import shown
from ..dynamicid_core.regions import Box
from ..dynamicid_core.types import DynamicIDError

PixelBox = Mapping[str, float]  # x, y, width, height

CELL = 8  # boxes that move from frame to frame become masks with a cell for this many pixels
MOST_CELLS = 256  # ... and with this many at most on a side: frames may be hundreds


def frames_of(bboxes: object) -> list[list[PixelBox]]:
    """Boxes as nodes and scripts give them -> boxes for each frame.

    Known are one box (a dictionary), a list of boxes, and a list of such lists, one for each frame; None is no box.
    Raises DynamicIDError for anything else.
    """
    if isinstance(bboxes, Mapping):
        return [[bboxes]]
    boxes = _listed(() if bboxes is None else bboxes)
    if any(isinstance(box, Mapping) for box in boxes):
        return [[_box(box) for box in boxes]]
    return [[_box(box) for box in _listed(frame)] for frame in boxes] or [[]]


def _listed(boxes: object) -> list[object]:
    if isinstance(boxes, str) or not isinstance(boxes, Iterable):
        raise _no_box(boxes)
    return list(boxes)


def _box(box: object) -> PixelBox:
    if not isinstance(box, Mapping):
        raise _no_box(box)
    return box


def _no_box(value: object) -> DynamicIDError:
    return DynamicIDError(
        f"bboxes holds {shown(value)} where a box belongs; a box has x, y, width and height in pixels."
    )


def check(bboxes: object) -> None:
    """Raise DynamicIDError for what is no box, of whatever canvas."""
    for boxes in frames_of(bboxes):
        for number, box in enumerate(boxes, 1):
            _numbers(box, number)


def to_fractions(box: PixelBox, width: int, height: int, number: int) -> Box:
    """Box ``number`` (from 1) of a canvas, cut off at its edges. Raises DynamicIDError if nothing of it is left."""
    x, y, w, h = _numbers(box, number)
    y0, x0, y1, x1 = (min(max(v, 0.0), 1.0) for v in (y / height, x / width, (y + h) / height, (x + w) / width))
    if y0 >= y1 or x0 >= x1:
        raise DynamicIDError(
            f"Box {number} (x {x:g}, y {y:g}, width {w:g}, height {h:g}) has no area on a canvas of {width} x {height}."
            " Draw it larger, or set width and height to the size of the canvas that it was drawn on."
        )
    return y0, x0, y1, x1


def _numbers(box: PixelBox, number: int) -> list[float]:
    """x, y, width and height of box ``number``, each 0 where it is not given."""
    return [_pixels(box.get(name, 0), name, number) for name in ("x", "y", "width", "height")]


def _pixels(value: object, name: str, number: int) -> float:
    try:
        pixels = float(value)
    except (TypeError, ValueError, OverflowError):
        pixels = math.nan
    if not math.isfinite(pixels):
        raise DynamicIDError(f"Box {number} has {shown(value)} as its {name}; give a number of pixels.")
    return pixels


def to_frames(bboxes, width: int, height: int) -> list[list[Box]]:
    """Boxes as nodes give them (:func:`frames_of`), in pixels of a canvas -> for each frame its boxes as fractions."""
    return [
        [to_fractions(box, width, height, number) for number, box in enumerate(boxes, 1)] for boxes in frames_of(bboxes)
    ]


def cells(width: int, height: int) -> tuple[int, int]:
    """Height and width of the masks that boxes of a canvas become where they move."""
    cell = max(CELL, max(width, height) / MOST_CELLS)
    return max(1, int(height / cell)), max(1, int(width / cell))
