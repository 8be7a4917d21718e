"""Both stages learn one batch by heart."""

from __future__ import annotations

import pytest
import tiny_training as tiny
import torch

from dynamicid_core.training.loop import draw_noise
from dynamicid_core.training.reconfigure import reconfigure_losses

pytest.importorskip("diffusers")


def overfit(model, losses, batch, steps: int, rate: float) -> tuple[dict[str, float], dict[str, float]]:
    """First and last losses on the same batch with the same noise."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    noise, times = draw_noise(batch.latents, seed=0, number=0, process=0, timesteps=1000)
    found = []
    for _ in range(steps):
        values = losses(model, batch, noise, times)
        values["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append({name: float(value.detach()) for name, value in values.items()})
    return found[0], found[-1]


def test_anchoring_learns_one_batch():
    first, last = overfit(tiny.anchor_model(rank=16), tiny.losses, tiny.anchor_batch(), steps=50, rate=1e-2)
    print(first, last)
    assert last["loss"] < first["loss"] / 3


def test_reconfiguration_learns_one_batch():
    unet = tiny.face_unet()

    def losses(model, batch, noise, times):
        return reconfigure_losses(model, unet, batch, noise, times, tiny.SCHEDULE)

    first, last = overfit(tiny.motion_model(), losses, tiny.reconfigure_batch(), steps=30, rate=5e-3)
    print(first, last)
    assert last["dfm"] < first["dfm"] / 5
    assert last["ldc"] < first["ldc"] / 3
