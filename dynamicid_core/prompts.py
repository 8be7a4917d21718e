"""The words of expressions and poses: what a photo shows, and what a face shall show (docs/method.md, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .landmarks import EXPRESSIONS
from .types import DynamicIDError

GRID_EXPRESSIONS = ("afraid", "angry", "disgusted", "happy", "neutral", "sad", "surprised")
GRID_POSES = (
    "fully turned to the left",
    "fully turned to the right",
    "slightly turned to the left",
    "slightly turned to the right",
    "front view",
)
# The prompts of the training set: one for each of a person's 35 photos.
GRID_PROMPTS = tuple(
    f"the expression is {expression}, the face is {pose}" for expression in GRID_EXPRESSIONS for pose in GRID_POSES
)
# What a photo shows (landmarks.EXPRESSIONS) in the words of those prompts.
GRID_WORDS = {
    "happy": "happy",
    "surprise": "surprised",
    "sad": "sad",
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "afraid",
    "neutral": "neutral",
}

INTENSITIES = ("slightly", "", "very")
INTENSITY_LABELS = ("slight", "normal", "strong")  # what menus call them
# What menus offer: label -> text for the prompt.
EXPRESSION_PRESETS = {
    f"{intensity} {word}".strip(): f"the expression is {intensity} {word}".replace("  ", " ")
    for word in GRID_EXPRESSIONS
    for intensity in (INTENSITIES if word != "neutral" else ("",))
}
POSE_PRESETS = {pose: f"the face is {pose}" for pose in GRID_POSES}


def source_prompt(pose: Sequence[float] | Tensor | None = None, expression: str | None = None) -> str:
    """What the source photo shows, in the published words.

    ``pose``: (pitch, yaw, roll) in degrees, up positive; None counts as facing the camera. ``expression``: one of
    ``EXPRESSIONS``; None counts as neutral.
    """
    pitch, yaw, _ = (0.0, 0.0, 0.0) if pose is None else (float(v) for v in pose)
    expression = expression or "neutral"
    if expression not in EXPRESSIONS:
        raise DynamicIDError(f"Expression {expression!r} is unknown; choose one of {', '.join(EXPRESSIONS)}.")
    facing = "facing up, " if pitch > 10 else "facing down, " if pitch < -10 else ""
    view = "in front view" if abs(yaw) < 10 else "in side view"
    return f"in a {expression} expression, {facing}{view}"


def grid_prompt(expression: str, pose: str) -> str:
    """The prompt of the training set for a photo with one of ``EXPRESSIONS`` and one of ``GRID_POSES``."""
    return f"the expression is {GRID_WORDS[expression]}, the face is {pose}"


def target_prompt(expression: str = "", pose: str = "") -> str:
    """The prompt for a choice from the menus, in the words of the training set.

    Either may be a label of ``EXPRESSION_PRESETS`` or ``POSE_PRESETS``, a text of one's own, or empty (left out).
    """
    parts = (EXPRESSION_PRESETS.get(expression, expression.strip()), POSE_PRESETS.get(pose, pose.strip()))
    text = ", ".join(part for part in parts if part)
    if not text:
        raise DynamicIDError("No expression and no pose is chosen. Choose one, or write what the face should show.")
    return text


def preset_prompt(expression: str, intensity: str = "normal", pose: str = "front view") -> str:
    """The prompt for a choice of the menus ``GRID_EXPRESSIONS``, ``INTENSITY_LABELS`` and ``GRID_POSES``.

    Neutral has no intensity.
    """
    word = "" if expression == "neutral" else INTENSITIES[INTENSITY_LABELS.index(intensity)]
    return target_prompt(f"{word} {expression}".strip(), pose)
