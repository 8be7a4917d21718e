"""Words on pictures: one kind of caption for all drawings, and a colour for each person."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from .plain import one_line

Color = tuple[int, int, int]  # RGB
Font = ImageFont.FreeTypeFont

# Told apart by most kinds of colour blindness too (Okabe and Ito); further people get colours between these.
COLORS: tuple[Color, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
)  # fmt: skip
PLATE: Color = (16, 16, 16)
LARGEST_LETTERS = 512  # px; a picture that is hundreds of thousands of px long has no use for more
PAD = 2  # px between the plate's edge and the text; the side ones have one more


def person_color(number: int) -> Color:
    """RGB of person ``number`` (from 0)."""
    if number < len(COLORS):
        return COLORS[number]
    hue = (number * 0.618034) % 1  # the golden section never repeats
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.6, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def caption_font(width: int, height: int) -> Font:
    """A font that can be read on a picture of that size, also where a node shows it 300 px wide."""
    size = max(11, round((width + height) * 0.0225), round(width * 0.037))
    return cast(Font, ImageFont.load_default(min(size, LARGEST_LETTERS)))


def caption_height(lines: int, font: Font) -> int:
    """Height of a caption's plate, the same for all texts with so many lines."""
    ascent, descent = font.getmetrics()
    return lines * (ascent + descent) + 2 * PAD


def _shortened(line: str, draw: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    while len(line) > 2 and draw.textlength(line, font=font) > width:
        line = line[:-3] + ".."
    return line


def draw_caption(
    picture: Image.Image, lines: Sequence[str], x: float, y: float, color: Color, font: Font, last: Color | None = None
) -> int:
    """Lines of text on a dark plate whose upper left corner is at (x, y), moved and shortened to lie in the picture.

    ``last``: the colour of the last line, where it is another. Returns the plate's upper end.
    """
    draw = ImageDraw.Draw(picture)
    lines = [_shortened(one_line(line), draw, font, picture.width - 2 * PAD) for line in lines]
    wide = int(max(draw.textlength(line, font=font) for line in lines)) + 2 * (PAD + 1)
    high = caption_height(len(lines), font)
    left, top = max(min(int(x), picture.width - wide), 0), max(min(int(y), picture.height - high), 0)
    draw.rectangle((left, top, left + wide - 1, top + high - 1), fill=PLATE)
    for number, line in enumerate(lines):
        below = caption_height(number, font) - PAD
        ink = last if last and number == len(lines) - 1 else color
        draw.text((left + PAD + 1, top + below), line, font=font, fill=ink)
    return top
