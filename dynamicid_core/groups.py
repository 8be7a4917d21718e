"""All faces of one photo -> a cast whose people stand where they stand there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .encode import ClipVision, Encode, TokenEncoder, check_detector, encode_shown
from .faces import CURE, DetectedFace, FaceDetector, order_faces
from .names import names_of, parse_names
from .pictures import check_crop_factor
from .regions import Box
from .types import Cast, DynamicIDError, Face, Person, Region

LEFT_OUT = "-"  # in place of a name: nobody of the cast
GROUP_CROP_FACTOR = 2.0  # sizes of the face: of a whole group photo everybody would get the same looks
PLACE_FACTOR = 3.0  # sizes of the face: head and shoulders


@dataclass(frozen=True)
class GroupOptions:
    """Who of a group photo becomes whom, and where they stand."""

    names: str = ""  # in the order of the faces, see names.parse_names; LEFT_OUT: not that one
    order: str = "left-right"  # one of faces.ORDERS
    smallest: int = 0  # px of the face's longer side; smaller ones are left out
    crop_factor: float = GROUP_CROP_FACTOR  # how much of the photo is encoded, in sizes of the face; 0: all of it
    place_factor: float = PLACE_FACTOR  # side of each one's place, in sizes of the face
    weight: float = 1.0  # of everybody

    def __post_init__(self) -> None:
        check_crop_factor(self.crop_factor)
        if not self.place_factor > 0:
            raise DynamicIDError(f"place_factor is {self.place_factor}; places need a size, such as {PLACE_FACTOR:g}.")


@dataclass(frozen=True, eq=False)
class EncodedGroup:
    """The people of a group photo, and how they came about."""

    cast: Cast
    found: tuple[DetectedFace, ...]  # everybody's face, in the order of the cast
    left_out: tuple[DetectedFace, ...]
    photo: np.ndarray  # uint8 RGB [h, w, 3]
    message: str  # who was left out; "" if nobody was

    @property
    def faces(self) -> list[Face]:
        return [person.face for person in self.cast.people]


def face_places(faces: Sequence[DetectedFace], size: tuple[int, int], factor: float = PLACE_FACTOR) -> list[Box]:
    """A place for each face of a photo of ``size`` (h, w): a square of so many face sizes around it, as far as it is in the photo.

    Where two would overlap, each ends half way between the faces, so that no place is two people's.
    """
    height, width = size
    centers = np.array([[face.center[1], face.center[0]] for face in faces]).reshape(-1, 2)  # y, x
    half = np.array([face.size * factor / 2 for face in faces]).reshape(-1, 1)
    starts, ends = np.clip(centers - half, 0, size), np.clip(centers + half, 0, size)
    cut_starts, cut_ends = starts.copy(), ends.copy()
    for i in range(len(faces)):
        for j in range(i):
            if (np.minimum(ends[i], ends[j]) <= np.maximum(starts[i], starts[j])).any():
                continue
            axis = int(np.abs(centers[i] - centers[j]).argmax())
            first, second = (i, j) if centers[i, axis] < centers[j, axis] else (j, i)
            middle = centers[[i, j], axis].mean()
            cut_ends[first, axis] = min(cut_ends[first, axis], middle)
            cut_starts[second, axis] = max(cut_starts[second, axis], middle)
    boxes = np.concatenate((cut_starts, cut_ends), 1) / (height, width, height, width)
    return [(y0, x0, y1, x1) for y0, x0, y1, x1 in boxes.tolist()]


def encode_group(
    photo: np.ndarray,
    detector: FaceDetector | None,
    clip: ClipVision,
    encoder: TokenEncoder,
    options: GroupOptions = GroupOptions(),
    encode: Encode = encode_shown,
) -> EncodedGroup:
    """Every face of a photo (uint8 RGB [h, w, 3]) -> a person with a name, in the place where the photo shows them.

    ``encode``: as in :func:`encode.encode_photos`.
    Raises DynamicIDError for a photo without faces, more names than faces, and as :func:`encode.encode_photos`.
    """
    check_detector(detector, encoder, "error")
    size = (photo.shape[0], photo.shape[1])
    found = order_faces(detector.detect(photo) if detector else [], options.order, size)
    taken = [face for face in found if face.size >= options.smallest]
    if not taken:
        small = f" of at least {options.smallest} px" if found else ""
        raise DynamicIDError(f"No face{small} was found in the group photo. {CURE}.")
    names = names_of(parse_names(options.names), len(taken))
    people = [(name, face) for name, face in zip(names, taken, strict=True) if name != LEFT_OUT]
    if not people:
        raise DynamicIDError(
            f"Every face of the group photo is left out by {LEFT_OUT!r} in place of its name. Name one."
        )
    shown = [face for _, face in people]
    made = encode([photo] * len(people), shown, clip, encoder, options.crop_factor, "")
    boxes = face_places(shown, size, options.place_factor)
    cast = Cast(
        tuple(
            Person(dataclasses.replace(face, name=name), _region(box), options.weight)
            for (name, _), face, box in zip(people, made, boxes, strict=True)
        )
    )
    others = tuple(face for face in found if all(face is not one for one in shown))
    return EncodedGroup(cast, tuple(shown), others, photo, _left_out(len(others), len(found)))


def _region(box: Box) -> Region | None:
    """No region for a face that lies out of the photo or on another one, where nothing is left of its place."""
    y0, x0, y1, x1 = box
    return Region(box=box) if y0 < y1 and x0 < x1 else None


def _left_out(others: int, found: int) -> str:
    faces = "face was" if found == 1 else "faces were"
    return f"{found} {faces} found, of which {others} {'is' if others == 1 else 'are'} left out." if others else ""
