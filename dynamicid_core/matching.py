"""Who is who in a finished picture: by identity where that is sure, else by place; no face is two people's.

:mod:`scoring` asks how alike people became, and so gives everybody the face that is most alike. Here it is decided whose
face somebody's *should be*, also where it became a stranger's, and whose it must never be: bystanders have no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .faces import DetectedFace, FaceDetector
from .regions import box_cells, region_weights
from .scoring import SAME_PERSON, check_detector, compare
from .types import Cast

CELLS = 64  # rows and columns of the grid on which places are compared
HERE = 0.5  # share of a face that must lie in somebody's region to be theirs by place


@dataclass(frozen=True, eq=False)
class Matching:
    """The faces of a picture, and which of them is whose."""

    faces: tuple[DetectedFace, ...]  # from left to right
    face_of: tuple[int | None, ...]  # each person's face; None: missing
    similarity: np.ndarray  # [P, faces]: cosines

    def likeness(self, person: int) -> float | None:
        """How alike a person's face is, -1..1; None: the person is missing."""
        face = self.face_of[person]
        return None if face is None else float(self.similarity[person, face])

    @property
    def missing(self) -> tuple[int, ...]:
        """People who have no face in the picture."""
        return tuple(person for person, face in enumerate(self.face_of) if face is None)

    @property
    def doubles(self) -> tuple[tuple[int, int], ...]:
        """(person, face) for each face that shows somebody once more than it should, whosever place it is in."""
        shown = [(int(column.argmax()), face) for face, column in enumerate(self.similarity.T)]
        return tuple((i, f) for i, f in shown if self.similarity[i, f] >= SAME_PERSON and self.face_of[i] != f)

    @property
    def bystanders(self) -> tuple[int, ...]:
        """Faces that are nobody's, and like nobody."""
        known = {*self.face_of, *(face for _, face in self.doubles)}
        return tuple(face for face in range(len(self.faces)) if face not in known)


def match_image(cast: Cast, image: np.ndarray, detector: FaceDetector, frame: int = 0) -> Matching:
    """Find the faces of a picture, uint8 RGB [h, w, 3], and match them; ``frame``: which one of masks with several.

    Raises DynamicIDError for an empty cast, people whose identity is not known, and a detector of another recogniser.
    """
    check_detector(cast, detector)
    return match_people(cast, detector.detect(image), (image.shape[0], image.shape[1]), frame)


def match_people(cast: Cast, faces: Sequence[DetectedFace], size: tuple[int, int], frame: int = 0) -> Matching:
    """Match a cast with the faces found in a picture of ``size`` (height, width), one to one.

    First everybody gets the face that shows them, if one does (Hungarian method over the similarities above
    :data:`scoring.SAME_PERSON`). Then those who are left get, of the faces that are left, one in their region. A cast in
    which nobody has a region leaves places open: there the strips that people get only help to choose.
    Raises DynamicIDError for an empty cast, and for people whose identity is not known.
    """
    ordered, similarity = compare(cast, faces, size)
    place = place_shares(cast, ordered, size, frame)
    face_of = _pairs(similarity, similarity >= SAME_PERSON)
    left = np.ones_like(similarity, bool)
    left[list(face_of), :] = left[:, list(face_of.values())] = False
    placed = any(person.region for person in cast.people)
    face_of |= _pairs(1 + similarity + place, left & (place >= HERE) if placed else left)
    return Matching(tuple(ordered), tuple(map(face_of.get, range(len(cast.people)))), similarity)


def places(cast: Cast, frame: int = 0) -> Tensor:
    """How much each person may be at each cell of a grid of :data:`CELLS` x :data:`CELLS`: [P, N] in 0..1"""
    weights = region_weights(cast, CELLS, CELLS, pictures=(frame,))
    return weights.visible[0] * (weights.inside[0] > 0)  # where nobody's place is, all are "visible"


def place_shares(cast: Cast, faces: Sequence[DetectedFace], size: tuple[int, int], frame: int = 0) -> np.ndarray:
    """How much of each face's box lies where each person may be, in a picture of ``size`` (h, w): [P, faces] in 0..1."""
    people = places(cast, frame)
    shares = np.zeros((len(cast.people), len(faces)), np.float32)
    for number, face in enumerate(faces):
        cells = _cells(face, size)
        shares[:, number] = (people @ cells / cells.sum()).numpy()
    return shares


def _cells(face: DetectedFace, size: tuple[int, int]) -> Tensor:
    """[N]: 1 in the cells of a face's box, as far as it lies in the picture."""
    (height, width), (x0, y0, x1, y1) = size, face.box
    box = torch.tensor([y0 / height, x0 / width, y1 / height, x1 / width]).clamp(0, 1).tolist()
    return box_cells((box[0], box[1], box[2], box[3]), CELLS, CELLS).flatten()


def _pairs(values: np.ndarray, allowed: np.ndarray) -> dict[int, int]:
    """Person -> face, one to one, so that the sum of ``values`` (none below 0) is largest; both [P, faces]."""
    from scipy.optimize import linear_sum_assignment

    people, faces = linear_sum_assignment(-np.where(allowed, values, 0))
    chosen = zip(people.tolist(), faces.tolist(), strict=True)
    return {person: face for person, face in chosen if allowed[person, face]}
