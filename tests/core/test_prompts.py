"""The words of expressions and poses."""

from __future__ import annotations

import pytest
import torch

from dynamicid_core import prompts
from dynamicid_core.types import DynamicIDError


@pytest.mark.parametrize(
    "pose, expression, prompt",
    [
        ((0, 0, 0), "happy", "in a happy expression, in front view"),
        ((10.1, 0, 0), "fear", "in a fear expression, facing up, in front view"),
        ((-10.1, 10, 0), "sad", "in a sad expression, facing down, in side view"),
        ((10, -9.9, 80), "anger", "in a anger expression, in front view"),
        ((0, -40, 0), None, "in a neutral expression, in side view"),
        (torch.tensor([20.0, 30, 0]), "surprise", "in a surprise expression, facing up, in side view"),
        (None, None, "in a neutral expression, in front view"),
    ],
)
def test_source_prompts_are_the_published_words(pose, expression, prompt):
    assert prompts.source_prompt(pose, expression) == prompt


def test_unknown_expressions_are_refused():
    with pytest.raises(DynamicIDError, match="'bored' is unknown; choose one of happy, surprise"):
        prompts.source_prompt(None, "bored")


def test_the_grid_has_35_prompts_and_menus_give_them():
    assert len(set(prompts.GRID_PROMPTS)) == 35
    assert prompts.GRID_PROMPTS[0] == "the expression is afraid, the face is fully turned to the left"
    made = {prompts.target_prompt(e, p) for e in prompts.GRID_EXPRESSIONS for p in prompts.POSE_PRESETS}
    assert made == set(prompts.GRID_PROMPTS)
    assert len(prompts.POSE_PRESETS) == 5 and len(prompts.EXPRESSION_PRESETS) == 6 * 3 + 1


def test_target_prompts_take_presets_free_text_or_one_of_the_two():
    assert prompts.target_prompt("very happy") == "the expression is very happy"
    assert prompts.target_prompt("", "front view") == "the face is front view"
    own = prompts.target_prompt(" a very surprised expression ", "slightly turned to the left")
    assert own == "a very surprised expression, the face is slightly turned to the left"
    with pytest.raises(DynamicIDError, match="No expression and no pose"):
        prompts.target_prompt("  ", "")


def test_preset_prompts_scale_the_expression():
    assert prompts.preset_prompt("happy") == "the expression is happy, the face is front view"
    assert prompts.preset_prompt("sad", "strong") == "the expression is very sad, the face is front view"
    assert prompts.preset_prompt("neutral", "slight") == "the expression is neutral, the face is front view"
