"""Whether what is sampled is the picture that people's places were given for, or a part of it: said, since it cannot be told.

A host samples what it is given. Detailers give it a crop of the picture and tilers a tile, and the places are then laid over
the whole of that. What can be known is another shape than that of the masks or of the boxes' canvas, another shape than
that of the picture that the same people were put into before, that only a part is to be denoised this time, or that a picture
is sampled again that is not the one from before: a second pass begins with what the first one made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from .regions import GridSize
from .types import Cast
from .views import CELL

ALIKE = 0.1  # of the logarithms of two shapes: sizes are rounded to cells
GLANCE = 8  # rows and columns in which two pictures are compared
SAME = 0.6  # a cosine of two glances: enlarged and encoded anew, pictures keep more; crops of them have less


@dataclass(frozen=True, eq=False)
class Sampled:
    """What one run samples."""

    latent: GridSize  # height and width in cells
    masked: bool = False  # only a part of it is denoised
    begun: Tensor | None = None  # a glance at the pictures that it begins with; None: with nothing
    made: Tensor | None = None  # a glance at those that came of it, where known


def glance(latents: Tensor) -> Tensor | None:
    """What latents [B, C, h, w] show, coarsely: [B, C * GLANCE**2] on the CPU, without each channel's mean. None: nothing."""
    coarse = adaptive_avg_pool2d(latents.detach().float().reshape(-1, *latents.shape[-3:]), GLANCE)
    coarse = coarse - coarse.mean((-2, -1), keepdim=True)
    shown: Tensor = coarse.flatten(1).cpu()
    return shown if shown.abs().amax() > 1e-6 else None


def is_another_picture(begun: Tensor | None, made: Tensor | None) -> bool:
    """Whether some of the pictures that a run begins with is none of those that were made before (both :func:`glance`)."""
    if begun is None or made is None or begun.shape[1] != made.shape[1]:
        return False
    alike = cosine_similarity(begun[:, None], made[None], dim=-1)  # [pictures, pictures before]
    return bool(alike.amax(1).min() < SAME)


def made_for(cast: Cast) -> GridSize | None:
    """Height and width, in any unit, of the picture that people's places were given for: a canvas, or the size of a mask.

    None where places are fractions alone, or nobody has a place.
    """
    regions = [person.region for person in cast.people if person.region is not None]
    canvases = [region.canvas for region in regions if region.canvas is not None]
    drawn = [region.mask for region in regions if region.mask is not None and not region.any_shape]
    masks = [(mask.shape[-2], mask.shape[-1]) for mask in drawn]
    return next(iter([*canvases, *masks]), None)


def is_alike(one: GridSize, other: GridSize) -> bool:
    """Whether two sizes have one shape."""
    return abs(math.log(one[0] * other[1]) - math.log(one[1] * other[0])) < ALIKE


def crop_warning(cast: Cast, now: Sampled, before: Sampled | None = None, tile: GridSize | None = None) -> str | None:
    """What to tell the user where people may land in wrong places; None where nothing speaks for it, or for one person.

    ``before``: the first run with these people for the same picture; ``tile``: the part, in cells, that a call of the model
    was given of what is sampled.
    """
    size = made_for(cast)
    if len(cast.people) < 2:
        return None
    if tile is not None:
        known = f"are put into {_px(now.latent)}, of which a part of {_px(tile)} is sampled by itself"
    elif size is not None and not is_alike(size, now.latent):
        known = f"have places in a picture of {size[1]} x {size[0]}, and what is sampled has {_px(now.latent)}"
    elif before is not None and not is_alike(before.latent, now.latent):
        known = f"were put into {_px(before.latent)} before, and now {_px(now.latent)} are sampled"
    elif before is not None and now.masked and not before.masked:
        known = f"were put into {_px(before.latent)} before, and now a part of {_px(now.latent)} is sampled again"
    elif before is not None and is_another_picture(now.begun, before.made):
        known = (
            f"were put into {_px(before.latent)} before, and now another picture of {_px(now.latent)} is sampled again"
        )
    else:
        return None
    return (
        f"{len(cast.people)} people {known}. Their places are laid over all that is sampled: if it is a crop of their picture, as "
        "detailers and tilers take it, faces land on the wrong people. Give such a node a model with one person, or without faces."
    )


def _px(cells: GridSize) -> str:
    return f"{cells[1] * CELL} x {cells[0] * CELL} px"
