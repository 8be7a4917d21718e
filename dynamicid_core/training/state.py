"""What a run keeps: the average of its weights, and states from which it goes on to the same bits.

A state is a folder that accelerate writes (optimiser, gradient scaler), in which the model's part is ours: the trained
tensors alone, by the checkpoint's names, without what is frozen and without names that depend on the number of processes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files import read_safetensors
from ..parts import PREFIXES
from ..saving import write_safetensors
from ..types import DynamicIDError

_FOLDER = re.compile(r"step-(\d+)$")
TRAINED, AVERAGED = "trained.safetensors", "averaged-{}.safetensors"


def live_tensors(model: nn.Module) -> list[Tensor]:
    """What training changes and an average is taken of: trainable parameters, and running statistics beside them."""
    trained = [p for p in model.parameters() if p.requires_grad]
    buffers = [b for name, b in model.named_buffers() if any(prefix in name for prefix in PREFIXES)]
    return trained + [buffer for buffer in buffers if buffer.is_floating_point()]


class Average:
    """The exponential moving average of a model's trained tensors; with a decay of 0, the tensors themselves."""

    def __init__(self, model: nn.Module, decay: float):
        self.live, self.decay = live_tensors(model), decay
        self.shadow = [tensor.detach().clone() for tensor in self.live] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step number ``step`` (from 1). Young averages forget faster, as usual."""
        if self.shadow:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.shadow, [tensor.detach() for tensor in self.live], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts, the model has the averaged weights; then its own again, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, shadow in zip(self.live, self.shadow, strict=False):  # no shadow without a decay
            own = live.detach().clone()
            live.copy_(shadow)
            shadow.copy_(own)


class States:
    """The folder ``step-000100`` for each saved step, of which the newest ``keep`` stay (0: all)."""

    def __init__(self, folder: Path, accelerator: Any, average: Average, keep: int):
        self.folder, self.accelerator, self.average, self.keep = folder, accelerator, average, keep
        accelerator.register_save_state_pre_hook(self._save)
        accelerator.register_load_state_pre_hook(self._load)

    def of(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step-{step:06d}"

    def saved(self) -> list[int]:
        """Steps that there are complete states of, in order."""
        found = [_FOLDER.search(path.parent.name) for path in self.folder.glob("step-*/state")]
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int) -> None:
        """Write the state, under a temporary name first, and remove old folders. All processes call this together."""
        part, final = self.of(step) / "state.part", self.of(step) / "state"
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
            for old in self.saved()[: -self.keep] if self.keep else ():
                shutil.rmtree(self.of(old), ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def resume(self) -> int:
        """Load the newest state; returns the steps that it has seen, 0 if there is none."""
        steps = self.saved()
        if steps:
            self.accelerator.load_state(str(self.of(steps[-1]) / "state"))
        return steps[-1] if steps else 0

    # --- the model's part of accelerate's folder

    @property
    def _sharded(self) -> bool:
        """Under FSDP every process has its own part of the average; else all have the same."""
        return str(self.accelerator.distributed_type).endswith("FSDP")

    def _averaged(self, folder: str | Path) -> Path:
        return Path(folder) / AVERAGED.format(self.accelerator.process_index if self._sharded else 0)

    def _save(self, models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        main = self.accelerator.is_main_process
        if self.average.shadow and (main or self._sharded):
            shadow = {str(i): _local(tensor) for i, tensor in enumerate(self.average.shadow)}
            write_safetensors(self._averaged(folder), shadow, {})
        if weights and main:  # accelerate has written shards where there are none
            own = trained_tensors(self.accelerator.unwrap_model(models[0]).state_dict())
            write_safetensors(Path(folder) / TRAINED, own, {})
        weights.clear()

    def _load(self, models: list[nn.Module], folder: str) -> None:
        path = self._averaged(folder)
        if bool(self.average.shadow) != path.is_file():
            raise DynamicIDError(
                f"The run in {self.folder} was made {'with' if path.is_file() else 'without'} averaged weights. Set ema_decay "
                "as it was, or choose another output folder."
            )
        if self.average.shadow:
            tensors, _ = read_safetensors(path)
            for i, shadow in enumerate(self.average.shadow):
                _local(shadow).copy_(tensors[str(i)])
        if models:
            self._load_trained(self.accelerator.unwrap_model(models[0]), Path(folder) / TRAINED)
        models.clear()

    def _load_trained(self, model: nn.Module, path: Path) -> None:
        (tensors, _), own = read_safetensors(path), trained_tensors(model.state_dict())
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in own.items()}:
            raise DynamicIDError(
                f"The run in {self.folder} trained weights of another form (rank, depth, or another base). Set them as they "
                "were, or choose another output folder."
            )
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach()


def trained_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a model's tensors by name, those that a checkpoint holds."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIXES)}
