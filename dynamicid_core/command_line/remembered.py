"""What a picture remembers, taken up again. It may be anybody's picture, so it decides numbers and words alone.

Which models are loaded, what is switched on and which folders are looked into, whoever types the command says: people's
files, and the picture that was refined, are looked for by their bare names, and are named before they are read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..plain import one_line
from ..types import DynamicIDError
from .settings import Settings, bare


def located(settings: Settings, picture: Path, folder: Path | None = None) -> Settings:
    """The settings of a picture with its :attr:`Settings.paths` found: in ``folder`` and the folders there, or else in the
    current folder or beside the picture.

    Raises DynamicIDError where one is not there, and where several have its name: nothing tells which it was.
    """
    if folder is None:
        places, looked = [Path(), picture.parent], "neither in this folder nor beside the picture"
    else:
        places = [folder, *sorted(place for place in folder.glob("*") if place.is_dir())]
        looked = f"neither in {folder} nor in the folders there"

    def found(path: str) -> str:
        name = bare(path)
        files = _files(name, places)
        if len(files) == 1:
            return files[0]
        what = f"there are several of that name ({', '.join(files)})" if files else f"which is {looked}"
        cure = "Name it with --picture, or its folder" if path == settings.picture else "Name the folder of its photos"
        raise DynamicIDError(f"{picture} was made with {one_line(name)}, {what}. {cure} with --people.")

    return settings.with_files(found)


def _files(name: str, places: Sequence[Path]) -> list[str]:
    """The files of that name, each once."""
    found: dict[Path, str] = {}
    for place in places:
        if name and os.path.isfile(path := place / name):
            found.setdefault(path.resolve(), str(path))
    return list(found.values())


def note_files(settings: Settings, picture: Path) -> None:
    """Say which files are taken for those of a picture."""
    if paths := dict.fromkeys(path for person in settings.people for path in person.paths):
        print(f"The people of {picture}: {', '.join(map(one_line, paths))}.", file=sys.stderr)
    if settings.picture:
        print(f"The picture that is refined: {one_line(settings.picture)}.", file=sys.stderr)


def note_models(picture: Path, then: Mapping[str, Any], used: Mapping[str, Any]) -> None:
    """Say which models are not those that a picture was made with; those of the command are ``used``."""
    now = {option: _shown(option, value) for option, value in used.items()}
    other = {option: text for option, value in then.items() if (text := _shown(option, value)) != now.get(option, "")}
    if not any(other.values()):
        return
    instead = ", ".join(now[option] for option in now if option in other or "stand_in" in {*other, option})
    rest = f"is made with {instead} now" if instead else "without it now"
    print(
        f"{picture} was made with {', '.join(filter(None, other.values()))}, and {rest}; it will differ.",
        file=sys.stderr,
    )


def _shown(option: str, value: Any) -> str:
    """A model as it is named to the user."""
    return ("--stand-in" if value else "") if option == "stand_in" else one_line(bare(str(value)))
