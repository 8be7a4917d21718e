"""Whether the people of a cast are in a finished picture: ArcFace similarity, person by person.

People and faces are matched so that the sum of similarities is largest (Hungarian method), so two people cannot claim
one face. What is left over is a duplicate of somebody, or a bystander.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .faces import DetectedFace, FaceDetector, order_faces, recogniser_of
from .types import Cast, DynamicIDError, Missing, is_same_recogniser

SAME_PERSON = 0.35  # cosine of two ArcFace embeddings above which they count as one person; strangers lie around 0


@dataclass(frozen=True)
class PersonScore:
    """One person of the cast in one picture."""

    name: str
    face: int | None  # which of the picture's faces it is, from left to right; None: missing
    similarity: float  # cosine, -1..1; 0 when missing
    duplicates: tuple[int, ...] = ()  # other faces of the picture that show this person as well


@dataclass(frozen=True)
class PictureScore:
    """A picture's faces, from left to right, and the people in them."""

    faces: tuple[DetectedFace, ...]
    people: tuple[PersonScore, ...]

    @property
    def worst(self) -> float:
        """The similarity of the person who is worst off."""
        return min(person.similarity for person in self.people)

    @property
    def bystanders(self) -> tuple[int, ...]:
        """Faces that are nobody of the cast."""
        known = {f for p in self.people for f in (p.face, *p.duplicates)}
        return tuple(i for i in range(len(self.faces)) if i not in known)

    def report(self) -> str:
        """A line for each person, and what is odd."""
        lines = []
        for person in self.people:
            if person.face is None:
                lines.append(f"{person.name}: missing")
                continue
            verdict = "alike" if person.similarity >= SAME_PERSON else "not recognisable"
            lines.append(
                f"{person.name}: {verdict}, similarity {person.similarity:.2f} (face {person.face} from the left)"
            )
            lines += [f"{person.name}: duplicate in face {face}" for face in person.duplicates]
        lines += [f"face {face}: nobody of the cast" for face in self.bystanders]
        return "\n".join(lines)


def person_names(cast: Cast) -> list[str]:
    """What reports call the people: their place in the cast and their face's name."""
    return [f"{i} {person.face.name}".strip() for i, person in enumerate(cast.people, 1)]


def compare(cast: Cast, faces: Sequence[DetectedFace], size: tuple[int, int]) -> tuple[list[DetectedFace], np.ndarray]:
    """How alike everybody of a cast is to every face that was found in a picture of ``size`` (height, width).

    Returns the faces with a known identity, from left to right, and cosines [P, faces].
    Raises DynamicIDError for an empty cast, and :class:`types.Missing` for people without an identity to compare with.
    """
    if not cast.people:
        raise DynamicIDError("The cast is empty. Place at least one face.")
    names = person_names(cast)
    known = [person.face.identity for person in cast.people]
    if unknown := [name for name, identity in zip(names, known, strict=True) if identity is None]:
        raise Missing("detected face", f"No identity is known of {', '.join(unknown)}.")
    ordered = order_faces([face for face in faces if face.identity is not None], "left-right", size)
    people = np.stack([identity.numpy() for identity in known if identity is not None])  # [P, 512]
    rows = [face.identity for face in ordered if face.identity is not None]
    found = np.stack(rows) if rows else np.zeros((0, people.shape[1]), np.float32)
    return ordered, people @ found.T


def score_picture(cast: Cast, faces: Sequence[DetectedFace], size: tuple[int, int]) -> PictureScore:
    """Match the people of a cast with the faces found in a picture of ``size`` (height, width).

    Errors as of :func:`compare`.
    """
    ordered, similarity = compare(cast, faces, size)
    return PictureScore(tuple(ordered), _match(person_names(cast), similarity))


def _match(names: Sequence[str], similarity: np.ndarray) -> tuple[PersonScore, ...]:
    """One score for each person; ``similarity`` [P, faces]. Each face goes to one person at most."""
    from scipy.optimize import linear_sum_assignment

    person_of = dict(zip(*(index.tolist() for index in reversed(linear_sum_assignment(-similarity))), strict=True))
    face_of = {person: face for face, person in person_of.items()}
    scores = []
    for i, name in enumerate(names):
        if i not in face_of:
            scores.append(PersonScore(name, None, 0.0))
            continue
        extra = [
            face
            for face in range(similarity.shape[1])
            if face not in person_of and similarity[i, face] >= SAME_PERSON and similarity[:, face].argmax() == i
        ]
        scores.append(PersonScore(name, face_of[i], float(similarity[i, face_of[i]]), tuple(extra)))
    return tuple(scores)


def check_detector(cast: Cast, detector: FaceDetector) -> None:
    """Raise DynamicIDError for a detector of another recogniser than the cast's: nobody would be like anybody."""
    for person in cast.people[:1]:
        used = recogniser_of(detector)
        if not is_same_recogniser(used, person.face.recogniser):
            raise DynamicIDError(
                f"The cast was made with the recogniser {person.face.recogniser}, but this face analysis is of {used}; their "
                f"identities cannot be compared. Load the face model pack {person.face.recogniser}."
            )


def score_image(cast: Cast, image: np.ndarray, detector: FaceDetector) -> PictureScore:
    """Find and score the faces of a picture, uint8 RGB [h, w, 3]. Errors as of :func:`compare` and :func:`check_detector`."""
    check_detector(cast, detector)
    return score_picture(cast, detector.detect(image), image.shape[:2])
