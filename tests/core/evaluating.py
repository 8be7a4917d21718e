"""The command evaluate, as tests call it."""

from __future__ import annotations

from dynamicid_core.command_line import main


def run(capsys, *words) -> tuple[int, str, str]:
    code = main(["evaluate", *[str(word) for word in words], "-q"])
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, *words) -> str:
    code, out, err = run(capsys, *words)
    assert code == 1 and out == "" and err.count("\n") == 1
    return err.removeprefix("error: ").strip()
