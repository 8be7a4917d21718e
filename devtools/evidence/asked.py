"""The questions: which pictures are made, of whom, how, and what is varied.

People are numbers from 0: those of the seeds ``people.HELD_OUT`` and on. Every picture is made with the noise of each of
``SEEDS``. Boxes are left, top, right, bottom, as fractions of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dynamicid_core.drawn.scene import COUNTS
from dynamicid_core.drawn.scene import WORDS as SAID
from dynamicid_core.landmarks import EXPRESSIONS
from dynamicid_core.prompts import GRID_POSES, GRID_WORDS, preset_prompt

SEEDS = (0, 1, 2)
GALLERY = 100
WIDTHS = {1: 128, 2: 192, 3: 256, 4: 256}  # px; all pictures are 128 px high
GROUNDS = ("blue background", "green hills", "yellow wall and floor", "night sky", "pink striped background")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """One picture that is asked for, once with each noise."""

    name: str
    people: tuple[int, ...]
    caption: str
    places: tuple[Box, ...]  # where each shall be
    boxes: tuple[Box, ...] | None = None  # what the method is told; None: nothing
    edits: tuple[str, ...] = ()  # words for the IMR, "" for none; for each
    expressions: tuple[str, ...] = ()  # what each shall show, of landmarks.EXPRESSIONS
    poses: tuple[str, ...] = ()  # of prompts.GRID_POSES

    @property
    def width(self) -> int:
        return WIDTHS[len(self.people)]


def strips(count: int) -> tuple[Box, ...]:
    """Side by side, with room between and above, where what faces disturb can be seen."""
    return tuple(((i + 0.1) / count, 0.12, (i + 0.9) / count, 1.0) for i in range(count))


def together(count: int, groups: int) -> list[Question]:
    """Groups of neighbours among the held-out people, side by side in boxes."""
    found = []
    for group in range(groups):
        people = tuple(range(group * count, (group + 1) * count))
        caption = f"a drawing of {COUNTS[count]}, {GROUNDS[group % len(GROUNDS)]}"
        boxes = strips(count)
        found.append(Question(f"{count}_{group:02d}", people, caption, boxes, boxes))
    return found


def alone(count: int) -> list[Question]:
    """One person without a box."""
    return [replace(question, boxes=None) for question in together(1, count)]


def expressions(people: int) -> list[Question]:
    """Each person in seven expressions, from a neutral photo."""
    return [
        replace(
            question,
            name=f"{question.name}_{expression}",
            edits=(preset_prompt(GRID_WORDS[expression]),),
            expressions=(expression,),
        )
        for question in alone(people)
        for expression in EXPRESSIONS
    ]


def poses(people: int) -> list[Question]:
    """Each person in five poses, from a photo of the front."""
    return [
        replace(
            question,
            name=f"{question.name}_{pose.replace(' ', '_')}",
            edits=(preset_prompt("neutral", pose=pose),),
            poses=(pose,),
        )
        for question in alone(people)
        for pose in GRID_POSES
    ]


def in_words(question: Question) -> Question:
    """The prompt says what the IMR else puts into the tokens."""
    said = [SAID[word] for word in question.expressions] + list(question.poses)
    first, _, ground = question.caption.partition(", ")
    return replace(question, caption=", ".join((first, *said, ground)), edits=())


def swapped(question: Question) -> Question:
    """Everybody's box is the next one's."""
    assert question.boxes is not None
    boxes = (*question.boxes[1:], question.boxes[0])
    return replace(question, boxes=boxes, places=boxes)


def overlapping(question: Question) -> Question:
    """Boxes half as wide again."""
    assert question.boxes is not None
    wider = tuple(
        (max(0.0, x0 - (x1 - x0) / 4), y0, min(1.0, x1 + (x1 - x0) / 4), y1) for x0, y0, x1, y1 in question.boxes
    )
    return replace(question, boxes=wider)


def unplaced(question: Question) -> Question:
    return replace(question, boxes=None)


def found(question: Question) -> Question:
    """Nobody is told where to be: any place is right."""
    return replace(question, boxes=None, places=((0.0, 0.0, 1.0, 1.0),) * len(question.people))


def in_both(question: Question) -> Question:
    """The prompt says it too."""
    return replace(in_words(question), edits=question.edits)


@dataclass(frozen=True)
class Series:
    """Questions that one number is about, and how they are made."""

    name: str
    says: str  # for tables
    questions: tuple[Question, ...]
    faces: bool = True  # else the plain model, which others are compared with
    gated: bool = True
    refined: bool = False  # each face is sampled again by itself, and whoever is missing
    tiled: str = ""  # the picture is enlarged in tiles that are "told" which part of it they are, or "untold"
    placement: str = "regions"  # or "automatic", of people without a box
    motion: str = "imr"  # which weights edit
    baseline: str = ""  # the series of the plain model's pictures


def all_series(scale: float = 1.0) -> Iterator[Series]:
    """Everything that is measured; ``scale`` takes so much of each series."""

    def some(count: int) -> int:
        return max(1, round(count * scale))

    two = together(2, some(30))
    yield Series("plain", "nobody's face", tuple(two), faces=False)
    yield Series("one", "one person", tuple(alone(some(GALLERY))))
    yield Series("two", "two people", tuple(two), baseline="plain")
    three, four = together(3, some(20)), together(4, some(15))
    yield Series("three", "three people", tuple(three))
    yield Series("four", "four people", tuple(four))
    yield Series("swapped", "two people, boxes swapped", tuple(map(swapped, two)))
    yield Series("overlap", "two people, boxes overlap by a third", tuple(map(overlapping, two)), baseline="plain")
    yield Series("refined", "two people, faces refined (best of 3, missing people drawn)", tuple(two), refined=True)
    yield Series("enlarged", "two people, enlarged twice in tiles", tuple(two), tiled="told")
    yield Series(
        "enlarged_untold", "two people, enlarged in tiles that are taken for the picture", tuple(two), tiled="untold"
    )
    yield Series("no_gate", "two people, no gate", tuple(two), gated=False, baseline="plain")
    yield Series("no_regions", "two people, no regions", tuple(map(unplaced, two)), baseline="plain")
    yield Series("no_regions_three", "three people, no regions", tuple(map(unplaced, three)))
    yield Series("no_regions_four", "four people, no regions", tuple(map(unplaced, four)))
    for count, asked in (("two", two), ("three", three), ("four", four)):
        places = tuple(map(found, asked))
        yield Series(f"found_{count}", f"{count} people, places found by themselves", places, placement="automatic")
    shown, turned = expressions(some(10)), poses(some(10))
    yield Series("expressions", "expression by the IMR", tuple(shown))
    yield Series("poses", "pose by the IMR", tuple(turned))
    yield Series("expressions_in_words", "expression in the prompt, no IMR", tuple(map(in_words, shown)))
    yield Series("poses_in_words", "pose in the prompt, no IMR", tuple(map(in_words, turned)))
    yield Series("expressions_in_both", "expression by the IMR and in the prompt", tuple(map(in_both, shown)))
    yield Series("poses_in_both", "pose by the IMR and in the prompt", tuple(map(in_both, turned)))
    for loss in ("dfm", "ldc"):
        yield Series(
            f"expressions_{loss}",
            f"expression by an IMR with L_{loss.upper()} alone",
            tuple(shown),
            motion=f"imr_{loss}",
        )
