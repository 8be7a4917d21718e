"""The 7 x 5 cells of a training set: their names, their words, and how a photo's labels are read.

"Left" and "right" are those of the picture. InsightFace's yaw is positive for a nose that points to the picture's right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..landmarks import EXPRESSIONS
from ..prompts import GRID_EXPRESSIONS, GRID_POSES

# Yaw in degrees. Half profiles (45, KDEF's too) are "slightly"; what detectors say of full profiles starts near 60.
FRONT_WITHIN = 15.0
FULLY_FROM = 55.0
FULL_LEFT, FULL_RIGHT, LEFT, RIGHT, FRONT = GRID_POSES

GRID_WORD = dict(
    zip(("fear", "anger", "disgust", "happy", "neutral", "sad", "surprise"), GRID_EXPRESSIONS, strict=True)
)
# What people and classifiers call the seven, in lower case -> one of EXPRESSIONS.
SYNONYMS = {
    **{name: name for name in EXPRESSIONS},
    **{word: name for name, word in GRID_WORD.items()},
    **dict.fromkeys(("happiness", "joy", "smile", "smiling"), "happy"),
    **dict.fromkeys(("sadness",), "sad"),
    **dict.fromkeys(("surprising",), "surprise"),
    **dict.fromkeys(("calm", "none"), "neutral"),
    **dict.fromkeys(("fearful", "scared"), "fear"),
}
KDEF_EXPRESSIONS = {
    "AF": "fear", "AN": "anger", "DI": "disgust", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise",
}  # fmt: skip
KDEF_POSES = {"FL": FULL_LEFT, "HL": LEFT, "S": FRONT, "HR": RIGHT, "FR": FULL_RIGHT}
KDEF_NAME = re.compile(
    rf"[AB]([FM]\d\d)({'|'.join(KDEF_EXPRESSIONS)})({'|'.join(KDEF_POSES)})", re.IGNORECASE
)  # session, person, expression, angle
GRID_PROMPT = re.compile(rf"the expression is ({'|'.join(GRID_EXPRESSIONS)}), the face is ({'|'.join(GRID_POSES)})\.?")


@dataclass(frozen=True, order=True)
class Cell:
    """One of the 35."""

    expression: str  # one of EXPRESSIONS
    pose: str  # one of GRID_POSES

    @property
    def prompt(self) -> str:
        """In the words of the training set (docs/method.md, section 2)."""
        return f"the expression is {GRID_WORD[self.expression]}, the face is {self.pose}"


CELLS = tuple(Cell(expression, pose) for expression in EXPRESSIONS for pose in GRID_POSES)


@dataclass(frozen=True)
class Labels:
    """What a photo's name or text says that it shows; "" where it says nothing."""

    person: str = ""
    expression: str = ""
    pose: str = ""
    caption: str = ""


def pose_of(yaw: float) -> str:
    """Degrees -> one of ``GRID_POSES``: front below 15, slightly turned below 55, else fully."""
    if abs(yaw) < FRONT_WITHIN:
        return FRONT
    if abs(yaw) < FULLY_FROM:
        return LEFT if yaw < 0 else RIGHT
    return FULL_LEFT if yaw < 0 else FULL_RIGHT


def expression_of(word: str) -> str:
    """A word for an expression, in any case -> one of ``EXPRESSIONS``, or "" for what is none of the seven."""
    return SYNONYMS.get(word.strip().lower(), "")


def read_kdef_name(stem: str) -> Labels | None:
    """The labels in a file name of KDEF without its ending (``AF01ANS``); None if it is no such name.

    Both sessions (A and B) of a person are one person. "Left profile" points to the picture's left.
    """
    found = KDEF_NAME.fullmatch(stem)
    if found is None:
        return None
    person, expression, angle = found.group(1).upper(), found.group(2).upper(), found.group(3).upper()
    return Labels(f"KDEF {person}", KDEF_EXPRESSIONS[expression], KDEF_POSES[angle])


def read_text(text: str) -> Labels:
    """The text beside a photo: one of the 35 prompts gives its labels, and any other text is a caption."""
    text = " ".join(text.split())
    found = GRID_PROMPT.fullmatch(text.lower())
    if found is None:
        return Labels(caption=text)
    return Labels(expression=expression_of(found.group(1)), pose=found.group(2))
