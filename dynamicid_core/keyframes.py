"""Keyframes of expressions and poses: as they are typed, and what each picture of a film shows of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .prompts import POSE_PRESETS, target_prompt
from .types import MOST_FRAMES, DynamicIDError

AS_PHOTO = "as in the photo"  # a keyframe's text for the face as it was encoded
# How far a change has come (0..1) at a share of the way from one keyframe to the next.
EASINGS: dict[str, Callable[[float], float]] = {
    "ease in and out": lambda way: way * way * (3 - 2 * way),
    "linear": lambda way: way,
    "hold": lambda way: 0.0,
}
_POSE_WORDS = re.compile(r"(?:the face is |in (?=front view$))", re.IGNORECASE)


@dataclass(frozen=True)
class Keyframe:
    """What a face shows in one picture."""

    frame: int  # from 0
    expression: str  # in words; "" if nothing is said of it
    pose: str  # a label of ``POSE_PRESETS``, "" if nothing is said of it
    as_photo: bool = False  # the face as it was encoded

    @property
    def text(self) -> str:
        """The prompt of the networks; "" for :attr:`as_photo`."""
        return "" if self.as_photo else target_prompt(self.expression, self.pose)


@dataclass(frozen=True)
class Between:
    """A picture's place between two keyframes, by their numbers."""

    before: int
    after: int
    share: float  # of the later one, 0..1


def parse_keyframes(text: str) -> tuple[Keyframe, ...]:
    """``0: neutral; 12: a very happy expression; 24: slightly turned to the left`` -> keyframes in the order of their frames.

    Semicolons or new lines stand between them. A text is a label of a menu, an expression in free words, a pose of
    ``GRID_POSES``, both with a comma between, or :data:`AS_PHOTO`; of expression and pose, what a keyframe does not name stays
    as in the one before. Raises DynamicIDError for anything else, for a frame that comes twice, and for no keyframe at all.
    """
    entries = [entry.strip() for entry in re.split("[;\uff1b\n]", text) if entry.strip()]
    typed = sorted((_parse(entry) for entry in entries), key=lambda keyframe: keyframe.frame)
    if not typed:
        raise DynamicIDError("There is no keyframe. Write some, such as '0: neutral; 12: very happy'.")
    keyframes: list[Keyframe] = []
    for keyframe in typed:
        if keyframes and keyframes[-1].frame == keyframe.frame:
            raise DynamicIDError(f"Keyframe {keyframe.frame} is there twice; write one text for each frame.")
        keyframes.append(_carried(keyframes[-1], keyframe) if keyframes and not keyframe.as_photo else keyframe)
    return tuple(keyframes)


def _parse(entry: str) -> Keyframe:
    number, colon, words = re.sub("\uff1a", ":", entry, count=1).partition(":")
    if not colon or not number.strip().isdecimal() or not words.strip():
        raise DynamicIDError(
            f"{entry!r} is no keyframe; write the frame's number, a colon, and what the face shows, such as '12: very happy'."
        )
    frame = int(number) if len(number.strip()) < 10 else MOST_FRAMES
    if frame >= MOST_FRAMES:
        raise DynamicIDError(f"Keyframe {number.strip()} is too far; a film has at most {MOST_FRAMES} frames.")
    if words.strip().casefold() == AS_PHOTO:
        return Keyframe(frame, "", "", True)
    parts = [part.strip() for part in re.split("[,\uff0c\u3001]", words) if part.strip()]
    poses = [pose for part in parts if (pose := _pose_of(part))]
    return Keyframe(frame, ", ".join(part for part in parts if not _pose_of(part)), poses[-1] if poses else "")


def _pose_of(part: str) -> str:
    """The pose that a part of a text names, or ""."""
    label = _POSE_WORDS.sub("", part, count=1).casefold()
    return label if label in POSE_PRESETS else ""


def _carried(before: Keyframe, keyframe: Keyframe) -> Keyframe:
    return dataclasses.replace(
        keyframe, expression=keyframe.expression or before.expression, pose=keyframe.pose or before.pose
    )


def betweens(keyframes: Sequence[Keyframe], frames: int, easing: str) -> list[Between]:
    """Where each of ``frames`` pictures lies between keyframes: before the first and after the last it is at that one.

    Raises DynamicIDError for an unknown easing.
    """
    if easing not in EASINGS:
        raise DynamicIDError(f"easing is {easing!r}; it must be one of {', '.join(EASINGS)}.")
    found, last = [], len(keyframes) - 1
    for frame in range(frames):
        before = max((i for i, keyframe in enumerate(keyframes) if keyframe.frame <= frame), default=0)
        after = min(before + 1, last)
        start, length = keyframes[before].frame, keyframes[after].frame - keyframes[before].frame
        way = min(max((frame - start) / length, 0.0), 1.0) if length else 0.0
        found.append(Between(before, after, EASINGS[easing](way)))
    return found
