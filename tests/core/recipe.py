"""Weights and inputs of the reference values, made from their names (tests/data/README.md)."""

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

DATA = Path(__file__).resolve().parent.parent / "data"


def tensor(name: str, shape) -> torch.Tensor:
    """A standard normal array [shape], float32, seeded by the crc32 of ``public/`` and the name."""
    generator = np.random.default_rng(zlib.crc32(f"public/{name}".encode()))
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def weight(name: str, shape) -> torch.Tensor:
    """A weight of that full name: scaled by its fan-in, or by what the end of its name says."""
    x = tensor(name, shape)
    if len(shape) >= 2:
        return x / math.sqrt(math.prod(shape[1:]))
    if name.endswith("running_var"):
        return 1 + 0.1 * x.abs()
    if name.endswith(("running_mean", "bias")):
        return 0.1 * x
    return 1 + 0.1 * x


def state_dict(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The recipe's values for every tensor of a module, under ``prefix + name``; integers stay as they are."""
    return {
        prefix + name: weight(prefix + name, value.shape) if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }


def reference(name: str) -> dict[str, torch.Tensor]:
    """The stored outputs ``modules``, ``attention`` or ``unet``."""
    return load_file(DATA / f"{name}.safetensors")
