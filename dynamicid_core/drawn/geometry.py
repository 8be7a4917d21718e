"""Curves and the turning head: points float64 [n, 2] in head half-heights, the middle of the head at 0, y down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .people import Color, Identity, Motion

Points = np.ndarray

TURN, NOD = 0.44, 0.62  # shares of the angles: all of them would push an eye off a flat face
DEPTH = 0.62  # of the face before the axis of the head
_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
CIRCLE = np.stack((np.cos(_ANGLES), np.sin(_ANGLES)), -1)
SPAN = np.linspace(-1, 1, 17)  # along brows, lids and lips, left to right


@dataclass(frozen=True)
class Shape:
    """A filled polygon [n, 2] and its color. ``part`` names what a mask may ask for."""

    points: Points
    color: Color
    part: str = "other"


def mix(first: Color, second: Color, share: float) -> Color:
    """``first`` with a share of ``second``, 0 to 1."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, round(c * factor)) for c in color)
    return red, green, blue


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return moved(CIRCLE * (rx, ry), x, y)


def moved(points: Points, x: float, y: float = 0.0) -> Points:
    there: Points = points + np.array((x, y))
    return there


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def bezier(start: tuple[float, float], *ends: tuple[tuple[float, float], ...], steps: int = 10) -> Points:
    """Cubic pieces (control, control, end), quadratic (control, end) or straight (end,) after ``start``."""
    t = np.linspace(0, 1, steps + 1)[1:, None]
    pieces, here = [np.array([start], np.float64)], np.array(start, np.float64)
    for piece in ends:
        nodes = [here, *(np.array(p, np.float64) for p in piece)]
        if len(nodes) == 2:
            pieces.append(nodes[1][None])
        elif len(nodes) == 3:
            pieces.append((1 - t) ** 2 * nodes[0] + 2 * t * (1 - t) * nodes[1] + t**2 * nodes[2])
        else:
            a, b, c, d = nodes
            pieces.append((1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d)
        here = nodes[-1]
    return np.concatenate(pieces)


def ribbon(line: Points, width: float | np.ndarray) -> Points:
    """The outline [2n, 2] of a stroke along ``line`` [n, 2], of one width or one for each point."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    side = np.stack((-along[:, 1], along[:, 0]), -1) * (np.asarray(width) / 2).reshape(-1, 1)
    return np.concatenate((line + side, (line - side)[::-1]))


def ring(outline: Points, width: float) -> Points:
    """The outline of a stroke along a closed convex curve around its middle, as one polygon with a seam."""
    middle = outline.mean(0)
    arm = outline - middle
    thin = 1 - width / np.maximum(np.hypot(arm[:, 0], arm[:, 1]), width)[:, None]
    closed = np.concatenate((outline, outline[:1]))
    return np.concatenate((closed, (middle + np.concatenate((arm * thin, arm[:1] * thin[:1])))[::-1]))


class Head:
    """A head that is turned: where points of a face that looks ahead go."""

    def __init__(self, identity: Identity, motion: Motion, jaw_drop: float) -> None:
        yaw, pitch = np.deg2rad(motion.yaw) * TURN, np.deg2rad(motion.pitch) * NOD
        self.width, self.jaw, self.jaw_drop = identity.width, 0.42 + 0.4 * identity.jaw, jaw_drop
        self.sin, self.cos = float(np.sin(yaw)), float(np.cos(yaw))
        self.up, self.level = float(np.sin(pitch)), float(np.cos(pitch))
        self.edge = self.outline()
        self.left_edge = np.concatenate((self.edge[:1], self.edge[:19:-1]))

    def place(self, x: np.ndarray, y: np.ndarray, z: np.ndarray | float) -> Points:
        """Points in the head, z towards the viewer -> [n, 2] in the picture."""
        turned = x * self.cos + z * self.sin
        depth = z * self.cos - x * self.sin
        return np.stack((turned, y * self.level - depth * self.up), -1)

    def front(self, points: Points, lift: float = 0.0) -> Points:
        """Points of the face [n, 2] that lie on its surface, ``lift`` before it."""
        points = np.asarray(points, np.float64)
        x, y = points[:, 0], points[:, 1]
        bow = np.maximum(0, 1 - 0.8 * (x / self.width) ** 2 - 0.3 * y**2)
        placed = self.place(x, y, DEPTH * np.sqrt(bow) + lift)
        if not lift:
            placed[:, 0] = self.inside(placed)
        return placed

    def inside(self, placed: Points, margin: float = 0.02) -> np.ndarray:
        """The x of points in the picture, moved into the silhouette: nothing on a face leaves the head."""
        y = placed[:, 1]
        right = np.interp(y, self.edge[:21, 1], self.edge[:21, 0]) - margin
        left = np.interp(y, self.left_edge[:, 1], self.left_edge[:, 0]) + margin
        return np.clip(placed[:, 0], np.minimum(left, right), right)

    def outline(self, grow: float = 0.0) -> Points:
        """The silhouette [41, 2], clockwise from the top; point 20 is the chin. Its jaw follows the turn."""
        w, j = self.width, self.jaw
        right = bezier((0, -1), ((w * 1.05, -1), (w * 1.1, -0.25), (w, 0.1)), ((w * 0.97, 0.55), (w * j, 1), (0, 1)))
        return self.silhouette(np.concatenate((right, (right * (-1, 1))[-2:0:-1])) * (1 + grow))

    def silhouette(self, points: Points) -> Points:
        """Points around the head: the jaw goes with the face, the back of the skull against it."""
        x, y = points[:, 0], points[:, 1]
        low = np.clip((y + 0.1) / 1.1, 0, 1)
        shift = self.sin * (0.30 * low**1.5 - 0.14 * (1 - low))
        drop = self.jaw_drop * low**3
        return np.stack((x * (1 - 0.06 * abs(self.sin)) + shift, y + drop - self.up * 0.30 * low), -1)
