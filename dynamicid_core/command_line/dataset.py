"""Make a training set from photos of people, fill what it lacks, see what is in it.

A set holds people whose photos show them with seven expressions in five poses: 35 cells. Every photo is looked at, and left
out if it would teach something wrong; the report says which were, and why.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import DynamicIDError
from . import models

if TYPE_CHECKING:
    from ..datasets.build import Means
    from ..datasets.checks import CheckOptions
    from ..datasets.manifest import Manifest
    from ..datasets.settings import DetectorChoice

SUMMARY = "photos of people to a training set"
EXAMPLES = """
examples:
  {program} build photos --output people          photos has a folder for each person
  {program} fill people --with make.py:edit       what is missing, by a function of yours
  {program} report people                         people/report.html again

each action has its own help: {program} build --help
"""
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


class Build:
    """Make a training set: look at every photo, leave out what would teach something wrong, label the rest.

    A source is a folder with a folder of photos for each person (KDEF's and the published code's layouts too), or a WebDataset
    shard (.tar) or a folder of such: the person is what a sample's .json says, or the folder of its key, or what stands before
    the last "_" in it. Text beside a photo (anna.txt beside anna.jpg) is its caption, or names its cell.

    What was done is kept in the output folder: the same command continues after an interruption, looks at new photos only,
    and changes nothing if there is nothing new. The sources are never changed.
    """

    NAME = "build"
    SUMMARY = "a training set from folders of people, KDEF, or shards"
    EXAMPLES = """
examples:
  {program} photos --output people
  {program} photos KDEF_and_AKDEF/KDEF shards --output people --jobs 4
  {program} photos --output people --expressions enet_b0_8_best_vgaf.onnx --per-cell 2
  {program} photos --output people --detector antelopev2 --keep-names
  {program} photos --output people --captioner caption.py:describe
  {program} shards --output people --ray auto              on a cluster, with Ray Data

a captioner is a function: photo (uint8 RGB [h, w, 3]), labels (person, expression, pose, prompt) -> caption
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="a folder or a shard (.tar)")
        parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the set is made")
        parser.add_argument("--copy", action="store_true", help="copy the photos, even where they could be hard links")
        _add_models(parser)
        _add_labels(parser)
        _add_checks(parser)
        _add_means(parser)

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from ..datasets.build import build
        from ..datasets.fill import filled_sources
        from ..datasets.settings import Settings

        settings = Settings(
            sources=tuple(str(source.absolute()) for source in options.sources),
            detector=_detector(options),
            classifier=str(options.expressions.absolute()) if options.expressions else "",
            classes=tuple(options.expression_classes or ()),
            checks=_checks(options),
            caption=options.caption,
            captioner=_function(options.captioner or ""),
            validation=options.validation,
            copy=options.copy,
        )
        with _continuing(options.output):
            manifest = build(options.output, settings, _means(options), filled_sources(options.output))
        return _result(options.output, manifest)


class Fill:
    """Fill the cells that people lack with pictures that a function of yours makes, such as an editor of faces.

    The function gets a photo of the person (uint8 RGB [h, w, 3]) and what is wanted (.expression, .pose, .prompt, .person,
    .seed, .attempt), and returns a picture of any size, or None. What it makes passes the checks that photos pass, and must be
    of that person, with that expression and pose; the report shows what was left out, and why. Nothing is made twice.
    """

    NAME = "fill"
    SUMMARY = "missing cells, by a function that you name"
    EXAMPLES = """
examples:
  {program} people --with make.py:edit
  {program} people --with mypackage.editors:turn --attempts 3

where make.py has, for example:
  def edit(photo, wanted):
      return my_editor(photo, prompt=wanted.prompt, seed=wanted.seed)
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="FOLDER", help="a set that `dataset build` made")
        parser.add_argument(
            "--with", dest="function", required=True, metavar="FUNCTION", help="module:function or file.py:function"
        )
        parser.add_argument(
            "--attempts", type=int, default=1, metavar="N", help="how often a cell is tried (default: %(default)s)"
        )
        _add_means(parser)

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from ..datasets.fill import fill
        from ..datasets.settings import read_settings

        settings, _ = read_settings(options.folder)
        if settings.detector.function.startswith("standins."):
            models.stand_ins("pipeline")  # makes them importable
        with _continuing(options.folder):
            manifest = fill(options.folder, settings, _function(options.function), options.attempts, _means(options))
        return _result(options.folder, manifest)


class Report:
    """Make report.html of a training set again: what is in it, and what was left out and why, with pictures."""

    NAME = "report"
    SUMMARY = "report.html of a training set"
    EXAMPLES = """
examples:
  {program} people
"""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="FOLDER", help="a training set")

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from ..datasets.manifest import Manifest

        return _result(options.folder, Manifest.read(options.folder))


ACTIONS = (Build, Fill, Report)


# --- options ------------------------------------------------------------------------------------------------------


def _add_models(parser: argparse.ArgumentParser) -> None:
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
        "--stand-in", action="store_true", help="a small built-in detector that knows nobody, to try it out"
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


def _add_labels(parser: argparse.ArgumentParser) -> None:
    from ..datasets.settings import CAPTION

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


def _add_checks(parser: argparse.ArgumentParser) -> None:
    from ..datasets.checks import CheckOptions

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


def _add_means(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that look at photos (default: 1)")
    group.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="look at photos on a Ray cluster, with N actors; without an address, on one that is started here",
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _function(name: str) -> str:
    """The name of a function, which stays right when the command is typed in another folder."""
    place, _, function = name.rpartition(":")
    return f"{Path(place).absolute()}:{function}" if place.endswith(".py") else name


def _checks(options: argparse.Namespace) -> CheckOptions:
    from ..datasets.checks import CheckOptions

    values = {name: getattr(options, name) for name in CHECK_HELP}
    return CheckOptions(**values, merge=not options.keep_names, split_folders=options.split_folders)


def _detector(options: argparse.Namespace) -> DetectorChoice:
    from ..datasets.settings import DetectorChoice

    if options.stand_in:
        models.stand_ins("pipeline")
        return DetectorChoice(function="standins.pipeline:make_detector")
    name = options.detector or models.FACE_PACK.name
    if ":" in name and not Path(name).exists():
        return DetectorChoice(function=_function(name))
    root = models.models_folder(options.models).absolute() / "insightface"
    return DetectorChoice(str(Path(name).absolute()) if Path(name).is_dir() else name, (str(root),))


def _means(options: argparse.Namespace) -> Means:
    from ..datasets.build import Means

    if options.jobs < 1:
        raise DynamicIDError(f"--jobs is {options.jobs}; it must be at least 1.")
    return Means(options.jobs, options.ray, progress=not options.quiet)


# --- results ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _continuing(folder: Path) -> Iterator[None]:
    """Whoever interrupts shall know that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"What was done is kept in {folder}; the same command continues there.", file=sys.stderr)
        raise


def _result(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Write the report; what is in the set, in lines and as JSON. Raises DynamicIDError if there is nothing in it."""
    from ..datasets.labels import CELLS
    from ..datasets.report import write_report

    report = write_report(folder, manifest)
    people = manifest.people()
    reasons = Counter(photo.reason for photo in manifest.photos if photo.reason)
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if not people:
        raise DynamicIDError(f"None of the {len(manifest.photos)} photos can be taken ({listed}); {report} shows why.")
    cells = sum(len({(p.expression, p.pose) for p in photos}) for photos in people.values())
    lines = [
        f"{len(manifest.taken)} of {len(manifest.photos)} photos taken, of {len(people)} people",
        f"{cells} of {len(people) * len(CELLS)} cells covered",
        *([f"left out: {listed}"] if listed else []),
        f"wrote {folder}",
        f"the report: {report}",
    ]
    made = sum(photo.collection == "filled" for photo in manifest.taken)
    record = {
        "folder": str(folder), "report": str(report), "photos": len(manifest.photos), "taken": len(manifest.taken),
        "filled": made, "people": len(people), "cells": cells, "left_out": dict(sorted(reasons.items())),
    }  # fmt: skip
    return {"text": "\n".join(lines), "json": record}
