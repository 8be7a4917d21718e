"""Turn photos into face files, which hold numbers only, no photo. They still identify a person: treat them like a photo.

All photos given are of one person and are averaged, unless --each is given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..faces import ON_NO_FACE, ORDERS
from ..types import DynamicIDError
from . import models, world

SUMMARY = "photos to face files"
EXAMPLES = """
examples:
  {program} anna.jpg                                   writes anna.safetensors
  {program} anna1.jpg anna2.jpg -o faces/anna.safetensors
  {program} --each portraits/*.jpg -o faces            a file for each photo, in the folder
  {program} group.jpg --order left-right --index 1     the second face from the left
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos of one person")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="the face file; with --each the folder (default: as the photo)",
    )
    parser.add_argument("--each", action="store_true", help="every photo is another person")
    add_photo_arguments(parser)
    models.add_arguments(parser, pipeline=False)


def add_photo_arguments(parser: argparse.ArgumentParser) -> None:
    """How photos are read; shared with ``generate``."""
    group = parser.add_argument_group("photos")
    group.add_argument(
        "--order", choices=ORDERS, help="how faces are numbered where there are several (default: large-small)"
    )
    group.add_argument("--index", type=int, metavar="N", help="which of them, from 0 (default: 0)")
    group.add_argument(
        "--crop-factor",
        type=float,
        metavar="X",
        help="0: encode the whole photo (default), else X face sizes around the face",
    )
    group.add_argument(
        "--on-no-face", choices=ON_NO_FACE, help="what to do with photos that show no face (default: error)"
    )


def photo_options(options: argparse.Namespace) -> dict[str, Any]:
    """Those of the above that were given, as arguments of :func:`encode.encode_photos`."""
    names = ("order", "index", "crop_factor", "on_no_face")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def target_of(photos: list[str], options: argparse.Namespace) -> Path:
    """The face file of these photos."""
    beside = Path(photos[0]).with_suffix(".safetensors")
    output: Path | None = options.output
    if output is None:
        return beside
    return output / beside.name if options.each else output


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..face_files import save_face

    groups = [[photo] for photo in options.photos] if options.each else [options.photos]
    targets = [target_of(photos, options) for photos in groups]
    if twice := sorted({str(target) for target in targets if targets.count(target) > 1}):
        raise DynamicIDError(f"Several photos would become {twice[0]}; encode them apart, or leave --output out.")
    encoder = models.load_photo_encoder(options)
    how = {**(world.photo_defaults() if options.stand_in else {}), **photo_options(options)}
    written, lines = [], []
    for photos, target in zip(groups, targets, strict=True):
        name = target.stem
        encoded = encoder.encode(*photos, name=name, **how)
        if encoded.message:
            print(f"{name}: {encoded.message}", file=sys.stderr)
        save_face(target, encoded.face)
        faces = [len(found) for found in encoded.found]
        written.append({"face": str(target), "photos": photos, "faces_found": faces, "message": encoded.message})
        lines.append(
            f"wrote {target} ({len(photos)} photo{'s' * (len(photos) > 1)}, faces found: {', '.join(map(str, faces))})"
        )
    return {"text": "\n".join(lines), "json": {"written": written}}
