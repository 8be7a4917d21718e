"""A ComfyUI of its own for the scripts here: our pack, copies of others, the probe, and models that stay between runs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from comfyui.finding import version_of
from comfyui.folders import temporary_base
from comfyui.serving import Server, started

from .scene import Scene

PROBE = Path(__file__).with_name("probe.py")
OPTIONS = ("--cpu", "--use-pytorch-cross-attention", "--force-fp32", "--cache-classic", "--disable-api-nodes")
PATIENCE = 1800  # seconds that one run may take; compilers on busy machines are slow
OURS = "DynamicID"  # in lines of the log that our pack writes


class Host:
    """A running ComfyUI, and what the probe in it tells."""

    def __init__(self, server: Server, comfyui: Path) -> None:
        self.server, self.version = server, version_of(comfyui) or "unknown"
        self.object_info = server.object_info()
        self._read = 0  # characters of the log

    def run(self, scene: Scene, name: str, stop_at: int = 0) -> np.ndarray:
        """Run a scene for what it keeps under this name. Raises SetupError where it fails or is interrupted.

        The rest of the scene is in the prompt too, so that the host keeps what its nodes gave before. ``stop_at``: the host's
        stop button is pressed when so many nodes and steps have begun; 0: never.
        """
        begun = 0

        def progress(title: str, done: int, total: int) -> None:
            nonlocal begun
            begun += 1
            if begun == stop_at:
                self.server.fetch("/interrupt", b"{}")

        prompt = {
            number: content
            for number, content in scene.prompt(self.object_info).items()
            if content["inputs"].get("name") in (None, name)
        }
        self.server.run_graph(prompt, progress, PATIENCE)
        return np.load(self.server.base / "output" / "kept" / f"{name}.npy")

    def free(self) -> None:
        """Models and results are forgotten, as by the button of the host's menu; the next run waits for it. The list of
        finished runs too, which the host keeps with all of each one's graph, up to 10,000 of them.
        """
        self.server.fetch("/free", b'{"unload_models": true, "free_memory": true}')
        self.server.fetch("/history", b'{"clear": true}')

    def state(self) -> dict[str, Any]:
        return self.server.get("/compatibility/state")

    def said(self) -> list[str]:
        """What our pack has written to the log since the last question."""
        log = self.server.log()
        new, self._read = log[self._read :], len(log)
        return [line[line.index(OURS) :] for line in new.splitlines() if f"{OURS}:" in line or f"{OURS} needs" in line]


@contextlib.contextmanager
def host(comfyui: Path, output: Path, packs: Iterable[Path] = ()) -> Iterator[Host]:
    """A ComfyUI with the models and faces in ``output`` and with these checkouts of packs: copies, since some write into
    their folders."""
    with temporary_base(whole=output / "models") as base:
        shutil.copy(PROBE, base / "custom_nodes" / "compatibility_probe.py")
        for face in (output / "faces").iterdir():
            shutil.copy(face, base / "input")
        for path in packs:
            shutil.copytree(
                path, base / "custom_nodes" / path.name, ignore=shutil.ignore_patterns(".git"), symlinks=True
            )
        with started(Path(sys.executable), comfyui, OPTIONS, base, timeout=600) as server:
            yield Host(server, comfyui)


def commit_of(checkout: Path) -> str:
    """The short commit and date of a checkout; "" where git does not know."""
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else ""
