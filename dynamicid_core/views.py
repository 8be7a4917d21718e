"""A part of a picture that a host denoises alone (an area, a crop, a tile), and where its grids lie in the whole's."""

from __future__ import annotations

from dataclasses import dataclass

from .types import DynamicIDError

CELL = 8  # px of a picture for each cell of its latent, in all models that the method knows


@dataclass(frozen=True)
class View:
    """A rectangle of a picture, in cells of any grid that lies over the whole (latent cells, pixels)."""

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]  # height and width of the picture, in the same cells

    def __post_init__(self) -> None:
        (tall, wide), bottom, right = self.whole, self.top + self.height, self.left + self.width
        if not (0 <= self.top < bottom <= tall and 0 <= self.left < right <= wide):
            raise DynamicIDError(f"{self} does not lie inside the picture.")

    @classmethod
    def clipped(cls, top: int, left: int, height: int, width: int, whole: tuple[int, int]) -> View:
        """The part of a rectangle that lies inside the picture."""
        return cls(top, left, min(height, whole[0] - top), min(width, whole[1] - left), whole)

    def on_grid(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where a grid of ``height`` x ``width`` cells over this view lies in the grid that the whole picture would have.

        Returns that grid's height and width, then the top and left of this part in it. A grid's cells need not be those
        that the view was given in: the UNet's levels halve them.
        """
        tall = max(round(height * self.whole[0] / self.height), height)
        wide = max(round(width * self.whole[1] / self.width), width)
        top = min(round(tall * self.top / self.whole[0]), tall - height)
        left = min(round(wide * self.left / self.whole[1]), wide - width)
        return tall, wide, top, left
