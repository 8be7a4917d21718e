"""What was asked for in pictures: by what they remember, by lists, by folders of either."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation.cases import Box, Case, Reference, pictures_in, read_cases
from ..evaluation.lists import is_list
from ..pictures import read_mask
from ..types import DynamicIDError
from .remembered import located
from .settings import PersonSettings, Settings, read_png

LISTS = ("list.jsonl", "list.json", "list.csv", "list.tsv", "list.toml")
DRAWINGS = ("_regions", "_activation")  # what `generate --explain` puts beside a picture


def cases_of(paths: Sequence[Path], people: Path | None = None) -> list[Case]:
    """The cases of pictures that remember their settings, of folders and of lists; ``people`` as in :func:`case_of`."""
    cases: list[Case] = []
    for path in paths:
        if path.is_dir():
            lists = [path / name for name in LISTS if (path / name).is_file()]
            found = [case for file in lists for case in read_cases(file)]
            cases += found or [case_of(picture, people) for picture in pictures_in(path) if not _is_drawing(picture)]
        elif is_list(path):
            cases += read_cases(path)
        elif not _is_drawing(path):
            cases.append(case_of(path, people))
    if not cases:
        raise DynamicIDError(f"There are no pictures in {', '.join(map(str, paths))}.")
    return cases


def _is_drawing(path: Path) -> bool:
    """Is it a drawing that `generate --explain` put beside a picture?"""
    plain = next((path.stem.removesuffix(end) for end in DRAWINGS if path.stem.endswith(end)), None)
    return plain is not None and path.with_name(plain + path.suffix).is_file()


def case_of(path: Path, people: Path | None = None) -> Case:
    """A picture that `generate` made, by what it remembers; DynamicIDError for any other.

    ``people``: where the photos lie that it names (:func:`remembered.located`).
    """
    if not os.path.isfile(path):
        raise DynamicIDError(f"There is no file {path}.")
    try:
        settings = read_png(path)
    except DynamicIDError as error:
        text = str(error).removeprefix("--from: ")
        raise DynamicIDError(f"{text} Say in a list who it shall show (`evaluate --help` has an example).") from error
    if not settings.people:
        raise DynamicIDError(f"{path} remembers nobody. Say in a list who it shall show.")
    settings = dataclasses.replace(settings, picture=None)  # what was refined is not looked at
    return case_from(located(settings, path, people), path)


def case_from(settings: Settings, picture: Path) -> Case:
    """A picture that was made with these settings, whose people's files are where they say."""
    return Case(picture, tuple(_reference(person, settings.photos) for person in settings.people), settings.prompt)


def _reference(person: PersonSettings, photos: dict[str, Any]) -> Reference:
    index = photos.get("index", 0) if person.index is None else person.index
    order, files = photos.get("order", "large-small"), tuple(map(Path, person.files))
    return Reference(files, person.name, _box_of(person), person.expression, order=order, index=index)


def _box_of(person: PersonSettings) -> Box | None:
    """Where the person may be; of a mask the bounds of its brighter half."""
    if person.mask is None:
        return person.box
    mask = read_mask(person.mask)[0].numpy()
    rows, columns = ((mask > mask.max() / 2).any(axis).nonzero()[0] for axis in (1, 0))
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
