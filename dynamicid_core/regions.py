"""Boxes and masks -> how visible each person is at every cell of a grid (docs/method.md, section 3).

A *grid* is the height and width, in cells, of the latent at one level of the UNet, which halves it rounding up; so it is
given by both numbers, never by their product's square root.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .types import Cast, DynamicIDError, Region
from .views import View

Box = tuple[float, float, float, float]  # y0, x0, y1, x1 as fractions of the picture
GridSize = tuple[int, int]  # height and width in cells


@dataclass(frozen=True)
class RegionWeights:
    """The regions of a cast on one grid of ``N = h * w`` cells: float32, 0..1, for each of ``F`` frames.

    ``visible`` is never 0 for everybody in a cell, so that a softmax over people stays finite; where nobody shall
    appear, ``reach`` is 0.
    """

    visible: Tensor  # [F, P, N]: its logarithm is added to a person's attention scores
    inside: Tensor  # [F, N]: 1 where the gate keeps its value under the layout boost, 0 where it is damped
    boosted: Tensor  # [F, N]: how much of the layout boost a cell gets
    reach: Tensor  # [F, N]: 0 where no face acts at all, else 1


def with_default_regions(cast: Cast) -> Cast:
    """Equal vertical strips for several people of whom nobody has a region; any other cast as it is.

    Raises DynamicIDError for an empty cast.
    """
    people = cast.people
    if not people:
        raise DynamicIDError("The cast is empty. Place at least one face.")
    if len(people) == 1 or any(person.region for person in people):
        return cast
    step = 1 / len(people)
    strips = ((0.0, step * i, 1.0, min(1.0, step * (i + 1))) for i in range(len(people)))
    return Cast(tuple(dataclasses.replace(p, region=Region(box=b)) for p, b in zip(people, strips, strict=True)))


def _span(start: float, end: float, size: int) -> tuple[int, int]:
    """Cells of ``start..end``, fractions, rounded as published: ``int(fraction * size)`` at both ends.

    What would be empty (smaller than a cell) becomes the cell that holds its middle.
    """
    first, last = int(start * size), int(end * size)
    if first < last:
        return first, last
    middle = min(int((start + end) / 2 * size), size - 1)
    return middle, middle + 1


def box_cells(box: Box, height: int, width: int) -> Tensor:
    """[1, height, width], 1 inside the box (fractions y0, x0, y1, x1), else 0."""
    cells = torch.zeros(1, height, width)
    (y0, y1), (x0, x1) = _span(box[0], box[2], height), _span(box[1], box[3], width)
    cells[:, y0:y1, x0:x1] = 1
    return cells


def mask_cells(mask: Tensor, height: int, width: int) -> Tensor:
    """[F, h, w] -> [F, height, width]: the mean over each cell, raised so that the strongest cell keeps the mask's peak.

    Without that, what is thin or small would fade away on coarse grids.
    """
    cells = adaptive_avg_pool2d(mask[:, None], (height, width))[:, 0]
    peak = cells.amax((1, 2), keepdim=True)
    return (cells * (mask.amax((1, 2), keepdim=True) / peak.clamp_min(1e-12))).clamp_max(1)


def region_cells(region: Region, height: int, width: int, pictures: Sequence[int] = (0,)) -> Tensor:
    """How much of each cell belongs to a region in these pictures of a batch: [F, height, width] in 0..1.

    Picture ``i`` has a mask's frame ``i`` modulo the number of its frames.
    """
    if region.box is not None:
        return box_cells(region.box, height, width).expand(len(pictures), -1, -1)
    assert region.mask is not None  # Region sees to it
    frames = len(region.mask)
    return mask_cells(region.mask[[picture % frames for picture in pictures]], height, width)


def _placed_cells(cast: Cast, height: int, width: int, view: View | None, pictures: Sequence[int]) -> list[Tensor]:
    """Of each person who has a region, in the cast's order: its cells, [F, N]."""
    tall, wide, top, left = (height, width, 0, 0) if view is None else view.on_grid(height, width)
    return [
        region_cells(person.region, tall, wide, pictures).roll((-top, -left), (1, 2))[:, :height, :width].flatten(1)
        for person in cast.people
        if person.region
    ]


def region_weights(
    cast: Cast,
    height: int,
    width: int,
    outside: str = "everyone",
    view: View | None = None,
    pictures: Sequence[int] = (0,),
    strips: bool = True,
) -> RegionWeights:
    """The cast's regions on a grid of ``height`` x ``width`` cells, a frame for each of ``pictures``: their numbers in a batch.

    ``view`` says which part of the picture the grid shows, where a host denoises a part alone; None: all of it. People
    without a region share what others leave free; if nobody has one, several get ``strips``, or else share the whole picture.
    Where nobody's region is, ``outside`` decides: "everyone" is visible, or "nobody". Raises DynamicIDError for an empty cast.
    """
    cast = with_default_regions(cast) if strips else cast
    placed = _placed_cells(cast, height, width, view, pictures)
    boosted = torch.stack(placed).amax(0) if placed else torch.zeros(len(pictures), height * width)  # [F, N]
    free = 1 - boosted
    cells = iter(placed)
    visible = torch.stack([next(cells) if person.region else free for person in cast.people], dim=1)  # [F, P, N]
    inside = visible.amax(1)  # [F, N]
    nobody = inside == 0
    reach = torch.ones_like(inside) if outside == "everyone" else (~nobody).float()
    return RegionWeights(torch.where(nobody[:, None], 1.0, visible), inside, boosted, reach)


def frames_of(cast: Cast, picture: int) -> tuple[int, ...]:
    """Which frame of each mask picture ``picture`` of a batch has: pictures that have the same ones have the same regions."""
    masks = (person.region.mask for person in cast.people if person.region)
    return tuple(picture % len(mask) for mask in masks if mask is not None)


def halvings(height: int, width: int, levels: int = 4) -> list[GridSize]:
    """Grid sizes of a UNet's levels; each halves the one before, rounding up. Only equal sizes have equally many cells."""
    sizes = [(height, width)]
    for _ in range(levels - 1):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes
