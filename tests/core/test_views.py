"""Parts of a picture: of parts, over its edges, and read from a map that somebody cut and resized."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from dynamicid_core.regions import region_weights
from dynamicid_core.types import Cast, Face, Person, Region
from dynamicid_core.views import FINE, View, parts_shown, picture_map

WHOLE = View(0, 0, FINE, FINE, (FINE, FINE))


def cast_of(*boxes) -> Cast:
    return Cast(tuple(Person(Face(*torch.zeros(2, 1, 4, 768), "test"), Region(box=box)) for box in boxes))


def edges(view: View) -> tuple[float, ...]:
    """Top, left, bottom and right as fractions of the picture."""
    tall, wide = view.whole
    ends = (view.top + view.height) / tall, (view.left + view.width) / wide
    return view.top / tall, view.left / wide, *ends


@pytest.mark.parametrize("size", [(1024, 1024), (33, 20), (1, 1)])
def test_a_map_that_nobody_cut_shows_all_of_the_picture(size):
    if size == (1, 1):  # a single cell has a middle and no edges
        assert len(parts_shown(picture_map(*size))) == 1
    else:
        assert parts_shown(picture_map(*size)) == (WHOLE,)


@pytest.mark.parametrize("mode", ["nearest-exact", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (512, 300)])
def test_a_map_tells_what_was_cut_out_of_it_and_resized(mode, size):
    tile = picture_map(1024, 1024)[:, :, 100:612, 512:1024]
    other = picture_map(1024, 1024)[:, :, 0:512, 0:512]
    first, second = parts_shown(interpolate(torch.cat((tile, other)), size, mode=mode))
    assert edges(first) == pytest.approx((100 / 1024, 0.5, 612 / 1024, 1), abs=1 / 1024)
    assert edges(second) == pytest.approx((0, 0, 0.5, 0.5), abs=1 / 1024)


def test_a_map_of_a_part_goes_on_telling_of_the_whole():
    part = View(10, 20, 40, 60, (100, 200))
    (shown,) = parts_shown(picture_map(64, 64, part))
    assert edges(shown) == pytest.approx(edges(part), abs=1e-4)
    (cut,) = parts_shown(picture_map(64, 64, part)[:, :, :32])
    assert edges(cut) == pytest.approx((0.1, 0.1, 0.3, 0.4), abs=1e-4)


def test_a_part_of_a_part_lies_in_the_picture():
    inner = View(2, 0, 4, 8, (8, 16))
    assert inner.within(None) is inner
    assert edges(inner.within(WHOLE)) == edges(inner)
    outer = View(32, 64, 32, 64, (64, 128))
    assert edges(inner.within(outer)) == (0.625, 0.5, 0.875, 0.75)


def test_a_tile_of_an_enlarged_picture_sees_the_regions_of_its_part_alone():
    """The left half of a picture at twice the size has as many cells as the whole had, and nobody of the right half."""
    cast = cast_of((0, 0, 1, 0.5), (0, 0.5, 1, 1))
    tile = region_weights(cast, 16, 12, view=View(0, 0, FINE, FINE // 2, (FINE, FINE)))
    assert (tile.visible[0, 0] == 1).all() and (tile.visible[0, 1] == 0).all()


def test_a_tile_that_goes_on_at_the_other_edge_sees_both_edges():
    cast = cast_of((0, 0, 1, 0.5), (0, 0.5, 1, 1))
    view = View(0, 6, 4, 4, (4, 8))  # columns 6, 7, 0, 1
    assert view.on_grid(4, 4) == (4, 8, 0, 6)
    visible = region_weights(cast, 4, 4, view=view).visible[0].unflatten(-1, (4, 4))
    assert visible[:, 0].tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
