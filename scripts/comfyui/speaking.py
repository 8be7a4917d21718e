"""A running ComfyUI, spoken to over HTTP and its websocket: upload photos, queue a graph, follow it, fetch the picture."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environment import SetupError

Graph = dict[str, dict]  # a graph in API format: node id -> class_type, inputs, _meta
Progress = Callable[[str, int, int], None]  # title of the running node, steps done, steps in all


class HostError(SetupError):
    """ComfyUI refused a graph, or a node in it failed. ``node_errors``: what it says, by node id."""

    def __init__(self, message: str, node_errors: dict[str, dict] | None = None) -> None:
        super().__init__(message)
        self.node_errors = node_errors or {}

    @classmethod
    def refusal(cls, error: dict, node_errors: dict[str, dict] | None, graph: Graph) -> HostError:
        """Of a graph that is not run: ``error`` as a whole, and each node's mistakes."""
        found = [
            f"{_title(graph, node)}: {one['message']}: {one['details']}"
            for node, mistakes in (node_errors or {}).items()
            for one in mistakes["errors"]
        ]
        return cls("ComfyUI refused the graph: " + "; ".join(found or [error["message"]]), node_errors)

    @classmethod
    def failure(cls, details: dict, graph: Graph) -> HostError:
        """Of a node that raised while it ran; ``details`` as in the host's event ``execution_error``."""
        node = details["node_id"]
        title = _title(graph, node, details["node_type"])
        return cls(f"{title}: {details['exception_message'].strip()}", {node: details})


def _title(graph: Graph, node: str, kind: str = "") -> str:
    """What a person calls a node: its title, else its type; ``kind`` is that of a node that another one made."""
    content = graph.get(node, {})
    return content.get("_meta", {}).get("title") or content.get("class_type") or kind or node


@dataclass
class GraphResult:
    """What a graph left."""

    ui: dict[str, dict]  # node id -> what it shows, as in the host's history
    events: list[dict] = field(default_factory=list)  # the host's messages while it ran
    values: dict[tuple[str, int], Any] = field(default_factory=dict)  # (node id, slot) -> value, where nodes run here


class Client:
    """ComfyUI at an address such as ``http://127.0.0.1:8188``. What goes wrong is a ``SetupError``."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise SetupError(f"{url} is no address of a ComfyUI; it begins with http://.")
        self.url = url.rstrip("/")
        self.id = uuid.uuid4().hex

    def fetch(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """GET, or POST with a body."""
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": kind})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.read()
        except urllib.error.HTTPError as refusal:
            raise _refused(path, body, refusal) from None
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

    def object_info(self) -> dict[str, dict]:
        """What it tells its front end about every node, by class name."""
        return self.get("/object_info")

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

    def view(self, item: dict) -> bytes:
        """The file that an output names (``filename``, ``subfolder``, ``type``)."""
        return self.fetch("/view?" + urllib.parse.urlencode(item))

    def run_graph(
        self, graph: Graph, progress: Progress = lambda title, done, total: None, timeout: float | None = None
    ) -> GraphResult:
        """Queue a graph, follow it to its end, and return what it left.

        Interrupted by Ctrl-C or after ``timeout`` seconds, it stops the run in the host as well. Raises HostError if
        the graph is refused or fails, SetupError if the host ends.
        """
        try:
            return asyncio.run(asyncio.wait_for(self._run(graph, progress), timeout))
        except (KeyboardInterrupt, SystemExit, asyncio.TimeoutError):
            with contextlib.suppress(SetupError):
                self.fetch("/interrupt", b"{}")
            raise

    async def _run(self, graph: Graph, progress: Progress) -> GraphResult:
        import aiohttp

        address = f"{self.url}/ws?clientId={self.id}"
        events = []
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as messages:
                body = json.dumps({"prompt": graph, "client_id": self.id}).encode()
                run = json.loads(await asyncio.to_thread(self.fetch, "/prompt", body))["prompt_id"]
                async for message in messages:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue  # previews are binary
                    events.append(message.json())
                    if _is_done(events[-1], graph, run, progress):
                        return GraphResult(await asyncio.to_thread(self._outputs, run), events)
        except aiohttp.ClientError as error:
            raise SetupError(f"The connection to ComfyUI at {self.url} failed ({error}).") from None
        raise SetupError("ComfyUI ended before the picture was done; its log says why.")

    def _outputs(self, run: str) -> dict[str, dict]:
        """The outputs of a finished run, which the host writes just after it has told that it is done."""
        for _ in range(200):
            if found := self.get(f"/history/{run}").get(run):
                return found["outputs"]
            time.sleep(0.05)
        raise SetupError("ComfyUI's history lacks the finished run; look for the picture in its output folder.")


def _is_done(event: dict, graph: Graph, run: str, progress: Progress) -> bool:
    """Report one of the host's messages. Raises SetupError when it tells of a failure."""
    data = event["data"]
    if data.get("prompt_id", run) != run:
        return False
    if (node := str(data.get("node"))) in graph:
        if event["type"] == "executing":
            progress(_title(graph, node), 0, 0)
        if event["type"] == "progress":
            progress(_title(graph, node), data["value"], data["max"])
    if event["type"] == "execution_interrupted":
        raise SetupError("The run was interrupted in ComfyUI.")
    if event["type"] == "execution_error":
        raise HostError.failure(data, graph)
    return event["type"] == "execution_success"


def _refused(path: str, body: bytes | None, refusal: urllib.error.HTTPError) -> SetupError:
    """What the host says against a request: a HostError if it is about a graph."""
    try:
        answer = json.loads(refusal.read())
        return HostError.refusal(answer["error"], answer.get("node_errors"), json.loads(body or b"")["prompt"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return SetupError(f"ComfyUI refused {path}: {refusal}.")
