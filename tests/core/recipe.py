"""Weights and inputs of the reference values, made from their names (tests/data/README.md)."""

import math
import zlib
from concurrent.futures import ThreadPoolExecutor
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
        return x.div_(math.sqrt(math.prod(shape[1:])))  # in place: a whole UNet's weights take 3.4 GB
    if name.endswith("running_var"):
        return 1 + 0.1 * x.abs()
    if name.endswith(("running_mean", "bias")):
        return 0.1 * x
    return 1 + 0.1 * x


def weights(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """:func:`weight` of each of these full names, on all cores."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(shapes, pool.map(weight, shapes.keys(), shapes.values()), strict=True))


def state_dict(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """The recipe's values for every tensor of a module, under ``prefix + name``; integers stay as they are."""
    values = {prefix + name: value for name, value in module.state_dict().items()}
    return values | weights({name: value.shape for name, value in values.items() if value.is_floating_point()})


def reference(name: str) -> dict[str, torch.Tensor]:
    """The stored outputs ``modules``, ``attention`` or ``unet``."""
    return load_file(DATA / f"{name}.safetensors")
