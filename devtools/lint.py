"""Everything that reads the sources without running them: ``python devtools/lint.py [--fix]``.

ruff (lint and format), mypy (strict, on the core) and import-linter, each with its settings in pyproject.toml. The tests,
the pre-commit hook and CI call this, so that all of them check the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

from comfyui.folders import make_link  # noqa: E402
from environment import has_modules, project_environment, run_script  # noqa: E402

LINKED = "pack"  # what the contracts in pyproject.toml call the root folder, whose own name may be anything
TOOLS = ("ruff", "mypy", "importlinter")


def check_imports(python: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Hold the tree at ``root`` (this one, or a copy that a test has spoilt) to the contracts in pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    with tempfile.TemporaryDirectory() as folder:
        make_link(Path(folder) / LINKED, root)
        variables = os.environ | {"PYTHONPATH": folder, "PYTHONIOENCODING": "utf-8", "COLUMNS": "160"}
        return subprocess.run(
            [str(python), "-c", code, *options],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )


def main(arguments: list[str]) -> int:
    here = Path(sys.executable)
    python = here if has_modules(here, *TOOLS) else project_environment()
    fix = "--fix" in arguments
    commands = [
        ["ruff", "check", "--quiet", *(["--fix"] if fix else []), "."],
        ["ruff", "format", "--quiet", *([] if fix else ["--check"]), "."],
        ["mypy", "--no-error-summary"],
    ]
    codes = [subprocess.run([str(python), "-m", *command], cwd=ROOT).returncode for command in commands]
    checked = check_imports(python)
    if checked.returncode:
        print(checked.stdout, checked.stderr, sep="\n")
    return max(*codes, checked.returncode)


if __name__ == "__main__":
    sys.exit(run_script(main))
