"""A real ComfyUI in this process, for tests (`Host`); over HTTP it is ``comfyui.serving``'s.

It runs in this Python, so its requirements must be installed here. Each start gets a fresh base folder; the stand-in
models in it are links to a cache in the temporary folder (``DYNAMICID_STANDINS`` gives another place).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from comfyui.folders import PACK, base_options
from comfyui.speaking import GraphResult, HostError
from environment import ROOT as REPOSITORY

from dynamicid_core.catalogue import model_file

OPTIONS = ["--cpu", "--use-pytorch-cross-attention", "--disable-api-nodes"]
CHECKPOINT, VAE, VISION = (model_file(key).name for key in ("checkpoint", "vae", "clip_vision"))
CAPTURE = "TestCapture"  # class name of the node that hands values to the test


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
        sys.argv = ["main.py", *OPTIONS, *base_options(base)]
        try:
            import comfy.options

            comfy.options.enable_args_parsing()
            import comfy.cli_args
            import utils.extra_config  # noqa: F401  (as main.py does, before nodes.py puts comfy/utils.py on the path)
        finally:
            sys.argv = arguments

    def load_pack(self) -> None:
        """Load this repository as the host loads a custom node. Raises `HostError` with the host's log if it fails."""
        folder = self.base / "custom_nodes" / PACK
        self.load_custom_node(folder)
        self.pack = sys.modules[str(folder).replace(".", "_x_")]

    def load_custom_node(self, path: Path) -> None:
        """Load a file or folder as the host loads a custom node. Raises `HostError` with the host's log if it fails."""
        with captured_log() as log:
            loaded = self.loop.run_until_complete(self.nodes.load_custom_node(str(path)))
        if not loaded:
            raise HostError(f"The host could not load {path}:\n" + "\n".join(log))

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
        run, outputs = str(uuid.uuid4()), self.check_graph(prompt)
        self._captured.clear()
        self._executor.execute(prompt, run, {}, outputs)
        for event, details in self._executor.status_messages:
            if event == "execution_error":
                raise HostError.failure(details, prompt)
        return GraphResult(dict(self._executor.history_result["outputs"]), values=dict(self._captured))

    def check_graph(self, prompt: dict[str, dict]) -> list[str]:
        """Validate a graph in API format, and return its output nodes. Raises `HostError` with the node errors."""
        checking = self._execution.validate_prompt(str(uuid.uuid4()), prompt, None)
        valid, error, outputs, node_errors = self.loop.run_until_complete(checking)
        if not valid:
            raise HostError.refusal(error, node_errors, prompt)
        return list(outputs)

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
    return {
        "class_type": CAPTURE,
        "inputs": {"value": [node, slot], "node": node, "slot": slot},
        "_meta": {"title": CAPTURE},
    }


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
