"""The host's progress bar and its stop button, for work in pieces; and words under a node."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import comfy.model_management
import comfy.utils

T = TypeVar("T")


def steps(items: Iterable[T]) -> Iterator[T]:
    """Go through ``items`` (of known length), moving the running node's progress bar; stops when the user interrupts."""
    total = len(items) if isinstance(items, Sized) else len(items := list(items))
    bar = comfy.utils.ProgressBar(total)
    for item in items:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield item
        bar.update(1)


def warn(message: str) -> None:
    """Tell the user something that does not stop the work: in the log, and under the running node."""
    from server import PromptServer

    from .folders import without_folders

    logging.warning("DynamicID: %s", message)
    server = PromptServer.instance
    if server.client_id is not None and server.last_node_id is not None:
        server.send_progress_text(without_folders(message), server.last_node_id, server.client_id)
