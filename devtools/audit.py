"""Whether the packages that this project runs with have known weaknesses: ``python devtools/audit.py [arguments for pip-audit]``.

pip-audit asks an advisory database over the network for every package of this Python's environment, or of the project's.
Exit code: 0 none is known, 1 some are, 2 it could not be asked, so that nothing is known: the last line says which.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

from environment import has_modules, install, project_environment, run_script  # noqa: E402

NONE, SOME, UNKNOWN = 0, 1, 2


def audit(python: Path, arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what to say, of pip-audit run by ``python``."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        options = ["--format", "json", "--output", str(found), "--progress-spinner", "off", "--skip-editable"]
        command = [str(python), "-m", "pip_audit", *options, *arguments]
        said = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True).stderr
        if not found.is_file():  # it writes what it found also where it found nothing
            reason = said.strip().splitlines()[-1:] or ["it said nothing"]
            return (
                UNKNOWN,
                f"!!! NOT AUDITED: pip-audit could not do its work here ({reason[0]}). Nothing is known. !!!",
            )
        return _judged(json.loads(found.read_text(encoding="utf-8"))["dependencies"])


def _judged(packages: list[dict]) -> tuple[int, str]:
    weak = [
        f"  {package['name']} {package['version']}: {weakness['id']}, mended in {', '.join(weakness['fix_versions']) or 'none yet'}"
        for package in packages
        for weakness in package.get("vulns", ())
    ]
    passed_over = [f"  {package['name']}: {package['skip_reason']}" for package in packages if "skip_reason" in package]
    asked = len(packages) - len(passed_over)
    lines = ["Passed over:", *passed_over] if passed_over else []
    if not asked:
        return UNKNOWN, "\n".join(
            [*lines, "!!! NOT AUDITED: not one package could be asked for. Nothing is known. !!!"]
        )
    if weak:
        return SOME, "\n".join([*lines, *weak, f"{len(weak)} known weaknesses in {asked} packages."])
    return NONE, "\n".join([*lines, f"No known weaknesses in {asked} packages."])


def main(arguments: list[str]) -> int:
    here = Path(sys.executable)
    python = here if has_modules(here, "pip_audit") else project_environment()
    if not has_modules(python, "pip_audit"):
        install(python, "pip-audit")
    code, said = audit(python, arguments)
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(run_script(main))
