"""Training the autoencoder on crops around drawn faces, until expressions are legible through it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..types import DynamicIDError
from .autoencoder import Autoencoder
from .canvas import Drawn, draw_picture
from .optimizer import muon_for
from .people import HELD_OUT, VALIDATION, person_generator
from .runs import CHECKPOINT, Run, pictures_of, pixels_of, tiled
from .scene import draw_scene

FEATURES = ((range(33, 52), 3.0), (range(87, 106), 3.0), (range(52, 72), 5.0), (range(106), 2.0))


@dataclass(frozen=True)
class AutoencoderOptions:
    """How the autoencoder is trained. ``pictures`` in all; ``crop`` px; ``noise`` on latents while training."""

    pictures: int = 52_800
    batch: int = 16
    crop: int = 96
    rate: float = 1e-3
    noise: float = 0.05
    seed: int = 0
    sheet_seconds: float = 300


def feature_weights(drawn: Drawn, height: int, width: int) -> np.ndarray:
    """How much pixels count: float32 [h, w], 1 outside of faces, more on eyes and brows, most on mouths."""
    weights = np.ones((height, width), np.float32)
    for points in drawn.landmarks:
        for indices, extra in FEATURES:
            part = points[list(indices)]
            x0, y0 = np.maximum(0, np.floor(part.min(0)).astype(int) - 2)
            x1, y1 = np.ceil(part.max(0)).astype(int) + 2
            weights[y0:y1, x0:x1] += extra
    return weights


def training_crop(seed: int, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """A crop [crop, crop, 3] of a training scene around a face, and its weights [crop, crop]."""
    rng = person_generator(seed, 2)
    people = int(rng.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, 4)))
    drawn = draw_picture(draw_scene(seed, people))
    height, width = drawn.picture.shape[:2]
    middle = drawn.landmarks[int(rng.integers(people))].mean(0) + rng.uniform(-20, 20, 2)
    x, y = (int(np.clip(c - crop / 2, 0, size - crop)) for c, size in zip(middle, (width, height), strict=True))
    cut = np.s_[y : y + crop, x : x + crop]
    return drawn.picture[cut], feature_weights(drawn, height, width)[cut]


def reconstruction_loss(result: Tensor, pixels: Tensor, weights: Tensor) -> Tensor:
    """Weighted distance of pixels, and of their differences along both axes, which keeps edges."""
    apart = result - pixels
    value = (weights * ((apart.square() + 1e-4).sqrt() + 4 * apart.square())).mean()
    across, down = apart.diff(dim=-1).abs(), apart.diff(dim=-2).abs()
    edges = (weights[..., 1:] * across).mean() + (weights[..., 1:, :] * down).mean()
    color = torch.nn.functional.avg_pool2d(apart, 8).square().mean()  # or hues come last
    return value + 0.5 * edges + 10 * color


def rate_at(step: int, steps: int, top: float, warm: int = 200) -> float:
    """A short rise, then a cosine down to a hundredth."""
    if step < warm:
        return top * (step + 1) / warm
    return top * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


@torch.no_grad()
def watched(
    model: Autoencoder, count: int = 48, people: tuple[int, int] = (VALIDATION, HELD_OUT)
) -> tuple[dict[str, float], np.ndarray]:
    """PSNR in dB of whole pictures and of faces (boxes of landmarks), and a sheet: rows of originals over results."""
    model.eval()
    drawn = [draw_picture(draw_scene(10**9 + i, seeds=people)) for i in range(count)]
    pixels = pixels_of([d.picture for d in drawn])
    result = model.decode(model.encode(pixels))
    wrong = (result.clamp(0, 1) - pixels).square().mean(1).numpy()
    faces = []
    for error, d in zip(wrong, drawn, strict=True):
        x0, y0, x1, y1 = d.boxes[0].round().astype(int).clip(0)
        faces.append(error[y0:y1, x0:x1].mean())
    psnr = {"psnr": -10 * math.log10(wrong.mean()), "psnr_faces": -10 * math.log10(float(np.mean(faces)))}
    rows = [
        tiled(part[i : i + 12], 12)
        for i in range(0, min(count, 48), 12)
        for part in (pictures_of(pixels), pictures_of(result))
    ]
    return psnr, np.concatenate(rows)


def train_autoencoder(folder: Path, options: AutoencoderOptions, accelerator: Any) -> Autoencoder:
    """Trains, or goes on where ``folder`` stands; returns the averaged network. ``accelerator``: accelerate's.

    Several processes share the rows of each batch.
    """
    torch.manual_seed(options.seed)
    model = Autoencoder().to(device=accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = muon_for(model, options.rate, ("encoder.0.", f"decoder.{len(model.decoder) - 1}."))
    run = Run(folder, model, optimizer, accelerator)
    run.resume()
    wrapped = accelerator.prepare(model)
    steps = options.pictures // options.batch
    while run.step < steps:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(run.step, steps, options.rate)
        pixels, weight = training_crops(options, run.step, accelerator)
        with accelerator.autocast():
            result = wrapped(pixels, options.noise, (options.seed + 1) * 10**7 + run.step)
        loss = reconstruction_loss(result.float(), pixels, weight / weight.mean())
        run.learn(loss, 0.998)
        run.done_step(options.batch, {"loss": loss.item()})
        run.show(lambda: report(run), options.sheet_seconds)
    run.save()
    return run.average


def training_crops(options: AutoencoderOptions, step: int, accelerator: Any) -> tuple[Tensor, Tensor]:
    """This process's rows of a step: pixels [b, 3, crop, crop] and their weights [b, 1, crop, crop]."""
    first = (options.seed + 1) * 10**7 + step * options.batch
    rows = range(accelerator.process_index, options.batch, accelerator.num_processes)
    crops, weights = zip(*(training_crop(first + row, options.crop) for row in rows), strict=True)
    weight = torch.from_numpy(np.stack(weights))[:, None]
    return pixels_of(list(crops)).to(accelerator.device), weight.to(accelerator.device)


def report(run: Run) -> np.ndarray:
    psnr, sheet = watched(run.average)
    print("watched", run.step, {name: round(value, 2) for name, value in psnr.items()}, flush=True)
    return sheet


def trained_autoencoder(folder: Path) -> Autoencoder:
    """The averaged network of a training's folder, as far as it got."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise DynamicIDError(f"There is no trained autoencoder in {folder}. Train one: drawn train autoencoder.")
    model = Autoencoder()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
    return model.eval()
