"""Whose face is whose: identity first, then place; nobody twice; bystanders are nobody's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamicid_core.faces import DetectedFace
from dynamicid_core.matching import match_image, match_people, place_shares
from dynamicid_core.types import Cast, DynamicIDError, Face, Missing, Person, Region

SIZE = (100, 300)  # height, width
LEFT, RIGHT = Region(box=(0.0, 0.0, 1.0, 0.5)), Region(box=(0.0, 0.5, 1.0, 1.0))


def direction(*values: float) -> np.ndarray:
    """An identity of length 1 that begins with these values."""
    identity = np.zeros(512, np.float32)
    identity[: len(values)] = values
    return identity / np.linalg.norm(identity)


ANNA, BEN, NOBODY = direction(1), direction(0, 1), direction(0, 0, 1)


def person(identity: np.ndarray | None, region: Region | None = None, name: str = "") -> Person:
    tokens = torch.zeros(1, 4, 8)
    known = None if identity is None else torch.from_numpy(identity)
    return Person(Face(tokens, tokens, "x", identity=known, name=name), region)


def found(identity: np.ndarray | None, x: float, y: float = 50, size: float = 30) -> DetectedFace:
    """A face with its middle at (x, y)."""
    half = size / 2
    return DetectedFace((x - half, y - half, x + half, y + half), 0.9, np.zeros((5, 2)), identity)


PLACED = Cast((person(ANNA, LEFT), person(BEN, RIGHT)))
ANYWHERE = Cast((person(ANNA), person(BEN)))


def test_identity_goes_before_place():
    """Both stand in the other's region, and are themselves."""
    matched = match_people(PLACED, [found(BEN, 50), found(ANNA, 250)], SIZE)
    assert matched.face_of == (1, 0) and matched.likeness(0) == pytest.approx(1)
    assert not matched.missing and not matched.doubles and not matched.bystanders


def test_a_face_that_became_a_strangers_is_whose_place_it_is_in():
    matched = match_people(PLACED, [found(ANNA, 50), found(NOBODY, 250)], SIZE)
    assert matched.face_of == (0, 1) and matched.likeness(1) == pytest.approx(0)
    assert not matched.bystanders


def test_a_bystander_elsewhere_stays_nobody_and_the_person_is_missing():
    below = Region(box=(0.6, 0.5, 1.0, 1.0))
    cast = Cast((person(ANNA, LEFT), person(BEN, below)))
    matched = match_people(cast, [found(ANNA, 50), found(NOBODY, 250, y=20)], SIZE)
    assert matched.face_of == (0, None) and matched.missing == (1,) and matched.bystanders == (1,)
    assert matched.likeness(1) is None


def test_no_face_is_two_peoples_and_the_sum_decides():
    """Anna is somewhat like both faces; the second is Ben's alone."""
    matched = match_people(ANYWHERE, [found(direction(0.7, 0, 0.7), 50), found(direction(0.8, 0.6), 250)], SIZE)
    assert matched.face_of == (0, 1)
    twins = Cast((person(ANNA, LEFT), person(ANNA, RIGHT)))
    assert match_people(twins, [found(ANNA, 50)], SIZE).face_of.count(0) == 1


def test_somebody_twice_in_anothers_place_is_seen_and_belongs_there():
    matched = match_people(PLACED, [found(ANNA, 50), found(direction(0.9, 0.1), 250)], SIZE)
    assert matched.face_of == (0, 1) and matched.doubles == ((0, 1),)
    alone = Cast((person(ANNA, LEFT),))
    matched = match_people(alone, [found(ANNA, 50), found(direction(0.9, 0.1), 250), found(NOBODY, 280)], SIZE)
    assert matched.face_of == (0,) and matched.doubles == ((0, 1),) and matched.bystanders == (2,)


def test_without_regions_places_only_help_to_choose():
    """Pictures from elsewhere: whoever is left gets a face that is left, of two the one in the own strip."""
    matched = match_people(ANYWHERE, [found(ANNA, 40), found(NOBODY, 110)], SIZE)
    assert matched.face_of == (0, 1)
    matched = match_people(ANYWHERE, [found(ANNA, 40), found(NOBODY, 110), found(NOBODY, 250)], SIZE)
    assert matched.face_of == (0, 2) and matched.bystanders == (1,)
    matched = match_people(Cast((person(ANNA),)), [found(NOBODY, 40), found(direction(0.3, 0, 1), 250)], SIZE)
    assert matched.face_of == (1,), "of two strangers the one who is more alike"


def test_masks_have_a_place_for_each_picture_of_a_batch():
    moving = torch.zeros(2, 10, 30)
    moving[0, :, :15] = moving[1, :, 15:] = 1
    cast = Cast((person(ANNA, Region(mask=moving)), person(BEN, Region(mask=moving.flip(0)))))
    strangers = [found(NOBODY, 50), found(NOBODY, 250)]
    assert [match_people(cast, strangers, SIZE, frame).face_of for frame in (0, 1, 2)] == [(0, 1), (1, 0), (0, 1)]


def test_shares_of_a_place_count_what_lies_in_the_picture():
    shares = place_shares(PLACED, [found(None, 150), found(None, -5), found(None, 295, y=98)], SIZE)
    assert shares[:, 0] == pytest.approx([0.5, 0.5], abs=0.1)
    assert shares[:, 1].tolist() == [1, 0] and shares[:, 2].tolist() == [0, 1]


def test_an_empty_picture_and_what_cannot_be_matched():
    class Detector:
        recogniser = "another"

        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            return []

    assert match_people(PLACED, [], SIZE).missing == (0, 1)
    with pytest.raises(DynamicIDError, match="this face analysis is of another"):
        match_image(PLACED, np.zeros((*SIZE, 3), np.uint8), Detector())
    with pytest.raises(DynamicIDError, match="The cast is empty"):
        match_people(Cast(), [], SIZE)
    with pytest.raises(Missing, match="No identity is known of 1 Cem"):
        match_people(Cast((person(None, name="Cem"),)), [], SIZE)
