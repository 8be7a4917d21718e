"""The frozen networks of a base: loaded when they are asked for, known by their weights, on the device while they work."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..checkpoints import SAACheckpoint
from ..encode import ClipVision
from ..hosts.diffusers.photos import ClipVision as RunningClip
from .store import digest


class Networks:
    """The frozen networks of a base, each loaded when it is first asked for."""

    def __init__(
        self,
        pipe: Callable[[], Any],
        clip_vision: Callable[[], nn.Module],
        saa: Callable[[], SAACheckpoint] | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        """``pipe``: a diffusers pipeline from text to image; ``saa``: whose face encoder makes tokens."""
        self._pipe, self._clip_vision, self._saa, self.device = pipe, clip_vision, saa, device

    @cached_property
    def pipe(self) -> Any:
        return self._pipe()

    @cached_property
    def clip_vision(self) -> nn.Module:
        return self._clip_vision()

    @cached_property
    def saa(self) -> SAACheckpoint | None:
        return self._saa() if self._saa else None

    def release_clip(self) -> None:
        """Give CLIP's memory back: with a cache nothing needs it."""
        self.__dict__.pop("clip_vision", None)

    def clip(self) -> ClipVision:
        """CLIP as ``encode`` takes it."""
        return RunningClip(self.clip_vision, lambda: self.device)


_hashes: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def weights_hash(module: nn.Module) -> str:
    """16 hexadecimal digits for a network's weights as float16: the same in whatever dtype a file was loaded."""
    if module not in _hashes:
        hashed = hashlib.sha256()
        for name, tensor in sorted(module.state_dict().items()):
            values = tensor.detach().half() if tensor.is_floating_point() else tensor.detach()
            hashed.update(f"{name} {tuple(tensor.shape)}".encode())
            hashed.update(values.cpu().contiguous().flatten().view(torch.uint8).numpy())
        _hashes[module] = hashed.hexdigest()[:16]
    return _hashes[module]


def tokenizer_hash(tokenizer: Any) -> str:
    ids = tokenizer("A photo of Anna's 2 friends, smiling (outdoors).", truncation=True).input_ids
    return digest(str(ids), tokenizer.model_max_length).hex()


@contextlib.contextmanager
def working(networks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """While this lasts, networks are on the device in float32, without gradients; then they are where and what they were."""
    was = [(module, first.device, first.dtype) for module in networks for first in [next(module.parameters())]]
    try:
        for module, *_ in was:
            nn.Module.to(module, device, torch.float32)  # diffusers' own warns of every dtype
        with torch.inference_mode():
            yield
    finally:
        for module, home, dtype in was:
            nn.Module.to(module, home, dtype)
