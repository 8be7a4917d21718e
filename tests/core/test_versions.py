"""The table of versions: what ran, what failed and what could not be run are told apart."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
import versions
from environment import SetupError
from versions import Row, Wanted

RESULTS = '<testsuites><testsuite tests="9" failures="{}" errors="0" skipped="2"/></testsuites>'


@pytest.fixture
def pytest_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs with this Python and a pytest that has so many failures, or dies before any test (None)."""
    monkeypatch.setattr(versions, "environment", lambda wanted, folder: Path(sys.executable))
    run = versions.subprocess.run

    def use(failures: int | None):
        def pretended(command, **how):
            if "pytest" not in command:
                return run(command, **how)
            (given,) = [word for word in map(str, command) if word.startswith("--junitxml=")]
            if failures is not None:
                Path(given.partition("=")[2]).write_text(RESULTS.format(failures))
            return versions.subprocess.CompletedProcess(command, 1)

        monkeypatch.setattr(versions.subprocess, "run", pretended)
        return versions.run(Wanted("3.11", "2"), tmp_path, [])

    return use


def test_what_ran(pytest_that):
    row = pytest_that(0)
    assert row.counts == {"passed": 7, "failed": 0, "errors": 0, "skipped": 2} and not row.failed
    assert row.versions[0] == platform.python_version() and row.cells()[-1].startswith("7 passed, 2 skipped in")
    assert pytest_that(1).failed


def test_what_did_not_run_is_never_counted_as_passed(pytest_that, tmp_path, monkeypatch, capsys):
    died = pytest_that(None)
    assert not died.counts and "not run: pytest ended with code 1" in died.cells()[-1]

    def impossible(wanted, folder):
        raise SetupError(f"there is no Python {wanted.python} here")

    monkeypatch.setattr(versions, "environment", impossible)
    code = versions.main(
        ["--python", "3.9", "--numpy", "2", "--folder", str(tmp_path), "-o", str(tmp_path / "table.md")]
    )
    said = capsys.readouterr().out
    assert code == 1 and "0 of 1 ran; 1 could not be run here" in said
    assert "| 3.9 | 2 |  |  |  | none | not run: there is no Python 3.9 here |" in (tmp_path / "table.md").read_text()


def test_rows_of_other_versions_stay(tmp_path):
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    old, new, host = Wanted("3.10", "1.26"), Wanted("3.13", "2"), Wanted("", "", tmp_path)
    rows = [Row(old, ("3.10.13", "1.26.4", "2.11.0", "1.23", "0.41"), {"passed": 3}), Row(new, why_not="no"), Row(host)]
    written = tmp_path / "table.md"
    written.write_text(versions.table(rows) + "\n")
    assert versions.other_rows(written, [new]) == [rows[0].cells(), rows[2].cells()]
    assert versions.other_rows(written, [Wanted("3.1", "1.26"), host]) == [rows[0].cells(), rows[1].cells()]
    assert versions.other_rows(tmp_path / "none.md", [new]) == []


def test_rows_are_the_product_and_the_hosts(tmp_path):
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    options = versions.argparse.Namespace(python=["3.10", "3.13"], numpy=["1.26", "2"], comfyui=[tmp_path])
    rows = list(versions.wanted_rows(options))
    assert [(row.python, row.numpy) for row in rows[:4]] == [(p, n) for p in ("3.10", "3.13") for n in ("1.26", "2")]
    assert Row(rows[4]).cells()[-2] == "0.33.0"


def test_the_tests_that_are_named_are_there():
    assert all((versions.ROOT / "tests/core" / f"{name}.py").is_file() for name in versions.CORE)
    assert all((versions.ROOT / "tests/host" / f"{name}.py").is_file() for name in versions.HOST)


def test_this_python_is_found():
    found = versions.find_python(".".join(platform.python_version_tuple()[:2]))
    assert found is None or found.exists()
    assert versions.find_python("2.99") is None
