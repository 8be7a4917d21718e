"""The shape of a face, which the stand-in landmark models bend: InsightFace's 106 points, and how they move.

Places in a face are given in *face units*: (u, v) run from -1 to 1 over a square around the face.
"""

from __future__ import annotations

import numpy as np

CONTOUR = (1, *range(9, 17), *range(2, 9), 0, *range(24, 17, -1), *range(32, 24, -1), 17)  # left temple, chin, right


def _mirrored(points: dict[int, tuple[float, float]], pairs: dict[int, int]) -> dict[int, tuple[float, float]]:
    return points | {right: (-points[left][0], points[left][1]) for left, right in pairs.items()}


def _mean_shape() -> np.ndarray:
    """A neutral face from the front in InsightFace's order of 106 points (see landmarks.py), face units."""
    angle = np.linspace(0, np.pi, len(CONTOUR))
    points = {i: (-0.74 * np.cos(a), -0.2 + 1.15 * np.sin(a)) for i, a in zip(CONTOUR, angle, strict=True)}
    eye = {35: (-0.53, 0.0), 41: (-0.45, -0.036), 40: (-0.38, -0.045), 42: (-0.31, -0.036), 39: (-0.23, 0.0)}
    eye |= {37: (-0.31, 0.036), 33: (-0.38, 0.045), 36: (-0.45, 0.036), 34: (-0.38, 0.0), 38: (-0.38, 0.0)}
    points |= {i: (x, y - 0.2) for i, (x, y) in eye.items()}
    points |= {43: (-0.62, -0.42), 48: (-0.52, -0.47), 49: (-0.4, -0.49), 51: (-0.28, -0.48), 50: (-0.16, -0.44)}
    points |= {46: (-0.52, -0.42), 47: (-0.40, -0.44), 45: (-0.28, -0.43), 44: (-0.16, -0.39)}
    points |= {72: (0, -0.2), 73: (0, -0.08), 74: (0, 0.04), 86: (0, 0.16), 80: (0, 0.28)}
    points |= {75: (-0.09, -0.15), 76: (-0.1, 0.08), 77: (-0.14, 0.2), 78: (-0.09, 0.25), 79: (-0.045, 0.27)}
    points |= {52: (-0.3, 0.52), 64: (-0.18, 0.475), 63: (-0.08, 0.455), 71: (0, 0.46), 55: (-0.18, 0.575)}
    points |= {56: (-0.09, 0.6), 53: (0, 0.605), 65: (-0.25, 0.52), 66: (-0.1, 0.515), 62: (0, 0.515)}
    points |= {60: (0, 0.525), 54: (-0.1, 0.525)}
    pairs = {35: 93, 41: 96, 40: 94, 42: 95, 39: 89, 37: 90, 33: 87, 36: 91, 34: 92, 38: 88}
    pairs |= {43: 101, 48: 105, 49: 104, 51: 103, 50: 102, 46: 97, 47: 98, 45: 99, 44: 100}
    pairs |= {75: 81, 76: 82, 77: 83, 78: 84, 79: 85, 52: 61, 64: 68, 63: 67, 55: 58, 56: 59, 65: 69, 66: 70, 54: 57}
    points = _mirrored(points, pairs)
    return np.array([points[i] for i in range(106)])


def shape_modes() -> dict[str, np.ndarray]:
    """How a face moves: name -> [106, 2] in face units, to be added to the mean shape as often as one likes.

    ``gap``: the mouth opens; ``smile``: its corners rise and part; ``raise``: the brows rise; ``slope``: their inner
    ends rise and the outer ones fall; ``lids``: the eyes open; ``lip``: the upper lip rises; ``yaw``: the face turns.
    """
    mean = _mean_shape()
    modes = {name: np.zeros_like(mean) for name in ("gap", "smile", "raise", "slope", "lids", "lip", "yaw")}
    lower, upper = [58, 59, 53, 56, 55, 57, 60, 54], [64, 63, 71, 67, 68, 66, 62, 70]
    modes["gap"][lower, 1] = 1
    modes["gap"][list(CONTOUR), 1] = 0.6 * np.sin(np.linspace(0, np.pi, len(CONTOUR))) ** 4
    modes["smile"][[52, 61, 65, 69], 1] = -1
    modes["smile"][[52, 65], 0], modes["smile"][[61, 69], 0] = -1, 1
    modes["lip"][upper, 1] = -1
    left, right = list(range(43, 52)), list(range(97, 106))
    modes["raise"][left + right, 1] = -1
    modes["slope"][left + right, 1] = (np.abs(mean[left + right, 0]) - 0.39) / 0.23
    modes["lids"][[41, 40, 42, 95, 94, 96], 1], modes["lids"][[37, 33, 36, 91, 87, 90], 1] = -1, 1
    modes["yaw"][:, 0] = np.clip(1 - (mean[:, 0] / 0.74) ** 2, 0, 1)
    return modes


def face_shape(**amounts: float) -> np.ndarray:
    """A face of 106 points [106, 2] in face units: the mean one, moved by ``amounts`` of ``shape_modes``."""
    modes = shape_modes()
    return _mean_shape() + sum((amount * modes[name] for name, amount in amounts.items()), np.zeros((106, 2)))
