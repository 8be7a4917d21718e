"""Records become pixels: uint8 RGB, anti-aliased, with landmarks, boxes and masks that are exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .face import Face
from .geometry import Points, Shape, bezier, ellipse, mix, shade
from .hair import block, dress
from .people import PAINT, Color, Identity, Motion
from .scene import Background, Figure, Scene

FINE = 3  # subpixels along each side of a pixel
PAPER: Color = (236, 236, 236)
NECK = np.array((0.0, 0.9))  # heads lean around it; the body stays upright


@dataclass(frozen=True)
class Drawn:
    """A picture and what is known of it. People are in the order of the scene, from the back to the front."""

    picture: np.ndarray  # uint8 [h, w, 3]
    landmarks: np.ndarray  # float32 [n, 106, 2], pixels
    boxes: np.ndarray  # float32 [n, 4], around the landmarks, pixels
    people: np.ndarray | None = None  # uint8 [h, w]: 0 background, 1 to n whom a pixel shows
    faces: np.ndarray | None = None  # the same for heads without hair


def ground_shapes(background: Background, width: float) -> list[Shape]:
    """The background in picture heights, from the back to the front."""
    paint = mix(PAINT[background.paint], PAPER, 0.45)
    shapes = [Shape(np.array([(0, 0), (width, 0), (width, 1), (0, 1)]), paint)]
    low = 0.55 + 0.5 * background.height * 0.5
    if background.ground == "floor":
        shapes.append(Shape(np.array([(0, low), (width, low), (width, 1), (0, 1)]), shade(paint, 0.74)))
    elif background.ground == "stripes":
        for x in np.arange(0.0, width, 0.25):
            shapes.append(Shape(np.array([(x, 0), (x + 0.125, 0), (x + 0.125, 1), (x, 1)]), shade(paint, 0.86)))
    elif background.ground == "hills":
        shapes[0] = Shape(shapes[0].points, (190, 224, 246))
        for x, y, color in ((0.25, 0.1, paint), (0.8, 0.2, shade(paint, 0.84))):
            shapes.append(Shape(ellipse(x * width, low + y + 0.25, 0.55 * width, 0.45), color))
    elif background.ground == "window":
        x = width * (0.5 + 0.28 * -background.side)
        shapes.append(Shape(block(x - 0.25, 0.08, x + 0.25, 0.62, 0.03), (250, 250, 250)))
        for dx in (-0.215, 0.015):
            for y in (0.115, 0.365):
                shapes.append(Shape(np.array([(x + dx, y), (x + dx + 0.2, y), (x + dx + 0.2, y + 0.22), (x + dx, y + 0.22)]), (166, 214, 246)))
    elif background.ground == "night":
        shapes[0] = Shape(shapes[0].points, (44, 52, 104))
        for k in range(int(9 * width)):
            x, y = (k * 0.754878 + background.height) % 1, (k * 0.569840 + 0.13) % 1 * 0.7
            shapes.append(Shape(ellipse(x * width, y, 0.014, 0.014), (252, 244, 190)))
    return shapes


def thing_shapes(background: Background, width: float) -> list[Shape]:
    """The thing at a side, in picture heights."""
    paint, x = PAINT[background.thing_paint], width * (0.5 + 0.38 * background.side)
    y = background.height
    if background.thing == "balloon":
        return [
            Shape(np.array([(x - 0.006, y), (x + 0.006, y), (x + 0.026, 1), (x + 0.014, 1)]), (250, 250, 250)),
            Shape(ellipse(x, y, 0.11, 0.14), paint),
        ]
    if background.thing == "plant":
        leaves = [bezier((x, 0.8), ((x + dx, 0.6), (x + dx * 1.5, 0.45)), ((x + dx * 0.3, 0.55), (x, 0.8))) for dx in (-0.14, 0.0, 0.14)]
        pot = np.array([(x - 0.1, 0.78), (x + 0.1, 0.78), (x + 0.075, 1), (x - 0.075, 1)])
        return [*(Shape(leaf + (0.02, 0), (52, 140, 74)) for leaf in leaves), Shape(pot, paint)]
    if background.thing == "lamp":
        return [
            Shape(np.array([(x - 0.012, 0.3), (x + 0.012, 0.3), (x + 0.012, 1), (x - 0.012, 1)]), (72, 62, 62)),
            Shape(np.array([(x - 0.06, 0.2), (x + 0.06, 0.2), (x + 0.13, 0.42), (x - 0.13, 0.42)]), paint),
        ]
    if background.thing == "picture":
        y = 0.08 + 0.4 * y
        return [
            Shape(np.array([(x - 0.12, y), (x + 0.12, y), (x + 0.12, y + 0.28), (x - 0.12, y + 0.28)]), (120, 82, 50)),
            Shape(np.array([(x - 0.09, y + 0.03), (x + 0.09, y + 0.03), (x + 0.09, y + 0.25), (x - 0.09, y + 0.25)]), paint),
        ]
    return []


def leaning(points: Points, roll: float) -> Points:
    angle = np.deg2rad(roll)
    turn = np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
    leant: Points = (points - NECK) @ turn + NECK
    return leant


def figure_shapes(figure: Figure) -> tuple[list[Shape], Points]:
    """A person's shapes and landmarks [106, 2], in picture heights."""
    face = dress(Face(figure.identity, figure.motion), figure.clothes)
    at = np.array((figure.x, figure.y))

    def placed(points: Points, part: str = "") -> Points:
        result: Points = (points if part == "body" else leaning(points, figure.motion.roll)) * figure.size + at
        return result

    return [Shape(placed(s.points, s.part), s.color, s.part) for s in face.shapes], placed(face.landmarks)


def fill(draw: ImageDraw.ImageDraw, points: Points, scale: float, color: Color | int) -> None:
    # Pillow cuts coordinates off. The small extra keeps numbers that should be whole on one side on every platform.
    whole = np.floor(points * scale + 0.5001).astype(int)
    draw.polygon(whole.ravel().tolist(), fill=color)


def draw_picture(scene: Scene, height: int = 128, masks: bool = False) -> Drawn:
    """The picture of a scene, ``height`` px high, and what is known of it."""
    width = round(scene.width * height)
    scale = height * FINE
    picture = Image.new("RGB", (width * FINE, scale))
    draw = ImageDraw.Draw(picture)
    for shape in (*ground_shapes(scene.background, scene.width), *thing_shapes(scene.background, scene.width)):
        fill(draw, shape.points, scale, shape.color)
    maps = [Image.new("L", (width, height)) for _ in range(2 * masks)]
    landmarks = np.zeros((len(scene.figures), 106, 2), np.float32)
    for number, figure in enumerate(scene.figures, 1):
        shapes, points = figure_shapes(figure)
        landmarks[number - 1] = points * height
        for shape in shapes:
            fill(draw, shape.points, scale, shape.color)
        for kind, image in enumerate(maps):
            pen = ImageDraw.Draw(image)
            for shape in shapes:
                fill(pen, shape.points - 0.5 / height, height, number if kind == 0 or shape.part != "body" and shape.part != "hair" else 0)
    boxes = np.concatenate((landmarks.min(1), landmarks.max(1)), 1) if scene.figures else np.zeros((0, 4), np.float32)
    pixels = np.asarray(picture.reduce(FINE))
    return Drawn(pixels, landmarks, boxes, *(np.asarray(image) for image in maps))

