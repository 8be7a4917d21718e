"""Judge pictures of people: are the right people there, how many, where, alike, as asked, and is the rest as it was?

What `generate` made is judged as it is: its pictures remember who was asked for. Anybody else's pictures need a list
(JSON lines, JSON, CSV or TOML): in each row a picture and its people's photos, and, where known, boxes, expressions,
poses, prompt, ground_truth (a real photo of the same people), baseline (the same picture made without faces). A folder
with such a file named list.jsonl (or .csv, .toml) will do. With --prompts, pictures are made first.

Two recognisers judge: the one that conditions DynamicID, and dlib's, which never took part. The folder of --output gets
report.html (pictures, worst first), table.md, table.csv, table.tex and results.json. What was done is kept there, so the
same command goes on after an interruption. `accelerate launch -m dynamicid_core evaluate ...` shares the work between
processes and machines. What each number means: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import DynamicIDError
from . import asked, film, generate, models, refining, samples
from .encode import add_photo_arguments

if TYPE_CHECKING:
    from ..evaluation.cases import Case
    from ..evaluation.recognisers import Recogniser
    from ..evaluation.results import Run
    from ..evaluation.store import Store
    from ..evaluation.workers import Workers

SUMMARY = "numbers, tables and a report: how good pictures of people are"
EXAMPLES = """
examples:
  {program} pictures/*.png                            what `generate` made
  {program} theirs/list.csv -o theirs-judged --clip openai/clip-vit-large-patch14
  {program} --prompts prompts.txt --people faces --together 1 2 3 --seeds 0 1 2 --baseline -o mine \\
      --model realistic_vision.safetensors            made, then judged; all combinations
  {program} --compare mine theirs-judged              one table, paired differences, pictures side by side
  accelerate launch --num_processes 4 -m dynamicid_core evaluate theirs/list.csv

a list, JSON lines (list.jsonl), paths from where the list lies:
  {{"picture": "cafe.png", "prompt": "two people at a cafe", "people": ["anna.jpg", "ben.jpg"]}}
  {{"picture": "park.png", "people": [{{"photos": ["anna.jpg", "anna2.jpg"], "box": [0, 0, 0.5, 1], "expression": "happy"}}]}}
the same as CSV:
  picture,prompt,people,boxes,expressions
  cafe.png,two people at a cafe,anna.jpg; ben.jpg,"0,0,0.5,1; 0.5,0,1,1",happy; neutral

prompts, a line each (or rows with prompt, people, expressions, poses, boxes):
  a photo of {{people}} at a cafe
"""
OUTPUT, COMPARISON = Path("evaluation"), Path("comparison")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="pictures, folders of them, or lists")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help=f"default: {OUTPUT}, with --compare {COMPARISON}"
    )
    parser.add_argument("--name", help="what the tables call this run (default: the name of the output's folder)")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="FOLDER",
        help="outputs of evaluations: tables beside each other, with differences to the first",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=int, default=60, metavar="N", help="pictures in the report (default: %(default)s)"
    )
    _add_judges(parser.add_argument_group("judges"))
    _add_making(
        parser.add_argument_group("pictures to be made", "Every prompt with every group of people and every seed.")
    )
    generate.add_sampling_arguments(parser)
    generate.add_option_arguments(parser)
    add_photo_arguments(parser)
    models.add_arguments(parser, pipeline=True)
    parser.set_defaults(origin=None, prompt=None, seed=None, photos=(), people=None, **refining.UNASKED, **film.UNASKED)


def _add_judges(group: Any) -> None:
    group.add_argument(
        "--recognisers", nargs="+", metavar="NAME",
        help="dlib, dlib-cnn (slower, sees turned heads too), or InsightFace packs by name or folder; the first should be "
        "that which conditioned the pictures (default: that of --detector, and dlib)",
    )  # fmt: skip
    group.add_argument(
        "--clip", metavar="PATH", help="for CLIP-T: a CLIP model, a folder as on the hub or its name there"
    )
    group.add_argument(
        "--expressions", type=Path, metavar="FILE",
        help="a classifier of expressions, .onnx of HSEmotion's form (default: expressions are read from the landmarks)",
    )  # fmt: skip
    group.add_argument(
        "--expression-classes", metavar="NAMES",
        help="its classes in their order, such as anger,disgust,fear,... (default: HSEmotion's seven or eight)",
    )  # fmt: skip
    group.add_argument("--gallery", type=Path, metavar="FOLDER", help="more people among whom faces are looked up")


def _add_making(group: Any) -> None:
    group.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt in each line, or a list with more")
    group.add_argument(
        "--people",
        type=Path,
        dest="people_folder",
        metavar="FOLDER",
        help="a photo, or a folder of photos, of each person; without --prompts: where the photos lie that pictures name",
    )
    group.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    group.add_argument(
        "--together", type=int, nargs="+", default=[1], metavar="N", help="people in a picture (default: 1)"
    )
    group.add_argument("--baseline", action="store_true", help="also make each without faces, to see what faces change")
    group.add_argument("--negative", metavar="TEXT", help="what pictures shall not show")
    group.add_argument("--offload", action="store_true", help="keep on the device only what is at work; saves memory")


# --- What is judged ------------------------------------------------------------------------------------------------


def _planned(options: argparse.Namespace) -> list[samples.Sample]:
    if not options.people_folder:
        raise DynamicIDError("--prompts needs --people, a folder with a photo of each person.")
    return samples.samples(options)


def _make(
    every: Sequence[samples.Sample], options: argparse.Namespace, folder: Path, store: Store, workers: Workers
) -> list[Case]:
    """Make the pictures of prompts x people that are missing."""
    maker = samples.Maker(options, every, store)
    workers.map(lambda sample: maker.make(sample, folder, options.baseline), every, "pictures")
    cases = []
    for sample in every:
        baseline = sample.baseline(folder) if options.baseline else None
        case = asked.case_from(sample.settings, sample.picture(folder))
        cases.append(dataclasses.replace(case, ground_truth=sample.ground_truth, baseline=baseline))
    return cases


# --- Who judges ---------------------------------------------------------------------------------------------------


def recognisers_of(options: argparse.Namespace, say: Any) -> tuple[Recogniser, ...]:
    """Those named, which must be there, or the two of the default, of which one may be missing."""
    if options.recognisers:
        return tuple(_recogniser(name, options) for name in dict.fromkeys(options.recognisers))
    found, errors = [], []
    for name in (models.find(options).detector, "dlib"):
        try:
            found.append(_recogniser(name, options))
        except DynamicIDError as error:
            if options.detector and name != "dlib":
                raise
            errors.append(str(error).partition(". ")[0])  # not every folder that was searched
    if not found:
        raise DynamicIDError(f"There is no recogniser: {'; '.join(errors)}. Name one with --recognisers.")
    for text in errors:
        say(f"Judged by {found[0].name} alone: {text}. Name others with --recognisers.")
    return tuple(found)


def _recogniser(name: str, options: argparse.Namespace) -> Recogniser:
    from ..detection import load_detector
    from ..evaluation.recognisers import DLIB, DlibRecogniser, PackRecogniser

    if name in DLIB:
        return DlibRecogniser(cnn=name == "dlib-cnn")
    files = models.find(options)
    if options.stand_in:
        return PackRecogniser("drawn", models.stand_ins().detector())
    # Only what conditions sees photos in the order of the published pipeline; others as InsightFace expects them.
    channels = "rgb" if name == files.detector else "bgr"
    detector = load_detector(name, [files.folder / "insightface"], identity_channels=channels)
    return PackRecogniser(detector.recogniser, detector)


# --- The job ------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..evaluation.results import check_output
    from ..evaluation.workers import Workers

    jobs = [bool(options.pictures), bool(options.prompts), bool(options.compare)]
    if sum(jobs) != 1:
        raise DynamicIDError("Give pictures (or a list), or --prompts, or --compare: one of them.")
    if options.show < 0:
        raise DynamicIDError(f"--show {options.show}: a number of pictures, or 0 for none.")
    check_output(options.output or (COMPARISON if options.compare else OUTPUT))
    if options.compare:
        return compare(options.compare, options.output or COMPARISON, options.show)
    workers = Workers(options.quiet)
    result = judge(options, workers)
    folder = options.output or OUTPUT
    if not workers.main:
        raise SystemExit(0)  # one process speaks
    return write([result], folder, options.show, {"results": result.write(folder)})


def judge(options: argparse.Namespace, workers: Workers) -> Run:
    """Everything up to writing; in every process."""
    from ..evaluation.cases import gallery_of
    from ..evaluation.readings import load_reader
    from ..evaluation.run import Tools, evaluate
    from ..evaluation.store import Store

    if workers.count > 1 and not options.device:
        options.device = _own_device()
    folder = options.output or OUTPUT
    # What the user got wrong is said before models are loaded.
    planned = _planned(options) if options.prompts else []
    cases = [] if options.prompts else asked.cases_of(options.pictures, options.people_folder)
    gallery = gallery_of(options.gallery) if options.gallery else []
    classes = [name.strip() for name in (options.expression_classes or "").split(",") if name.strip()]
    reader = load_reader(options.expressions, classes)
    recognisers = recognisers_of(options, lambda text: workers.main and print(text, file=sys.stderr))
    store = Store(folder / "cache")
    if planned:
        cases = _make(planned, options, folder, store, workers)
    tools = Tools(recognisers, reader, _clip(options, store))
    return evaluate(cases, tools, store, workers, options.name or folder.resolve().name, gallery)


def _clip(options: argparse.Namespace, store: Store) -> Any:
    from ..evaluation.clip import ClipScore

    return ClipScore(options.clip, store, models.device_of(options)) if options.clip else None


def _own_device() -> str | None:
    """The GPU of this process, where there is one for each."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else None


def compare(folders: Sequence[Path], output: Path, shown: int) -> dict[str, Any]:
    """Tables and a report of several evaluations."""
    from ..evaluation.results import read_run

    if len(folders) < 2:
        raise DynamicIDError("--compare needs the outputs of at least two evaluations.")
    return write([read_run(folder) for folder in folders], output, shown, {})


def write(runs: Sequence[Run], folder: Path, shown: int, written: dict[str, Path]) -> dict[str, Any]:
    """Tables and report into a folder, and what the command says."""
    from ..evaluation.report import write_report
    from ..evaluation.statistics import as_json, summarise
    from ..evaluation.tables import markdown, write_tables

    table = summarise(*runs)
    written = {"report": write_report(folder, runs, shown), **write_tables(table, folder), **written}
    saved = "\n".join(f"saved {path}" for path in written.values())
    return {
        "text": f"{markdown(table, arrows=False)}\n{saved}",
        "json": {
            "pictures": len(runs[0].pictures),
            "table": as_json(table),
            **{name: str(path) for name, path in written.items()},
        },
    }
