"""``python devtools/compatibility matrix|endure|page OUTPUT``: try, and write ``docs/compatibility.md``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "devtools")]

for name in (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
):  # of the server too: on small tensors threads wait more than they work
    os.environ.setdefault(name, "1")

from environment import run_script  # noqa: E402

from compatibility import models  # noqa: E402
from compatibility.cells import Combination  # noqa: E402
from compatibility.endurance import RUNS, endure  # noqa: E402
from compatibility.hosts import Host, commit_of, host  # noqa: E402
from compatibility.packs import ALL, ANIMATED  # noqa: E402
from compatibility.page import write_page  # noqa: E402
from compatibility.results import MatrixResults  # noqa: E402
from compatibility.trying import Known, Trial  # noqa: E402

TOGETHER = 6  # combinations
# For glibc in the server: large blocks go back to the system when they are freed, so that what is measured is in use.
TIDY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="DynamicID beside other nodes and packs, in a real ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True)
    matrix = commands.add_parser("matrix", help="try every combination; what was tried before is not tried again")
    endure_ = commands.add_parser("endure", help="queue runs until something would have to leak")
    page = commands.add_parser("page", help="write docs/compatibility.md from what was found")
    for command in (matrix, endure_, page):
        command.add_argument("output", type=Path, help="a folder for models and results; 8 GB with all packs")
    for command in (matrix, endure_):
        command.add_argument("--comfyui", type=Path, required=True, help="the ComfyUI to try it in")
        command.add_argument(
            "--small", action="store_true", help="on a small base with random weights, for slow machines"
        )
    endure_.add_argument("--runs", type=int, default=RUNS, help="default: %(default)s")
    matrix.add_argument("--pack", type=Path, nargs="*", default=[], help="checkouts of other packs")
    matrix.add_argument(
        "--only", nargs="*", metavar="TEXT", help="combinations with one of these texts in their name, anew"
    )
    return parser.parse_args(arguments)


def wanted(options: argparse.Namespace, results: MatrixResults) -> list[Combination]:
    names = {pack.name for pack in options.pack}
    here = [combination for combination in ALL if combination.pack in ("", *names)]
    if options.only is not None:
        return [c for c in here if any(text.lower() in c.name.lower() for text in options.only)]
    return [combination for combination in here if not results.has(combination.name)]


def run_matrix(options: argparse.Namespace) -> int:
    base = models.SMALL if options.small else None
    full = [models.FULL] if ANIMATED in {pack.name for pack in options.pack} else []
    models.fill(options.output / "models", [base, *full] if base else full)
    models.write_faces(options.output / "faces")
    with host(options.comfyui, options.output, options.pack) as running:
        results = MatrixResults.read(options.output, running.version)
        results.packs |= {pack.name: commit_of(pack) for pack in options.pack}
        if "DynamicIDApply" not in running.object_info:
            results.refusal = " ".join(running.said())
            results.write()
            print(results.refusal)
            return 0
        left, known = wanted(options, results), {}
        while left:
            some, left = left[:TOGETHER], left[TOGETHER:]
            try_some(some, base, running, known, results)
    return 0


def try_some(
    some: list[Combination], base: models.Base | None, running: Host, known: Known, results: MatrixResults
) -> None:
    """Some combinations together, so that models are loaded anew once for all of them."""
    trials = [Trial(combination, base, running, known) for combination in some]
    for trial in trials:
        print(trial.combination.name, flush=True)
        trial.begin()
    running.free()
    for trial in trials:
        for tried in trial.end():
            results.put(tried)
            print(json.dumps(tried.to_json()), flush=True)
    results.write()


def run_endurance(options: argparse.Namespace) -> int:
    os.environ |= TIDY
    base = models.SMALL if options.small else None
    models.fill(options.output / "models", [base] if base else [])
    models.write_faces(options.output / "faces")
    for people in (True, False):
        with host(options.comfyui, options.output) as running:
            endure(running, people, options.runs, base).write(options.output)
    return 0


def make_page(options: argparse.Namespace) -> int:
    write_page(ROOT / "docs" / "compatibility.md", options.output)
    return 0


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    return {"matrix": run_matrix, "endure": run_endurance, "page": make_page}[options.command](options)


if __name__ == "__main__":
    sys.exit(run_script(main))
