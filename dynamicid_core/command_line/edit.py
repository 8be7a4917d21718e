"""Give a face another expression or head pose, or one for each picture of a film, and keep it as a face file.

FACE is a face file, or a photo. What it shall show is said in words, by a photo of anybody, or over time by keyframes or by
the pictures of a video of anybody, one after another.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..animation import AnimationOptions
from ..face_files import FACE_FILE, save_face
from ..keyframes import EASINGS
from ..types import DynamicIDError
from ..writing import check_file
from . import models, people, world
from .encode import add_photo_arguments, photo_options
from .settings import PersonSettings, need_file

SUMMARY = "a face with another expression or pose, or one that moves"
EXAMPLES = """
examples:
  {program} anna.safetensors --expression "a very surprised expression, front view" -o surprised.safetensors
  {program} anna.safetensors --keyframes "0: neutral; 12: a very happy expression; 24: slightly turned to the left" -o film.safetensors
  {program} anna.jpg --driving video/*.png --smoothing 2 -o film.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("face", metavar="FACE", help="a face file, or a photo")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PATH", help="the new face file")
    parser.add_argument(
        "--expression", default="", metavar="TEXT", help='e.g. "a very surprised expression, front view"'
    )
    parser.add_argument(
        "--pose-image", metavar="PHOTO", help="take the pose, and without words the expression, from it"
    )
    parser.add_argument("--keyframes", default="", metavar="TEXT", help='e.g. "0: neutral; 12: very happy, front view"')
    parser.add_argument(
        "--driving", nargs="+", default=(), metavar="PICTURE", help="pictures of anybody whose motion to take"
    )
    default = AnimationOptions()
    parser.add_argument(
        "--frames", type=int, default=default.frames, metavar="N",
        help="pictures of the film (default: all of --driving, or up to the last keyframe)",
    )  # fmt: skip
    parser.add_argument("--easing", choices=tuple(EASINGS), default=default.easing, help="default: %(default)s")
    parser.add_argument(
        "--smoothing", type=float, default=default.smoothing, metavar="X",
        help="over how many pictures the motion of --driving is evened out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="0: as in the photo, 1: as asked for, up to 2"
    )
    parser.add_argument("--source", default="", metavar="TEXT", help="what the photo shows (default: read off it)")
    add_photo_arguments(parser)
    models.add_arguments(parser, pipeline=True)
    parser.set_defaults(offload=False)


def run(options: argparse.Namespace) -> dict[str, Any]:
    person = PersonSettings(
        (options.face,), expression=options.expression, expression_strength=options.strength, pose_image=options.pose_image,
        expression_source=options.source, keyframes=options.keyframes, driving=tuple(options.driving), easing=options.easing,
        smoothing=options.smoothing, name=Path(options.face).stem,
    )  # fmt: skip
    if not (person.moves or person.expression or person.pose_image):
        raise DynamicIDError("Nothing is asked for. Give --expression, --pose-image, --keyframes or --driving.")
    for path, what in ((options.face, "face file or photo"), *((path, "picture") for path in person.paths[1:])):
        need_file(path, what)
    check_file(options.output, FACE_FILE, person.paths)
    person.animation(options.frames)
    photos, poses = not people.is_face_file(options.face), bool(person.pose_image or person.driving)
    did = models.load_dynamicid(options, photos=photos, faces=photos or poses, expressions=True)
    how = {**(world.photo_defaults() if options.stand_in else {}), **photo_options(options)}
    face = people.make_face(did, person, how, options.frames)
    save_face(options.output, face, inputs=person.paths)
    frames = f" ({face.frames} frames)" if face.frames > 1 else ""
    return {"text": f"wrote {options.output}{frames}", "json": {"face": str(options.output), "frames": face.frames}}
