"""Pictures of casts and gate maps: what they show, at any size."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from standins.face_shape import face_shape

from dynamicid_core import drawing
from dynamicid_core.captions import COLORS, PLATE, caption_font, caption_height, draw_caption, person_color
from dynamicid_core.drawing import GROUND, draw_cast, draw_faces, draw_gate_maps, draw_scores, side_by_side
from dynamicid_core.encode import EncodedFace
from dynamicid_core.faces import DetectedFace
from dynamicid_core.scoring import PersonScore, PictureScore
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region

ROOT = Path(__file__).resolve().parents[2]


def person_face(name="", thumbnail=None):
    return Face(torch.zeros(1, 4, 768), torch.zeros(1, 4, 768), "test", name=name, thumbnail=thumbnail)


def tinted(picture, color):
    """Where a picture is nearer to ``color`` than to the ground, by what is added to the ground."""
    change = picture.astype(float) - GROUND
    wanted = np.array(color, float) - GROUND
    along = change @ wanted / (wanted @ wanted)
    return (along > 0.3) & (np.linalg.norm(change - along[..., None] * wanted, axis=-1) < 40)


def test_a_box_is_coloured_where_it_is():
    picture = draw_cast(Cast((Person(person_face(), Region(box=(0.25, 0.5, 1.0, 1.0))),)), 200, 100)
    assert picture.shape == (100, 200, 3) and picture.dtype == np.uint8
    found = tinted(picture, COLORS[0])
    assert found[60:95, 105:195].mean() > 0.9
    assert not found[:24].any() and not found[:, :99].any()
    assert (picture[50, 100] == COLORS[0]).all()  # the border


def test_large_pictures_are_drawn_smaller_in_their_shape():
    cast = Cast((Person(person_face(), Region(mask=torch.rand(300, 8, 8))), Person(person_face())))
    assert draw_cast(cast, 16384, 4096, frame=7).shape == (512, 2048, 3)
    assert draw_cast(cast, 16, 16384).shape == (2048, 2, 3)
    assert draw_cast(cast, 2048, 100).shape == (100, 2048, 3)


def test_words_on_a_strip_are_no_larger_than_anybody_reads():
    strip = np.zeros((300_000, 16, 3), np.uint8)
    seen = PictureScore((), (PersonScore("Anna", None, 0.0),))
    assert draw_scores(strip, seen).shape == strip.shape
    assert caption_font(16, 300_000).size == 512 and caption_font(1024, 768).size == 40


def test_what_a_node_shows_is_neither_too_small_to_read_nor_larger_than_the_page_needs():
    assert [drawing.preview_size(*size) for size in ((192, 128), (768, 768), (1, 1), (4096, 16))] == [
        *((512, 341), (768, 768), (512, 512), (1024, 4)),
    ]
    for width, height in ((192, 128), (256, 128), (128, 128), (1024, 1024), (2048, 512)):
        shown = drawing.preview_size(width, height)
        assert caption_font(*shown).size * 300 / shown[0] >= 10.5  # px, in a node


def test_maps_are_drawn_larger_than_they_are_with_letters_for_a_part_of_a_node():
    maps = drawing.enlarged_maps(torch.rand(3, 16, 24), 480, 320)
    assert maps.shape == (3, 320, 480) and drawing.enlarged_maps(maps, 480, 320) is maps
    plain, large = (draw_gate_maps(maps, letters=letters) for letters in (1.0, drawing.SHARED_LETTERS))
    plates = [(pictures == PLATE).all(-1).sum() for pictures in (plain, large)]
    assert plates[1] > 2 * plates[0]


@pytest.mark.parametrize("name", ["Anna\nBen", "a\x00b\x1b[31m", "\udcff", "x" * 5000, "\u202e\u0301"])
def test_any_name_can_be_drawn(name):
    picture = draw_cast(Cast((Person(person_face(name), Region(box=(0, 0, 1, 1))),)), 64, 64)
    assert picture.shape == (64, 64, 3) and drawing.draw_portrait(person_face(name)).shape == (256, 256, 3)


def test_soft_masks_keep_their_softness():
    ramp = torch.linspace(0, 1, 64).expand(1, 64, 64)
    picture = draw_cast(Cast((Person(person_face(), Region(mask=ramp)),)), 64, 64).astype(int)
    row = picture[60, :31, 0]
    assert (np.diff(row) >= 0).all() and row[-1] - row[0] > 30


def test_overlaps_mix_and_everybody_is_seen():
    boxes = [(0.0, 0.0, 1.0, 0.6), (0.0, 0.4, 1.0, 1.0)]
    picture = draw_cast(Cast(tuple(Person(person_face(), Region(box=box)) for box in boxes)), 100, 100)
    left, both, right = picture[80, 20], picture[80, 50], picture[80, 80]
    assert not (left == both).all() and not (both == right).all()
    assert tinted(picture, COLORS[0])[80, 20] and tinted(picture, COLORS[1])[80, 80]


def test_thumbnail_name_and_weight_are_drawn():
    green = torch.zeros(20, 20, 3)
    green[..., 1] = 1
    region = Region(box=(0.0, 0.0, 1.0, 1.0))
    with_face = draw_cast(Cast((Person(person_face("Anna", green), region),)), 256, 256)
    assert (with_face == (0, 255, 0)).all(-1).sum() > 2000
    assert drawing.person_label(1, Person(person_face("Anna"), weight=0.8)) == "2 Anna x 0.8"
    assert drawing.person_label(0, Person(person_face())) == "1"
    film = dataclasses.replace(person_face("Anna"), tokens=torch.zeros(24, 4, 768))
    assert drawing.person_label(1, Person(film, weight=0.8)) == "2 Anna x 0.8, 24 frames"
    assert (drawing.draw_portrait(film) != drawing.draw_portrait(person_face("Anna"))).any()
    plates = [
        (draw_cast(Cast((Person(person_face(name), region, weight),)), 256, 256) == PLATE).all(-1).sum()
        for name, weight in (("", 1), ("Anna", 1), ("Anna", 0.8))
    ]
    assert plates[0] < plates[1] < plates[2]  # longer labels need larger plates


def test_nobody_placed_means_strips_and_alone_the_whole_picture():
    picture = draw_cast(Cast((Person(person_face()), Person(person_face()))), 100, 100)
    assert tinted(picture, COLORS[0])[50:, 5:45].all() and tinted(picture, COLORS[1])[50:, 55:95].all()
    alone = draw_cast(Cast((Person(person_face("Anna")),)), 200, 100)
    assert (alone[-10:] == PLATE).all(-1).any()  # listed at the bottom
    assert len(np.unique(alone[:40].reshape(-1, 3), axis=0)) == 1  # one faint tint


def test_drawn_on_an_image():
    image = np.full((30, 50, 3), 200, np.uint8)
    picture = draw_cast(Cast((Person(person_face(), Region(box=(0.5, 0.5, 1.0, 1.0))),)), 100, 60, image)
    assert (picture[:20, :40] == 200).all()


def test_an_empty_cast_is_refused():
    with pytest.raises(DynamicIDError, match="empty"):
        draw_cast(Cast(), 10, 10)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 12))
def test_any_size_and_number(width, height, people):
    cast = Cast(tuple(Person(person_face("A long name of somebody", torch.ones(9, 9, 3)), None) for _ in range(people)))
    assert draw_cast(cast, width, height).shape == (height, width, 3)
    assert draw_gate_maps(torch.rand(people + 1, height, width)).shape == (people + 1, height, width, 3)


def test_a_single_person_is_shown_with_portrait():
    face = person_face("Ada", torch.ones(8, 8, 3))
    drawn = draw_cast(Cast((Person(face),)), 200, 200)
    assert (drawn[20, 20] == 255).all() and (drawn[150, 150] != 255).any()


def test_a_portrait_has_its_name_and_says_if_there_is_none():
    white = drawing.draw_portrait(person_face("Ada", torch.ones(8, 8, 3)))
    assert white.shape == (256, 256, 3) and (white[:200] == 255).all() and (white[-30:] != 255).any()
    plain = drawing.draw_portrait(person_face())
    assert (plain[:150] == GROUND).all() and (plain[-60:] != np.array(GROUND)).any()


def test_hints_about_a_photo_have_not_the_colour_of_what_is_fine():
    image = np.full((300, 300, 3), 90, np.uint8)
    tiny = DetectedFace((100.0, 100.0, 130.0, 130.0), 0.9, np.zeros((5, 2), np.float32))
    drawn = draw_faces(image, [tiny], 0)
    assert (drawn == drawing.CHOSEN).all(-1).any() and (drawn == drawing.HINT).all(-1).any()


def test_colours_differ():
    colors = {person_color(i) for i in range(24)}
    assert len(colors) == 24


def test_the_page_draws_people_in_the_same_colours():
    page = (ROOT / "web/js/people.js").read_text(encoding="utf-8")
    (colors,) = re.findall(r"const COLORS = (\[.+\])", page)
    assert re.findall(r'"#(\w{6})"', colors) == [bytes(color).hex() for color in COLORS]


def test_gate_maps_share_one_scale():
    maps = torch.zeros(3, 40, 40)
    maps[0, 20:, 20:], maps[1, 20:, :20], maps[2, 20:] = 1.0, 0.5, 1.5
    anna, ben = Person(person_face("Anna")), Person(person_face("Ben"))
    drawn = draw_gate_maps(maps, Cast((anna, ben))).astype(int).sum(-1)
    assert drawn[2, 35, 35] > drawn[0, 35, 35] > drawn[1, 35, 5] > drawn[1, 35, 35]
    with pytest.raises(DynamicIDError, match="2 people"):
        draw_gate_maps(maps, Cast((anna,)))
    nothing = draw_gate_maps(torch.zeros(2, 40, 40))
    assert (nothing[:, 45:] == drawing.heat_colors(torch.zeros(1))).all()  # no division by the largest value


def test_gate_maps_show_places_also_where_there_are_none():
    mask = torch.zeros(2, 4, 4)
    mask[1, 2:, 2:] = 1
    cast = Cast((Person(person_face("Anna"), Region(mask=mask)), Person(person_face("Ben"))))
    maps = torch.zeros(3, 80, 80)
    red = [(draw_gate_maps(maps, cast, frame=frame) == person_color(0)).all(-1)[:, 40:] for frame in (0, 1)]
    assert not red[0].any() and [people.any() for people in red[1]] == [True, False, True]
    assert red[1][0][0, 40] and not red[1][0][20, 60]  # a rim, not what lies in it


def test_side_by_side():
    sheet = side_by_side([np.full((4, 6, 3), i, np.uint8) for i in (1, 2, 3)], columns=2)
    assert sheet.shape == (8, 12, 3)
    assert [sheet[1, 1, 0], sheet[1, 7, 0], sheet[5, 1, 0]] == [1, 2, 3]


def test_captions_are_shortened_and_moved_to_lie_in_the_picture():
    picture = Image.new("RGB", (120, 60), (255, 0, 255))
    font = caption_font(120, 60)
    top = draw_caption(picture, ["a name far too long for so small a picture", "b"], 100, 55, COLORS[0], font)
    high = caption_height(2, font)
    assert top == 60 - high
    plate = (np.asarray(picture) != (255, 0, 255)).any(-1)
    assert plate[top:].any() and not plate[:top].any()
    assert (np.asarray(picture)[top:] == PLATE).all(-1).any()


# --- Detected faces --------------------------------------------------------------------------------------------------


def face(x0: float, y0: float, x1: float, y1: float, **fields) -> DetectedFace:
    return DetectedFace((x0, y0, x1, y1), 0.9, np.zeros((5, 2)), **fields)


def test_every_face_is_boxed_numbered_and_the_chosen_one_marked():
    photo = np.full((400, 600, 3), 127, np.uint8)
    landmarks = (face_shape() * 50 + (300, 100)).astype(np.float32)
    crowd = [face(20, 40, 120, 150), face(240, 40, 360, 160, landmarks=landmarks, pose=(1.0, 2.0, 3.0))]
    crowd.append(face(560, 350, 640, 430))  # reaches over the edge
    drawn = draw_faces(photo, crowd, chosen=1)
    assert drawn.shape == photo.shape and drawn.dtype == np.uint8 and (photo == 127).all()
    green, yellow = (np.all(drawn == color, -1) for color in ((0x40, 0xFF, 0x60), (0xFF, 0xD0, 0x30)))
    assert green[40:160, 240].all() and green[40, 240:360].all()
    assert yellow[40:150, 20].all() and not yellow[:, 200:400].any()
    assert yellow[352:, 560].all()
    inside = green[60:155, 250:350]
    assert inside.sum() > 106  # the landmarks of the chosen one
    assert green[161:260, 240:420].sum() > 100  # and its text
    none_chosen = draw_faces(photo, crowd)
    assert not np.all(none_chosen == (0x40, 0xFF, 0x60), -1).any()
    assert np.array_equal(draw_faces(photo, []), photo)


@pytest.mark.parametrize("size", [(48, 32), (300, 60), (2000, 3000)])
def test_text_grows_with_the_picture_and_stays_inside(size):
    photo = np.zeros((*size, 3), np.uint8)
    h, w = size
    drawn = draw_faces(photo, [face(w * 0.2, h * 0.2, w * 0.6, h * 0.7, pose=(0.0, 0.0, 0.0))], 0)
    text = np.all(drawn == (0x40, 0xFF, 0x60), -1)
    assert text.any() and drawn.shape == (*size, 3)
    if h == 2000:
        assert text[1440:1600].any(axis=1).sum() > 30  # the caption's letters under the box


def test_the_preview_of_an_encoded_face_marks_the_chosen_one_and_is_small():
    photo, crowd = np.full((1000, 2000, 3), 127, np.uint8), [face(100, 200, 500, 700), face(1200, 200, 1600, 700)]
    tokens = torch.zeros(1, 4, 8)
    encoded = EncodedFace(Face(tokens, tokens, "x"), [crowd, []], [crowd[1], None], "", [photo, photo[:80, :90]])
    first, second = drawing.draw_encoded(encoded)
    assert first.shape == (512, 1024, 3)
    green = (np.abs(first.astype(int) - drawing.CHOSEN) < 60).all(-1)
    assert green[:, 600:].any() and not green[:, :300].any()
    assert (second == 127).all()  # no face, nothing drawn


def test_scores_are_drawn_in_the_colour_of_what_they_say():
    photo = np.full((300, 400, 3), 127, np.uint8)
    crowd = tuple(face(x, 100, x + 60, 180) for x in (10, 110, 210, 310))
    people = (PersonScore("1 Anna", 0, 0.8, (2,)), PersonScore("2 Ben", 1, 0.1), PersonScore("3 Cleo", None, 0.0))
    drawn = draw_scores(photo, PictureScore(crowd, people))
    for found, color in zip(crowd, (drawing.ALIKE, drawing.UNLIKE, drawing.WRONG, drawing.STRANGER), strict=True):
        x0, y0 = (int(v) for v in found.box[:2])
        assert (drawn[y0, x0 : x0 + 60] == color).all()
    assert (drawn[:30] == drawing.WRONG).all(-1).any()  # who is missing, in a corner
