"""Records become pixels: uint8 RGB, anti-aliased, with landmarks, boxes and masks that are exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .backdrop import ground_shapes, thing_shapes
from .face import Face
from .figure import dress
from .geometry import Points, Shape
from .people import Color
from .scene import Figure, Scene

FINE = 3  # subpixels along each side of a pixel
NECK = np.array((0.0, 0.9))  # heads lean around it; the body stays upright


@dataclass(frozen=True)
class Drawn:
    """A picture and what is known of it. People are in the order of the scene, from the back to the front."""

    picture: np.ndarray  # uint8 [h, w, 3]
    landmarks: np.ndarray  # float32 [n, 106, 2], pixels
    boxes: np.ndarray  # float32 [n, 4], around the landmarks, pixels
    people: np.ndarray | None = None  # uint8 [h, w]: 0 background, 1 to n whom a pixel shows
    faces: np.ndarray | None = None  # the same for heads without hair


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
                fill(
                    pen,
                    shape.points - 0.5 / height,
                    height,
                    number if kind == 0 or (shape.part != "body" and shape.part != "hair") else 0,
                )
    boxes = np.concatenate((landmarks.min(1), landmarks.max(1)), 1) if scene.figures else np.zeros((0, 4), np.float32)
    pixels = np.asarray(picture.reduce(FINE))
    return Drawn(pixels, landmarks, boxes, *(np.asarray(image) for image in maps))
