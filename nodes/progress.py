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


class SamplingBar:
    """The running node's progress bar over several samplings, with the host's previews."""

    def __init__(self, model, steps: int) -> None:
        """``steps``: of each sampling with the MODEL."""
        import latent_preview

        self.steps, self.done, self.total = steps, 0, 1
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def expect(self, samplings: int) -> None:
        """How many there will be, at most."""
        self.done, self.total = 0, max(samplings, 1)
        self.bar = comfy.utils.ProgressBar(self.total * self.steps)

    def callback(self):
        """The sampler's callback for the next sampling."""
        first, self.done = self.done * self.steps, self.done + 1

        def show(step: int, x0, x, total: int) -> None:
            preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
            self.bar.update_absolute(first + (step + 1) * self.steps // max(total, 1), preview=preview)

        return show


def warn(message: str) -> None:
    """Tell the user something that does not stop the work: in the log, and under the running node."""
    logging.warning("DynamicID: %s", message)
    _show(message)


def tell(text: str) -> None:
    """Show under the running node what it does; stops when the user interrupts."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    _show(text)


def _show(text: str) -> None:
    """Text under the running node, for whoever sees it: without folders of this machine."""
    from server import PromptServer

    from .folders import without_folders

    server = PromptServer.instance
    if server.client_id is not None and server.last_node_id is not None:
        server.send_progress_text(without_folders(text), server.last_node_id, server.client_id)
