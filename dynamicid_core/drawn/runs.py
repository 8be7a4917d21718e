"""A training's folder: checkpoints that survive any kill, a curve in curve.csv, sheets to look at."""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..saving import write_picture
from ..writing import writing

CHECKPOINT = "checkpoint.pt"


class Run:
    """One training in ``folder``: where it stands, what it keeps, how fast it goes.

    ``model``, ``average`` (its exponential average) and ``optimizer`` are written to ``checkpoint.pt`` every
    ``save_seconds`` and read from there when the run starts again. Of several processes the first one writes.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        save_seconds: float = 120,
    ) -> None:
        self.folder, self.model, self.optimizer, self.accelerator = folder, model, optimizer, accelerator
        self.average: Any = copy.deepcopy(model).eval()
        self.save_seconds, self.step = save_seconds, 0
        folder.mkdir(parents=True, exist_ok=True)
        self.saved_at = self.shown_at = self.told_at = time.monotonic()
        self.sums: dict[str, list[float]] = {}
        self.pictures = 0

    def resume(self) -> int:
        """The number of steps done, 0 for a fresh run."""
        path = self.folder / CHECKPOINT
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
        return self.step

    def save(self) -> None:
        self.saved_at = time.monotonic()
        if not self.accelerator.is_main_process:
            return
        parts: dict[str, Any] = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        with writing(self.folder / CHECKPOINT) as file:
            torch.save(state | {"step": self.step}, file)

    def learn(self, loss: Tensor, decay: float) -> None:
        """A step of the optimiser, whose gradients are no longer than 1, and of the average."""
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.follow(decay)

    def follow(self, decay: float) -> None:
        """The average moves towards the model; early it moves faster."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
            for kept, held in zip(self.average.buffers(), self.model.buffers(), strict=True):
                kept.copy_(held)

    def done_step(self, pictures: int, values: dict[str, float], every: int = 100) -> None:
        """Counts a step, and after each ``every`` writes a row of means to the curve and to stdout."""
        self.step += 1
        self.pictures += pictures
        for name, value in values.items():
            self.sums.setdefault(name, []).append(value)
        if self.step % every == 0:
            now = time.monotonic()
            row = {"step": float(self.step), "pictures_per_second": self.pictures / (now - self.told_at)}
            row |= {name: float(np.mean(kept)) for name, kept in self.sums.items()}
            self.write_row(row)
            self.told_at, self.pictures, self.sums = now, 0, {}
        if time.monotonic() - self.saved_at > self.save_seconds:
            self.save()

    def write_row(self, row: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        path = self.folder / "curve.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(row)
            writer.writerow([f"{value:.6g}" for value in row.values()])
        print("  ".join(f"{name} {value:.5g}" for name, value in row.items()), flush=True)

    def show(self, sheet: Callable[[], np.ndarray], seconds: float) -> None:
        """A sheet of ``sheet()`` (uint8 RGB) when ``seconds`` have passed since the last one."""
        if time.monotonic() - self.shown_at > seconds and self.accelerator.is_main_process:
            write_picture(self.folder / f"sheet_{self.step:07d}.png", Image.fromarray(sheet()))
            self.shown_at = time.monotonic()


def pixels_of(pictures: list[np.ndarray]) -> Tensor:
    """Pictures uint8 [h, w, 3] of one size -> float32 [B, 3, h, w], 0 to 1, channels last."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return batch.contiguous(memory_format=torch.channels_last)


def pictures_of(pixels: Tensor) -> np.ndarray:
    """[B, 3, h, w], 0 to 1 -> uint8 [B, h, w, 3]."""
    return (pixels.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def tiled(pictures: np.ndarray | list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in rows, the rest of the last row black."""
    kept = list(pictures)
    kept += [np.zeros_like(kept[0])] * (-len(kept) % columns)
    return np.concatenate([np.concatenate(kept[i : i + columns], 1) for i in range(0, len(kept), columns)], 0)
