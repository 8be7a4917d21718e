"""The options of ``dataset``: which of them there are, and what they mean for the builder."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ..datasets.build import Means
from ..datasets.checks import CheckOptions
from ..datasets.settings import CAPTION, DetectorChoice
from ..types import DynamicIDError
from . import models

CHECK_HELP = {  # option of CheckOptions -> flag, what it is
    "smallest_face": "px of a face's longer side, below which it is small",
    "sharpness": "below it a face is blurred (variance of the Laplacian of the face at 112 px)",
    "score": "the detector's confidence, below which a face counts as occluded",
    "disagreement": "face sizes between key points and landmarks, above which a face counts as occluded",
    "cut": "share of a face outside the photo, above which it counts as occluded",
    "rival": "share of the person's face's area, from which another face in the photo counts",
    "same_person": "cosine to a person's median, below which a photo is of somebody else",
    "same_people": "cosine of two people's medians, from which they are one person under two names",
    "near_duplicate": "of 256 bits of a perceptual hash, how many differ at most in copies of a photo",
    "per_cell": "photos of one person that show the same expression and pose",
    "per_person": "photos of one person; 0: no limit",
    "fewest": "people with fewer photos left are left out",
}


def add_models(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models")
    group.add_argument(
        "--detector", metavar="PACK",
        help=f"InsightFace model pack: its name or folder (default: {models.FACE_PACK.name}); or module:function, which "
        "gives a faces.FaceDetector",
    )  # fmt: skip
    group.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="a folder laid out as ComfyUI's models, where packs are looked for too",
    )
    group.add_argument(
        "--stand-in",
        action="store_true",
        help="the drawn world's face models, which the project brings and which know drawn people",
    )
    group.add_argument(
        "--expressions", type=Path, metavar="FILE",
        help="a classifier of expressions, .onnx of HSEmotion's form (default: expressions are read from the landmarks, which "
        "sees clear ones from the front only)",
    )  # fmt: skip
    group.add_argument(
        "--expression-classes", type=_words, metavar="NAMES",
        help="its classes in their order, such as anger,disgust,fear,... (default: HSEmotion's seven or eight)",
    )  # fmt: skip


def add_labels(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("captions and parts")
    group.add_argument(
        "--caption", default=CAPTION, metavar="TEXT",
        help="of photos without text beside them; {prompt}, {expression}, {pose} and {person} are replaced (default: "
        "%(default)r)",
    )  # fmt: skip
    group.add_argument(
        "--captioner", metavar="FUNCTION", help="module:function or file.py:function that writes captions"
    )
    group.add_argument(
        "--validation",
        type=float,
        default=0.05,
        metavar="X",
        help="share of the people kept apart (default: %(default)s)",
    )


def add_checks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("checks")
    for field in dataclasses.fields(CheckOptions):
        if field.name in CHECK_HELP:
            group.add_argument(
                f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default, metavar="X",
                help=f"{CHECK_HELP[field.name]} (default: %(default)s)",
            )  # fmt: skip
    group.add_argument("--keep-names", action="store_true", help="report one person under two names, but merge nobody")
    group.add_argument(
        "--split-folders",
        action="store_true",
        help="a second person in a folder, with three photos or more, stays as one",
    )


def add_means(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that look at photos (default: 1)")
    group.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="look at photos on a Ray cluster, with N actors; without an address, on one that is started here",
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def function_name(name: str) -> str:
    """The name of a function, which stays right when the command is typed in another folder."""
    place, _, function = name.rpartition(":")
    return f"{Path(place).absolute()}:{function}" if place.endswith(".py") else name


def checks_of(options: argparse.Namespace) -> CheckOptions:
    values = {name: getattr(options, name) for name in CHECK_HELP}
    return CheckOptions(**values, merge=not options.keep_names, split_folders=options.split_folders)


def detector_of(options: argparse.Namespace) -> DetectorChoice:
    if options.stand_in:
        from ..drawn.carried import FACES, path_of

        return DetectorChoice(str(path_of(FACES)))
    name = options.detector or models.FACE_PACK.name
    if ":" in name and not Path(name).exists():
        return DetectorChoice(function=function_name(name))
    root = models.models_folder(options.models).absolute() / "insightface"
    return DetectorChoice(str(Path(name).absolute()) if Path(name).is_dir() else name, (str(root),))


def means_of(options: argparse.Namespace) -> Means:
    if options.jobs < 1:
        raise DynamicIDError(f"--jobs is {options.jobs}; it must be at least 1.")
    return Means(options.jobs, options.ray, progress=not options.quiet)
