"""What an artist sees of photos that became a cast: uint8 RGB [h, w, 3], everybody with number, name and colour."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .captions import person_color
from .casting import EncodedPeople
from .drawing import (
    GROUND,
    PREVIEW_SIZE,
    SHARED_LETTERS,
    STRANGER,
    draw_cast,
    draw_labelled,
    person_label,
    preview_size,
)
from .encode import EncodedFace
from .groups import EncodedGroup
from .types import Cast, Person

NOT_TAKEN = "not taken"


def draw_group(encoded: EncodedGroup) -> np.ndarray:
    """The photo, whose faces have the names that they got, at most ``PREVIEW_SIZE`` px long."""
    people = list(enumerate(encoded.cast.people))
    labels = {number: (person_label(number, person), person_color(number)) for number, person in people}
    labels |= {len(people) + i: (NOT_TAKEN, STRANGER) for i in range(len(encoded.left_out))}
    return _small(draw_labelled(encoded.photo, [*encoded.found, *encoded.left_out], labels))


def draw_people(encoded: EncodedPeople, cast: Cast, width: int, height: int) -> list[np.ndarray]:
    """Where everybody may appear in a picture of that size, then each photo, with whose it is: pictures of one size."""
    before = len(cast.people) - len(encoded.faces)  # who was in the cast already
    size = preview_size(width, height)
    pictures = [draw_cast(cast, *size, letters=SHARED_LETTERS)]
    for number, made in enumerate(encoded.encoded, before):
        if made is not None:
            pictures += [_framed(photo, size) for photo in _photos(made, number, cast.people[number])]
    return pictures


def _photos(made: EncodedFace, number: int, person: Person) -> list[np.ndarray]:
    drawn = []
    for photo, found, chosen in zip(made.photos, made.found, made.chosen, strict=True):
        labels = {
            i: (person_label(number, person), person_color(number))
            if face is chosen
            else (f"face {i}: {NOT_TAKEN}", STRANGER)
            for i, face in enumerate(found)
        }
        drawn.append(draw_labelled(photo, found, labels, SHARED_LETTERS))
    return drawn


def _small(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture)
    small.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    return np.asarray(small)


def _framed(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """All of a picture, in the middle of one of ``size`` (width, height)."""
    whole, sheet = Image.fromarray(picture), Image.new("RGB", size, GROUND)
    scale = min(size[0] / whole.width, size[1] / whole.height)
    inner = whole.resize(
        (max(round(whole.width * scale), 1), max(round(whole.height * scale), 1)), Image.Resampling.LANCZOS
    )
    sheet.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return np.asarray(sheet)
