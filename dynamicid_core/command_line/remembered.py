"""What a picture remembers, taken up again. It may be anybody's picture, so it decides numbers and words alone.

Which models are loaded, what is switched on and which folders are looked into, whoever types the command says: people's
files are looked for by their bare names, here and beside the picture, and are named before they are read.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from ..plain import one_line
from ..types import DynamicIDError
from .settings import PersonSettings, Settings, checksum, read_png


def remembered(picture: Path) -> Settings:
    """The settings of a picture that ``generate`` made, without the models that it names, which are told of instead.

    Its people are those that are written there; :func:`located` finds their files. Raises DynamicIDError as
    :func:`settings.read_png`.
    """
    settings = read_png(picture)
    if models := _models_of(settings):
        print(f"{picture} was made with {models}; what this command names or finds is used.", file=sys.stderr)
    return dataclasses.replace(settings, models={})


def _models_of(settings: Settings) -> str:
    """What a picture says of its models: the names of files, and of the option for the drawn world."""
    named = [_bare(str(path)) for option, path in settings.models.items() if option not in ("models", "stand_in")]
    return ", ".join(
        ["--stand-in"] * bool(settings.models.get("stand_in")) + [one_line(name) for name in named if name]
    )


def located(settings: Settings, picture: Path, tell: bool = False) -> tuple[PersonSettings, ...]:
    """The people of a picture, with their files as they are found in the current folder or in the picture's.

    What has changed since is said; with ``tell``, whose files are used, too. Raises DynamicIDError for a file that is in neither.
    """

    def place(path: str) -> str:
        found = _place(path, picture)
        sums[found] = settings.checksums.get(path, "")
        return found

    sums: dict[str, str] = {}
    people = tuple(
        dataclasses.replace(
            person,
            files=tuple(map(place, person.files)),
            mask=place(person.mask) if person.mask else None,
            pose_image=place(person.pose_image) if person.pose_image else None,
        )
        for person in settings.people
    )
    if tell and sums:
        print(f"The people of {picture}: {', '.join(map(one_line, sums))}.", file=sys.stderr)
    _note_changes(sums)
    return people


def _bare(path: str) -> str:
    """The name at the end of a path, of any system."""
    return re.split(r"[\\/]", path)[-1].replace("\0", "")


def _place(path: str, picture: Path) -> str:
    name = _bare(path)
    places = [] if name in ("", ".", "..") else [Path(name), picture.parent / name]
    found = next((str(place) for place in places if os.path.isfile(place)), None)
    if found is None:
        raise DynamicIDError(
            f"{picture} was made with {one_line(name)}, which is neither in this folder nor beside the picture; call this where it "
            "is, or name the people anew."
        )
    return found


def _note_changes(sums: Mapping[str, str]) -> None:
    """Say which files are no longer those that the picture was made with."""
    for path, sum_then in sums.items():
        if sum_then and sum_then != checksum(path):
            print(f"{one_line(path)} has changed since the picture was made; the result will differ.", file=sys.stderr)
