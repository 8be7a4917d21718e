"""How the benchmarks measure: interleaved calls in one process, ratios with an interval, a table and a JSON file.

On a CPU the clock is the process's own CPU time with a fixed number of torch threads (1 unless asked otherwise), so that
what else runs on the machine counts little; on a GPU it is device events. Absolute times of different runs are not
comparable; ratios of one run are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"  # git ignores it
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def parser(text: str, rounds: int) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often everything is measured")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on the CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where networks run")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="of the weights; on a CPU fp32")
    parser.add_argument("--json", type=Path, help="file for the numbers; default: benchmarks/results/<name>.json")
    return parser


# For glibc and OpenMP, which read them when a process starts: keep freed memory, since a call of the UNet else spends a
# fifth of its time on half a million page faults, more or fewer each time; let threads that wait sleep.
STEADY = {"MALLOC_MMAP_THRESHOLD_": str(2**35), "MALLOC_TRIM_THRESHOLD_": str(2**35), "OMP_WAIT_POLICY": "PASSIVE"}


def prepare(options: argparse.Namespace) -> torch.device:
    """Fix the threads; returns the device. Exits with a sentence where it is absent.

    On a CPU the script starts itself once more, with the settings of ``STEADY``.
    """
    if options.device == "cpu" and sys.platform == "linux" and not STEADY.keys() <= os.environ.keys():
        os.environ.update(STEADY)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here; leave out --device cuda.")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return torch.device(options.device)


# --- time ---------------------------------------------------------------------------------------------------------


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """CPU time of this process, or the device's time between two events, for one call."""
    if device.type == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


def interleaved(
    calls: Mapping[str, Callable[[], object]], base: str, rounds: int, device: torch.device, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of each call in each round. Unless they are ``warm``, all are called once before.

    Every other round goes backwards, and ``base`` is measured at both ends of a round (its entry is the mean), so that
    a machine that grows slower or faster meanwhile favours nobody.
    """
    names = [name for name in calls if name != base]
    for call in calls.values() if not warm else ():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        first = seconds(calls[base], device)
        for name in names if number % 2 == 0 else names[::-1]:
            times[name].append(seconds(calls[name], device))
        times[base].append((first + seconds(calls[base], device)) / 2)
    return times


@dataclass(frozen=True)
class Ratio:
    """The median over the rounds, with a 95% interval for it (bootstrap, seeded)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def ratio(times: Sequence[float], base: Sequence[float]) -> Ratio:
    """Of two calls that were measured in the same rounds."""
    ratios = torch.tensor([a / b for a, b in zip(times, base, strict=True)], dtype=torch.float64)
    draws = torch.randint(len(ratios), (2000, len(ratios)), generator=torch.Generator().manual_seed(0))
    medians = ratios[draws].quantile(0.5, dim=1)
    low, high = (float(medians.quantile(q)) for q in (0.025, 0.975))
    return Ratio(float(ratios.quantile(0.5)), low, high)


class Inside:
    """CPU time spent in some functions, each wrapped where a module or class keeps it, while calls run.

    What a patch adds to a call is a hundredth of it: seen from outside it drowns in the noise of the other 99; measured
    from inside it does not.
    """

    def __init__(self, *functions: tuple[object, str]):
        self.total = 0.0
        self._depth = 0
        self._before = [(owner, name, getattr(owner, name)) for owner, name in functions]

    def __enter__(self) -> Inside:
        for owner, name, function in self._before:
            setattr(owner, name, self._timed(function))
        return self

    def __exit__(self, *error) -> None:
        for owner, name, function in self._before:
            setattr(owner, name, function)

    def _timed(self, function: Callable) -> Callable:
        def timed(*args, **kwargs):
            self._depth += 1
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.total += time.process_time() - start

        return timed

    def take(self) -> float:
        """Seconds since the last time that this was asked."""
        total, self.total = self.total, 0.0
        return total


# --- reports ------------------------------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows of one measurement, printed as Markdown and kept as JSON."""

    title: str
    columns: Sequence[str]
    rows: list[list[object]] = field(default_factory=list)

    def add(self, *row: object) -> None:
        self.rows.append(list(row))
        print("  ".join(str(cell) for cell in row), flush=True)

    def lines(self) -> Iterator[str]:
        yield f"**{self.title}**"
        yield ""
        yield f"| {' | '.join(self.columns)} |"
        yield f"|{'---|' * len(self.columns)}"
        for row in self.rows:
            yield f"| {' | '.join(str(cell) for cell in row)} |"


def machine(device: torch.device) -> dict[str, str]:
    """Where a table was measured: date, processor or device as torch names it, versions."""
    found = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        found["device"] = f"{platform.machine()}, {capability}, {torch.get_num_threads()} torch thread(s)"
    for package in ("torch", "diffusers", "transformers", "onnxruntime", "insightface"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    host = sys.modules.get("comfyui_version")
    return found | ({"comfyui": host.__version__} if host else {})


def report(name: str, tables: Sequence[Table], options: argparse.Namespace, device: torch.device) -> None:
    """Print the tables and write the JSON file."""
    where = machine(device)
    print()
    for table in tables:
        print("\n".join(table.lines()), end="\n\n")
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    path = options.json or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(options).items() if key != "json"}
    content = {
        "machine": where,
        "options": settings,
        "tables": [{**vars(table), "rows": [[_plain(c) for c in row] for row in table.rows]} for table in tables],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"numbers in {path.name}")


def _plain(cell: object) -> object:
    return vars(cell) if isinstance(cell, Ratio) else cell


def milliseconds(times: Sequence[float]) -> str:
    return f"{1000 * statistics.median(times):.1f}"
