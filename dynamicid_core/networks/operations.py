"""The namespace of layer classes that networks are built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn


class Operations(Protocol):
    """``torch.nn``, or what a host has in its place to cast and offload weights (``comfy.ops.manual_cast``)."""

    @property
    def Linear(self) -> Callable[..., nn.Linear]: ...

    @property
    def LayerNorm(self) -> Callable[..., nn.LayerNorm]: ...

    @property
    def Conv2d(self) -> Callable[..., nn.Conv2d]: ...
