"""An evaluation shared by two processes, as `accelerate launch` starts them, says what one process says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import group_photo
import pytest

from dynamicid_core.command_line import main

pytest.importorskip("accelerate")
pytest.importorskip("dlib")
pytest.importorskip("insightface")

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_say_what_one_says(tmp_path, capsys):
    scenes = group_photo.write_scenes(tmp_path / "scenes")
    scenes.write_text("".join(scenes.read_text().splitlines(keepends=True)[:5]))
    words = ["evaluate", str(scenes), "--recognisers", "dlib", "--name", "run", "--show", "0", "--json"]
    assert main([*words, "-o", str(tmp_path / "one"), "-q"]) == 0
    one = json.loads(capsys.readouterr().out)

    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    command = [*launch, "--main_process_port", "0", "-m", "dynamicid_core", *words, "-o", str(tmp_path / "two")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # one object: one process speaks
    assert two["table"] == one["table"]
    for file in ("results.json", "table.csv"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
