"""Outlines drawn by hand: text to soft masks."""

from __future__ import annotations

import pytest
import torch

from dynamicid_core.outlines import LONGEST, SIZE, outlined, parse_outlines
from dynamicid_core.types import DynamicIDError, Region

LEFT = "0,0 0.5,0 0.5,1 0,1"


def test_outlines_as_text():
    assert parse_outlines("") == parse_outlines(" ;\n") == []
    corners = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]
    assert parse_outlines(LEFT) == [corners]
    assert parse_outlines(f"{LEFT}; .5,0 1,0 1,1") == parse_outlines(f"{LEFT}\n0.5,0  1,0 1,1;")
    with pytest.raises(DynamicIDError, match="The outlines are .* characters long, of at most"):
        parse_outlines("0" * (LONGEST + 1))


def test_what_an_outline_encloses_has_soft_edges():
    mask = outlined(LEFT)
    assert mask.shape == (1, SIZE, SIZE) and mask.dtype == torch.float32
    row = mask[0, SIZE // 2]
    assert row[: SIZE // 2 - 16].min() == 1 and row[SIZE // 2 + 16 :].max() == 0
    assert row[SIZE // 2] == pytest.approx(0.5, abs=0.15) and (row.diff() <= 0).all()
    assert mask[0, 0, 0] == 1, "what lies at the picture's edge is not faded out there"
    assert Region(mask=mask) and outlined("") is None


def test_several_outlines_are_one_region_and_count_once():
    right = "0.5,0 1,0 1,1 0.5,1"
    assert outlined(f"{LEFT}; {right}").min() > 0.99
    assert torch.equal(outlined(f"{LEFT}; {LEFT}"), outlined(LEFT))


def test_an_outline_of_a_line_encloses_next_to_nothing():
    assert outlined("0,0.5 0.5,0.5 1,0.5").mean() < 0.01
