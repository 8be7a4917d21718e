"""``python devtools/evidence OUTPUT [--scale 0.1] [--page]``: make, judge, and write ``docs/evidence.md``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from asked import Series, all_series  # noqa: E402
from judging import Results, judge, judges, strangers  # noqa: E402
from making import Studio, make, write_people  # noqa: E402
from page import write_page  # noqa: E402
from sheets import Sheets  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What DynamicID does in the drawn world, measured.")
    parser.add_argument("output", type=Path, help="a folder for pictures and results; what is there is not made again")
    parser.add_argument("--scale", type=float, default=1.0, help="share of every series (default: all)")
    parser.add_argument("--series", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--motion", nargs="+", default=[], metavar="NAME=FILE", help="other IMR weights: imr_dfm=...")
    parser.add_argument("--page", action="store_true", help="write docs/evidence.md and its sheets into the project")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", default="0/1", metavar="I/N", help="make every N-th picture alone, beginning with I")
    return parser.parse_args()


def wanted(options: argparse.Namespace, motions: Iterable[str]) -> list[Series]:
    every = [s for s in all_series(options.scale) if s.motion in ("imr", *motions)]
    chosen = [s for s in every if not options.series or s.name in options.series]
    needed = {s.baseline for s in chosen}
    return [s for s in every if s in chosen or s.name in needed]


def main() -> int:
    import torch

    from dynamicid_core.checkpoints import load_motion
    from dynamicid_core.drawn.pipeline import drawn_dynamicid

    options = parse()
    torch.set_num_threads(options.threads)
    people, pictures = options.output / "people", options.output / "pictures"
    write_people(people)
    motions = {name: load_motion(path) for name, _, path in (text.partition("=") for text in options.motion)}
    studio, every = Studio(drawn_dynamicid(), people, motions), wanted(options, motions)
    first, count = map(int, options.share.split("/"))
    for series in every:
        print(series.name, flush=True)
        make(dataclasses.replace(series, questions=series.questions[first::count]), studio, pictures)
    if count > 1:
        return 0
    tools = judges(options.output / "models")
    results = Results(
        {series.name: judge(series, pictures, people, tools) for series in every}, strangers(every, people, tools)
    )
    results.write(options.output / "results.json")
    print(results.text())
    if options.page:
        sheets = Sheets(studio).write(ROOT / "docs" / "images")
        write_page(ROOT / "docs" / "evidence.md", results, every, sheets, options.scale)
    return 0


if __name__ == "__main__":
    sys.exit(main())
