"""One combination tried in a host: does it run, to the same bits, without a trace, and are the people in the picture?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from environment import SetupError

from .cells import Combination
from .hosts import Host
from .models import Base
from .scene import Scene

Found = np.ndarray | str  # what a scene kept, or an error
Known = dict[str, Found]  # by graph, what was seen of it
ACTS = 0.2  # ``Tried.faces``; less counts as silently off


@dataclass
class Tried:
    """What was seen of one combination in one order. ``base``: on which, "" for the drawn
    world's. ``faces``: mean change by faces with the other node, over that without it; of a second pass, mean change by faces
    in the pass alone, over that by the pass without them, and None where it has none. ``other``: mean change by the other node
    with faces, over the spread of the values; ``alters``: whether there should be any."""

    name: str
    order: str
    pack: str
    base: str = ""
    error: str = ""
    alone: bool = False  # whether the error is there without DynamicID too
    same_bits: bool = False
    untouched: bool = False
    faces: float | None = 0.0
    other: float = 0.0
    alters: bool = True
    log: list[str] = field(default_factory=list)

    @property
    def works(self) -> bool:
        return (
            not self.error and self.same_bits and self.untouched and self.shows and (self.other > 0 or not self.alters)
        )

    @property
    def shows(self) -> bool:
        """Whether faces do what they should."""
        return self.faces is None or self.faces >= ACTS

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def scene_of(combination: Combination, base: Base | None, round_: int) -> Scene:
    """All of a combination in one graph: without anything, with faces, with the other node, with both in each order."""
    scene = Scene(combination.frames, combination.base or base, round_=round_, title=combination.name)
    for people in (False, True):
        scene.people = people
        scene.keep(combination.plain(scene), "faces" if people else "plain")
        for number, build in enumerate(combination.orders.values()):
            scene.keep(build(scene), f"{'both' if people else 'other'}{number}")
    return scene


class Trial:
    """One combination in all orders, in two parts, between which models and results are thrown out."""

    def __init__(self, combination: Combination, base: Base | None, host: Host, known: Known) -> None:
        self.combination, self.base, self.host, self.known = combination, base, host, known
        self.rounds: dict[str, list[Found]] = {order: [] for order in combination.orders}
        self.upstream: dict[str, tuple[Found, Found]] = {}  # what was handed in: before, and afterwards
        self.log: list[str] = []

    def begin(self) -> None:
        """Sample twice with the same objects, then once more what was handed in, models and prompts: the same objects too."""
        first, again = (scene_of(self.combination, self.base, number) for number in range(2))
        self.host.said()
        before = {name: self._before(first, name) for name in self._handed}
        for scene in (first, again):
            self._sample(scene)
        self.upstream = {name: (found, _keep(self.host, again, name)) for name, found in before.items()}
        self.log = self.host.said()

    def end(self) -> list[Tried]:
        """Sample once more, where everything had to be made anew, and judge."""
        self._sample(scene_of(self.combination, self.base, 2))
        tried, base = [], getattr(self.combination.base or self.base, "about", "")
        for number, (order, rounds) in enumerate(self.rounds.items()):
            found = Tried(
                self.combination.name, order, self.combination.pack, base, alters=self.combination.alters, log=self.log
            )
            handed = [self.upstream[name] for name in ("plain", "faces", self._handed[2 + number])]
            tried.append(_judge(found, rounds, handed))
            if (second := self.combination.second) and not tried[-1].error:
                tried[-1].faces = _in_second_pass(rounds[0], self.rounds[second][0], handed[1][0])
        return tried

    @property
    def _handed(self) -> list[str]:
        return ["plain", "faces", *(f"other{number}" for number in range(len(self.combination.orders)))]

    def _before(self, scene: Scene, name: str) -> Found:
        """What was seen of it in another combination is what it must give here too."""
        key = scene.as_text(name)
        if key not in self.known:
            self.known[key] = _keep(self.host, scene, name)
        return self.known[key]

    def _sample(self, scene: Scene) -> None:
        for number, rounds in enumerate(self.rounds.values()):
            rounds.append(_keep(self.host, scene, f"both{number}"))


def _keep(host: Host, scene: Scene, name: str) -> Found:
    """What a scene keeps under this name, or what went wrong."""
    try:
        return host.run(scene, name)
    except (SetupError, KeyError) as error:
        return str(error)


def _judge(tried: Tried, rounds: list[Found], upstream: list[tuple[Found, Found]]) -> Tried:
    """``upstream``: before and after, of what has neither, faces alone, the other node alone."""
    before = [found for found, _ in upstream]
    for found, alone in [*((found, True) for found in before), *((found, False) for found in rounds)]:
        if isinstance(found, str):
            tried.error, tried.alone = found, alone
            return tried
    plain, faces, other = before
    tried.same_bits = all(np.array_equal(rounds[0], found) for found in rounds[1:])
    tried.untouched = all(not isinstance(b, str) and np.array_equal(a, b) for a, b in upstream)
    by_faces, alone = _change(rounds[0], other), _change(faces, plain)
    tried.faces = by_faces / alone if alone else 0.0
    tried.other = _change(rounds[0], faces) / float(faces.std())
    return tried


def _in_second_pass(found: Found, without: Found, picture: Found) -> float | None:
    """What faces in a second pass change, over what the pass changes ``without`` them; None where it is the one without them."""
    if isinstance(found, str) or isinstance(without, str) or isinstance(picture, str) or found is without:
        return None
    by_pass = _change(without, picture)
    return _change(found, without) / by_pass if by_pass else 0.0


def _change(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())
