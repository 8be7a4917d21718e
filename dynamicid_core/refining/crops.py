"""A part of a picture to be drawn again: cut out with room around, enlarged, laid back without a seam.

Here a picture is float32 [h, w, C] in 0..1, of which the first three channels are RGB: what is not drawn again must keep
every bit, also of pictures that have more levels than 8 bits. Boxes are (x0, y0, x1, y1), in its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..pictures import square_around
from ..types import DynamicIDError
from ..views import CELL, View

COARSE = 64  # px that the cells of the UNet's coarsest level cover: squares are sampled in whole ones
LARGEST = 2.0  # times the asked for size: what is larger already is sampled as it is, up to there
EDGE = 0.1  # of a crop's longer side: how far in from its edges it is whole
PixelBox = Sequence[float]  # x0, y0, x1, y1


def square_crop(size: tuple[int, int], box: PixelBox, factor: float) -> View:
    """A square of ``factor`` times the longer side of ``box``, moved and shrunk to lie in a picture of ``size`` (h, w)."""
    left, top, right, bottom = square_around(size, box, factor)
    return View(top, left, bottom - top, right - left, size)


def grown_crop(size: tuple[int, int], box: PixelBox, room: float) -> View:
    """``box`` with ``room`` times its longer side around it, as far as that lies in a picture of ``size`` (h, w)."""
    x0, y0, x1, y1 = box
    edge, (height, width) = room * max(x1 - x0, y1 - y0), size
    top, left = max(int(y0 - edge), 0), max(int(x0 - edge), 0)
    bottom, right = min(round(y1 + edge), height), min(round(x1 + edge), width)
    return View(top, left, bottom - top, right - left, size)


def working_size(crop: View, side: int) -> tuple[int, int]:
    """Height and width at which a crop is sampled: about ``side`` squared, its proportions kept.

    What is larger is not made smaller, up to :data:`LARGEST` times ``side``. Squares get multiples of 64 px, others of 8,
    so that neither is bent much. Raises DynamicIDError for a side below 64.
    """
    if side < COARSE:
        raise DynamicIDError(f"Faces cannot be sampled at {side} px. Choose a size of at least {COARSE}.")
    own = (crop.height * crop.width) ** 0.5
    scale = min(max(side, own), LARGEST * side) / own
    multiple = COARSE if crop.height == crop.width else CELL
    height, width = (max(round(n * scale / multiple), 1) * multiple for n in (crop.height, crop.width))
    return height, width


def enlarged(picture: Tensor, crop: View, size: tuple[int, int]) -> Tensor:
    """The crop of a picture [h, w, C], in ``size`` (height, width): [*size, 3]"""
    return resized(cut(picture, crop)[..., :3], size).clamp(0, 1)


def cut(picture: Tensor, crop: View) -> Tensor:
    """The part of [h, w, ...] that a crop shows; not a copy."""
    return picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def resized(values: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """[h, w, C] -> [*size, C]; what gets smaller is averaged. ``mode``: "bicubic" for pictures, "bilinear" for masks."""
    if values.shape[:2] == size:
        return values
    return interpolate(values.movedim(-1, 0)[None], size, mode=mode, antialias=True)[0].movedim(0, -1)


def soft_box(crop: View, box: PixelBox, reach: float) -> Tensor:
    """1 for each pixel of a crop inside ``box``, less and less outside, 0 from ``reach`` px away on: [h, w]"""
    rows = _plateau(crop.top, crop.height, box[1], box[3], reach)
    return rows[:, None] * _plateau(crop.left, crop.width, box[0], box[2], reach)


def soft_edges(crop: View) -> Tensor:
    """0 at a crop's edges, which would be seen in the picture, 1 further in; the picture's own edges are none: [h, w]"""
    height, width = crop.whole
    fade = EDGE * max(crop.height, crop.width)

    def side(first: int, count: int, whole: int) -> Tensor:
        start = first + fade if first else 0
        end = first + count - fade if first + count < whole else whole
        return _plateau(first, count, start, end, fade)

    return side(crop.top, crop.height, height)[:, None] * side(crop.left, crop.width, width)


def _plateau(first: int, count: int, start: float, end: float, reach: float) -> Tensor:
    """For ``count`` pixels from ``first`` on: 1 between ``start`` and ``end``, smoothly down to 0 at ``reach`` from there."""
    middles = torch.arange(first, first + count) + 0.5
    away = torch.maximum(start - middles, middles - end).clamp_min(0)
    share = (1 - away / max(reach, 1e-6)).clamp_min(0)
    return share * share * (3 - 2 * share)


def paste(picture: Tensor, crop: View, drawn: Tensor, mask: Tensor) -> Tensor:
    """A copy of a picture [h, w, C] with ``drawn`` [h', w', 3] in its crop, as far as ``mask`` [h, w] says.

    Where the mask is 0, every bit stays.
    """
    small = resized(drawn.float(), (crop.height, crop.width)).clamp(0, 1)
    result = picture.clone()
    place = cut(result, crop)
    share = mask[..., None]
    place[..., :3] = torch.where(share > 0, share * small + (1 - share) * place[..., :3], place[..., :3])
    return result


def as_picture(image: np.ndarray) -> Tensor:
    """uint8 RGB [h, w, 3] -> float32 in 0..1, from which :func:`as_image` makes the same bytes again."""
    return torch.from_numpy(np.array(image)).float() / 255


def as_image(picture: Tensor) -> np.ndarray:
    """Float32 [h, w, C] in 0..1 -> uint8 RGB [h, w, 3]."""
    image: np.ndarray = (picture[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return image
