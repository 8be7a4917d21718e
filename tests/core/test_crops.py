"""When places may be laid over a crop of their picture, and what is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dynamicid_core.crops import Sampled, crop_warning, glance, is_alike, made_for
from dynamicid_core.placing import place, place_in_boxes
from dynamicid_core.types import Cast, Face

LEFT, RIGHT = (0, 0, 1, 0.5), (0, 0.5, 1, 1)
WIDE, SQUARE = (96, 128), (64, 64)  # 1024 x 768 and 512 x 512 px


def face() -> Face:
    return Face(torch.ones(1, 4, 8), torch.ones(1, 4, 8), "x")


def boxed(canvas=None) -> Cast:
    return place_in_boxes(None, [face(), face()], [[LEFT, RIGHT]], canvas=canvas)


def masked(height: int, width: int, **shape: bool) -> Cast:
    mask = torch.ones(1, height, width)
    return place(place(None, face(), mask, **shape), face(), mask, **shape)


@pytest.mark.parametrize(
    "cast, now, before, tile, said",
    [
        (boxed((768, 1024)), Sampled(WIDE), None, None, None),
        (boxed((768, 1024)), Sampled((144, 192)), None, None, None),  # a second pass, larger
        (boxed((768, 1024)), Sampled(SQUARE), None, None, "places in a picture of 1024 x 768, and what is sampled has 512 x 512"),
        (masked(300, 400), Sampled(SQUARE), None, None, "places in a picture of 400 x 300"),
        (masked(32, 32), Sampled(SQUARE), None, None, None),
        (masked(300, 400, any_shape=True), Sampled(SQUARE), None, None, None),  # outlines drawn by hand
        (boxed(), Sampled(SQUARE), None, None, None),  # fractions of a picture that nobody knows
        (boxed(), Sampled(SQUARE), Sampled(WIDE), None, "were put into 1024 x 768 px before, and now 512 x 512 px are sampled"),
        (boxed(), Sampled((144, 192)), Sampled(WIDE), None, None),
        (boxed(), Sampled(SQUARE, True), Sampled(SQUARE), None, "now a part of 512 x 512 px is sampled again"),
        (boxed(), Sampled(SQUARE, True), None, None, None),  # a picture is inpainted
        (boxed(), Sampled(WIDE), None, SQUARE, "are put into 1024 x 768 px, of which a part of 512 x 512 px"),
    ],
)  # fmt: skip
def test_what_speaks_for_a_crop_is_said(cast, now, before, tile, said):
    message = crop_warning(cast, now, before, tile)
    assert message is None if said is None else said in message and "2 people" in message and "crop" in message


def test_one_person_is_in_the_whole_crop():
    assert crop_warning(Cast(boxed((768, 1024)).people[:1]), Sampled(SQUARE), Sampled(WIDE), SQUARE) is None


def test_boxes_that_move_remember_their_canvas():
    moving = place_in_boxes(None, [face(), face()], [[LEFT, RIGHT], [RIGHT, LEFT]], cells=(8, 8), canvas=(768, 1024))
    assert made_for(moving) == (768, 1024) and made_for(boxed()) is None and made_for(masked(3, 5)) == (3, 5)


def test_shapes_are_alike_to_the_rounding_of_sizes():
    assert is_alike((64, 96), (512, 768)) and is_alike((67, 100), (512, 768)) and not is_alike((64, 64), (64, 80))


def pictures(count: int, seed: int = 0) -> Tensor:
    """Smooth latents that differ: [count, 4, 64, 64]"""
    coarse = torch.randn(count, 4, 6, 6, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, (64, 64), mode="bicubic")


def said_of(begun: Tensor, made: Tensor | None) -> str | None:
    """What is said where a square picture is sampled again after another run."""
    before = Sampled(SQUARE, made=None if made is None else glance(made))
    return crop_warning(boxed(), Sampled(SQUARE, begun=glance(begun)), before)


def test_a_second_pass_is_known_by_what_the_first_one_made():
    first = pictures(2)
    noise = 0.3 * torch.randn(2, 4, 96, 96, generator=torch.Generator().manual_seed(1))
    enlarged = interpolate(first, (96, 96), mode="bilinear") + noise
    assert said_of(enlarged, first) is None and said_of(enlarged.flip(0), first) is None
    assert said_of(pictures(1, seed=2), None) is None, "nobody knows what came of the first run"
    assert said_of(torch.zeros(1, 4, 64, 64), first) is None, "a new picture, out of noise alone"


def test_a_crop_of_the_pictures_own_shape_is_known_by_what_it_shows():
    first = pictures(2)
    crop = interpolate(first[:, :, 4:36, 4:36], (64, 64), mode="bilinear")
    assert "now another picture of 512 x 512 px is sampled again" in said_of(crop, first)
    assert said_of(torch.cat((first[:1], crop[:1])), first) is not None, "one of a batch is enough"
