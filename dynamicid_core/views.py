"""A part of a picture that a host denoises alone (an area, a crop, a tile), and where its grids lie in the whole's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .types import DynamicIDError

CELL = 8  # px of a picture for each cell of its latent, in all models that the method knows
FINE = 2**16  # cells of a picture's height and width where its own are not known: a power of 2 divides as latents do


@dataclass(frozen=True)
class View:
    """A rectangle of a picture, in cells of any grid that lies over the whole (latent cells, pixels).

    It may reach over an edge and go on at the opposite one, as tiles of a rolled picture do.
    """

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]  # height and width of the picture, in the same cells

    def __post_init__(self) -> None:
        tall, wide = self.whole
        inside = 0 <= self.top < tall and 0 <= self.left < wide
        if not (inside and 0 < self.height <= tall and 0 < self.width <= wide):
            raise DynamicIDError(f"{self} does not lie inside the picture.")

    @classmethod
    def of_box(cls, box: tuple[float, float, float, float]) -> View:
        """What lies in a box: y0, x0, y1, x1 as fractions of the picture. Raises DynamicIDError for one that is empty or outside."""
        y0, x0, y1, x1 = (round(edge * FINE) for edge in box)
        if not (0 <= y0 < y1 <= FINE and 0 <= x0 < x1 <= FINE):
            raise DynamicIDError(f"{tuple(box)} is no part of a picture. Give y0, x0, y1, x1 between 0 and 1.")
        return cls(y0, x0, y1 - y0, x1 - x0, (FINE, FINE))

    def on_grid(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where a grid of ``height`` x ``width`` cells over this view lies in the grid that the whole picture would have.

        Returns that grid's height and width, then the top and left of this part in it. A grid's cells need not be those
        that the view was given in: the UNet's levels halve them.
        """
        tall, top = _on_axis(height, self.top, self.height, self.whole[0])
        wide, left = _on_axis(width, self.left, self.width, self.whole[1])
        return tall, wide, top, left

    def within(self, outer: View | None) -> View:
        """Where this part of a part lies in the picture: its own whole is what ``outer`` shows of that; None: all of it."""
        if outer is None:
            return self
        top, height = _part_of_part(self.top, self.height, self.whole[0], outer.top, outer.height, outer.whole[0])
        left, width = _part_of_part(self.left, self.width, self.whole[1], outer.left, outer.width, outer.whole[1])
        return View(top, left, height, width, (FINE, FINE))


def picture_map(height: int, width: int, part: View | None = None) -> Tensor:
    """A picture whose cells hold where they lie: [1, 2, height, width], the fractions of the height and of the width.

    ``part``: of a part of a picture, the same. However it is cut and resized, :func:`parts_shown` tells what is left.
    """
    part = View(0, 0, 1, 1, (1, 1)) if part is None else part
    down = (part.top + part.height * (torch.arange(height) + 0.5) / height) / part.whole[0]
    across = (part.left + part.width * (torch.arange(width) + 0.5) / width) / part.whole[1]
    return torch.stack((down[:, None].expand(height, width), across.expand(height, width)))[None]


def parts_shown(maps: Tensor) -> tuple[View, ...]:
    """Of each map [b, 2, h, w], the part of the picture that it shows, to about a cell of :func:`picture_map`."""
    columns, rows = maps[:, 0, :, 0].double().cpu(), maps[:, 1, 0, :].double().cpu()
    spans = zip(map(_span, columns), map(_span, rows), strict=True)
    return tuple(View(top, left, height, width, (FINE, FINE)) for (top, height), (left, width) in spans)


def _span(fractions: Tensor) -> tuple[int, int]:
    """First cell and count, of :data:`FINE`, of what reaches half a step over the first and last of these fractions."""
    first, last = fractions[0].item(), fractions[-1].item()
    edge = (last - first) / max(len(fractions) - 1, 1) / 2
    start, end = (min(max(round(value * FINE), 0), FINE) for value in (first - edge, last + edge))
    start = min(start, FINE - 1)
    return start, max(end - start, 1)


def _on_axis(cells: int, first: int, count: int, whole: int) -> tuple[int, int]:
    """How many cells the whole has if ``count`` of ``whole`` are given as ``cells``, and the first one of these."""
    total = max(round(cells * whole / count), cells)
    start = round(total * first / whole)
    return total, start % total if first + count > whole else min(start, total - cells)


def _part_of_part(first: int, count: int, whole: int, start: int, length: int, total: int) -> tuple[int, int]:
    """First cell and count, of :data:`FINE`, of a part of what lies at ``start`` and is ``length`` of ``total`` long."""
    begin, end = ((start + length * cell / whole) / total for cell in (first, first + count))
    return round(begin * FINE) % FINE, max(round(end * FINE) - round(begin * FINE), 1)
