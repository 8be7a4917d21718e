"""Which parts of a picture are sampled again, for whom, and what of them is replaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..faces import FaceDetector
from ..matching import CELLS, Matching, match_image, places
from ..scoring import SAME_PERSON
from ..types import Cast, DynamicIDError
from ..views import View
from .crops import PixelBox, as_image, grown_crop, soft_box, soft_edges, square_crop

WHICH = ("all", "small", "unlike")
NEIGHBOUR = 0.15  # of a neighbour's face: how far around it less is replaced
ROOM = 0.15  # around the place of somebody who is missing, of its longer side
LIMITS: dict[str, tuple[float, float]] = {
    "below": (-1, 1), "small": (1, 16384), "size": (64, 8192), "crop_factor": (1, 10), "padding": (0, 2),
    "denoise": (0.01, 1), "tries": (1, 100), "mend_denoise": (0.01, 1),
}  # fmt: skip


@dataclass(frozen=True)
class RefineOptions:
    """What is sampled again, and how."""

    which: str = "all"  # faces of the cast: all, those that are small, or those that are unlike their person
    below: float = SAME_PERSON  # unlike: a similarity below it
    small: int = 128  # small: a longer side of less than so many px
    size: int = 512  # px: side of the square in which a face is sampled
    crop_factor: float = 2.5  # side of what is cut out, in sizes of the face
    padding: float = 0.4  # how far around a face the new fades into the old, in sizes of the face
    denoise: float = 0.4  # towards 0 little changes; 1: nothing is kept
    tries: int = 1  # seeds, of which the best is kept
    seed: int = 0  # the first; others follow it
    mend: bool = False  # also sample again, in place, who is missing and what shows somebody once more
    mend_denoise: float = 0.8

    def __post_init__(self) -> None:
        if self.which not in WHICH:
            raise DynamicIDError(f"which is {self.which!r}; it must be one of {', '.join(WHICH)}.")
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise DynamicIDError(f"{name} is {getattr(self, name)}; it must lie between {low:g} and {high:g}.")


@dataclass(frozen=True, eq=False)
class Job:
    """One part of a picture that is sampled again."""

    person: int | None  # of the cast; None: nobody, for a face that shows somebody once more than it should
    face: int | None  # from the left; None: somebody is missing here
    box: PixelBox  # where the face is or should be, px
    crop: View  # what is cut out, px
    mask: Tensor  # [h, w] of the crop: how much of each pixel is replaced
    mends: bool  # somebody is missing here, or shown once more


@dataclass(frozen=True, eq=False)
class Plan:
    """A picture, [h, w, C] in 0..1, float32 on the CPU; who is in it, and what is sampled again."""

    picture: Tensor
    cast: Cast
    detector: FaceDetector
    options: RefineOptions
    frame: int
    before: Matching
    jobs: tuple[Job, ...]


def plan(
    picture: Tensor, cast: Cast, detector: FaceDetector, options: RefineOptions = RefineOptions(), frame: int = 0
) -> Plan:
    """Find and match the faces of a picture, and decide what is sampled again.

    ``picture`` [h, w, 3 or more] in 0..1, float32 on the CPU; ``frame``: its number in a batch, for masks and faces that have
    several.
    Raises DynamicIDError for an empty cast, people whose identity is not known, and a detector of another recogniser.
    """
    size, cast = (picture.shape[0], picture.shape[1]), cast.at(frame)
    before = match_image(cast, as_image(picture), detector, frame)
    again = {face for _, face in before.doubles}
    jobs = []
    for person, face in enumerate(before.face_of):
        if face is None:
            if options.mend and (box := _place(cast, person, size, frame)) is not None:
                jobs.append(_place_job(before, size, person, box))
        elif (options.mend and face in again) or _is_chosen(before, person, face, options):
            jobs.append(_face_job(before, size, person, face, options, options.mend and face in again))
    if options.mend:
        jobs += [_face_job(before, size, None, face, options, True) for face in sorted(again - {*before.face_of})]
    return Plan(picture, cast, detector, options, frame, before, tuple(jobs))


def _is_chosen(before: Matching, person: int, face: int, options: RefineOptions) -> bool:
    if options.which == "small":
        return before.faces[face].size < options.small
    return options.which == "all" or float(before.similarity[person, face]) < options.below


def _face_job(
    before: Matching, size: tuple[int, int], person: int | None, face: int, options: RefineOptions, mends: bool
) -> Job:
    found = before.faces[face]
    crop = square_crop(size, found.box, options.crop_factor)
    mask = _mask(before, crop, found.box, options.padding * found.size, face)
    return Job(person, face, found.box, crop, mask, mends)


def _place_job(before: Matching, size: tuple[int, int], person: int, box: PixelBox) -> Job:
    crop = grown_crop(size, box, ROOM)
    mask = _mask(before, crop, box, ROOM * max(box[2] - box[0], box[3] - box[1]))
    return Job(person, None, box, crop, mask, True)


def _mask(before: Matching, crop: View, box: PixelBox, reach: float, own: int | None = None) -> Tensor:
    """How much of each pixel of a crop is replaced, [h, w]: nothing on any face but ``own``."""
    mask = soft_box(crop, box, reach) * soft_edges(crop)
    for face in (found for number, found in enumerate(before.faces) if number != own):
        mask = mask * (1 - soft_box(crop, face.box, NEIGHBOUR * face.size))
    return mask


def _place(cast: Cast, person: int, size: tuple[int, int], frame: int) -> PixelBox | None:
    """The box, in px, around the cells where somebody may be more than half as much as anywhere; None: nowhere."""
    cells = places(cast, frame)[person].reshape(CELLS, CELLS)
    inside = cells > cells.max() / 2
    rows, columns = (np.flatnonzero(inside.any(axis).numpy()).tolist() for axis in (1, 0))
    if not rows:
        return None
    height, width = size[0] / CELLS, size[1] / CELLS
    return columns[0] * width, rows[0] * height, (columns[-1] + 1) * width, (rows[-1] + 1) * height
