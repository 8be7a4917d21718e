"""Pictures of casts and gate maps: what they show, at any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicid_core import drawing
from dynamicid_core.drawing import COLORS, GROUND, draw_cast, draw_gate_maps, person_color, side_by_side
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region


def face(name="", thumbnail=None):
    return Face(torch.zeros(1, 4, 768), torch.zeros(1, 4, 768), "test", name=name, thumbnail=thumbnail)


def tinted(picture, color):
    """Where a picture is nearer to ``color`` than to the ground, by what is added to the ground."""
    change = picture.astype(float) - GROUND
    wanted = np.array(color, float) - GROUND
    along = change @ wanted / (wanted @ wanted)
    return (along > 0.3) & (np.linalg.norm(change - along[..., None] * wanted, axis=-1) < 40)


def test_a_box_is_coloured_where_it_is():
    picture = draw_cast(Cast((Person(face(), Region(box=(0.25, 0.5, 1.0, 1.0))),)), 200, 100)
    assert picture.shape == (100, 200, 3) and picture.dtype == np.uint8
    found = tinted(picture, COLORS[0])
    assert found[60:95, 105:195].mean() > 0.9
    assert not found[:24].any() and not found[:, :99].any()
    assert (picture[50, 100] == COLORS[0]).all()  # the border


def test_soft_masks_keep_their_softness():
    ramp = torch.linspace(0, 1, 64).expand(1, 64, 64)
    picture = draw_cast(Cast((Person(face(), Region(mask=ramp)),)), 64, 64).astype(int)
    row = picture[60, :31, 0]
    assert (np.diff(row) >= 0).all() and row[-1] - row[0] > 30


def test_overlaps_mix_and_everybody_is_seen():
    boxes = [(0.0, 0.0, 1.0, 0.6), (0.0, 0.4, 1.0, 1.0)]
    picture = draw_cast(Cast(tuple(Person(face(), Region(box=box)) for box in boxes)), 100, 100)
    left, both, right = picture[80, 20], picture[80, 50], picture[80, 80]
    assert not (left == both).all() and not (both == right).all()
    assert tinted(picture, COLORS[0])[80, 20] and tinted(picture, COLORS[1])[80, 80]


def test_thumbnail_name_and_weight_are_drawn():
    green = torch.zeros(20, 20, 3)
    green[..., 1] = 1
    region = Region(box=(0.0, 0.0, 1.0, 1.0))
    with_face = draw_cast(Cast((Person(face("Anna", green), region),)), 256, 256)
    assert (with_face == (0, 255, 0)).all(-1).sum() > 2000
    assert drawing.person_label(1, Person(face("Anna"), weight=0.8)) == "2 Anna x 0.8"
    assert drawing.person_label(0, Person(face())) == "1"
    unnamed, named, weighted = (
        draw_cast(Cast((Person(face(name), region, weight),)), 256, 256) for name, weight in (("", 1), ("A", 1), ("A", 0.8))
    )
    assert not (unnamed == named).all() and not (named == weighted).all()


def test_nobody_placed_means_strips_and_alone_the_whole_picture():
    picture = draw_cast(Cast((Person(face()), Person(face()))), 100, 100)
    assert tinted(picture, COLORS[0])[50:, 5:45].all() and tinted(picture, COLORS[1])[50:, 55:95].all()
    alone = draw_cast(Cast((Person(face("Anna")),)), 200, 100)
    assert (alone[-10:] == drawing.PLATE).all(-1).any()  # listed at the bottom
    assert len(np.unique(alone[:40].reshape(-1, 3), axis=0)) == 1  # one faint tint


def test_drawn_on_an_image():
    image = np.full((30, 50, 3), 200, np.uint8)
    picture = draw_cast(Cast((Person(face(), Region(box=(0.5, 0.5, 1.0, 1.0))),)), 100, 60, image)
    assert (picture[:20, :40] == 200).all()


def test_an_empty_cast_is_refused():
    with pytest.raises(DynamicIDError, match="empty"):
        draw_cast(Cast(), 10, 10)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 12))
def test_any_size_and_number(width, height, people):
    cast = Cast(tuple(Person(face("A long name of somebody", torch.ones(9, 9, 3)), None) for _ in range(people)))
    assert draw_cast(cast, width, height).shape == (height, width, 3)
    assert draw_gate_maps(torch.rand(people + 1, height, width)).shape == (people + 1, height, width, 3)


def test_colours_differ():
    colors = {person_color(i) for i in range(24)}
    assert len(colors) == 24


def test_gate_maps_share_one_scale():
    maps = torch.zeros(3, 40, 40)
    maps[0, 20:, 20:], maps[1, 20:, :20], maps[2, 20:] = 1.0, 0.5, 1.5
    drawn = draw_gate_maps(maps, ["Anna", "Ben"]).astype(int).sum(-1)
    assert drawn[2, 35, 35] > drawn[0, 35, 35] > drawn[1, 35, 5] > drawn[1, 35, 35]
    with pytest.raises(DynamicIDError, match="2 people"):
        draw_gate_maps(maps, ["Anna"])
    assert np.isfinite(draw_gate_maps(torch.zeros(2, 8, 8))).all()


def test_side_by_side():
    sheet = side_by_side([np.full((4, 6, 3), i, np.uint8) for i in (1, 2, 3)], columns=2)
    assert sheet.shape == (8, 12, 3)
    assert [sheet[1, 1, 0], sheet[1, 7, 0], sheet[5, 1, 0]] == [1, 2, 3]
