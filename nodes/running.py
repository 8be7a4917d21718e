"""What the host runs at the moment."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io


def is_running(node: type[io.ComfyNode], prompt: Mapping | None = None) -> bool:
    """Whether a node of that class is part of ``prompt``, or else of what the host's queue is working on."""
    prompts = [prompt] if prompt else _prompts_in_work()
    node_id = node.GET_SCHEMA().node_id
    return any(entry.get("class_type") == node_id for graph in prompts for entry in graph.values())


def _prompts_in_work() -> list[Mapping]:
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    running, _ = server.prompt_queue.get_current_queue_volatile() if server is not None else ([], [])
    return [item[2] for item in running]  # number, id, prompt, ...
