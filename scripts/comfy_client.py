"""A running ComfyUI, spoken to over HTTP and its websocket: upload photos, queue a graph, follow it, fetch the picture.

Runs in any Python that has aiohttp, which ComfyUI's own does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from environment import SetupError

Progress = Callable[[str, int, int], None]  # title of the running node, steps done, steps in all


class Client:
    """ComfyUI at an address such as ``http://127.0.0.1:8188``. What goes wrong is a ``SetupError``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.id = uuid.uuid4().hex

    def fetch(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """GET, or POST with a body."""
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as refusal:
            raise SetupError(describe_refusal(refusal.read()) or f"ComfyUI refused {path}: {refusal}.") from None
        except OSError as error:
            raise SetupError(
                f"No ComfyUI answers at {self.url} ({error}); start it, or give another address."
            ) from None

    def get(self, path: str) -> Any:
        try:
            return json.loads(self.fetch(path))
        except ValueError:
            raise SetupError(f"What answers at {self.url} is no ComfyUI; give another address.") from None

    def is_alive(self) -> bool:
        """Whether a ComfyUI answers there."""
        try:
            return "system" in self.get("/system_stats")
        except SetupError:
            return False

    def choices(self, node: str, name: str) -> list[str]:
        """What a node's combo offers, e.g. the checkpoints that are there."""
        kind, *options = self.get(f"/object_info/{node}")[node]["input"]["required"][name]
        return kind if isinstance(kind, list) else options[0]["options"]

    def upload(self, photo: Path) -> str:
        """Put a picture into the host's input folder; returns the name by which Load Image knows it."""
        boundary = uuid.uuid4().hex
        name = f"{photo.stem}_{self.id[:8]}{photo.suffix}"  # nobody's picture of the same name is replaced
        header = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{urllib.parse.quote(name)}"\r\n'
        )
        body = f"{header}Content-Type: application/octet-stream\r\n\r\n".encode() + photo.read_bytes()
        answer = self.fetch(
            "/upload/image", body + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
        )
        return json.loads(answer)["name"]

    def run(self, graph: dict[str, dict], progress: Progress) -> dict[str, dict]:
        """Queue a graph (API format), follow it to its end, and return the outputs by node id.

        Interrupted by Ctrl-C, it stops the run in the host as well.
        """
        try:
            return asyncio.run(self._run(graph, progress))
        except (KeyboardInterrupt, SystemExit):
            with contextlib.suppress(SetupError):
                self.fetch("/interrupt", b"{}")
            raise

    async def _run(self, graph: dict[str, dict], progress: Progress) -> dict[str, dict]:
        import aiohttp

        address = f"{self.url}/ws?clientId={self.id}"
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as events:
                body = json.dumps({"prompt": graph, "client_id": self.id}).encode()
                run = json.loads(await asyncio.to_thread(self.fetch, "/prompt", body))["prompt_id"]
                async for message in events:
                    if message.type is aiohttp.WSMsgType.TEXT and self._is_done(message.json(), graph, run, progress):
                        return await asyncio.to_thread(self._outputs, run)
        except aiohttp.ClientError as error:
            raise SetupError(f"The connection to ComfyUI at {self.url} failed ({error}).") from None
        raise SetupError("ComfyUI ended before the picture was done; its log says why.")

    @staticmethod
    def _is_done(event: dict, graph: dict[str, dict], run: str, progress: Progress) -> bool:
        """Report one of the host's messages. Raises SetupError when it tells of a failure."""
        data = event["data"]
        if data.get("prompt_id", run) != run:
            return False
        title = graph.get(str(data.get("node")), {}).get("_meta", {}).get("title")
        if event["type"] == "executing" and title:
            progress(title, 0, 0)
        if event["type"] == "progress" and title:
            progress(title, data["value"], data["max"])
        if event["type"] == "execution_interrupted":
            raise SetupError("The run was interrupted in ComfyUI.")
        if event["type"] == "execution_error":
            where = graph.get(data["node_id"], {}).get("_meta", {}).get("title", data["node_type"])
            raise SetupError(f"{where}: {data['exception_message'].strip()}")
        return event["type"] == "execution_success"

    def _outputs(self, run: str) -> dict[str, dict]:
        """The outputs of a finished run, which the host writes just after it has told that it is done."""
        for _ in range(200):
            if found := self.get(f"/history/{run}").get(run):
                return found["outputs"]
            time.sleep(0.05)
        raise SetupError("ComfyUI's history lacks the finished run; look for the picture in its output folder.")

    def picture(self, item: dict) -> bytes:
        """The file that an output names (``filename``, ``subfolder``, ``type``)."""
        return self.fetch("/view?" + urllib.parse.urlencode(item))


def describe_refusal(answer: bytes) -> str | None:
    """What the host says against a graph, in a line; None if that is no such answer."""
    try:
        refusal = json.loads(answer)
        found = [
            f"{one['message']}: {one['details']}"
            for node in (refusal.get("node_errors") or {}).values()
            for one in node["errors"]
        ]
        return "ComfyUI refused the graph: " + "; ".join(found or [refusal["error"]["message"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def server(python: Path, comfyui: Path, port: int, options: list[str], timeout: float = 300) -> Iterator[Client]:
    """Start ComfyUI at ``port`` of this machine, for as long as the block runs.

    Raises SetupError with the end of its log if it does not start.
    """
    command = [str(python), str(comfyui / "main.py"), "--port", str(port), "--disable-auto-launch", *options]
    # A session of its own: Ctrl-C reaches this script alone, which then stops the server in order.
    apart = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=comfyui, **apart)
        before = signal.signal(signal.SIGTERM, _exit)
        try:
            client = Client(f"http://127.0.0.1:{port}")
            _wait(client, process, log, timeout)
            yield client
        finally:
            signal.signal(signal.SIGTERM, before)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _exit(number: int, frame: Any) -> None:
    """Asked to end by another program, end as after Ctrl-C: with everything cleaned up."""
    raise SystemExit(128 + number)


def _wait(client: Client, process: subprocess.Popen, log: Any, timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if client.is_alive():
            return
        time.sleep(0.3)
    log.seek(0)
    tail = log.read().decode(errors="replace").strip()[-1500:]
    how = (
        f"did not answer within {timeout:.0f} s" if process.poll() is None else f"ended with code {process.returncode}"
    )
    raise SetupError(f"ComfyUI {how}; the end of its log:\n{tail}")
