"""What was asked for: a picture, who shall be in it, and what else it can be compared with.

A list names a picture in each row (:func:`read_cases`); its keys, all but ``picture`` and ``people`` optional:

================  ==================================================================================================
``picture``       the file
``people``        photos, folders of photos or face files of each person: ``["anna.jpg", {"photos": ["b1.jpg", "b2.jpg"],
                  "name": "Ben", "box": [0.5, 0, 1, 1], "expression": "happy", "pose": "front view"}]``; in CSV
                  ``anna.jpg; b1.jpg + b2.jpg``
``boxes``         where each shall be: left, top, right, bottom as fractions; in CSV ``0,0,0.5,1; 0.5,0,1,1``
``expressions``   what each shall show, likewise ``poses``; in CSV ``happy; sad``
``prompt``        what the picture shows
``ground_truth``  a real photo of the same people in such a scene
``baseline``      the same picture (prompt, seed, size) made without faces
``id``            its name when runs are compared (default: the file's name without its ending)
================  ==================================================================================================

Paths are relative to the list's folder.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..landmarks import EXPRESSIONS
from ..plain import one_line, shown
from ..prompts import GRID_POSES
from ..types import DynamicIDError
from .lists import Row, read_rows
from .readings import expression_word, pose_word

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FACES = (".safetensors", ".sft")
KEYS = ("picture", "people", "boxes", "expressions", "poses", "prompt", "ground_truth", "baseline", "id")
PERSON_KEYS = ("photos", "name", "box", "expression", "pose", "index")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Reference:
    """One person asked for."""

    photos: tuple[Path, ...]  # or one face file
    name: str = ""  # people with one name, or with one photo, are one person
    box: Box | None = None  # left, top, right, bottom: fractions of the picture
    expression: str = ""  # in any words that ``readings`` knows
    pose: str = ""
    order: str = "large-small"  # how the faces of a photo are numbered (faces.ORDERS)
    index: int = 0  # which of them it is

    def __post_init__(self) -> None:
        if not self.photos:
            raise DynamicIDError(f"Person {self.name!r} has no photo; name at least one.")

    @property
    def label(self) -> str:
        """What reports say."""
        return self.name or self.photos[0].stem

    @property
    def marks(self) -> frozenset[str]:
        """What makes somebody: two people with one mark are one person."""
        seen = {f"{photo.resolve()} {self.order} {self.index}" for photo in self.photos}
        return frozenset(seen | ({self.name} if self.name else set()))


@dataclass(frozen=True)
class Case:
    """One picture and what was asked for."""

    picture: Path
    people: tuple[Reference, ...]
    prompt: str = ""
    ground_truth: Path | None = None
    baseline: Path | None = None
    id: str = ""

    @property
    def name(self) -> str:
        """What the picture is called when runs are compared."""
        return self.id or self.picture.stem

    @property
    def photos(self) -> list[Path]:
        """The photos of its people; face files are none."""
        return [photo for person in self.people for photo in person.photos if photo.suffix.lower() not in FACES]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def read_cases(path: Path) -> list[Case]:
    """The cases of a list; DynamicIDError for keys that are unknown, files that are missing, numbers that differ."""
    cases = []
    for number, row in enumerate(read_rows(path), 1):
        try:
            cases.append(_case(row, path.parent))
        except DynamicIDError as error:
            raise DynamicIDError(f"Picture {number} of {path}: {error}") from error
    return cases


def _case(row: Row, folder: Path) -> Case:
    check_keys(row, KEYS)
    if not row.get("picture") or not row.get("people"):
        raise DynamicIDError("It must name a picture and its people.")
    people = entries(row["people"], "people")
    columns = {name: _each(row.get(name), len(people), name) for name in ("boxes", "expressions", "poses")}
    asked = zip(people, columns["boxes"], columns["expressions"], columns["poses"], strict=True)
    return Case(
        named_file(folder, row["picture"], "picture"),
        tuple(_person(folder, entry, box, expression, pose) for entry, box, expression, pose in asked),
        str(row.get("prompt", "")),
        named_file(folder, row["ground_truth"], "ground truth") if row.get("ground_truth") else None,
        named_file(folder, row["baseline"], "baseline") if row.get("baseline") else None,
        str(row.get("id", "")),
    )


def entries(values: Any, what: str, separator: str = ";") -> list[Any]:
    """The parts of a text between separators, or a list as it is. Raises DynamicIDError for anything else."""
    if isinstance(values, str):
        return [*values.split(separator)]
    if not isinstance(values, list):
        raise DynamicIDError(f"{what} is {shown(values)}; give a text, or a list.")
    return values


def named_file(folder: Path, name: Any, what: str) -> Path:
    """The file of that name in a list's folder. Raises DynamicIDError for what is no name, or is not there."""
    if not isinstance(name, str):
        raise DynamicIDError(f"The {what} is {shown(name)}, not the name of a file.")
    return existing(folder / name, what)


def _each(values: Any, count: int, what: str) -> Sequence[Any]:
    """One value for each person; None where nothing is given."""
    if values is None:
        return [None] * count
    values = entries(values, what)
    if len(values) != count:
        raise DynamicIDError(f"There are {count} people but {len(values)} {what}; give one for each, empty where none.")
    return values


def _person(folder: Path, entry: Any, box: Any, expression: Any, pose: Any) -> Reference:
    values: Row = dict(entry) if isinstance(entry, dict) else {"photos": entry}
    check_keys(values, PERSON_KEYS)
    photos = entries(values.get("photos") or [], "photos", "+")
    name = str(values.get("name", ""))
    files: list[Path] = []
    for photo in photos:
        path = named_file(folder, photo.strip() if isinstance(photo, str) else photo, "photo")
        files += photos_of(path) if path.is_dir() else [path]
        name = name or (path.name if path.is_dir() else "")
    return Reference(
        tuple(files),
        name,
        parse_box(values.get("box", box)),
        _known(str(values.get("expression") or expression or "").strip(), expression_word, EXPRESSIONS),
        _known(str(values.get("pose") or pose or "").strip(), pose_word, GRID_POSES),
        index=_index(values.get("index", 0)),
    )


def _index(value: Any) -> int:
    if isinstance(value, bool) or not str(value).strip().isdecimal() or len(str(value)) > 4:
        raise DynamicIDError(f"index is {shown(value)}; give the number of a face, from 0.")
    return int(value)


def _known(text: str, reads: Callable[[str], str | None], words: Sequence[str]) -> str:
    if text and reads(text) is None:
        raise DynamicIDError(f"{text!r} names none of {', '.join(words)}, or several.")
    return text


def photos_of(folder: Path) -> list[Path]:
    """The photos of one person; DynamicIDError where there are none."""
    if not (photos := pictures_in(folder)):
        raise DynamicIDError(f"The folder {folder} holds no photos ({', '.join(PICTURES)}).")
    return photos


def parse_box(values: Any) -> Box | None:
    """left, top, right, bottom from a list or a text; None for nothing. DynamicIDError for what is no such box."""
    given = values.replace(",", " ").split() if isinstance(values, str) else values
    if given is None or given == []:
        return None
    try:
        left, top, right, bottom = (float(value) for value in given if not isinstance(value, bool))
    except (TypeError, ValueError, OverflowError):
        left = top = right = bottom = math.nan
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise DynamicIDError(f"Box {shown(values)} is not left, top, right, bottom as fractions of the picture.")
    return left, top, right, bottom


def check_keys(row: Row, known: Sequence[str]) -> None:
    """Raises DynamicIDError for a key that means nothing here."""
    if unknown := sorted(set(row) - set(known)):
        raise DynamicIDError(
            f"{one_line(', '.join(map(repr, unknown)))} means nothing here; known are {', '.join(known)}."
        )


def existing(path: Path, what: str) -> Path:
    if not os.path.exists(path):
        raise DynamicIDError(f"There is no {what} {path}. Check the name and the folder.")
    return path


def gallery_of(folder: Path) -> list[Reference]:
    """People of a folder: a folder with photos for each person, or one photo (or face file) each."""
    if not folder.is_dir():
        raise DynamicIDError(f"There is no folder {folder}.")
    people = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            people.append(Reference(tuple(photos_of(path)), path.name))
        elif path.suffix.lower() in (*PICTURES, *FACES):
            people.append(Reference((path,), path.stem))
    if not people:
        raise DynamicIDError(f"The folder {folder} holds nobody: neither photos nor folders of photos.")
    return people


def who_is_who(people: Iterable[Reference]) -> dict[Reference, str]:
    """Each reference -> a label of the person; those who share a name or a photo are one, also through a third."""
    above: dict[str, str] = {}  # mark -> another of the same person, up to the one that stands for all

    def top(mark: str) -> str:
        while above.setdefault(mark, mark) != mark:
            mark = above[mark]
        return mark

    people = list(people)
    for person in people:
        first, *others = sorted(person.marks)
        for mark in others:
            above[top(mark)] = top(first)
    return {person: top(min(person.marks)) for person in people}


def checksum(path: Path) -> str:
    """sha256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
