"""Keyframes as they are typed, and what lies between them."""

from __future__ import annotations

import pytest

from dynamicid_core.keyframes import EASINGS, betweens, parse_keyframes
from dynamicid_core.types import DynamicIDError

THREE = "0: neutral; 12: a very happy expression; 24: slightly turned to the left"


def texts(typed: str) -> dict[int, str]:
    return {keyframe.frame: keyframe.text for keyframe in parse_keyframes(typed)}


def test_what_a_keyframe_does_not_name_stays_as_in_the_one_before():
    assert texts(THREE) == {
        0: "the expression is neutral",
        12: "a very happy expression",
        24: "a very happy expression, the face is slightly turned to the left",
    }
    turned = texts("0: happy, the face is fully turned to the left; 5: very sad; 9: in front view")
    assert turned[5] == "the expression is very sad, the face is fully turned to the left"
    assert turned[9] == "the expression is very sad, the face is front view"


def test_words_of_the_training_set_stay_as_they_are():
    (text,) = texts("3: the expression is angry, the face is slightly turned to the right").values()
    assert text == "the expression is angry, the face is slightly turned to the right"


def test_the_photos_own_face_can_be_a_keyframe_and_is_carried_nowhere():
    typed = parse_keyframes("0: very happy, front view; 4: As in the photo; 8: fully turned to the left")
    assert [keyframe.as_photo for keyframe in typed] == [False, True, False]
    assert [keyframe.text for keyframe in typed[1:]] == ["", "the face is fully turned to the left"]


def test_lines_and_other_scripts_punctuation_and_any_order():
    typed = "\n12\uff1ahappy\uff0cfront view\uff1b 0: sad\n"
    assert texts(typed) == {0: "the expression is sad", 12: "the expression is happy, the face is front view"}


@pytest.mark.parametrize(
    "typed, message",
    [
        ("", "no keyframe"),
        ("happy", "'happy' is no keyframe"),
        ("0:", "is no keyframe"),
        ("-1: happy", "is no keyframe"),
        ("1.5: happy", "is no keyframe"),
        ("0: sad; 0: happy", "Keyframe 0 is there twice"),
        ("99999999999999: sad", "too far"),
        ("0: ,", "No expression and no pose"),
    ],
)
def test_what_is_no_keyframe_is_named(typed, message):
    with pytest.raises(DynamicIDError, match=message):
        texts(typed)


def test_every_picture_lies_between_two_keyframes():
    keyframes = parse_keyframes("2: sad; 6: happy; 8: angry")
    places = betweens(keyframes, 10, "linear")
    assert [place.before for place in places] == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert [place.share for place in places] == [0, 0, 0, 0.25, 0.5, 0.75, 0, 0.5, 0, 0]
    assert {place.after for place in places[8:]} == {2}


def test_easings_begin_and_end_at_keyframes():
    keyframes = parse_keyframes("0: sad; 8: happy")
    for easing in EASINGS:
        shares = [place.share if place.before == 0 else 1.0 for place in betweens(keyframes, 9, easing)]
        assert shares[0] == 0 and shares[8] == 1 and shares == sorted(shares)
    eased, linear, held = (betweens(keyframes, 9, easing) for easing in EASINGS)
    assert eased[1].share < linear[1].share and eased[4].share == linear[4].share == 0.5
    assert {place.share for place in held} == {0}
    with pytest.raises(DynamicIDError, match="easing is 'bounce'"):
        betweens(keyframes, 9, "bounce")
