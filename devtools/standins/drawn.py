"""Random weights of the form of those that the drawn world carries, for tests of what is made of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from dynamicid_core.drawn import carried
from dynamicid_core.drawn.autoencoder import Autoencoder
from dynamicid_core.drawn.beginnings import begin_motion, begin_saa
from dynamicid_core.drawn.unet import make_unet

from .detector import write_detector_pack

FACES = {"det_10g": "det", "w600k_r50": "arcface", "2d106det": "2d106", "1k3d68": "1k3d68"}  # stand-in -> the world's


def write_drawn_weights(folder: Path, seed: int = 0) -> Path:
    """All that ``dynamicid_core/drawn/weights`` holds, in ``folder``."""
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as temporary:
        torch.manual_seed(seed)
        unet, begin = make_unet(), Path(temporary)
        carried.carry(carried.AUTOENCODER, Autoencoder().state_dict(), folder)
        carried.carry(carried.UNET, unet.state_dict(), folder)
        saa = begin_saa(unet, begin / "saa.safetensors", seed)
        carried.carry_faces(saa, begin_motion(saa, begin / "imr.safetensors", torch.randn(64, 4, 768), seed), folder)
        write_detector_pack(begin / "pack", seed=seed)
        (folder / carried.FACES).mkdir(exist_ok=True)
        for name, task in FACES.items():
            (begin / "pack" / f"{name}.onnx").replace(folder / carried.FACES / f"{task}_drawn.onnx")
    return folder
