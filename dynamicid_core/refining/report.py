"""What came of a refined picture: who was in it, who is, and what was kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..matching import Matching
from ..scoring import person_names
from .crops import as_image
from .planning import Job, Plan


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job."""

    job: Job
    tries: int  # seeds that were sampled
    seed: int | None  # whose result is in the picture; None: it stayed as it was

    @property
    def text(self) -> str:
        if self.seed is not None:
            return f"sampled again (seed {self.seed})"
        return f"nothing better was found with {self.tries} seed{'s' * (self.tries > 1)}"


@dataclass(frozen=True)
class RefinedPerson:
    """One person of the cast in a refined picture."""

    name: str
    before: float | None  # likeness, a cosine; None: missing
    after: float | None
    tries: int  # seeds that were sampled; 0: not chosen
    seed: int | None  # whose result is in the picture; None: as it was


@dataclass(frozen=True, eq=False)
class RefinedPicture:
    """A picture after all its jobs: [h, w, C] in 0..1, float32 on the CPU, and who is in it now."""

    picture: Tensor
    plan: Plan
    outcomes: tuple[Outcome, ...]
    after: Matching

    @property
    def image(self) -> np.ndarray:
        """The picture as uint8 RGB, [h, w, 3]."""
        return as_image(self.picture)

    @property
    def people(self) -> tuple[RefinedPerson, ...]:
        """Everybody of the cast, before and after."""
        people = []
        for person, name in enumerate(person_names(self.plan.cast)):
            before, after = self.plan.before.likeness(person), self.after.likeness(person)
            outcome = self._outcome(person)
            tried = (outcome.tries, outcome.seed) if outcome else (0, None)
            people.append(RefinedPerson(name, before, after, *tried))
        return tuple(people)

    @property
    def worst(self) -> float:
        """The likeness of the person who is worst off now; 0 for one who is missing."""
        return min(person.after or 0.0 for person in self.people)

    def report(self) -> str:
        """A line for each person, and what is odd: who is missing or there once more, and whose face is nobody's."""
        names = person_names(self.plan.cast)
        lines = [self._line(number, person) for number, person in enumerate(self.people)]
        was = {face: names[person] for person, face in self.plan.before.doubles}
        lines += [
            f"{was[outcome.job.face]}: was there once more, {outcome.text}"
            for outcome in self.outcomes
            if outcome.job.person is None and outcome.job.face is not None
        ]
        lines += [f"{names[person]}: is there once more, as face {face}" for person, face in self.after.doubles]
        lines += [f"face {face}: nobody of the cast" for face in self.after.bystanders]
        return "\n".join(lines)

    def _outcome(self, person: int) -> Outcome | None:
        return next((outcome for outcome in self.outcomes if outcome.job.person == person), None)

    def _line(self, number: int, person: RefinedPerson) -> str:
        before, after = ("missing" if value is None else f"{value:.2f}" for value in (person.before, person.after))
        outcome = self._outcome(number)
        if outcome is None:
            return f"{person.name}: missing" if person.before is None else f"{person.name}: {before}, left as it was"
        return f"{person.name}: {before} before, {after} after, {outcome.text}"
