"""From photos with their labels to those that are taken: duplicates, the 35 cells filled, parts for training and validation.

Everything here goes by hashes, quality and names, never by the order in which photos were looked at.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .analysis import Analysis
from .checks import CheckOptions, photo_quality
from .labels import Cell
from .sources import Source

COPY_MOVES = 0.02  # in face sizes: landmarks of copies of one photo differ by less, those of two photos mostly by more
RMS_TO_SIZE = 2.5  # a face's size over the root mean square of its landmarks' distances from their middle
MOVING_PARTS = (
    slice(52, 72),
    [*range(33, 43), *range(87, 97)],
    [*range(43, 52), *range(97, 106)],
)  # mouth, eyes, brows


@dataclass(eq=False)
class Candidate:
    """A photo on its way through the checks; what they find is written into it."""

    source: Source
    id: str
    seen: Analysis
    person: str
    expression: str = ""
    pose: str = ""
    reason: str = ""
    detail: str = ""

    @property
    def cell(self) -> Cell:
        return Cell(self.expression, self.pose)

    @property
    def rank(self) -> tuple[int, float, int, int, str, str]:
        """Sorts the best photo first; what was made to fill a cell comes after every real photo.

        Of equal ones the larger is better, and then the less compressed.
        """
        made = int(self.source.collection == "filled")
        height, width = self.seen.size
        quality = round(photo_quality(self.seen), 2)
        return made, -quality, -height * width, -self.seen.length, self.id, self.source.name

    def leave_out(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail


def remaining(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if not candidate.reason]


def grouped(candidates: Iterable[Candidate], key: Callable[[Candidate], str]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[key(candidate)].append(candidate)
    return dict(sorted(groups.items()))


def leave_out_duplicates(candidates: Sequence[Candidate], options: CheckOptions) -> None:
    """Equal files first, whoever's they are; then near duplicates of one person in one cell, the best copy staying."""
    for group in grouped(remaining(candidates), lambda c: c.id).values():
        first, *others = sorted(group, key=lambda c: (c.source.collection == "filled", c.source.name))
        for other in others:
            other.leave_out("duplicate", f"of {first.source.name}")
    for group in grouped(remaining(candidates), lambda c: f"{c.person}\0{c.expression}\0{c.pose}").values():
        _leave_out_copies(sorted(group, key=lambda c: c.rank), options.near_duplicate)


def _leave_out_copies(group: Sequence[Candidate], bits: int) -> None:
    """``group``: from the best to the worst."""
    prints = [np.unpackbits(np.frombuffer(bytes.fromhex(c.seen.fingerprint), np.uint8)) for c in group]
    kept: list[int] = []
    for number, candidate in enumerate(group):
        for other in kept:
            differing = int((prints[number] != prints[other]).sum())
            if differing <= bits and _moved(candidate.seen, group[other].seen) < COPY_MOVES:
                of = group[other].source.name
                candidate.leave_out("near duplicate", f"of {of}: {differing} of 256 bits of its perceptual hash differ")
                break
        else:
            kept.append(number)


def _moved(one: Analysis, other: Analysis) -> float:
    """How far mouth, eyes or brows lie apart, the farthest of them, in face sizes: an open mouth is no copy of a closed one.

    Each face is brought to its own middle and size, as boxes differ with the size of a photo.
    """
    if one.landmarks is None or other.landmarks is None:
        return 0.0
    apart = np.hypot(*(_placed(one.landmarks, one.size) - _placed(other.landmarks, other.size)).T)
    return max(float(apart[part].mean()) for part in MOVING_PARTS)


def _placed(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fractions of a photo -> face sizes from the middle of the face, [106, 2]."""
    points = landmarks.astype(np.float64) * (size[1], size[0])
    points = points - points.mean(0)
    return points / max(float(np.sqrt((points**2).sum(1).mean())) * RMS_TO_SIZE, 1e-6)


def choose(candidates: Sequence[Candidate], options: CheckOptions) -> None:
    """Of each person the best photos of each cell; a person's limit takes the best of every cell before any second."""
    for group in grouped(remaining(candidates), lambda c: c.person).values():
        cells: dict[Cell, list[Candidate]] = defaultdict(list)
        for candidate in sorted(group, key=lambda c: c.rank):
            cells[candidate.cell].append(candidate)
        turns = [(place, c.rank, c) for cell in cells.values() for place, c in enumerate(cell)]
        kept = 0
        for place, _, candidate in sorted(turns, key=lambda turn: turn[:2]):
            if place >= options.per_cell:
                candidate.leave_out("cell full", f"the best {options.per_cell} are taken")
            elif options.per_person and kept >= options.per_person:
                candidate.leave_out("person full", f"{options.per_person} are taken")
            else:
                kept += 1
        if kept < options.fewest:
            for candidate in remaining(group):
                candidate.leave_out("too few photos", f"{kept}; wanted {options.fewest}")


def validation_people(people: Iterable[str], share: float) -> set[str]:
    """Who is kept for validation: ``share`` of the people, by a hash of their names; one at least of five or more."""
    names = sorted(people, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    count = round(share * len(names))
    if share > 0 and len(names) >= 5:
        count = max(count, 1)
    return set(names[: min(count, max(len(names) - 1, 0))])
