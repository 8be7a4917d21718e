"""Put this pack into ComfyUI: ``python scripts/setup.py [--yes]``. Running it again is safe.

It finds ComfyUI (see comfyui/finding.py), or installs one with comfy-cli if it may; makes the pack appear in its
``custom_nodes``, where another copy of it stays unless the user agrees, or says ``--relink``; installs requirements.txt
into the Python that runs it; and says what to do next.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from comfyui.finding import comfyui_python, default_comfyui, find_comfyui, older, version_of
from comfyui.folders import PACK, link_pack
from environment import (
    ROOT,
    SetupError,
    agrees,
    has_modules,
    install,
    project_environment,
    python_in,
    run_script,
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Put the DynamicID nodes into ComfyUI. Running it again is safe.")
    parser.add_argument("--yes", action="store_true", help="install ComfyUI with comfy-cli if none is found")
    parser.add_argument(
        "--relink", action="store_true", help="let ComfyUI use this copy of the pack where it uses another one now"
    )
    options = parser.parse_args(arguments)
    comfyui = find_comfyui() or install_comfyui(options.yes)
    check_version(comfyui)
    python = comfyui_python(comfyui)
    if python is None:
        print(f"No Python with ComfyUI's packages was found for {comfyui}; making one for it.")
        python = project_environment(comfyui)
    pack = link_pack(comfyui, lambda other: options.relink or may_relink(comfyui, other))
    install(python, *missing_requirements(python))
    print(
        f"""
The pack is in {pack}.
  1. Start (or restart) ComfyUI, for example with
       "{python}" "{comfyui / "main.py"}"
  2. Open it in the browser, choose Templates, then {PACK}.
  3. DynamicID's own model files go to {comfyui / "models" / "dynamicid"}."""
    )
    return 0


def may_relink(comfyui: Path, other: Path) -> bool:
    """Whether the user wants this clone in place of the one that ComfyUI uses now."""
    return agrees(f"ComfyUI in {comfyui} uses another copy of this pack, {other}. Use {ROOT} instead? [y/N] ")


def install_comfyui(allowed: bool) -> Path:
    """Install ComfyUI with comfy-cli where comfy-cli puts it by default, if the user agrees. Returns its folder.

    Raises SetupError if the user does not agree, or if the installation fails.
    """
    folder = default_comfyui()
    if not allowed and not agrees(f"No ComfyUI was found. Install it with comfy-cli in {folder}? [y/N] "):
        raise SetupError(
            "No ComfyUI was found; set COMFYUI_PATH to its folder, or let this script install it with --yes."
        )
    # Inside an active environment comfy-cli would install ComfyUI's packages there instead of into an own one.
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    with tempfile.TemporaryDirectory() as tools:
        if subprocess.run([sys.executable, "-m", "venv", tools]).returncode:
            raise SetupError("Python could not make a virtual environment; on Debian and Ubuntu install python3-venv.")
        python = python_in(Path(tools))
        install(python, "comfy-cli")
        command = [str(python), "-m", "comfy_cli", "--skip-prompt", "--workspace", str(folder), "install"]
        if subprocess.run([*command, accelerator()], env=variables).returncode:
            raise SetupError("comfy-cli could not install ComfyUI; the messages above say why.")
    return folder


def accelerator() -> str:
    """comfy-cli's option for this machine's hardware."""
    if platform.system() == "Darwin":
        return "--m-series" if platform.machine() == "arm64" else "--cpu"
    if shutil.which("nvidia-smi"):
        return "--nvidia"
    return "--amd" if shutil.which("rocminfo") else "--cpu"


def check_version(comfyui: Path) -> None:
    """Refuse a ComfyUI older than ``requires-comfyui`` in pyproject.toml.

    Raises SetupError with both versions. A ComfyUI that does not state its version passes.
    """
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    wanted = re.search(r'^requires-comfyui = ">=([\d.]+)"', project, re.MULTILINE)[1]
    found = version_of(comfyui)
    if older(found, wanted):
        raise SetupError(f"ComfyUI in {comfyui} is {found}, and this pack needs {wanted} or newer; update ComfyUI.")


def missing_requirements(python: Path) -> list[str]:
    """The lines of requirements.txt to install into ``python``.

    onnxruntime is left out if its module is there: it may come from onnxruntime-gpu or onnxruntime-directml, which
    the plain package would overwrite.
    """
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines())
    present = has_modules(python, "onnxruntime")
    return [line for line in lines if line and not (present and line.startswith("onnxruntime"))]


if __name__ == "__main__":
    sys.exit(run_script(main))
