"""What the frozen dataclasses accept, and what they say otherwise."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path

import pytest
import torch

from dynamicid_core import types
from dynamicid_core.types import Cast, DynamicIDError, Face, Missing, Person, Region, SAAOptions, hinting

TOKENS = torch.ones(1, 4, 768)
NAN, INFINITE = float("nan"), float("inf")


def _face(**changed) -> Face:
    return Face(**({"tokens": TOKENS, "uncond_tokens": TOKENS, "encoder": "abc"} | changed))


def test_defaults_are_the_published_ones():
    options = SAAOptions()
    assert (options.weight, options.layout_strength, options.layout_end, options.gate_threshold) == (
        1.0,
        2.0,
        12 / 50,
        0.3,
    )
    assert (options.start_at, options.end_at, options.outside, options.lora_strength) == (0.0, 1.0, "everyone", 1.0)
    assert (_face().mix, _face().identity, _face().name) == ((1.0,), None, "")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokens": torch.ones(4, 768)}, r"\(4, 768\); expected \[1 to 4096 frames, tokens, width\]"),
        ({"tokens": torch.ones(4097, 4, 1)}, r"\(4097, 4, 1\)"),
        ({"uncond_tokens": torch.ones(2, 4, 768)}, r"null tokens \(2, 4, 768\)"),
        ({"tokens": torch.ones(1, 0, 768)}, r"\(1, 0, 768\)"),
        ({"mix": (0.2, 0.4, 0.4)}, r"3 blended face\(s\)"),
        ({"uncond_tokens": torch.ones(1, 8, 768)}, r"\(1, 4, 768\) and null tokens \(1, 8, 768\)"),
        ({"identity": torch.ones(1, 512)}, r"identity has shape \(1, 512\); expected \(512,\)"),
        ({"landmarks": torch.ones(68, 2)}, r"landmarks has shape \(68, 2\); expected \(106, 2\)"),
        ({"pose": torch.ones(2)}, r"pose has shape \(2,\); expected \(3,\)"),
        ({"tokens": TOKENS * NAN}, "tokens holds NaN"),
        ({"uncond_tokens": TOKENS * INFINITE}, "uncond_tokens holds NaN"),
        ({"identity": torch.full((512,), NAN)}, "identity holds NaN"),
        ({"pose": torch.tensor([0, INFINITE, 0])}, "pose holds NaN"),
    ],
)
def test_faces_that_make_no_sense(changed, said):
    with pytest.raises(DynamicIDError, match=said):
        _face(**changed)


def test_a_face_may_have_tokens_for_each_frame():
    still, film = _face(name="Ada"), _face(tokens=torch.arange(3.0)[:, None, None].expand(-1, 4, 768))
    assert (still.frames, film.frames) == (1, 3)
    assert film.tokens_of(5)[:, 0, 0].tolist() == [0, 1, 2, 2, 2] and torch.equal(still.tokens_of(2)[1:], TOKENS)
    assert (
        film.at(1).tokens.shape == (1, 4, 768) and film.at(1).tokens[0, 0, 0] == 1 and film.at(7).tokens[0, 0, 0] == 2
    )
    assert still.at(4) is still
    cast = Cast((Person(still), Person(film, Region(box=(0, 0, 1, 1)), 0.5)))
    assert (cast.frames, Cast().frames) == (3, 1)
    second = cast.at(1)
    assert second.frames == 1 and second.people[0].face is still
    assert second.people[1].weight == 0.5 and second.people[1].face.tokens[0, 0, 0] == 1


def test_a_face_may_be_blended_of_several():
    assert _face(tokens=torch.ones(1, 12, 8), uncond_tokens=torch.ones(1, 12, 8), mix=(0.2, 0.8, 0.8)).mix[0] == 0.2


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.01), (0, 0.3, 1, 0.3), (0, 0, NAN, 1)]
)
def test_boxes_outside_the_picture(box):
    with pytest.raises(DynamicIDError, match="does not lie inside the picture"):
        Region(box=box)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(4, 4), r"\(4, 4\); expected \[frames, height, width\]"),
        (torch.ones(1, 0, 4), r"\(1, 0, 4\)"),
        (torch.full((1, 4, 4), 1.5), "outside 0..1"),
        (torch.full((1, 4, 4), -0.1), "outside 0..1"),
        (torch.full((1, 4, 4), NAN), "outside 0..1"),
        (torch.zeros(2, 4, 4), "empty"),
    ],
)
def test_masks_that_make_no_sense(mask, said):
    with pytest.raises(DynamicIDError, match=said):
        Region(mask=mask)


def test_a_region_is_a_box_or_a_mask():
    assert Region(box=(0, 0, 1, 1)).mask is None
    assert Region(mask=torch.ones(2, 3, 4)).box is None
    for wrong in ({}, {"box": (0, 0, 1, 1), "mask": torch.ones(1, 2, 2)}):
        with pytest.raises(DynamicIDError, match="either a box or a mask"):
            Region(**wrong)


def test_a_cast_is_never_changed_in_place():
    one, two, three = (Person(_face(name=name)) for name in ("A", "B", "C"))
    cast = Cast((one,))
    longer = cast.add(two, three)
    assert [person.face.name for person in longer.people] == ["A", "B", "C"]
    assert cast.people == (one,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cast.people = ()


@pytest.mark.parametrize("weight", [NAN, INFINITE, 10.5, -11])
def test_a_persons_weight_is_bounded(weight):
    with pytest.raises(DynamicIDError, match=f"weight is {weight}; it must lie between -10.0 and 10.0"):
        Person(_face(), weight=weight)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"start_at": -0.1}, "start_at is -0.1; it must lie between 0.0 and 1.0"),
        ({"end_at": 1.1}, "end_at is 1.1"),
        ({"start_at": 0.8, "end_at": 0.2}, "start_at is 0.8 and end_at 0.2, so faces would never act"),
        ({"start_at": float("nan")}, "start_at is nan"),
        ({"layout_end": NAN}, "layout_end is nan"),
        ({"gate_threshold": 2.0}, "gate_threshold is 2.0"),
        ({"weight": 11.0}, "weight is 11.0"),
        ({"lora_strength": INFINITE}, "lora_strength is inf"),
        ({"layout_strength": -1.0}, "layout_strength is -1.0; it must lie between 0.0 and 100.0"),
        ({"outside": "someone"}, "outside is 'someone'; it must be 'everyone' or 'nobody'"),
    ],
)
def test_options_are_bounded(changed, said):
    with pytest.raises(DynamicIDError, match=said):
        SAAOptions(**changed)


@pytest.mark.parametrize(
    ("front_ends", "said"),
    [((), "It lacks."), (("inner",), "It lacks. inner's hint"), (("outer", "inner"), "It lacks. outer's hint")],
)
def test_what_is_missing_gets_the_hint_of_the_outermost_front_end(front_ends, said):
    with pytest.raises(DynamicIDError) as caught, contextlib.ExitStack() as stack:
        for name in front_ends:
            stack.enter_context(hinting({"face detector": f"{name}'s hint"}))
        raise Missing("face detector", "It lacks.")
    assert str(caught.value) == said and caught.value.part == "face detector"


def test_every_letter_of_a_shape_is_in_the_legend():
    """Shapes in brackets, anywhere in the core, use no capital letter that the legend lacks."""
    core = Path(types.__file__).parent
    legend = re.findall(r"``([A-Z])", types.__doc__)
    assert len(legend) == len(set(legend)) > 10
    shape = re.compile(r"(?<![\w\]])\[[^][\"'{}=]*\]")
    used = {
        letter: f"{file.name}: {found[0]}"
        for file in core.rglob("*.py")
        for found in shape.finditer(file.read_text(encoding="utf-8"))
        for letter in re.findall(r"(?<![\w.])[A-Z](?![\w(.])", found[0])
    }
    assert {"B", "H", "K", "N", "P", "T"} <= set(used)
    assert {letter: where for letter, where in used.items() if letter not in legend} == {}
