"""Turn photos into face files, which hold numbers only, no photo. They still identify a person: treat them like a photo.

All photos given are of one person and are averaged, unless --each is given: then a photo that cannot be encoded is
named at the end, and the others become faces all the same. With --group everybody in one photo becomes a face file, from
left to right, and is told with the box in which the photo shows them, for --box of generate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..face_files import FACE_FILE, save_face
from ..faces import ON_NO_FACE, ORDERS
from ..pictures import check_crop_factor
from ..types import DynamicIDError
from ..writing import check_file, check_folder
from . import group, models, world
from .settings import need_file

if TYPE_CHECKING:
    from ..encode import EncodedFace

SUMMARY = "photos to face files"
EXAMPLES = """
examples:
  {program} anna.jpg                                   writes anna.safetensors
  {program} anna1.jpg anna2.jpg -o faces/anna.safetensors
  {program} --each portraits/*.jpg -o faces            a file for each photo, in the folder
  {program} group.jpg --order left-right --index 1     the second face from the left
  {program} --group group.jpg --names "Anna, Ben, -" -o faces    a file for each of the first two from the left
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos of one person")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="the face file; with --each and --group the folder (default: as the photo)",
    )
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--each", action="store_true", help="every photo is another person")
    several.add_argument("--group", action="store_true", help="everybody in the photo is another person")
    parser.add_argument(
        "--names",
        metavar="TEXT",
        help="with --group: who they are, in their order; - leaves one out (default: numbers)",
    )
    parser.add_argument(
        "--smallest", type=int, metavar="PX", help="with --group: smaller faces are left out (default: 0)"
    )
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
    """Those of the above that were given, as arguments of :func:`encode.encode_photos`. Checks the crop factor."""
    names = ("order", "index", "crop_factor", "on_no_face")
    if options.crop_factor is not None:
        check_crop_factor(options.crop_factor)
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def target_of(photos: list[str], options: argparse.Namespace) -> Path:
    """The face file of these photos."""
    first = Path(photos[0])
    beside = first.with_suffix(".safetensors") if first.name else first  # "." and "/" are no photos, as is said later
    output: Path | None = options.output
    if output is None:
        return beside
    return output / beside.name if options.each else output


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.group:
        return group.run(options, photo_options(options))
    if options.names is not None or options.smallest is not None:
        raise DynamicIDError("--names and --smallest are about the people of one photo; give --group too.")
    how = {**(world.photo_defaults() if options.stand_in else {}), **photo_options(options)}
    groups = [[photo] for photo in options.photos] if options.each else [options.photos]
    jobs = {target_of(photos, options): photos for photos in groups}
    if len(jobs) < len(groups):
        targets = [target_of(photos, options) for photos in groups]
        twice = min(str(target) for target in targets if targets.count(target) > 1)
        raise DynamicIDError(f"Several photos would become {twice}; encode them apart, or leave --output out.")
    if options.each and options.output:
        check_folder(options.output)
    failed = _tried(jobs, lambda target: _check(target, jobs[target], options), options.each)
    written: dict[Path, EncodedFace] = {}
    if len(failed) < len(jobs):
        encoder = models.load_photo_encoder(options)

        def encode(target: Path) -> None:
            encoded = encoder.encode(*jobs[target], name=target.stem, **how)
            if encoded.message:
                print(f"{target.stem}: {encoded.message}", file=sys.stderr)
            save_face(target, encoded.face, inputs=options.photos)
            written[target] = encoded

        failed |= _tried([target for target in jobs if target not in failed], encode, options.each)
    return _result(jobs, written, failed)


def _check(target: Path, photos: Sequence[str], options: argparse.Namespace) -> None:
    """Raise DynamicIDError for what would fail later: a photo that is not there, a face file that cannot be written."""
    for photo in photos:
        need_file(photo, "photo")
    check_file(target, FACE_FILE, options.photos)


def _tried(targets: Iterable[Path], do: Callable[[Path], object], each: bool) -> dict[Path, str]:
    """What is wrong with those for which it fails; without ``each``, the first that fails ends all."""
    failed = {}
    for target in targets:
        try:
            do(target)
        except DynamicIDError as error:
            if not each:
                raise
            failed[target] = " ".join(str(error).split())
    return failed


def _result(
    jobs: Mapping[Path, Sequence[str]], written: Mapping[Path, EncodedFace], failed: Mapping[Path, str]
) -> dict[str, Any]:
    lines, faces, mistakes = [], [], []
    for target, encoded in written.items():
        photos, found = jobs[target], [len(one) for one in encoded.found]
        plural = "s" * (len(photos) > 1)
        lines.append(f"wrote {target} ({len(photos)} photo{plural}, faces found: {', '.join(map(str, found))})")
        faces.append({"face": str(target), "photos": photos, "faces_found": found, "message": encoded.message})
    for target in jobs:
        if (message := failed.get(target)) is not None:
            photo = jobs[target][0]
            print(f"error: {message if photo in message else f'{photo}: {message}'}", file=sys.stderr)
            mistakes.append({"photo": photo, "error": message})
    if failed:
        print(f"{len(failed)} of {len(jobs)} photos were not encoded.", file=sys.stderr)
    return {"text": "\n".join(lines), "json": {"written": faces, "failed": mistakes}, "failed": bool(failed)}
