"""Files in a set's folder: photos linked or copied into it under names that every system allows, small pictures of others.

A photo is a hard link to the original where the file system can, which costs no room; else, or out of a shard, a copy.
"""

from __future__ import annotations

import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from .. import writing
from ..pictures import to_rgb
from ..saving import write_picture
from ..types import DynamicIDError
from .settings import FILE as SETTINGS_FILE
from .sources import Source

PHOTOS, EXAMPLES = "photos", "examples"
OURS = re.compile(r"[0-9a-f]{16}\.\w{3,4}")  # names that are made here; nothing else is ever deleted
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
LONGEST_NAME = 80
EXAMPLE_SIDE = 320  # px


def check_folder(folder: Path, sources: Iterable[str]) -> None:
    """Raise DynamicIDError for a folder that is no place for a set: with other things in it, or among its own sources."""
    if folder.is_file():
        raise DynamicIDError(f"{folder} is a file; give --output a folder.")
    writing.check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not _begun(folder):
        raise DynamicIDError(f"{folder} holds other things and no training set; give --output a new or empty folder.")
    for source in map(Path, sources):
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise DynamicIDError(
                f"{folder} lies in {source}, whose photos it is made from; give --output another folder."
            )
        if source.resolve().is_relative_to(folder.resolve()):
            raise DynamicIDError(f"{source} lies in {folder}, which becomes the set; give --output another folder.")


def _begun(folder: Path) -> bool:
    from .store import FILE as STORE_FILE

    return any((folder / name).is_file() for name in (SETTINGS_FILE, STORE_FILE))


def safe_names(people: Iterable[str]) -> dict[str, str]:
    """Person -> folder name that Windows, macOS and Linux allow, each another one, whatever case counts for."""
    names: dict[str, str] = {}
    used: set[str] = set()
    for person in sorted(people):
        name = FORBIDDEN.sub("_", unicodedata.normalize("NFC", person))[:LONGEST_NAME].strip(" .") or "_"
        if RESERVED.fullmatch(name):
            name = f"_{name}"
        free, number = name, 2
        while free.casefold() in used:
            free, number = f"{name} ({number})", number + 1
        used.add(free.casefold())
        names[person] = free
    return names


def photo_path(names: Mapping[str, str], person: str, photo: str, suffix: str) -> str:
    """Where a photo that is taken lies in the set's folder."""
    return f"{PHOTOS}/{names[person]}/{photo[:16]}{suffix}"


def place(folder: Path, path: str, source: Source, copy: bool) -> None:
    """Put one photo into the set, unless it is there. Raises DynamicIDError if it cannot be."""
    target = folder / path
    if target.is_file():
        return
    try:
        if source.length >= 0:
            writing.write(target, source.read())
        elif copy or not _linked(Path(source.file), target):
            writing.copy(source.file, target)
    except OSError as error:
        raise DynamicIDError(f"The photo {source.name} could not be put into {folder} ({error}).") from error


def _linked(original: Path, target: Path) -> bool:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(original.resolve(), target)
    except OSError:  # another disk, or a file system without links
        return False
    return True


def tidy(folder: Path, kept: set[str]) -> None:
    """Delete what an earlier build put there and this one did not."""
    for part in (PHOTOS, EXAMPLES):
        for file in sorted((folder / part).rglob("*"), reverse=True):
            if file.is_dir():
                if not any(file.iterdir()):
                    file.rmdir()
            elif OURS.fullmatch(file.name) and file.relative_to(folder).as_posix() not in kept:
                file.unlink()


def keep_example(folder: Path, path: str, source: Source) -> bool:
    """A small copy of a photo that was left out, for the report; False if nothing can be seen in it."""
    target = folder / path
    if target.is_file():
        return True
    try:
        with Image.open(io.BytesIO(source.read())) as image:
            image.load()
            small = Image.fromarray(to_rgb(image))
    except Exception:  # a file that is no picture has no small one
        return False
    small.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE), Image.Resampling.LANCZOS)
    write_picture(target, small, quality=85)
    return True
