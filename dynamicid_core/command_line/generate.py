"""Make a picture of people from photos or face files.

Each photo is another person; --face starts a person too, and --box, --mask, --expression, --weight, --name and
--face-index that follow belong to the --face before them. Without boxes or masks several people stand side by side.

The PNG remembers its settings, and files by their names, without folders; --from makes the picture again, and other
options change it. Models are those of the command, not of the picture; people's files are looked for in the current folder,
beside the picture, or in --people. --no-metadata leaves all of that out.

With --refine the faces are sampled again, each enlarged and with its person alone; --picture does so with a picture that
is there.

With --keyframes or --driving, or with face files that move, it is a film.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bases import base_named
from ..saving import PICTURE, write_picture
from ..types import CHOICES, Cast, DynamicIDError, SAAOptions
from ..writing import check_file
from . import film, models, people, refining, world
from .encode import add_photo_arguments, photo_options
from .remembered import located, note_files, note_models
from .settings import SAMPLERS, Settings, need_file, read_png

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..gate_maps import GateRecorder
    from ..hosts.diffusers import DynamicID
    from ..refining import RefinedPicture

SUMMARY = "a picture of people from photos or face files"
EXAMPLES = """
examples:
  {program} anna.jpg ben.jpg --model realistic_vision.safetensors --prompt "two people at a cafe"
  {program} --face anna.jpg --box 0,0.1,0.5,1 --expression "a very surprised expression, front view" \\
      --face ben.safetensors --box 0.5,0,1,1 --prompt "two people at a cafe" --size 1024x768 --seed 7 -o cafe.png
  {program} --face anna1.jpg anna2.jpg --mask left.png          two photos of one person, a painted region
  {program} --from cafe.png --seed 8                            the same with another seed, where its photos are
  {program} --face anna.jpg --keyframes "0: neutral; 12: very happy" --face ben.jpg --keyframes "8: neutral; 20: surprised" \
      --fps 12 -o film.webp                                     a film of 21 pictures
  {program} --picture group.jpg anna.jpg ben.jpg --refine-which unlike --refine-tries 4 --refine-prompt "photo of a face"
  {program} --stand-in --explain                                without any model files: two drawn people

Boxes are left,top,right,bottom as fractions of the picture, from 0,0 (upper left) to 1,1.
"""
OPTION_HELP = {
    "weight": "strength of all faces",
    "start_at": "fraction of the schedule at which faces begin to act",
    "end_at": "... and at which they cease to",
    "layout_strength": "boost inside the regions at the beginning",
    "layout_end": "fraction of the schedule at which that boost ends",
    "gate_threshold": "activations below it count as 0",
    "outside": "who is visible outside all regions",
    "lora_strength": "strength of the LoRA",
    "placement": "people without a region: side by side or in what others leave free (regions), or each in a place that is "
    "found where the picture wants people (automatic)",
    "find_until": "with --placement automatic: fraction of the sampling after which found places hold",
}
DRAWINGS = ("regions", "activation")  # of --explain
PREFIXED = {"weight": "--face-weight"}  # --weight is one person's


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if not all(part.isdecimal() and len(part) < 10 for part in parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT or one number")
    return int(parts[0]), int(parts[-1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="a photo (or face file) of each person")
    parser.add_argument("--prompt", help="what the picture shows")
    parser.add_argument("--negative", metavar="TEXT", help="what it shall not show")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("dynamicid.png"), metavar="PNG", help="default: %(default)s"
    )
    parser.add_argument("--from", type=Path, dest="origin", metavar="PNG", help="take the settings of this picture")
    parser.add_argument(
        "--people", type=Path, dest="people_folder", metavar="FOLDER",
        help="with --from: where the photos lie that it names (default: the current folder, or the picture's)",
    )  # fmt: skip
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="write nothing but the picture; it then cannot be made again by --from",
    )
    parser.add_argument(
        "--explain", action="store_true", help="also draw the regions (NAME_regions.png) and where identity went in "
        "(NAME_activation.png)",
    )  # fmt: skip
    people.add_arguments(parser)
    add_sampling_arguments(parser).add_argument(
        "--seed", type=int, help="default: a new one each time, written into the picture"
    )
    add_option_arguments(parser)
    refining.add_arguments(parser)
    film.add_arguments(parser)
    add_photo_arguments(parser)
    models.add_arguments(parser, pipeline=True)
    parser.add_argument("--offload", action="store_true", help="keep on the device only what is at work; saves memory")


def add_sampling_arguments(parser: argparse.ArgumentParser) -> Any:
    """How pictures are sampled, all but the seed; shared with ``evaluate``. Returns the group."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="in pixels, multiples of 8 (default: 768x768; of an SDXL model, 1024x1024)",
    )
    group.add_argument("--steps", type=int, help="default: 50")
    group.add_argument("--cfg", type=float, help="guidance; 1: none (default: 5)")
    group.add_argument("--sampler", choices=SAMPLERS, help="default: ddim")
    return group


def add_option_arguments(parser: argparse.ArgumentParser) -> None:
    """How faces act; shared with ``evaluate``."""
    group = parser.add_argument_group("how faces act")
    for option in dataclasses.fields(SAAOptions):
        flag = PREFIXED.get(option.name, f"--{option.name.replace('_', '-')}")
        words = CHOICES.get(option.name)
        kind: dict[str, Any] = {"choices": words} if words else {"type": float, "metavar": "X"}
        text = f"{OPTION_HELP[option.name]} (default: {option.default})"
        group.add_argument(flag, dest=f"option_{option.name}", help=text, **kind)


# --- settings -----------------------------------------------------------------------------------------------------


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of the picture given by --from, or the defaults, changed by what was typed."""
    base = read_png(options.origin) if options.origin else Settings(seed=random.SystemRandom().randrange(2**32))
    if options.origin is None and options.stand_in:
        base = dataclasses.replace(base, **world.defaults(len(people.people_of(options)) or len(world.SHOWN)))
    names = ("prompt", "negative", "steps", "cfg", "seed", "sampler", "picture", "frames", "fps")
    typed: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.size:
        typed["width"], typed["height"] = options.size
    fields = [field.name for field in dataclasses.fields(SAAOptions)]
    acts = {
        name: getattr(options, f"option_{name}") for name in fields if getattr(options, f"option_{name}") is not None
    }
    typed_people = people.people_of(options)
    if options.picture:
        need_file(options.picture, "picture")
    if options.origin:  # what is typed anew need not be found
        kept: dict[str, Any] = {
            "people": () if typed_people else base.people,
            "picture": None if options.picture else base.picture,
        }
        base = located(dataclasses.replace(base, **kept), options.origin, options.people_folder)
        note_files(base, options.origin)
    return dataclasses.replace(
        base,
        people=typed_people or base.people,
        options=dataclasses.replace(base.options, **acts),
        photos={**base.photos, **photo_options(options)},
        refine=refining.settings_of(options, base.refine),
        **typed,
    )


# --- the picture --------------------------------------------------------------------------------------------------


def use_sampler(pipe: Any, settings: Settings) -> None:
    """Put the sampler that was asked for into the pipeline."""
    import diffusers

    kind, extra = SAMPLERS[settings.sampler]
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **extra)


def sample(pipe: Any, settings: Settings, progress: bool) -> Image:
    """One picture (PIL) by the pipeline as it stands."""
    import torch

    use_sampler(pipe, settings)
    pipe.set_progress_bar_config(disable=not progress, desc="sampling", file=sys.stderr)
    made = pipe(
        settings.prompt,
        negative_prompt=settings.negative,
        width=settings.width,
        height=settings.height,
        num_inference_steps=settings.steps,
        guidance_scale=settings.cfg,
        generator=torch.Generator().manual_seed(settings.seed),  # of the CPU: the same noise on every device
    )
    picture: Image = made.images[0]
    return picture


def drawing_path(output: Path, name: str) -> Path:
    """Where one of ``DRAWINGS`` lies: beside the picture."""
    return output.with_name(f"{output.stem}_{name}.png")


def drawings_of(settings: Settings, options: argparse.Namespace) -> tuple[str, ...]:
    """Those of ``DRAWINGS`` that are made: identity is seen going into one new picture alone."""
    films = settings.frames > 1 or any(person.moves for person in settings.people)
    return () if not options.explain else DRAWINGS[:1] if settings.picture or films else DRAWINGS


def explain(
    output: Path, cast: Cast, recorder: GateRecorder | None, picture: Image, inputs: Sequence[str], marked: bool
) -> dict[str, Path]:
    """Draw regions beside the picture, and gate maps where some were recorded. ``inputs``, ``marked``: as in
    :func:`saving.write_picture`."""
    import numpy as np
    from PIL import Image

    from ..drawing import draw_cast, draw_gate_maps, side_by_side

    width, height = picture.size
    if recorder is not None and recorder.places is not None:
        cast = recorder.places
    drawings = {DRAWINGS[0]: draw_cast(cast, width, height)}
    if recorder is not None:
        maps = draw_gate_maps(recorder.maps(height, width)[0], cast, np.asarray(picture))
        drawings[DRAWINGS[1]] = side_by_side(maps)
    paths = {name: drawing_path(output, name) for name in drawings}
    for name, path in paths.items():
        write_picture(path, Image.fromarray(drawings[name]), PICTURE, inputs, marked=marked)
    return paths


def run(options: argparse.Namespace) -> dict[str, Any]:
    settings = settings_of(options)
    inputs = [*settings.paths, *([str(options.origin)] if options.origin else [])]
    for path in [options.output, *(drawing_path(options.output, name) for name in drawings_of(settings, options))]:
        check_file(path, PICTURE, inputs)
    with tempfile.TemporaryDirectory(prefix="dynamicid-") as folder:
        drawn = not settings.people and options.stand_in
        if drawn:
            settings = dataclasses.replace(settings, people=world.shown_people(Path(folder)))
        if not settings.people:
            hint = " The picture was made with --stand-in." * bool(settings.models.get("stand_in"))
            raise DynamicIDError(f"Nobody is given. Name a photo of each person, or use --face.{hint}")
        written = _generate(settings, options, drawn, inputs)
    settings, refined = written.pop("settings"), written.pop("refined")
    pictures: list[Path] = written.pop("pictures")
    files = [*pictures[:1], *written.values()]
    more = f" to {pictures[-1].name}" if len(pictures) > 1 else ""
    text = f"saved {files[0]}{more}\n" + "".join(f"saved {path}\n" for path in files[1:]) + f"seed {settings.seed}"
    found: dict[str, Any] = {"picture": str(pictures[0])} | {name: str(path) for name, path in written.items()}
    if more:
        found["pictures"] = [str(path) for path in pictures]
    found |= {"settings": dataclasses.asdict(settings)}
    if refined:
        report = "\n\n".join(better.report() for better in refined)
        text += f"\n{report}"
        found |= {
            "refined": [dataclasses.asdict(person) for better in refined for person in better.people],
            "report": report,
        }
    return {"text": text, "json": found}


def _sized(settings: Settings, options: argparse.Namespace, did: DynamicID) -> Settings:
    """Where no size is given, the one that the base model makes best."""
    base = base_named(did.saa.origin.base)
    if base is None or options.size or options.origin or options.stand_in:
        return settings
    return dataclasses.replace(settings, width=base.side, height=base.side)


def _generate(settings: Settings, options: argparse.Namespace, drawn: bool, inputs: Sequence[str]) -> dict[str, Any]:
    from ..gate_maps import GateRecorder

    photos = any(not people.is_face_file(path) for person in settings.people for path in person.files)
    poses = any(person.pose_image or person.driving for person in settings.people)
    edits = poses or any(person.expression or person.moves for person in settings.people)
    found = photos or poses or settings.refine is not None
    used = models.named(options, photos=photos, faces=found, expressions=edits)
    if options.origin:
        note_models(options.origin, settings.models, used)
    did = models.load_dynamicid(options, photos=photos, faces=found, expressions=edits)
    settings = dataclasses.replace(_sized(settings, options, did), models=used)
    cast = people.make_cast(did, settings)
    count = 1 if settings.picture else film.length(settings, cast)
    recorder = GateRecorder() if count == 1 and DRAWINGS[1] in drawings_of(settings, options) else None
    # Drawn portraits are gone when the command ends: the settings then say that there were none.
    kept = dataclasses.replace(settings, people=()) if drawn else settings
    refined: list[RefinedPicture] = []
    made: list[Image] = []  # the last picture
    told = not options.no_metadata

    def draw(shown: Cast, number: int) -> Image:
        if count > 1 and not options.quiet:
            print(f"picture {number + 1} of {count}", file=sys.stderr)
        picture, better = _drawn(did, shown, settings, options, recorder)
        refined.extend([] if better is None else [better])
        made[:] = [picture]
        return picture

    film.check(options.output, count, inputs)
    pictures = film.make(count, cast, draw, options.output, kept, told, inputs)
    written: dict[str, Any] = {"pictures": pictures, "settings": kept, "refined": refined}
    return written | (explain(options.output, cast, recorder, made[0], inputs, told) if options.explain else {})


def _drawn(
    did: DynamicID, cast: Cast, settings: Settings, options: argparse.Namespace, recorder: GateRecorder | None
) -> tuple[Image, RefinedPicture | None]:
    """One picture of the people, or the one that was given, after its second pass if there is one."""
    from PIL import Image

    if settings.picture:
        use_sampler(did.pipe, settings)
        picture = refining.given_picture(settings, options.stand_in)
    else:
        with did.apply(cast, settings.options, recorder=recorder, warn=lambda text: print(text, file=sys.stderr)):
            picture = sample(did.pipe, settings, progress=not options.quiet)
    better = None
    if settings.refine is not None:
        better = refining.refined(did, picture, cast, settings, progress=not options.quiet)
        picture = Image.fromarray(better.image)
    return world.enlarged(picture) if options.stand_in else picture, better
