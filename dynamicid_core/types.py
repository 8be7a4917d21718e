"""What moves through the core: faces, people with regions, options. All are frozen.

Shape legend, used in every module:

=====  =================================================================================================
``B``  rows of a batch (conditional and unconditional rows mixed)
``H``  attention heads
``N``  queries: the cells of one attention's latent grid, ``h * w`` row by row
``S``  text tokens
``P``  people
``T``  face tokens of one person (4 as published)
``M``  face tokens of all people one after another, padded (attention.padded)
``C``  width of an attention; ``D = C / H`` is the width of a head
``W``  width of text tokens (768 for SD1.5)
``F``  frames: pictures of a batch that have regions, or faces, of their own
``K``  what goes through a network at once: photos to encode, motions or texts of one person
``R``  roles of a row, 2: it sees null tokens, or face tokens
``L``  tokens that an attention reads (257 of CLIP's for a photo)
=====  =================================================================================================

Small letters are sizes that only one place needs: ``h``, ``w`` of a picture or grid (boxes and sizes name y before x,
points and what comes from a detector x before y), ``s`` the side of a square, ``n`` and ``k`` plain numbers of things.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import DynamicIDError as DynamicIDError  # most modules know it from here

# What a front end (nodes, library, command line) supplies, and each knows how.
Part = Literal["face detector", "detected face", "IMR weights", "CLIP vision"]


# Whose identities the published checkpoints know. Faces, files and detectors that name no recogniser are of this one.
RECOGNISER = "buffalo_l"


# The largest absolute values of a face's numbers that can be meant: tokens come out of a normalisation, or of edits of such;
# an identity has length 1; a face may lie far outside a narrow crop.
LARGEST = {"tokens": 1e4, "uncond_tokens": 1e4, "identity": 1.01, "landmarks": 1e4, "pose": 360.0}

MOST_FRAMES = 4096  # of a face that moves: pictures of one film


class Missing(DynamicIDError):
    """A part that was not supplied. The text says what lacks for what; each front end adds how to supply it, a hint."""

    def __init__(self, part: Part, text: str) -> None:
        super().__init__(text)
        self.part: Part = part
        self.hint = ""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.hint}".rstrip()


@contextlib.contextmanager
def hinting(hints: Mapping[Part, str]) -> Iterator[None]:
    """While this lasts, whatever is :class:`Missing` gets the hint for its part; the outermost front end's is shown.

    As every context manager of ``contextlib``, it also serves as a decorator.
    """
    try:
        yield
    except Missing as error:
        error.hint = hints[error.part]
        raise


def check_range(value: float, name: str, low: float, high: float) -> None:
    """Raise DynamicIDError for a number outside ``low`` to ``high``, and for NaN."""
    if not low <= value <= high:  # also catches NaN
        raise DynamicIDError(f"{name} is {value}; it must lie between {low} and {high}.")


@dataclass(frozen=True)
class Face:
    """One encoded person.

    Its tensors are float32 and on the CPU, as encoding and loading give them: what is done with a face costs little
    there, and hosts take to their devices what sampling needs. The core itself moves nothing.
    A face that was blended in attention holds the tokens of several people one after another;
    ``mix`` then gives one factor for each group, applied to its attention scores (docs/method.md, section 3).
    A face that moves has tokens for each of ``F`` frames: picture i of a batch shows frame i, and those after the last
    frame show the last.
    """

    tokens: Tensor  # [F, T * groups, 768]; F is 1 for a face that does not move
    uncond_tokens: Tensor  # [1, T * groups, 768]: what unconditional rows see
    encoder: str  # sha256 of the projection weights that made the tokens
    identity: Tensor | None = None  # [512], ArcFace, length 1; None when no face was found
    landmarks: Tensor | None = None  # [106, 2], (x, y) as fractions of the encoded photo or crop
    pose: Tensor | None = None  # [3]: pitch, yaw, roll in degrees
    mix: tuple[float, ...] = (1.0,)  # one factor per group of tokens
    expression: str | None = None  # one of landmarks.EXPRESSIONS, read off the photo
    thumbnail: Tensor | None = None  # [h, w, 3] in 0..1, RGB; for previews; saved only if asked for
    name: str = ""  # shown in previews and messages
    recogniser: str = RECOGNISER  # whose identity the tokens were made of, and whose ``identity`` is

    def __post_init__(self) -> None:
        shape = tuple(self.tokens.shape)
        if len(shape) != 3 or 0 in shape or shape[0] > MOST_FRAMES or not self.mix or shape[1] % len(self.mix):
            raise DynamicIDError(
                f"Face tokens have shape {shape}; expected [1 to {MOST_FRAMES} frames, tokens, width] with the tokens of "
                f"{len(self.mix)} blended face(s), the same number for each."
            )
        if tuple(self.uncond_tokens.shape) != (1, *shape[1:]):
            raise DynamicIDError(
                f"Face tokens {shape} and null tokens {tuple(self.uncond_tokens.shape)} differ in shape."
            )
        for name, wanted in (("identity", (512,)), ("landmarks", (106, 2)), ("pose", (3,))):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != wanted:
                raise DynamicIDError(f"A face's {name} has shape {tuple(value.shape)}; expected {wanted}.")
        for name, most in LARGEST.items():
            if (value := getattr(self, name)) is not None:
                _check_values(value, name, most)
        for factor in self.mix:
            check_range(factor, "A factor of a face's mix", -10.0, 10.0)

    @property
    def frames(self) -> int:
        """How many pictures it has tokens for; 1 for a face that does not move."""
        return len(self.tokens)

    def tokens_of(self, frames: int) -> Tensor:
        """The tokens of the first ``frames`` pictures of a batch: [frames, T * groups, 768]."""
        return self.tokens[torch.arange(frames).clamp_max(self.frames - 1)]

    def at(self, picture: int) -> Face:
        """The face as one picture of a batch shows it, numbered from 0: one frame."""
        if self.frames == 1:
            return self
        return dataclasses.replace(self, tokens=self.tokens[min(picture, self.frames - 1)][None])


def _check_values(value: Tensor, name: str, most: float) -> None:
    """Raise DynamicIDError for what no encoder gives, and what would turn pictures black."""
    largest = float(value.detach().float().abs().max())
    if not math.isfinite(largest):
        raise DynamicIDError(f"A face's {name} holds NaN or infinite values; encode the photo again.")
    if largest > most:
        raise DynamicIDError(
            f"A face's {name} holds values as large as {largest:.3g}, where {most:g} is the most; encode the photo again."
        )


def is_same_recogniser(a: str, b: str) -> bool:
    """Whether two names mean one recogniser: folders of model packs are written in either case."""
    return a.casefold() == b.casefold()


def check_recognisers(faces: Iterable[Face]) -> None:
    """Raise DynamicIDError for faces made with different recognisers, whose identities mean different things."""
    found: dict[str, Face] = {}
    for face in faces:
        found.setdefault(face.recogniser.casefold(), face)
    if len(found) > 1:
        said = ", ".join(f"{face.name or 'one'} with {face.recogniser}" for face in found.values())
        raise DynamicIDError(
            f"These faces were made with different recognisers ({said}) and cannot be mixed. "
            "Encode all photos with one face model pack, the one that the DynamicID weights were trained with."
        )


@dataclass(frozen=True)
class Region:
    """Where one person may appear: a box or a soft mask, exactly one of the two.

    A mask is kept as it is given, in any float type; front ends give it on the CPU, where regions are computed.
    """

    box: tuple[float, float, float, float] | None = None  # y0, x0, y1, x1 as fractions of the picture
    mask: Tensor | None = None  # [F, h, w] in 0..1, any resolution; one frame serves a whole batch
    canvas: tuple[int, int] | None = None  # height and width of the picture that a box was drawn in, where known
    any_shape: bool = False  # a mask made of fractions: its height and width say nothing of its picture's

    def __post_init__(self) -> None:
        if (self.box is None) == (self.mask is None):
            raise DynamicIDError("A region is either a box or a mask.")
        if self.box is not None:
            y0, x0, y1, x1 = self.box
            if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
                raise DynamicIDError(
                    f"Box (y0, x0, y1, x1) = {self.box} does not lie inside the picture; "
                    "its values are fractions from 0 to 1, and each end must come after its start."
                )
        elif (mask := self.mask) is not None:
            if mask.ndim != 3 or 0 in mask.shape:
                raise DynamicIDError(f"A mask has shape {tuple(mask.shape)}; expected [frames, height, width].")
            if not torch.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1:
                raise DynamicIDError("A mask holds values outside 0..1.")
            if mask.max() == 0:
                raise DynamicIDError(
                    "The mask is empty (all zero), so the person could appear nowhere. "
                    "Paint a region, or leave the mask out."
                )


@dataclass(frozen=True)
class Person:
    """One place in a cast."""

    face: Face
    region: Region | None = None
    weight: float = 1.0  # scales this person's face values

    def __post_init__(self) -> None:
        check_range(self.weight, "A person's weight", -10.0, 10.0)


@dataclass(frozen=True)
class Cast:
    """An ordered list of people in one picture, their faces made with one recogniser."""

    people: tuple[Person, ...] = ()

    def __post_init__(self) -> None:
        check_recognisers(person.face for person in self.people)

    def add(self, *people: Person) -> Cast:
        """A new cast with ``people`` at its end; this one stays as it is."""
        return dataclasses.replace(self, people=self.people + people)

    @property
    def frames(self) -> int:
        """The frames of the face that has most; 1 where nobody's moves."""
        return max((person.face.frames for person in self.people), default=1)

    def at(self, picture: int) -> Cast:
        """The people with their faces as one picture of a batch shows them, numbered from 0."""
        if self.frames == 1:
            return self
        return Cast(tuple(dataclasses.replace(person, face=person.face.at(picture)) for person in self.people))


# What the options of SAAOptions may be that are words.
CHOICES = {"outside": ("everyone", "nobody"), "placement": ("regions", "automatic")}


@dataclass(frozen=True)
class SAAOptions:
    """How a cast acts while sampling; defaults are the published ones (docs/method.md, section 3)."""

    weight: float = 1.0  # `id_scale`: scales every face
    start_at: float = 0.0  # fraction of the schedule (0 = noise) at which faces begin to act
    end_at: float = 1.0  # ... and at which they cease to
    layout_strength: float = 2.0  # `infer_scale`, s: boost inside regions
    layout_end: float = 0.24  # fraction of the schedule at which the boost ends (12 of 50 steps)
    gate_threshold: float = 0.3  # activations below it count as 0
    outside: str = "everyone"  # who is visible where nobody's region is: "everyone" or "nobody"
    lora_strength: float = 1.0  # scales the LoRA of the attention layers
    placement: str = "regions"  # people without a region: "regions" (strips, or the rest), or "automatic": found
    find_until: float = 0.2  # fraction of a run after which found places hold

    def __post_init__(self) -> None:
        for name in ("start_at", "end_at", "layout_end", "gate_threshold", "find_until"):
            check_range(getattr(self, name), name, 0.0, 1.0)
        check_range(self.weight, "weight", -10.0, 10.0)
        check_range(self.lora_strength, "lora_strength", -10.0, 10.0)
        check_range(self.layout_strength, "layout_strength", 0.0, 100.0)
        if self.start_at > self.end_at:
            raise DynamicIDError(
                f"start_at is {self.start_at} and end_at {self.end_at}, so faces would never act; "
                "let start_at come first."
            )
        for name, words in CHOICES.items():
            if (word := getattr(self, name)) not in words:
                raise DynamicIDError(f"{name} is {word!r}; it must be {' or '.join(map(repr, words))}.")
