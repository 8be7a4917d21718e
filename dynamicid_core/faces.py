"""Detected faces: what a detector tells of each, putting them in order, choosing one, judging it as a reference.

Boxes are (x0, y0, x1, y1) and points (x, y), in pixels of the picture (uint8 RGB [h, w, 3]); a size is (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from .pictures import crop_square
from .types import RECOGNISER, DynamicIDError

ORDERS = ("large-small", "small-large", "left-right", "right-left", "top-bottom", "bottom-top", "near-center")
ON_NO_FACE = ("error", "clip only", "skip photo")

SMALL_FACE = 80  # px of the face box's longer side; ArcFace sees an aligned crop of 112 px
BLURRED_BELOW = 60.0  # variance of the Laplacian of the grey face at 112 px, 0..255
TURNED_YAW, TURNED_PITCH = 40.0, 35.0  # degrees from the front

CURE = "Use photos that show a face from the front, large and sharp"


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """One face in a picture, in that picture's pixels."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1; may reach over the picture's edge
    score: float  # the detector's confidence, 0..1
    keypoints: np.ndarray  # [5, 2]: eyes, nose, corners of the mouth, each pair from left to right
    identity: np.ndarray | None = None  # [512] float32, length 1: ArcFace
    landmarks: np.ndarray | None = None  # [106, 2] float32, in InsightFace's order (landmarks.py)
    pose: tuple[float, float, float] | None = None  # pitch (up is positive), yaw, roll in degrees

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def center(self) -> tuple[float, float]:
        """x and y of the middle of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class FaceDetector(Protocol):
    """What finds faces. :class:`detection.InsightFaceDetector` is the published one."""

    @property
    def recogniser(self) -> str:
        """Whose identities it gives, e.g. ``buffalo_l``. Where a detector lacks it, :func:`recogniser_of` speaks for it."""
        ...

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        """Every face of a picture (uint8 RGB [h, w, 3]), in no particular order; an empty list if there is none."""
        ...


def recogniser_of(detector: FaceDetector) -> str:
    """Whose identities a detector gives. One that does not say, somebody's own, counts as the published one."""
    return getattr(detector, "recogniser", RECOGNISER)


def order_faces(faces: Sequence[DetectedFace], order: str, size: tuple[int, int]) -> list[DetectedFace]:
    """Faces in one of ``ORDERS``. Size is the area of the box, place its centre; ``size`` is the picture's (h, w)."""
    height, width = size
    keys: dict[str, Callable[[DetectedFace], float]] = {
        "large-small": lambda f: -(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]),
        "small-large": lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]),
        "left-right": lambda f: f.center[0],
        "right-left": lambda f: -f.center[0],
        "top-bottom": lambda f: f.center[1],
        "bottom-top": lambda f: -f.center[1],
        "near-center": lambda f: (f.center[0] - width / 2) ** 2 + (f.center[1] - height / 2) ** 2,
    }
    if order not in keys:
        raise DynamicIDError(f"Face order {order!r} is unknown; choose one of {', '.join(ORDERS)}.")
    return sorted(faces, key=keys[order])


def pick_face(faces: Sequence[DetectedFace], order: str, index: int, size: tuple[int, int]) -> DetectedFace:
    """The face with number ``index`` (from 0) in ``order``; DynamicIDError, with their number, if none has it."""
    ordered = order_faces(faces, order, size)
    if not ordered:
        raise DynamicIDError(f"No face was found in the photo. {CURE}.")
    if not 0 <= index < len(ordered):
        count = "1 face was" if len(ordered) == 1 else f"{len(ordered)} faces were"
        raise DynamicIDError(f"{count} found, numbered from 0 to {len(ordered) - 1}, but face {index} was asked for.")
    return ordered[index]


def _no_face_in(without: Sequence[int], count: int, names: Sequence[str]) -> str:
    named = ", ".join(dict.fromkeys(names[number - 1] for number in without if names and names[number - 1]))
    end = f" ({named})" if named else ""
    if count == 1:
        return f"No face was found in the photo{end}"
    which = f"photo {without[0]}" if len(without) == 1 else "photos " + ", ".join(map(str, without))
    return f"No face was found in {which} of {count}{end}"


def on_no_face(
    found: Sequence[DetectedFace | None], policy: str = "error", names: Sequence[str] = ()
) -> tuple[list[int], str]:
    """Which photos to encode, by place in ``found``, and a note for the user ("" if every photo shows a face).

    ``policy``: ``error`` refuses photos without a face; ``clip only`` encodes them with the identity left at zero, as
    published; ``skip photo`` leaves them out. ``names``: of the photos, for the note.
    Raises DynamicIDError, with the numbers (from 1) of the photos if there are several, for ``error``, or when none
    would be left.
    """
    if policy not in ON_NO_FACE:
        raise DynamicIDError(f"on_no_face is {policy!r}; choose one of {', '.join(ON_NO_FACE)}.")
    without = [number for number, face in enumerate(found, 1) if face is None]
    if not without:
        return list(range(len(found))), ""
    note = _no_face_in(without, len(found), names)
    if policy == "clip only":
        return list(range(len(found))), f"{note}: only the appearance is taken from there, not the identity."
    if policy == "skip photo" and len(without) < len(found):
        return [place for place, face in enumerate(found) if face is not None], f"{note}: left out."
    other = "or set on_no_face to 'clip only', which takes the appearance without the identity"
    raise DynamicIDError(f"{note}. {CURE}; {other}.")


def sharpness(image: np.ndarray, face: DetectedFace) -> float:
    """Variance of the Laplacian of the grey face at 112 px, of 8 bit values; below ``BLURRED_BELOW`` it is blurred."""
    crop, _ = crop_square(image, face.box, 1.0)
    grey = np.asarray(Image.fromarray(crop).convert("L").resize((112, 112), Image.Resampling.BICUBIC), dtype=np.float32)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def quality(image: np.ndarray, face: DetectedFace) -> list[str]:
    """What speaks against a face as a reference: any of "small", "blurred", "turned away".

    ``small``: less than 80 px; ``blurred``: the Laplacian of the grey face at 112 px has a variance below 60 (of 8 bit
    values); ``turned away``: more than 40 degrees of yaw or 35 of pitch.
    """
    hints = ["small"] if face.size < SMALL_FACE else []
    if sharpness(image, face) < BLURRED_BELOW:
        hints.append("blurred")
    if face.pose is not None and (abs(face.pose[1]) > TURNED_YAW or abs(face.pose[0]) > TURNED_PITCH):
        hints.append("turned away")
    return hints
