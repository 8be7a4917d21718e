"""Everything that reads the sources without running them: ``python devtools/lint.py [--fix]``.

ruff (lint and format), mypy (strict, on the core) and import-linter, each with its settings in pyproject.toml. The tests,
the pre-commit hooks and CI call this, so that all of them check the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINKED = "pack"  # what the contracts in pyproject.toml call the root folder, whose own name may be anything


def imports() -> list[str]:
    """The command that holds the tree to its import contracts; run it in a folder where the root is called ``pack``."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]


def run_imports(root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Check the contracts for the tree at ``root`` (this one, or a copy that a test has spoilt)."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / LINKED).symlink_to(root, target_is_directory=True)
        variables = os.environ | {"PYTHONPATH": folder, "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(imports(), cwd=folder, env=variables, capture_output=True, text=True, encoding="utf-8")


def main(arguments: list[str]) -> int:
    fix = "--fix" in arguments
    module = [sys.executable, "-m"]
    commands = [
        [*module, "ruff", "check", "--quiet", *(["--fix"] if fix else []), "."],
        [*module, "ruff", "format", "--quiet", *([] if fix else ["--check"]), "."],
        [*module, "mypy", "--no-error-summary"],
    ]
    codes = [subprocess.run(command, cwd=ROOT).returncode for command in commands]
    checked = run_imports()
    if checked.returncode:
        print(checked.stdout, checked.stderr, sep="\n")
    return max(*codes, checked.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
