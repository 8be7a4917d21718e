"""Hats and glasses, over hair and eyes."""

from __future__ import annotations

import numpy as np

from .face import EYE_Y, Face
from .geometry import Points, bezier, ellipse, mix, moved, ribbon, ring, shade
from .hair import GOLD, over_forehead, skull
from .people import PAINT


def hat(face: Face) -> None:
    kind, w = face.who.hat, face.who.width
    if kind == "none":
        return
    paint = PAINT[face.who.hat_paint]
    trim = shade(paint, 0.72) if sum(paint) > 230 else (96, 96, 108)
    edge = [(0.95 * w, -0.44), (0.5 * w, -0.52), (0, -0.55), (-0.5 * w, -0.52), (-0.95 * w, -0.44)]
    if kind == "crown":
        line = bezier(
            (-0.62, -0.72),
            ((-0.74, -1.46),),
            ((-0.32, -1.1),),
            ((0, -1.52),),
            ((0.32, -1.1),),
            ((0.74, -1.46),),
            ((0.62, -0.72),),
        )
        face.add(moved(line, 0.1 * face.head.sin, -0.05), GOLD, "hair")
        return
    outer = skull(face, 0.12, -0.42)
    if kind == "band":
        outer, high = (
            skull(face, 0.02 if face.who.cut == "bald" else 0.1, -0.36),
            [(x, y - 0.24) for x, y in reversed(edge)],
        )
        face.add(
            np.concatenate(
                (over_forehead(face, outer, edge)[len(outer) :], over_forehead(face, outer, high)[len(outer) :])
            ),
            paint,
            "hair",
        )
        return
    face.add(over_forehead(face, outer, edge), paint, "hair")
    rim = np.concatenate((outer[-1:], over_forehead(face, outer, edge)[len(outer) :], outer[:1]))
    if kind == "beanie":
        face.add(ribbon(rim, 0.26), trim, "hair")
        face.add(ellipse(-0.1 * face.head.sin, -1.42, 0.19, 0.19), trim, "hair")
    elif kind == "cap":
        face.add(ellipse(0.62 * face.head.sin, -0.5, w * 0.95, 0.15), trim, "hair")
    else:
        face.add(ellipse(0.06 * face.head.sin, -0.52, w + 0.5, 0.17), trim, "hair")


def lenses(face: Face) -> list[Points]:
    size = 0.265
    corners = np.sign(ellipse(0, 0, 1, 1)) * np.abs(ellipse(0, 0, 1, 1)) ** 0.35
    form = ellipse(0, 0, 1, 1) if face.who.glasses == "round" else corners
    return [
        face.head.front(moved(form * (size, 0.245), side * (face.who.eye_distance + 0.01), EYE_Y), 0.04)
        for side in (-1, 1)
    ]


def glass(face: Face) -> None:
    for lens in lenses(face) if face.who.glasses != "none" else ():
        face.add(lens, mix(face.who.skin, (214, 234, 255), 0.42))


def frames(face: Face) -> None:
    if face.who.glasses == "none":
        return
    paint = PAINT[face.who.glasses_paint]
    left, right = lenses(face)
    for side, lens in ((-1, left), (1, right)):
        face.add(ring(lens, 0.075), paint)
        end = lens[lens[:, 0].argmax() if side > 0 else lens[:, 0].argmin()]
        temple = np.array([end, (side * face.who.width * (1 - 0.06 * abs(face.head.sin)) - 0.1 * face.head.sin, EYE_Y)])
        if (temple[1, 0] - end[0]) * side > 0.02:
            face.add(ribbon(temple, 0.06), paint)
    bridge = np.array([left[left[:, 0].argmax()], right[right[:, 0].argmin()]])
    if bridge[1, 0] > bridge[0, 0]:
        face.add(ribbon(bridge, 0.06), paint)
