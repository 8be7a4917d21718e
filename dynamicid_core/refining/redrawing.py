"""The work: each planned part sampled again with one seed after another, and the best of them laid into the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..matching import match_image
from ..scoring import SAME_PERSON, person_names
from ..types import Person
from ..views import View
from .crops import PixelBox, as_image, enlarged, paste, resized, working_size
from .planning import Job, Plan
from .report import Outcome, RefinedPicture


@dataclass(frozen=True, eq=False)
class Patch:
    """What a host gets to sample: a crop, enlarged."""

    pixels: Tensor  # [h, w, 3] in 0..1, float32 on the CPU
    mask: Tensor  # [h, w]: 1 where it may change, 0 where it shall stay
    crop: View  # where it lies in the picture, px
    person: Person | None  # alone, without a region; None: nobody's face shall act
    denoise: float
    seed: int


SEEDS = 2**64  # after the last comes 0
Redraw = Callable[[Patch], Tensor]  # -> [h, w, 3] in 0..1, on any device
Watch = Callable[[str], object]  # is told who is sampled next


def refine(plan: Plan, redraw: Redraw, watch: Watch = lambda text: None) -> RefinedPicture:
    """Sample again what was planned, one part after another; ``watch`` is told of each seed before it is sampled."""
    picture, outcomes = plan.picture, []
    for number, job in enumerate(plan.jobs, 1):
        picture, outcome = _best(plan, picture, job, redraw, watch, f"{number} of {len(plan.jobs)}")
        outcomes.append(outcome)
    after = match_image(plan.cast, as_image(picture), plan.detector, plan.frame) if outcomes else plan.before
    return RefinedPicture(picture, plan, tuple(outcomes), after)


def _best(plan: Plan, picture: Tensor, job: Job, redraw: Redraw, watch: Watch, where: str) -> tuple[Tensor, Outcome]:
    """The picture after a job: of what was sampled with each seed, the best.

    Where likeness is what was asked for, the picture stays as it was unless another is better, and nothing more is sampled
    once one is good enough.
    """
    options, asked = plan.options, job.mends or plan.options.which == "unlike"
    enough = -SAME_PERSON if job.person is None else options.below
    who = "nobody" if job.person is None else person_names(plan.cast)[job.person]
    patch = _patch(plan, picture, job)
    best, kept, chosen, tried = (_merit_before(plan, job) if asked else None), picture, None, 0
    while tried < options.tries:
        seed = (options.seed + tried) % SEEDS
        tried += 1
        watch(f"{who}, {where}" + (f", seed {seed}" if options.tries > 1 else ""))
        drawn = redraw(dataclasses.replace(patch, seed=seed))
        made = paste(picture, job.crop, drawn.detach().float().cpu(), job.mask)
        merit = _merit(plan, made, job)
        if merit is not None and (best is None or merit > best):
            best, kept, chosen = merit, made, seed
        if asked and best is not None and best >= enough:
            break
    return kept, Outcome(job, tried, chosen)


def _patch(plan: Plan, picture: Tensor, job: Job) -> Patch:
    size = working_size(job.crop, plan.options.size)
    mask = (resized(job.mask[..., None], size, "bilinear")[..., 0] > 0).float()
    person = None if job.person is None else dataclasses.replace(plan.cast.people[job.person], region=None)
    denoise = plan.options.mend_denoise if job.mends else plan.options.denoise
    return Patch(enlarged(picture, job.crop, size), mask, job.crop, person, denoise, plan.options.seed)


def _merit_before(plan: Plan, job: Job) -> float | None:
    """What :func:`_merit` says of the picture as it was."""
    if job.face is None:
        return None
    alike = plan.before.similarity[:, job.face]
    return -max(float(alike.max()), 0.0) if job.person is None else float(alike[job.person])


def _merit(plan: Plan, picture: Tensor, job: Job) -> float | None:
    """How good a picture is where a job changed it: the likeness of the person who should be there, -1..1; None: no face.

    Where nobody of the cast should be there, how little alike the face is to anybody; 0 without a face. The whole picture is
    looked at, as it will be for the report: a crop may show a face that nobody sees in it.
    """
    people = plan.cast.people if job.person is None else plan.cast.people[job.person : job.person + 1]
    known = [person.face.identity for person in people]
    others = [face.box for number, face in enumerate(plan.before.faces) if number != job.face]
    alike = []
    for face in plan.detector.detect(as_image(picture)):
        mine = _holds(job.box, *face.center) and not any(_holds(box, *face.center) for box in others)
        if mine and face.identity is not None:
            alike += [float(identity.numpy() @ face.identity) for identity in known if identity is not None]
    if job.person is None:
        return -max(0.0, *alike) if alike else 0.0
    return max(alike, default=None)


def _holds(box: PixelBox, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
