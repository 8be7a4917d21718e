"""Two processes (gloo) train what one with twice the batch does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from dynamicid_core.files import read_safetensors

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
HERE = Path(__file__).resolve().parent
# Means over rows are summed in another order: once in a process and between two, or all in one.
WITHIN = 1e-6


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(process: int, port: int, folder: Path) -> subprocess.Popen:
    """One of two processes, with the environment that ``accelerate launch --cpu --num_processes 2`` gives."""
    place = {"RANK": process, "LOCAL_RANK": process, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    quiet = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(HERE / "processes_training.py"), str(HERE.parents[1]), str(folder)],
        env=os.environ | quiet | {name: str(value) for name, value in place.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two processes with one row each, and of one with two."""
    together, alone = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    port = free_port()
    processes = [start(process, port, together) for process in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", tiny.plain_descent)
        tiny.train_both(alone, rows=2)
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return together, alone


@pytest.mark.parametrize("file", ["saa.safetensors", "imr.safetensors"])
def test_two_processes_equal_one_with_twice_the_batch(runs, file):
    """Plain descent: Adam would make whole steps of the rounding where a gradient is 0."""
    (two, _), (one, _) = (read_safetensors(folder / file) for folder in runs)
    assert two.keys() == one.keys()
    # What goes out again in the batch normalisation that follows has a gradient of 0, and moves by its rounding alone.
    for name, tensor in ((n, t) for n, t in one.items() if not n.endswith("conv_block.0.bias")):
        torch.testing.assert_close(two[name], tensor, atol=WITHIN, rtol=1e-5, msg=name)


@pytest.mark.parametrize("stage, file", [("anchor", "saa.safetensors"), ("reconfigure", "imr.safetensors")])
def test_that_they_saw_different_rows_matters(runs, stage, file, tmp_path):
    """One process with its half of the rows alone comes to something else, farther off than the tolerance."""
    made = tiny.anchor_stage(tiny.anchor_model(perturbed=True))
    rows = tiny.Rows(1)
    if stage == "reconfigure":
        made, rows = tiny.reconfigure_stage(tiny.face_unet()), tiny.Rows(1, make=tiny.reconfigure_batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", tiny.plain_descent)
        tiny.trainer(made, tmp_path, **tiny.TOGETHER).train(rows, progress=False)
    (half, _), (whole, _) = (read_safetensors(folder / file) for folder in (tmp_path, runs[1]))
    off = max(float((half[name] - whole[name]).abs().max()) for name in whole if half[name].is_floating_point())
    assert off > 50 * WITHIN
