"""What is behind people, as polygons in picture heights, from the back to the front."""

from __future__ import annotations

import numpy as np

from .geometry import Shape, bezier, ellipse, mix, moved, rectangle, shade
from .hair import block
from .people import PAINT, Color
from .scene import Background

PAPER: Color = (236, 236, 236)
SKY: Color = (190, 224, 246)
PANE: Color = (166, 214, 246)
FRAME: Color = (250, 250, 250)
NIGHT: Color = (44, 52, 104)
STAR: Color = (252, 244, 190)
LEAF: Color = (52, 140, 74)
IRON: Color = (72, 62, 62)
WOOD: Color = (120, 82, 50)


def ground_shapes(background: Background, width: float) -> list[Shape]:
    """The ground of a picture of ``width`` by 1."""
    paint = mix(PAINT[background.paint], PAPER, 0.45)
    low = 0.55 + 0.25 * background.height
    first = {"hills": SKY, "night": NIGHT}.get(background.ground, paint)
    shapes = [Shape(rectangle(0, 0, width, 1), first)]
    if background.ground == "floor":
        shapes += [Shape(rectangle(0, low, width, 1), shade(paint, 0.74))]
    elif background.ground == "stripes":
        stripes = np.arange(0.0, width, 0.25)
        shapes += [Shape(rectangle(x, 0, x + 0.125, 1), shade(paint, 0.86)) for x in stripes]
    elif background.ground == "hills":
        hills = ((0.25, 0.1, paint), (0.8, 0.2, shade(paint, 0.84)))
        shapes += [Shape(ellipse(x * width, low + y + 0.25, 0.55 * width, 0.45), color) for x, y, color in hills]
    elif background.ground == "window":
        x = width * (0.5 - 0.28 * background.side)
        corners = [(x + dx, y) for dx in (-0.215, 0.015) for y in (0.115, 0.365)]
        shapes += [Shape(block(x - 0.25, 0.08, x + 0.25, 0.62, 0.03), FRAME)]
        shapes += [Shape(rectangle(left, top, left + 0.2, top + 0.22), PANE) for left, top in corners]
    elif background.ground == "night":
        # multiples of these two numbers fill a square evenly
        stars = [((k * 0.754878 + background.height) % 1, (k * 0.569840 + 0.13) % 1) for k in range(int(9 * width))]
        shapes += [Shape(ellipse(x * width, 0.7 * y, 0.014, 0.014), STAR) for x, y in stars]
    return shapes


def thing_shapes(background: Background, width: float) -> list[Shape]:
    """The thing at a side."""
    paint, x, y = PAINT[background.thing_paint], width * (0.5 + 0.38 * background.side), background.height
    if background.thing == "balloon":
        string = np.array([(x - 0.006, y), (x + 0.006, y), (x + 0.026, 1), (x + 0.014, 1)])
        return [Shape(string, FRAME), Shape(ellipse(x, y, 0.11, 0.14), paint)]
    if background.thing == "plant":
        pot = np.array([(x - 0.1, 0.78), (x + 0.1, 0.78), (x + 0.075, 1), (x - 0.075, 1)])
        leaves = [
            bezier((x, 0.8), ((x + dx, 0.6), (x + dx * 1.5, 0.45)), ((x + dx * 0.3, 0.55), (x, 0.8)))
            for dx in (-0.14, 0.0, 0.14)
        ]
        return [*(Shape(moved(leaf, 0.02), LEAF) for leaf in leaves), Shape(pot, paint)]
    if background.thing == "lamp":
        screen = np.array([(x - 0.06, 0.2), (x + 0.06, 0.2), (x + 0.13, 0.42), (x - 0.13, 0.42)])
        return [Shape(rectangle(x - 0.012, 0.3, x + 0.012, 1), IRON), Shape(screen, paint)]
    if background.thing == "picture":
        top = 0.08 + 0.4 * y
        canvas = rectangle(x - 0.09, top + 0.03, x + 0.09, top + 0.25)
        return [Shape(rectangle(x - 0.12, top, x + 0.12, top + 0.28), WOOD), Shape(canvas, paint)]
    return []
