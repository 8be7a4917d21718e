"""Training the networks that see drawn faces, one after another, and the packs that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..types import DynamicIDError
from .face_export import export_faces
from .face_lessons import LESSONS, Lesson
from .face_pictures import Pictures, again_in, pool_in
from .optimizer import muon_for
from .people import person_generator
from .runs import CHECKPOINT, Run
from .train_autoencoder import rate_at, trained_autoencoder

SETTLED = 0.6  # of the steps
POOL, PACKS = "pictures", "packs"  # folders beside those of the networks


def settle(model: nn.Module) -> None:
    """Norms keep their statistics from now on: the network learns as it will be used.

    Else a rare picture, which training saw normed by itself, may be far from all statistics, and its answer nowhere.
    """
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def train_network(
    folder: Path, lesson: Lesson, number: int, pool: Pictures, accelerator: Any, seed: int = 0, every: int = 50
) -> nn.Module:
    """One network in ``folder``, trained or trained on; its average over steps. ``number`` makes its seeds its own."""
    torch.manual_seed(seed + 1000 * number)
    model = lesson.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = muon_for(model, lesson.rate, lesson.ends)
    run = Run(folder, model, optimizer, accelerator, 60)
    run.resume()
    model.train()
    while run.step < lesson.steps:
        if run.step >= SETTLED * lesson.steps:
            settle(model)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(run.step, lesson.steps, lesson.rate, 60)
        batch = lesson.batch(pool, person_generator(seed + 7 * number, 10**6 + run.step), lesson.size)
        pixels = batch["input"].contiguous(memory_format=torch.channels_last)
        with accelerator.autocast():
            result = model(pixels)
        loss, values = lesson.loss(result, batch)
        run.learn(loss, 0.99)
        run.done_step(lesson.size, {"loss": loss.item()} | values, every)
    run.save()
    return run.average


def train_faces(
    folder: Path,
    autoencoder: Path | None,
    accelerator: Any,
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[Path]:
    """All of ``LESSONS`` in folders below ``folder``, then the packs ``faces`` and ``judge`` in its ``packs``.

    ``autoencoder``: its training's folder; a part of the pictures is seen as it gives them back. On the CPU.
    """
    import cv2

    cv2.setNumThreads(1)
    pool = pool_in(folder / POOL, progress)
    if autoencoder is not None:
        again_in(folder / POOL, pool, trained_autoencoder(autoencoder), seed)
    for number, (name, lesson) in enumerate(LESSONS.items()):
        train_network(folder / name, lesson, number, pool, accelerator, seed)
    return carry_packs(folder, folder / PACKS)


def carry_packs(training: Path, weights: Path) -> list[Path]:
    """The packs ``faces`` and ``judge`` below ``weights``, of all networks as far as their training got."""
    if not (networks := trained_networks(training)):
        raise DynamicIDError(f"There is no training of faces in {training}. Name what `drawn train faces` made.")
    return export_faces(networks, weights)


def trained_networks(folder: Path) -> dict[str, nn.Module]:
    """Those of ``LESSONS`` that have been trained below ``folder``, as far as they got."""
    networks = {}
    for name, lesson in LESSONS.items():
        if (path := folder / name / CHECKPOINT).is_file():
            networks[name] = lesson.network()
            networks[name].load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
            networks[name].eval()
    return networks
