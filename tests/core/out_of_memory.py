"""Memory that runs out where a test says, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import torch

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB"


@contextlib.contextmanager
def out_of_memory(owner: Any, name: str, call: int = 1) -> Iterator[list[int]]:
    """Raise what torch raises at the ``call``-th call of a function, and only then. Yields how often it was called."""
    original, calls = getattr(owner, name), [0]

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise torch.OutOfMemoryError(MESSAGE)
        return original(*arguments, **options)

    own = name in vars(owner)
    setattr(owner, name, counted)
    try:
        yield calls
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


def alive(*kinds: type) -> list[Any]:
    """Objects of these kinds that something still holds."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) in kinds]
