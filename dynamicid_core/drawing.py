"""A cast and its gate maps as pictures for people: uint8 RGB [h, w, 3], legible at any size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from .regions import region_cells, region_weights, with_default_regions
from .types import Cast, DynamicIDError, Person

# Told apart by most kinds of colour blindness too (Okabe and Ito); further people get colours between these.
COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
GROUND = (46, 48, 52)
PLATE = (16, 16, 16)
FILL = 0.45  # opacity of a region
FREE = 0.12  # ... of the part that people without a region share
# Black over blue and red to white: dark where nothing happens, even steps in lightness.
HEAT = np.array([(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)], np.float32)


def person_color(number: int) -> tuple[int, int, int]:
    """RGB of person ``number`` (from 0)."""
    if number < len(COLORS):
        return COLORS[number]
    hue = (number * 0.618034) % 1  # the golden section never repeats
    return tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.6, 0.95))


def person_label(number: int, person: Person) -> str:
    """ "1 Anna x 0.8": number from 1, name, and the weight where it is not 1."""
    name = f" {person.face.name}" if person.face.name else ""
    return f"{number + 1}{name}" + (f" x {person.weight:g}" if person.weight != 1 else "")


def _ground(width: int, height: int, image: np.ndarray | None) -> Image.Image:
    if width < 1 or height < 1:
        raise DynamicIDError(f"A picture of {width}x{height} px cannot be drawn; use at least 1x1.")
    if image is None:
        return Image.new("RGB", (width, height), GROUND)
    return Image.fromarray(np.ascontiguousarray(image[..., :3])).resize((width, height), Image.Resampling.BICUBIC)


def _font(width: int, height: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(max(10, round(min(width, height) * 0.035)))


def _high(font) -> int:
    """Height of a caption's plate, the same for all texts."""
    ascent, descent = font.getmetrics()
    return ascent + descent + 4


def _border(cells: np.ndarray, line: int) -> Image.Image:
    """The rim, ``line`` px wide, of where a region has more than half of its peak."""
    inside = Image.fromarray(((cells > cells.max() / 2) * 255).astype(np.uint8))
    framed = Image.new("L", (inside.width + 2, inside.height + 2))  # a rim at the picture's edge too
    framed.paste(inside, (1, 1))
    for _ in range(line):
        framed = framed.filter(ImageFilter.MinFilter(3))
    inner = framed.crop((1, 1, inside.width + 1, inside.height + 1))
    return Image.fromarray(np.asarray(inside) - np.asarray(inner))


def _bounds(cells: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of where a region has more than half of its peak, ends excluded."""
    rows, columns = (np.flatnonzero((cells > cells.max() / 2).any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _paint(picture: Image.Image, cells: np.ndarray, color: tuple[int, int, int], opacity: float) -> None:
    picture.paste(Image.new("RGB", picture.size, color), mask=Image.fromarray((cells * opacity * 255).astype(np.uint8)))


def _caption(picture: Image.Image, text: str, x: int, y: int, color: tuple[int, int, int], font) -> int:
    """One line on a dark plate, moved to lie in the picture; returns the plate's upper end."""
    draw = ImageDraw.Draw(picture)
    while len(text) > 2 and draw.textlength(text, font=font) > picture.width - 4:
        text = text[:-3] + ".."
    wide, high = int(draw.textlength(text, font=font)) + 6, _high(font)
    x, y = max(min(x, picture.width - wide), 0), max(min(y, picture.height - high), 0)
    draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=PLATE)
    draw.text((x + 3, y + 2), text, font=font, fill=color)
    return y


def _label(picture: Image.Image, number: int, person: Person, bounds: tuple[int, int, int, int], font) -> None:
    """The face's thumbnail and the person's label in the upper left of ``bounds``."""
    x0, y0, x1, y1 = bounds
    color, gap = person_color(number), max(2, min(picture.size) // 100)
    x, y = x0 + gap, y0 + gap
    side = min(round(min(picture.size) * 0.22), x1 - x0 - 2 * gap, y1 - y0 - 2 * gap)
    if person.face.thumbnail is not None and side >= 12:
        pixels = (person.face.thumbnail.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        face = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
        picture.paste(face, (x, y))
        ImageDraw.Draw(picture).rectangle((x, y, x + side - 1, y + side - 1), outline=color)
        y += side + gap
    _caption(picture, person_label(number, person), x, y, color, font)


def draw_cast(cast: Cast, width: int, height: int, image: np.ndarray | None = None, frame: int = 0) -> np.ndarray:
    """Who may appear where: uint8 RGB [height, width, 3].

    Regions are translucent colours with a border where half of their strength is reached; soft masks are shown with
    their softness, overlaps as mixed colours. Each has the person's number (from 1), name, weight if it is not 1, and
    the face's thumbnail. People without a region are listed at the bottom and share what is tinted faintly.
    ``image``: uint8 [h, w, 3 or 4] of any size, to draw on; ``frame``: which one of masks with several.
    Raises DynamicIDError for an empty cast.
    """
    cast = with_default_regions(cast)
    picture, font = _ground(width, height, image), _font(width, height)
    line = max(1, round(min(width, height) / 256))
    weights = region_weights(cast, height, width)
    everywhere = weights.visible[frame % len(weights.visible)].unflatten(-1, (height, width)).numpy()
    placed = []
    for number, person in enumerate(cast.people):
        if person.region is None:
            _paint(picture, everywhere[number], person_color(number), FREE)
            continue
        cells = region_cells(person.region, height, width)
        cells = cells[frame % len(cells)].numpy()
        _paint(picture, cells, person_color(number), FILL)
        if cells.max() > 0:
            placed.append((number, person, cells))
    for number, _, cells in placed:
        rim = Image.new("RGB", picture.size, person_color(number))
        picture.paste(rim, mask=_border(cells, line))
    for number, person, cells in placed:
        _label(picture, number, person, _bounds(cells), font)
    top = height
    for number, person in reversed(list(enumerate(cast.people))):
        if person.region is None:
            where = "whole picture" if len(cast.people) == 1 else "where nobody else is"
            text = f"{person_label(number, person)}: {where}"
            top = _caption(picture, text, 2, top - _high(font), person_color(number), font)
    return np.asarray(picture)


def heat_colors(values: Tensor) -> np.ndarray:
    """Values in 0..1, [..] -> uint8 RGB [.., 3]"""
    place = values.clamp(0, 1).float().cpu().numpy() * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    part = (place - low)[..., None]
    return (HEAT[low] * (1 - part) + HEAT[low + 1] * part + 0.5).astype(np.uint8)


def draw_gate_maps(maps: Tensor, names: Sequence[str] = (), image: np.ndarray | None = None) -> np.ndarray:
    """Where identity went in: uint8 RGB [P + 1, h, w, 3], one picture for each person and, last, one for the gate.

    ``maps`` [P + 1, h, w] of :meth:`gate_maps.GateRecorder.maps` for one picture. All share one scale, from 0 to the
    largest value, which is written in each. ``names``: P names; ``image``: uint8 [h', w', 3 or 4], shown underneath.
    """
    people, height, width = len(maps) - 1, *maps.shape[1:]
    if names and len(names) != people:
        raise DynamicIDError(f"There are maps of {people} people but {len(names)} names.")
    names = list(names) or ["" for _ in range(people)]
    largest = float(maps.max())
    scaled = maps / largest if largest > 0 else maps
    font = _font(width, height)
    drawn = []
    for number, values in enumerate(scaled):
        picture = Image.fromarray(heat_colors(values))
        if image is not None:
            picture = Image.blend(_ground(width, height, image), picture, 0.7)
        label = f"{number + 1} {names[number]}".rstrip() if number < people else "gate"
        color = person_color(number) if number < people else (255, 255, 255)
        _caption(picture, f"{label}: up to {float(maps[number].max()):.2f}", 2, 2, color, font)
        drawn.append(np.asarray(picture))
    return np.stack(drawn)


def side_by_side(pictures: Sequence[np.ndarray], columns: int = 4) -> np.ndarray:
    """Pictures of one size in rows of at most ``columns``: uint8 RGB [h, w, 3]"""
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), GROUND)
    for i, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (i % columns * width, i // columns * height))
    return np.asarray(sheet)
