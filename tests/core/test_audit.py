"""pip-audit's answers, told apart: nothing known, something known, not asked. The advisory database itself is not asked here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import audit
import pytest

SOUND = {"name": "pillow", "version": "12.0", "vulns": []}
WEAK = {"name": "torch", "version": "2.5.0", "vulns": [{"id": "PYSEC-2025-1", "fix_versions": ["2.6.0"]}]}
PASSED_OVER = {"name": "comfyui-dynamicid", "skip_reason": "not on PyPI"}


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A ``pip_audit`` that finds what it is given, or fails as one without a network does."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def answer(found: list[dict] | None) -> tuple[int, str]:
        write = f"open(sys.argv[sys.argv.index('--output') + 1], 'w').write({json.dumps({'dependencies': found})!r})"
        fail = "sys.exit('ConnectionError: Failed to resolve the advisory service')"
        (tmp_path / "pip_audit.py").write_text(
            f"import sys\n{fail if found is None else write}\nsys.exit({bool(found)})\n"
        )
        return audit.audit(Path(sys.executable), [])

    return answer


def test_nothing_is_known(answering):
    assert answering([SOUND, PASSED_OVER]) == (
        0,
        "Passed over:\n  comfyui-dynamicid: not on PyPI\nNo known weaknesses in 1 packages.",
    )


def test_something_is_known(answering):
    code, said = answering([SOUND, WEAK])
    assert code == 1 and said == "  torch 2.5.0: PYSEC-2025-1, mended in 2.6.0\n1 known weaknesses in 2 packages."


@pytest.mark.parametrize(
    "found, says", [(None, "advisory service"), ([], "not one package"), ([PASSED_OVER], "not one")]
)
def test_what_was_not_asked_never_passes(answering, found, says):
    code, said = answering(found)
    assert code == 2 and "!!! NOT AUDITED" in said.splitlines()[-1] and says in said.splitlines()[-1]
