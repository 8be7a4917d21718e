"""ComfyUI started as a process of its own, for as long as a block runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from environment import SetupError

from .folders import base_options
from .speaking import Client

LOG_TAIL = 1500  # characters of the log in a message


class Server(Client):
    """A ComfyUI that was started here. ``base``: its base folder, if it has one of its own."""

    def __init__(self, port: int, log_file: Path, base: Path | None) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self.base, self._log_file = base, log_file

    def log(self) -> str:
        """What it has printed so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def started(
    python: Path,
    comfyui: Path,
    options: Iterable[str] = (),
    base: Path | None = None,
    port: int | None = None,
    timeout: float = 300,
) -> Iterator[Server]:
    """Start ComfyUI at ``port`` of this machine (None: any that is free), for as long as the block runs.

    Raises SetupError with the end of its log if it does not answer within ``timeout`` seconds.
    """
    port = port or free_port()
    command = [str(python), str(comfyui / "main.py"), "--port", str(port), "--disable-auto-launch"]
    command += [*(base_options(base) if base else ()), *options]
    # A session of its own: Ctrl-C reaches this script alone, which then stops the server in order.
    apart: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
    with tempfile.TemporaryDirectory(prefix="dynamicid-log-", ignore_cleanup_errors=True) as folder:
        server = Server(port, Path(folder) / "comfyui.log", base)
        with server._log_file.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=comfyui, **apart)
        before = signal.signal(signal.SIGTERM, _exit)
        try:
            _wait(server, process, timeout)
            yield server
        finally:
            signal.signal(signal.SIGTERM, before)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _exit(number: int, frame: Any) -> None:
    """Asked to end by another program, end as after Ctrl-C: with everything cleaned up."""
    raise SystemExit(128 + number)


def _wait(server: Server, process: subprocess.Popen, timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if server.is_alive():
            return
        time.sleep(0.2)
    how = (
        f"did not answer within {timeout:.0f} s" if process.poll() is None else f"ended with code {process.returncode}"
    )
    raise SetupError(f"ComfyUI {how}; the end of its log:\n{server.log().strip()[-LOG_TAIL:]}")
