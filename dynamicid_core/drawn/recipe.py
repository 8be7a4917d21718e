"""The drawn world from nothing: one command, in the order in which the networks need each other, each step resumable.

``torchrun --nproc-per-node 2 -m dynamicid_core drawn train --all --output world`` shares the work of two cores. What is
carried is written into ``world/weights``; nothing here knows how DynamicID is trained, which is ``train``'s business.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..checkpoints import load_saa, write_saa
from ..datasets.manifest import Manifest
from ..training.cache import Cache
from ..training.making import Share
from ..training.settings_file import load_settings
from .autoencoder import Autoencoder
from .beginnings import begin_motion, begin_saa
from .carried import AUTOENCODER, FACES, IMR, SAA, UNET, carry_faces, carry_training
from .make import make_dataset
from .people import VALIDATION
from .quick_cache import fill_quickly
from .teaching import teach
from .train_autoencoder import AutoencoderOptions, train_autoencoder, trained_autoencoder
from .train_faces import carry_packs
from .train_faces import train_faces as train_seeing
from .train_unet import UNetOptions, train_unet
from .world import CLIP_VISION, CROP_FACTOR, GATE_THRESHOLD, PIPELINE, fill

PHOTO = 256  # px: as sharp as CLIP sees the part around a face
SIZE = 128  # px of the pictures that are trained on
ANCHOR_PEOPLE, MOTION_PEOPLE = range(7_000), range(160)
ANCHOR_PHOTOS = 2  # of each: a pair with one motion
assert ANCHOR_PEOPLE.stop <= VALIDATION
WEIGHTS = "weights"  # what is carried
FIRST = "begin_saa.safetensors"
TAUGHT, FIRST_MOTION = "begin_taught.safetensors", "begin_imr.safetensors"
RUN, FINISHED = "run", "finished"  # outputs of ``train``

# Settings of ``train`` (dynamicid_core/training/settings.py).
BASE: dict[str, object] = {"base.crop_factor": CROP_FACTOR, "base.dtype": "float32", "cache_dtype": "float16"}
COMMON: dict[str, object] = {
    "size": SIZE, "schedule": "cosine", "warmup": 100, "ema_decay": 0.99, "workers": 0,
    "save_every": 250, "log_every": 50, "keep": 1, "validation.every": 0,
    "gate_threshold": GATE_THRESHOLD,
}  # fmt: skip
ANCHOR = COMMON | {"steps": 2_200, "batch": 8, "learning_rate": 1e-4, "min_snr_gamma": 5, "face_weight": 3}
# First many cheap steps without the UNet, then a few with both losses.
RECONFIGURE = COMMON | {
    "steps": 320, "batch": 12, "learning_rate": 1e-3, "targets": 4, "keep_landmarks": 0.7, "ldc_weight": 0.0,
    "prompt": "a drawing of one person",
}  # fmt: skip
FINISH = RECONFIGURE | {"steps": 50, "batch": 8, "learning_rate": 2e-4, "targets": 2, "ldc_weight": 1.0}

# About the minutes of each part on two idle cores with bfloat16, by the pace of its training; their sum is told first.
PARTS = {"autoencoder": 10, "unet": 100, "faces": 20, "sets": 10, "anchor": 45, "reconfigure": 8, "finish": 4}

Run = Callable[[Sequence[str]], object]  # a command line of ``python -m dynamicid_core``


class Pace:
    """How long training has taken and will take: told after each part, at the pace of those that were made before it."""

    def __init__(self, tell: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self.tell, self.now, self.began = tell, now, now()
        self.left = dict(PARTS)
        self.minutes = self.expected = 0.0
        hours = sum(PARTS.values()) / 60
        tell(
            f"The drawn world takes about {hours:.0f} hours of two idle cores with bfloat16, longer where the processor "
            "has none. After each part comes what is left here. Stopped, the same command goes on."
        )

    def done(self, part: str, whole: bool = True) -> None:
        """``whole``: it was made in this run and from its beginning, so that its time says something."""
        expected, ended = self.left.pop(part), self.now()
        if whole:
            self.minutes += (ended - self.began) / 60
            self.expected += expected
        self.began = ended
        left = sum(self.left.values()) * (self.minutes / self.expected if self.expected else 1)
        self.tell(f"{part}: done; about {left:.0f} minutes are left at this pace.")


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
    """Everything that is not there yet; returns the folder of what is carried. Says how long it takes."""
    folder = world.folder
    pace = Pace(partial(print, flush=True) if world.accelerator.is_main_process else lambda _: None)

    def part(name: str, output: Path, make: Callable[[], object]) -> None:
        fresh = not output.exists()
        make()
        pace.done(name, fresh)

    part(
        "autoencoder", folder / "autoencoder",
        lambda: train_autoencoder(folder / "autoencoder", AutoencoderOptions(seed=seed), world.accelerator),
    )  # fmt: skip
    autoencoder = trained_autoencoder(folder / "autoencoder")
    part(
        "unet", folder / "unet",
        lambda: train_unet(folder / "unet", autoencoder, UNetOptions(seed=seed), world.accelerator),
    )  # fmt: skip
    part("faces", folder / "faces", lambda: world.alone(lambda: begin(folder, seed, world.accelerator)))
    part("sets", folder / "pairs", lambda: world.alone(lambda: make_sets(folder, seed, world.accelerator)))
    for stage in stages(folder):
        part(stage.part, stage.output / stage.name, partial(_train, world, stage, autoencoder, seed))
    world.alone(lambda: carry_faces(folder / RUN / SAA, folder / FINISHED / IMR, folder / WEIGHTS))
    return folder / WEIGHTS


def _train(world: World, stage: TrainStage, autoencoder: Autoencoder, seed: int) -> None:
    words = arguments(world.folder, stage, world.accelerator.mixed_precision)
    share = Share(world.accelerator.process_index, world.accelerator.num_processes, world.accelerator.wait_for_everyone)
    cache = fill_quickly(load_settings(None, words), stage.name, autoencoder.cpu(), share)
    if stage.begin:
        world.alone(partial(stage.begin, world.folder, cache, seed))
    world.run(command(stage, words))


def begin(folder: Path, seed: int, accelerator: Any) -> None:
    """Networks that see faces, and the base's files. One process makes it all."""
    carry_training(AUTOENCODER, folder / "autoencoder", folder / WEIGHTS)
    carry_training(UNET, folder / "unet", folder / WEIGHTS)
    train_seeing(folder / "faces", folder / "autoencoder", accelerator, seed)
    carry_packs(folder / "faces", folder / WEIGHTS)
    fill(folder / "models", folder / WEIGHTS, narrow=True)


def make_sets(folder: Path, seed: int, accelerator: Any) -> None:
    """What the stages begin with: training sets, which as many processes draw as ``accelerator`` has, and first weights."""
    from diffusers import UNet2DConditionModel

    pack = str(folder / WEIGHTS / FACES)
    for name, people, each, pairs in (
        ("pairs", ANCHOR_PEOPLE, ANCHOR_PHOTOS, True),
        ("cells", MOTION_PEOPLE, 35, False),
    ):
        if not (folder / name / "manifest.parquet").exists():
            make_dataset(folder / name, people, each, PHOTO, pairs=pairs, pack=pack, workers=accelerator.num_processes)
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "models" / PIPELINE / "unet")  # type: ignore[no-untyped-call]
    begin_saa(unet, folder / FIRST, seed)


def teach_encoder(folder: Path, cache: Cache, seed: int) -> None:
    """The face encoder that anchoring begins with."""
    path = folder / TAUGHT
    if not path.exists():
        first = load_saa(folder / FIRST, assign=False)
        print(teach(first.face_encoder, Manifest.read(folder / "pairs"), cache, seed), flush=True)
        write_saa(path, first.face_encoder, first.saa, first.origin)


def begin_edits(folder: Path, cache: Cache, seed: int) -> None:
    """The IMR that reconfiguration begins with."""
    path = folder / FIRST_MOTION
    if not path.exists():
        photos = cache.photos(Manifest.read(folder / "cells").people("train"), ("tokens",))
        some = photos.rows["tokens"][:: max(1, len(photos) // 1000)]
        begin_motion(folder / RUN / SAA, path, cache.parts["tokens"].read(some, ("tokens",))["tokens"], seed)


@dataclass(frozen=True)
class TrainStage:
    """One run of ``train``: the ``part`` of everything that it is, the stage's ``name``, set of photos, settings, the weights
    that it begins with, and its output.
    """

    part: str
    name: str
    dataset: Path
    settings: Mapping[str, object]
    initial: Path
    output: Path
    begin: Callable[[Path, Cache, int], None] | None = None  # makes ``initial`` once the cache is there


def stages(folder: Path) -> tuple[TrainStage, ...]:
    """What is trained on faces, in order."""
    return (
        TrainStage("anchor", "anchor", folder / "pairs", ANCHOR, folder / TAUGHT, folder / RUN, teach_encoder),
        TrainStage(
            "reconfigure",
            "reconfigure",
            folder / "cells",
            RECONFIGURE,
            folder / FIRST_MOTION,
            folder / RUN,
            begin_edits,
        ),
        TrainStage("finish", "reconfigure", folder / "cells", FINISH, folder / RUN / IMR, folder / FINISHED),
    )


def arguments(folder: Path, stage: TrainStage, precision: str) -> list[str]:
    """The settings of ``train``, each as ``NAME=VALUE``. ``precision``: that of the accelerator; a process has one."""
    models = folder / "models"
    base = {"dataset": stage.dataset, "output": stage.output, "base.clip_vision": models / CLIP_VISION}
    base |= {"base.model": models / PIPELINE, "reconfigure.saa": folder / RUN / SAA}
    settings = {**stage.settings, "initial": stage.initial, "mixed_precision": precision}
    own = {f"{stage.name}.{name}": value for name, value in settings.items()}
    every: dict[str, object] = {**base, **BASE, **own}
    return [f"{name}={_toml(value)}" for name, value in every.items()]


def command(stage: TrainStage, words: Sequence[str]) -> list[str]:
    """``train`` with such settings, going on where it stands."""
    resume = ["--resume"] if any((stage.output / stage.name).glob("step-*")) else []
    return ["train", stage.name, "--workers", "0", *resume, *(part for word in words for part in ("--set", word))]


def _toml(value: object) -> str:
    return json.dumps(str(value)) if isinstance(value, (str, Path)) else str(value)
