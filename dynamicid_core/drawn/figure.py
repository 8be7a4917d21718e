"""A whole person: all shapes, from the back to the front."""

from __future__ import annotations

from .face import Face
from .hair import back_hair, beard, body, ears, front_hair, marks, moustache
from .headgear import frames, glass, hat
from .people import Clothes


def dress(face: Face, clothes: Clothes) -> Face:
    """All shapes of a person, from the back to the front, in the order in which they are painted."""
    back_hair(face)
    body(face, clothes)
    ears(face)
    face.add(face.head.edge, face.who.skin, "face")
    face.contour(face.head.edge)
    marks(face)
    beard(face)
    glass(face)
    face.eye(-1)
    face.eye(1)
    face.nose()
    moustache(face)
    face.mouth()
    front_hair(face)
    hat(face)
    face.brow(-1)
    face.brow(1)
    frames(face)
    face.tears()
    return face
