"""Hundreds of runs in one server: changing people, sizes and seeds, some interrupted, models thrown out again and again.

What is measured is the server's memory, at moments that can be compared: after a block of runs, when models were thrown out,
garbage was collected and the C library has given back what it can (``probe``). The same runs without our nodes show what
the host's own allocator does. At the end, threads, files, living objects of sampling runs and replaced functions of the host
are compared with those after the first block, and the first picture must come out again to the last bit.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from environment import SetupError

from .hosts import Host
from .models import Base
from .scene import Scene

RUNS, BLOCK = 200, 10
INTERRUPTED = 0.1  # share of runs
SIZES = ((64, 64), (128, 64), (64, 128), (96, 64), (128, 128))  # px, width and height
CASTS = ((0,), (1,), (0, 1), (1, 0))
EVENTS = 12  # nodes and steps that have begun when a run is interrupted, at most


@dataclass
class Endured:
    """``base``: on which, "" for the drawn world's; ``states``: the probe's answer after each block; ``interrupted``: runs that
    ended so; ``same_bits``: of the first picture and the same made again at the end."""

    version: str
    people: bool
    base: str = ""
    runs: int = 0
    interrupted: int = 0
    same_bits: bool = False
    seconds: float = 0.0
    states: list[dict[str, Any]] = field(default_factory=list)

    @property
    def half(self) -> int:
        """The number of the block in the middle."""
        return (len(self.states) - 1) // 2

    def growth(self, since: int = 0) -> float:
        """Memory after the last block, over that after another one (the first), less one."""
        return self.states[-1]["memory"] / self.states[since]["memory"] - 1

    def left(self, what: str) -> list[str]:
        """Threads, files or replaced functions that were not there after the first block."""
        before = list(self.states[0][what])
        return [name for name in self.states[-1][what] if name not in before or before.remove(name)]

    def write(self, folder: Path) -> None:
        name = f"endurance-{self.version}-{'people' if self.people else 'plain'}.json"
        (folder / name).write_text(json.dumps(asdict(self), indent=1), "utf-8")

    @classmethod
    def read_all(cls, folder: Path) -> list[Endured]:
        paths = sorted(folder.glob("endurance-*.json"))
        return [cls(**json.loads(path.read_text("utf-8"))) for path in paths]


def endure(host: Host, people: bool, runs: int = RUNS, base: Base | None = None) -> Endured:
    """Queue these runs; the same ones with and without people."""
    begun = time.monotonic()
    endured = Endured(host.version, people, base.about if base else "")
    reference = _scene(people, base, (0, 1), (128, 64), 1, "first")
    first = host.run(reference, "first")
    for number, (cast, size, seed, stop_at) in enumerate(_drawn(runs), 1):
        scene = _scene(people, base, cast, size, seed, "picture")
        endured.interrupted += _is_interrupted(host, scene, stop_at)
        endured.runs = number
        if number % BLOCK == 0:
            host.free()
            _idle(host, people)
            endured.states.append(host.state())
            print(number, endured.states[-1]["memory"], flush=True)
    last = host.run(reference, "first")
    endured.same_bits = bool(np.array_equal(first, last))
    endured.seconds = round(time.monotonic() - begun, 1)
    return endured


def _drawn(runs: int) -> Iterator[tuple[tuple[int, ...], tuple[int, int], int, int]]:
    """Cast, size, seed and, where a run is interrupted, when. The first block has every size with one person and with two: what
    libraries keep for each shape is there then."""
    draw = random.Random(0)
    every = list(itertools.product(CASTS[1:3], SIZES))
    for number in range(runs):
        cast, size = every[number] if number < len(every) else (draw.choice(CASTS), draw.choice(SIZES))
        stops = number >= len(every) and draw.random() < INTERRUPTED
        yield cast, size, draw.randrange(1000), draw.randint(1, EVENTS) if stops else 0


def _scene(
    people: bool, base: Base | None, cast: tuple[int, ...], size: tuple[int, int], seed: int, name: str
) -> Scene:
    scene = Scene(base=base, people=people)
    latent = scene.link("EmptyLatentImage", width=size[0], height=size[1], batch_size=1)
    scene.keep(scene.decode(scene.sample(scene.faces(scene.model, *cast), seed=seed, latent_image=latent)), name)
    return scene


def _is_interrupted(host: Host, scene: Scene, stop_at: int) -> bool:
    """One run, and whether it ended early: an interrupt may come too late."""
    try:
        host.run(scene, "picture", stop_at)
    except SetupError as error:
        if stop_at and "interrupted" in str(error):
            return True
        raise
    return False


def _idle(host: Host, people: bool) -> None:
    """A graph that samples nothing: the host throws models out between runs, when the next one begins or soon after."""
    scene = Scene(people=people)
    scene.keep(scene.photo(0) if people else scene.link("EmptyImage", width=64, height=64), "idle")
    host.run(scene, "idle")
