"""One to four people before a background: a frozen record, chosen by a seed, and what a caption says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .people import (
    HAIR,
    PAINT,
    PATTERNS,
    SKIN,
    VALIDATION,
    Clothes,
    Color,
    Identity,
    Motion,
    draw_clothes,
    draw_identity,
    draw_motion,
    person_generator,
)

GROUNDS = ("plain", "floor", "stripes", "hills", "window", "night")
THINGS = ("none", "none", "balloon", "plant", "lamp", "picture")
COUNTS = ("no people", "one person", "two people", "three people", "four people")
# Expression -> the word of a caption, which is what an artist would write.
WORDS = {
    "happy": "happy", "surprise": "surprised", "sad": "sad", "anger": "angry", "disgust": "disgusted",
    "fear": "afraid", "neutral": "neutral",
}  # fmt: skip


# What a caption calls the looks of a person: words that CLIP has a number of its own for.
SKINS = ("pale", "light", "tan", "olive", "brown", "dark")  # of people.SKIN
CUT_WORDS = {
    "bald": "bald", "short": "short {} hair", "side": "sleek {} hair", "bob": "{} bob", "long": "long {} hair",
    "curly": "curly {} hair", "bun": "{} bun", "spiky": "wild {} hair", "mohawk": "{} mohawk", "pigtails": "{} braids",
}  # fmt: skip
HAT_WORDS = {"cap": "{} cap", "beanie": "{} beanie", "band": "{} headband", "brim": "{} hat", "crown": "crown"}
BEARD_WORDS = {
    "stubble": "slight {} beard", "goatee": "short {} beard", "full": "full {} beard", "moustache": "{} moustache",
}  # fmt: skip


@dataclass(frozen=True)
class Background:
    """What is behind the people: a ground of one paint, and one thing at a side (-1 left, 1 right)."""

    ground: str = "plain"
    paint: str = "blue"
    thing: str = "none"
    thing_paint: str = "red"
    side: int = 1
    height: float = 0.3  # of the horizon or the thing, 0 to 1


@dataclass(frozen=True)
class Figure:
    """One person in a scene: the middle of the head and half its height, in picture heights."""

    identity: Identity
    motion: Motion
    clothes: Clothes
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """People from the back to the front before a background, in a picture of ``width`` by 1."""

    figures: tuple[Figure, ...]
    background: Background
    width: float = 1.0

    def caption(
        self,
        said: frozenset[str] = frozenset(("expression", "pose", "clothes", "background")),
        looks: Sequence[str] = (),
    ) -> str:
        """What an artist would type: people's number, ``looks`` of one person, and what ``said`` names."""
        parts = [f"a drawing of {COUNTS[len(self.figures)]}"]
        if "expression" in said and len({f.motion.expression for f in self.figures}) == 1:
            parts.append(WORDS[self.figures[0].motion.expression])
        if len(self.figures) == 1:
            figure = self.figures[0]
            if "pose" in said:
                parts.append(figure.motion.pose)
            parts += looks
            if "clothes" in said:
                parts.append(clothes_words(figure.clothes))
        if "background" in said:
            parts.append(background_words(self.background))
        return ", ".join(parts)


def told(who: Identity) -> dict[str, str]:
    """What a text can say of somebody, as texts describe people to any model: a phrase for each thing, in this order.

    Of a hat, beard or glasses also that there is none, since what no text names may be there or not; of marks nothing then.
    """

    def nearest(color: Color, colors: Sequence[Color]) -> int:
        return int(np.square(np.subtract(colors, color)).sum(1).argmin())

    hair = tuple(HAIR)[nearest(who.hair, tuple(HAIR.values()))]
    return {
        "skin": f"{SKINS[nearest(who.skin, SKIN)]} skin",
        "hair": CUT_WORDS[who.cut].format(hair),
        "hat": HAT_WORDS.get(who.hat, "no hat").format(who.hat_paint),
        "beard": BEARD_WORDS.get(who.beard, "no beard").format(hair),
        "glasses": "no glasses" if who.glasses == "none" else f"{who.glasses_paint} {who.glasses} glasses",
        "mark": "" if who.mark == "none" else who.mark,
    }


def looks(who: Identity) -> tuple[str, ...]:
    """What :func:`told` says that is there."""
    return tuple(phrase for phrase in told(who).values() if phrase and not phrase.startswith("no "))


def lacks(who: Identity) -> tuple[str, ...]:
    """What :func:`told` says that is not there."""
    return tuple(phrase for phrase in told(who).values() if phrase.startswith("no "))


def clothes_words(clothes: Clothes) -> str:
    return f"{clothes.paint} {dict(zip(PATTERNS, ('shirt', 'striped shirt', 'shirt with collar'), strict=True))[clothes.pattern]}"


def background_words(background: Background) -> str:
    ground = {
        "plain": "{} background", "floor": "{} wall and floor", "stripes": "{} striped background",
        "hills": "{} hills", "window": "{} wall with window", "night": "night sky",
    }[background.ground].format(background.paint)  # fmt: skip
    return ground if background.thing == "none" else f"{ground}, {background.thing_paint} {background.thing}"


def draw_background(rng: np.random.Generator) -> Background:
    def one(values: tuple[str, ...]) -> str:
        return values[int(rng.integers(len(values)))]

    paints = tuple(PAINT)
    return Background(
        one(GROUNDS), one(paints), one(THINGS), one(paints), int(rng.integers(2)) * 2 - 1, float(rng.uniform(0.1, 0.5))
    )


def draw_places(rng: np.random.Generator, count: int, width: float) -> list[tuple[float, float, float]]:
    """Free places (x, y, size) for heads, side by side, in picture heights."""
    cell = width / count
    order = rng.permutation(count)
    places = []
    for index in range(count):
        size = float(rng.uniform(0.25, 0.345)) if count == 1 else float(min(0.3, cell / 2.05) * rng.uniform(0.92, 1.0))
        free = max(0.0, cell / 2 - 1.08 * size)
        x = (index + 0.5) * cell + float(rng.uniform(-1, 1)) * free
        y = float(rng.uniform(1.38 * size, max(1.4 * size, 1 - 1.3 * size)))
        places.append((x, y, size))
    return [places[index] for index in order]


def draw_scene(
    seed: int,
    people: tuple[Identity, ...] | int = 1,
    width: float | None = None,
    seeds: tuple[int, int] = (0, VALIDATION),
) -> Scene:
    """The scene of a seed: ``people`` given, or so many of the people ``seeds`` (first, end)."""
    rng = person_generator(seed, 1)
    if isinstance(people, int):
        people = tuple(draw_identity(int(rng.integers(*seeds))) for _ in range(people))
    width = width or {1: 1.0, 2: 1.5}.get(len(people), 2.0)
    background = draw_background(rng)
    motions = [draw_motion(rng) for _ in people]
    if len(people) > 1 and rng.uniform() < 0.3:
        motions = [draw_motion(rng, motions[0].expression) for _ in people]
    figures = tuple(
        Figure(identity, motion, draw_clothes(rng), *place)
        for identity, motion, place in zip(people, motions, draw_places(rng, len(people), width), strict=True)
    )
    return Scene(tuple(sorted(figures, key=lambda figure: figure.size)), background, width)
