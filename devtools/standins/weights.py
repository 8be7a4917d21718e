"""Seeded weights by name, and a safetensors writer that leaves holes where a tensor is zero.

A model is described as ``{tensor name: Weight}``. Values depend on the seed and on the tensor's name alone, so
that neither the order of the tensors nor the rest of the model changes them.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MARK = "stand-in"  # value of the metadata entry "dynamicid"

_DTYPES = {"F16": np.float16, "F32": np.float32, "I64": np.int64}


@dataclass(frozen=True)
class Weight:
    """One tensor of a stand-in model: its shape and how its values come about."""

    shape: tuple[int, ...]
    make: Callable[[np.random.Generator], np.ndarray] | None = None  # None: all zero, a hole in the file
    dtype: str = "F16"  # as the safetensors header spells it

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * np.dtype(_DTYPES[self.dtype]).itemsize

    def values(self, name: str, seed: int) -> np.ndarray:
        """The tensor's values in its own dtype, the same for the same name and seed."""
        dtype = _DTYPES[self.dtype]
        if self.make is None:
            return np.zeros(self.shape, dtype)
        made = self.make(np.random.default_rng([seed, zlib.crc32(name.encode())]))
        return np.ascontiguousarray(np.broadcast_to(made, self.shape), dtype)


Weights = dict[str, Weight]


def zeros(*shape: int, dtype: str = "F16") -> Weight:
    """All zero; takes no disk space where the file system knows holes."""
    return Weight(shape, dtype=dtype)


def constant(value: float, *shape: int) -> Weight:
    """The same value everywhere."""
    return Weight(shape, lambda _: np.asarray(value))


def exact(array: np.ndarray) -> Weight:
    """Values given outright."""
    return Weight(array.shape, lambda _: array)


def normal(*shape: int, std: float) -> Weight:
    """Normally distributed around 0."""
    return Weight(shape, lambda rng: rng.standard_normal(shape, dtype=np.float32) * np.float32(std))


def fan_in(*shape: int, gain: float = 1.0) -> Weight:
    """Random weights of a linear layer or convolution that maps unit variance to ``gain ** 2``."""
    return normal(*shape, std=gain / math.sqrt(math.prod(shape[1:])))


def norm(prefix: str, channels: int) -> Weights:
    """A normalisation layer that changes nothing: scale 1, shift 0."""
    return {f"{prefix}.weight": constant(1.0, channels), f"{prefix}.bias": zeros(channels)}


def layer(prefix: str, *shape: int, gain: float, bias: bool = True) -> Weights:
    """A linear layer or convolution of this weight shape; a gain of 0 makes it zero. Biases are zero."""
    weights = {f"{prefix}.weight": fan_in(*shape, gain=gain) if gain else zeros(*shape)}
    return weights | ({f"{prefix}.bias": zeros(shape[0])} if bias else {})


def with_prefix(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: weight for name, weight in weights.items()}


def tensors(weights: Weights, seed: int) -> dict[str, Tensor]:
    """The values as torch tensors, in float32 where they are no integers."""
    import torch

    values = {name: torch.from_numpy(weight.values(name, seed)) for name, weight in weights.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in values.items()}


def write(path: Path, weights: Weights, seed: int, metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name and rename it, so that ``path`` is complete or absent.

    Zero tensors are skipped over: most file systems store nothing for them, others (Windows by default) zeros.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, weight in weights.items():
        header[name] = {"dtype": weight.dtype, "shape": weight.shape, "data_offsets": (end, end + weight.size)}
        end += weight.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format keeps the data aligned to 8 bytes
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, weight in weights.items():
                if weight.make is None:
                    file.seek(weight.size, os.SEEK_CUR)
                else:
                    file.write(weight.values(name, seed).tobytes())
            file.truncate()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a complete safetensors file; None if the file is absent, cut short or of another kind."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return None
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return metadata if path.stat().st_size == 8 + length + end else None
