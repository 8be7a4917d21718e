"""Places of people that nobody drew, and boxes as text."""

from __future__ import annotations

import pytest

from dynamicid_core.layouts import EDGE, LAYOUTS, arranged, parse_boxes
from dynamicid_core.types import DynamicIDError, Region


@pytest.mark.parametrize("layout", LAYOUTS[:-1])
@pytest.mark.parametrize("people", [1, 2, 3, 4, 5, 7])
def test_everybody_has_a_box_of_one_size_that_touches_no_other(layout, people):
    boxes = arranged(layout, people)
    assert len(boxes) == len({Region(box=box).box for box in boxes}) == people
    assert len({(round(y1 - y0, 6), round(x1 - x0, 6)) for y0, x0, y1, x1 in boxes}) == 1
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        assert all(y1 <= t or b <= y0 or x1 <= u or v <= x0 for t, u, b, v in boxes[i + 1 :])


def test_people_are_counted_from_the_left_and_then_downwards():
    assert arranged("side by side", 0) == []
    assert arranged("side by side", 1) == [(EDGE, EDGE, 1 - EDGE, 1 - EDGE)]
    assert [box[1] for box in arranged("side by side", 4)] == sorted(box[1] for box in arranged("side by side", 4))
    assert [(y0 > 0.5, x0 > 0.5) for y0, x0, _, _ in arranged("grid", 3)] == [(0, 0), (0, 1), (1, 0)]
    with pytest.raises(DynamicIDError, match="The layout 'drawn' is unknown; choose one of side by side"):
        arranged("drawn", 2)


def test_boxes_as_text():
    assert parse_boxes("") == parse_boxes(" ;\n") == []
    assert (
        parse_boxes("0,0.1,0.5,1; .5 .1 1 1")
        == parse_boxes("0,0.1,0.5,1\n0.5,0.1,1,1;")
        == [
            (0.1, 0.0, 1.0, 0.5),
            (0.1, 0.5, 1.0, 1.0),
        ]
    )
    with pytest.raises(DynamicIDError, match="Box 2 is '1,2,3'; expected four numbers, left,top,right,bottom"):
        parse_boxes("0,0,1,1; 1,2,3")
    for wrong in ("0,0,1.2,1", "0.5,0,0.4,1", "nan,0,1,1"):
        with pytest.raises(DynamicIDError, match="its numbers are fractions of the picture from 0 to 1"):
            parse_boxes(wrong)
