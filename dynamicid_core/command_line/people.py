"""People of a picture: as they are typed, and as a cast."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.cases import parse_box
from ..face_files import load_face
from ..keyframes import EASINGS
from ..pictures import read_mask
from ..types import Cast, DynamicIDError, Face, Person, Region
from .settings import PersonSettings, Settings

if TYPE_CHECKING:
    from ..hosts.diffusers import DynamicID


class _PersonAction(argparse.Action):
    """Options about people, in the order in which they were typed."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        people = list(namespace.people or [])
        if self.dest == "face":
            people.append({"files": tuple(values)})
        elif not people:
            parser.error(f"{option_string} belongs to the --face before it, and there is none")
        else:
            people[-1] = {**people[-1], self.dest: tuple(values) if isinstance(values, list) else values}
        namespace.people = people


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        box = parse_box(text)
    except DynamicIDError:
        box = None
    if box is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not left,top,right,bottom: fractions of the picture, left before right and top before bottom"
        )
    return box


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options about people, each belonging to the ``--face`` before it."""
    group = parser.add_argument_group("people", "In the order in which they are typed; each --face starts another.")

    def add(flag: str, **how: Any) -> None:
        group.add_argument(flag, action=_PersonAction, **how)

    group.set_defaults(people=None)
    add("--face", nargs="+", metavar="FILE", help="photos of one person, or a face file")
    add("--box", type=_box, metavar="L,T,R,B", help="where that person may be, as fractions of the picture")
    add("--mask", metavar="FILE", help="... or a picture that is white there; grey is soft")
    add("--weight", type=float, metavar="X", help="that person's strength (default: 1)")
    add("--name", help="shown in drawings (default: the file's name)")
    add("--face-index", type=int, dest="index", metavar="N", help="which face of that person's photos, from 0")
    add("--expression", metavar="TEXT", help='e.g. "a very surprised expression, front view"')
    add("--expression-strength", type=float, metavar="X", help="0: the photo's, 1: as described (default), up to 2")
    add("--expression-source", metavar="TEXT", help="what that person's photo shows (default: read off it)")
    add(
        "--keyframes",
        metavar="TEXT",
        help='what the face shows in which picture of a film: "0: neutral; 12: very happy"',
    )
    add("--driving", nargs="+", metavar="PICTURE", help="pictures of anybody whose motion the face takes, one by one")
    add(
        "--easing", choices=tuple(EASINGS), help=f"how one keyframe becomes the next (default: {PersonSettings.easing})"
    )
    add("--smoothing", type=float, metavar="X", help="over how many pictures the motion of --driving is evened out")
    add(
        "--pose-image",
        metavar="PHOTO",
        help="take the pose, and the expression where none is given, from this photo of anybody",
    )


def people_of(options: argparse.Namespace) -> tuple[PersonSettings, ...]:
    """People as typed: photos first, then each --face."""
    typed = [{"files": (photo,)} for photo in options.photos] + (options.people or [])
    people = tuple(PersonSettings(**person) for person in typed)
    for number, person in enumerate(people, 1):
        if person.box and person.mask:
            raise DynamicIDError(f"Person {number} has a box and a mask; give one of them.")
        for path in person.paths:
            if os.path.isdir(path):
                raise DynamicIDError(f"{path} is a folder; name a file in it (person {number}).")
            if not os.path.isfile(path):
                raise DynamicIDError(f"There is no file {path} (person {number}).")
    return people


def is_face_file(path: str) -> bool:
    return path.endswith((".safetensors", ".sft"))


def make_face(did: DynamicID, person: PersonSettings, how: Mapping[str, Any], frames: int = 0) -> Face:
    """The face of a face file or of photos, with the expressions asked for; ``how``: options of ``DynamicID.encode``;
    ``frames``: of the film, 0: as many as the face's own motion has."""
    first = person.files[0]
    name = person.name or Path(first).stem
    if is_face_file(first):
        if len(person.files) > 1:
            raise DynamicIDError(f"A person is one face file or several photos, not {', '.join(person.files)}.")
        face = dataclasses.replace(load_face(first), name=name)  # apply says what is odd about it
    else:
        how = {**how, **({"index": person.index} if person.index is not None else {})}
        encoded = did.photos.encode(*person.files, name=name, **how)
        if encoded.message:
            print(f"{name}: {encoded.message}", file=sys.stderr)
        face = encoded.face
    if person.moves:
        return did.animate(
            face,
            person.keyframes,
            driving=person.driving,
            source=person.expression_source,
            options=person.animation(frames),
            warn=lambda text: print(f"{name}: {text}", file=sys.stderr),
        )
    if not (person.expression or person.pose_image):
        return face
    return did.edit(
        face,
        person.expression,
        source=person.expression_source,
        pose_image=person.pose_image,
        strength=person.expression_strength,
    )


def make_region(person: PersonSettings) -> Region | None:
    """Where a person may be: a box, a mask picture, or None."""
    if person.box:
        left, top, right, bottom = person.box
        return Region(box=(top, left, bottom, right))
    if not person.mask:
        return None
    return Region(mask=read_mask(person.mask))


def make_cast(did: DynamicID, settings: Settings) -> Cast:
    """Everybody, in the order in which they were typed."""
    people = (
        Person(make_face(did, p, settings.photos, settings.frames), make_region(p), p.weight) for p in settings.people
    )
    return Cast(tuple(people))
