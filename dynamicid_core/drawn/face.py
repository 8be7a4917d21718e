"""The face: eyes, brows, nose, mouth, in any expression, with InsightFace's 106 points (order: landmarks.py)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .geometry import CIRCLE, SPAN, Head, Points, Shape, bezier, ellipse, mix, moved, ribbon, shade
from .people import Color, Identity, Motion

MOUTH_LINE: Color = (72, 18, 28)
TEETH: Color = (252, 252, 248)
TONGUE: Color = (238, 104, 116)
TEAR: Color = (92, 176, 246)
LASH: Color = (38, 28, 30)

EYE_Y, NOSE_Y, MOUTH_Y = -0.04, 0.31, 0.57


@dataclass(frozen=True)
class Muscles:
    """What an expression does to a face, in head half-heights; the defaults are neutral.

    The mouth: ``smile`` lifts its corners above its middle, ``top`` and ``bottom`` part the lips, ``square`` rounds
    (2) or squares (6) the opening. The brows: ``lift`` moves all, ``inner`` their inner ends, both up.
    """

    smile: float = 0.005
    top: float = 0.0
    bottom: float = 0.0
    square: float = 2.0
    mouth: float = 0.27  # half width
    mouth_up: float = 0.0
    upper_teeth: float = 0.0  # share of the opening
    lower_teeth: float = 0.0
    tongue: float = 0.0
    nose_up: float = 0.0
    lift: float = 0.0
    inner: float = 0.0
    arch: float = 0.045
    upper_lid: float = 0.145
    lower_lid: float = 0.115
    slant: float = 0.0  # the upper lid's outer corner falls
    iris: float = 0.105
    wrinkles: float = 0.0
    tear: float = 0.0
    sweat: float = 0.0


NEUTRAL = Muscles()
MUSCLES = {
    "neutral": NEUTRAL,
    "happy": Muscles(smile=0.17, bottom=0.27, mouth=0.42, upper_teeth=0.42, tongue=0.0, lift=0.04, arch=0.085,
                     upper_lid=0.14, lower_lid=0.05, square=2.2),
    "surprise": Muscles(smile=-0.02, top=0.12, bottom=0.23, mouth=0.18, mouth_up=-0.02, lift=0.17, arch=0.09,
                        upper_lid=0.215, lower_lid=0.175, iris=0.095),
    "sad": Muscles(smile=-0.18, mouth=0.32, mouth_up=-0.03, lift=0.05, inner=0.10, arch=0.01, upper_lid=0.10,
                   lower_lid=0.105, slant=0.05, tear=1.0),
    "anger": Muscles(smile=-0.06, top=0.045, bottom=0.11, square=5.0, mouth=0.36, upper_teeth=0.45, lower_teeth=0.45,
                     lift=-0.095, inner=-0.125, arch=0.0, upper_lid=0.10, lower_lid=0.105, slant=-0.09, iris=0.09),
    "disgust": Muscles(smile=-0.07, top=0.04, bottom=0.07, mouth=0.30, mouth_up=0.135, tongue=1.0, nose_up=0.02,
                       lift=-0.12, inner=-0.015, arch=0.0, upper_lid=0.055, lower_lid=0.05, iris=0.095, wrinkles=1.0),
    "fear": Muscles(smile=-0.09, top=0.03, bottom=0.19, square=4.0, mouth=0.37, lower_teeth=0.4, lift=0.10,
                    inner=0.10, arch=0.0, upper_lid=0.205, lower_lid=0.17, iris=0.062, sweat=1.0),
}  # fmt: skip


def muscles(motion: Motion) -> Muscles:
    """The muscles of an expression at its intensity, on the line from neutral."""
    target, k = MUSCLES[motion.expression], motion.intensity
    values = {
        f.name: getattr(NEUTRAL, f.name) + k * (getattr(target, f.name) - getattr(NEUTRAL, f.name))
        for f in fields(Muscles)
    }
    return Muscles(**values)


class Face:
    """Shapes and landmarks of one face on a turned head. ``landmarks`` [106, 2] fills up while features are drawn."""

    def __init__(self, identity: Identity, motion: Motion) -> None:
        self.who, self.motion, self.m = identity, motion, muscles(motion)
        self.head = Head(identity, motion, 0.35 * max(0.0, self.m.bottom))
        self.landmarks = np.zeros((106, 2))
        self.shapes: list[Shape] = []

    def add(self, points: Points, color: Color, part: str = "other") -> None:
        self.shapes.append(Shape(points, color, part))

    def contour(self, outline: Points) -> None:
        """The head's silhouette [40, 2] gives points 0 to 32."""
        right, left = outline[9:21], np.concatenate((outline[31:20:-1], outline[20:21]))
        for side, order in ((left, (1, *range(9, 17), *range(2, 9))), (right, (17, *range(25, 33), *range(18, 25)))):
            at = np.linspace(0, len(side) - 1, 17)[:-1]
            for axis in (0, 1):
                self.landmarks[list(order), axis] = np.interp(at, np.arange(len(side)), side[:, axis])
        self.landmarks[0] = outline[20]

    def eye(self, side: int) -> None:
        """One eye; ``side`` -1 is the left of the picture."""
        m, size = self.m, self.who.eye_size
        x0, half = side * self.who.eye_distance, 0.185 * size
        arc = (1 - SPAN**2) ** 0.62
        outer = SPAN * side  # 1 at the outer corner
        upper = EYE_Y - m.upper_lid * size * arc + m.slant * outer * (1 - SPAN**2) ** 0.3
        lower = EYE_Y + m.lower_lid * size * arc
        upper = np.minimum(upper, lower - 0.012 * arc)
        x = x0 + SPAN * half
        white = np.concatenate((np.stack((x, upper), -1), np.stack((x, lower), -1)[::-1]))
        self.add(self.head.front(white), TEETH)
        gaze = np.array((x0 + 0.05 * self.head.sin, EYE_Y - 0.05 * self.head.up + 0.012))
        for radius, color in ((m.iris * size, self.who.iris), (m.iris * size * 0.52, (14, 12, 16))):
            disc = CIRCLE * radius + gaze
            disc[:, 1] = np.clip(disc[:, 1], np.interp(disc[:, 0], x, upper), np.interp(disc[:, 0], x, lower))
            self.add(self.head.front(disc), color)
        glint = moved(CIRCLE[::3] * 0.028 + gaze, -0.035, -0.035)
        glint[:, 1] = np.clip(glint[:, 1], np.interp(glint[:, 0], x, upper), np.interp(glint[:, 0], x, lower))
        self.add(self.head.front(glint), TEETH)
        self.add(ribbon(self.head.front(np.stack((x, upper), -1)), 0.05), LASH)
        self.eye_points(side, np.stack((x, upper), -1), np.stack((x, lower), -1), gaze)

    def eye_points(self, side: int, upper: Points, lower: Points, gaze: Points) -> None:
        upper, lower = self.head.front(upper), self.head.front(lower)
        first, last, top, bottom, pupil = (
            (35, 39, (41, 40, 42), (36, 33, 37), (34, 38))
            if side < 0
            else (89, 93, (95, 94, 96), (90, 87, 91), (88, 92))
        )
        self.landmarks[[first, last]] = upper[[0, -1]]
        self.landmarks[list(top)], self.landmarks[list(bottom)] = upper[[4, 8, 12]], lower[[4, 8, 12]]
        self.landmarks[list(pupil)] = self.head.front(gaze[None])

    def brow(self, side: int) -> None:
        m, thick = self.m, self.who.brow
        t = np.linspace(-1, 1, 5)  # outer to inner
        x = side * (self.who.eye_distance - t * 0.21)
        y = EYE_Y - 0.25 - m.lift - m.inner * t - m.arch * (1 - t**2)
        line = np.stack((x, y), -1)
        width = thick * np.array((0.55, 0.95, 1.1, 1.1, 0.9))
        upper, lower = (
            self.head.front(line - np.stack((0 * t, width / 2), -1)),
            self.head.front(line + np.stack((0 * t, width / 2), -1)),
        )
        color = shade(self.who.hair, 0.55) if self.who.cut != "bald" or self.who.beard != "none" else (70, 48, 38)
        self.add(np.concatenate((upper, lower[::-1])), color)
        tops, bottoms = (
            ((43, 48, 49, 51, 50), (46, 47, 45, 44)) if side < 0 else ((101, 105, 104, 103, 102), (97, 98, 99, 100))
        )
        self.landmarks[list(tops)], self.landmarks[list(bottoms)] = upper, lower[1:]

    def nose(self) -> None:
        size, base, dark = self.who.nose_size, NOSE_Y - self.m.nose_up, shade(self.who.skin, 0.68)
        tip = self.head.front(np.array([(0.0, base - 0.06)]), 0.16 * size)[0]
        low = self.head.front(np.array([(0.0, base)]), 0.06)[0]
        bridge = self.head.front(np.array([(0.0, EYE_Y + 0.04)]), 0.02)[0]
        wide = 0.11 * size
        wings = self.head.front(np.array([(-wide, base), (wide, base)]), 0.03)
        if self.who.nose == "button":
            self.add(ellipse((tip[0] + low[0]) / 2, (tip[1] + low[1]) / 2, 0.105 * size, 0.088 * size), dark)
        elif self.who.nose == "wedge":
            self.add(np.array([bridge, wings[1], moved(low, 0, 0.03), wings[0]]), dark)
        else:
            near = wings[1] if self.head.sin >= 0 else wings[0]
            line = bezier(
                tuple(bridge),
                (tuple(moved(tip, 0.04 * np.sign(self.head.sin + 1e-9), -0.05)), tuple(near)),
                (tuple(low),),
                steps=6,
            )
            self.add(ribbon(line, 0.062), dark)
        for k in range(int(self.m.wrinkles > 0.3) * 2):
            side = 1 - 2 * k
            crease = self.head.front(
                np.array([(side * 0.12, base - 0.16), (side * 0.20, base - 0.07), (side * 0.24, base + 0.04)])
            )
            self.add(ribbon(crease, 0.045 * self.m.wrinkles), shade(self.who.skin, 0.62))
        self.nose_points(bridge, tip, low, wings)

    def nose_points(self, bridge: Points, tip: Points, low: Points, wings: Points) -> None:
        for k, index in enumerate((72, 73, 74, 86)):
            self.landmarks[index] = bridge + (tip - bridge) * k / 3
        self.landmarks[80] = low
        for wing, indices in zip(wings, ((75, 76, 77, 78, 79), (81, 82, 83, 84, 85)), strict=True):
            near_bridge = bridge + (wing - low) * 0.6
            for share, index in zip((0.2, 0.6, 0.9), indices[:3], strict=True):
                self.landmarks[index] = near_bridge + (wing - near_bridge) * share
            self.landmarks[indices[3]], self.landmarks[indices[4]] = wing, wing + (low - wing) * 0.5

    def mouth(self) -> None:
        """Lips, what is between them, and points 52 to 71."""
        m, lips = self.m, self.who.lips
        middle = MOUTH_Y - m.mouth_up
        line = middle + 0.5 * m.smile - m.smile * SPAN**2
        bow = np.maximum(0, 1 - np.abs(SPAN) ** m.square) ** 0.5
        soft = (1 - SPAN**2) ** 0.5
        x = SPAN * m.mouth
        inner_top, inner_low = line - m.top * bow, line + m.bottom * bow
        top, low = inner_top - lips * (0.25 + 0.75 * soft), inner_low + lips * (0.25 + 0.85 * soft)
        lip = mix(shade(self.who.skin, 0.78), (196, 40, 58), 0.25 + 0.65 * self.who.lip_red)

        def band(first: np.ndarray, second: np.ndarray) -> Points:
            return self.head.front(np.concatenate((np.stack((x, first), -1), np.stack((x, second), -1)[::-1])))

        self.add(band(top, low), lip)
        if m.top + m.bottom > 0.02:
            self.add(band(inner_top, inner_low), MOUTH_LINE)
            gap = inner_low - inner_top
            if m.upper_teeth > 0.05:
                self.add(band(inner_top, inner_top + np.minimum(gap, m.upper_teeth * (m.top + m.bottom))), TEETH)
            if m.lower_teeth > 0.05:
                self.add(band(inner_low - np.minimum(gap, m.lower_teeth * (m.top + m.bottom)), inner_low), TEETH)
        else:
            self.add(ribbon(self.head.front(np.stack((x, line), -1)), 0.035), shade(lip, 0.5))
        if m.tongue > 0.1:
            wide, long = 0.15, 0.24 * m.tongue
            y0 = middle + m.bottom * 0.4
            hang = bezier((-wide, y0), ((-wide, y0 + long * 1.35), (wide, y0 + long * 1.35), (wide, y0)))
            self.add(self.head.front(hang), TONGUE)
        self.mouth_points(x, top, inner_top, inner_low, low)

    def mouth_points(
        self, x: np.ndarray, top: np.ndarray, inner_top: np.ndarray, inner_low: np.ndarray, low: np.ndarray
    ) -> None:
        for y, places, indices in (
            (top, (4, 6, 8, 10, 12), (64, 63, 71, 67, 68)),
            (low, (12, 10, 8, 6, 4), (58, 59, 53, 56, 55)),
            (inner_top, (5, 8, 11), (66, 62, 70)),
            (inner_low, (11, 8, 5), (57, 60, 54)),
            ((top + low) / 2, (0, 16), (52, 61)),
            ((inner_top + inner_low) / 2, (1, 15), (65, 69)),
        ):
            self.landmarks[list(indices)] = self.head.front(np.stack((x, y), -1)[list(places)])

    def tears(self) -> None:
        """Drops that make sadness and fear plain: under the left eye, at the right temple."""
        if self.m.tear > 0.3:
            self.drop(-self.who.eye_distance - 0.07, 0.24, 0.075 * self.m.tear)
        if self.m.sweat > 0.3:
            self.drop(0.66 * self.who.width, -0.36, 0.085 * self.m.sweat)

    def drop(self, x: float, y: float, r: float) -> None:
        at = self.head.front(np.array([(x, y)]))[0]
        self.add(
            bezier(
                (0, -2.4 * r),
                ((0.4 * r, -r), (1.3 * r, 0), (0, r)),
                ((-1.3 * r, 0), (-0.4 * r, -r), (0, -2.4 * r)),
                steps=6,
            )
            + at,
            TEAR,
        )
