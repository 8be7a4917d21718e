"""Faces, masks and boxes in pixels -> people of a cast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .regions import box_cells
from .types import Cast, DynamicIDError, Face, Person, Region

PixelBox = Mapping[str, float]  # x, y, width, height in pixels of a canvas, as ComfyUI's BOUNDING_BOX
BOX_MASK_CELL = 8  # boxes that move from frame to frame become masks with a cell for this many pixels


def place(cast: Cast | None, face: Face, mask: Tensor | None = None, weight: float = 1.0) -> Cast:
    """A new cast with one more person. ``mask``: [h, w] or [F, h, w] in 0..1, or None for no region."""
    region = None
    if mask is not None:
        mask = mask.detach().float().cpu()
        region = Region(mask=mask if mask.ndim == 3 else mask[None])
    return (cast or Cast()).add(Person(face, region, weight))


def box_frames(bboxes) -> list[list[PixelBox]]:
    """Boxes as ComfyUI nodes give them -> boxes for each frame.

    Known are one box (a dictionary), a list of boxes, and a list of such lists, one for each frame.
    """
    if isinstance(bboxes, Mapping):
        return [[bboxes]]
    boxes = list(bboxes or ())
    if any(isinstance(box, Mapping) for box in boxes):
        return [boxes]
    return [list(frame) for frame in boxes] or [[]]


def _fractions(box: PixelBox, width: int, height: int, number: int) -> tuple[float, float, float, float]:
    x, y, w, h = (float(box.get(name, 0)) for name in ("x", "y", "width", "height"))
    y0, x0, y1, x1 = (min(max(v, 0.0), 1.0) for v in (y / height, x / width, (y + h) / height, (x + w) / width))
    if y0 >= y1 or x0 >= x1:
        raise DynamicIDError(
            f"Box {number} (x {x:g}, y {y:g}, width {w:g}, height {h:g}) has no area on a canvas of {width} x {height}. "
            "Draw it larger, or set width and height to the size of the canvas that it was drawn on."
        )
    return y0, x0, y1, x1


def place_in_boxes(
    cast: Cast | None, faces: Sequence[Face], bboxes, width: int, height: int, weight: float = 1.0
) -> Cast:
    """A new cast with one more person for each face; box n (pixels of a canvas ``width`` x ``height``) belongs to face n.

    ``bboxes``: see :func:`box_frames`; with several frames, each person moves with the frames.
    Raises DynamicIDError when there are more boxes than faces or the reverse, and for a box outside the canvas.
    """
    frames = box_frames(bboxes)
    for number, boxes in enumerate(frames, 1):
        if len(boxes) != len(faces):
            where = f" in frame {number}" if len(frames) > 1 else ""
            few, many = ("faces", "boxes") if len(boxes) > len(faces) else ("boxes", "faces")
            raise DynamicIDError(
                f"There are {len(faces)} faces and {len(boxes)} boxes{where}: too few {few}. "
                f"Box 1 belongs to face 1, and so on; add {few} or remove {many}."
            )
    people = []
    for index, face in enumerate(faces):
        corners = [_fractions(boxes[index], width, height, index + 1) for boxes in frames]
        if len(set(corners)) == 1:
            region = Region(box=corners[0])
        else:
            size = (max(1, height // BOX_MASK_CELL), max(1, width // BOX_MASK_CELL))
            region = Region(mask=torch.cat([box_cells(box, *size) for box in corners]))
        people.append(Person(face, region, weight))
    return (cast or Cast()).add(*people)
