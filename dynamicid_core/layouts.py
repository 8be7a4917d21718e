"""Where people stand when nobody draws boxes, and boxes as text."""

from __future__ import annotations

import math

from .regions import Box
from .types import DynamicIDError

LAYOUTS = ("side by side", "rows", "grid", "drawn")  # the last: boxes that are given as text
EDGE = 0.04  # of a place's width and height: what stays free around a box


def _place(row: int, column: int, rows: int, columns: int) -> Box:
    """The box of one place among equal ones."""
    y0, x0 = (row + EDGE) / rows, (column + EDGE) / columns
    return y0, x0, (row + 1 - EDGE) / rows, (column + 1 - EDGE) / columns


def arranged(layout: str, people: int) -> list[Box]:
    """One box (fractions y0, x0, y1, x1) for each of ``people``: in a row, one below the other, or in rows like text.

    Raises DynamicIDError for a layout that is none of ``LAYOUTS`` but the last.
    """
    if layout not in LAYOUTS[:-1]:
        raise DynamicIDError(f"The layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    columns = {"side by side": people, "rows": 1, "grid": math.ceil(math.sqrt(people))}[layout]
    rows = math.ceil(people / columns) if people else 0
    return [_place(number // columns, number % columns, rows, columns) for number in range(people)]


def parse_boxes(text: str) -> list[Box]:
    """ "left,top,right,bottom; ..." as fractions of the picture -> boxes (y0, x0, y1, x1), one for each person.

    Raises DynamicIDError for anything else.
    """
    boxes = []
    for number, part in enumerate(filter(str.strip, text.replace("\n", ";").split(";")), 1):
        try:
            left, top, right, bottom = map(float, part.replace(",", " ").split())
        except ValueError:
            raise DynamicIDError(
                f"Box {number} is {part.strip()!r}; expected four numbers, left,top,right,bottom, as fractions of the picture."
            ) from None
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise DynamicIDError(
                f"Box {number} is {part.strip()!r}; its numbers are fractions of the picture from 0 to 1, left before "
                "right and top before bottom."
            )
        boxes.append((top, left, bottom, right))
    return boxes
