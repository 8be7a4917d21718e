"""Films for ``generate``: pictures one after another, each with its frame's faces, as a WebP or as numbered PNGs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..saving import PICTURE
from ..types import Cast
from ..writing import AnyPath, check_file
from .settings import Settings, write_png, write_webp

if TYPE_CHECKING:
    from PIL.Image import Image

ANIMATED = ".webp"  # the ending of a film in one file
UNASKED = {"frames": None, "fps": None}  # what a command has set that makes single pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "films",
        f"Where faces move: an animated picture if --output ends in {ANIMATED}, else numbered PNGs. All begin with one noise.",
    )
    group.add_argument("--frames", type=int, metavar="N", help="pictures (default: as many as the longest motion has)")
    group.add_argument("--fps", type=float, metavar="X", help=f"pictures in a second (default: {Settings.fps:g})")


def length(settings: Settings, cast: Cast) -> int:
    """How many pictures the film of a cast has; 1: it is a picture."""
    return settings.frames or cast.frames


def paths_of(output: Path, count: int) -> list[Path]:
    """The files of a film of so many pictures, or of one picture."""
    if count == 1 or _is_animated(output):
        return [output]
    digits = max(4, len(str(count - 1)))
    return [output.with_name(f"{output.stem}_{number:0{digits}}{output.suffix}") for number in range(count)]


def check(output: Path, count: int, inputs: Sequence[AnyPath]) -> None:
    """Raise DynamicIDError where one of the files cannot be written."""
    for path in paths_of(output, count):
        check_file(path, PICTURE, inputs)


def make(
    count: int,
    cast: Cast,
    draw: Callable[[Cast, int], Image],
    output: Path,
    settings: Settings,
    told: bool,
    inputs: Iterable[AnyPath] = (),
) -> list[Path]:
    """Draw and write a film, or one picture: ``draw`` makes a picture of the people as they are in it. PNGs are written one by one."""
    paths, kept = paths_of(output, count), []
    for number in range(count):
        picture = draw(cast.at(number), number)
        if _is_animated(output):
            kept.append(picture)
        else:
            write_png(paths[number], picture, settings if told else None, inputs)
    if kept:
        write_webp(output, kept, settings, told, inputs)
    return paths


def _is_animated(output: Path) -> bool:
    return output.suffix.lower() == ANIMATED
