"""Where ComfyUI is, and which Python runs it.

Environment variables:
    COMFYUI_PATH    the folder of ComfyUI; else the places where comfy-cli installs it are searched
    COMFYUI_PYTHON  the Python that runs ComfyUI; else its own environments are searched
"""

from __future__ import annotations

import configparser
import os
import platform
import re
import sys
from pathlib import Path

from environment import ROOT, SetupError, has_modules, python_in

MARKS = ("main.py", "nodes.py", "comfy", "folder_paths.py")  # what makes a folder a ComfyUI
PACKAGES = ("torch", "aiohttp", "yaml")  # what a Python needs at least to run it


def find_comfyui() -> Path | None:
    """The folder of ComfyUI, or None.

    Searched in this order: ``COMFYUI_PATH``; the ComfyUI in whose ``custom_nodes`` this folder lies; the workspaces
    in comfy-cli's settings; the place where comfy-cli installs by default.

    Raises SetupError if ``COMFYUI_PATH`` is set and holds no ComfyUI.
    """
    named = os.environ.get("COMFYUI_PATH")
    if named:
        found = _comfyui_in(Path(named).expanduser())
        if found is None:
            marks = ", ".join(MARKS)
            raise SetupError(f"COMFYUI_PATH is {named}, but that is no ComfyUI folder (it lacks some of {marks}).")
        return found
    around = [ROOT.parents[1]] if ROOT.parent.name == "custom_nodes" else []
    for folder in (*around, *_comfy_cli_workspaces(), default_comfyui()):
        found = _comfyui_in(folder)
        if found is not None:
            return found
    return None


def version_of(comfyui: Path) -> str | None:
    """The version that a ComfyUI states, such as ``0.33.0``; None if it states none."""
    stated = comfyui / "comfyui_version.py"
    found = re.search(r'"(\d+(?:\.\d+)+)', stated.read_text("utf-8")) if stated.is_file() else None
    return found[1] if found else None


def older(version: str | None, than: str) -> bool:
    """Whether a version lies before another; what is not known is taken for new."""
    return version is not None and [int(n) for n in version.split(".")] < [int(n) for n in than.split(".")]


def default_comfyui() -> Path:
    """Where comfy-cli installs ComfyUI unless told otherwise."""
    documents = Path.home() if platform.system() == "Linux" else Path.home() / "Documents"
    return documents / "comfy" / "ComfyUI"


def _comfyui_in(folder: Path) -> Path | None:
    """``folder`` if it is a ComfyUI, or its subfolder ``ComfyUI`` as in the portable build for Windows."""
    for candidate in (folder, folder / "ComfyUI"):
        if all((candidate / mark).exists() for mark in MARKS):
            return candidate.resolve()
    return None


def _comfy_cli_workspaces() -> list[Path]:
    """The workspaces that comfy-cli remembers (``config.ini``, section DEFAULT), the chosen one first."""
    settings = {
        "Windows": Path.home() / "AppData" / "Local" / "comfy-cli",
        "Darwin": Path.home() / "Library" / "Application Support" / "comfy-cli",
    }.get(platform.system(), Path.home() / ".config" / "comfy-cli")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(settings / "config.ini", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return []  # comfy-cli could not read it either
    values = (parser["DEFAULT"].get(key, "") for key in ("default_workspace", "recent_workspace"))
    return [Path(value).expanduser() for value in values if value]


def comfyui_python(comfyui: Path) -> Path | None:
    """The Python that runs ``comfyui``: the first that has its packages, or None.

    Searched in this order: ``COMFYUI_PYTHON``; the environments in its folder; the portable build's Python; the
    active virtual or conda environment; the Python that runs this script.

    Raises SetupError if ``COMFYUI_PYTHON`` is set and lacks ComfyUI's packages.
    """
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        if not has_modules(Path(named), *PACKAGES):
            raise SetupError(f"COMFYUI_PYTHON is {named}, but that is no Python with ComfyUI's packages.")
        return Path(named)
    active = [Path(os.environ[name]) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if os.environ.get(name)]
    folders = [comfyui / ".venv", comfyui / "venv", comfyui.parent / "python_embeded", *active]
    candidates = [python_in(folder) for folder in folders] + [Path(sys.executable)]
    return next((python for python in candidates if python and has_modules(python, *PACKAGES)), None)
