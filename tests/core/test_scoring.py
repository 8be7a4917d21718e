"""Who of the cast is in a picture: matching people with faces, duplicates, bystanders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamicid_core.faces import DetectedFace
from dynamicid_core.scoring import score_image, score_picture
from dynamicid_core.types import Cast, DynamicIDError, Face, Missing, Person

SIZE = (100, 300)


def direction(*values: float) -> np.ndarray:
    """An identity of length 1 that begins with these values."""
    identity = np.zeros(512, np.float32)
    identity[: len(values)] = values
    return identity / np.linalg.norm(identity)


def cast(**identities: np.ndarray | None) -> Cast:
    tokens = torch.zeros(1, 4, 8)
    known = {name: None if v is None else torch.from_numpy(v) for name, v in identities.items()}
    return Cast(tuple(Person(Face(tokens, tokens, "x", identity=v, name=name)) for name, v in known.items()))


def faces(*identities: np.ndarray | None) -> list[DetectedFace]:
    """One beside the other, from left to right."""
    boxes = [(20.0 * i, 10.0, 20.0 * i + 15, 30.0) for i in range(len(identities))]
    return [DetectedFace(box, 0.9, np.zeros((5, 2)), v) for box, v in zip(boxes, identities, strict=True)]


ANNA, BEN, NOBODY = direction(1), direction(0, 1), direction(0, 0, 1)


def test_the_sum_of_similarities_decides_not_who_comes_first():
    """Anna is a little like both faces; the second is Ben's alone."""
    between = direction(0.8, 0.6)
    score = score_picture(cast(Anna=ANNA, Ben=BEN), faces(direction(0.7, 0.1), between), SIZE)
    anna, ben = score.people
    assert (anna.name, anna.face, ben.name, ben.face) == ("1 Anna", 0, "2 Ben", 1)
    assert ben.similarity == pytest.approx(0.6) and score.worst == pytest.approx(0.6)


def test_missing_people_duplicates_and_bystanders_are_told_apart():
    twins = faces(ANNA, direction(0.9, 0.1), NOBODY)
    score = score_picture(cast(Anna=ANNA), twins, SIZE)
    assert score.people[0].duplicates == (1,) and score.bystanders == (2,)
    assert score.report().splitlines() == [
        "1 Anna: alike, similarity 1.00 (face 0 from the left)",
        "1 Anna: duplicate in face 1",
        "face 2: nobody of the cast",
    ]
    score = score_picture(cast(Anna=ANNA, Ben=BEN), faces(ANNA), SIZE)
    assert [p.face for p in score.people] == [0, None] and score.worst == 0
    assert score.report().splitlines()[1] == "2 Ben: missing"
    assert "not recognisable" in score_picture(cast(Anna=ANNA), faces(NOBODY), SIZE).report()


def test_faces_are_numbered_from_the_left_and_those_without_identity_left_out():
    found = faces(BEN, None, ANNA)[::-1]
    score = score_picture(cast(Anna=ANNA, Ben=BEN), found, SIZE)
    assert [p.face for p in score.people] == [1, 0] and len(score.faces) == 2


def test_an_empty_picture_and_an_image():
    class Detector:
        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            return faces(ANNA) if image.any() else []

    black, white = np.zeros((*SIZE, 3), np.uint8), np.full((*SIZE, 3), 255, np.uint8)
    assert [p.face for p in score_image(cast(Anna=ANNA), black, Detector()).people] == [None]
    assert score_image(cast(Anna=ANNA), white, Detector()).worst == pytest.approx(1)


def test_people_who_cannot_be_compared():
    with pytest.raises(Missing, match="No identity is known of 2 Ben") as caught:
        score_picture(cast(Anna=ANNA, Ben=None), faces(ANNA), SIZE)
    assert caught.value.part == "detected face"
    with pytest.raises(DynamicIDError, match="cast is empty"):
        score_picture(Cast(), faces(ANNA), SIZE)
