"""Places found by themselves: hills of a map, one for each person, and what a run remembers of its rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from dynamicid_core.attention import SiteFaces, score_bias
from dynamicid_core.finding import Finder, Seen, find_places
from dynamicid_core.hills import hills
from dynamicid_core.types import Cast, Face, Person, Region
from dynamicid_core.views import View

SHAPE = (20, 30)


def bumps(*tops: tuple[int, int, float], shape=SHAPE) -> np.ndarray:
    """A map with a round hill of the given height at each (y, x)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.sum([high * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18) for cy, cx, high in tops], axis=0)


def everywhere(shape=SHAPE) -> np.ndarray:
    return np.ones(shape, bool)


def person(name: str = "", region: Region | None = None) -> Person:
    tokens = torch.randn(2, 1, 4, 12, generator=torch.Generator().manual_seed(len(name)))
    return Person(Face(tokens[0], tokens[1], "test", name=name), region)


def test_hills_part_between_their_peaks_those_that_rise_most_first():
    low, high, middle = (10, 4, 0.6), (5, 15, 1.0), (14, 26, 0.8)
    found = hills(bumps(low, high, middle), everywhere())
    assert [[hill[y, x] for y, x, _ in (high, middle, low)] for hill in found] == np.eye(3, dtype=bool).tolist()
    assert (np.sum(found, axis=0) == 1).all()


def test_a_ripple_is_no_hill_of_its_own():
    assert len(hills(bumps((10, 8, 1.0)) + 0.03 * bumps((10, 22, 1.0)), everywhere())) == 1
    assert len(hills(np.ones(SHAPE), everywhere())) == 1
    assert hills(np.ones(SHAPE), np.zeros(SHAPE, bool)) == []


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**31), st.floats(0.2, 1.0))
def test_hills_are_connected_and_share_what_is_free(height, width, seed, part):
    rng = np.random.default_rng(seed)
    values, free = rng.random((height, width)).round(1), rng.random((height, width)) < part
    found = hills(values, free)
    assert np.array_equal(np.sum(found, axis=0) if found else np.zeros_like(free), free)
    assert all(label(hill)[1] == 1 for hill in found)
    assert all(np.array_equal(a, b) for a, b in zip(found, hills(values.copy(), free), strict=True))


def test_everybody_gets_the_place_where_their_share_stands_out_also_beside_somebody_strong():
    activation = bumps((10, 6, 1.0), (10, 23, 1.0))
    strong = np.where(np.arange(30) < 15, 0.70, 0.80) * activation  # the larger share everywhere, most so on the right
    left, right = find_places(activation, np.stack((activation - strong, strong)), everywhere())
    assert left[10, 6] == 1 and right[10, 23] == 1 and left[10, 23] < 0.01 and right[10, 6] < 0.01
    assert 0 < left[10, 15] < 1 or 0 < right[10, 15] < 1  # soft between them


def test_places_keep_out_of_what_is_taken_and_somebody_may_have_none():
    activation, free = bumps((10, 6, 1.0), (10, 23, 0.9)), everywhere()
    free[:, :15] = False
    shares = np.stack((activation * 0.2, activation * 0.8))
    places = find_places(activation, shares, free)
    assert sum(place is None for place in places) == 1
    assert next(place for place in places if place is not None)[:, :15].max() == 0
    assert find_places(activation, shares, np.zeros(SHAPE, bool)) == [None, None]


# --- what a run tells -----------------------------------------------------------------------------------------------


def note(finder: Finder, seen: tuple[Seen, ...], q: torch.Tensor, keys: torch.Tensor, size, latent) -> None:
    """One layer of one head: queries [B, N, C], a key for each person [P, C]."""
    people = len(finder.cast.people)
    per_token = keys.repeat_interleave(4, 0)
    padded = torch.cat((per_token, torch.zeros(16 - len(per_token), keys.shape[1])))
    faces = SiteFaces(
        padded.expand(len(q), 1, -1, -1), padded.expand(len(q), 1, -1, -1),
        torch.nn.functional.normalize(per_token.sum(0), dim=-1)[:, None].expand(len(q), -1, -1),
    )  # fmt: skip
    bias = score_bias(torch.ones(1, people, q.shape[1]), [4] * people)
    finder.record(seen, q, faces, bias, size, latent)


def looking(spots: dict[int, tuple[int, int]], size=(16, 24), strength=6.0) -> torch.Tensor:
    """Queries that look for person p around spot p: [1, N, 2]."""
    y, x = np.mgrid[: size[0], : size[1]]
    near = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 12) for _, (cy, cx) in sorted(spots.items())]
    return strength * torch.from_numpy(np.stack(near, -1)).float().reshape(1, -1, len(near))


KEYS = torch.eye(2)


def test_each_picture_of_a_batch_has_places_of_its_own():
    finder = Finder(Cast((person("Anna"), person("Ben"))))
    q = torch.cat((looking({0: (8, 5), 1: (8, 18)}), looking({0: (8, 18), 1: (8, 5)})))
    note(finder, (Seen(0), Seen(1)), q, KEYS, (16, 24), (16, 24))
    found = finder.places()
    anna, ben = (p.region.mask for p in found.cast.people)
    assert anna.shape == ben.shape == (2, 16, 24) and found.message is None
    for frame, (here, there) in enumerate(((5, 18), (18, 5))):
        assert anna[frame, 8, here] == 1 == ben[frame, 8, there] and anna[frame, 8, there] == 0 == ben[frame, 8, here]


def test_parts_of_a_picture_and_rows_one_by_one_tell_the_same_as_the_whole():
    q = looking({0: (8, 5), 1: (8, 18)})
    whole, parts = Finder(Cast((person("Anna"), person("Ben")))), Finder(Cast((person("Anna"), person("Ben"))))
    note(whole, (Seen(0),), q, KEYS, (16, 24), (16, 24))
    grid = q.unflatten(1, (16, 24))
    for left in (0, 12):
        view = View(0, left, 16, 12, (16, 24))
        note(parts, (Seen(0, view),), grid[:, :, left : left + 12].flatten(1, 2), KEYS, (16, 12), (16, 12))
    for a, b in zip(whole.places().cast.people, parts.places().cast.people, strict=True):
        assert a.region.mask.shape == b.region.mask.shape
        assert ((a.region.mask > 0.5) != (b.region.mask > 0.5)).float().mean() < 0.1


def test_parts_that_count_in_cells_of_their_own_or_reach_over_an_edge_lie_where_they_are():
    """Context windows and told crops count in fractions; tiles of a rolled picture go on at the opposite edge."""
    q = looking({0: (8, 5), 1: (8, 18)})
    whole, parts = Finder(Cast((person("Anna"), person("Ben")))), Finder(Cast((person("Anna"), person("Ben"))))
    note(whole, (Seen(0),), q, KEYS, (16, 24), (16, 24))
    grid = q.unflatten(1, (16, 24))
    for view, columns in (
        (View(0, 14, 16, 24, (16, 24)), [*range(14, 24), *range(14)]),
        (View.of_box((0, 0, 1, 0.5)), range(12)),
        (View.of_box((0, 0.5, 1, 1)), range(12, 24)),
    ):
        size = (16, len(columns))
        note(parts, (Seen(0, view),), grid[:, :, list(columns)].flatten(1, 2), KEYS, size, size)
    torch.testing.assert_close(parts.maps()[0][0], whole.maps()[0][0], rtol=0, atol=0.05)
    for a, b in zip(whole.places().cast.people, parts.places().cast.people, strict=True):
        assert ((a.region.mask > 0.5) != (b.region.mask > 0.5)).float().mean() < 0.1


def test_given_boxes_stay_and_the_others_are_found_beside_them():
    box = Region(box=(0, 0, 1, 0.5))
    finder = Finder(Cast((person("Anna"), person("Ben", box))))
    note(finder, (Seen(0),), looking({0: (8, 5), 1: (8, 18)}), KEYS, (16, 24), (16, 24))
    anna, ben = finder.places().cast.people
    assert ben.region is box and anna.region.mask[0, 8, 18] == 1 and anna.region.mask[0, :, :11].max() == 0


def test_who_has_no_place_is_named():
    finder = Finder(Cast((person("Anna"), person("Ben"))))
    q = torch.cat((looking({0: (8, 5), 1: (8, 18)}), looking({0: (8, 12), 1: (8, 12)})))
    note(finder, (Seen(0), Seen(1)), q, KEYS, (16, 24), (16, 24))
    assert "(in 1 of 2 pictures)" in finder.places().message
    nothing = Finder(Cast((person("Anna"), person("Ben")))).places()
    assert nothing.message.startswith("No place was found for Anna, Ben:")
    assert all(p.region is None for p in nothing.cast.people)


@pytest.mark.parametrize("latent", [(64, 64), (16, 96), (7, 5)])
def test_places_are_looked_for_on_a_grid_of_a_bounded_size(latent):
    finder = Finder(Cast((person("Anna"), person("Ben"))))
    note(finder, (Seen(0),), torch.rand(1, latent[0] * latent[1], 2), KEYS, latent, latent)
    (maps,) = finder.maps().values()
    assert max(maps.shape[1:]) == min(32, max(latent)) and maps.min() >= 0 and maps.max() <= 1
