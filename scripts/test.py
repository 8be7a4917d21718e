"""Run every test that can run on this machine: ``python scripts/test.py [arguments for pytest]``.

It makes its own environment first (see environment.py). ``tests/host`` needs a real ComfyUI (see comfyui/finding.py);
where none is found, those tests are left out, and the last line says so.
"""

from __future__ import annotations

import os
import subprocess
import sys

from comfyui.finding import default_comfyui, find_comfyui
from environment import ROOT, project_environment, run_script


def main(arguments: list[str]) -> int:
    comfyui = find_comfyui()
    python = project_environment(comfyui)
    names_tests = any(not word.startswith("-") and (ROOT / word.split("::")[0]).exists() for word in arguments)
    folders = [] if names_tests else ["tests"] if comfyui else ["tests/core"]
    # Threads that wait by spinning take the cores away from the servers that some tests start.
    variables = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | ({"COMFYUI_PATH": str(comfyui)} if comfyui else {})
    code = subprocess.run([str(python), "-m", "pytest", *folders, *arguments], cwd=ROOT, env=variables).returncode
    if not comfyui:
        print(
            f"\n!!! SKIPPED: tests/host, since no ComfyUI was found at COMFYUI_PATH or in {default_comfyui()}; "
            "install one there (pip install comfy-cli, then comfy install) and run this again. !!!",
            flush=True,
        )
    return code


if __name__ == "__main__":
    sys.exit(run_script(main))
