"""Faces with masks or boxes -> people of a cast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .regions import Box, box_cells
from .types import Cast, DynamicIDError, Face, Person, Region


def place(
    cast: Cast | None, face: Face, mask: Tensor | None = None, weight: float = 1.0, any_shape: bool = False
) -> Cast:
    """A new cast with one more person. ``mask``: [h, w] or [F, h, w] in 0..1, or None for no region; ``any_shape``: it was
    made of fractions, for pictures of any shape."""
    region = None
    if mask is not None:
        region = Region(mask=mask if mask.ndim == 3 else mask[None], any_shape=any_shape)
    return (cast or Cast()).add(Person(face, region, weight))


def place_in_boxes(
    cast: Cast | None,
    faces: Sequence[Face],
    frames: Sequence[Sequence[Box]],
    weight: float = 1.0,
    cells: tuple[int, int] = (128, 128),
    canvas: tuple[int, int] | None = None,
) -> Cast:
    """A new cast with one more person for each face; box n belongs to person n.

    ``frames``: for each frame its boxes (y0, x0, y1, x1), fractions of the picture. With several frames each person
    moves with them: boxes that differ become a mask of ``cells`` (height, width). ``canvas``: the height and width, in
    pixels, of the picture that the boxes were drawn in, where known.
    Raises DynamicIDError when a frame has more boxes than there are faces or fewer, and for a box outside the picture.
    """
    first = len(cast.people) + 1 if cast else 1
    for number, boxes in enumerate(frames, 1):
        if len(boxes) != len(faces):
            where = f" in frame {number}" if len(frames) > 1 else ""
            few, many = ("faces", "boxes") if len(boxes) > len(faces) else ("boxes", "faces")
            raise DynamicIDError(
                f"There are {len(faces)} faces and {len(boxes)} boxes{where}: too few {few}. "
                f"Box 1 belongs to person {first}, and so on; add {few} or remove {many}."
            )
    people = []
    for face, own in zip(faces, zip(*frames, strict=True), strict=True):  # the face's box in each frame
        if len(set(own)) == 1:
            region = Region(box=own[0], canvas=canvas)
        else:
            region = Region(mask=torch.cat([box_cells(box, *cells) for box in own]), canvas=canvas)
        people.append(Person(face, region, weight))
    return (cast or Cast()).add(*people)
