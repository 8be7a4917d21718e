"""Putting faces in order, choosing one, photos without any, and what speaks against a reference."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dynamicid_core import faces
from dynamicid_core.faces import DetectedFace
from dynamicid_core.types import DynamicIDError


def face(x0: float, y0: float, x1: float, y1: float, **fields) -> DetectedFace:
    return DetectedFace((x0, y0, x1, y1), 0.9, np.zeros((5, 2)), **fields)


A, B, C = face(10, 100, 40, 140), face(60, 20, 120, 90), face(130, 60, 180, 115)


@pytest.mark.parametrize(
    "order, expected",
    [
        ("large-small", [B, C, A]),
        ("small-large", [A, C, B]),
        ("left-right", [A, B, C]),
        ("right-left", [C, B, A]),
        ("top-bottom", [B, C, A]),
        ("bottom-top", [A, C, B]),
        ("near-center", [B, C, A]),
    ],
)
def test_orders(order, expected):
    assert order in faces.ORDERS and len(faces.ORDERS) == 7
    for given in ([A, B, C], [C, A, B]):
        assert faces.order_faces(given, order, (200, 200)) == expected
        assert [faces.pick_face(given, order, i, (200, 200)) for i in range(3)] == expected


def test_a_face_that_is_not_there_is_refused_with_the_number_of_faces():
    with pytest.raises(DynamicIDError, match="3 faces were found, numbered from 0 to 2, but face 3"):
        faces.pick_face([A, B, C], "left-right", 3, (200, 200))
    with pytest.raises(DynamicIDError, match="1 face was found.*face -1"):
        faces.pick_face([A], "left-right", -1, (200, 200))
    with pytest.raises(DynamicIDError, match="No face was found"):
        faces.pick_face([], "left-right", 0, (200, 200))
    with pytest.raises(DynamicIDError, match="'biggest' is unknown; choose one of large-small"):
        faces.order_faces([A], "biggest", (200, 200))


def test_photos_without_a_face_are_reported_by_number_and_treated_as_asked():
    found = [A, None, B, None]
    assert faces.on_no_face([A, B], "error") == ([0, 1], "")
    with pytest.raises(DynamicIDError, match="in photos 2, 4 of 4.*clip only"):
        faces.on_no_face(found, "error")
    kept, note = faces.on_no_face(found, "clip only")
    assert kept == [0, 1, 2, 3] and "photos 2, 4 of 4" in note
    kept, note = faces.on_no_face(found, "skip photo")
    assert kept == [0, 2] and "photos 2, 4 of 4: left out" in note
    with pytest.raises(DynamicIDError, match="^No face was found in the photo"):
        faces.on_no_face([None], "skip photo")
    _, note = faces.on_no_face(found, "clip only", ["a.png", "b.png", "c.png", "d.png"])
    assert note.startswith("No face was found in photos 2, 4 of 4 (b.png, d.png): ")
    with pytest.raises(DynamicIDError, match="on_no_face is 'ignore'"):
        faces.on_no_face(found, "ignore")


def test_hints_say_what_speaks_against_a_reference():
    box = (160, 60, 280, 185)
    sharp = np.kron(
        np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)
    )
    assert faces.quality(sharp, face(*box, pose=(5.0, -30.0, 0.0))) == []
    assert faces.quality(sharp, face(*box, pose=(0.0, -55.0, 0.0))) == ["turned away"]
    assert faces.quality(sharp, face(*box, pose=(-40.0, 0.0, 0.0))) == ["turned away"]
    blurred = np.asarray(Image.fromarray(sharp).resize((32, 32)).resize((512, 512), Image.Resampling.BICUBIC))
    assert faces.quality(blurred, face(*box)) == ["blurred"]
    assert faces.quality(sharp, face(160, 60, 220, 120)) == ["small"]
