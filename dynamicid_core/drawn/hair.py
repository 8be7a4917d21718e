"""What surrounds a face: hair before and behind it, beards, ears, marks, and the body below."""

from __future__ import annotations

import numpy as np

from .face import MOUTH_Y, Face
from .geometry import Points, bezier, ellipse, mix, moved, shade
from .people import PAINT, Clothes, Color

GOLD: Color = (250, 206, 56)
MOLE: Color = (56, 34, 28)
COVERED_EARS = ("bob", "long", "curly")


def dark_hair(face: Face) -> Color:
    return shade(face.who.hair, 0.76)


def block(x0: float, y0: float, x1: float, y1: float, r: float) -> Points:
    """A rectangle with round corners."""
    return bezier(
        (x0 + r, y0), ((x1 - r, y0),), ((x1, y0), (x1, y0 + r)), ((x1, y1 - r),), ((x1, y1), (x1 - r, y1)),
        ((x0 + r, y1),), ((x0, y1), (x0, y1 - r)), ((x0, y0 + r),), ((x0, y0), (x0 + r, y0)), steps=5,
    )  # fmt: skip


def back_hair(face: Face) -> None:
    w, color, cut = face.who.width, dark_hair(face), face.who.cut
    shift = np.array((-0.16 * face.head.sin, 0.0))
    if cut == "long":
        face.add(block(-w - 0.2, -1.0, w + 0.2, 1.65, 0.5) + shift, color, "hair")
    elif cut == "bob":
        face.add(block(-w - 0.22, -1.05, w + 0.22, 0.72, 0.42) + shift, color, "hair")
    elif cut == "curly":
        for angle in np.linspace(0.86, 2.14, 9) * np.pi:
            face.add(
                ellipse(np.cos(angle) * (w + 0.16), -0.28 + np.sin(angle) * 0.88, 0.35, 0.35) + shift, color, "hair"
            )
    elif cut == "bun":
        face.add(ellipse(0, -1.2, 0.36, 0.34) + 2 * shift, color, "hair")
    elif cut == "pigtails":
        for side in (-1, 1):
            face.add(ellipse(side * (w + 0.3), 0.16, 0.28, 0.5) + shift, color, "hair")
            face.add(ellipse(side * (w + 0.14), -0.28, 0.12, 0.12) + shift, PAINT[face.who.hat_paint], "hair")


def body(face: Face, clothes: Clothes) -> None:
    paint, skin = PAINT[clothes.paint], shade(face.who.skin, 0.84)
    second = shade(paint, 0.62) if sum(paint) > 230 else (206, 206, 212)
    torso = bezier(
        (-1.5, 3.4),
        ((-1.5, 1.6), (-1.05, 1.42), (-0.42, 1.25)),
        ((0.42, 1.25),),
        ((1.05, 1.42), (1.5, 1.6), (1.5, 3.4)),
    )
    face.add(torso, paint, "body")
    if clothes.pattern == "striped":
        left, right = torso[:11], torso[-11:]
        for y in (1.62, 2.12, 2.62, 3.12):
            rows = np.array((y, y + 0.23))
            x0, x1 = np.interp(rows, left[::-1, 1], left[::-1, 0]), np.interp(rows, right[:, 1], right[:, 0])
            face.add(np.array([(x0[0], y), (x1[0], y), (x1[1], y + 0.23), (x0[1], y + 0.23)]), second, "body")
    face.add(block(-0.3, 0.5, 0.3, 1.34, 0.15), skin, "body")
    if clothes.pattern == "collar":
        face.add(np.array([(-0.42, 1.22), (0, 1.85), (0.42, 1.22)]), skin, "body")
        for side in (-1, 1):
            face.add(np.array([(side * 0.34, 1.1), (side * 0.62, 1.3), (side * 0.42, 1.86), (0, 1.62)]), second, "body")
    else:
        face.add(ellipse(0, 1.26, 0.4, 0.17), skin, "body")


def ears(face: Face) -> None:
    if face.who.cut in COVERED_EARS:
        return
    for side in (-1, 1):
        turn = side * face.head.sin  # positive: this ear is on the far side
        if turn > 0.3:
            continue
        x = (
            side * face.who.width * (1 - 0.06 * abs(face.head.sin))
            - 0.1 * face.head.sin
            + side * (0.05 - 0.1 * max(0.0, -turn))
        )
        face.add(ellipse(x, 0.07, 0.15, 0.22), shade(face.who.skin, 0.84), "face")
        if face.who.mark == "earrings":
            face.add(ellipse(x + side * 0.02, 0.36, 0.09, 0.1), GOLD)


def beard(face: Face) -> None:
    """What grows on the jaw, below the mouth that is drawn later."""
    kind, head = face.who.beard, face.head
    if kind in ("full", "stubble"):
        jaw = head.edge[12:29] * (1.03, 1.05) if kind == "full" else head.edge[12:29]
        w = face.who.width
        inner = np.array(
            [(-0.8 * w, 0.1), (-0.62 * w, 0.34), (-0.4, 0.37), (0, 0.41), (0.4, 0.37), (0.62 * w, 0.34), (0.8 * w, 0.1)]
        )
        color = dark_hair(face) if kind == "full" else mix(face.who.skin, dark_hair(face), 0.36)
        face.add(np.concatenate((jaw, head.front(inner))), color, "face")
    elif kind == "goatee":
        tuft = ellipse(0, MOUTH_Y + 0.24, 0.25, 0.22)
        tuft[:, 1] = np.minimum(tuft[:, 1], 0.98) + head.jaw_drop
        face.add(head.front(tuft), dark_hair(face), "face")


def moustache(face: Face) -> None:
    if face.who.beard in ("moustache", "full", "goatee"):
        y = MOUTH_Y - face.m.mouth_up - face.m.top - 0.075 + 0.3 * face.m.smile
        half = bezier((0, y - 0.1), ((0.2, y - 0.12), (0.38, y + 0.08)), ((0.2, y + 0.02), (0, y + 0.01)), steps=6)
        face.add(face.head.front(np.concatenate((half, (half * (-1, 1))[::-1]))), dark_hair(face), "face")


def marks(face: Face) -> None:
    skin, head = face.who.skin, face.head
    for side in (-1, 1):
        if face.who.mark == "blush":
            face.add(head.front(ellipse(side * 0.5, 0.3, 0.19, 0.13)), mix(skin, (244, 84, 96), 0.45))
        if face.who.mark == "freckles":
            for dx, dy in ((0, 0), (0.13, 0.06), (-0.12, 0.07), (0.02, 0.14)):
                face.add(head.front(ellipse(side * 0.44 + dx, 0.25 + dy, 0.042, 0.042)), shade(skin, 0.62))
    if face.who.mark == "mole":
        face.add(head.front(ellipse(0.42, 0.44, 0.075, 0.075)), MOLE)


def skull(face: Face, grow: float, low: float) -> Points:
    """The upper half of the head, enlarged: from the left at height ``low`` over the top to the right."""
    w = face.who.width + grow
    arc = bezier((-w, low), ((-w - 0.07, -1.36 - 1.5 * grow), (w + 0.07, -1.36 - 1.5 * grow), (w, low)), steps=18)
    return face.head.silhouette(arc)


def over_forehead(face: Face, outer: Points, line: list[tuple[float, float]]) -> Points:
    """A polygon between ``outer`` (left over the top to the right) and a line on the forehead, right to left."""
    inner = face.head.front(np.array(line), 1e-6)
    top = int(outer[:, 1].argmin())
    right = np.interp(inner[:, 1], outer[top:, 1], outer[top:, 0])
    left = np.interp(inner[:, 1], outer[: top + 1, 1][::-1], outer[: top + 1, 0][::-1])
    inner[:, 0] = np.clip(inner[:, 0], left, right)
    return np.concatenate((outer, inner))


def hairline(face: Face) -> list[tuple[float, float]]:
    w, cut = face.who.width, face.who.cut
    if cut == "side":
        return [
            (0.93 * w, -0.1),
            (0.8 * w, -0.42),
            (0.42, -0.74),
            (0.3, -0.74),
            (-0.2, -0.56),
            (-0.8 * w, -0.3),
            (-0.93 * w, -0.1),
        ]
    if cut in ("bob", "pigtails"):
        return [
            (0.93 * w, 0.0),
            (0.86 * w, -0.46),
            (0.4, -0.5),
            (0, -0.51),
            (-0.4, -0.5),
            (-0.86 * w, -0.46),
            (-0.93 * w, 0.0),
        ]
    if cut in ("long", "bun"):
        return [
            (0.93 * w, 0.05),
            (0.8 * w, -0.42),
            (0.4, -0.68),
            (0, -0.9),
            (-0.4, -0.68),
            (-0.8 * w, -0.42),
            (-0.93 * w, 0.05),
        ]
    return [
        (0.94 * w, -0.1),
        (0.84 * w, -0.5),
        (0.4, -0.63),
        (0, -0.66),
        (-0.4, -0.63),
        (-0.84 * w, -0.5),
        (-0.94 * w, -0.1),
    ]


def front_hair(face: Face) -> None:
    cut, color = face.who.cut, face.who.hair
    if cut in ("bald", "mohawk"):
        if cut == "mohawk" and face.who.hat not in ("cap", "beanie", "brim"):
            crest = bezier(
                (-0.22, -0.62),
                ((-0.34, -1.2), (-0.2, -1.62), (0.02, -1.62)),
                ((0.22, -1.62), (0.34, -1.2), (0.22, -0.62)),
            )
            face.add(moved(crest, 0.26 * face.head.sin), color, "hair")
        return
    outer = skull(face, {"short": 0.03, "curly": 0.08}.get(cut, 0.07), 0.05)
    if cut == "spiky" and face.who.hat not in ("cap", "beanie", "brim"):
        outer = spikes(outer)
    face.add(over_forehead(face, outer, hairline(face)), color, "hair")
    if cut == "curly":
        for angle in np.linspace(1.08, 1.92, 6) * np.pi:
            curl = (np.cos(angle) * face.who.width * 0.86, -0.36 + np.sin(angle) * 0.5)
            face.add(face.head.silhouette(moved(ellipse(*curl, 0.25, 0.25), 0.18 * face.head.sin)), color, "hair")


def spikes(outer: Points) -> Points:
    """Every second point of the middle part pulled outwards."""
    picked = outer[np.linspace(0, len(outer) - 1, 15).round().astype(int)].copy()
    for index in range(3, 12, 2):
        picked[index] = moved(picked[index] * 1.16, 0, -0.24)
    return picked
