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
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..types import DynamicIDError
from . import generate, models, samples
from .encode import add_photo_arguments

if TYPE_CHECKING:
    from ..evaluation.cases import Box, Case
    from ..evaluation.recognisers import Recogniser
    from ..evaluation.results import Run
    from ..evaluation.store import Store
    from ..evaluation.workers import Workers
    from .settings import PersonSettings

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
LISTS = ("list.jsonl", "list.json", "list.csv", "list.tsv", "list.toml")
DRAWINGS = ("_regions", "_activation")  # what `generate --explain` puts beside a picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..evaluation.recognisers import DLIB
    from ..evaluation.report import SHOWN

    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="pictures, folders of them, or lists")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help=f"default: {OUTPUT}, with --compare {COMPARISON}"
    )
    parser.add_argument("--name", help="what the tables call this run (default: the name of the output's folder)")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="FOLDER",
        help="outputs of evaluations: tables beside each other, with differences to the first",
    )  # fmt: skip
    group = parser.add_argument_group("judges")
    group.add_argument(
        "--recognisers", nargs="+", metavar="NAME",
        help=f"{', '.join(DLIB)} (slower, sees turned heads too), or InsightFace packs by name or folder; the first should be "
        "that which conditioned the pictures (default: that of --detector, and dlib)",
    )  # fmt: skip
    group.add_argument(
        "--clip", metavar="PATH", help="for CLIP-T: a CLIP model, a folder as on the hub or its name there"
    )
    group.add_argument(
        "--expressions",
        metavar="ONNX",
        help="classifier of expressions: HSEmotion or FER+ (default: read off landmarks)",
    )
    group.add_argument("--gallery", type=Path, metavar="FOLDER", help="more people among whom faces are looked up")
    group.add_argument(
        "--show", type=int, default=SHOWN, metavar="N", help="pictures in the report (default: %(default)s)"
    )
    group = parser.add_argument_group("pictures to be made", "Every prompt with every group of people and every seed.")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt in each line, or a list with more")
    group.add_argument(
        "--people",
        type=Path,
        dest="people_folder",
        metavar="FOLDER",
        help="a photo, or a folder of photos, of each person",
    )
    group.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    group.add_argument(
        "--together", type=int, nargs="+", default=[1], metavar="N", help="people in a picture (default: 1)"
    )
    group.add_argument("--baseline", action="store_true", help="also make each without faces, to see what faces change")
    group.add_argument("--negative", metavar="TEXT", help="what pictures shall not show")
    group.add_argument("--offload", action="store_true", help="keep on the device only what is at work; saves memory")
    generate.add_sampling_arguments(parser)
    generate.add_option_arguments(parser)
    add_photo_arguments(parser)
    models.add_arguments(parser, pipeline=True)
    parser.set_defaults(origin=None, prompt=None, seed=None, photos=(), people=None)


# --- What to judge ------------------------------------------------------------------------------------------------


def cases_of(paths: Sequence[Path]) -> list[Case]:
    """The cases of pictures that remember their settings, of folders, and of lists."""
    from ..evaluation.cases import pictures_in, read_cases
    from ..evaluation.lists import is_list

    cases: list[Case] = []
    for path in paths:
        if path.is_dir():
            lists = [path / name for name in LISTS if (path / name).is_file()]
            found = [case for file in lists for case in read_cases(file)]
            cases += found or [case_of(picture) for picture in pictures_in(path) if not _is_drawing(picture)]
        elif is_list(path):
            cases += read_cases(path)
        elif not _is_drawing(path):
            cases.append(case_of(path))
    if not cases:
        raise DynamicIDError(f"There are no pictures in {', '.join(map(str, paths))}.")
    return cases


def _is_drawing(path: Path) -> bool:
    """Is it a drawing that `generate --explain` put beside a picture?"""
    plain = next((path.stem.removesuffix(end) for end in DRAWINGS if path.stem.endswith(end)), None)
    return plain is not None and path.with_name(plain + path.suffix).is_file()


def case_of(path: Path) -> Case:
    """A picture that `generate` made, by what it remembers; DynamicIDError for any other."""
    from ..evaluation.cases import Case
    from .settings import read_png

    try:
        settings = read_png(path)
    except DynamicIDError as error:
        text = str(error).removeprefix("--from: ")
        raise DynamicIDError(f"{text} Say in a list who it shall show (`evaluate --help` has an example).") from error
    if not settings.people:
        raise DynamicIDError(f"{path} remembers nobody. Say in a list who it shall show.")
    people = tuple(_reference(person, settings.photos, settings.checksums, path) for person in settings.people)
    return Case(path, people, settings.prompt)


def _reference(person: PersonSettings, photos: dict[str, Any], sums: dict[str, str], picture: Path) -> Any:
    from ..evaluation.cases import Reference, checksum

    files = []
    for name in person.files:
        places = [Path(name), picture.parent / name]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise DynamicIDError(
                f"{picture} was made with {name}, which is not there. Call this from the folder where it was made, or name "
                "the people in a list."
            )
        if sums.get(name, "") not in ("", checksum(file)):
            print(f"{file} has changed since {picture} was made.", file=sys.stderr)
        files.append(file)
    index = photos.get("index", 0) if person.index is None else person.index
    order = photos.get("order", "large-small")
    return Reference(tuple(files), person.name, _box_of(person), person.expression, order=order, index=index)


def _box_of(person: PersonSettings) -> Box | None:
    """Where the person may be; of a mask the bounds of its brighter half."""
    from ..pictures import read_mask

    if person.mask is None:
        return person.box
    mask = read_mask(person.mask)[0].numpy()
    rows, columns = ((mask > mask.max() / 2).any(axis).nonzero()[0] for axis in (1, 0))
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _make(options: argparse.Namespace, folder: Path, workers: Workers) -> list[Case]:
    """Make the pictures of prompts x people that are missing."""
    if not options.people_folder:
        raise DynamicIDError("--prompts needs --people, a folder with a photo of each person.")
    import dataclasses

    every = samples.samples(options)
    maker = samples.Maker(options, every)
    workers.map(lambda sample: maker.make(sample, folder, options.baseline), every, "pictures")
    cases = []
    for sample in every:
        baseline = sample.baseline(folder) if options.baseline else None
        case = case_of(sample.picture(folder))
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
            errors.append(str(error).splitlines()[0])
    if not found:
        raise DynamicIDError(f"There is no recogniser. {' '.join(errors)}")
    for text in errors:
        say(f"Judged by {found[0].name} alone. {text}")
    return tuple(found)


def _recogniser(name: str, options: argparse.Namespace) -> Recogniser:
    from ..detection import load_detector
    from ..evaluation.recognisers import DLIB, DlibRecogniser, PackRecogniser

    if name in DLIB:
        return DlibRecogniser(cnn=name == "dlib-cnn")
    files = models.find(options)
    if options.stand_in:
        return PackRecogniser("stand-in", models.stand_ins("pipeline").make_detector())
    # Only what conditions sees photos in the order of the published pipeline; others as InsightFace expects them.
    channels = "rgb" if name == files.detector else "bgr"
    detector = load_detector(name, [files.folder / "insightface"], identity_channels=channels)
    return PackRecogniser(Path(name).name, detector)


# --- The job ------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> dict[str, Any]:
    from ..evaluation.workers import Workers

    jobs = [bool(options.pictures), bool(options.prompts), bool(options.compare)]
    if sum(jobs) != 1:
        raise DynamicIDError("Give pictures (or a list), or --prompts, or --compare: one of them.")
    if options.show < 0:
        raise DynamicIDError(f"--show {options.show}: a number of pictures, or 0 for none.")
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
    gallery = gallery_of(options.gallery) if options.gallery else []
    reader = load_reader(options.expressions)
    recognisers = recognisers_of(options, lambda text: workers.main and print(text, file=sys.stderr))
    cases = _make(options, folder, workers) if options.prompts else cases_of(options.pictures)
    store = Store(folder / "cache")
    tools = Tools(recognisers, reader, _clip(options, store), recognisers[0].name)
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
