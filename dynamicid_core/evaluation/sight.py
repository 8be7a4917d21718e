"""Who is seen in which file: faces of pictures and photos by one recogniser, and the identities of people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..face_files import load_face
from ..faces import DetectedFace, pick_face
from ..pictures import to_rgb
from ..types import DynamicIDError, is_same_recogniser
from .cases import FACES, Case, Reference, checksum
from .recognisers import Recogniser
from .store import Store, pack_faces, unpack_faces
from .workers import Workers


@dataclass(frozen=True, eq=False)
class Seen:
    """What a recogniser sees in one file."""

    faces: tuple[DetectedFace, ...]  # from left to right
    size: tuple[int, int]  # height, width in pixels


@dataclass(frozen=True, eq=False)
class Known:
    """A person's identity by one recogniser; None with a note why."""

    identity: np.ndarray | None  # [d]
    note: str = ""
    box: tuple[float, float, float, float] | None = None  # of the face in the first photo, as fractions of it


def fractions(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box in pixels as fractions of a picture of ``size`` (height, width)."""
    height, width = size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def files_of(cases: Iterable[Case], gallery: Iterable[Reference] = ()) -> list[Path]:
    """Every file in which faces are looked for, once each, in an order that depends on the cases alone."""
    files: list[Path] = []
    for case in cases:
        files += [case.picture, *case.photos]
        files += [path for path in (case.ground_truth, case.baseline) if path]
    files += [photo for person in gallery for photo in person.photos if photo.suffix.lower() not in FACES]
    return list(dict.fromkeys(files))


def look(recogniser: Recogniser, files: Sequence[Path], store: Store, workers: Workers) -> dict[Path, Seen]:
    """The faces of every file; what was seen before is read from the store."""

    def one(path: Path) -> Seen:
        try:
            key = checksum(path)
        except OSError as error:
            raise DynamicIDError(f"The picture {path} cannot be read ({error}).") from error
        if (arrays := store.get(recogniser.name, key)) is None:
            image = to_rgb(path)
            arrays = {**pack_faces(recogniser.detect(image)), "size": np.array(image.shape[:2])}
            store.put(recogniser.name, key, arrays)
        height, width = arrays["size"].tolist()
        faces = sorted(unpack_faces(arrays), key=lambda face: face.center)
        return Seen(tuple(faces), (height, width))

    return dict(zip(files, workers.map(one, files, f"faces ({recogniser.name})"), strict=True))


def _from_file(person: Reference, recogniser: Recogniser) -> Known:
    """What a face file says, if it was made with this recogniser: no other can read its identity."""
    face = load_face(person.photos[0])
    if not is_same_recogniser(face.recogniser, recogniser.name):
        return Known(None, f"{person.label} is a face file, which {recogniser.name} cannot read; give photos.")
    if face.identity is None:
        return Known(None, f"The face file of {person.label} holds no identity.")
    return Known(face.identity.numpy())


def know(person: Reference, recogniser: Recogniser, seen: dict[Path, Seen]) -> Known:
    """Who a person is: the average of their photos, or what the face file says."""
    if person.photos[0].suffix.lower() in FACES:
        return _from_file(person, recogniser)
    identities, without, box = [], [], None
    for photo in person.photos:
        found = seen[photo]
        try:
            face = pick_face(found.faces, person.order, person.index, found.size)
        except DynamicIDError:
            face = None
        if face is None or face.identity is None:
            without.append(photo.name)
            continue
        identities.append(face.identity)
        if photo == person.photos[0]:
            box = fractions(face.box, found.size)
    note = f"{recogniser.name} finds no such face of {person.label} in {', '.join(without)}." if without else ""
    return Known(recogniser.average(np.stack(identities)) if identities else None, note, box)
