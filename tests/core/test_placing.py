"""Faces with masks and boxes become people of a cast."""

from __future__ import annotations

import pytest
import torch

from dynamicid_core.placing import place, place_in_boxes
from dynamicid_core.types import DynamicIDError, Face

LEFT, RIGHT, MIDDLE = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0), (0.0, 0.25, 1.0, 0.75)


def face(name: str = "") -> Face:
    return Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "x", name=name)


def test_people_are_added_one_by_one_with_masks_of_any_shape():
    one = place(None, face("Anna"))
    two = place(one, face("Ben"), torch.full((3, 5), 0.5), weight=0.7)
    three = place(two, face("Cleo"), torch.ones(2, 3, 5))
    assert [p.face.name for p in three.people] == ["Anna", "Ben", "Cleo"] and len(one.people) == 1
    assert three.people[0].region is None and three.people[1].weight == 0.7
    assert [tuple(p.region.mask.shape) for p in three.people[1:]] == [(1, 3, 5), (2, 3, 5)]


def test_box_n_belongs_to_face_n():
    cast = place_in_boxes(place(None, face("Zoe")), [face("Anna"), face("Ben")], [[LEFT, RIGHT]], 0.6)
    assert [p.face.name for p in cast.people] == ["Zoe", "Anna", "Ben"]
    assert [p.region.box for p in cast.people[1:]] == [LEFT, RIGHT] and cast.people[1].weight == 0.6


def test_boxes_that_move_become_masks_and_those_that_stay_remain_boxes():
    cast = place_in_boxes(None, [face(), face()], [[LEFT, RIGHT], [MIDDLE, RIGHT]], cells=(2, 8))
    moving, still = (p.region for p in cast.people)
    assert still.box == RIGHT
    assert moving.mask[:, 0].tolist() == [[1] * 4 + [0] * 4, [0] * 2 + [1] * 4 + [0] * 2]


@pytest.mark.parametrize(
    ("count", "frames", "said"),
    [
        (2, [[LEFT]], "There are 2 faces and 1 boxes: too few boxes. .*; add boxes or remove faces"),
        (1, [[LEFT, RIGHT]], "too few faces. .*; add faces or remove boxes"),
        (1, [[LEFT], []], "1 faces and 0 boxes in frame 2"),
        (1, [[(0.0, 0.5, 1.0, 1.5)]], "does not lie inside the picture"),
    ],
)
def test_boxes_that_do_not_fit(count, frames, said):
    with pytest.raises(DynamicIDError, match=said):
        place_in_boxes(None, [face()] * count, frames)
