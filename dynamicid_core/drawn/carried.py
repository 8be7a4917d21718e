"""The trained networks that the project carries, in half precision (``drawn/weights``), or others of the same form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import load_motion, load_saa, write_motion, write_saa
from ..files import read_tensors
from ..saving import same_network, write_safetensors
from ..types import DynamicIDError
from .autoencoder import Autoencoder
from .runs import CHECKPOINT

WEIGHTS = Path(os.environ.get("DYNAMICID_DRAWN_WEIGHTS") or Path(__file__).with_name("weights"))
AUTOENCODER, UNET, SAA, IMR = (f"{name}.safetensors" for name in ("autoencoder", "unet", "saa", "imr"))
FACES = "faces"  # a folder of ONNX files


def path_of(name: str, weights: Path = WEIGHTS) -> Path:
    """Where one of them is. Raises DynamicIDError where it is not there."""
    path = weights / name
    if not path.exists():
        raise DynamicIDError(
            f"The drawn world is not complete: {weights} has no {name}. Get a release of the project, which brings it, or "
            "train it: python -m dynamicid_core drawn train --help"
        )
    return path


def pack_files(folder: Path) -> list[Path]:
    """The files of a pack of face networks: ONNX models, and the values that several of them share."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".onnx", ".values"))


def autoencoder(weights: Path = WEIGHTS) -> Autoencoder:
    model = Autoencoder()
    model.load_state_dict(read_tensors(path_of(AUTOENCODER, weights)))
    return model.eval().requires_grad_(False)


def unet(weights: Path = WEIGHTS) -> dict[str, Tensor]:
    """The narrow UNet's weights under diffusers' names, float32."""
    return {name: tensor.float() for name, tensor in read_tensors(path_of(UNET, weights)).items()}


def carry(name: str, state: Mapping[str, Tensor], weights: Path = WEIGHTS, about: Mapping[str, str] = {}) -> Path:
    """Write a network as it is carried."""
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    return write_safetensors(weights / name, halves, {"format": "pt", **about}, kind=same_network(halves))


def carry_training(name: str, training: Path, weights: Path = WEIGHTS) -> Path:
    """Write the averaged network of a training's folder as it is carried, as far as that training got."""
    path = training / CHECKPOINT
    if not path.is_file():
        raise DynamicIDError(
            f"There is no training in {training}: it has no {CHECKPOINT}. Name a folder of `drawn train`."
        )
    kept = torch.load(path, map_location="cpu", weights_only=True)
    return carry(name, kept["average"], weights, {"step": str(int(kept["step"]))})


def carry_faces(saa: Path, imr: Path | None, weights: Path = WEIGHTS) -> list[Path]:
    """Write what `train anchor` and `train reconfigure` made of the world as it is carried.

    In half precision the face encoder is another one by its hash, which faces and the IMR go by.
    """
    narrow = load_saa(saa)
    written = [write_saa(weights / SAA, narrow.face_encoder.half(), narrow.saa.half(), narrow.origin)]
    if imr is None:
        return written
    motion, encoder = load_motion(imr), load_saa(written[0]).encoder_hash
    parts = motion.reconfigurator.half(), motion.keypoint_encoder.half()
    return [*written, write_motion(weights / IMR, *parts, replace(motion.origin, encoder=encoder))]
