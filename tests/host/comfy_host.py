"""A real ComfyUI for tests: in this process (`Host`) and over HTTP (`Server`), with stand-in models.

ComfyUI is looked for in the folder named by the environment variable ``COMFYUI_PATH``, else where comfy-cli installs
it. It runs in this Python, so its requirements must be installed here. Each start gets a fresh base folder; the
stand-in models in it are links to a cache in the temporary folder (``DYNAMICID_STANDINS`` gives another place).
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import importlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "comfyui-dynamicid"  # the folder in custom_nodes
OPTIONS = ["--cpu", "--use-pytorch-cross-attention", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
CHECKPOINT = "Realistic_Vision_V6.0_NV_B1_fp16.safetensors"
CAPTURE = "TestCapture"  # class name of the node that hands values to the test


class HostError(RuntimeError):
    """The host refused a graph, or a node in it failed. ``node_errors`` is keyed by node id."""

    def __init__(self, message: str, node_errors: dict | None = None) -> None:
        super().__init__(message)
        self.node_errors = node_errors or {}


@dataclass
class GraphResult:
    """What a graph left: ``ui`` by node id as the host's history has it; ``values`` by captured (node id, slot)."""

    ui: dict[str, dict]
    values: dict[tuple[str, int], Any] = field(default_factory=dict)
    events: list[dict] = field(default_factory=list)  # the server's messages; empty in-process


# Folders


def find_comfyui() -> Path | None:
    """ComfyUI's folder: ``COMFYUI_PATH``, else comfy-cli's default place; None if neither holds one.

    Raises `HostError` if ``COMFYUI_PATH`` is set to a folder without ComfyUI.
    """
    named = os.environ.get("COMFYUI_PATH")
    default = Path.home() / ("comfy" if sys.platform.startswith("linux") else "Documents/comfy") / "ComfyUI"
    folder = Path(named).expanduser() if named else default
    if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
        return folder.resolve()
    if named:
        raise HostError(f"COMFYUI_PATH is {named}, but there is no ComfyUI (main.py and comfy/) in it.")
    return None


def stand_in_models() -> Path:
    """The cached models folder, made when missing; one for each state of the sources that make it."""
    from dynamicid_core.standins.models import make_models, sources_key

    named = os.environ.get("DYNAMICID_STANDINS")
    prefix = f"dynamicid-stand-ins-{getpass.getuser()}-"
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"{prefix}{sources_key()}"
    make_models(folder)
    if not named:
        for old in folder.parent.glob(f"{prefix}*"):
            if old != folder and time.time() - old.stat().st_mtime > 3600:  # runs under way have links of their own
                shutil.rmtree(old, ignore_errors=True)
        os.utime(folder)
    return folder


def make_base(models: Path | None = None, pack: bool = True) -> Path:
    """A fresh base folder for the host, in a temporary place: links to the models and, with ``pack``, to this tree."""
    base = Path(tempfile.mkdtemp(prefix="dynamicid-host-")).resolve()
    for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir()
    models = models or stand_in_models()
    for source in models.rglob("*"):
        if source.is_file():
            _link_file(source, base / "models" / source.relative_to(models))
    if pack:
        _link_folder(REPOSITORY, base / "custom_nodes" / PACK)
    return base


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for link in (os.link, os.symlink, shutil.copyfile):  # a hard link needs one volume, a symbolic one rights (Windows)
        try:
            link(source, target)
            return
        except OSError:
            if link is shutil.copyfile:
                raise


def _link_folder(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make symbolic links: junctions need none
        import _winapi

        _winapi.CreateJunction(str(source), str(target))


# In this process


class Host:
    """ComfyUI started in this process. There can be only one; it lasts as long as the process."""

    def __init__(self, comfyui: Path, base: Path) -> None:
        self.comfyui, self.base = comfyui, base
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self._import(comfyui, base)
        import execution
        import server

        import nodes

        self.nodes, self._execution = nodes, execution
        self._server = server.PromptServer(self.loop)
        failed = self.loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
        self._server.add_routes()
        self._captured: dict[tuple[str, int], Any] = {}
        nodes.NODE_CLASS_MAPPINGS[CAPTURE] = _capture_class(self._captured)
        self.failed_core_nodes = list(failed)  # files whose optional requirements are not installed
        self.pack: Any = None  # the pack's root module once load_pack has run
        self._models: dict[str, tuple] = {}
        self.forget()

    @staticmethod
    def _import(comfyui: Path, base: Path) -> None:
        """Import the host's modules with our options, and with its folder before anything else on the path."""
        taken = sys.modules.get("nodes")
        if taken is not None and not str(taken.__file__).startswith(str(comfyui)):
            raise HostError(f"A module 'nodes' is loaded already, from {taken.__file__}; the host needs that name.")
        sys.path[:] = [str(comfyui), *(path for path in sys.path if Path(path or ".").resolve() != REPOSITORY)]
        arguments = sys.argv
        sys.argv = ["main.py", *OPTIONS, "--base-directory", str(base)]
        try:
            import comfy.options

            comfy.options.enable_args_parsing()
            import comfy.cli_args  # noqa: F401  (it reads sys.argv while it is imported)
            import utils.extra_config  # noqa: F401  (as main.py does, before nodes.py puts comfy/utils.py on the path)
        finally:
            sys.argv = arguments

    def load_pack(self) -> None:
        """Load this repository as the host loads a custom node. Raises `HostError` with the host's log if it fails."""
        folder = self.base / "custom_nodes" / PACK
        with captured_log() as log:
            loaded = self.loop.run_until_complete(self.nodes.load_custom_node(str(folder)))
        if not loaded:
            raise HostError(f"The host could not load {folder}:\n" + "\n".join(log))
        self.pack = sys.modules[str(folder).replace(".", "_x_")]

    def module(self, name: str) -> Any:
        """A module of the pack as the host sees it, e.g. ``dynamicid_core.types`` (a copy apart from the test's own)."""
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def forget(self) -> None:
        """Drop the host's cache of node outputs, so that every node runs again."""
        limits = {"lru": 0, "ram": 0, "ram_inactive": 0}
        self._executor = self._execution.PromptExecutor(self._server, cache_args=limits)

    def run_graph(self, prompt: dict[str, dict], capture: Iterable[tuple[str, int]] = ()) -> GraphResult:
        """Validate and run a graph in API format; unchanged nodes come from the cache, as in the real host.

        ``capture`` names outputs (node id, slot) whose values are wanted. Raises `HostError` with the node errors.
        """
        capture = [(str(node), slot) for node, slot in capture]
        prompt = {**prompt, **{f"capture-{n}-{s}": _capture_node(n, s) for n, s in capture}}
        run = str(uuid.uuid4())
        valid, error, outputs, node_errors = self.loop.run_until_complete(
            self._execution.validate_prompt(run, prompt, None)
        )
        if not valid:
            raise HostError(describe_refusal(error, node_errors), node_errors)
        self._captured.clear()
        self._executor.execute(prompt, run, {}, list(outputs))
        for event, details in self._executor.status_messages:
            if event == "execution_error":
                raise HostError(describe_failure(details), {details["node_id"]: details})
        return GraphResult(dict(self._executor.history_result["outputs"]), dict(self._captured))

    def node(self, class_name: str):
        """A function that calls a node by itself, as the host would, and returns the tuple of its outputs."""
        cls = self.nodes.NODE_CLASS_MAPPINGS[class_name]

        def call(**inputs: Any) -> tuple:
            import torch

            prepared = cls.PREPARE_CLASS_CLONE(None) if hasattr(cls, "PREPARE_CLASS_CLONE") else cls()
            with torch.inference_mode():
                result = getattr(prepared, cls.FUNCTION)(**inputs)
                if asyncio.iscoroutine(result):
                    result = self.loop.run_until_complete(result)
            result = getattr(result, "result", result)
            return result.get("result", ()) if isinstance(result, dict) else tuple(result or ())

        return call

    def load_model(self, checkpoint: str = CHECKPOINT) -> tuple:
        """``(model, clip, vae)`` of a checkpoint, loaded once."""
        if checkpoint not in self._models:
            self._models[checkpoint] = self.node("CheckpointLoaderSimple")(ckpt_name=checkpoint)
        return self._models[checkpoint]

    def object_info(self) -> dict[str, dict]:
        """What the host tells its front end about every node (its own route handler, called directly)."""
        routes = {(route.method, route.path): route.handler for route in self._server.routes if hasattr(route, "path")}
        return json.loads(self.loop.run_until_complete(routes["GET", "/object_info"](None)).text)


def _capture_node(node: str, slot: int) -> dict:
    return {"class_type": CAPTURE, "inputs": {"value": [node, slot], "node": node, "slot": slot}, "_meta": {"title": CAPTURE}}


def _capture_class(store: dict[tuple[str, int], Any]) -> type:
    class AnyType(str):
        def __ne__(self, other: object) -> bool:
            return False

    class Capture:
        INPUT_TYPES = classmethod(
            lambda cls: {"required": {"value": (AnyType("*"),), "node": ("STRING", {}), "slot": ("INT", {})}}
        )
        RETURN_TYPES = ()
        OUTPUT_NODE = True
        FUNCTION = "keep"
        CATEGORY = "tests"
        IS_CHANGED = classmethod(lambda cls, **_: float("nan"))  # runs even where what it captures is cached

        def keep(self, value: Any, node: str, slot: int) -> dict:
            store[node, slot] = value
            return {}

    return Capture


@contextlib.contextmanager
def captured_log(level: int = logging.WARNING) -> Iterator[list[str]]:
    """Collect what is logged at this level or above, by anyone, while the block runs."""
    lines: list[str] = []
    handler = logging.Handler(level)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)


def describe_refusal(error: Any, node_errors: dict) -> str:
    """The host's refusal of a graph as text: its message, then a line for each node's mistake."""
    lines = [f"{error.get('message')} {error.get('details', '')}".strip() if isinstance(error, dict) else str(error)]
    for node, found in (node_errors or {}).items():
        for one in found["errors"]:
            lines.append(f"node {node} ({found['class_type']}): {one['message']}: {one['details']}")
    return "\n".join(lines)


def describe_failure(details: dict) -> str:
    return f"node {details['node_id']} ({details['node_type']}): {details['exception_message'].strip()}"


# Over HTTP


class Server:
    """ComfyUI's ``main.py`` as a process of its own, spoken to over HTTP and its websocket."""

    def __init__(self, comfyui: Path, base: Path, options: Iterable[str] = (), timeout: float = 120) -> None:
        self.base = base
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = base / "server.log"
        command = [sys.executable, str(comfyui / "main.py"), *OPTIONS, "--base-directory", str(base)]
        command += ["--port", str(self.port), "--disable-auto-launch", *options]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=base)
        self._wait(timeout)

    def _wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise HostError(f"The host ended with code {self._process.returncode}:\n{self.log()[-3000:]}")
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return
            time.sleep(0.2)
        self.stop()
        raise HostError(f"The host did not answer within {timeout} s:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """What the host has printed so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def fetch(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """GET, or POST with a body. Raises `urllib.error.HTTPError` for a refusal."""
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.fetch(path))

    def object_info(self) -> dict[str, dict]:
        return self.get("/object_info")

    def upload(self, file: Path, folder: str = "input") -> str:
        """Upload an input file (a picture) and return the name by which loaders know it."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="type"\r\n\r\n{folder}\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode() + file.read_bytes() + b"\r\n",
            f"--{boundary}--\r\n".encode(),
        ]
        answer = self.fetch("/upload/image", b"".join(parts), f"multipart/form-data; boundary={boundary}")
        return json.loads(answer)["name"]

    def view(self, item: dict) -> bytes:
        """The bytes of a picture that a node's output names (``filename``, ``subfolder``, ``type``)."""
        return self.fetch("/view?" + urllib.parse.urlencode(item))

    def run_graph(self, prompt: dict[str, dict], timeout: float = 300) -> GraphResult:
        """Queue a graph, follow it on the websocket until it ends, and return its outputs from the history.

        Raises `HostError` with the node errors if it is refused or fails, `TimeoutError` if it takes too long.
        """
        return asyncio.run(asyncio.wait_for(self._run(prompt), timeout))

    async def _run(self, prompt: dict[str, dict]) -> GraphResult:
        import aiohttp

        client, run = uuid.uuid4().hex, str(uuid.uuid4())
        body = json.dumps({"prompt": prompt, "client_id": client, "prompt_id": run}).encode()
        events: list[dict] = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as socket_,
        ):
            await asyncio.to_thread(self._post, body)
            async for message in socket_:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue  # previews are binary
                event = message.json()
                events.append(event)
                if event["data"].get("prompt_id") != run:
                    continue
                if event["type"] == "execution_error":
                    raise HostError(describe_failure(event["data"]), {event["data"]["node_id"]: event["data"]})
                if event["type"] == "execution_success":
                    break
        return GraphResult(await asyncio.to_thread(self._history, run), events=events)

    def _post(self, body: bytes) -> None:
        try:
            self.fetch("/prompt", body)
        except urllib.error.HTTPError as refusal:
            answer = json.loads(refusal.read())
            node_errors = answer.get("node_errors") or {}
            raise HostError(describe_refusal(answer.get("error"), node_errors), node_errors) from None

    def _history(self, run: str) -> dict:
        """The outputs of a finished run; the host writes them just after it says that it is done."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if run in (history := self.get(f"/history/{run}")):
                return history[run]["outputs"]
            time.sleep(0.05)
        raise HostError(f"The host's history lacks the finished run {run}.")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def server(comfyui: Path, pack: bool = True, options: Iterable[str] = ()) -> Iterator[Server]:
    """A server with its own base folder; both are gone when the block ends."""
    base = make_base(pack=pack)
    try:
        running = Server(comfyui, base, options)
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)
