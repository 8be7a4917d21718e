"""Photos of several people -> a cast in one step: each encoded, named and placed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .blending import parse_weights
from .encode import ClipVision, Encode, EncodedFace, TokenEncoder, encode_photos, encode_shown
from .faces import DetectedFace, FaceDetector
from .layouts import LAYOUTS, arranged, parse_boxes
from .names import names_of, parse_names, person_called
from .placing import place_in_boxes
from .regions import Box
from .types import Cast, DynamicIDError, Face, Missing, Person, Region

DRAWN = LAYOUTS[-1]
FREE = "free"  # nobody has a place
PLACES = (*LAYOUTS, FREE)
SIDES = ("left", "middle", "right")  # thirds of a photo
Photos = Sequence[np.ndarray]  # of one person, uint8 RGB [h, w, 3] each


@dataclass(frozen=True)
class Places:
    """Where people may be. A person's mask comes before a box, and boxes of ``frames`` come before the layout."""

    layout: str = LAYOUTS[0]  # one of PLACES
    drawn: str = ""  # boxes as text, for the layout DRAWN
    frames: Sequence[Sequence[Box]] | None = None  # for each frame its boxes, as placing.place_in_boxes takes them
    cells: tuple[int, int] = (128, 128)  # of masks that boxes become which move from frame to frame
    canvas: tuple[int, int] | None = None  # height and width of the picture that the boxes were drawn in, where known
    masks: Mapping[int, Tensor] = field(default_factory=dict)  # person, from 0 -> [h, w] or [F, h, w] in 0..1


@dataclass(frozen=True, eq=False)
class EncodedPeople:
    """Faces, and of those that come from photos how they came about."""

    faces: tuple[Face, ...]
    encoded: tuple[EncodedFace | None, ...]  # of each; None: it was a face already
    messages: tuple[str, ...]  # what the user should know


def encode_people(
    people: Sequence[Face | Photos],
    detector: FaceDetector | None,
    clip: ClipVision,
    encoder: TokenEncoder,
    *,
    names: str = "",
    crop_factor: float = 0.0,
    on_no_face: str = "error",
    progress: Callable[[Sequence[Face | Photos]], Iterable[Face | Photos]] = iter,
    encode: Encode = encode_shown,
    before: int = 0,
) -> EncodedPeople:
    """A face for everybody, out of photos or ready, with their names.

    Of a photo with several faces the largest is taken, and the others are named in a message. ``names``: in the order of
    ``people`` (:func:`names.parse_names`); a ready face keeps its own where none is given. ``before``: how many people are
    in the cast already, after whom messages count. ``progress``: goes through people; the rest as in
    :func:`encode.encode_photos`, whose errors come with the person.
    """
    if not people:
        raise DynamicIDError("There is nobody to cast. Give a photo or a face.")
    faces: list[Face] = []
    encoded: list[EncodedFace | None] = []
    messages: list[str] = []
    named = names_of(parse_names(names), len(people))
    for number, (one, name) in enumerate(zip(progress(people), named, strict=True), before + 1):
        if isinstance(one, Face):
            faces.append(dataclasses.replace(one, name=name or one.name))
            encoded.append(None)
            continue
        who = person_called(number, name)
        with _told_of(who):
            made = encode_photos(
                one, detector, clip, encoder, crop_factor=crop_factor, on_no_face=on_no_face, name=name,
                files=[""] * len(one), encode=encode,
            )  # fmt: skip
        faces.append(made.face)
        encoded.append(made)
        messages += [f"{_capital(who)}: {text}" for text in (made.message, *_others(made)) if text]
    return EncodedPeople(tuple(faces), tuple(encoded), tuple(messages))


@contextlib.contextmanager
def _told_of(who: str) -> Iterator[None]:
    """Errors name the person; what is missing for all of them is nobody's."""
    try:
        yield
    except Missing:
        raise
    except DynamicIDError as error:
        raise DynamicIDError(f"{_capital(who)}: {error}") from error


def _others(encoded: EncodedFace) -> list[str]:
    """A sentence for each photo that shows more than the face that is taken."""
    said = []
    for number, (photo, found) in enumerate(zip(encoded.photos, encoded.found, strict=True), 1):
        if len(found) < 2:
            continue
        which = f"photo {number} of {len(encoded.photos)}" if len(encoded.photos) > 1 else "the photo"
        others = ", ".join(f"face {i} ({_side(face, photo)})" for i, face in enumerate(found) if i)
        said.append(
            f"{which} shows {len(found)} faces; the largest is taken, face 0 ({_side(found[0], photo)}), and not {others}."
        )
    return said


def _side(face: DetectedFace, photo: np.ndarray) -> str:
    return SIDES[min(max(int(3 * face.center[0] / photo.shape[1]), 0), 2)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- Places -------------------------------------------------------------------------------------------------------


def place_people(cast: Cast | None, faces: Sequence[Face], places: Places = Places(), weights: str = "1") -> Cast:
    """A new cast with one more person for each face. ``weights``: one number for all, or one for each person.

    Whoever has neither mask nor box takes what others leave free.
    Raises DynamicIDError for more boxes or masks than people, and weights that do not fit.
    """
    before = len(cast.people) if cast else 0
    if beyond := [number for number in sorted(places.masks) if number >= len(faces)]:
        raise DynamicIDError(
            f"There is a mask for person {before + beyond[0] + 1}, but the last person is {before + len(faces)}. Remove it."
        )
    given = parse_weights(weights) or [1.0]
    if len(given) not in (1, len(faces)):
        raise DynamicIDError(
            f"There are {len(faces)} people but {len(given)} weights; give one weight for all, or one for each."
        )
    shares = given * len(faces) if len(given) == 1 else given
    frames = places.frames if places.frames is not None else [_boxes(places, len(faces))]
    counts = {len(boxes) for boxes in frames}  # where they differ, or are too many, place_in_boxes says so
    boxed = min(*counts, len(faces)) if len(counts) == 1 else len(faces)
    placed = place_in_boxes(None, faces[:boxed], frames, 1.0, places.cells, places.canvas)
    people = [*placed.people, *(Person(face) for face in faces[boxed:])]
    for number, mask in places.masks.items():
        region = Region(mask=mask if mask.ndim == 3 else mask[None])
        people[number] = dataclasses.replace(people[number], region=region)
    people = [dataclasses.replace(person, weight=share) for person, share in zip(people, shares, strict=True)]
    return (cast or Cast()).add(*people)


def _boxes(places: Places, people: int) -> list[Box]:
    if places.layout == FREE:
        return []
    return parse_boxes(places.drawn) if places.layout == DRAWN else arranged(places.layout, people)
