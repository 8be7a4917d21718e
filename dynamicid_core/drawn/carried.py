"""The trained networks that the project carries, in half precision (``drawn/weights``), or others of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..files import read_tensors, write_safetensors
from ..types import DynamicIDError
from .autoencoder import Autoencoder
from .runs import CHECKPOINT

WEIGHTS = Path(__file__).with_name("weights")
AUTOENCODER, UNET, SAA, IMR = (f"{name}.safetensors" for name in ("autoencoder", "unet", "saa", "imr"))
FACES = "faces"  # a folder of ONNX files


def carried(name: str, weights: Path = WEIGHTS) -> Path:
    """Where one of them is. Raises DynamicIDError where it is not there."""
    path = weights / name
    if not path.exists():
        raise DynamicIDError(
            f"The drawn world is not complete: {weights} has no {name}. Get a release of the project, which brings it, or "
            "train it: python -m dynamicid_core drawn train --help"
        )
    return path


def carried_autoencoder(weights: Path = WEIGHTS) -> Autoencoder:
    model = Autoencoder()
    model.load_state_dict(read_tensors(carried(AUTOENCODER, weights)))
    return model.eval().requires_grad_(False)


def carried_unet(weights: Path = WEIGHTS) -> dict[str, Tensor]:
    """The narrow UNet's weights under diffusers' names, float32."""
    return {name: tensor.float() for name, tensor in read_tensors(carried(UNET, weights)).items()}


def carry(name: str, state: Mapping[str, Tensor], weights: Path = WEIGHTS, about: Mapping[str, str] = {}) -> Path:
    """Write a network as it is carried."""
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    return write_safetensors(weights / name, halves, {"format": "pt", **about})


def carry_training(name: str, training: Path, weights: Path = WEIGHTS) -> Path:
    """Write the averaged network of a training's folder as it is carried, as far as that training got."""
    path = training / CHECKPOINT
    if not path.is_file():
        raise DynamicIDError(
            f"There is no training in {training}: it has no {CHECKPOINT}. Name a folder of `drawn train`."
        )
    kept = torch.load(path, map_location="cpu", weights_only=True)
    return carry(name, kept["average"], weights, {"step": str(int(kept["step"]))})
