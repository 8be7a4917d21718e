"""People of a finished picture as SEGS, the form in which Impact Pack's detailers take the parts of a picture.

SEGS are a picture's height and width and a list of segments. A detailer samples each segment's crop with its MODEL and its
conditionings, but first hands them to the segment's ``control_net_wrapper``, if it has one.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ...refining import Job, Plan
from ...types import Cast, Person, SAAOptions
from ...views import View
from .model import apply_faces, with_lora, without_faces
from .networks import LoadedDynamicID
from .tiles import with_map


class Segment(NamedTuple):
    """A part of a picture, with the fields that Impact Pack reads."""

    cropped_image: None  # detailers cut the picture themselves
    cropped_mask: np.ndarray  # float32 [h, w] of the crop in 0..1: what is replaced
    confidence: float  # the detector's
    crop_region: list[int]  # left, top, right, bottom in px
    bbox: list[int]  # of the face
    label: str  # the person's name
    control_net_wrapper: PersonInCrop


class PeopleInCrops:
    """What all people of a picture share: how their faces are put into a MODEL."""

    def __init__(self, loaded: LoadedDynamicID, options: SAAOptions):
        self.loaded, self.options = loaded, options
        self._ready: tuple[Any, Any] = (None, None)

    def put(self, model: Any, person: Person) -> Any:
        """A clone of a MODEL with this person alone, whoever was in it. Raises DynamicIDError for one that does not fit."""
        if self._ready[0] is not model:  # Merged once: the host would merge the LoRA anew for each person.
            self._ready = model, with_lora(without_faces(model), self.loaded, self.options.lora_strength)
        alone = Cast((dataclasses.replace(person, region=None),))
        return apply_faces(self._ready[1], self.loaded, alone, self.options)


class PersonInCrop:
    """A segment's wrapper: its person alone in the MODEL; where a detailer asks for conditionings only, the crop's regions."""

    control_image = None  # what previews of wrappers look for

    def __init__(self, people: PeopleInCrops, person: Person, crop: View):
        self.people, self.person, self.crop = people, person, crop

    def apply(
        self, positive: Any, negative: Any, image: Any, mask: Any = None, **kwargs: Any
    ) -> tuple[Any, Any, list[Any]]:
        """Impact Pack's hook: the conditionings of the crop, and pictures to show, of which there are none.

        A MODEL with people that is sampled with them shows each where the crop lies in the picture.
        """
        return with_map(positive, self.crop), negative, []

    def doit_ipadapter(self, model: Any) -> tuple[Any, list[Any]]:
        """Impact Pack's hook: the MODEL of the crop, and pictures to show, of which there are none."""
        return self.people.put(model, self.person), []


def to_segs(plan: Plan, people: PeopleInCrops) -> tuple[tuple[int, int], list[Segment]]:
    """The faces that a plan without mending chose, from left to right, each with its person."""
    height, width = plan.picture.shape[:2]
    jobs = sorted(plan.jobs, key=lambda job: job.box[0])
    return (height, width), [_segment(plan, job, people) for job in jobs]


def _segment(plan: Plan, job: Job, people: PeopleInCrops) -> Segment:
    assert job.person is not None and job.face is not None, "without mending, a job is somebody's face"
    person, crop, (height, width) = plan.cast.people[job.person], job.crop, plan.picture.shape[:2]
    x0, y0, x1, y1 = (round(edge) for edge in job.box)
    return Segment(
        cropped_image=None,
        cropped_mask=job.mask.numpy().astype(np.float32),
        confidence=plan.before.faces[job.face].score,
        crop_region=[crop.left, crop.top, crop.left + crop.width, crop.top + crop.height],
        bbox=[max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)],
        label=person.face.name or f"person {job.person + 1}",
        control_net_wrapper=PersonInCrop(people, person, crop),
    )
