"""The drawn world from nothing: one command, in the order in which the networks need each other, each step resumable.

``torchrun --nproc-per-node 2 -m dynamicid_core drawn train world --output world`` shares the work of two cores. What is
carried is written into ``world/weights``; nothing here knows how DynamicID is trained, which is ``train``'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .beginnings import begin_motion, begin_saa
from .carried import AUTOENCODER, FACES, IMR, SAA, UNET, carry, carry_training
from .make import make_dataset
from .people import VALIDATION
from .train_autoencoder import AutoencoderOptions, train_autoencoder, trained_autoencoder
from .train_unet import UNetOptions, train_unet
from .world import CLIP_VISION, CROP_FACTOR, PIPELINE, fill_narrow

PHOTO = 256  # px: as sharp as CLIP sees the part around a face
SIZE = 128  # px of the pictures that are trained on
ANCHOR_PEOPLE, MOTION_PEOPLE = range(5_500), range(200)
assert ANCHOR_PEOPLE.stop <= VALIDATION

# Settings of ``train`` (dynamicid_core/training/settings.py).
BASE: dict[str, object] = {"base.crop_factor": CROP_FACTOR, "base.dtype": "float32", "cache_dtype": "float16"}
COMMON: dict[str, object] = {
    "size": SIZE, "mixed_precision": "bf16", "schedule": "cosine", "warmup": 100, "ema_decay": 0.998, "workers": 0,
    "save_every": 250, "log_every": 50, "keep": 1, "validation.every": 0,
}  # fmt: skip
ANCHOR = COMMON | {"steps": 1_500, "batch": 16, "learning_rate": 1e-3, "min_snr_gamma": 5}
RECONFIGURE = COMMON | {
    "steps": 1_500, "batch": 16, "learning_rate": 1e-3, "targets": 3, "keep_landmarks": 0.5, "ldc_weight": 1.0,
    "prompt": "a drawing of one person",
}  # fmt: skip

Run = Callable[[Sequence[str]], object]  # a command line of ``python -m dynamicid_core``


@dataclass(frozen=True)
class World:
    """The folder of everything, and the processes that make it together (accelerate's view of them)."""

    folder: Path
    accelerator: Any
    run: Run

    def alone(self, make: Callable[[], object]) -> None:
        """One process does it, the others wait."""
        if self.accelerator.is_main_process:
            make()
        self.accelerator.wait_for_everyone()


def train_world(world: World, seed: int = 0) -> Path:
    """Everything that is not there yet; returns the folder of what is carried."""
    folder, weights = world.folder, world.folder / "weights"
    train_autoencoder(folder / "autoencoder", AutoencoderOptions(seed=seed), world.accelerator)
    autoencoder = trained_autoencoder(folder / "autoencoder")
    train_unet(folder / "unet", autoencoder, UNetOptions(seed=seed), world.accelerator)
    world.alone(lambda: train_detectors(world))
    world.alone(lambda: base_files(folder))
    world.alone(lambda: training_sets(folder))
    world.alone(lambda: first_weights(folder, seed))
    train_faces(world)
    world.alone(lambda: carry_faces(folder))
    return weights


def train_detectors(world: World) -> None:
    """The face pack and the judges, by the command that makes them."""
    world.run(
        [
            "drawn",
            "train",
            "faces",
            "--output",
            str(world.folder / FACES),
            "--autoencoder",
            str(world.folder / "autoencoder"),
        ]
    )


def base_files(folder: Path) -> None:
    """The narrow base as diffusers and CLIP have it."""
    carry_training(AUTOENCODER, folder / "autoencoder", folder / "weights")
    carry_training(UNET, folder / "unet", folder / "weights")
    if not (folder / "models" / PIPELINE).exists():
        fill_narrow(folder / "models", folder / "weights")


def training_sets(folder: Path) -> None:
    """Two photos each with one motion for anchoring; all expressions and poses of some people for reconfiguration."""
    for name, people, each, pairs in (("pairs", ANCHOR_PEOPLE, 2, True), ("cells", MOTION_PEOPLE, 35, False)):
        if not (folder / name / "manifest.parquet").exists():
            make_dataset(folder / name, people, each, PHOTO, pairs=pairs)


def first_weights(folder: Path, seed: int) -> None:
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(folder / "models" / PIPELINE / "unet")  # type: ignore[no-untyped-call]
    begin_saa(unet, folder / "begin_saa.safetensors", seed)
    begin_motion(folder / "begin_saa.safetensors", folder / "begin_imr.safetensors", seed)


def command(folder: Path, stage: str, dataset: str, settings: dict[str, object]) -> list[str]:
    """``train STAGE`` with the world's settings."""
    values = BASE | {f"{stage}.{name}": value for name, value in settings.items()}
    models, run = folder / "models", folder / "run"
    words = [
        "train",
        stage,
        "--dataset",
        str(folder / dataset),
        "--output",
        str(run),
        "--model",
        str(models / PIPELINE),
    ]
    words += ["--clip-vision", str(models / CLIP_VISION), "--workers", "0"]
    if any((run / stage).glob("step-*")):
        words.append("--resume")
    return words + [word for name, value in values.items() for word in ("--set", f"{name}={_toml(value)}")]


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, (str, Path)) else str(value)


def train_faces(world: World) -> None:
    """Anchoring, then reconfiguration, by the commands that anybody has."""
    folder = world.folder
    initial = {"saa": folder / "begin_saa.safetensors", "imr": folder / "begin_imr.safetensors"}
    world.run(command(folder, "anchor", "pairs", ANCHOR | {"initial": initial["saa"]}))
    world.run(command(folder, "reconfigure", "cells", RECONFIGURE | {"initial": initial["imr"]}))


def carry_faces(folder: Path) -> None:
    """The checkpoints of both stages in half precision, with what they say of themselves."""
    from ..files import read_metadata, read_tensors

    for name in (SAA, IMR):
        made = folder / "run" / name
        carry(name, read_tensors(made), folder / "weights", read_metadata(made))
