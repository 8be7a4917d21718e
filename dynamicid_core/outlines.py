"""Where a person may appear, drawn by hand: outlines as text become a soft mask."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .plain import shown
from .types import DynamicIDError

Point = tuple[float, float]  # x, y as fractions of the picture

SIZE = 256  # cells of a mask on each side: latents of pictures up to 2048 px lose nothing
FINER = 2  # times as fine are outlines drawn, for edges without stairs
SOFT = 0.012  # of the picture: standard deviation of the soft edge
LONGEST = 1 << 18  # characters: some hundred outlines


def parse_outlines(text: str) -> list[list[Point]]:
    """ "x,y x,y x,y; ..." as fractions of the picture -> outlines of three points or more, each closed by itself.

    Raises DynamicIDError for anything else.
    """
    if len(text) > LONGEST:
        raise DynamicIDError(
            f"The outlines are {len(text)} characters long, of at most {LONGEST}; draw fewer, or connect a mask instead."
        )
    parts = filter(str.strip, text.replace("\n", ";").split(";"))
    return [_outline(part, number) for number, part in enumerate(parts, 1)]


def _outline(text: str, number: int) -> list[Point]:
    try:
        outline = [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]
    except ValueError:
        raise DynamicIDError(
            f"Outline {number} is {shown(text.strip())}; expected points x,y as fractions of the picture, with spaces "
            "between them."
        ) from None
    if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in outline):
        raise DynamicIDError(
            f"Outline {number} is {shown(text.strip())}; its numbers are fractions of the picture, from 0 to 1."
        )
    if len(set(outline)) < 3:
        raise DynamicIDError(f"Outline {number} has {len(set(outline))} different points; an area needs three.")
    return outline


def outlined(text: str) -> Tensor | None:
    """Outlines as text (:func:`parse_outlines`) -> what they enclose, float32 [1, SIZE, SIZE] in 0..1, or None without any.

    Edges are soft, and where outlines overlap they count once. Raises DynamicIDError for other text, and for outlines
    that enclose nothing.
    """
    outlines = parse_outlines(text)
    if not outlines:
        return None
    drawn = Image.new("L", (SIZE * FINER, SIZE * FINER))
    pen = ImageDraw.Draw(drawn)
    for outline in outlines:
        pen.polygon([(x * drawn.width, y * drawn.height) for x, y in outline], fill=255)
    soft = drawn.filter(ImageFilter.GaussianBlur(SOFT * drawn.width))
    values = torch.frombuffer(bytearray(soft.tobytes()), dtype=torch.uint8).view(1, soft.height, soft.width)
    return avg_pool2d(values.float() / 255, FINER)
