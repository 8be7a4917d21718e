"""Who is drawn, and what the face does: frozen records, and how a seed becomes one.

Training draws people with seeds below ``VALIDATION``; from there to ``HELD_OUT`` are those for watching a training.
Held-out people have seeds from ``HELD_OUT`` up: nothing may be trained or tuned on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..datasets.labels import pose_of
from ..landmarks import EXPRESSIONS
from ..prompts import GRID_POSES
from ..types import DynamicIDError

Color = tuple[int, int, int]

VALIDATION, HELD_OUT = 9_000, 10_000

SKIN: tuple[Color, ...] = (
    (255, 226, 200),
    (246, 204, 164),
    (226, 174, 126),
    (196, 138, 92),
    (148, 96, 62),
    (98, 62, 42),
)
HAIR: dict[str, Color] = {
    "black": (30, 26, 30), "brown": (92, 54, 32), "chestnut": (150, 92, 48), "blond": (240, 202, 104),
    "ginger": (214, 92, 32), "grey": (164, 166, 172), "white": (244, 242, 238), "blue": (50, 108, 214),
    "pink": (236, 96, 168), "green": (52, 160, 96),
}  # fmt: skip
IRIS: tuple[Color, ...] = ((84, 52, 28), (36, 108, 204), (44, 148, 74), (116, 124, 136), (168, 112, 30))
PAINT: dict[str, Color] = {
    "red": (214, 50, 48), "blue": (48, 92, 208), "green": (52, 152, 74), "yellow": (244, 206, 56),
    "purple": (134, 68, 178), "white": (246, 246, 244), "black": (46, 46, 54), "orange": (244, 140, 44),
    "teal": (48, 172, 180), "pink": (248, 158, 192), "grey": (148, 152, 160),
}  # fmt: skip
CUTS = ("bald", "short", "side", "bob", "long", "curly", "bun", "spiky", "mohawk", "pigtails")
BEARDS = ("none", "none", "none", "stubble", "goatee", "full", "moustache")
GLASSES = ("none", "none", "round", "square")
HATS = ("none", "none", "none", "none", "none", "cap", "beanie", "band", "brim", "crown")
NOSES = ("button", "hook", "wedge")
MARKS = ("none", "none", "freckles", "mole", "blush", "earrings")
GLASSES_PAINT = ("black", "red", "blue", "white")
PATTERNS = ("plain", "striped", "collar")


@dataclass(frozen=True)
class Identity:
    """What makes a person this person. Lengths are in head half-heights."""

    skin: Color
    hair: Color
    cut: str
    width: float  # half the head's width, 0.76 to 0.94
    jaw: float  # 0 pointed to 1 square
    iris: Color
    eye_size: float
    eye_distance: float  # from the middle of the face
    brow: float  # thickness
    nose: str
    nose_size: float
    beard: str
    glasses: str
    glasses_paint: str
    hat: str
    hat_paint: str
    lips: float  # thickness
    lip_red: float  # 0 skin to 1 red
    mark: str


@dataclass(frozen=True)
class Motion:
    """What a face does: an expression of ``landmarks.EXPRESSIONS`` and its strength; angles of the head in degrees.

    ``intensity`` runs from 0 (neutral) over 1 (clear) to 1.3. ``pitch`` is positive up; ``yaw`` is positive where the
    face looks to the right of the picture; ``roll`` is positive where the head leans to the right of the picture.
    """

    expression: str = "neutral"
    intensity: float = 1.0
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        if self.expression not in EXPRESSIONS:
            raise DynamicIDError(f"Expression {self.expression!r} is unknown; choose one of {', '.join(EXPRESSIONS)}.")

    @property
    def pose(self) -> str:
        """The pose of ``prompts.GRID_POSES`` that the yaw shows."""
        return pose_of(self.yaw)


@dataclass(frozen=True)
class Clothes:
    """What somebody wears in one picture; no part of the identity."""

    paint: str
    pattern: str


# The yaws that are drawn for each pose: clear ones, with room between them (datasets.labels.pose_of).
YAWS = {
    "fully turned to the left": (-79.0, -57.0),
    "fully turned to the right": (57.0, 79.0),
    "slightly turned to the left": (-38.0, -22.5),
    "slightly turned to the right": (22.5, 38.0),
    "front view": (-8.5, 8.5),
}


def _near(rng: np.random.Generator, color: Color, spread: float) -> Color:
    red, green, blue = (
        int(np.clip(round(c + d), 0, 255)) for c, d in zip(color, rng.uniform(-spread, spread, 3), strict=True)
    )
    return red, green, blue


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def person_generator(seed: int, stream: int = 0) -> np.random.Generator:
    """The generator of a seed; streams of one seed are independent of each other."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream))))


def draw_identity(seed: int) -> Identity:
    """The person of a seed, the same on every platform."""
    rng = person_generator(seed)
    skin = SKIN[int(rng.integers(len(SKIN)))]
    hair = HAIR[_pick(rng, tuple(HAIR))]
    cut = _pick(rng, CUTS)
    hats = tuple(hat for hat in HATS if hat not in ("band", "crown")) if cut in ("mohawk", "spiky") else HATS
    beards = ("none", *BEARDS) if cut in ("bob", "pigtails", "bun") else BEARDS
    return Identity(
        skin=_near(rng, skin, 6),
        hair=_near(rng, hair, 8),
        cut=cut,
        width=float(rng.uniform(0.76, 0.94)),
        jaw=float(rng.uniform()),
        iris=IRIS[int(rng.integers(len(IRIS)))],
        eye_size=float(rng.uniform(0.86, 1.16)),
        eye_distance=float(rng.uniform(0.33, 0.40)),
        brow=float(rng.uniform(0.085, 0.15)),
        nose=_pick(rng, NOSES),
        nose_size=float(rng.uniform(0.75, 1.35)),
        beard=_pick(rng, beards),
        glasses=_pick(rng, GLASSES),
        glasses_paint=_pick(rng, GLASSES_PAINT),
        hat=_pick(rng, hats),
        hat_paint=_pick(rng, tuple(PAINT)),
        lips=float(rng.uniform(0.05, 0.08)),
        lip_red=float(rng.uniform(0.25, 1)),
        mark=_pick(rng, MARKS),
    )


def draw_motion(rng: np.random.Generator, expression: str | None = None, pose: str | None = None) -> Motion:
    """A motion at random: any expression and pose where none is given, clear ones, with a little pitch and roll."""
    expression = expression or _pick(rng, EXPRESSIONS)
    low, high = YAWS[pose or _pick(rng, GRID_POSES)]
    return Motion(
        expression,
        float(rng.uniform(0.8, 1.1)),
        float(rng.uniform(-10, 10)),
        float(rng.uniform(low, high)),
        float(rng.uniform(-6, 6)),
    )


def draw_clothes(rng: np.random.Generator) -> Clothes:
    return Clothes(_pick(rng, tuple(PAINT)), _pick(rng, PATTERNS))
