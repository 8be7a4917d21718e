"""The training loop, one for both stages.

What is random, and the learning rate, are functions of the seed and the step; so a run that goes on where another stopped
needs weights, their average and the optimiser's moments, and goes on to the same bits.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import WEIGHTS
from ..saving import write_picture
from ..types import DynamicIDError
from ..writing import copy
from .batches import row_generator
from .settings import StageSettings
from .state import Average, States, trained_tensors

if TYPE_CHECKING:
    from PIL.Image import Image

# The batches of this process, from one number to another (excluded).
Batches = Callable[[int, int], Iterator[Any]]
# Model, batch, noise, timesteps -> "loss", which is to fall, and its parts.
Losses = Callable[[nn.Module, Any, Tensor, Tensor], dict[str, Tensor]]
# Path, trained tensors, step: writes a checkpoint.
Write = Callable[[Path, Mapping[str, Tensor], int], object]
# Trained tensors, step -> validation pictures on one sheet.
Draw = Callable[[Mapping[str, Tensor], int], "Image"]


@dataclass(frozen=True)
class Stage:
    """What differs between the stages."""

    name: str  # "anchor" or "reconfigure", the folder of its files
    file: str  # what a checkpoint is called: "saa.safetensors" or "imr.safetensors"
    model: nn.Module  # what accelerate prepares; its trained tensors have the checkpoint's names
    losses: Losses
    write: Write
    draw: Draw | None = None
    timesteps: int = 1000  # of the noise schedule


@dataclass(frozen=True)
class Summary:
    """What a run came to."""

    checkpoint: Path
    steps: int
    started_at: int  # the step that it went on from
    losses: dict[str, float]  # means since the last ones were logged
    seconds: float


def make_accelerator(settings: StageSettings, folder: Path) -> Any:
    """accelerate's view of the machine, which ``accelerate launch`` and its configuration files decide.

    Raises DynamicIDError where half precision is asked for and there is no device for it, and for a missing tracker.
    """
    from accelerate import Accelerator

    precision = None if settings.mixed_precision == "auto" else settings.mixed_precision
    if precision is None and "ACCELERATE_MIXED_PRECISION" not in os.environ and torch.cuda.is_available():
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and not torch.cuda.is_available():
        raise DynamicIDError("mixed_precision is fp16, which needs a GPU. Set it to no, or to bf16.")
    if settings.tracker != "none" and not find_spec(settings.tracker):
        raise DynamicIDError(f"The tracker {settings.tracker} is not installed: pip install {settings.tracker}.")
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=settings.accumulation,
        log_with=None if settings.tracker == "none" else settings.tracker,
        project_dir=str(folder),
    )


def learning_rate(settings: StageSettings, step: int) -> float:
    """Of optimiser step number ``step`` (from 0): rising in a line during the warm-up, then constant or along a cosine to 0."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def draw_noise(latents: Tensor, seed: int, number: int, process: int, timesteps: int) -> tuple[Tensor, Tensor]:
    """Noise like ``latents`` [B, ..., 4, h, w] and timesteps [B, ...] of this process's rows in batch ``number``."""
    noise, times = [], []
    for row in range(len(latents)):
        generator = row_generator(seed, number, process * len(latents) + row)
        noise.append(torch.randn(latents.shape[1:], generator=generator))
        times.append(torch.randint(timesteps, latents.shape[1:-3], generator=generator))
    return torch.stack(noise).to(latents.device), torch.stack(times).to(latents.device)


class Trainer:
    """One run of a stage: :meth:`train` is the loop, the rest what happens around its steps."""

    def __init__(self, stage: Stage, settings: StageSettings, accelerator: Any, output: Path, seed: int):
        """``output``: the folder of all stages; what belongs to this one lies in a folder below it."""
        self.stage, self.settings, self.accelerator, self.output, self.seed = stage, settings, accelerator, output, seed
        trained = [p for p in stage.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.model, self.optimizer = accelerator.prepare(stage.model, optimizer)
        self.average = Average(self.model, settings.ema_decay)
        self.states = States(output / stage.name, accelerator, self.average, settings.keep)
        self._sums: dict[str, Tensor] = {}  # of the losses since they were logged
        self._count = 0

    def train(self, batches: Batches, resume: bool = False, progress: bool = True) -> Summary:
        """Train to the last step. ``resume``: go on from the newest state, if there is one; ``progress``: show a bar.

        Raises DynamicIDError where a run is there already, where the loss is no longer a number, and where the device has
        no memory left.
        """
        from tqdm import tqdm

        first, began, losses = self._start(resume), time.monotonic(), {}
        last, parts = self.settings.steps, self.settings.accumulation
        stream = batches(first * parts, last * parts)
        quiet = not (progress and self.accelerator.is_local_main_process)
        with tqdm(total=last, initial=first, desc=self.stage.name, disable=quiet, file=sys.stderr) as bar:
            for step in range(first + 1, last + 1):
                for number in range((step - 1) * parts, step * parts):
                    self._backward(next(stream), number)
                self.average.update(step)
                if self._due(step, self.settings.log_every):
                    losses = self._log(step)
                    bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)
                bar.update()
                self._keep(step)
        for tracker in self.accelerator.trackers:
            tracker.finish()
        return Summary(self.output / self.stage.file, last, first, losses, time.monotonic() - began)

    def _start(self, resume: bool) -> int:
        """The steps that are done already."""
        if not resume and (saved := self.states.saved()):
            raise DynamicIDError(
                f"{self.states.folder} holds a run of {saved[-1]} steps. Go on with --resume, or choose another output folder."
            )
        if self.settings.tracker != "none":
            config = {name: str(value) for name, value in vars(self.settings).items()}
            self.accelerator.init_trackers(self.stage.name, config)
        return self.states.resume() if resume else 0

    def _due(self, step: int, every: int) -> bool:
        return bool(every) and (step % every == 0 or step == self.settings.steps)

    def _backward(self, batch: Any, number: int) -> None:
        """Forward and backward of batch ``number``; after the last batch of a step, the optimiser's step."""
        accelerator = self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, number // self.settings.accumulation)
        with _explaining_memory(), accelerator.accumulate(self.model):
            batch = batch.to(accelerator.device, torch.float32)
            noise, times = draw_noise(batch.latents, self.seed, number, accelerator.process_index, self.stage.timesteps)
            with accelerator.autocast():
                losses = self.stage.losses(self.model, batch, noise, times)
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients and self.settings.max_gradient_norm:
                accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(loss)) + loss.detach()
        self._count += 1

    def _means(self) -> dict[str, float]:
        """The losses since they were last logged, over all processes. Raises DynamicIDError if one is no number."""
        if not self._count:
            return {}
        means = self.accelerator.reduce(torch.stack(list(self._sums.values())) / self._count, "mean")
        losses = dict(zip(self._sums, means.tolist(), strict=True))
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise DynamicIDError(
                "The loss is no longer a number. Lower the learning rate, or set mixed_precision to bf16 or no, and go on "
                "from the last checkpoint with --resume."
            )
        return losses

    def _log(self, step: int) -> dict[str, float]:
        losses = self._means()
        self._sums, self._count = {}, 0
        rate = self.optimizer.param_groups[0]["lr"]
        self.accelerator.log({**losses, "learning_rate": rate}, step=step)
        return losses

    def _keep(self, step: int) -> None:
        """Save a checkpoint, draw validation pictures, or both, where it is time for that."""
        saves = self._due(step, self.settings.save_every)
        draws = self.stage.draw is not None and self._due(step, self.settings.validation.every)
        if not saves and not draws:
            return
        self._means()  # no broken weights are saved
        with self.average.in_place():  # the averaged weights are what a checkpoint holds
            tensors = trained_tensors(self.accelerator.get_state_dict(self.model))
            tensors = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        if saves:
            if self.accelerator.is_main_process:
                self._write(tensors, step)
            self.states.save(step)  # last: where there is a state, there is its checkpoint
        if draws and self.accelerator.is_main_process:
            self._draw(tensors, step)
        self.accelerator.wait_for_everyone()

    def _write(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """The checkpoint beside the state, and as the newest one in the output folder."""
        path = self.states.of(step) / self.stage.file
        self.stage.write(path, tensors, step)
        copy(path, self.output / self.stage.file, WEIGHTS)

    def _draw(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Validation pictures, into the stage's folder and to the tracker."""
        assert self.stage.draw is not None
        picture = self.stage.draw(tensors, step)
        write_picture(self.states.folder / "validation" / f"step-{step:06d}.png", picture)
        for tracker in self.accelerator.trackers:
            axes = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": np.asarray(picture)[None]}, step=step, **axes)


@contextmanager
def _explaining_memory() -> Iterator[None]:
    """Where the device has no memory left, say what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DynamicIDError(
            "The device has no memory left. Lower batch (and raise accumulation by as much), set gradient_checkpointing, or "
            "lower size."
        ) from error
