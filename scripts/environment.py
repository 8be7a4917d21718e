"""Pythons, what is installed in them, and the project's own environment: what the scripts share.

Standard library only, since the scripts start with whatever Python is at hand (3.10 or newer) on Linux, macOS and
Windows. Everything that can go wrong here is a ``SetupError`` with one sentence for the user.

Environment variable:
    DYNAMICID_VENV  where the project's own environment is made; else ``.venv`` in this folder
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")  # releases that belong together
EXTRAS = "diffusers,train,evaluate,cluster,test"
LOWEST_PYTHON = (3, 10)


class SetupError(Exception):
    """Something the user can mend. Its text is one sentence that says what was found and what to do."""


def run_script(main: Callable[[list[str]], int]) -> int:
    """Call ``main`` with the command line's arguments; a ``SetupError`` becomes one line and exit code 1."""
    try:
        return main(sys.argv[1:])
    except SetupError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def need_core() -> None:
    """Make this folder's ``dynamicid_core`` the one that is imported, whatever is installed."""
    if "dynamicid_core" not in sys.modules:
        sys.path.insert(0, str(ROOT))


def agrees(question: str) -> bool:
    """Ask, where somebody can answer; elsewhere the answer is no."""
    return sys.stdin is not None and sys.stdin.isatty() and input(question).strip().lower() in ("y", "yes")


# --- Pythons ------------------------------------------------------------------------------------------------------


def python_in(folder: Path) -> Path | None:
    """The interpreter of a virtual environment, a conda environment or an unpacked Python; None if there is none."""
    candidates = (folder / "bin" / "python", folder / "Scripts" / "python.exe", folder / "python.exe")
    return next((python for python in candidates if python.exists()), None)


def has_modules(python: Path, *names: str) -> bool:
    """Whether ``python`` runs and finds every module of ``names`` (none of them is imported)."""
    code = "import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in sys.argv[1:]))"
    try:
        return subprocess.run([str(python), "-c", code, *names], capture_output=True, cwd=ROOT.anchor).returncode == 0
    except OSError:
        return False


def install(python: Path, *what: str) -> None:
    """Install ``what`` (arguments as of ``pip install``) into ``python``, with whatever installer there is.

    Raises SetupError if there is none, or if all of them fail.
    """
    commands = []
    if has_modules(python, "uv"):
        commands.append([str(python), "-m", "uv", "pip", "install", "--python", str(python)])
    if has_modules(python, "pip"):
        commands.append([str(python), "-m", "pip", "install"])
    if shutil.which("uv"):
        commands.append([shutil.which("uv"), "pip", "install", "--python", str(python)])
    if not commands:
        raise SetupError(f"{python} has neither pip nor uv; install pip there with: {python} -m ensurepip")
    # uv reads none of pip's settings (a proxy, another index), so where it fails pip may still succeed.
    if not any(_run([*command, *what]) for command in commands):
        raise SetupError(f"Installing into {python} failed; the messages above say why.")


def _run(command: list[str]) -> bool:
    return subprocess.run(command).returncode == 0


# --- The project's own environment --------------------------------------------------------------------------------


def project_environment(comfyui: Path | None = None) -> Path:
    """The Python of the project's own environment, which is made or brought up to date first.

    It holds torch, this project with all its extras and, if a ``comfyui`` is given, what that ComfyUI needs. What
    went in is recorded, so a second call does nothing as long as the same would go in.

    Raises SetupError if the environment cannot be made.
    """
    if sys.version_info < LOWEST_PYTHON:
        lowest = ".".join(map(str, LOWEST_PYTHON))
        raise SetupError(f"This is Python {platform.python_version()}; use {lowest} or newer to start the script.")
    folder = Path(os.environ.get("DYNAMICID_VENV") or ROOT / ".venv").expanduser().absolute()
    requirements = comfyui / "requirements.txt" if comfyui else None
    record, inputs = folder / "dynamicid-inputs.json", _inputs(requirements)
    python = python_in(folder)
    if python and record.is_file() and record.read_text(encoding="utf-8") == inputs and has_modules(python, "pytest"):
        return python
    python = _make_venv(folder)
    record.unlink(missing_ok=True)  # an interrupted installation must not look like a finished one
    print(f"Installing what is needed into {folder} (once; some gigabytes with torch) ...", flush=True)
    if not has_modules(python, "uv"):
        _run([str(python), "-m", "pip", "install", "--quiet", "uv"])  # many times faster; without it pip does the work
    install(python, *TORCH, "-e", f"{ROOT}[{EXTRAS}]", *(["-r", str(requirements)] if requirements else []))
    record.write_text(inputs, encoding="utf-8")
    return python


def _inputs(requirements: Path | None) -> str:
    """What decides the content of the environment, as text to compare."""
    files = {"pyproject.toml": ROOT / "pyproject.toml", "comfyui": requirements}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path}
    return json.dumps({"root": str(ROOT), "torch": TORCH, "extras": EXTRAS, "files": hashes}, indent=2)


def _make_venv(folder: Path) -> Path:
    """A virtual environment in ``folder``: the one that is there if it works, else a new one. Returns its Python."""
    python = python_in(folder)
    if python and has_modules(python):
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        raise SetupError(f"{folder} is in use and no virtual environment; set DYNAMICID_VENV to a new folder.")
    if not _run([sys.executable, "-m", "venv", "--clear", str(folder)]):
        raise SetupError(
            f"Python could not make a virtual environment in {folder}; on Debian and Ubuntu install python3-venv first."
        )
    return python_in(folder)
