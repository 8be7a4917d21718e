"""Regions on grids of any size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicid_core.attention import gate_terms, padded, score_bias
from dynamicid_core.regions import box_cells, frames_of, mask_cells, region_weights, with_default_regions
from dynamicid_core.types import Cast, DynamicIDError, Face, Person, Region
from dynamicid_core.views import View

SIZES = st.integers(1, 97)


def person(region=None, weight=1.0):
    return Person(Face(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), "test"), region, weight)


@st.composite
def boxes(draw):
    y0, x0 = draw(st.floats(0, 0.99)), draw(st.floats(0, 0.99))
    y1, x1 = draw(st.floats(y0 + 1e-3, 1.0)), draw(st.floats(x0 + 1e-3, 1.0))
    return (y0, x0, y1, x1)


@given(boxes(), SIZES, SIZES)
def test_boxes_round_as_published_and_never_vanish(box, height, width):
    cells = box_cells(box, height, width)[0]
    y0, x0, y1, x1 = box
    published = torch.zeros(height, width)
    published[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] = 1
    assert cells.sum() >= 1
    if published.any():
        assert torch.equal(cells, published)


@given(st.integers(1, 40), st.integers(1, 40), SIZES, SIZES, st.integers(0, 2**31))
@settings(deadline=None)
def test_masks_keep_their_peak_at_any_size(h, w, height, width, seed):
    mask = torch.rand(1, h, w, generator=torch.Generator().manual_seed(seed))
    mask = torch.where(mask > 0.9, mask, 0.0)
    mask[0, h // 2, w // 2] = 0.7
    cells = mask_cells(mask, height, width)
    assert cells.shape == (1, height, width)
    assert cells.min() >= 0
    assert cells.max() == pytest.approx(mask.max().item(), abs=1e-5)


def test_a_thin_line_survives_a_coarse_layer():
    mask = torch.zeros(1, 512, 512)
    mask[:, :, 250] = 1
    assert mask_cells(mask, 2, 2).amax() == pytest.approx(1.0)


@settings(deadline=None)
@given(
    st.lists(boxes(), min_size=1, max_size=4), SIZES, SIZES, st.sampled_from(["everyone", "nobody"]), st.integers(0, 2)
)
def test_weights_are_finite_and_somebody_is_always_visible(box_list, height, width, outside, unplaced):
    cast = Cast(tuple(person(Region(box=b)) for b in box_list) + (person(),) * unplaced)
    weights = region_weights(cast, height, width, outside)
    n = height * width
    assert weights.visible.shape == (1, len(cast.people), n)
    assert (weights.visible.amax(1) > 0).all()
    bias = score_bias(weights.visible, [4] * len(cast.people))
    assert bias.shape == (1, 1, n, padded(4 * len(cast.people)))
    assert torch.isfinite(bias.amax(-1)).all()
    assert not torch.isnan(bias).any()
    if outside == "nobody" and not unplaced:
        assert torch.equal(weights.reach, (weights.inside > 0).float())
    else:
        assert (weights.reach == 1).all()


@given(st.integers(2, 64), st.integers(2, 64))
@settings(deadline=None)
def test_hard_masks_that_do_not_overlap_follow_the_published_rule(height, width):
    left = torch.zeros(1, height, width)
    left[:, :, : width // 2] = 1
    cast = Cast((person(Region(mask=left)), person(Region(mask=1 - left))))
    weights = region_weights(cast, height, width)
    assert torch.equal(weights.visible[0, 0], left.flatten())
    assert torch.equal(weights.visible[0, 1], 1 - left.flatten())
    s = 2.0
    scale, shift = gate_terms(weights, s)[0, 1]
    g = torch.rand(height * width)
    torch.testing.assert_close(g * scale + shift, g + s)
    box = region_weights(Cast((person(Region(mask=left)),)), height, width)
    scale, shift = gate_terms(box, s)[0, 1]
    published = torch.where(left.flatten() > 0, g + s, g / (1 + s))
    torch.testing.assert_close(g * scale + shift, published)


def test_equal_overlap_shares_and_full_overlap_is_finite():
    whole = Region(box=(0, 0, 1, 1))
    weights = region_weights(Cast((person(whole), person(whole))), 3, 3)
    assert (weights.visible == 1).all()
    half = Region(mask=torch.full((1, 4, 4), 0.5))
    weights = region_weights(Cast((person(half), person(half))), 3, 3)
    bias = score_bias(weights.visible, [4, 4])[..., :8]
    assert (bias == bias[0, 0, 0, 0]).all()


def test_people_without_a_region_share_what_is_left_free_and_feel_no_boost():
    cast = Cast((person(Region(box=(0, 0, 1, 0.5))), person(), person()))
    weights = region_weights(cast, 2, 4)
    left = torch.tensor([1.0, 1, 0, 0]).repeat(2)
    assert torch.equal(weights.visible[0, 0], left)
    assert torch.equal(weights.visible[0, 1], 1 - left)
    assert torch.equal(weights.visible[0, 2], 1 - left)
    scale, shift = gate_terms(weights, 2.0)[0, 1]
    assert torch.equal(scale, torch.ones(8))
    assert torch.equal(shift, 2 * left)


def test_one_person_without_a_region_has_the_whole_picture_unboosted():
    weights = region_weights(Cast((person(),)), 2, 2)
    assert (weights.visible == 1).all()
    scale, shift = gate_terms(weights, 2.0)[0, 1]
    assert (scale == 1).all()
    assert (shift == 0).all()


def test_several_people_without_regions_stand_in_equal_strips():
    cast = with_default_regions(Cast((person(),) * 3))
    assert [p.region.box for p in cast.people] == [(0.0, i / 3, 1.0, pytest.approx((i + 1) / 3)) for i in range(3)]
    weights = region_weights(cast, 6, 6)
    assert torch.equal(weights.visible.sum(1), torch.ones(1, 36))


def test_eight_strips_on_a_grid_of_four_cells_all_stay_visible():
    weights = region_weights(Cast((person(),) * 8), 4, 4)
    assert (weights.visible.amax(-1) == 1).all()


def test_frames_of_a_batch_have_their_own_regions():
    moving = torch.zeros(2, 4, 4)
    moving[0, :, :2] = 1
    moving[1, :, 2:] = 1
    still = torch.zeros(1, 4, 4)
    still[:, :2] = 1
    cast = Cast((person(Region(mask=moving)), person(Region(mask=still))))
    weights = region_weights(cast, 4, 4, pictures=(0, 1))
    assert weights.visible.shape == (2, 2, 16)
    top = weights.visible.unflatten(-1, (4, 4))[:, :, :2]  # below, cells that are nobody's show everybody
    assert torch.equal(top[:, 0], moving[:, :2])
    assert torch.equal(top[:, 1], still[:, :2].expand(2, -1, -1))


def test_frames_of_several_masks_cost_what_the_pictures_need():
    """Of masks with 97, 89 and 83 frames there are 716,539 combinations; a batch has a few of them."""
    counts = (97, 89, 83)
    masks = [torch.rand(count, 4, 4, generator=torch.Generator().manual_seed(count)) for count in counts]
    cast = Cast(tuple(person(Region(mask=mask)) for mask in masks))
    weights = region_weights(cast, 4, 4, pictures=(0, 90, 100_000))
    assert weights.visible.shape == (3, 3, 16)
    for row, picture in zip(weights.visible, (0, 90, 100_000), strict=True):
        expected = torch.stack([mask[picture % len(mask)].flatten() for mask in masks])
        torch.testing.assert_close(row, expected)
    assert frames_of(cast, 90) == (90, 1, 7) and frames_of(cast, 0) == (0, 0, 0)


def test_a_frame_without_regions_is_not_damped():
    """One picture's frame is empty, the other's is not: what is in the batch besides changes neither."""
    mask = torch.zeros(2, 4, 4)
    mask[1, :, :2] = 1
    cast = Cast((person(Region(mask=mask)),))
    together = gate_terms(region_weights(cast, 4, 4, pictures=(0, 1)), 2.0)
    alone = [gate_terms(region_weights(cast, 4, 4, pictures=(i,)), 2.0) for i in (0, 1)]
    assert torch.equal(together, torch.cat(alone))
    assert (together[0, 1, 0] == 1).all() and (together[0, 1, 1] == 0).all()


def test_a_view_shows_its_part_of_the_regions():
    cast = Cast((person(Region(box=(0, 0, 0.5, 0.5))), person(Region(box=(0.5, 0.5, 1, 1)))))
    whole = region_weights(cast, 8, 8).visible.unflatten(-1, (8, 8))
    part = region_weights(cast, 4, 8, view=View(4, 0, 4, 8, (8, 8))).visible.unflatten(-1, (4, 8))
    assert torch.equal(part, whole[:, :, 4:])


@given(st.data(), st.integers(2, 64), st.integers(2, 64), st.integers(0, 3))
def test_a_views_grids_lie_in_the_wholes_grids_as_the_view_lies_in_the_picture(data, height, width, halved):
    """On every level of the UNet: inside, in scale, and exactly where it is on the level that the view was given in."""
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    tall, wide = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    view = View(top, left, tall, wide, (height, width))
    assert view.on_grid(tall, wide) == (height, width, top, left)
    cells = -(-tall // 2**halved), -(-wide // 2**halved)
    whole_h, whole_w, y, x = view.on_grid(*cells)
    assert 0 <= y <= whole_h - cells[0] and 0 <= x <= whole_w - cells[1]
    # The middle of the part lies at the same fraction of the whole, to a cell.
    assert abs((y + cells[0] / 2) / whole_h - (top + tall / 2) / height) <= 1 / whole_h
    assert abs((x + cells[1] / 2) / whole_w - (left + wide / 2) / width) <= 1 / whole_w


def test_a_view_is_a_part_of_the_picture():
    for place in ((-1, 0, 4, 4), (0, 0, 0, 4), (10, 0, 4, 4), (0, 0, 4, 11)):
        with pytest.raises(DynamicIDError, match="inside the picture"):
            View(*place, (10, 10))


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: Region(), "either a box or a mask"),
        (lambda: Region(box=(0, 0, 1, 1.2)), "inside the picture"),
        (lambda: Region(box=(0.5, 0, 0.5, 1)), "after its start"),
        (lambda: Region(mask=torch.zeros(1, 4, 4)), "all zero"),
        (lambda: Region(mask=torch.full((1, 4, 4), 2.0)), "outside 0..1"),
        (lambda: Region(mask=torch.ones(4, 4)), "frames, height, width"),
        (lambda: region_weights(Cast(), 4, 4), "empty"),
    ],
)
def test_mistakes_are_explained(make, words):
    with pytest.raises(DynamicIDError, match=words):
        make()
