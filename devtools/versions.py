"""Which versions the tests were run with, and how it went: ``python devtools/versions.py [arguments for pytest]``.

Every Python of pyproject.toml that is on this machine with the oldest and the newest NumPy, and each ComfyUI that
``--comfyui`` names. Each pair of Python and NumPy gets an environment in ``--folder``, one after the other, which is kept for the
next time; a ComfyUI is run by this Python where it has what is needed, else by the project's environment. Without arguments for
pytest, those tests run that need neither a trained model nor a long time. The table says what ran, with which versions, and what
could not be run here, and why. Exit code: 0, or 1 if a test failed or nothing could be run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

from environment import TORCH, SetupError, has_modules, install, project_environment, python_in, run_script  # noqa: E402

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NUMPYS = ("1.26", "2")
SHOWN = ("numpy", "torch", "onnxruntime", "diffusers")  # packages whose versions the table has
CORE = (
    "test_types", "test_files", "test_face_files", "test_checkpoints", "test_writing", "test_fetching", "test_pictures", "test_regions",
    "test_layouts", "test_attention", "test_call", "test_blending", "test_landmarks", "test_matching", "test_drawing", "test_detection",
    "test_encode", "test_motion", "test_bad_inputs",
)  # fmt: skip
HOST = ("test_apply", "test_nodes")
WHAT = (
    "import importlib.metadata as m, json, platform, sys; "
    "print(json.dumps([platform.python_version(), *(m.version(name) for name in sys.argv[1:])]))"
)


@dataclass(frozen=True)
class Wanted:
    """One row of the table before it is run."""

    python: str
    numpy: str = ""
    comfyui: Path | None = None


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    wanted: Wanted
    versions: Sequence[str] = ()  # of Python and of ``SHOWN``, where there was an environment
    counts: dict[str, int] = field(default_factory=dict)  # of pytest's outcomes; empty where nothing ran
    minutes: float = 0.0
    why_not: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.counts.get("failed") or self.counts.get("errors"))

    def cells(self) -> list[str]:
        versions = list(self.versions) or [self.wanted.python, self.wanted.numpy, *[""] * (len(SHOWN) - 1)]
        counted = ", ".join(f"{number} {what}" for what, number in self.counts.items() if number)
        said = f"{counted} in {self.minutes:.0f} min" if self.counts else f"not run: {self.why_not}"
        return [*versions, _host_version(self.wanted.comfyui), said]


def _host_version(comfyui: Path | None) -> str:
    if comfyui is None:
        return "none"
    text = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    return text.rpartition('__version__ = "')[2].partition('"')[0]


# --- Pythons and environments -------------------------------------------------------------------------------------


def find_python(version: str) -> Path | None:
    """An interpreter of this version: on the path, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    code = f"import sys; sys.exit('{version}' != '%d.%d' % sys.version_info[:2])"
    return next(
        (python for python in candidates if not subprocess.run([python, "-c", code], capture_output=True).returncode),
        None,
    )


def environment(wanted: Wanted, folder: Path) -> Path:
    """The Python of an environment with this project, its tests' requirements and one NumPy. Raises SetupError."""
    found = find_python(wanted.python)
    if found is None:
        raise SetupError(f"there is no Python {wanted.python} here (uv python install {wanted.python} fetches one)")
    place = folder / f"python{wanted.python}-numpy{wanted.numpy}"
    if python_in(place) is None and subprocess.run([found, "-m", "venv", place]).returncode:
        raise SetupError(f"Python {wanted.python} could not make an environment in {place}")
    python = python_in(place)
    assert python is not None
    if not has_modules(python, "uv"):
        subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"])
    try:
        # Only what is there as a file: an old NumPy is not built for a new Python.
        install(python, "--only-binary", "numpy", f"numpy=={wanted.numpy}.*", *TORCH, "-e", f"{ROOT}[test]")
    except SetupError:
        raise SetupError(f"NumPy {wanted.numpy} and what the tests need could not be installed for it") from None
    return python


def _versions(python: Path) -> list[str]:
    said = subprocess.run([python, "-c", WHAT, *SHOWN], capture_output=True, text=True)
    return json.loads(said.stdout) if said.returncode == 0 else []


# --- running ------------------------------------------------------------------------------------------------------


def run(wanted: Wanted, folder: Path, arguments: Sequence[str]) -> Row:
    """One row: its environment made, its tests run."""
    try:
        if wanted.comfyui is None:
            python = environment(wanted, folder)
        else:
            here = Path(sys.executable)
            python = (
                here
                if has_modules(here, "pytest", "torch", "comfyui_frontend_package")
                else project_environment(wanted.comfyui)
            )
    except SetupError as error:
        return Row(wanted, why_not=str(error))
    tests = (
        [f"tests/core/{name}.py" for name in CORE]
        if wanted.comfyui is None
        else [f"tests/host/{name}.py" for name in HOST]
    )
    results, began = folder / "results.xml", time.monotonic()
    results.unlink(missing_ok=True)
    variables = (
        {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | ({"COMFYUI_PATH": str(wanted.comfyui)} if wanted.comfyui else {})
    )
    command = [python, "-m", "pytest", "-q", f"--junitxml={results}", *(arguments or ["--numprocesses=0", *tests])]
    ended = subprocess.run(command, cwd=ROOT, env=variables).returncode
    if not results.exists():
        return Row(wanted, _versions(python), why_not=f"pytest ended with code {ended} before any test")
    return Row(wanted, _versions(python), _counts(results), (time.monotonic() - began) / 60)


def _counts(results: Path) -> dict[str, int]:
    (suite,) = ElementTree.parse(results).getroot().iter("testsuite")  # noqa: S314 - pytest has just written it
    of = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = of["tests"] - of["failures"] - of["errors"] - of["skipped"]
    return {"passed": passed, "failed": of["failures"], "errors": of["errors"], "skipped": of["skipped"]}


def table(rows: Sequence[Row], kept: Sequence[Sequence[str]] = ()) -> str:
    """What ran, in Markdown, after rows that are kept."""
    head = ["Python", *SHOWN, "ComfyUI", "tests"]
    lines = [head, ["---"] * len(head), *kept, *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def other_rows(path: Path, wanted: Sequence[Wanted]) -> list[list[str]]:
    """Cells of a table's rows that are about none of these versions."""
    lines = path.read_text(encoding="utf-8").splitlines()[2:] if path.is_file() else []
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    return [cells for cells in rows if not any(_is_of(cells, one) for one in wanted)]


def _is_of(cells: Sequence[str], wanted: Wanted) -> bool:
    if cells[-2] != _host_version(wanted.comfyui):
        return False
    pairs = zip(cells, (wanted.python, wanted.numpy), strict=False)
    return wanted.comfyui is not None or all(f"{found}.".startswith(f"{asked}.") for found, asked in pairs)


def wanted_rows(options: argparse.Namespace) -> Iterator[Wanted]:
    for version in options.python:
        for numpy in options.numpy:
            yield Wanted(version, numpy)
    for comfyui in options.comfyui:
        yield Wanted("", "", comfyui.expanduser().absolute())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="*", default=PYTHONS, metavar="X.Y", help="default: %(default)s")
    parser.add_argument("--numpy", nargs="*", default=NUMPYS, metavar="X[.Y]", help="default: %(default)s")
    parser.add_argument(
        "--comfyui", nargs="*", default=[], type=Path, metavar="FOLDER", help="the oldest and the newest, say"
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".versions", help="for environments (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the table there too; rows of other versions stay"
    )
    options, for_pytest = parser.parse_known_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    all_wanted, rows = list(wanted_rows(options)), []
    kept = other_rows(options.output, all_wanted) if options.output else []
    for wanted in all_wanted:
        rows.append(run(wanted, options.folder, for_pytest))
        print(f"\n{table(rows)}\n", flush=True)
        if options.output:
            options.output.write_text(table(rows, kept) + "\n", encoding="utf-8")
    left = sum(not row.counts for row in rows)
    print(
        f"{len(rows) - left} of {len(rows)} ran"
        + (f"; {left} could not be run here, as the table says." if left else ".")
    )
    return int(left == len(rows) or any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(run_script(main))
