"""What speaks against one photo by itself, and the reasons that a training set leaves photos out for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..faces import BLURRED_BELOW, SMALL_FACE
from ..types import DynamicIDError
from .analysis import Analysis

# Reason -> what it means, and what may help, in the order in which they are looked for. The report shows these texts.
REASONS = {
    "unreadable": "The file is no picture, or it is damaged.",
    "no person": "Nothing says whose photo it is: it lies beside the people's folders, or a shard names nobody.",
    "no face": "The detector found nobody.",
    "several faces": "Somebody else is in the photo too, and large enough to be learned with the person. Crop the photo.",
    "small": "The face has too few pixels.",
    "blurred": "The face is not sharp.",
    "occluded": "Part of the face seems hidden or cut off: the detector is unsure of it, its two networks disagree on where "
    "eyes, nose and mouth are, or they lie outside the photo. A mask or dark glasses that both networks see through "
    "are not noticed.",
    "not measured": "The detector gave the face no identity, landmarks, pose or expression.",
    "other person": "The face is unlike the others of this person.",
    "two people": "About as many photos under this name show one person as show another, so nobody knows whose name it is. "
    "Sort them into two folders, or let --split-folders make two people of them.",
    "duplicate": "The same file is there already.",
    "near duplicate": "Nearly the same picture is there already, in a better or another copy.",
    "wrong expression": "The picture was made to fill a cell, but shows another expression.",
    "wrong pose": "The picture was made to fill a cell, but shows another pose.",
    "cell full": "The person has better photos of this expression and pose.",
    "person full": "The person has enough photos.",
    "too few photos": "Too few photos of this person are left to learn from.",
    "failed": "The function that fills cells gave no picture.",
}


@dataclass(frozen=True)
class CheckOptions:
    """What a photo must be like, and how many are kept."""

    smallest_face: float = SMALL_FACE  # px of the face box's longer side
    sharpness: float = BLURRED_BELOW  # faces.sharpness below it is blurred
    score: float = 0.6  # the detector's confidence, below which a face counts as occluded
    disagreement: float = 0.12  # analysis.disagreement above it counts as occluded
    cut: float = 0.1  # share of a face outside the photo, above which it counts as occluded
    rival: float = 0.1  # another face is negligible below this share of the person's face's area
    same_person: float = 0.3  # cosine to the median of a person's identities, below which a photo is of another one
    same_people: float = 0.6  # cosine of two people's medians, from which they are one
    merge: bool = True  # one person under two names becomes one; else it is only reported
    split_folders: bool = False  # another person in a folder, with three photos or more, becomes a person
    near_duplicate: int = 32  # of 256 bits of the perceptual hash: up to so many differ in copies of one photo
    per_cell: int = 4  # photos of one person that show one cell
    per_person: int = 0  # photos of one person; 0: no limit
    fewest: int = 1  # people of whom fewer are left are left out

    def __post_init__(self) -> None:
        limits = {
            "smallest_face": (0, 10000), "sharpness": (0, 1e6), "score": (0, 1), "disagreement": (0, 10), "cut": (0, 1),
            "rival": (0, 1), "same_person": (-1, 1), "same_people": (-1, 1), "near_duplicate": (-1, 256),
            "per_cell": (1, 1e9), "per_person": (0, 1e9), "fewest": (1, 1e9),
        }  # fmt: skip
        for field in fields(self):
            low, high = limits.get(field.name, (0, 1))
            if not low <= getattr(self, field.name) <= high:
                raise DynamicIDError(
                    f"{field.name} is {getattr(self, field.name)}; it must lie between {low:g} and {high:g}."
                )


def photo_reason(seen: Analysis, options: CheckOptions = CheckOptions()) -> tuple[str, str]:
    """(reason, what was measured), or ("", "") if nothing speaks against the photo by itself."""
    if seen.problem:
        return "unreadable", seen.problem
    if not seen.faces:
        return "no face", ""
    if seen.rival >= options.rival and seen.faces > 1:
        return "several faces", f"{seen.faces} faces, the second has {seen.rival:.0%} of the first's area"
    if seen.face_size < options.smallest_face:
        return "small", f"{seen.face_size:.0f} px; wanted {options.smallest_face:g}"
    if hidden := _hidden(seen, options):
        return "occluded", hidden
    if seen.sharpness < options.sharpness:
        return "blurred", f"sharpness {seen.sharpness:.0f}; wanted {options.sharpness:g}"
    lacking = [name for name in ("identity", "landmarks", "angles", "expression") if not _has(seen, name)]
    if lacking:
        return "not measured", f"without {', '.join(lacking)}"
    return "", ""


def _hidden(seen: Analysis, options: CheckOptions) -> str:
    if seen.cut > options.cut:
        return f"{seen.cut:.0%} of the face outside the photo"
    if seen.score < options.score:
        return f"detector's confidence {seen.score:.2f}; wanted {options.score:g}"
    if seen.disagreement > options.disagreement:
        return f"landmarks disagree by {seen.disagreement:.2f} face sizes; at most {options.disagreement:g}"
    return ""


def _has(seen: Analysis, name: str) -> bool:
    value = getattr(seen, name)
    return value is not None and value != "" if name in ("expression", "angles") else value is not None


def photo_quality(seen: Analysis) -> float:
    """0..1, larger is better: how large, sharp and certain the face is, each up to where more does not help.

    A face of 256 px, four times as sharp as the limit, found with certainty and with agreeing networks has 1.
    """
    size = min(seen.face_size / 256, 1.0)
    sharp = min(seen.sharpness / (4 * BLURRED_BELOW), 1.0)
    agree = max(1 - seen.disagreement / 0.25, 0.0)
    return round(float((size * sharp * min(seen.score, 1.0) * agree) ** 0.25), 6)
