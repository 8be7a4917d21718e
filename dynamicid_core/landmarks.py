"""The 106 points of a face: fractions of a photo, the raster that a network sees, the expression that they show.

InsightFace's order, as far as it is used here ("left" is the left of the picture):

=================  ====================================================================================
contour            0 chin; 1, 9-16, 2-8 down the left side; 17, 25-32, 18-24 down the right side
left eye           35 outer and 39 inner corner; 40 middle of the upper, 33 of the lower lid; 38 pupil
right eye          89 inner and 93 outer corner; 94 middle of the upper, 87 of the lower lid; 88 pupil
left brow          43 outer end, 48, 49, 51, 50 inner end (upper edge); 46, 47, 45, 44 (lower edge)
right brow         102 inner end, 103, 104, 105, 101 outer end (upper edge); 100, 99, 98, 97 (lower edge)
nose               72, 73, 74, 86 down the bridge to the tip; 80 middle of the base
outer lips         52 left and 61 right corner; 64, 63, 71, 67, 68 above; 58, 59, 53, 56, 55 below, from the right
inner lips         65 left and 69 right corner; 66, 62, 70 above; 57, 60, 54 below, from the right
=================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .types import DynamicIDError

RASTER_SIZE = 96

EXPRESSIONS = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")  # as published source prompts say

EYES = ((33, 35, 40, 39), (87, 89, 94, 93))
BROWS = ((43, 48, 49, 51, 50, 46, 47, 45, 44), (101, 105, 104, 103, 102, 97, 98, 99, 100))
BROW_ENDS = ((43, 50), (101, 102))  # outer, inner

# Expression -> measures with the value at which they begin to speak for it and the change that is worth 1. All must
# speak for it, and the weakest counts. Values in between, and faces that fit nothing, are neutral.
EVIDENCE = {
    "happy": (("corners", 0.05, 0.04), ("width", 0.75, 0.2)),
    "surprise": (("gap", 0.22, 0.12), ("raise", 0.36, 0.06), ("corners", 0.06, -0.06)),
    "sad": (("corners", -0.045, -0.04), ("slope", 0.08, 0.05), ("gap", 0.12, -0.08)),
    "anger": (("slope", -0.07, -0.05), ("raise", 0.30, -0.06), ("corners", 0.04, -0.06)),
    "disgust": (("lip", 0.17, -0.05), ("raise", 0.26, -0.05), ("corners", 0.04, -0.06)),
    "fear": (("slope", 0.13, 0.05), ("lids", 0.36, 0.08), ("gap", 0.05, 0.08), ("corners", 0.04, -0.06)),
}


def landmark_fractions(landmarks: np.ndarray, region: Sequence[float]) -> np.ndarray:
    """Points in pixels -> float32 fractions of ``region`` (x0, y0, x1, y1), the part of the picture that is encoded."""
    x0, y0, x1, y1 = region
    return ((np.asarray(landmarks) - (x0, y0)) / (x1 - x0, y1 - y0)).astype(np.float32)


def landmark_raster(fractions: Tensor | np.ndarray) -> Tensor:
    """Landmarks [106, 2] or [n, 106, 2], fractions of the photo -> float32 [n, 1, 96, 96], white (1) on black (-1).

    A point is drawn at the pixel (int(x), int(y)) if 0 < x < 96 and 0 < y < 96 (docs/method.md, section 2).
    """
    points = torch.as_tensor(fractions, dtype=torch.float32)
    points = (points if points.ndim == 3 else points[None]) * RASTER_SIZE
    raster = torch.full((len(points), 1, RASTER_SIZE, RASTER_SIZE), -1.0, device=points.device)
    face, point = ((points > 0) & (points < RASTER_SIZE)).all(-1).nonzero(as_tuple=True)
    x, y = points[face, point].long().unbind(-1)
    raster[face, 0, y, x] = 1.0
    return raster


def expression_measures(landmarks: np.ndarray | Tensor) -> dict[str, float]:
    """Geometry of mouth, brows and eyes, in eye distances, after turning the eyes level; larger values mean:

    ``corners``: corners of the mouth above the middle of the closed lips; ``width``: mouth wide; ``gap``: lips apart;
    ``lip``: upper lip far from the nose; ``raise``: brows far above the eyes; ``slope``: inner ends of the brows above
    the outer ones; ``lids``: eyes open (in widths of an eye).
    """
    points = np.asarray(landmarks, dtype=np.float64)
    left, right = (points[list(eye)].mean(0) for eye in EYES)
    axis = right - left
    distance = float(np.hypot(*axis))
    if not np.isfinite(points).all() or distance == 0:
        raise DynamicIDError("These face landmarks are not usable (both eyes in one place). Use another photo.")
    # In these coordinates x runs from eye to eye and y down the face.
    p = (points - (left + right) / 2) @ np.stack((axis, (-axis[1], axis[0])), axis=1) / distance**2
    x, y = p[:, 0], p[:, 1]
    eye_y = [y[list(eye)].mean() for eye in EYES]
    gap = y[60] - y[62]
    return {
        "corners": float((y[71] + y[53] - gap) / 2 - (y[52] + y[61]) / 2),
        "width": float(x[61] - x[52]),
        "gap": float(gap),
        "lip": float(y[71] - y[80]),
        "raise": float(np.mean([eye - y[list(brow)].mean() for eye, brow in zip(eye_y, BROWS, strict=True)])),
        "slope": float(np.mean([y[outer] - y[inner] for outer, inner in BROW_ENDS])),
        # seen from the side, an eye may have no width
        "lids": float(((y[33] - y[40]) / max(x[39] - x[35], 0.1) + (y[87] - y[94]) / max(x[93] - x[89], 0.1)) / 2),
    }


def read_expression(landmarks: np.ndarray | Tensor) -> str:
    """One of ``EXPRESSIONS``, from the shape of mouth and brows alone; "neutral" when nothing speaks clearly.

    ``landmarks`` [106, 2] in pixels, or as fractions of a square: the two axes must have one scale. Size, place and
    roll of the face do not matter. It takes the place of an expression classifier: clear expressions seen from the
    front are read, subtle ones are not.
    """
    measures = expression_measures(landmarks)
    scores = {
        name: min((measures[measure] - start) / unit for measure, start, unit in evidence)
        for name, evidence in EVIDENCE.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0 else "neutral"
