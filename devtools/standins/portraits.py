"""Drawn portraits: photos of nobody, with faces that the stand-in detector finds."""

from __future__ import annotations

from PIL import Image, ImageDraw

# Background, hair, skin, clothes.
COLORS = (
    ((126, 150, 166), (58, 38, 26), (224, 172, 140), (70, 84, 120)),
    ((150, 140, 120), (24, 22, 24), (206, 148, 114), (120, 60, 66)),
    ((110, 134, 116), (150, 104, 52), (236, 190, 162), (88, 88, 88)),
)


def draw_portrait(number: int, size: int = 512) -> Image.Image:
    """Head and shoulders of one of a few made-up people, RGB, ``size`` x ``size`` pixels."""
    background, hair, skin, clothes = COLORS[number % len(COLORS)]
    image = Image.new("RGB", (512, 512), background)
    draw = ImageDraw.Draw(image)
    dark = tuple(value // 3 for value in skin)
    lips = (skin[0] - 40, skin[1] - 80, skin[2] - 60)
    draw.ellipse((60, 400, 452, 700), fill=clothes)
    draw.ellipse((136, 70, 376, 360), fill=hair)
    draw.rectangle((216, 350, 296, 430), fill=skin)
    draw.ellipse((164, 110, 348, 390), fill=skin)
    for x in (214, 298):
        draw.ellipse((x - 22, 218, x + 22, 242), fill=(240, 236, 230))
        draw.ellipse((x - 12, 218, x + 12, 242), fill=dark)
        draw.line((x - 28, 200, x, 194, x + 28, 200), fill=hair, width=8)
    draw.line((256, 236, 246, 288, 264, 290), fill=dark, width=4)
    draw.ellipse((218, 316, 294, 344), fill=lips)
    return image.resize((size, size), Image.Resampling.LANCZOS)
