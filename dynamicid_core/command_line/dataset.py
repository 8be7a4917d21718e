"""Make a training set from photos of people, fill what it lacks, see what is in it.

A set holds people whose photos show them with seven expressions in five poses: 35 cells. Every photo is looked at, and left
out if it would teach something wrong; the report says which were, and why.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.settings import FILE as SETTINGS_FILE
from ..types import DynamicIDError
from . import dataset_options

if TYPE_CHECKING:
    from ..datasets.manifest import Manifest

SUMMARY = "photos of people to a training set"
EXAMPLES = """
examples:
  {program} build photos --output people          photos has a folder for each person
  {program} fill people --with make.py:edit       what is missing, by a function of yours
  {program} report people                         people/report.html again

each action has its own help: {program} build --help
"""


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
        dataset_options.add_models(parser)
        dataset_options.add_labels(parser)
        dataset_options.add_checks(parser)
        dataset_options.add_means(parser)

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from ..datasets.build import build
        from ..datasets.fill import filled_sources
        from ..datasets.settings import Settings

        settings = Settings(
            sources=tuple(str(source.absolute()) for source in options.sources),
            detector=dataset_options.detector_of(options),
            classifier=str(options.expressions.absolute()) if options.expressions else "",
            classes=tuple(options.expression_classes or ()),
            checks=dataset_options.checks_of(options),
            caption=options.caption,
            captioner=dataset_options.function_name(options.captioner or ""),
            validation=options.validation,
            copy=options.copy,
        )
        with _continuing(options.output):
            manifest = build(
                options.output, settings, dataset_options.means_of(options), filled_sources(options.output)
            )
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
            "--allow", action="append", default=[], metavar="FUNCTION",
            help=f"a function that the set's {SETTINGS_FILE} names, as its detector or captioner, and that may be run",
        )  # fmt: skip
        parser.add_argument(
            "--attempts", type=int, default=1, metavar="N", help="how often a cell is tried (default: %(default)s)"
        )
        dataset_options.add_means(parser)

    @staticmethod
    def run(options: argparse.Namespace) -> dict[str, Any]:
        from ..datasets.fill import fill
        from ..datasets.settings import read_settings

        settings, _ = read_settings(options.folder)
        settings.check_functions([dataset_options.function_name(name) for name in options.allow])
        with _continuing(options.folder):
            manifest = fill(
                options.folder,
                settings,
                dataset_options.function_name(options.function),
                options.attempts,
                dataset_options.means_of(options),
            )
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
